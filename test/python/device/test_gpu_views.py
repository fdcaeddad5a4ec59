"""What kernels cannot take as it is, on a GPU or the double of its driver: parts of
tensors, single elements, functions of 16-bit numbers, mixtures in experts, no rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from moe_testing import data
from moe_testing.device import arrays as gpu

TARGETS = ["sm_80", "sm_90a"]

pytestmark = pytest.mark.usefixtures("device")


def run(text, tokens, target="sm_80", **inputs):
    import moe

    layer = moe.compile(text, target=target, device="cuda").layer({})
    return gpu.run(layer, inputs, tokens)


def draw(shape, dtype="f32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(data.numpy_type(dtype))


@pytest.mark.parametrize("tokens", [1, 7, 150])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("first", [64, 3])
def test_product_of_columns(first, target, tokens):
    """Columns, the first of which is at a multiple of 16 bytes or is not."""
    x, w = draw((tokens, 128), "bf16"), draw((64, 64), "bf16", 1)
    y = run(f"""
func.func @layer(%x: tensor<?x128xbf16>, %w: tensor<64x64xbf16>) -> tensor<?x64xf32> {{
  %c0 = arith.constant 0 : index
  %z = arith.constant 0.0 : f32
  %n = tensor.dim %x, %c0 : tensor<?x128xbf16>
  %s = tensor.extract_slice %x[0, {first}] [%n, 64] [1, 1] : tensor<?x128xbf16> to tensor<?x64xbf16>
  %e = tensor.empty(%n) : tensor<?x64xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x64xf32>) -> tensor<?x64xf32>
  %y = linalg.matmul ins(%s, %w : tensor<?x64xbf16>, tensor<64x64xbf16>) outs(%f : tensor<?x64xf32>)
      -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}}""", tokens, target, arg0=x, arg1=w)
    expected = x[:, first:first + 64].astype(np.float64) @ w.astype(np.float64)
    # Sums of 64 exact products in f32.
    assert data.relative_error(y, expected) < 1e-6


@pytest.mark.parametrize("rows, columns", [("[1, 0] [7, 6]", 6), ("[0, 2] [7, 4]", 4)])
def test_choices_in_parts(rows, columns):
    """Rows that begin at no multiple of 16 bytes, and columns."""
    x = draw((8, 6))
    ids = run(f"""
func.func @layer(%x: tensor<8x6xf32>) -> tensor<7x2xi32> {{
  %s = tensor.extract_slice %x{rows} [1, 1] : tensor<8x6xf32> to tensor<7x{columns}xf32>
  %w, %i = moe.gate %s top_k(2) : tensor<7x{columns}xf32>
  return %i : tensor<7x2xi32>
}}""", 7, arg0=x)
    part = x[1:] if columns == 6 else x[:7, 2:]
    np.testing.assert_array_equal(ids, np.argsort(-part, axis=1, kind="stable")[:, :2])


@pytest.mark.parametrize("tokens", [1, 300])
def test_elements(tokens):
    """One that is given, and one that a kernel computes for another."""
    x, scale = draw((tokens, 16)), np.array([3.5], np.float32)
    y = run("""
func.func @layer(%x: tensor<?x16xf32>, %scale: tensor<1xf32>) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x16xf32>
  %e = tensor.empty(%n) : tensor<?x16xf32>
  %s = tensor.extract %scale[%c0] : tensor<1xf32>
  %y = linalg.map { arith.mulf } ins(%x, %x : tensor<?x16xf32>, tensor<?x16xf32>)
      outs(%e : tensor<?x16xf32>)
  %first = tensor.extract %y[%c0, %c0] : tensor<?x16xf32>
  %both = arith.addf %s, %first : f32
  %z = linalg.map ins(%y : tensor<?x16xf32>) outs(%e : tensor<?x16xf32>) (%a: f32, %o: f32) {
    %r = arith.addf %a, %both : f32
    linalg.yield %r : f32
  }
  return %z : tensor<?x16xf32>
}""", tokens, arg0=x, arg1=scale)
    square = x * x
    np.testing.assert_array_equal(y, square + (scale + square[0, 0]))


FUNCTIONS = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log1p": np.log1p, "tanh": np.tanh, "erf": np.vectorize(math.erf), "sin": np.sin,
    "cos": np.cos, "tan": np.tan, "cosh": np.cosh, "atan": np.arctan, "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x), "ceil": np.ceil, "floor": np.floor,
    "roundeven": np.rint, "round": lambda x: np.floor(x + 0.5), "trunc": np.trunc,
    "absf": np.abs}


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype):
    x = np.linspace(0.125, 1.5, 249).astype(data.numpy_type(dtype)).reshape(83, 3)
    y = run(f"""
