"""A compiled layer as one operation of PyTorch: ``moe_mlir::layer``.

Its operands are all that it depends on: the inputs, the weights, and the MLIR of the
function as text. So graphs that have it can be saved, and run in any process that
imported ``moe.integrations.torch``; the function is compiled when it first runs there.
Its gradients need its operands alone: a backward pass runs the layer again, and keeps what
the backward function takes. ``moe_mlir::layer_forward`` (``gradients``) keeps it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..._error import FAILED_PRECONDITION, MoEError
from .device import check_device
from .functions import compiled, current, device_of
from .gradients import recomputed

__all__ = ["layer", "run"]


def run(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str,
        followed: bool, counts: Sequence[int] | None = None) -> torch.Tensor:
    """Run the function ``mlir``, as the operation does."""
    device = device_of([*inputs, *weights])
    check_device(device, "an input of a compiled layer")
    with current(compiled(mlir, device), None, weights, device, followed, counts) as function:
        y, = function.run(inputs)
    return y.to(inputs[0].dtype).reshape(inputs[0].shape[:-1] + y.shape[1:])


@torch.library.custom_op("moe_mlir::layer", mutates_args=())
def layer(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str, columns: int,
          followed: bool, counts: Sequence[int] | None = None) -> torch.Tensor:
    """Run the function ``mlir``.

    The first input is the rows, ``[..., H]``; the result is ``[..., columns]``, of its type.
    ``followed`` says that the weights stay, so that their preparation may be kept. With
    ``counts`` so many of the weights in turn are the parts of one that the function takes.
    """
    return run(inputs, weights, mlir, followed, counts)


@torch.library.custom_op("moe_mlir::layer_of_numbers", mutates_args=())
def layer_of_numbers(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str,
                     columns: int, followed: bool, attributes: list[torch.Tensor],
                     values: list[float], counts: Sequence[int] | None = None) -> torch.Tensor:
    """Run the function ``mlir``, in which ``attributes`` are constants.

    They are numbers that had ``values`` when the function was made.
    """
    for attribute, value in zip(attributes, values):
        if attribute.item() != value:
            raise MoEError(FAILED_PRECONDITION, f"an attribute of a compiled layer is now "
                           f"{attribute.item()}, expected {value}; call torch._dynamo.reset() "
                           "after changing it")
    return run(inputs, weights, mlir, followed, counts)


def _fake(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str, columns: int,
          *_: Any) -> torch.Tensor:
    device_of([*inputs, *weights])  # a weight on the device "meta" comes here, too
    return inputs[0].new_empty((*inputs[0].shape[:-1], columns))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    tensors, weights, mlir, _, followed, *rest = inputs
    # Attributes are constants of the function. A default may have been left out.
    counts = rest[-1] if len(rest) in (1, 3) else None
    ctx.save_for_backward(*tensors, *weights)
    ctx.inputs, ctx.rest = len(tensors), (mlir, followed, counts)


def _backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
    tensors = list(ctx.saved_tensors)
    needs = [*ctx.needs_input_grad[0], *ctx.needs_input_grad[1]]
    found = recomputed(tensors[:ctx.inputs], tensors[ctx.inputs:], gradient, needs, *ctx.rest)
    # An operand may have been left to its default.
    return *found, *[None] * (len(ctx.needs_input_grad) - 2)


for _operation in (layer, layer_of_numbers):
    _operation.register_fake(_fake)
    _operation.register_autograd(_backward, setup_context=_setup)
