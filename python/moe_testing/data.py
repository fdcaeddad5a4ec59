"""Weights, inputs and comparisons that the tests share."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np

from . import layers
from .layers import E, H

T_SIZES = (0, 1, 7, 33)

# Against an oracle on the same rounded inputs and weights, with products
# accumulated in f32.  In f32 what differs is the order of sums over 24 to 40
# terms and the last bits of exp: a few 2^-24.  In bf16 (unit 2^-9) and f16 (2^-12)
# the activations, the expert's rows and the result are each rounded once (with a
# shared expert: twice more); each rounding is at most half a unit in the last place
# of a value no larger than a few times the largest result.
TOLERANCE = {"f32": 1e-5, "bf16": 8 * 2.0**-9, "f16": 8 * 2.0**-12}


# A flag of /proc/cpuinfo that stands for a whole level of x86-64.
LEVELS = {"x86-64-v2": "sse4_2", "x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}


@functools.cache
def processor_flags() -> frozenset[str]:
    try:
        with open("/proc/cpuinfo") as lines:
            return next((frozenset(line.split()) for line in lines if line.startswith("flags")),
                        frozenset())
    except OSError:
        return frozenset()


def runs(target: str) -> bool:
    """Whether this processor runs code for a target that may be a level of x86-64."""
    return target not in LEVELS or LEVELS[target] in processor_flags()


def skip_unless_runs(level: str) -> None:
    """Skip a test whose code is for a level of x86-64 that this processor lacks."""
    import pytest

    if not runs(level):
        pytest.skip(f"this processor is no {level}")


def rng(*key: Any) -> np.random.Generator:
    """A generator that depends on the names of what it is for, not on order."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def numpy_type(dtype: str) -> np.dtype:
    if dtype == "bf16":
        import ml_dtypes
        return np.dtype(ml_dtypes.bfloat16)
    if dtype == "f8E4M3FN":
        import ml_dtypes
        return np.dtype(ml_dtypes.float8_e4m3fn)
    return np.dtype({"f32": "float32", "f16": "float16", "i32": "int32"}[dtype])


def weights_of(name: str, dtype: str = "f32") -> dict[str, np.ndarray]:
    """Random weights of a family, of the types its signature has."""
    made = {}
    for argument in layers.build(name, dtype).arguments:
        if argument.role == "weight":
            value = argument.value
            key = value.name[1:]
            draw = rng(name, key).standard_normal(value.shape) / np.sqrt(value.shape[-1])
            if "router" in key or key == "coefficient":
                draw *= 2
            if key == "e_score_correction_bias":
                draw *= 0.3
            made[key] = draw.astype(np.float32).astype(numpy_type(value.element))
    return made


def inputs_of(name: str, tokens: int, dtype: str = "f32") -> dict[str, np.ndarray]:
    """Random inputs of a family; ids with a few -1."""
    made = {}
    for argument in layers.build(name, dtype).arguments:
        if argument.role == "input":
            value, key = argument.value, argument.value.name[1:]
            random = rng(name, key, tokens)
            shape = tuple(tokens if d < 0 else d for d in value.shape)
            if value.element == "i32":
                # Different ids in a row, as a router gives.
                made[key] = np.stack([random.permutation(E)[:shape[1]] for _ in range(tokens)]
                                     or [np.zeros(shape[1:])]).astype(np.int32)[:tokens]
                made[key] = made[key].reshape(shape)
                made[key][random.random(shape) < 0.15] = -1
            else:
                made[key] = random.standard_normal(shape).astype(np.float32).astype(
                    numpy_type(value.element))
    return made


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


def f32(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same values with every float in f32."""
    return {k: v if v.dtype.kind == "i" else v.astype(np.float32) for k, v in arrays.items()}


def oracle(name: str, inputs: dict[str, np.ndarray],
           weights: dict[str, np.ndarray]) -> np.ndarray:
    """What transformers, or the paper's formula, computes, in f32."""
    from .oracles import hf, papers
    import torch

    x = {k: torch.from_numpy(np.array(v)) for k, v in f32(inputs).items()}
    w = {k: torch.from_numpy(np.array(v)) for k, v in f32(weights).items()}
    first = x.pop("x")
    if name in hf.BLOCKS:
        assert not x
        return hf.BLOCKS[name](w)(first).numpy()
    return papers.LAYERS[name](first, w, **x).numpy()


def formula(name: str, inputs: dict[str, np.ndarray],
            weights: dict[str, np.ndarray]) -> np.ndarray:
    """What the published formula gives in f64; it needs torch alone."""
    from .oracles import formulas, papers
    import torch

    def wide(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {k: torch.from_numpy(v if v.dtype.kind == "i" else v.astype(np.float64))
                for k, v in arrays.items()}

    x, w = wide(inputs), wide(weights)
    run = (papers.LAYERS | formulas.LAYERS)[name]
    return run(x.pop("x"), w, **x).numpy()


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest magnitude of its row (the last dimension), or an
    eighth of the largest of all, where a row is smaller than that; NaN must meet NaN.

    A row stands for a token: relative to all, one with a small result could be left out."""
    actual, expected = (np.asarray(v).astype(np.float64) for v in (actual, expected))
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    if actual.size == 0:
        return 0.0
    same = np.isnan(actual) == np.isnan(expected)
    assert same.all(), f"{(~same).sum()} of {same.size} elements are NaN on one side only"
    finite = np.isfinite(expected)
    assert (np.isfinite(actual) == finite).all()
    if not finite.any():
        return 0.0
    size = np.where(finite, np.abs(expected), 0)
    rows = size.max(-1, keepdims=True) if size.ndim else size
    scale = np.maximum(rows, max(size.max() / 8, 1e-30))
    with np.errstate(invalid="ignore"):
        return float((np.abs(actual - expected) / scale)[finite].max())


def assert_close(actual: np.ndarray, expected: np.ndarray, relative: float, of_largest: float = 0,
                 message: str = "") -> None:
    """Each element within ``relative`` of itself, and ``of_largest`` of the largest magnitude.

    What f32 holds as a denormal number may be zero, as in many a library's exp."""
    actual, expected = (np.asarray(v).astype(np.float64) for v in (actual, expected))
    finite = np.abs(expected[np.isfinite(expected)])
    np.testing.assert_allclose(actual, expected, rtol=relative,
                               atol=max(of_largest * finite.max(initial=0),
                                        np.finfo(np.float32).tiny), err_msg=message)


def skewed(name: str, tokens: int, expert: int, dtype: str = "f32"):
    """Inputs and weights for which every token chooses ``expert`` first."""
    inputs, weights = inputs_of(name, tokens, dtype), weights_of(name, dtype)
    inputs["x"][:, 0] = 2
    router = weights["router"].astype(np.float32) / 4
    router[:, 0] = -1.5
    router[expert, 0] = 1.5
    weights["router"] = router.astype(weights["router"].dtype)
    assert inputs["x"].shape[1] == H
    return inputs, weights
