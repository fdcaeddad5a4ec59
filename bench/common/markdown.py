"""Tables of reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def figure(value: float, unit: str) -> str:
    return {"%": f"{100 * value:.1f} %", "x": f"{value:.2f}", "s": f"{value:.2f} s"}[unit]


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(v).replace("|", "\\|") for v in row) + " |" for row in rows]
    return [*lines, ""]


def summary_table(summary: Mapping[str, Mapping[str, float] | None],
                  labels: Mapping[str, tuple[str, str]]) -> list[str]:
    """Return the minimum, median and maximum of each figure; ``labels`` has its description and
    unit."""
    rows: list[tuple[Any, ...]] = [
        (text, *(figure(found[k], unit) for k in ("min", "median", "max")), found["count"])
        if (found := summary[key]) else (text, "-", "-", "-", 0)
        for key, (text, unit) in labels.items()]
    return table(("figure", "min", "median", "max", "count"), rows)
