"""A compiled layer as one operation of PyTorch: ``moe_mlir::layer``.

Its operands are all that it depends on: the inputs, the weights, and the MLIR of the
function as text. So graphs that have it can be saved, and run in any process that
imported ``moe.integrations.torch``; the function is compiled when it first runs there.
Weights are prepared at the first call with them, and again after a change that torch
counts. That works for weights that stay; those that a graph computes may get the memory
of others, and are prepared in every call, with a warning.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Module
from ._device import Bound, check_device, compile_for
from ._follow import StorageSnapshot
from ._scalars import DTYPES

__all__ = ["layer"]

_lock = threading.RLock()
_modules: dict[tuple[str, torch.device], Module] = {}
_bound: dict[tuple[Any, ...], _Function] = {}
_warned: set[str] = set()
_TYPES = {name: dtype for dtype, name in DTYPES.items()} | {"i32": torch.int32, "i64": torch.int64}


class _Function(Bound):
    """A compiled function with weights at one time."""

    def __init__(self, mlir: str, weights: Sequence[torch.Tensor], device: torch.device,
                 followed: bool, counts: Sequence[int] | None):
        key = mlir, device
        if key not in _modules:
            _modules[key] = compile_for(mlir, device)
        module = _modules[key]
        super().__init__(module, weights, device, StorageSnapshot if followed else None,
                         lambda w: _whole(w, counts, module))
        signature = self.layer.signature
        self.inputs = [(i.name, _TYPES[i.dtype], i.shape[1:]) for i in signature.inputs]
        self.output = _TYPES[signature.outputs[0].dtype]
        self.columns = signature.outputs[0].shape[1:]

    def is_dead(self) -> bool:
        return self.snapshots is None or any(s.is_dead() for s in self.snapshots)

    def run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(inputs) != len(self.inputs):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(self.inputs)} inputs, got "
                           f"{len(inputs)}")
        rows = [self._rows(t, *expected) for t, expected in zip(inputs, self.inputs)]
        tokens = rows[0].shape[0]
        if any(r.shape[0] != tokens for r in rows):
            raise MoEError(INVALID_ARGUMENT, "expected inputs of as many tokens, got "
                           + " and ".join(str(r.shape[0]) for r in rows))
        out = torch.empty((tokens, *self.columns), dtype=self.output, device=self.device)
        self.call(tokens, rows, (out,))
        return out.to(inputs[0].dtype).reshape(inputs[0].shape[:-1] + self.columns)

    def _rows(self, tensor: torch.Tensor, name: str, dtype: torch.dtype,
              columns: tuple[int, ...]) -> torch.Tensor:
        """Return ``tensor`` as the function takes it; other types come from autocast."""
        if tensor.ndim < 2 or tensor.shape[-len(columns):] != columns or (
                tensor.is_floating_point() != dtype.is_floating_point):
            raise MoEError(INVALID_ARGUMENT, f"{name} is {tensor.dtype} {list(tensor.shape)}, "
                           f"expected {dtype} [T, {', '.join(map(str, columns))}]")
        return tensor.reshape(-1, *columns).to(dtype).contiguous()


def _whole(weights: Sequence[torch.Tensor], counts: Sequence[int] | None,
           module: Module) -> list[torch.Tensor]:
    """Return the weights that the function takes; ``counts`` of them are parts of each."""
    if counts is None:
        return list(weights)
    parts = iter(weights)
    whole = []
    for count, info in zip(counts, module.signature().weights):
        own = [next(parts) for _ in range(count)]
        whole.append((own[0] if count == 1 else torch.stack(own)).reshape(info.shape))
    return whole


def _current(mlir: str, weights: Sequence[torch.Tensor], device: torch.device,
             followed: bool, counts: Sequence[int] | None = None) -> _Function:
    key = (mlir, device, *(w.data_ptr() for w in weights))
    bound = _bound.get(key)
    if bound is None or not bound.is_of(weights):
        with _lock, torch.no_grad():
            bound = _bound.get(key)
            if bound is None or not bound.is_of(weights):
                # First, so that two prepared copies of weights never coexist.
                for old in [k for k, b in _bound.items() if k == key or b.is_dead()]:
                    del _bound[old]
                why = None if followed else "are computed for every call"
                if any(w.is_inference() for w in weights):
                    why = "were made in inference mode, where torch counts no writes"
                bound = _Function(mlir, weights, device, why is None, counts)
                if why is None:
                    _keep(key, bound, weights)
                elif why not in _warned:
                    _warned.add(why)
                    warnings.warn(f"weights of a compiled layer {why}: they are prepared in every "
                                  "call", stacklevel=2)
    return bound


def _keep(key: tuple[Any, ...], bound: _Function, weights: Sequence[torch.Tensor]) -> None:
    """Keep a compiled function until one of its weights is gone."""
    _bound[key] = bound

    def forget() -> None:
        if _bound.get(key) is bound:
            del _bound[key]

    for weight in weights:
        if isinstance(weight, torch.nn.Parameter):
            weakref.finalize(weight, forget).atexit = False


def run(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str,
        followed: bool, counts: Sequence[int] | None = None) -> torch.Tensor:
    """Run the function ``mlir``, as the operation does."""
    device = _device_of(inputs, weights)
    check_device(device, "an input of a compiled layer")
    return _current(mlir, weights, device, followed, counts).run(inputs)


def _device_of(inputs: list[torch.Tensor], weights: list[torch.Tensor]) -> torch.device:
    device = inputs[0].device
    for tensor in (*inputs, *weights):
        if tensor.device != device:
            raise MoEError(INVALID_ARGUMENT, f"a compiled layer got tensors on '{device}' and "
                           f"'{tensor.device}', expected one device")
    return device


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
                     values: list[float]) -> torch.Tensor:
    """Run the function ``mlir``, in which ``attributes`` are constants.

    They are numbers that had ``values`` when the function was made.
    """
    for attribute, value in zip(attributes, values):
        if attribute.item() != value:
            raise MoEError(FAILED_PRECONDITION, f"an attribute of a compiled layer is now "
                           f"{attribute.item()}, expected {value}; call torch._dynamo.reset() "
                           "after changing it")
    return run(inputs, weights, mlir, followed)


def _fake(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str, columns: int,
          *_: Any) -> torch.Tensor:
    _device_of(inputs, weights)  # a weight on the device "meta" comes here, too
    return inputs[0].new_empty((*inputs[0].shape[:-1], columns))


def _backward(*_: Any) -> None:
    raise MoEError(UNIMPLEMENTED, "compiled layers are for inference and have no gradients; run "
                   "under torch.no_grad(), also to trace a forward pass by torch.compile")


for _operation in (layer, layer_of_numbers):
    _operation.register_fake(_fake)
    _operation.register_autograd(_backward)
