"""Weights and inputs of a layer, generated from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from . import routing
from .shapes import Shape

NUMPY_DTYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16),
                "f16": np.dtype(np.float16)}
ALIGNMENT = 64


@dataclass
class Weights:
    """One layer, in the layout of transformers: matmuls are ``x @ w.T``."""

    router: np.ndarray  # [E, H]
    gate_up_proj: np.ndarray  # [E, 2 I, H]
    down_proj: np.ndarray  # [E, H, I]
    shared_gate_proj: np.ndarray | None = None  # [S, H]
    shared_up_proj: np.ndarray | None = None  # [S, H]
    shared_down_proj: np.ndarray | None = None  # [H, S]

    def named(self) -> dict[str, np.ndarray]:
        return {name: array for name, array in vars(self).items() if array is not None}

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.named().values())


@dataclass(frozen=True)
class Batch:
    x: np.ndarray  # [T, H]
    ids: np.ndarray  # [T, K], the router's choice


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array aligned to a cache line, so that every peer can share it."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -whole.ctypes.data % ALIGNMENT
    return whole[start:start + size].view(dtype).reshape(shape)


def weight_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the fields of Weights that a layer has."""
    h, i, e, s = shape.hidden, shape.intermediate, shape.experts, shape.shared
    shapes = {"router": (e, h), "gate_up_proj": (e, 2 * i, h), "down_proj": (e, h, i)}
    if s:
        shapes |= {"shared_gate_proj": (s, h), "shared_up_proj": (s, h),
                   "shared_down_proj": (h, s)}
    return shapes


def make_weights(shape: Shape, dtype: str, seed: int) -> Weights:
    """Draw uniform values with variance 1 / (terms of a dot product): of the size of trained
    weights, and four times faster to draw than normal ones."""
    rng = np.random.Generator(np.random.SFC64(seed))

    def draw(*dims: int) -> np.ndarray:
        array = empty(dims, NUMPY_DTYPES[dtype])
        for part in array if array.ndim == 3 else array[None]:
            values = rng.random(part.shape, np.float32)
            values -= np.float32(0.5)
            values *= np.float32((12 / dims[-1]) ** 0.5)
            part[...] = values
        return array

    return Weights(**{name: draw(*dims) for name, dims in weight_shapes(shape).items()})


def make_layers(shape: Shape, dtype: str, seed: int, count: int) -> list[Weights]:
    """Return ``count`` layers with different experts and the router of the first one, so that one
    set of inputs has the same routing in all."""
    layers = [make_weights(shape, dtype, seed + 1000 * i) for i in range(count)]
    for layer in layers[1:]:
        layer.router[...] = layers[0].router
    return layers


def batches(shape: Shape, router: np.ndarray, dtype: str, tokens: int, kind: str,
            seed: int) -> Iterator[Batch]:
    """Yield batches of T tokens; each token is routed to experts that were drawn for it.

    Hidden states are normally distributed, except in the span of the router's rows, where they
    are set to produce the drawn logits.
    """
    rng = np.random.default_rng(seed)
    probabilities = routing.popularity(kind, shape.experts, rng)
    rows = router.astype(np.float64)
    inverse = np.linalg.pinv(rows).T  # [E, H]: logits @ inverse produces these logits
    while True:
        ids = routing.draw_ids(probabilities, tokens, shape.top_k, rng)
        x = rng.standard_normal((tokens, shape.hidden))
        x += (routing.logits_for(ids, shape.experts, rng) - x @ rows.T) @ inverse
        held = empty(x.shape, NUMPY_DTYPES[dtype])
        held[...] = x.astype(np.float32)
        yield Batch(held, ids)
