"""Counts routes: the ids and weights that routers hand to experts."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._counts import Counts

__all__ = ["RouteCounter"]

# Choices that wait to be counted, of all layers: 12 MB with their weights.
MOST_PENDING = 1 << 20


@dataclass
class _Call:
    layer: str
    experts: int
    ids: Any  # [tokens, choices], of numpy or torch
    weights: Any  # the same, or None


class RouteCounter:
    """Keeps the routes of calls, which may be in several threads, and counts them when asked.

    Counting those of all layers at once costs a step less than counting each in its call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._pending = 0
        self._counts: dict[str, Counts] = {}

    def add(self, layer: str, experts: int, ids: Any, weights: Any) -> None:
        """Add a call; the arrays must not change any more."""
        with self._lock:
            self._calls.append(_Call(layer, experts, ids, weights))
            self._pending += ids.shape[0] * ids.shape[1]
            if self._pending > MOST_PENDING:
                self._count()

    def take(self) -> dict[str, Counts]:
        """Return what was counted since the last time, by layer."""
        with self._lock:
            self._count()
            counts, self._counts = self._counts, {}
        return counts

    def _count(self) -> None:
        calls, self._calls, self._pending = self._calls, [], 0
        groups: dict[tuple[Any, ...], list[_Call]] = {}
        for call in calls:
            key = (call.experts, call.ids.shape[1], type(call.ids), getattr(call.ids, "device", 0),
                   getattr(call.weights, "dtype", None))
            groups.setdefault(key, []).append(call)
        for group in groups.values():
            for call, counts in zip(group, _counts_of(group)):
                known = self._counts.get(call.layer)
                self._counts[call.layer] = counts if known is None else known + counts


def _joined(arrays: list[Any]) -> np.ndarray:
    """Return arrays of numpy or torch as one of numpy."""
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    import torch

    joined = torch.cat(arrays) if len(arrays) > 1 else arrays[0]
    return (joined.float() if joined.is_floating_point() else joined).cpu().numpy()


def _counts_of(calls: list[_Call]) -> list[Counts]:
    """Count calls of as many experts and choices."""
    experts, (_, top_k) = calls[0].experts, calls[0].ids.shape
    tokens = [call.ids.shape[0] for call in calls]
    call_of = np.repeat(np.arange(len(calls)), tokens)
    ids = _joined([call.ids for call in calls])
    valid = (ids >= 0) & (ids < experts)
    # In a column of their own are choices without an expert here.
    index = call_of[:, None] * (experts + 1) + np.where(valid, ids, experts)
    loads = np.bincount(index.ravel(), minlength=len(calls) * (experts + 1))
    loads = loads.reshape(len(calls), experts + 1)[:, :experts]
    found = [Counts(load=load, calls=1, choices=int(load.sum()), dropped=0, top_k=top_k,
                    tokens=rows, active=int(np.count_nonzero(load)))
             for load, rows in zip(loads, tokens)]
    if calls[0].weights is not None and top_k:
        weights = _joined([call.weights for call in calls])
        largest, second = _largest(np.where(valid, weights, -np.inf))
        have = valid.sum(axis=1)
        margin = np.subtract(largest, second, out=np.zeros_like(largest), where=have > 1)
        for name, values, known in (("confidence", largest, have > 0), ("margin", margin, have > 1)):
            sums = np.bincount(call_of[known], values[known], len(calls))
            numbers = np.bincount(call_of[known], minlength=len(calls))
            for counts, total, number in zip(found, sums.tolist(), numbers.tolist()):
                setattr(counts, name, (total, number))
    return found


def _largest(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest number of each row and the second one; -inf if there is none."""
    columns = np.ascontiguousarray(weights.T, dtype=np.float64)
    largest, second = columns[0], np.full_like(columns[0], -np.inf)
    for column in columns[1:]:
        second = np.maximum(second, np.minimum(largest, column))
        largest = np.maximum(largest, column)
    return largest, second
