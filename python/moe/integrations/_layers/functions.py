"""Compiled functions with weights, for the operations of PyTorch that run them.

Weights are prepared at the first call with them, and again after a change that torch
counts. That works for weights that stay; those that a graph computes may get the memory
of others, and are prepared in every call, with a warning.
"""

from __future__ import annotations

import json
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..._dlpack import _torch_names, empty_tensor
from ..._error import INVALID_ARGUMENT, MoEError
from ..._runtime import Module
from ..._signature import TensorInfo
from .device import Bound, compile_for
from .follow import StorageSnapshot

__all__ = ["Function", "compiled", "current", "described", "device_of", "extents", "functions_of"]

_lock = threading.RLock()
_modules: dict[tuple[str, torch.device, str], Module] = {}
_bound: dict[tuple[Any, ...], Function] = {}
_warned: set[str] = set()
_TYPES = {name: dtype for dtype, name in _torch_names().items()}


def compiled(mlir: str, device: torch.device, options: str = "{}") -> Module:
    """Compile a module once; ``options`` are those of ``moe.compile``, as JSON."""
    key = mlir, device, options
    if key not in _modules:
        with _lock:
            if key not in _modules:
                _modules[key] = compile_for(mlir, device, **json.loads(options))
    return _modules[key]


class Function(Bound):
    """A compiled function with weights at one time, which ``current`` returns in use: the end of
    a ``with`` block ends that."""

    def __init__(self, module: Module, name: str | None, weights: Sequence[torch.Tensor],
                 device: torch.device, followed: bool, counts: Sequence[int] | None):
        signature = module.signature(name)
        super().__init__(module, weights, device, StorageSnapshot if followed else None,
                         lambda w: _whole(w, counts, signature.weights), name)
        self.inputs = list(map(described, signature.inputs))
        self.outputs = list(map(described, signature.outputs))
        self.finalizers: list[weakref.finalize] = []
        self._uses, self._changing = 1, threading.Lock()

    def use(self, weights: Sequence[torch.Tensor]) -> bool:
        """Use the function if it has these weights, unchanged."""
        with self._changing:
            if not self.is_of(weights):
                return False
            self._uses += 1
            return True

    def __enter__(self) -> Function:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._changing:
            self._uses -= 1

    def try_renew(self, weights: Sequence[torch.Tensor]) -> bool:
        """Take changed weights in the memory of those before, and use them; false if the
        function is in use."""
        with self._changing:
            if self._uses or self.snapshots is None:
                return False
            self.renew(weights)
            self._uses = 1
            return True

    def is_dead(self) -> bool:
        return self.snapshots is None or any(s.is_dead() for s in self.snapshots)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run on inputs that each have rows of all tokens, ``[..., *columns]``."""
        if len(inputs) != len(self.inputs):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(self.inputs)} inputs, got "
                           f"{len(inputs)}")
        rows = [_rows(t, *expected) for t, expected in zip(inputs, self.inputs)]
        tokens = rows[0].shape[0]
        if any(r.shape[0] != tokens for r in rows):
            raise MoEError(INVALID_ARGUMENT, "expected inputs of as many tokens, got "
                           + " and ".join(str(r.shape[0]) for r in rows))
        return self.run_on(tokens, rows)

    def run_on(self, tokens: int, inputs: Sequence[torch.Tensor],
               sums: Mapping[str, torch.Tensor] = {}) -> list[torch.Tensor]:
        """Run on contiguous inputs of the types that the function takes; ``sums`` are the results
        that it adds to, by name."""
        results = [sums[name] if name in sums
                   else empty_tensor(extents(shape, tokens), dtype, self.device)
                   for name, dtype, shape in self.outputs]
        self.call(tokens, inputs, results)
        return results


def described(info: TensorInfo) -> tuple[str, torch.dtype, tuple[int, ...]]:
    """Return the name, the type and the shape of a tensor of a signature."""
    return info.name, _TYPES[info.dtype], tuple(info.shape)


def extents(shape: Sequence[int], tokens: int) -> list[int]:
    """Return the shape of a tensor of so many tokens."""
    return [tokens if extent < 0 else extent for extent in shape]


def _rows(tensor: torch.Tensor, name: str, dtype: torch.dtype,
          shape: tuple[int, ...]) -> torch.Tensor:
    """Return ``tensor`` as the function takes it; other types come from autocast."""
    columns = shape[1:]
    if tensor.ndim < 2 or tensor.shape[-len(columns):] != columns or (
            tensor.is_floating_point() != dtype.is_floating_point):
        raise MoEError(INVALID_ARGUMENT, f"{name} is {tensor.dtype} {list(tensor.shape)}, "
                       f"expected {dtype} [T, {', '.join(map(str, columns))}]")
    return tensor.reshape(-1, *columns).to(dtype).contiguous()


def _whole(weights: Sequence[torch.Tensor], counts: Sequence[int] | None,
           infos: Sequence[TensorInfo]) -> list[torch.Tensor]:
    """Return the weights that the function takes; ``counts`` of them are parts of each."""
    if counts is None:
        return list(weights)
    parts = iter(weights)
    whole = []
    for count, info in zip(counts, infos):
        own = [next(parts) for _ in range(count)]
        whole.append((own[0] if count == 1 else torch.stack(own)).reshape(info.shape))
    return whole


def current(module: Module, name: str | None, weights: Sequence[torch.Tensor],
            device: torch.device, followed: bool,
            counts: Sequence[int] | None = None) -> Function:
    """Return a function with the present contents of the weights, in use."""
    key = (module, name, *(w.data_ptr() for w in weights))
    bound = _bound.get(key)
    if bound is None or not bound.use(weights):
        bound = None  # so that only _bind holds it, and two prepared copies need not coexist
        with _lock, torch.no_grad():
            bound = _bind(key, weights, device, followed, counts)
    return bound


def _bind(key: tuple[Any, ...], weights: Sequence[torch.Tensor], device: torch.device,
          followed: bool, counts: Sequence[int] | None) -> Function:
    """Return a function with the present contents of the weights, which another thread may have
    made meanwhile."""
    old = _bound.get(key)
    if old is not None and old.use(weights):
        return old
    why = None if followed else "are computed for every call"
    if any(w.is_inference() for w in weights):
        why = "were made in inference mode, where torch counts no writes"
    for dead in [k for k, b in _bound.items() if k == key or b.is_dead()]:
        _forget(dead)
    counted = []
    if old is not None:
        if why is None and old.try_renew(weights):
            _keep(key, old, weights)
            return old
        counted, old = old.layer.statistics(), None
    bound = Function(*key[:2], weights, device, why is None, counts)
    bound.layer._count_on_from(counted)
    if why is None:
        _keep(key, bound, weights)
    elif why not in _warned:
        _warned.add(why)
        warnings.warn(f"weights of a compiled layer {why}: they are prepared in every call",
                      stacklevel=3)
    return bound


def _keep(key: tuple[Any, ...], bound: Function, weights: Sequence[torch.Tensor]) -> None:
    """Keep a function until one of its weights is gone."""
    _bound[key] = bound
    for weight in weights:
        if isinstance(weight, torch.nn.Parameter):
            bound.finalizers.append(weakref.finalize(weight, _forget, key))
            bound.finalizers[-1].atexit = False


def _forget(key: tuple[Any, ...]) -> None:
    bound = _bound.pop(key, None)
    # Each set of weights has finalizers of its own: training changes them in every step.
    for finalizer in bound.finalizers if bound is not None else ():
        finalizer.detach()
    if bound is not None:
        bound.finalizers.clear()


def functions_of(mlir: str, weights: Sequence[torch.Tensor],
                 by_name: bool) -> dict[tuple[Any, ...], Function]:
    """Return the functions of a module that have these weights, backward ones left out: those
    that are called by their name, or as the only one of the module."""
    addresses = [w.data_ptr() for w in weights]
    found = {}
    for (text, *_), module in list(_modules.items()):
        if text == mlir:
            for name in module.functions if by_name else (None,):
                key = module, name, *addresses
                if key in _bound and not (name or "").endswith("_backward"):
                    found[key] = _bound[key]
    return found


def device_of(tensors: Sequence[torch.Tensor]) -> torch.device:
    """Return the device of all ``tensors``."""
    device = tensors[0].device
    for tensor in tensors:
        if tensor.device != device:
            raise MoEError(INVALID_ARGUMENT, f"a compiled layer got tensors on '{device}' and "
                           f"'{tensor.device}', expected one device")
    return device
