"""What no fusion knows: the numbers of test/Pipelines/loops.mlir, along every path."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data
from moe_testing.device import arrays as gpu
from moe_testing.device import double

pytestmark = pytest.mark.filterwarnings("ignore:moe.compile:RuntimeWarning")

SOURCE = Path(__file__).resolve().parents[2] / "Pipelines" / "loops.mlir"
TARGETS = {"moe-reference": "host", "moe-cpu": "host", "moe-gpu": "sm_80"}
TOKENS = 5


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def mixture(x, logits, weights):
    """Softmax of all logits, the best two, one product each."""
    scores = softmax(logits)
    y = np.zeros_like(x)
    for k in np.argsort(-scores, axis=1, kind="stable")[:, :2].T:
        chosen = np.take_along_axis(scores, k[:, None], 1)
        y += chosen * np.einsum("ti,tio->to", x, weights[k])
    return y


def while_loop(x, y):
    for _ in range(3):
        x, y = y, x + y
    return x, y


def layers(x, logits, weights):
    for each in weights:
        x = mixture(x, logits, each)
    return x


def whole_tensors(x, y, f):
    a = x + y
    b = np.exp(a)
    return np.where(a < b, a, b) if f > 0 else x


def scatter(x, i, y):
    y = y.copy()
    for row, to in zip(x, i[:, 0]):
        if 0 <= to < len(y):
            y[to] = row
    return y


X, Y = draw(TOKENS, 4), draw(TOKENS, 4, seed=1)
OFFSETS = np.array([0, 2, 4], np.int32)  # the last row has no expert
NUMBERS = np.array([[4], [0], [-1], [7], [2]], np.int32)  # two are held to the table

# For each function inputs in order, and what they are to give.
CASES = {
    "softmax": ([draw(TOKENS, 8), OFFSETS],
                lambda x, o: softmax(x) * (np.arange(TOKENS) < 4)[:, None]),
    "whole_tensors": ([X, Y, np.ones(1, np.float32)], whole_tensors),
    "splat": ([X, np.full(1, 3, np.float32)], lambda x, f: x * f),
    "concat": ([X, draw(TOKENS, 2)], lambda x, y: np.concatenate([x, y], 1)),
    "pad": ([X], lambda x: np.pad(x, ((0, 0), (1, 2)), constant_values=1)),
    "gather": ([draw(5, 4), NUMBERS], lambda t, i: (t[i[:, 0].clip(0, 4)], t[i.clip(0, 4)])),
    "scatter": ([X, NUMBERS, draw(9, 4)], scatter),
    "bits": ([X], lambda x: x.view(np.int32)),
    "transpose": ([draw(TOKENS, 4, 2)], lambda x: x.transpose(0, 2, 1)),
    "reduce": ([X, draw(TOKENS)],
               lambda x, s: (m := np.maximum(x.max(1), s), np.repeat(m[:, None], 4, 1))),
    "convolution": ([draw(TOKENS, 2, 6), draw(3, 2, 3)], lambda x, w: np.einsum(
        "ncwk,fck->nfw", np.lib.stride_tricks.sliding_window_view(x, 3, axis=2), w)),
    "batch": ([draw(TOKENS, 2, 4), draw(TOKENS, 4, 3)], np.matmul),
    "packed": ([draw(8, 6)],
               lambda x: (x.reshape(2, 4, 3, 2).transpose(0, 2, 1, 3), x)),
    "affine": ([X], lambda x: 2 * x[:, ::-1]),
    "strided": ([draw(TOKENS, 9), draw(TOKENS, 3), draw(3, 4, 4)],
                lambda x, l, w: mixture(x[:, 1:9:2], l, w)),
    "layers": ([X, draw(TOKENS, 3), draw(2, 3, 4, 4)], layers),
    "while": ([X, Y], while_loop),
    "one_expert": ([X, np.array([[0], [-1], [0], [0], [-1]], np.int32), draw(1, 4, 4)],
                   lambda x, i, w: x @ w[0] * (i == 0)),
    "one_of_three": ([X, np.array([[2], [0], [1], [2], [2]], np.int32), draw(1, 4, 4)],
                     lambda x, i, w: x @ w[0] * (i == 2)),
}


@pytest.fixture(scope="module")
def modules(compiled):
    """One module for each path, with all functions."""
    text = SOURCE.read_text().replace("// -----", "")
    made = {}

    def module(pipeline):
        if pipeline not in made:
            on_device = pipeline == "moe-gpu"
            if on_device:
                double.needs_device()
            # On the reference path loops are what was asked for.
            warns = (contextlib.nullcontext() if pipeline == "moe-reference" else
                     pytest.warns(RuntimeWarning, match="an expert is left to loops"))
            with warns:
                made[pipeline] = compiled.compile(
                    text, target=TARGETS[pipeline], options=[f"--pipeline={pipeline}"],
                    device="cuda" if on_device else "cpu")
        return made[pipeline]

    return module


def run(module, name, arrays, on_device):
    signature = module.signature(name)
    if on_device:
        arrays = list(map(gpu.upload, arrays))
    first = len(arrays) - len(signature.weights)
    layer = module.layer(arrays[first:], function=name)
    if not on_device:
        result = layer(*arrays[:first])
        return result if isinstance(result, (tuple, list)) else [result]
    outs = [gpu.empty(info.dtype, [TOKENS if d < 0 else d for d in info.shape])
            for info in signature.outputs]
    layer(*arrays[:first], out=outs if len(outs) > 1 else outs[0])
    return [gpu.download(out) for out in outs]


@pytest.mark.parametrize("pipeline", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_loops(modules, name, pipeline):
    arrays, formula = CASES[name]
    expected = formula(*arrays)
    if not isinstance(expected, tuple):
        expected = (expected,)
    actual = run(modules(pipeline), name, arrays, pipeline == "moe-gpu")
    assert len(actual) == len(expected)
    for each, right in zip(actual, expected):
        # Sums of at most 16 terms, and a polynomial of exp on a device.
        assert data.relative_error(each, right) < 2e-6


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("experts, first", [(1, 0), (3, 2)])
def test_one_expert_on_tensor_cores(compiled, experts, first, target):
    """The weights of one expert alone, the only one or one of several."""
    double.needs_device()
    x, w = draw(TOKENS, 32), draw(1, 32, 64)
    ids = np.array([[first], [0], [-1], [first], [first]], np.int32)
    text = f"""
