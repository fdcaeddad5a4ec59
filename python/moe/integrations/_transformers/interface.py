"""Detects models whose experts do not use transformers' experts interface.

transformers silently ignores an implementation that is requested for such a model.
``watch`` makes it an error, both when a model is built and when it is switched.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch

from ..._error import FAILED_PRECONDITION, MoEError
from .._experts.description import is_experts

# Shared experts are not routed.
_EXPERTS = re.compile(r"(?<!Shared)Experts$|M[oO][Ee]$")


def unreached(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module]]:
    """Return the modules that are called experts, by class or by attribute, but that transformers'
    interface does not reach."""
    return [(name, module) for name, module in model.named_modules()
            if (_EXPERTS.search(type(module).__name__) or name.rpartition(".")[2] == "experts")
            and not any(is_experts(m) for m in module.modules())]


def check(model: torch.nn.Module, implementation: str) -> None:
    """Reject a model with experts that the interface does not reach."""
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
        # During a constructor nothing is built yet.
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
