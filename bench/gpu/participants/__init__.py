"""Participants of ``bench gpu``: this project, its peers and a yardstick, a module each.

A participant is opened once for a shape, with the weights of several layers; then it loads the
inputs of one cell after another. It runs on the current stream of torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ...common.participants import Unavailable
from ...common.rotation import select
from ...device.bundle import CONSUMER_FENCE
from ...device.shapes import GpuShape

if TYPE_CHECKING:
    import torch

    from ..layer import Weights

__all__ = ["CONSUMER_FENCE", "PARTICIPANTS", "Case", "Participant", "Runner", "Unavailable",
           "select"]


@dataclass(frozen=True)
class Case:
    """The arguments that open a participant. It may keep the weights, but not modify them."""

    shape: GpuShape
    layers: Sequence[Weights]
    # The driver's handle of torch's current stream; on the CUDA double, where torch has no GPU, a
    # stream of the double.
    stream: Callable[[], int]


class Runner(Protocol):
    """An opened participant."""

    def load(self, inputs: Sequence[torch.Tensor]) -> None:
        """Load the inputs ``[T, H]`` of a cell; not timed."""

    def step(self, number: int) -> None:
        """Enqueue a call: layer ``number % layers``, and the next input after all layers."""

    def output(self) -> torch.Tensor:
        """Return the result of the last call, after waiting for the device."""


@dataclass(frozen=True)
class Participant:
    name: str
    kind: str  # ours, peer, or yardstick (does not compute the layer)
    # True if calls run on the stream, so that events can time them and graphs capture them.
    on_stream: bool = True
    # Runs only in the first shapes of a run, this many, as it compiles for each number of tokens.
    most_shapes: int | None = None
    # Copies of the weights that it creates.
    copies: int = 0

    def open(self, case: Case) -> Runner:
        try:
            module = importlib.import_module(f".{self.name}", __name__)
        except ImportError as error:
            raise Unavailable(f"not installed: {error}") from error
        return module.open(case)


PARTICIPANTS = {p.name: p for p in (
    Participant("moe_mlir", "ours"),
    Participant(CONSUMER_FENCE, "ours"),
    Participant("torch_grouped", "peer"),
    Participant("triton_grouped", "peer"),
    Participant("jax_ragged", "peer", on_stream=False, copies=1, most_shapes=4),
    Participant("dense", "yardstick"),
)}
