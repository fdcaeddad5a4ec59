"""Derived figures for the report and the plot of ``./dev bench gpu``."""

from __future__ import annotations

from ..common.comparison import OURS, Result, ratio_to, skew, spread, time_of
from ..device.shapes import ALL
from .participants import CONSUMER_FENCE, PARTICIPANTS

PEERS = [name for name, each in PARTICIPANTS.items() if each.kind == "peer"]
# From MANY_ROWS per expert on, on average, matmuls are compute-bound; up to FEW_ROWS they are
# memory-bound by the weights.
MANY_ROWS, FEW_ROWS = 128, 8


def ratio(cell: Result, figure: str = "median") -> float | None:
    """Return the speedup of this project over the best peer."""
    return ratio_to(cell, PEERS, figure)


def flops(cell: Result) -> float:
    """Return the useful operations."""
    return ALL[cell["shape"]].flops(cell["tokens"])


def rate(cell: Result, name: str = OURS) -> float | None:
    """Return the useful FLOP/s."""
    median = time_of(cell, name)
    return flops(cell) / median if median else None


def bytes_touched(cell: Result) -> float:
    return ALL[cell["shape"]].bytes_touched(cell["tokens"], cell["active_experts"], "bf16")


def of_bandwidth(cell: Result, peaks: Result | None, name: str = OURS) -> float | None:
    """Return the achieved bandwidth of the minimum traffic over the copy bandwidth."""
    median = time_of(cell, name)
    return bytes_touched(cell) / median / peaks["copy"] if median and peaks else None


def of_fences(cell: Result) -> float | None:
    """Return the time with the proxy fence of gathered rows in the consumer warps over the time
    with it in the producer warps, from the same interleaved rounds."""
    median = time_of(cell, CONSUMER_FENCE)
    beside = cell["participants"].get(CONSUMER_FENCE, {}).get("beside")
    return median / beside if median and beside else None


def rows_per_expert(cell: Result) -> float:
    return ALL[cell["shape"]].rows_per_expert(cell["tokens"])


def summarise(result: Result) -> dict[str, dict[str, float] | None]:
    cells, peaks = result["cells"], result["peaks"]
    dense = peaks["dense_bf16"] if peaks else None
    return {
        "ratio": spread(map(ratio, cells)),
        "dense_many_rows": spread(r / dense for c in cells if dense
                                  and rows_per_expert(c) >= MANY_ROWS and (r := rate(c))),
        "bandwidth_few_rows": spread(of_bandwidth(c, peaks) for c in cells
                                     if rows_per_expert(c) <= FEW_ROWS),
        "bandwidth_one_token": spread(of_bandwidth(c, peaks) for c in cells
                                      if c["tokens"] == 1),
        "zipf_over_uniform": spread(skew(cells, ("shape", "tokens"))),
        "kernels": spread(c["participants"].get(OURS, {}).get("kernels") for c in cells),
        "consumer_over_producer": spread(map(of_fences, cells)),
    }
