"""The Python frames that dynamo traces: whose forward a graph is of, and which stay in Python.

A frame with a graph break in a loop is skipped: its code runs as it is, no backend is called, and
only dynamo's callbacks at the end of a compilation are.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.callback import callback_handler
from torch._dynamo.symbolic_convert import InstructionTranslator

__all__ = ["Traced", "chooses", "rows_among", "watch"]

# Names that functions which choose experts have of what they call.
_CHOICES = {"topk", "argmax", "sort", "argsort"}


def _module_of(frame: Any) -> torch.nn.Module | None:
    """Return the module that is the first argument of a frame."""
    code = frame.f_code
    names = code.co_varnames[:code.co_argcount]
    module = frame.f_locals.get(names[0]) if names else None
    return module if issubclass(type(module), torch.nn.Module) else None


class Traced:
    """The Python frame that is traced."""

    def __init__(self) -> None:
        translator = InstructionTranslator.current_tx()
        while getattr(translator, "parent", None) is not None:
            translator = translator.parent
        # The module whose forward the graph is, or is a part of.
        self.whole = self.split = self.rows = None
        if (module := _module_of(translator)) is not None:
            reason = translator.output.compile_subgraph_reason
            forward = inspect.unwrap(getattr(module.forward, "__func__", module.forward))
            if reason is not None and reason.graph_break:
                self.split, self.rows = module, rows_among(translator)
            elif translator.f_code is getattr(forward, "__code__", None):
                self.whole = module


def rows_among(frame: Any) -> torch.Tensor | None:
    """Return the only tensor among the arguments of a forward, if it may be rows of tokens."""
    code = frame.f_code
    given = [frame.f_locals.get(n) for n in code.co_varnames[1:code.co_argcount]]
    found = [v for v in given if isinstance(v, torch.Tensor)]
    if code.co_name != "forward" or len(found) != 1 or not (
            found[0].is_floating_point() and found[0].ndim in (2, 3)):
        return None
    return found[0]


def chooses(module: torch.nn.Module) -> bool:
    """Return true if the code of a module, or of a router in it, calls what chooses, and there
    are several parts to choose among."""
    lists = torch.nn.ModuleList, torch.nn.ParameterList, torch.nn.ModuleDict
    if not any(p.ndim > 2 for p in module.parameters()) and not any(
            len(part) > 1 for part in module.modules() if isinstance(part, lists)):
        return False
    return _calls_choice(module) or any(map(_calls_choice, filter(_may_be_router,
                                                                  module.children())))


def _calls_choice(module: torch.nn.Module) -> bool:
    return any(_CHOICES & set(function.__code__.co_names)
               for cls in type(module).__mro__ if cls.__module__.partition(".")[0] != "torch"
               for function in vars(cls).values() if inspect.isfunction(function))


def _may_be_router(module: torch.nn.Module) -> bool:
    """Return true for a module with neither weights of several experts nor many modules."""
    return all(p.ndim < 3 for p in module.parameters()) and len(list(module.modules())) < 4


def watch(is_ours: Callable[[Any], bool],
          skipped: Callable[[list[torch.nn.Module], torch.Tensor | None, str], None]) -> None:
    """Have ``skipped`` be called for frames that dynamo leaves to Python: with the module whose
    code it is, those of its class beside it, the rows of the call and the reason."""
    def ended(_: Any) -> None:
        error, frame = sys.exc_info()[1], sys._getframe(1)
        while frame is not None and not (frame.f_code.co_name == "_compile" and (
                "compiler_fn" in frame.f_locals)):
            frame = frame.f_back
        if error is None or frame is None or not is_ours(frame.f_locals["compiler_fn"]):
            return
        traced = frame.f_locals.get("frame")
        if traced is None or (module := _module_of(traced)) is None:
            return
        root = _root(frame.f_back) or module
        same = [m for m in root.modules() if type(m) is type(module) and m is not module]
        skipped([module, *same], rows_among(traced), str(error).strip().partition("\n")[0])

    callback_handler.end_callbacks = _Callbacks(callback_handler.end_callbacks, ended)


class _Callbacks(list):
    """Callbacks of which ``torch._dynamo.reset()`` leaves one."""

    def __init__(self, others: list[Any], own: Any):
        super().__init__([*others, own])
        self.own = own

    def clear(self) -> None:
        self[:] = [self.own]


def _root(frame: Any) -> torch.nn.Module | None:
    """Return the module that is compiled: that of the call of dynamo's wrapper, or the outermost
    one that runs inside it."""
    root = None
    while frame is not None:
        if frame.f_code.co_name == "compile_wrapper" and "fn" in frame.f_locals:
            own = getattr(frame.f_locals["fn"], "__self__", None)
            return own if issubclass(type(own), torch.nn.Module) else root
        root = _module_of(frame) or root
        frame = frame.f_back
    return root
