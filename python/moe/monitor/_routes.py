"""Counts routes: the ids and weights that routers hand to experts."""

from __future__ import annotations

import collections
import threading
from typing import Any, NamedTuple

import numpy as np

from ._counts import Counts

__all__ = ["RouteCounter"]

# Tokens that wait to be counted, of all layers: 12 MB with 8 choices each.
MOST_PENDING = 1 << 17


class _Call(NamedTuple):
    layer: str
    experts: int
    ids: Any  # [tokens, choices], of numpy or torch
    weights: Any  # the same, or None


class RouteCounter:
    """Keeps the routes of calls, which may be in several threads, and counts them when asked.

    What runs between the layers of a model finds nothing in the caches. So a call is only kept,
    and all are counted at once. Weights of another shape than the ids are left to the experts,
    which refuse them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: collections.deque[tuple[str, int, Any, Any]] = collections.deque()
        self._pending = 0  # about, as no lock guards it
        self._counts: dict[str, Counts] = {}

    def add(self, layer: str, experts: int, ids: Any, weights: Any) -> None:
        """Add a call; the arrays must not change any more."""
        self._calls.append((layer, experts, ids, weights))
        self._pending += len(ids)
        if self._pending > MOST_PENDING:
            with self._lock:
                self._count()

    def take(self) -> dict[str, Counts]:
        """Return what was counted since the last time, by layer."""
        with self._lock:
            self._count()
            counts, self._counts = self._counts, {}
        return counts

    def _count(self) -> None:
        self._pending = 0
        groups: dict[tuple[Any, ...], list[_Call]] = {}
        for _ in range(len(self._calls)):
            call = _Call(*self._calls.popleft())
            if call.weights is not None and call.weights.shape != call.ids.shape:
                continue
            key = (call.experts, call.ids.shape[1], type(call.ids), getattr(call.ids, "device", 0),
                   getattr(call.weights, "dtype", None))
            groups.setdefault(key, []).append(call)
        for group in groups.values():
            for layer, counts in _counts_of(group).items():
                known = self._counts.get(layer)
                self._counts[layer] = counts if known is None else known + counts


def _joined(arrays: list[Any]) -> np.ndarray:
    """Return arrays of numpy or torch as one of numpy."""
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    import torch

    joined = torch.cat(arrays) if len(arrays) > 1 else arrays[0]
    return (joined.float() if joined.is_floating_point() else joined).cpu().numpy()


def _counts_of(calls: list[_Call]) -> dict[str, Counts]:
    """Count calls of as many experts and choices, by layer."""
    experts, (_, top_k) = calls[0].experts, calls[0].ids.shape
    numbers: dict[str, int] = {}
    layer_of = np.array([numbers.setdefault(call.layer, len(numbers)) for call in calls])
    layers, rows = len(numbers), np.array([call.ids.shape[0] for call in calls])
    ids = _joined([call.ids for call in calls])
    valid = (ids >= 0) & (ids < experts)
    # In a column of their own are choices without an expert here.
    chosen = np.where(valid, ids, experts)
    layer_of_row = np.repeat(layer_of, rows)
    loads = _histograms(layer_of_row, chosen, layers, experts)
    active = np.count_nonzero(loads, axis=1)
    if len(calls) > layers:
        of_calls = _histograms(np.repeat(np.arange(len(calls)), rows), chosen, len(calls), experts)
        active = np.bincount(layer_of, np.count_nonzero(of_calls, axis=1))
    of_layers = zip(numbers, loads, np.bincount(layer_of).tolist(), loads.sum(axis=1).tolist(),
                    np.bincount(layer_of, rows).tolist(), active.tolist())
    found = {name: Counts(load, count, choices, 0, top_k, int(tokens), int(its_active))
             for name, load, count, choices, tokens, its_active in of_layers}
    if calls[0].weights is not None and top_k:
        weights = _joined([call.weights for call in calls])
        largest, second = _largest(np.where(valid, weights, -np.inf))
        have = valid.sum(axis=1)
        margin = np.subtract(largest, second, out=np.zeros_like(largest), where=have > 1)
        for name, values, known in (("confidence", largest, have > 0),
                                    ("margin", margin, have > 1)):
            sums = np.bincount(layer_of_row[known], values[known], layers).tolist()
            counted = np.bincount(layer_of_row[known], minlength=layers).tolist()
            for counts, total, number in zip(found.values(), sums, counted):
                setattr(counts, name, (total, number))
    return found


def _histograms(of: np.ndarray, chosen: np.ndarray, count: int, experts: int) -> np.ndarray:
    """Return how often each expert is chosen in the rows that are ``of`` the same."""
    index = of[:, None] * (experts + 1) + chosen
    found = np.bincount(index.ravel(), minlength=count * (experts + 1))
    return found.reshape(count, experts + 1)[:, :experts]


def _largest(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest number of each row and the second one; -inf if there is none."""
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)
    largest, second = columns[0], np.full_like(columns[0], -np.inf)
    for column in columns[1:]:
        second = np.maximum(second, np.minimum(largest, column))
        largest = np.maximum(largest, column)
    return largest, second
