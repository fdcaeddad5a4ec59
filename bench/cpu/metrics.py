"""Derived figures for the report and the plot of ``./dev bench cpu``."""

from __future__ import annotations

from collections.abc import Sequence

from ..common.comparison import OURS, Result, ratio_to, skew, spread, time_of
from ..common.shapes import SHAPES
from .participants import PARTICIPANTS

PEERS = [name for name, each in PARTICIPANTS.items() if each.kind == "peer"]
# From this many rows per expert on, on average, matmuls are compute-bound.
MANY_ROWS = 64


def ratio(cell: Result, figure: str = "median") -> float | None:
    """Return the speedup of this project over the best peer."""
    return ratio_to(cell, PEERS, figure)


def fraction_of_limit(cell: Result, name: str = OURS) -> float | None:
    """Return the roofline time over the measured time."""
    median = time_of(cell, name)
    return cell["limit"] / median if median else None


def rows_per_expert(cell: Result) -> float:
    return SHAPES[cell["shape"]].rows_per_expert(cell["tokens"])


def fraction_of_bandwidth(cell: Result, peaks: Sequence[Result]) -> float | None:
    """Return the achieved bandwidth of the minimum traffic over the read bandwidth."""
    median = time_of(cell, OURS)
    if not median:
        return None
    read = next(p["read"] for p in peaks if p["threads"] == cell["threads"])
    touched = SHAPES[cell["shape"]].bytes_touched(cell["tokens"], cell["active_experts"],
                                                  cell["dtype"])
    return touched / median / read


def summarise(result: Result) -> dict[str, dict[str, float] | None]:
    cells, peaks = result["cells"], result["peaks"]
    costs = [c for c in result["costs"] if "error" not in c]
    return {
        "ratio": spread(map(ratio, cells)),
        "ratio_of_minima": spread(ratio(c, "minimum") for c in cells),
        "limit_many_rows": spread(fraction_of_limit(c) for c in cells
                                  if rows_per_expert(c) >= MANY_ROWS),
        "bandwidth_one_token": spread(fraction_of_bandwidth(c, peaks) for c in cells
                                      if c["tokens"] == 1),
        "zipf_over_uniform": spread(skew(cells, ("shape", "dtype", "threads", "tokens"))),
        "compile_s": spread(c["compile_s"] for c in costs),
        "first_result_s": spread(c["first_result_s"] for c in costs),
        # Both to new pages.
        "prepare_over_copy": spread(c["copy_s"] / c["prepare_s"] for c in costs if "copy_s" in c),
        "prepare_again_over_copy": spread(c["copy_s"] / c["prepare_again_s"] for c in costs
                                          if "copy_s" in c),
        "memory": spread((m["peak_bytes"] - m["before_bytes"])
                         / (m["weight_bytes"] + m["workspace_bytes"])
                         for m in result["memory"] if "error" not in m),
    }
