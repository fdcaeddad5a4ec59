"""The layer in float64, without code of any participant."""

from __future__ import annotations

import numpy as np

from .data import Weights
from .formats import FORMATS
from .shapes import Shape

# Relative to the largest magnitude. f32: sums of up to 14336 terms in any order. bf16 (unit 2^-9):
# the activations, each expert's row, its weighted row and the result are rounded, and a participant
# may add the K rows in bf16. f16 (unit 2^-12) likewise.
TOLERANCE = {"f32": 1e-4, "bf16": 2.0**-9, "f16": 2.0**-12}
# Of weights in a format: a participant may round activations to 8 bits, in blocks of up to 256 with
# their largest magnitude as 127. That is 3 to 4 standard deviations of x and about twice as many of
# gate times up, so the errors of y have 1 to 2 % of its standard deviation, and the largest may
# stand out more than the largest y.
FORMAT_TOLERANCE = 2.0**-4


def tolerance(dtype: str, top_k: int) -> float:
    if dtype in FORMATS:
        return FORMAT_TOLERANCE
    return TOLERANCE[dtype] * (1 if dtype == "f32" else 8 + top_k)


def _swiglu(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    g, u = x @ gate.T.astype(np.float64), x @ up.T.astype(np.float64)
    return (g / (1 + np.exp(-g)) * u) @ down.T.astype(np.float64)


def run(shape: Shape, weights: Weights, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    logits = x @ weights.router.T.astype(np.float64)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :shape.top_k]
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    scores = np.take_along_axis(scores, chosen, 1)
    if shape.renormalise:
        scores /= scores.sum(1, keepdims=True)
    y = np.zeros_like(x)
    for expert in np.unique(chosen):
        token, choice = np.nonzero(chosen == expert)
        gate, up = np.split(weights.gate_up_proj[expert], 2)
        rows = _swiglu(x[token], *map(weights.decode, (gate, up, weights.down_proj[expert])))
        np.add.at(y, token, scores[token, choice, None] * rows)
    if shape.shared:
        y += _swiglu(x, *map(weights.decode, (weights.shared_gate_proj, weights.shared_up_proj,
                                              weights.shared_down_proj)))
    return y


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference over the largest magnitude; infinite if any is NaN."""
    difference = float(np.abs(actual.astype(np.float64) - expected).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    if not np.isfinite(difference):
        return float("inf")
    return difference / scale if scale else difference
