"""moe.gate_gradient against PyTorch's autograd of the gate's formula in float64, and against
finite differences of moe.reference.gate."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from moe.reference import Normalize
from moe_testing import data
from moe_testing.cases.gate_gradient import (CASES, SOME, TOLERANCE, Case, choices_of, expected,
                                             logits_of)


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@functools.cache
def module(pipeline: str):
    import moe

    names = CASES if pipeline == "moe-cpu" else SOME
    return moe.compile("\n".join(CASES[n].text(n, n in SOME) for n in names),
                       options=[f"--pipeline={pipeline}"])


@functools.cache
def layer(name: str, pipeline: str = "moe-cpu"):
    return module(pipeline).layer([], function=name)


@pytest.mark.parametrize("name", CASES)
def test_autograd(name, record):
    case = CASES[name]
    for tokens in (0, 1, 33):
        inputs = logits_of(name, tokens)
        ids = choices_of(name, inputs)
        if case.expert_choice and tokens == 33:
            assert (ids < 0).mean() > 0.5
        d = layer(name)(ids=ids, **inputs)
        assert d.dtype == inputs["logits"].dtype
        error = data.relative_error(d, expected(case, ids, **inputs))
        record(f"gate_gradient {case.element}", error)
        assert error <= TOLERANCE[case.element], (case, tokens)


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
@pytest.mark.parametrize("name", SOME)
def test_after_gate(name, pipeline):
    """With the compiled gate before it."""
    inputs = logits_of(name, 33)
    _, ids, d = layer(f"{name}_gate", pipeline)(**inputs)
    assert np.array_equal(ids, choices_of(name, inputs))
    again = layer(name, pipeline)(ids=ids, **inputs)
    assert np.array_equal(data.bits(d), data.bits(again))
    assert data.relative_error(d, expected(CASES[name], ids, **inputs)) <= \
        TOLERANCE[CASES[name].element]


def test_runs_as_tasks():
    """Every loop over tokens is parallel; the compiler warns of none that is slow."""
    import warnings

    import moe

    case = Case(normalize=Normalize("sum"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moe.compile(case.text("f", True), cache=False)


@pytest.mark.parametrize("name", CASES)
def test_nan_gradient(name):
    """It stays in its token, or in the columns of a softmax over tokens."""
    case, tokens = CASES[name], 33
    inputs = logits_of(name, tokens)
    ids = choices_of(name, inputs)
    whole = layer(name)(ids=ids, **inputs)
    token, choice = (int(i[0]) for i in np.nonzero(ids >= 0))
    inputs["gradient"][token, choice] = np.nan
    d = layer(name)(ids=ids, **inputs)
    if case.score != "relu" or case.normalize:
        assert np.isnan(d[token]).any()
    if case.axis == "tokens":
        assert not np.isnan(d).all()
    else:
        rest = np.arange(tokens) != token
        assert np.array_equal(data.bits(d[rest]), data.bits(whole[rest]))


@pytest.mark.parametrize("name", [n for n, c in CASES.items()
                                  if c.element == "f32" and not c.expert_choice])
def test_finite_differences(name):
    """Differences of the gate's definition, of order 4; of a softmax over tokens as a whole."""
    case, tokens, h = CASES[name], 24, 2.0**-4
    inputs = logits_of(name, tokens)
    g = inputs["gradient"].astype(np.float64)
    ids = choices_of(name, inputs)
    d = layer(name)(ids=ids, **inputs)

    def loss(step: np.ndarray) -> np.ndarray:
        moved = (inputs["logits"] + step).astype(np.float32)
        fixed = None if case.order == "score_each_choice" else ids
        weights, others = case.gate(moved, ids=fixed)
        smooth[(others != ids).any(1)] = False
        return (weights * g).sum(1)

    smooth = np.ones(tokens, bool)
    direction = data.rng("direction", name).standard_normal((tokens, case.experts))
    direction = direction.astype(np.float32)
    steps = [h, h / 2, h / 4]
    slopes = [(loss(s * direction) - loss(-s * direction)) / (2 * s) for s in steps]
    coarse, fine = ((4 * b - a) / 3 for a, b in zip(slopes, slopes[1:]))
    along = (direction.astype(np.float64) * d).sum(1)
    size = np.abs(d).max() + 1e-3
    if case.axis == "tokens":
        coarse, fine, along = (v.sum(keepdims=True) for v in (coarse, fine, along))
    else:
        # A step over a kink (relu, clamp, margin) or a tie tells nothing.
        smooth &= np.abs(fine - coarse) < 0.02 * size
        assert smooth.sum() > tokens // 2, case
        coarse, fine, along = (v[smooth] for v in (coarse, fine, along))
    assert np.abs(fine - along).max() <= 5e-3 * size, case


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.expert_choice])
def test_hostile(name):
    """NaN, infinities and zeros in logits; ids that are -1 or out of range."""
    case, tokens = CASES[name], 64
    inputs, r = logits_of(name, tokens), data.rng("hostile", name)
    logits = inputs["logits"].astype(np.float32)
    hit = r.random(logits.shape)
    for low, value in ((0.0, np.nan), (0.1, -np.inf), (0.2, np.inf), (0.25, 0.0)):
        logits[(hit >= low) & (hit < low + 0.1)] = value
    logits[0], logits[1], logits[2] = np.nan, -np.inf, -5
    logits[40:, :] = np.where(np.isinf(logits[40:, :]), -90, logits[40:, :])
    inputs["logits"] = logits.astype(inputs["logits"].dtype)
    weights, ids = case.gate(inputs["logits"], inputs.get("noise"))
    d = layer(name)(ids=ids, **inputs)
    assert not np.isnan(d[np.isfinite(weights).all(1)]).any()
    usable = np.isfinite(weights).all(1)
    assert usable.sum() > 20

    def check(actual, ids, weights, usable):
        exact = expected(case, ids, **inputs)
        if case.score == "sqrt_softplus":  # the oracle's -60 is not low enough for these
            exact[(weights == 0).all(1)] = 0
        # Gradients of an infinite logit are what its formula gives: of a finite size.
        size = np.abs(exact).max(1)
        usable = usable & np.isfinite(exact).all(1) & (size < 1e6)
        assert np.isfinite(actual[usable]).all()
        error = np.abs(actual.astype(np.float64) - exact).max(1) / np.maximum(size, 1)
        assert error[usable].max() <= 2 * TOLERANCE[case.element], (case, error.argmax())

    check(d, ids, weights, usable)
    missing = ids.copy()
    odd = r.random(ids.shape)
    missing[odd < 0.3] = -1
    missing[(odd > 0.3) & (odd < 0.4)] = case.experts
    missing[(odd > 0.4) & (odd < 0.5)] = np.iinfo(np.int32).min
    missing[3] = -1
    d = layer(name)(ids=missing, **inputs)
    assert case.axis == "tokens" or not d[3].any()
    if case.order != "score_each_choice":  # it took the best that was left
        weights, _ = case.gate(inputs["logits"], inputs.get("noise"), missing)
        check(d, missing, weights, usable)
