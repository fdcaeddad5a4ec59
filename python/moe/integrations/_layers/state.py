"""What a module computes depends on besides its tensors, for code that is compiled once."""

from __future__ import annotations

import types
from typing import Any

import torch

__all__ = ["State", "is_still", "same_in_both", "state_of"]

# By the name of each module inside: its class, and its numbers and functions by their names.
State = list[tuple[str, type, list[tuple[str, Any]]]]

_NUMBERS = int, float, str, type(None)
_KINDS = *_NUMBERS, types.FunctionType, types.BuiltinFunctionType


def _is_kept(value: Any) -> bool:
    many = isinstance(value, (list, tuple)) and len(value) <= 1024 and all(
        isinstance(v, _NUMBERS) for v in value)
    return (many or isinstance(value, _KINDS)) and value == value


def state_of(module: torch.nn.Module) -> State:
    """Return the classes, numbers and functions of a module and of those inside it, and which
    parts are missing."""
    found: State = []
    for path, part in module.named_modules(remove_duplicate=False):
        own = {n: v for cls in reversed(type(part).__mro__)
               if cls.__module__.partition(".")[0] not in ("builtins", "torch")
               for n, v in vars(cls).items() if isinstance(v, _NUMBERS[:2]) and v == v}
        own.update({n: type(v)(v) if isinstance(v, (list, tuple)) else v
                    for n, v in part.__dict__.items() if _is_kept(v) and n != "forward"})
        for missing in (part._parameters, part._buffers, part._modules):
            own.update({n: v for n, v in missing.items() if v is None})
        found.append((path, type(part), sorted(own.items())))
    return found


def same_in_both(before: State, after: State) -> State:
    """Return what a call of the module has left as it was."""
    old = {path: dict(own) for path, _, own in before}
    return [(path, kind, [(n, v) for n, v in own if n in old.get(path, {}) and (
        old[path][n] is v or old[path][n] == v)]) for path, kind, own in after]


def is_still(module: torch.nn.Module, state: State) -> bool:
    """Return true if a module still is what ``state`` says. Dynamo traces it, so what it has
    compiled is compiled again when this changes."""
    for path, kind, own in state:
        part = module.get_submodule(path)
        if type(part) is not kind:
            return False
        for name, value in own:
            if getattr(part, name, None) != value:
                return False
    return True
