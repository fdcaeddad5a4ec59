"""A yardstick: one dense matmul with as many operations as the layer's experts, in oneDNN through
PyTorch. It does not compute the layer, so it is not a peer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import Case, Unavailable
from .transformers_block import as_f32, as_torch


class Product:
    """``[T K, H]`` times ``[3 I, H]`` transposed: the experts' matmuls as if one expert had all
    rows."""

    def __init__(self, case: Case):
        if not torch.backends.mkldnn.is_available():
            raise Unavailable("this PyTorch has no oneDNN")
        torch.set_num_threads(case.threads)
        self.top_k = case.shape.top_k
        columns = 3 * case.shape.intermediate
        # Any slice of the weights is representative; each call uses another one, so that weights
        # are read from memory as the layer's are.
        flat = [as_torch(w.gate_up_proj).flatten(0, 1) for w in case.layers]
        self.weights = [part for whole in flat for part in whole.split(columns)
                        if len(part) == columns]

    def scratch(self, tokens: int) -> int:
        return 0

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs = [as_torch(x).repeat_interleave(self.top_k, dim=0) for x in inputs]

    @torch.inference_mode()
    def step(self, number: int) -> None:
        self.result = torch.ops.mkldnn._linear_pointwise(
            self.inputs[number % len(self.inputs)], self.weights[number % len(self.weights)],
            None, "none", [], "")

    def output(self) -> np.ndarray:
        return as_f32(self.result)

    def expected(self) -> np.ndarray:
        """Return the result of call 0 in f32, for the check."""
        return as_f32(self.inputs[0].float() @ self.weights[0].float().T)


def open(case: Case) -> Product:
    return Product(case)
