"""Fingerprints: what an element of an array is, as a number that movement of data keeps.

An element is one of a family: (token, column) of a step of an expert, or an index into a
parameter. Its fingerprint is an integer in f64, scattered within the range of its family, so
that sums and multiples of fingerprints are none. 0 is no element.
"""

from __future__ import annotations

import numpy as np

BITS = 30
RANGE = 1 << BITS
FACTOR = 0x2545F491  # odd: a bijection of the range
INVERSE = pow(FACTOR, -1, RANGE)


class Labels:
    """The families, each with the number of its elements."""

    def __init__(self) -> None:
        self.sizes: list[int] = [0]

    def family(self, size: int) -> int:
        if size >= RANGE or len(self.sizes) >= 1 << 21:
            raise OverflowError("too many elements")
        self.sizes.append(size)
        return len(self.sizes) - 1

    def write(self, family: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Return fingerprints; family 0 is no element."""
        scattered = (index.astype(np.uint64) * np.uint64(FACTOR)) % np.uint64(RANGE)
        number = family.astype(np.uint64) * np.uint64(RANGE) + scattered
        return np.where(family == 0, 0.0, number.astype(np.float64))

    def read(self, fingerprints: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return family and index of each, or None if one is no fingerprint."""
        if not np.isfinite(fingerprints).all() or (fingerprints < 0).any() or (
                fingerprints >= len(self.sizes) * float(RANGE)).any():
            return None
        number = fingerprints.astype(np.uint64)
        if (number != fingerprints).any():
            return None
        family = (number // np.uint64(RANGE)).astype(np.int64)
        index = ((number % np.uint64(RANGE)) * np.uint64(INVERSE)) % np.uint64(RANGE)
        index = index.astype(np.int64)
        if (index >= np.asarray(self.sizes)[family])[fingerprints != 0].any() or (
                (family == 0) & (fingerprints != 0)).any():
            return None
        return family, index
