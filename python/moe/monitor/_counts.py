"""What a source has counted between two steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Counts"]


@dataclass
class Counts:
    """Counts of one layer in some calls; what the source cannot know is None.

    ``active`` are the experts with rows, summed over the calls. ``confidence`` and ``margin``
    are sums over tokens, each with the number of these tokens.
    """

    load: np.ndarray
    calls: int
    choices: int
    dropped: int
    top_k: int | None
    tokens: int | None
    active: int | None
    confidence: tuple[float, int] | None = None
    margin: tuple[float, int] | None = None

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.load + other.load, self.calls + other.calls,
                      self.choices + other.choices, self.dropped + other.dropped,
                      self.top_k if self.top_k == other.top_k else None,
                      _sum(self.tokens, other.tokens), _sum(self.active, other.active),
                      _sums(self.confidence, other.confidence), _sums(self.margin, other.margin))


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def _sums(a: tuple[float, int] | None, b: tuple[float, int] | None) -> tuple[float, int] | None:
    return None if a is None or b is None else (a[0] + b[0], a[1] + b[1])