func.func @f(%x: tensor<?x32xf16>, %i: tensor<?x1xi32>,
    %a: tensor<1x32x64xf16> {{moe.role = "weight"}}) -> tensor<?x64xf32> {{
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %i experts({experts}) : tensor<?x32xf16>, tensor<?x1xi32>
  %y = moe.expert %g, %o params(%a : tensor<1x32x64xf16>) first({first}) count(1) uncovered(zero) {{
  ^bb0(%r: tensor<?x32xf16>, %v: tensor<32x64xf16>):
    %n = tensor.dim %r, %c0 : tensor<?x32xf16>
    %e = tensor.empty(%n) : tensor<?x64xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
    %h = linalg.matmul ins(%r, %v : tensor<?x32xf16>, tensor<32x64xf16>) outs(%f : tensor<?x64xf32>)
        -> tensor<?x64xf32>
    moe.yield %h : tensor<?x64xf32>
  }} : tensor<?x32xf16>, tensor<{experts + 1}xi32> -> tensor<?x64xf32>
  %z = moe.combine %y, %p : tensor<?x64xf32>, tensor<?x1xi32>
  return %z : tensor<?x64xf32>
}}"""
    x, w = x.astype(np.float16), w.astype(np.float16)
    module = compiled.compile(text, target=target, device="cuda")
    actual, = run(module, "f", [x, ids, w], on_device=True)
    expected = x.astype(np.float64) @ w[0].astype(np.float64) * (ids == first)
    # Sums of 32 exact products in f32.
    assert data.relative_error(actual, expected) < 1e-6


@pytest.mark.parametrize("target", ["host", "sm_80", "sm_90a"])
def test_stacked_weights(compiled, target):
    """Experts of 16 bits in a loop over layers, whose weights only the loop finds."""
    on_device = target != "host"
    if on_device:
        double.needs_device()
    text = """
