"""Comparisons for all reports: this project with its peers, skewed with uniform routing."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any

Result = dict[str, Any]
OURS = "moe_mlir"


def time_of(cell: Result, name: str, figure: str = "median") -> float | None:
    """Return the seconds per call of a participant; None unless its result is correct."""
    found = cell["participants"].get(name, {})
    return found[figure] if found.get("status") == "ok" else None


def best_of(cell: Result, peers: Collection[str],
            figure: str = "median") -> tuple[str, float] | None:
    """Return the fastest of ``peers`` and its seconds per call."""
    times = [(seconds, name) for name in cell["participants"]
             if name in peers and (seconds := time_of(cell, name, figure))]
    if not times:
        return None
    seconds, name = min(times)
    return name, seconds


def ratio_to(cell: Result, peers: Collection[str], figure: str = "median") -> float | None:
    """Return the speedup of this project over the best of ``peers``."""
    ours, peer = time_of(cell, OURS, figure), best_of(cell, peers, figure)
    return peer[1] / ours if ours and peer else None


def skew(cells: Sequence[Result], keys: Sequence[str]) -> list[float]:
    """Return, for each pair of cells with the same values of ``keys``, the time with skewed
    routing over that with uniform routing."""
    def key(cell: Result) -> tuple[Any, ...]:
        return tuple(cell[name] for name in keys)
    uniform = {key(c): time_of(c, OURS) for c in cells if c["routing"] == "uniform"}
    return [skewed / even for c in cells if c["routing"] == "zipf"
            and (skewed := time_of(c, OURS)) and (even := uniform.get(key(c)))]


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"min": min(known), "median": statistics.median(known), "max": max(known),
            "count": len(known)}
