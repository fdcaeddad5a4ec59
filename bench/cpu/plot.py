"""Plots of the results of ``./dev bench cpu``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from ..common.comparison import Result
from ..common.shapes import SHAPES
from .metrics import fraction_of_limit, ratio

STYLES = {"f32": "-", "bf16": "--", "f16": "-."}
FORMAT_STYLE = ":"


def draw(result: Result, path: Path) -> None:
    """Draw the speedup over the best peer, and below it the fraction of the roofline, with a column
    for each thread count; routing is uniform."""
    threads = result["options"]["threads"]
    figure, axes = plt.subplots(2, len(threads), figsize=(6 * len(threads), 8), squeeze=False,
                                sharex=True, sharey="row", layout="constrained")
    colors = {key: f"C{i}" for i, key in enumerate(SHAPES)}
    for column, count in enumerate(threads):
        upper, lower = axes[0, column], axes[1, column]
        _lines(upper, result, count, colors, ratio)
        upper.axhline(1, color="grey", linewidth=0.8)
        upper.set_yscale("log", base=2)
        upper.yaxis.set_major_formatter("{x:g}")
        upper.yaxis.set_major_locator(LogLocator(base=2, numticks=12))
        upper.set_title(f"{count} thread{'s' if count > 1 else ''}")
        _lines(lower, result, count, colors,
               lambda cell: 100 * f if (f := fraction_of_limit(cell)) else None)
        lower.set_ylim(0, 105)
        lower.set_xscale("log", base=2)
        lower.set_xticks(result["options"]["tokens"], minor=False)
        lower.xaxis.set_major_formatter("{x:g}")
        lower.set_xlabel("tokens")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("time of the best peer / ours")
    axes[1, 0].set_ylabel("% of the machine's limit")
    shapes = list(dict.fromkeys(cell["shape"] for cell in result["cells"]))
    entries = [Line2D([], [], color=colors[s], label=SHAPES[s].title) for s in shapes]
    entries += [Line2D([], [], color="grey", linestyle=STYLES[d], label=d)
                for d in result["options"]["dtypes"]]
    figure.legend(handles=entries, loc="outside lower center", ncols=4)
    figure.suptitle(f"{result['machine']['processor']}, commit {result['commit']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _lines(axis: Axes, result: Result, threads: int, colors: dict[str, str],
           value: Callable[[Result], float | None]) -> None:
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for cell in result["cells"]:
        if cell["threads"] == threads and cell["routing"] == "uniform" and (y := value(cell)):
            series.setdefault((cell["shape"], cell["dtype"]), []).append((cell["tokens"], y))
    for (shape, dtype), points in series.items():
        axis.plot(*zip(*sorted(points)), color=colors[shape],
                  linestyle=STYLES.get(dtype, FORMAT_STYLE),
                  marker="o", markersize=3)