func.func @f(%x: tensor<?x32xf16>, %i: tensor<?x1xi32>,
    %a: tensor<3x2x32x64xf16> {moe.role = "weight"}) -> tensor<?x64xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %t = tensor.dim %x, %c0 : tensor<?x32xf16>
  %d = tensor.empty(%t) : tensor<?x64xf32>
  %none = linalg.fill ins(%zero : f32) outs(%d : tensor<?x64xf32>) -> tensor<?x64xf32>
  %sum = scf.for %k = %c0 to %c3 step %c1 iter_args(%s = %none) -> tensor<?x64xf32> {
    %w = tensor.extract_slice %a[%k, 0, 0, 0] [1, 2, 32, 64] [1, 1, 1, 1]
        : tensor<3x2x32x64xf16> to tensor<2x32x64xf16>
    %g, %o, %p = moe.dispatch %x, %i experts(2) : tensor<?x32xf16>, tensor<?x1xi32>
    %y = moe.expert %g, %o params(%w : tensor<2x32x64xf16>) {
    ^bb0(%r: tensor<?x32xf16>, %v: tensor<32x64xf16>):
      %n = tensor.dim %r, %c0 : tensor<?x32xf16>
      %e = tensor.empty(%n) : tensor<?x64xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
      %h = linalg.matmul ins(%r, %v : tensor<?x32xf16>, tensor<32x64xf16>)
          outs(%f : tensor<?x64xf32>) -> tensor<?x64xf32>
      moe.yield %h : tensor<?x64xf32>
    } : tensor<?x32xf16>, tensor<3xi32> -> tensor<?x64xf32>
    %z = moe.combine %y, %p : tensor<?x64xf32>, tensor<?x1xi32>
    %next = arith.addf %s, %z : tensor<?x64xf32>
    scf.yield %next : tensor<?x64xf32>
  }
  return %sum : tensor<?x64xf32>
}"""
    x, w = draw(TOKENS, 32).astype(np.float16), draw(3, 2, 32, 64).astype(np.float16)
    ids = np.array([[1], [0], [-1], [1], [0]], np.int32)
    module = compiled.compile(text, target=target, device="cuda" if on_device else "cpu")
    actual, = run(module, "f", [x, ids, w], on_device)
    products = np.einsum("ti,leio->teo", x.astype(np.float64), w.astype(np.float64))
    expected = np.take_along_axis(products, ids[:, :, None].clip(0), 1)[:, 0] * (ids >= 0)
    # Sums of 96 exact products in f32.
    assert data.relative_error(actual, expected) < 1e-6


def test_fixed_tokens(compiled):
    """Five rows beside those of the tokens: five tokens, and no others."""
    layer = compiled.compile("""
func.func @f(%x: tensor<?x4xf32>, %y: tensor<5x4xf32>) -> tensor<?x4xf32> {
  %z = arith.constant 0 : index
  %t = tensor.dim %x, %z : tensor<?x4xf32>
  %e = tensor.empty(%t) : tensor<?x4xf32>
  %s = linalg.add ins(%x, %y : tensor<?x4xf32>, tensor<5x4xf32>) outs(%e : tensor<?x4xf32>)
      -> tensor<?x4xf32>
  return %s : tensor<?x4xf32>
}""").layer()
    np.testing.assert_array_equal(layer(X, Y), X + Y)
    with pytest.raises(compiled.MoEError, match="6"):
        layer(draw(6, 4), Y)
