"""A compiled layer as a module of PyTorch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._tracing.batches import NONE, ROWS, WHOLE
from .._tracing.examples import first_of
from . import operation
from .follow import PLAIN, tensors_of

__all__ = ["CompiledLayer", "PythonLayer", "collector", "is_recording", "register", "run_layer",
           "tensors_by"]


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


def tensors_by(module: torch.nn.Module, names: Sequence[str]) -> tuple[list[torch.Tensor], bool]:
    """Return tensors of a module by their names, and true if they stay."""
    tensors, followed = [], True
    for name in names:
        path, _, last = name.rpartition(".")
        owner = module.get_submodule(path)
        tensors.append(getattr(owner, last))
        # Parametrizations and functional calls compute others.
        followed = followed and (
            isinstance(tensors[-1], torch.nn.Parameter) or last in owner._buffers)
    return tensors, followed


def run_layer(module: torch.nn.Module, rows: torch.Tensor, names: Sequence[str], mlir: str,
              columns: int, counts: list[int] | None = None) -> torch.Tensor:
    """Run a function with the tensors ``names`` of a module as weights."""
    weights, followed = tensors_by(module, names)
    followed = followed or torch.compiler.is_exporting()
    # What nobody traces or differentiates needs no dispatch, which takes longer than the rest.
    if (type(rows) is torch.Tensor and not torch.is_grad_enabled()
            and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
            and _get_current_dispatch_mode() is None and all(type(w) in PLAIN for w in weights)):
        return operation.run([rows], weights, mlir, followed, counts)
    return torch.ops.moe_mlir.layer([rows], weights, mlir, columns, followed, counts)


def collector() -> Any:
    """Return what transformers collects results of modules with, if it is loaded."""
    capturing = sys.modules.get("transformers.utils.output_capturing")
    return getattr(capturing, "_active_collector", None)


def is_recording(collector: Any) -> bool:
    """Return true if transformers records results of modules now."""
    if collector is None:
        return False
    # Dynamo does not trace variables of a context.
    found = collector.global_var if torch.compiler.is_compiling() else collector.get()
    return found is not None


class CompiledLayer(torch.nn.Module):
    """A compiled layer in place of a module; see ``Imported.module``."""

    # Underscored, as parameters of the module may have any name.
    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor], columns: int,
                 returned: int | None, rows: str, batches: str,
                 original: torch.nn.Module | None):
        super().__init__()
        # What it stands for, whose tensors are those of this module. None if they are copies.
        shared = original is not None and not any("*" in name for name in weights)
        self.__dict__["_original"] = original if shared else None
        self._batches = batches  # a kind of ``_tracing.batches``
        self._mlir, self._columns, self._returned, self._rows = mlir, columns, returned, rows
        self._names, self._counts = tuple(weights), None
        self._collector, self._routers, self._told = None, [], set()
        for name, tensor in weights.items():
            register(self, name, tensor)
        self.eval()

    def _stand_for(self, block: torch.nn.Module, parts: Sequence[Sequence[str]],
                   kept: Sequence[str], routers: Sequence[tuple[str, int]]) -> None:
        """Have all the tensors of ``block``, by all their names; of these ``parts`` are those of
        each weight. ``kept`` are modules inside that stay, and ``routers`` those of them that are
        called with rows of so many dimensions, whose results hooks may record."""
        for last in [*self._parameters, *self._buffers]:
            delattr(self, last)
        self._modules.clear()
        self.__dict__["_original"] = block
        self._names = tuple(name for names in parts for name in names)
        self._counts = [len(names) for names in parts]
        inside = tuple(f"{name}." for name in kept)
        for name, parameter in block.named_parameters(remove_duplicate=False):
            if not name.startswith(inside):
                register(self, name, parameter)
        for path, part in block.named_modules():
            for last, buffer in part.named_buffers(recurse=False, remove_duplicate=False):
                name = f"{path}.{last}" if path else last
                if not name.startswith(inside):
                    register(self, name, buffer, last not in part._non_persistent_buffers_set)
        for name in kept:
            self.add_module(name, block.get_submodule(name))
        self._collector = collector()
        self._routers = [(self.get_submodule(name), ndim) for name, ndim in routers]

    def _record(self, rows: torch.Tensor) -> None:
        """Call the routers where transformers records what they return."""
        for router, ndim in self._routers:
            if router._forward_hooks:
                router(rows.reshape(*[1] * (ndim - 2), -1, rows.shape[-1]) if ndim == 2 or (
                    rows.ndim == 2) else rows)

    def forward(self, rows: torch.Tensor | None = None, *more: Any, **named: Any) -> Any:
        """Run on rows ``[..., H]``, which may have the name that the module gave them."""
        if rows is None:
            rows = named.pop(self._rows, None)
        if rows is None:
            raise MoEError(INVALID_ARGUMENT, f"a compiled layer got no {self._rows}")
        others = [f"argument {i + 1}" for i, v in enumerate(more) if v is not None]
        others += [name for name, value in named.items() if value is not None]
        why = f"was also given {', '.join(others)}" if others else ""
        if self.training and self._original is not None:
            why = "is in training mode"
        elif rows.ndim > 2 and (self._batches == NONE or (
                self._batches == WHOLE and rows.shape[:-2].numel() != 1)):
            why = (f"got rows {list(rows.shape)}, expected one sequence: its module computes "
                   "something else for those of a batch")
        if why:
            return self._run_original(why, rows, *more, **named)
        if is_recording(self._collector):
            self._record(rows)
        if self._batches == ROWS or rows.ndim == 2:
            y = self._run(rows)
        else:
            y = torch.stack([self._run(r) for r in rows.flatten(0, -3)])
            y = y.reshape(*rows.shape[:-1], -1)
        return y if self._returned is None else (y, *[None] * (self._returned - 1))

    def _run_original(self, why: str, *given: Any, **named: Any) -> Any:
        """Run the module that this layer stands for, with the tensors of now."""
        if self._original is None:
            raise MoEError(UNIMPLEMENTED, f"a compiled layer {why}")
        if why not in self._told:
            self._told.add(why)
            warnings.warn(f"a compiled layer {why}: {type(self._original).__name__} runs in "
                          "Python", stacklevel=3)
        for part in self._original.modules():
            part.training = self.training
        return torch.func.functional_call(self._original, tensors_of(self), given, named,
                                          tie_weights=False)

    def _run(self, rows: torch.Tensor) -> torch.Tensor:
        return run_layer(self, rows, self._names, self._mlir, self._columns, self._counts)

    def extra_repr(self) -> str:
        return f"columns={self._columns}, weights={list(self._names)}"


class PythonLayer:
    """A module that has no translation, in place of a compiled layer."""

    def __init__(self, module: torch.nn.Module, ndim: int):
        self.module, self.ndim = module, ndim

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Run on rows ``[T, H]``, or of the rank that the module takes."""
        units = [1] * max(self.ndim - rows.ndim, 0)
        with torch.no_grad():
            y = first_of(self.module(rows.reshape(*units, *rows.shape)))
        return y.reshape(*rows.shape[:-1], y.shape[-1])
