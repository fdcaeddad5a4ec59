"""The comparisons of the other tests do not pass garbage.

Zeros, two experts in each other's place and a token that was left out must each fail, with
the loosest tolerance that a test of a layer has.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data, layers

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from bench.common import data as bench_data
from bench.common import oracle as bench_oracle
from bench.common.shapes import SHAPES

TOLERANCE = max(data.TOLERANCE.values())


def is_of_experts(name, array):
    return (array.ndim and len(array) == layers.E
            and not any(word in name for word in ("router", "correction", "coefficient")))


def swapped(weights):
    """The weights with those of experts 0 and 1 exchanged, or nothing where none are stacked."""
    found = {}
    for name, array in weights.items():
        found[name] = array
        if is_of_experts(name, array):
            found[name] = array.copy()
            found[name][[0, 1]] = array[[1, 0]]
    return found if any(found[n] is not weights[n] for n in weights) else None


@pytest.mark.parametrize("name", layers.FAMILIES)
def test_layers(name):
    inputs, weights = data.inputs_of(name, 33), data.weights_of(name)
    expected = data.oracle(name, inputs, weights)
    assert data.relative_error(expected, expected) == 0
    assert data.relative_error(np.zeros_like(expected), expected) > TOLERANCE
    for token in np.flatnonzero(expected.any(1)):
        dropped = expected.copy()
        dropped[token] = 0
        assert data.relative_error(dropped, expected) > TOLERANCE, token
    other = swapped(weights)
    if other is not None:
        assert data.relative_error(data.oracle(name, inputs, other), expected) > TOLERANCE


def test_most_layers_have_experts_to_swap():
    assert sum(swapped(data.weights_of(name)) is not None for name in layers.FAMILIES) > 25


def test_not_a_number_and_infinity_fail():
    expected = np.ones((3, 4))
    for value in (np.nan, np.inf):
        actual = expected.copy()
        actual[1, 2] = value
        with pytest.raises(AssertionError):
            data.relative_error(actual, expected)
        with pytest.raises(AssertionError):
            data.assert_close(actual, expected, 1, 1)
        assert bench_oracle.relative_error(actual, expected) == np.inf


@pytest.mark.parametrize("scale", [1, 1e-6])
def test_close_is_relative(scale):
    """Small results are held to small differences."""
    expected = np.random.default_rng(1).standard_normal((5, 8)) * scale
    data.assert_close(expected * (1 + 1e-6), expected, 1e-5, 1e-5)
    for wrong in (np.zeros_like(expected), expected[::-1], expected + 1e-3 * scale):
        with pytest.raises(AssertionError):
            data.assert_close(wrong, expected, 1e-5, 1e-5)


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_benchmark(dtype):
    shape = SHAPES["tiny"]
    weights = bench_data.make_weights(shape, dtype, 0)
    x = next(bench_data.batches(shape, weights.router, dtype, 20, "uniform", 0)).x
    expected = bench_oracle.run(shape, weights, x)
    allowed = bench_oracle.tolerance(dtype, shape.top_k)
    assert bench_oracle.relative_error(np.zeros_like(expected), expected) > allowed
    for token in range(len(x)):
        dropped = expected.copy()
        dropped[token] = 0
        assert bench_oracle.relative_error(dropped, expected) > allowed
    weights.down_proj[[0, 1]] = weights.down_proj[[1, 0]]
    assert bench_oracle.relative_error(bench_oracle.run(shape, weights, x), expected) > allowed
