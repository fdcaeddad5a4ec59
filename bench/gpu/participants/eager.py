"""PyTorch layers that run eagerly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...device.shapes import GpuShape
from ..layer import Tensor, Weights
from . import Case, select


class Eager:
    """Runs ``layer(shape, weights, x)``."""

    def __init__(self, case: Case, layer: Callable[[GpuShape, Weights, Tensor], Tensor]):
        self.case, self.layer = case, layer

    def load(self, inputs: Sequence[Tensor]) -> None:
        self.inputs = inputs

    @torch.inference_mode()
    def step(self, number: int) -> None:
        index, x = select(number, len(self.case.layers), len(self.inputs))
        self.result = self.layer(self.case.shape, self.case.layers[index], self.inputs[x])

    def output(self) -> Tensor:
        return self.result
