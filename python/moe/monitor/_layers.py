"""Reads what compiled layers count themselves."""

from __future__ import annotations

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, MoEError
from .._library import library
from .._profile import differences
from .._runtime import Layer
from .._signature import Statistics
from ._counts import Counts

__all__ = ["LayerReader"]


class LayerReader:
    """Reads what the dispatches of a layer have counted since the last time."""

    def __init__(self, layer: Layer, name: str):
        dispatches = _dispatches_of(layer)
        if not dispatches:
            raise MoEError(INVALID_ARGUMENT, f"{name}: {layer!r} has no dispatch, and nothing to "
                           "watch")
        if not layer._counts:
            raise MoEError(FAILED_PRECONDITION, f"{name}: the statistics of the layer are "
                           "disabled; call enable_statistics()")
        # Every token has as many choices with an expert where the code counts none without one.
        self._complete = [len(dispatches) == 1 and "counters" not in d and d["top_k"] > 0
                          for d in dispatches]
        self._last: list[Statistics] = []

    def take(self, layer: Layer) -> list[Counts]:
        """Return the counts of each dispatch; ``layer`` is that of the last time, or one that
        goes on with its counts."""
        now = layer.statistics()
        last, self._last = self._last, now
        if any(a.calls > b.calls for a, b in zip(last, now)):  # reset in between
            last = []
        found = differences(last, now) if last else now
        return [_counts(s, complete) for s, complete in zip(found, self._complete)]


def _dispatches_of(layer: Layer) -> list[dict[str, object]]:
    """Return what the artifact says of the dispatches of a layer."""
    chosen = library().moe_rt_module_variant(layer.module._handle.pointer)
    functions = layer.module.metadata["variants"][chosen]["functions"]
    return next(f["dispatches"] for f in functions if f["name"] == layer.signature.name)


def _counts(found: Statistics, complete: bool) -> Counts:
    load = found.tokens_per_expert
    active = int((load > 0).sum()) if found.calls <= 1 else None
    return Counts(load=load, calls=found.calls, choices=found.choices, dropped=found.dropped,
                  top_k=found.top_k or None,
                  tokens=found.choices // found.top_k if complete else None, active=active)
