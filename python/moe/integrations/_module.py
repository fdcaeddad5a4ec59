"""A compiled layer as a module of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from . import _operation  # noqa: F401  (registers moe_mlir::layer)

__all__ = ["CompiledLayer", "register", "run_layer"]


def register(module: torch.nn.Module, name: str, tensor: torch.Tensor,
             persistent: bool = True) -> torch.nn.Module:
    """Register a tensor by a qualified name; returns the module inside that has it."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, torch.nn.Module())
        module = module._modules[part]
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor, persistent)
    return module


def run_layer(module: torch.nn.Module, rows: torch.Tensor, names: Sequence[str], mlir: str,
              columns: int, counts: list[int] | None = None) -> torch.Tensor:
    """Run a function with the tensors ``names`` of a module as weights."""
    weights, followed = [], True
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        weights.append(getattr(owner, last))
        # Parametrizations and functional calls compute others.
        followed = followed and (
            isinstance(weights[-1], torch.nn.Parameter) or last in owner._buffers)
    followed = followed or torch.compiler.is_exporting()
    return torch.ops.moe_mlir.layer([rows], weights, mlir, columns, followed, counts)


class CompiledLayer(torch.nn.Module):
    """A compiled layer in place of a module; see ``Imported.module``."""

    # Underscored, as parameters of the module may have any name.
    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor], columns: int,
                 returned: int | None, rows: str):
        super().__init__()
        self._mlir, self._columns, self._returned, self._rows = mlir, columns, returned, rows
        self._names, self._counts = tuple(weights), None
        for name, tensor in weights.items():
            register(self, name, tensor)
        self.eval()

    def _use_tensors_of(self, module: torch.nn.Module, parts: Sequence[Sequence[str]]) -> None:
        """Have all the tensors of ``module``, by all their names; of these ``parts`` are those of
        each weight."""
        for last in [*self._parameters, *self._buffers]:
            delattr(self, last)
        self._modules.clear()
        self._names = tuple(name for names in parts for name in names)
        self._counts = [len(names) for names in parts]
        for name, parameter in module.named_parameters(remove_duplicate=False):
            register(self, name, parameter)
        for path, part in module.named_modules():
            for last, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
                name = f"{path}.{last}" if path else last
                register(self, name, buffer, last not in part._non_persistent_buffers_set)

    def forward(self, rows: torch.Tensor | None = None, *more: Any, **named: Any) -> Any:
        """Run on rows ``[..., H]``, which may have the name that the module gave them."""
        if rows is None:
            rows = named.pop(self._rows, None)
        if rows is None:
            raise MoEError(INVALID_ARGUMENT, f"a compiled layer got no {self._rows}")
        others = [f"argument {i + 1}" for i, v in enumerate(more) if v is not None]
        if others := others + [name for name, value in named.items() if value is not None]:
            raise MoEError(UNIMPLEMENTED, "a compiled layer takes rows, and was also given "
                           + ", ".join(others))
        y = run_layer(self, rows, self._names, self._mlir, self._columns, self._counts)
        return y if self._returned is None else (y, *[None] * (self._returned - 1))

    def extra_repr(self) -> str:
        return f"columns={self._columns}, weights={list(self._names)}"
