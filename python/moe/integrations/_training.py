"""A compiled layer that trains: its gradients are compiled, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .._compile import compile as compile_module
from .._error import INVALID_ARGUMENT, MoEError
from .._runtime import Layer, Module
from ._module import register

__all__ = ["TrainableLayer"]

GRADIENT = "_gradient"


class _Bound:
    """The layer and its backward function for one set of tensors that need gradients."""

    def __init__(self, mlir: str, names: Sequence[str], needed: Sequence[str],
                 options: Mapping[str, Any]):
        given = tuple(options.get("options", ()))
        backward = (f"--backward={','.join(needed)}",) if needed else ()
        self.module: Module = compile_module(mlir, **{**options, "options": given + backward})
        found = self.module.functions
        self.forward_name = next(n for n in found if not n.endswith("_backward"))
        self.backward_name = f"{self.forward_name}_backward" if needed else None
        self.rows = self.module.signature(self.forward_name).inputs[0].name
        self.names = tuple(names)
        self.layers: dict[str, Layer] = {}
        self.versions: dict[str, tuple[Any, ...]] = {}

    def layer(self, function: str, weights: Mapping[str, torch.Tensor]) -> Layer:
        """Return a function bound to the present contents of the weights."""
        taken = {w.name: weights[w.name] for w in self.module.signature(function).weights}
        # The tensors are kept, so that an address stays theirs.
        version = tuple((t, t._version) for t in taken.values())
        known = self.versions.get(function)
        same = known is not None and all(
            a is b or (a.data_ptr() == b.data_ptr() and a.shape == b.shape) for (a, _), (b, _)
            in zip(known, version)) and [v for _, v in known] == [v for _, v in version]
        if not same:
            arrays = {name: t.detach().contiguous() for name, t in taken.items()}
            if function in self.layers:
                self.layers[function].update(arrays)
            else:
                self.layers[function] = self.module.layer(arrays, function=function)
            self.versions[function] = version
        return self.layers[function]

    def run(self, rows: torch.Tensor, weights: Mapping[str, torch.Tensor]
            ) -> tuple[torch.Tensor, ...]:
        """Return the result of the layer, and what its backward function takes."""
        results = self.layer(self.forward_name, weights)(rows)
        return results if isinstance(results, tuple) else (results,)

    def gradients(self, rows: torch.Tensor, weights: Mapping[str, torch.Tensor],
                  saved: Sequence[torch.Tensor], gradient: torch.Tensor
                  ) -> dict[str, torch.Tensor]:
        """Return the gradients by the names of the arguments."""
        assert self.backward_name is not None
        signature = self.module.signature(self.backward_name)
        inputs = []
        for info in signature.inputs:
            if info.name == self.rows:
                inputs.append(rows)
            elif info.name.startswith("saved"):
                inputs.append(saved[int(info.name.removeprefix("saved"))])
            else:
                inputs.append(gradient)
        results = self.layer(self.backward_name, weights)(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        return {info.name.removesuffix(GRADIENT): result
                for info, result in zip(signature.outputs, results)}


class _Function(torch.autograd.Function):
    """One call of a trainable layer."""

    @staticmethod
    def forward(ctx: Any, bound: _Bound, rows: torch.Tensor,
                *weights: torch.Tensor) -> torch.Tensor:
        result, *saved = bound.run(rows.detach(), dict(zip(bound.names, weights)))
        ctx.bound, ctx.saved = bound, len(saved)
        # Autograd refuses a backward pass after a change of these in place.
        ctx.save_for_backward(rows, *saved, *weights)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        rows, *tensors = ctx.saved_tensors
        bound: _Bound = ctx.bound
        saved, weights = tensors[:ctx.saved], dict(zip(bound.names, tensors[ctx.saved:]))
        found = bound.gradients(rows.detach(), weights, [s.detach() for s in saved],
                                gradient.contiguous())
        return (None, found.get(bound.rows), *(found.get(name) for name in bound.names))


class TrainableLayer(torch.nn.Module):
    """A compiled layer with gradients; see ``Imported.trainable``."""

    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor],
                 options: Mapping[str, Any]):
        super().__init__()
        self._mlir, self._options = mlir, dict(options)
        self._names = tuple(weights)
        for name, tensor in weights.items():
            register(self, name, tensor)
        self._bound: dict[tuple[str, ...], _Bound] = {}

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the layer of rows ``[..., H]``, whose gradient PyTorch can ask for."""
        weights = [self._tensor(name) for name in self._names]
        # The rows are the first argument.
        needed = tuple(name for name, t in zip(("0", *self._names), (rows, *weights))
                       if t.requires_grad) if torch.is_grad_enabled() else ()
        bound = self._bound.get(needed)
        if bound is None:
            bound = _Bound(self._mlir, self._names, needed, self._options)
            self._bound[needed] = bound
        flat = rows.reshape(-1, rows.shape[-1]).contiguous()
        result = _Function.apply(bound, flat, *weights)
        return result.reshape(*rows.shape[:-1], result.shape[-1])

    def _tensor(self, name: str) -> torch.Tensor:
        path, _, last = name.rpartition(".")
        tensor = getattr(self.get_submodule(path), last)
        if not isinstance(tensor, torch.Tensor):
            raise MoEError(INVALID_ARGUMENT, f"'{name}' is {tensor!r}, expected a tensor")
        return tensor
