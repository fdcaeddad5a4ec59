"""Plots of the results of ``./dev bench gpu``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from ..common.comparison import Result
from ..device.shapes import ALL
from .metrics import of_bandwidth, rate, ratio


def draw(result: Result, path: Path) -> None:
    """Draw the speedup over the best peer, TFLOP/s and the fraction of the copy bandwidth."""
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), layout="constrained")
    panels: list[tuple[str, Callable[[Result], float | None]]] = [
        ("time of the best peer / ours", ratio),
        ("useful TFLOP/s", lambda cell: r / 1e12 if (r := rate(cell)) else None),
        ("% of the copy bandwidth",
         lambda cell: 100 * f if (f := of_bandwidth(cell, result["peaks"])) else None)]
    for axis, (label, value) in zip(axes, panels):
        _lines(axis, result, value)
        axis.set_xscale("log", base=2)
        axis.set_xlabel("tokens")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log", base=2)
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].axhline(1, color="grey", linewidth=0.8)
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(f"{result['device']['name']}, bf16, commit {result['commit']}")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _lines(axis: Axes, result: Result, value: Callable[[Result], float | None]) -> None:
    series: dict[str, list[tuple[int, float]]] = {}
    for cell in result["cells"]:
        if cell["routing"] != "zipf" and (y := value(cell)):
            series.setdefault(cell["shape"], []).append((cell["tokens"], y))
    for index, (shape, points) in enumerate(series.items()):
        axis.plot(*zip(*sorted(points)), color=f"C{index % 10}", marker="o", markersize=3,
                  linestyle="-" if index < 10 else "--", label=ALL[shape].title)
