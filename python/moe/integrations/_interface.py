"""Models whose experts do not go through transformers' experts interface.

transformers ignores the implementation that such a model is asked for. ``watch`` makes
that an error: when the model has been built, and when it is switched.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from .._error import FAILED_PRECONDITION, MoEError
from ._experts import is_experts

# Shared experts are no choice of a router.
_EXPERTS = re.compile(r"(?<!Shared)Experts$|M[oO][Ee]$")


def unreached(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """What is called experts in a model, by its class or as an attribute, and is none that
    transformers' interface reaches."""
    return [(name, module) for name, module in model.named_modules()
            if (_EXPERTS.search(type(module).__name__) or name.rpartition(".")[2] == "experts")
            and not any(is_experts(m) for m in module.modules())]


def check(model: torch.nn.Module, implementation: str) -> None:
    """Refuse a model that has experts out of the interface's reach."""
    if found := unreached(model):
        name, module = found[-1]  # the innermost of nested ones
        raise MoEError(FAILED_PRECONDITION, f"{type(model).__name__}: {name or 'it'} is a "
                       f"{type(module).__name__}, which does not go through transformers' experts "
                       f"interface; load it with another implementation than '{implementation}'")


def watch(implementation: str, switch: Callable[[torch.nn.Module, str], None]) -> None:
    """Check every model that is built with ``implementation``, or switched to it.

    ``switch`` is called with a model and the implementation that it is switched to.
    """
    from transformers import PreTrainedModel

    choose, built = PreTrainedModel.get_correct_experts_implementation, PreTrainedModel.post_init
    if hasattr(choose, "_moe_mlir"):
        return

    @functools.wraps(choose)
    def get_correct_experts_implementation(self: Any, *args: Any, **options: Any) -> str:
        chosen = choose(self, *args, **options)
        if chosen == implementation:
            check(self, chosen)
        # Nothing is built yet where this is part of a constructor.
        switch(self, chosen)
        return chosen

    @functools.wraps(built)
    def post_init(self: Any, *args: Any, **options: Any) -> None:
        built(self, *args, **options)
        if self.config._experts_implementation == implementation:
            check(self, implementation)

    get_correct_experts_implementation._moe_mlir = True
    PreTrainedModel.get_correct_experts_implementation = get_correct_experts_implementation
    PreTrainedModel.post_init = post_init
