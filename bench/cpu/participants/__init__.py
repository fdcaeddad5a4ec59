"""Participants of a benchmark: this project, its peers and yardsticks.

One module for each. A participant is opened once for a shape, a type and a thread count,
with the weights of several layers; then it loads the inputs of one cell after another.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from ...common.data import Weights
from ...common.formats import FORMATS
from ...common.participants import Unavailable
from ...common.rotation import select
from ...common.shapes import Shape

__all__ = ["PARTICIPANTS", "Case", "Participant", "Runner", "Unavailable", "chosen", "select"]

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Case:
    """The arguments that open a participant. It may keep views of the weights."""

    shape: Shape
    dtype: str
    threads: int
    layers: Sequence[Weights]
    cache: str  # directory for compiled code


class Runner(Protocol):
    """An opened participant."""

    def scratch(self, tokens: int) -> int:
        """Return the bytes that a call may allocate, if known."""

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        """Load the inputs ``[T, H]`` of a cell; not timed."""

    def step(self, number: int) -> None:
        """Run a call: layer ``number % layers``, and the next input after all layers."""

    def output(self) -> np.ndarray:
        """Return the result of the last call, in f32."""


@dataclass(frozen=True)
class Participant:
    name: str
    kind: str  # ours, peer, or yardstick (does not compute the layer)
    module: str
    variant: str = ""
    # Copies of the weights that it creates.
    copies: float = 0
    # Takes quantised weights, which it copies.
    formats: bool = False
    # It has an environment of its own, with the packages that ``MODULE.txt`` names.
    own_environment: bool = False

    def copies_in(self, dtype: str) -> float:
        """Return the copies of the weights that it creates in a type or format. A process that is
        not forked draws its own."""
        return (1 if dtype in FORMATS else self.copies) + self.own_environment

    @property
    def requirements(self) -> Path | None:
        return HERE / f"{self.module}.txt" if self.own_environment else None

    def open(self, case: Case) -> Runner:
        opener: Callable[..., Runner] = self._module().open
        return opener(case, self.variant) if self.variant else opener(case)

    def costs(self, case: Case) -> dict[str, float]:
        """Measure what compiling and packing cost, which only this project's participant does."""
        return self._module().costs(case)

    def _module(self) -> ModuleType:
        try:
            return importlib.import_module(f".{self.module}", __name__)
        except ImportError as error:
            raise Unavailable(f"not installed: {error}") from error


PARTICIPANTS = {p.name: p for p in (
    Participant("moe_mlir", "ours", "moe_mlir", copies=1, formats=True),
    Participant("transformers/eager", "peer", "transformers_block", "eager"),
    Participant("transformers/grouped_mm", "peer", "transformers_block", "grouped_mm"),
    Participant("transformers/batched_mm", "peer", "transformers_block", "batched_mm"),
    Participant("onnxruntime", "peer", "onnxruntime_moe", copies=1),
    Participant("jax", "peer", "jax_ragged", copies=1),
    # Its compiler reads what the JAX of its release writes.
    Participant("iree", "peer", "iree_graph", copies=2, own_environment=True),
    # It keeps views of weights in f32, bf16 and f16.
    Participant("ggml", "peer", "ggml_graph", formats=True),
    Participant("dense", "yardstick", "dense"),
)}


def chosen(names: Sequence[str]) -> list[Participant]:
    """Return the participants with these names; ``transformers`` selects all its variants."""
    found = [p for p in PARTICIPANTS.values()
             if p.name in names or p.name.partition("/")[0] in names]
    known = {p.name for p in PARTICIPANTS.values()} | {
        p.name.partition("/")[0] for p in PARTICIPANTS.values()}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no participant '{unknown[0]}'; there are {', '.join(PARTICIPANTS)}")
    return found
