"""Weights and inputs of a layer, generated from a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from . import routing
from .formats import FORMATS, Format
from .participants import Unavailable
from .shapes import Shape

NUMPY_DTYPES = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16),
                "f16": np.dtype(np.float16)}
ALIGNMENT = 64
# Different rows of quantised weights: some formats take microseconds a number.
QUANTISED_ROWS = 512
# Takes the name of a format and rows in f32; returns their bytes.
Quantise = Callable[[str, np.ndarray], np.ndarray]


@dataclass
class Weights:
    """One layer, in the layout of transformers: matmuls are ``x @ w.T``.

    In a format, all but the router have bytes instead of the last dimension.
    """

    router: np.ndarray  # [E, H]
    gate_up_proj: np.ndarray  # [E, 2 I, H]
    down_proj: np.ndarray  # [E, H, I]
    shared_gate_proj: np.ndarray | None = None  # [S, H]
    shared_up_proj: np.ndarray | None = None  # [S, H]
    shared_down_proj: np.ndarray | None = None  # [H, S]
    format: Format | None = None

    def named(self) -> dict[str, np.ndarray]:
        return {name: array for name, array in vars(self).items()
                if isinstance(array, np.ndarray)}

    def decode(self, matrix: np.ndarray) -> np.ndarray:
        """Return the numbers of a matrix of an expert or of the shared network."""
        return self.format.decode(matrix) if self.format else matrix

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


def _draw(rng: np.random.Generator, dims: tuple[int, ...]) -> np.ndarray:
    """Draw uniform values with variance 1 / (terms of a dot product): of the size of trained
    weights, and four times faster to draw than normal ones."""
    values = rng.random(dims, np.float32)
    values -= np.float32(0.5)
    values *= np.float32((12 / dims[-1]) ** 0.5)
    return values


def make_weights(shape: Shape, dtype: str, seed: int) -> Weights:
    rng = np.random.Generator(np.random.SFC64(seed))

    def draw(*dims: int) -> np.ndarray:
        array = empty(dims, NUMPY_DTYPES[dtype])
        for part in array if array.ndim == 3 else array[None]:
            part[...] = _draw(rng, part.shape)
        return array

    return Weights(**{name: draw(*dims) for name, dims in weight_shapes(shape).items()})


def quantise_rows(shape: Shape, name: str, seed: int, quantise: Quantise) -> dict[int, np.ndarray]:
    """Return QUANTISED_ROWS rows in a format for each number of columns of the weights."""
    rng = np.random.Generator(np.random.SFC64(seed))
    pools: dict[int, np.ndarray] = {}
    for *_, columns in weight_shapes(shape).values():
        if columns % FORMATS[name].block:
            raise Unavailable(f"rows of {columns} have no whole blocks of {FORMATS[name].block}")
        if columns not in pools:
            pools[columns] = quantise(name, _draw(rng, (QUANTISED_ROWS, columns)))
    return pools


def make_quantised(shape: Shape, name: str, seed: int, pools: dict[int, np.ndarray]) -> Weights:
    """Draw the rows of weights in a format from those in ``pools``."""
    rng = np.random.Generator(np.random.SFC64(seed))
    each = FORMATS[name]

    def draw(dims: tuple[int, ...]) -> np.ndarray:
        array = empty((*dims[:-1], each.row_bytes(dims[-1])), np.uint8)
        rows = rng.integers(0, QUANTISED_ROWS, dims[:-1], np.uint16)
        return np.take(pools[dims[-1]], rows, axis=0, out=array, mode="clip")

    shapes = weight_shapes(shape)
    router = empty(shapes.pop("router"), np.float32)
    router[...] = _draw(rng, router.shape)
    return Weights(router, format=each, **{field: draw(dims) for field, dims in shapes.items()})


def activation_dtype(dtype: str) -> np.dtype:
    """Return the type of x and y: f32 where a format has the weights."""
    return NUMPY_DTYPES["f32" if dtype in FORMATS else dtype]


def make_layers(shape: Shape, dtype: str, seed: int, count: int,
                quantise: Quantise | None = None) -> list[Weights]:
    """Return ``count`` layers with different experts and the router of the first one, so that one
    set of inputs has the same routing in all. A format needs ``quantise``."""
    seeds = [seed + 1000 * i for i in range(count)]
    if dtype in FORMATS:
        pools = quantise_rows(shape, dtype, seed, quantise)
        layers = [make_quantised(shape, dtype, each, pools) for each in seeds]
    else:
        layers = [make_weights(shape, dtype, each) for each in seeds]
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
        held = empty(x.shape, activation_dtype(dtype))
        held[...] = x.astype(np.float32)
        yield Batch(held, ids)
