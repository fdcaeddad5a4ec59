"""Arguments and results of a compiled function, and counts of its calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


# In the order of moe_rt.h.
ROLES = ("input", "weight", "output")


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a signature; -1 in ``shape`` stands for T.

    Calls read a weight that is ``retained``; any other is only read when a layer is
    created and may be deleted afterwards. A result that ``accumulates`` is added to what
    the array of the caller has.
    """

    name: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    alignment: int
    num_experts: int = 0
    retained: bool = True
    accumulates: bool = False

    @property
    def is_saved(self) -> bool:
        """True for a result that a backward function takes (``saved0``, ``saved1``, ...)."""
        return self.role == "output" and re.fullmatch(r"saved\d+", self.name) is not None

    def __str__(self) -> str:
        dims = "x".join("T" if d < 0 else str(d) for d in self.shape)
        return f"{self.name}: {dims + 'x' if dims else ''}{self.dtype}"


@dataclass(frozen=True)
class Signature:
    """Arguments and results of a compiled function, and the inclusive range of T."""

    name: str
    inputs: tuple[TensorInfo, ...]
    weights: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    min_tokens: int
    max_tokens: int

    def __str__(self) -> str:
        def row(tensors: Sequence[TensorInfo]) -> str:
            return ", ".join(map(str, tensors))

        return (f"{self.name}({row(self.inputs)}; {row(self.weights)}) -> ({row(self.outputs)}), "
                f"{self.min_tokens} <= T <= {self.max_tokens}")


@dataclass(frozen=True)
class Statistics:
    """Counts of one dispatch of a layer since the last reset.

    Each token has ``top_k`` choices (0 if unknown). ``choices`` have a valid expert,
    ``dropped`` of them exceed its capacity; ``padding`` rows are computed beyond those
    of tokens.
    """

    num_experts: int
    top_k: int
    tokens_per_expert: np.ndarray
    calls: int
    choices: int
    dropped: int
    padding: int
