"""Lets ``torch.export`` trace modules that change themselves when they run.

Routers convert a linear layer to their type in each call, and keep numbers of the last
call. A traced call must leave neither tensors of the trace nor other types behind.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["unchanged"]

_DICTIONARIES = ("_modules", "_parameters", "_buffers")


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Undo what calls of ``module`` assign to it and to the modules inside.

    Meanwhile ``to`` makes a converted copy of a module inside for the thread that traces:
    torch cannot convert the parameters of a trace in place.
    """
    tracer = threading.get_ident()
    parts = list(module.modules())
    before = [(part, dict(part.__dict__), {n: dict(part.__dict__[n]) for n in _DICTIONARIES})
              for part in parts]
    for part in parts:
        if type(part).to is torch.nn.Module.to and "to" not in part.__dict__:
            part.__dict__["to"] = _Conversion(part, tracer)
    try:
        yield
    finally:
        for part, attributes, dictionaries in before:
            for name in part.__dict__.keys() - attributes.keys():
                del part.__dict__[name]
            part.__dict__.update(attributes)
            for name, entries in dictionaries.items():
                part.__dict__[name].clear()
                part.__dict__[name].update(entries)


class _Conversion:
    """``to`` of a module that is traced."""

    def __init__(self, module: torch.nn.Module, tracer: int):
        self.module, self.tracer = module, tracer

    def __call__(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        if threading.get_ident() != self.tracer:
            return torch.nn.Module.to(self.module, *args, **kwargs)
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        return _converted(self.module, device, dtype)


def _converted(module: torch.nn.Module, device: torch.device | None,
               dtype: torch.dtype | None) -> torch.nn.Module:
    """Return ``module``, or a copy whose tensors are converted ones if any needs it."""
    def convert(tensor: torch.Tensor | None) -> torch.Tensor | None:
        if tensor is None:
            return None
        other = dtype if tensor.is_floating_point() else None
        return tensor.to(device or tensor.device, other or tensor.dtype)

    new = {name: {n: convert(t) for n, t in module.__dict__[name].items()}
           for name in ("_parameters", "_buffers")}
    new["_modules"] = {n: m and _converted(m, device, dtype) for n, m in module._modules.items()}
    if all(value is module.__dict__[name][n] for name, entries in new.items()
           for n, value in entries.items()):
        return module
    other = copy.copy(module)
    other.__dict__.update(new)
    other.__dict__.pop("to", None)
    return other
