"""A yardstick: one dense matmul with as many operations as the layer's experts, in cuBLAS. It does
not compute the layer, so it is not a peer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import Case


class Product:
    """``[T K, H]`` times ``[3 I, H]`` transposed: the experts' matmuls as if one expert had all
    rows."""

    def __init__(self, case: Case):
        self.top_k = case.shape.top_k
        columns = 3 * case.shape.intermediate
        # Any slice of the weights is representative; each call uses another one, so that weights
        # are read from memory as the layer's are.
        name = "down_proj" if case.shape.clamped else "gate_up_proj"  # with rows of H terms
        flat = [w[name].flatten(0, 1) for w in case.layers]
        self.weights = [part for whole in flat for part in whole.split(columns)
                        if len(part) == columns]

    def load(self, inputs: Sequence[torch.Tensor]) -> None:
        self.inputs = [x.repeat_interleave(self.top_k, dim=0) for x in inputs]

    @torch.inference_mode()
    def step(self, number: int) -> None:
        self.result = (self.inputs[number % len(self.inputs)]
                       @ self.weights[number % len(self.weights)].T)

    def output(self) -> torch.Tensor:
        return self.result

    def expected(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of call 0 in f64."""
        return self.inputs[0][rows].double() @ self.weights[0].double().T


def open(case: Case) -> Product:
    return Product(case)
