"""Where counts come from: compiled layers, modules of PyTorch, and routes that somebody adds."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, MoEError
from .._runtime import Layer
from ._counts import Counts
from ._layers import LayerReader
from ._work import Work

__all__ = ["Source", "sources_of"]


class Source(Protocol):
    """Counts of some layers."""

    def take(self) -> dict[str, Counts]:
        """Return what was counted since the last time, by the name of the layer."""

    def work(self, name: str, counts: Counts) -> Work | None:
        """Return the work of a layer, if it is known."""

    def close(self) -> None:
        """Stop counting."""


class LayerSource:
    """The statistics of one compiled layer."""

    def __init__(self, name: str, layer: Layer):
        self._name, self._layer, self._reader = name, layer, LayerReader(layer, name)
        self._reader.take(layer)
        self._work = work_of(layer, name)

    def take(self) -> dict[str, Counts]:
        return named(self._name, self._reader.take(self._layer))

    def work(self, name: str, counts: Counts) -> Work | None:
        return self._work

    def close(self) -> None:
        pass


def work_of(layer: Layer, name: str) -> Work | None:
    """Return the work of a layer if it is known."""
    try:
        return Work.of(layer)
    except MoEError as error:
        if error.code != FAILED_PRECONDITION:  # an artifact that was loaded
            warnings.warn(f"{name}: FLOPs and bytes are not known: {error.message}", stacklevel=2)
    return None


def named(name: str, counts: list[Counts]) -> dict[str, Counts]:
    """Return the counts of dispatches by name: with numbers if there are several."""
    if len(counts) == 1:
        return {name: counts[0]}
    return {f"{name}/{i}": each for i, each in enumerate(counts)}


def sources_of(target: Any, name: str = "") -> Iterator[Source]:
    """Return the sources of what a monitor is to watch."""
    torch = sys.modules.get("torch")
    if isinstance(target, Layer):
        yield LayerSource(name or target.signature.name, target)
    elif torch is not None and isinstance(target, torch.nn.Module):
        from . import _torch

        yield from _torch.sources_of(target, name)
    elif isinstance(target, Mapping):
        for key, each in target.items():
            yield from sources_of(each, f"{name}.{key}" if name else str(key))
    else:
        raise MoEError(INVALID_ARGUMENT, f"cannot watch a {type(target).__name__}, expected a "
                       "moe.Layer, a module of PyTorch with experts, or a mapping from names to "
                       "them")
