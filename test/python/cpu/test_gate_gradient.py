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
    weights, _ = case.gate(inputs["logits"], inputs.get("noise"), missing)
    check(d, missing, weights, usable)


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", [n for n in SOME if CASES[n].order == "score_each_choice"])
def test_choice_without_an_expert(name, place, pipeline):
    """Where each choice is scored, it took the best that was left; the others have gradients."""
    case, inputs = CASES[name], logits_of(name, 33)
    ids = choices_of(name, inputs)
    ids[::2, place] = -1
    ids[1::2, place] = case.experts
    d = layer(name, pipeline)(ids=ids, **inputs)
    exact = expected(case, ids, **inputs)
    assert exact.any()
    assert data.relative_error(d, exact) <= TOLERANCE[case.element]


# Jitter of the rows and noise of the logits, drawn in the layer from seeds that the caller gives.
NOISY = """
func.func @router(%x: tensor<?x8xf32> {moe.role = "input", moe.name = "x"},
    %seeds: tensor<2xi32> {moe.role = "input", moe.name = "seeds"},
    %w: tensor<8x6xf32> {moe.role = "weight", moe.name = "w"})
    -> (tensor<?x3xf32>, tensor<?x3xi32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %zero = arith.constant 0.0 : f32
  %less = arith.constant 0.9 : f64
  %more = arith.constant 1.1 : f64
  %low = arith.constant -0.5 : f64
  %high = arith.constant 0.5 : f64
  %first = tensor.extract %seeds[%c0] : tensor<2xi32>
  %second = tensor.extract %seeds[%c1] : tensor<2xi32>
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %rows = tensor.empty(%t) : tensor<?x8xf32>
  %jitter = linalg.fill_rng_2d ins(%less, %more, %first : f64, f64, i32)
      outs(%rows : tensor<?x8xf32>) -> tensor<?x8xf32>
  %jittered = linalg.mul ins(%x, %jitter : tensor<?x8xf32>, tensor<?x8xf32>)
      outs(%rows : tensor<?x8xf32>) -> tensor<?x8xf32>
  %empty = tensor.empty(%t) : tensor<?x6xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%empty : tensor<?x6xf32>) -> tensor<?x6xf32>
  %logits = linalg.matmul ins(%jittered, %w : tensor<?x8xf32>, tensor<8x6xf32>)
      outs(%zeros : tensor<?x6xf32>) -> tensor<?x6xf32>
  %noise = linalg.fill_rng_2d ins(%low, %high, %second : f64, f64, i32)
      outs(%empty : tensor<?x6xf32>) -> tensor<?x6xf32>
  %weights, %ids = moe.gate %logits noise(%noise : tensor<?x6xf32>) top_k(3) normalize(<sum>)
    : tensor<?x6xf32>
  return %weights, %ids : tensor<?x3xf32>, tensor<?x3xi32>
}
"""


def drawn(low: float, high: float, seed: int, shape: tuple[int, int]) -> np.ndarray:
    """linalg.fill_rng_2d, as MLIR defines it: two steps of a linear congruential generator."""
    row, column = np.indices(shape, np.uint64)

    def step(value: np.ndarray) -> np.ndarray:
        return (value * 1103515245 + 12345) % 2**32

    bits = step(column + step(row + np.uint64(seed))).astype(np.uint32).view(np.int32)
    return ((bits.astype(np.float64) + 2147483647) * ((high - low) * 2.3283064e-10)
            + low).astype(np.float32)


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
def test_seeds(pipeline):
    """The same seeds have the same bits, and gradients of what they drew."""
    import moe
    import torch

    r = data.rng("seeds")
    x = r.standard_normal((65, 8)).astype(np.float32)
    w = r.standard_normal((8, 6)).astype(np.float32)
    g = r.standard_normal((65, 3)).astype(np.float32)
    found = {}
    for threads, seeds in ((1, (7, 10007)), (2, (7, 10007)), (2, (8, 10007)), (2, (7, 10008))):
        module = moe.compile(NOISY, options=["--backward=all", f"--pipeline={pipeline}"],
                             num_threads=threads)
        layer, backward = (module.layer({"w": w}, function=n)
                           for n in ("router", "router_backward"))
        given = {"x": x, "seeds": np.array(seeds, np.int32), "result0_gradient": g}
        weights, ids, *saved = layer(x=x, seeds=given["seeds"])
        given.update({f"saved{i}": s for i, s in enumerate(saved)})
        results = (weights, *backward(**{i.name: given[i.name]
                                         for i in backward.signature.inputs}))
        exact = [torch.from_numpy(v).double().requires_grad_() for v in (x, w)]
        jitter, noise = drawn(0.9, 1.1, seeds[0], x.shape), drawn(-0.5, 0.5, seeds[1], (65, 6))
        p, chosen = ((exact[0] * torch.from_numpy(jitter)) @ exact[1]
                     + torch.from_numpy(noise)).softmax(1).topk(3)
        p = p / p.sum(1, keepdim=True)
        p.backward(torch.from_numpy(g).double())
        assert np.array_equal(ids, chosen)
        for result, wanted in zip(results, (p.detach(), exact[0].grad, exact[1].grad)):
            assert data.relative_error(result, wanted.numpy()) <= TOLERANCE["f32"]
        for result, before in zip(results, found.setdefault(seeds, results)):
            assert np.array_equal(data.bits(result), data.bits(before))
    assert len({weights.tobytes() for weights, *_ in found.values()}) == 3
