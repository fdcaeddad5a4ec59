"""Counts of modules of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from .._error import INVALID_ARGUMENT, MoEError
from ..integrations import _routes
from ..integrations._experts import is_experts, parameter_names
from ..integrations.transformers import NAME
from ._counts import Counts
from ._routes import RouteCounter
from ._sources import Source
from ._work import Work

__all__ = ["sources_of"]

_Route = tuple[torch.Tensor, torch.Tensor]


class ExpertsSource:
    """The routes of the experts of a model that go through transformers' interface.

    All choices that experts get are computed: their capacity, if there is one, is the router's.
    """

    def __init__(self, model: torch.nn.Module, prefix: str):
        self._prefix, self._counter = prefix, RouteCounter()
        self._modules: dict[str, torch.nn.Module] = {}
        self._works: dict[tuple[str, int], Work | None] = {}
        self._closing = ExitStack()
        self._closing.enter_context(_routes.observe(model, self._observer, NAME))

    def _observer(self, name: str, module: torch.nn.Module) -> Callable[..., _Route]:
        name = _joined(self._prefix, name, module)
        self._modules[name] = module

        def observe(ids: torch.Tensor, weights: torch.Tensor) -> _Route:
            # What is wrong with others is for the experts to say.
            if ids.ndim == 2 and ids.shape == weights.shape and _runs(ids):
                self._counter.add(name, module.num_experts, ids.detach().clone(),
                                  weights.detach().clone())
            return ids, weights

        return observe

    def take(self) -> dict[str, Counts]:
        found = self._counter.take()
        return {name: found.get(name) or Counts(np.zeros(module.num_experts, np.int64), 0, 0, 0,
                                                None, 0, 0)
                for name, module in self._modules.items()}

    def work(self, name: str, counts: Counts) -> Work | None:
        if counts.top_k is None:
            return None
        key = name, counts.top_k
        if key not in self._works:
            self._works[key] = _work_of(self._modules[name], counts.top_k)
        return self._works[key]

    def close(self) -> None:
        self._closing.close()


def _runs(ids: torch.Tensor) -> bool:
    """Return true if a call is one of the model's, and not part of a trace, of a capture or of
    what a backward pass computes again."""
    return not (isinstance(ids, FakeTensor) or _is_backward() or (
        ids.is_cuda and torch.cuda.is_current_stream_capturing()))


def _is_backward() -> bool:
    """Return true within a backward pass."""
    return torch._C._current_graph_task_id() >= 0


def _work_of(module: torch.nn.Module, top_k: int) -> Work | None:
    """Return the work of experts with plain weights by their shapes."""
    weights = [getattr(module, name) for name in parameter_names(module)]
    first, second = weights[0], weights[len(weights) // 2]
    if not all(isinstance(w, torch.Tensor) and w.is_floating_point() for w in weights) or any(
            w.ndim != 3 or w.shape[0] != module.num_experts for w in (first, second)):
        return None
    hidden, output = ((first.shape[1], second.shape[2]) if module.is_transposed
                      else (first.shape[2], second.shape[1]))
    row = (hidden + output) * first.element_size()
    return Work(flops_per_row=2 * (first[0].numel() + second[0].numel()), bytes_per_row=row,
                bytes_per_expert=sum(w[0].numel() * w.element_size() for w in weights),
                # Rows in and out, ids of 8 bytes and weights of 4.
                bytes_per_token=row + top_k * (8 + 4))


def _joined(prefix: str, name: str, module: torch.nn.Module) -> str:
    return ".".join(part for part in (prefix, name) if part) or type(module).__name__


def sources_of(model: torch.nn.Module, prefix: str) -> Iterator[Source]:
    """Return the sources inside of a module."""
    found = 0
    if any(is_experts(module) for module in model.modules()):
        found += 1
        yield ExpertsSource(model, prefix)
    if not found:
        raise MoEError(INVALID_ARGUMENT, f"{type(model).__name__} has no experts that can be "
                       "watched, expected some behind transformers' experts interface, or layers "
                       "of moe.from_torch")