func.func @layer(%x: tensor<?x3x{dtype}>) -> tensor<?x3x{dtype}> {{
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x3x{dtype}>
  %e = tensor.empty(%n) : tensor<?x3x{dtype}>
  %y = linalg.map {{ math.{name} }} ins(%x : tensor<?x3x{dtype}>) outs(%e : tensor<?x3x{dtype}>)
  return %y : tensor<?x3x{dtype}>
}}""", 83, arg0=x)
    expected = FUNCTIONS[name](x.astype(np.float64))
    # Rounded once, from what MLIR's polynomials of f32 come to.
    polynomial = 2.0**-17 if name == "atan" else 2.0**-18
    unit = {"f16": 2.0**-11, "bf16": 2.0**-8, "f32": 0}[dtype] + polynomial
    error = np.abs(y.astype(np.float64) - expected)
    assert (error <= unit * np.maximum(np.abs(expected), 0.125)).all(), error.max()


def test_clamp_and_power():
    x = np.linspace(-3, 3, 99).astype(np.float16).reshape(33, 3)
    y = run("""
func.func @layer(%x: tensor<?x3xf16>) -> tensor<?x3xf16> {
  %c0 = arith.constant 0 : index
  %low = arith.constant 0.5 : f16
  %high = arith.constant 2.0 : f16
  %power = arith.constant 1.5 : f16
  %n = tensor.dim %x, %c0 : tensor<?x3xf16>
  %e = tensor.empty(%n) : tensor<?x3xf16>
  %y = linalg.map ins(%x : tensor<?x3xf16>) outs(%e : tensor<?x3xf16>) (%a: f16, %o: f16) {
    %b = math.clampf %a to [%low, %high] : f16
    %r = math.powf %b, %power : f16
    linalg.yield %r : f16
  }
  return %y : tensor<?x3xf16>
}""", 33, arg0=x)
    expected = np.clip(x.astype(np.float64), 0.5, 2)**1.5
    assert (np.abs(y - expected) <= 1.01 * 2.0**-11 * expected).all()


def test_mixture_in_an_expert():
    """The rows of an expert, each with the sum of itself and its exponential."""
    x = draw((9, 4))
    offsets = np.array([0, 5, 5, 9], np.int32)
    y = run("""
func.func @layer(%x: tensor<?x4xf32>, %o: tensor<4xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %w, %i = moe.gate %r top_k(2) : tensor<?x4xf32>
    %g, %p, %q = moe.dispatch %r, %i experts(4) : tensor<?x4xf32>, tensor<?x2xi32>
    %h = moe.expert %g, %p {
    ^bb0(%s: tensor<?x4xf32>):
      %e = linalg.exp ins(%s : tensor<?x4xf32>) outs(%s : tensor<?x4xf32>) -> tensor<?x4xf32>
      moe.yield %e : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<5xi32> -> tensor<?x4xf32>
    %z = moe.combine %h, %q weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}""", 9, arg0=x, arg1=offsets)
    scores = np.exp(x.astype(np.float64))
    scores /= scores.sum(1, keepdims=True)
    weight = np.sort(scores, axis=1)[:, 2:].sum(1, keepdims=True)
    assert data.relative_error(y, weight * np.exp(x.astype(np.float64))) < 1e-6


def test_sum_of_no_rows():
    """Nothing is read where there are no rows, and each choice was dropped."""
    positions = np.full((5, 2), -1, np.int32)
    y = run("""
func.func @layer(%x: tensor<0x8xf32>, %p: tensor<?x2xi32>) -> tensor<?x8xf32> {
  %y = moe.combine %x, %p : tensor<0x8xf32>, tensor<?x2xi32>
  return %y : tensor<?x8xf32>
}""", 5, arg0=np.empty((0, 8), np.float32), arg1=positions)
    np.testing.assert_array_equal(y, np.zeros((5, 8), np.float32))
