"""A heat map of the load of the experts over time."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._error import DATA_LOSS, INVALID_ARGUMENT, NOT_FOUND, RESOURCE_EXHAUSTED, MoEError
from ._sinks import missing

__all__ = ["Loads", "plot", "read"]

# Columns of a map: more steps than that share one.
MOST_COLUMNS = 512
# Experts with three times the mean load and more have the same colour.
MOST_TIMES_MEAN = 3.0

# Of a layer: the steps, and the rows of each expert in them, [steps, experts].
Loads = dict[str, tuple[np.ndarray, np.ndarray]]


def read(path: str | os.PathLike[str]) -> Loads:
    """Read what ``JSONLines`` wrote: the loads of each layer.

    A last line without an end, which a run is about to write, is left out.
    """
    found: dict[str, tuple[list[int], list[list[int]]]] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith("\n"):
                    print(f"{os.fspath(path)}:{number}: the last line is not complete, and left "
                          "out", file=sys.stderr)
                    break
                _add(found, line, f"{os.fspath(path)}:{number}")
    except OSError as error:
        raise MoEError(NOT_FOUND, f"cannot read '{os.fspath(path)}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MoEError(DATA_LOSS, f"'{os.fspath(path)}' is no text: {error}") from error
    return {name: (np.array(steps), np.array(loads, np.float64))
            for name, (steps, loads) in found.items()}


def _add(found: dict[str, tuple[list[int], list[list[int]]]], line: str, where: str) -> None:
    try:
        record = json.loads(line)
        layers = {name: layer["load"] for name, layer in record["layers"].items()}
        step = int(record["step"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MoEError(DATA_LOSS, f"{where}: expected a record of moe.monitor, got "
                       f"{line[:60]!r}") from error
    for name, load in layers.items():
        steps, loads = found.setdefault(name, ([], []))
        if not isinstance(load, list) or not load or not all(
                isinstance(n, int) and n >= 0 for n in load):
            raise MoEError(DATA_LOSS, f"{where}: the load of '{name}' is {load!r}, expected the "
                           "rows of each expert")
        if loads and len(load) != len(loads[0]):
            raise MoEError(DATA_LOSS, f"{where}: '{name}' has {len(load)} experts, before it had "
                           f"{len(loads[0])}")
        steps.append(step)
        loads.append(load)


def times_mean(loads: np.ndarray) -> np.ndarray:
    """Return loads [experts, columns] as multiples of the mean load of each column; NaN where
    there are no rows."""
    columns = np.array_split(loads, min(len(loads), MOST_COLUMNS))
    sums = np.stack([column.sum(axis=0) for column in columns], axis=1)
    mean = sums.mean(axis=0)
    return np.divide(sums, mean, out=np.full_like(sums, np.nan), where=mean > 0)


def plot(path: str | os.PathLike[str], output: str | os.PathLike[str],
         layers: Sequence[str] = ()) -> None:
    """Draw the loads of a file of ``JSONLines``: a map for each layer, experts against steps.

    The colour is the load of an expert over the mean load of all.

    Args:
      path: the file.
      output: the picture; its ending names the format, such as ``.png`` or ``.svg``.
      layers: names of layers; by default all.
    """
    loads = read(path)
    if unknown := [name for name in layers if name not in loads]:
        raise MoEError(INVALID_ARGUMENT, f"'{os.fspath(path)}' has no layer '{unknown[0]}'; there "
                       f"are {', '.join(sorted(loads)) or 'none'}")
    chosen = {name: loads[name] for name in layers or loads}
    if not chosen:
        raise MoEError(INVALID_ARGUMENT, f"'{os.fspath(path)}' has no layers")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", "a plot") from error
    across = math.ceil(math.sqrt(len(chosen)))
    down = math.ceil(len(chosen) / across)
    figure = Figure(figsize=(1.5 + 5 * across, 0.5 + 2.5 * down), layout="constrained")
    FigureCanvasAgg(figure)
    every: Any = figure.subplots(down, across, squeeze=False)
    for axes in every.flat[len(chosen):]:
        axes.remove()
    used = list(every.flat[:len(chosen)])
    image: Any = None
    for axes, (name, (steps, rows)) in zip(used, chosen.items()):
        image = axes.imshow(times_mean(rows), aspect="auto", interpolation="nearest",
                            origin="lower", vmin=0, vmax=MOST_TIMES_MEAN, cmap="viridis",
                            extent=(steps[0] - 0.5, steps[-1] + 0.5, -0.5, rows.shape[1] - 0.5))
        axes.set_title(name, fontsize="small")
        axes.set_ylabel("expert")
        axes.set_xlabel("step")
    figure.colorbar(image, ax=used, label="rows over the mean", extend="max")
    try:
        figure.savefig(os.fspath(output), dpi=100)
    except (OSError, ValueError) as error:
        code = RESOURCE_EXHAUSTED if isinstance(error, OSError) else INVALID_ARGUMENT
        raise MoEError(code, f"cannot write '{os.fspath(output)}': {error}") from error
