"""moe.reference, as whole layers, against oracles that we did not write or that
share nothing with it: transformers' own blocks and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.oracles import formulas, hf, numpy_layers, papers

ALL = list(layers.FAMILIES)


def test_every_family_has_an_oracle():
    assert set(ALL) == set(hf.BLOCKS) | set(papers.LAYERS)
    assert set(ALL) == set(formulas.LAYERS) | set(papers.LAYERS)
    assert set(ALL) == set(numpy_layers.PLAIN) | set(numpy_layers.SPECIAL)


@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize("name", ALL)
def test_random(name, tokens, record):
    inputs, weights = data.inputs_of(name, tokens), data.weights_of(name)
    x = inputs["x"]
    actual = numpy_layers.run(name, x, weights,
                                  **{k: v for k, v in inputs.items() if k != "x"})
    error = data.relative_error(actual, data.oracle(name, inputs, weights))
    record(f"reference {name}", error)
    assert error < 1e-5


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("hash_layer", "hierarchical")])
def test_skewed(name):
    """Every token on one expert; most others empty."""
    inputs, weights = data.skewed(name, 20, expert=6)
    extra = {k: v for k, v in inputs.items() if k != "x"}
    actual = numpy_layers.run(name, inputs["x"], weights, **extra)
    assert data.relative_error(actual, data.oracle(name, inputs, weights)) < 1e-5


@pytest.mark.parametrize("tokens", [1, 33, 150])
@pytest.mark.parametrize("name", ALL)
def test_formulas(name, tokens):
    """What references in f64 are made of agrees with the models' own code, in f32."""
    inputs, weights = data.inputs_of(name, tokens), data.weights_of(name)
    found = data.formula(name, inputs, weights)
    assert found.dtype == np.float64
    assert data.relative_error(found, data.oracle(name, inputs, weights)) < 1e-5


@pytest.mark.parametrize("name", ALL)
def test_no_tokens(name):
    inputs = data.inputs_of(name, 0)
    extra = {k: v for k, v in inputs.items() if k != "x"}
    y = numpy_layers.run(name, inputs["x"], data.weights_of(name), **extra)
    assert y.shape == (0, layers.H) and y.dtype == np.float32
