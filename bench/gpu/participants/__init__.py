"""Who takes part in ``bench gpu``: this project, its peers and a yardstick, a module each.

A participant is opened once for a shape, with the weights of several layers; then it is given
the inputs of one cell after another. What it does goes to the current stream of torch.
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
    """What a participant is opened with. It may keep the weights, and leaves them as they are."""

    shape: GpuShape
    layers: Sequence[Weights]
    # What the driver calls the stream that torch's current one is; without torch's support of
    # the GPU, where the double of the driver stands for it, one of the driver.
    stream: Callable[[], int]


class Runner(Protocol):
    """An opened participant."""

    def load(self, inputs: Sequence[torch.Tensor]) -> None:
        """Take the inputs ``[T, H]`` of a cell; not timed."""

    def step(self, number: int) -> None:
        """Enqueue a call: layer ``number % layers``, and the next input after every layer."""

    def output(self) -> torch.Tensor:
        """What the last call computed; the device has been waited for."""


@dataclass(frozen=True)
class Participant:
    name: str
    kind: str  # ours, peer, or yardstick: one that does not compute the layer
    # Whether calls are on the stream, so that events time them and graphs hold them.
    on_stream: bool = True
    # It takes part in so many shapes, the first of a run, as it compiles for every number of
    # tokens anew.
    most_shapes: int | None = None
    # Copies of the weights that it makes for itself.
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
