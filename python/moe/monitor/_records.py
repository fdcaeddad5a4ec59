"""What a monitor knows of a step, and the numbers that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["LayerRecord", "StepRecord", "entropy", "variation"]


def entropy(load: np.ndarray) -> float | None:
    """Return the entropy of a load in nats, ``-sum(p * log(p))`` over the experts' shares ``p``.

    It is ``log(E)`` if all E experts have as many rows, 0 if one has all, and None without rows.
    """
    rows = np.asarray(load, np.float64)
    total = rows.sum()
    if total == 0:
        return None
    shares = rows[rows > 0] / total
    return max(0.0, -float((shares * np.log(shares)).sum()))


def variation(load: np.ndarray) -> float | None:
    """Return the coefficient of variation of a load, ``std(load) / mean(load)`` over all experts.

    It is 0 if all E experts have as many rows, ``sqrt(E - 1)`` if one has all, and None without
    rows.
    """
    rows = np.asarray(load, np.float64)
    mean = float(rows.sum()) / max(len(rows), 1)
    if mean == 0:
        return None
    apart = rows - mean
    return math.sqrt(float(apart @ apart) / len(rows)) / mean  # numpy's std takes longer


@dataclass(frozen=True)
class LayerRecord:
    """What one layer did in a step; what its source cannot know is None.

    ``load`` are the rows of each expert, those of dropped choices not among them. ``choices`` have
    an expert, and ``dropped`` of them exceed its capacity. ``dead`` are the experts that had no
    row in the last ``dead_after`` steps in which the layer ran. ``confidence`` is the mean over
    the tokens of the largest weight of a choice, as the experts get it, and ``margin`` that of the
    largest less the second one.

    ``flops`` are the operations of the matmuls in the forward passes, two for a multiplication and
    an addition, and ``bytes`` what these have to move (see ``Work``).
    """

    name: str
    load: np.ndarray
    calls: int
    top_k: int | None
    tokens: int | None
    choices: int
    dropped: int
    dead: tuple[int, ...] = ()
    confidence: float | None = None
    margin: float | None = None
    flops: int | None = None
    bytes: int | None = None

    @property
    def entropy(self) -> float | None:
        """Return ``moe.monitor.entropy(load)``."""
        return entropy(self.load)

    @property
    def variation(self) -> float | None:
        """Return ``moe.monitor.variation(load)``."""
        return variation(self.load)

    def scalars(self) -> dict[str, float]:
        """Return the numbers that a curve can be drawn of, by name."""
        found = {"entropy": self.entropy, "variation": self.variation, "dropped": self.dropped,
                 "dead": len(self.dead), "confidence": self.confidence, "margin": self.margin,
                 "flops": self.flops, "bytes": self.bytes}
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return what a line of JSON has of the layer; what is None is absent."""
        found = {"load": self.load.tolist(), "calls": self.calls, "top_k": self.top_k,
                 "tokens": self.tokens, "choices": self.choices, **self.scalars(),
                 "dead": list(self.dead)}
        return _strict(found)


@dataclass(frozen=True)
class StepRecord:
    """What a model did from one record to the next: ``steps`` steps, of which ``step`` is the last.

    ``tokens`` are those that ``step`` was given, or that every layer had; None if layers had
    different ones, or do not know.
    """

    step: int
    steps: int
    seconds: float
    tokens: int | None
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    price_per_hour: float | None = None
    watts: float | None = None

    @property
    def flops(self) -> int | None:
        """Return the sum over the layers, if all know theirs."""
        return self._sum([layer.flops for layer in self.layers.values()])

    @property
    def bytes(self) -> int | None:
        """Return the sum over the layers, if all know theirs."""
        return self._sum([layer.bytes for layer in self.layers.values()])

    @property
    def tokens_per_second(self) -> float | None:
        """Return ``tokens / seconds``."""
        if self.tokens is None or self.seconds <= 0:
            return None
        return self.tokens / self.seconds

    @property
    def cost_per_million_tokens(self) -> float | None:
        """Return ``price_per_hour / 3600 * seconds / tokens * 1e6``, in the unit of the price."""
        return self._per_million(self.price_per_hour, 3600)

    @property
    def joules_per_million_tokens(self) -> float | None:
        """Return ``watts * seconds / tokens * 1e6``."""
        return self._per_million(self.watts, 1)

    def scalars(self) -> dict[str, float]:
        """Return the numbers of the whole step that a curve can be drawn of, by name."""
        found = {"seconds": self.seconds, "tokens_per_second": self.tokens_per_second,
                 "flops": self.flops, "bytes": self.bytes,
                 "cost_per_million_tokens": self.cost_per_million_tokens,
                 "joules_per_million_tokens": self.joules_per_million_tokens}
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return what a line of JSON has; what is None is absent."""
        found = {"step": self.step, "steps": self.steps, "tokens": self.tokens, **self.scalars()}
        return {**_strict(found),
                "layers": {name: layer.to_json() for name, layer in self.layers.items()}}

    def _per_million(self, rate: float | None, seconds: float) -> float | None:
        if rate is None or not self.tokens:
            return None
        return rate / seconds * self.seconds / self.tokens * 1e6

    @staticmethod
    def _sum(values: list[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None


def _strict(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out None; what is not finite becomes a string, as JSON has no such numbers."""
    return {name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items() if value is not None}
