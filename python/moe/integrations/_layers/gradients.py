"""Gradients of compiled layers, as operations of PyTorch.

``moe_mlir::layer_forward`` returns what ``moe_mlir::layer`` does, and after it the tensors
that the backward function of the layer takes, which ``moe_mlir::layer_backward`` runs. Both
have all that they depend on as operands. ``needed`` are the numbers of the arguments, inputs
first and then weights, that need a gradient: a backward function is compiled for each set.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..._error import UNIMPLEMENTED, MoEError
from .accumulation import sum_of
from .device import check_device
from .functions import compiled, current, described, device_of, extents

__all__ = ["differentiated", "gradients", "needed_of"]


class Differentiated:
    """A layer and its backward function, compiled for the gradients of some arguments.

    Gradients of ``sums`` are added to what there is: by the number of the argument, whether
    that is f32 where the argument is narrower.
    """

    def __init__(self, mlir: str, needed: tuple[int, ...], device: torch.device, options: str,
                 sums: tuple[tuple[int, bool], ...]):
        given = json.loads(options)
        given.pop("accumulate_into", None)
        if needed:
            lists = {"backward": needed, "accumulate": [i for i, _ in sums],
                     "f32-gradients": [i for i, in_f32 in sums if in_f32]}
            given["options"] = [*given.get("options", ()),
                                *(f"--{name}={','.join(map(str, numbers))}"
                                  for name, numbers in lists.items() if numbers)]
        try:
            self.module = compiled(mlir, device, json.dumps(given))
        except MoEError as error:
            if not needed:
                raise
            raise MoEError(UNIMPLEMENTED, "a compiled layer cannot be differentiated: "
                           f"{error.message}") from error
        found = self.module.functions
        self.forward = next(n for n in found if not n.endswith("_backward"))
        signature = self.module.signature(self.forward)
        self.inputs, self.results = len(signature.inputs), list(map(described, signature.outputs))
        self.names = [info.name for info in (*signature.inputs, *signature.weights)]
        self.backward, self.taken, self.gradients = f"{self.forward}_backward", [], []
        if needed:
            signature = self.module.signature(self.backward)
            names = {info.name for info in (*signature.inputs, *signature.weights)}
            # The arguments that the backward function takes.
            self.taken = [i for i, name in enumerate(self.names) if name in names]
            self.gradients = list(map(described, signature.outputs))

    def taken_of(self, groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
        """Return the tensors that the backward function takes."""
        return [t for i in self.taken for t in groups[i]]


@functools.cache
def differentiated(mlir: str, needed: tuple[int, ...], device: torch.device, options: str = "{}",
                   sums: tuple[tuple[int, bool], ...] = ()) -> Differentiated:
    """Return a compiled layer and its backward function."""
    check_device(device, "an input of a compiled layer")
    return Differentiated(mlir, needed, device, options, sums)


def needed_of(inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor],
              counts: Sequence[int] | None = None) -> list[int]:
    """Return the numbers of the arguments that need a gradient."""
    if not torch.is_grad_enabled():
        return []
    return [i for i, group in enumerate(_groups(inputs, weights, counts))
            if any(t.requires_grad for t in group)]


def _groups(inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor],
            counts: Sequence[int] | None) -> list[list[torch.Tensor]]:
    """Return the tensors of each argument; ``counts`` of the weights are parts of one."""
    groups, first = [[t] for t in inputs], 0
    for count in counts or [1] * len(weights):
        groups.append(list(weights[first:first + count]))
        first += count
    return groups


@torch.library.custom_op("moe_mlir::layer_forward", mutates_args=())
def layer_forward(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str,
                  needed: Sequence[int], followed: bool, counts: Sequence[int] | None,
                  options: str) -> list[torch.Tensor]:
    """Run the function ``mlir``; return its result, and what its backward function takes.

    The operands are those of ``moe_mlir::layer``; ``options`` are those of ``moe.compile``, as
    JSON.
    """
    device = device_of([*inputs, *weights])
    both = differentiated(mlir, tuple(needed), device, options)
    with current(both.module, both.forward, weights, device, followed, counts) as function:
        result, *saved = function.run(inputs)
    return [result.to(inputs[0].dtype).reshape(inputs[0].shape[:-1] + result.shape[1:]), *saved]


@layer_forward.register_fake
def _(inputs: list[torch.Tensor], weights: list[torch.Tensor], mlir: str, needed: Sequence[int],
      followed: bool, counts: Sequence[int] | None, options: str) -> list[torch.Tensor]:
    device = device_of([*inputs, *weights])
    (_, _, shape), *saved = differentiated(mlir, tuple(needed), device, options).results
    tokens = inputs[0].shape[:-1].numel()
    return [inputs[0].new_empty((*inputs[0].shape[:-1], *shape[1:])),
            *(inputs[0].new_empty(extents(shape, tokens), dtype=dtype)
              for _, dtype, shape in saved)]


@torch.library.custom_op("moe_mlir::layer_backward", mutates_args=())
def layer_backward(taken: list[torch.Tensor], saved: list[torch.Tensor], gradient: torch.Tensor,
                   mlir: str, needed: Sequence[int], followed: bool,
                   counts: Sequence[int] | None, options: str) -> list[torch.Tensor]:
    """Run the backward function of ``mlir``; return the gradients of the arguments ``needed``.

    ``taken`` are the arguments that it takes, in their order.
    """
    return _run_backward(taken, saved, gradient, mlir, needed, followed, counts, options, {})


def _run_backward(taken: Sequence[torch.Tensor], saved: Sequence[torch.Tensor],
                  gradient: torch.Tensor, mlir: str, needed: Sequence[int], followed: bool,
                  counts: Sequence[int] | None, options: str,
                  sums: Mapping[int, tuple[torch.Tensor, bool]]) -> list[torch.Tensor]:
    """Run a backward function that adds the gradients of some arguments to ``sums``."""
    device = device_of([gradient, *taken, *saved])
    both = differentiated(mlir, tuple(needed), device, options,
                          tuple((i, in_f32) for i, (_, in_f32) in sums.items()))
    inputs = sum(i < both.inputs for i in both.taken)
    if counts is not None:
        counts = [counts[i - both.inputs] for i in both.taken[inputs:]]
    given = {both.names[i]: t for i, t in zip(both.taken, taken[:inputs])}
    given.update({f"saved{i}": t for i, t in enumerate(saved)})
    tokens = gradient.shape[:-1].numel()
    with current(both.module, both.backward, taken[inputs:], device, followed,
                 counts) as function:
        rows = [given.get(name, gradient).detach().reshape(extents(shape, tokens)).to(dtype)
                .contiguous() for name, dtype, shape in function.inputs]
        return function.run_on(tokens, rows, {f"{both.names[i]}_gradient": memory
                                              for i, (memory, _) in sums.items()})


@layer_backward.register_fake
def _(taken: list[torch.Tensor], saved: list[torch.Tensor], gradient: torch.Tensor, mlir: str,
      needed: Sequence[int], followed: bool, counts: Sequence[int] | None,
      options: str) -> list[torch.Tensor]:
    both = differentiated(mlir, tuple(needed), gradient.device, options)
    tokens = gradient.shape[:-1].numel()
    return [gradient.new_empty(extents(shape, tokens), dtype=dtype)
            for _, dtype, shape in both.gradients]


def _no_second(*_: Any) -> None:
    raise MoEError(UNIMPLEMENTED, "gradients of a compiled layer have no gradients themselves")


layer_backward.register_autograd(_no_second)


def gradients(taken: list[torch.Tensor], saved: list[torch.Tensor], gradient: torch.Tensor,
              likes: Sequence[tuple[torch.Size, torch.dtype, int]], mlir: str,
              needed: Sequence[int], followed: bool, counts: Sequence[int] | None,
              options: str, sums: Mapping[int, tuple[torch.Tensor, bool]] = {}
              ) -> list[torch.Tensor | None]:
    """Return the gradients of all tensors, in the shapes and types that ``likes`` has of each
    argument, with the number of its parts; None for those that were added to ``sums``."""
    run = torch.ops.moe_mlir.layer_backward
    if sums:
        run = functools.partial(_run_backward, sums=sums)
    found = dict(zip(needed, run(taken, saved, gradient, mlir, needed, followed, counts, options)))
    for i in sums:
        del found[i]
    results: list[torch.Tensor | None] = []
    for i, (shape, dtype, count) in enumerate(likes):
        if i not in found:
            results += [None] * count
        elif count == 1:
            results.append(found[i].reshape(shape).to(dtype))
        else:
            results += [p.to(dtype) for p in found[i].reshape(count, *shape).unbind()]
    return results


def likes_of(groups: Sequence[Sequence[torch.Tensor]]) -> list[tuple[torch.Size, torch.dtype, int]]:
    """Return the shape and the type of each argument, and the number of its parts."""
    return [(group[0].shape, group[0].dtype, len(group)) for group in groups]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    tensors, weights, mlir, needed, followed, counts, options = inputs
    groups = _groups(tensors, weights, counts)
    taken = differentiated(mlir, tuple(needed), tensors[0].device, options).taken_of(groups)
    _, *saved = output
    ctx.mark_non_differentiable(*saved)
    ctx.set_materialize_grads(False)
    # Autograd refuses a backward pass after a change of these in place.
    ctx.save_for_backward(*taken, *saved)
    ctx.taken, ctx.inputs, ctx.likes = len(taken), len(tensors), likes_of(groups)
    ctx.rest = mlir, needed, followed, counts, options
    ctx.where = json.loads(options).get("accumulate_into")
    ctx.leaves = {i: weakref.ref(groups[i][0]) for i in needed if ctx.where is not None
                  and i >= len(tensors) and len(groups[i]) == 1
                  and type(groups[i][0]) is torch.nn.Parameter}


def _sums(ctx: Any, gradient: torch.Tensor) -> dict[int, tuple[torch.Tensor, bool]]:
    """Return the memory that gradients are added to, and whether it is wider than they are."""
    found: dict[int, tuple[torch.Tensor, bool]] = {}
    if torch.compiler.is_compiling() or type(gradient) is not torch.Tensor:
        return found  # graphs have no memory of gradients
    for i, reference in ctx.leaves.items():
        parameter = reference()
        memory = None if parameter is None else sum_of(parameter, ctx.where)
        if memory is not None:
            found[i] = memory, memory.dtype != parameter.dtype
    return found


def _backward(ctx: Any, results: list[torch.Tensor | None]) -> tuple[Any, ...]:
    tensors, gradient = list(ctx.saved_tensors), results[0]
    count = sum(like[2] for like in ctx.likes)
    found: list[torch.Tensor | None] = [None] * count
    if gradient is not None:
        found = gradients(tensors[:ctx.taken], tensors[ctx.taken:], gradient, ctx.likes,
                          *ctx.rest, sums=_sums(ctx, gradient))
    return found[:ctx.inputs], found[ctx.inputs:], None, None, None, None, None


layer_forward.register_autograd(_backward, setup_context=_setup)


def recomputed(inputs: list[torch.Tensor], weights: list[torch.Tensor], gradient: torch.Tensor,
               needs: Sequence[bool], mlir: str, followed: bool, counts: Sequence[int] | None
               ) -> tuple[list[torch.Tensor | None], list[torch.Tensor | None]]:
    """Return the gradients of a layer of which nothing was kept: it runs again."""
    groups, first = _groups(inputs, weights, counts), 0
    needed = []
    for i, group in enumerate(groups):
        if any(needs[first:first + len(group)]):
            needed.append(i)
        first += len(group)
    taken = differentiated(mlir, tuple(needed), gradient.device).taken_of(groups)
    with torch.no_grad():
        _, *saved = torch.ops.moe_mlir.layer_forward(inputs, weights, mlir, needed, followed,
                                                     counts, "{}")
    found = gradients(taken, saved, gradient, likes_of(groups), mlir, needed, followed, counts,
                      "{}")
    return found[:len(inputs)], found[len(inputs):]
