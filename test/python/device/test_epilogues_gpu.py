"""Activations of results of 16 bits, which kernels approximate, for every number of 16 bits.

The double's approximate instructions are off by as much as the ISA allows, so what holds there
holds on any GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moe_testing import data
from moe_testing.device import arrays as gpu

pytestmark = pytest.mark.usefixtures("device")

# From %s in f32 to %r: as frameworks write them. What torch says, and how far before rounding
# the result may be off: relative to it, and to the operand.
ACTIVATIONS = {
    "silu": ("""
    %n = arith.negf %s : f32
    %e = math.exp %n : f32
    %d = arith.addf %e, %one : f32
    %r = arith.divf %s, %d : f32""", torch.nn.functional.silu, 2.0**-16, 0),
    "gelu": ("""
    %a = arith.mulf %s, %rsqrt2 : f32
    %e = math.erf %a : f32
    %b = arith.addf %e, %one : f32
    %h = arith.mulf %s, %half : f32
    %r = arith.mulf %h, %b : f32""", torch.nn.functional.gelu, 2.0**-18, 2.0**-19),
    "gelu_tanh": ("""
    %q = arith.mulf %s, %s : f32
    %c = arith.mulf %q, %s : f32
    %d = arith.mulf %c, %cubic : f32
    %f = arith.addf %s, %d : f32
    %a = arith.mulf %f, %root : f32
    %e = math.tanh %a : f32
    %b = arith.addf %e, %one : f32
    %h = arith.mulf %s, %half : f32
    %r = arith.mulf %h, %b : f32""",
                  lambda x: torch.nn.functional.gelu(x, approximate="tanh"), 2.0**-17, 2.0**-21),
    "tanh": ("""
    %r = math.tanh %s : f32""", torch.tanh, 2.0**-17, 0),
    "softplus_of_few": ("""
    %a = math.absf %s : f32
    %n = arith.negf %a : f32
    %e = math.exp %n : f32
    %l = math.log1p %e : f32
    %m = arith.maximumf %s, %zero : f32
    %r = arith.addf %m, %l : f32""", torch.nn.functional.softplus, 2.0**-16, 0),
}
# Powers and reciprocals below 2^-126 become 0; activations multiply them by 89 at most.
TINY = 2.0**-119
K, N = 64, 64


def run(body: str, dtype: str, target: str, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    import moe

    text = f"""
func.func @layer(%x: tensor<?x{K}x{dtype}> {{moe.name = "x", moe.role = "input"}},
                 %w: tensor<1x{N}x{K}x{dtype}> {{moe.name = "w", moe.role = "input"}})
    -> tensor<?x{N}x{dtype}> {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x{K}x{dtype}>
  %init = tensor.empty(%t) : tensor<?x{N}x{dtype}>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x{N}x{K}x{dtype}>) transposed
      outs(%init : tensor<?x{N}x{dtype}>) {{
  ^bb0(%s: f32):
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1.0 : f32
    %half = arith.constant 0.5 : f32
    %rsqrt2 = arith.constant 0.707106769 : f32
    %root = arith.constant 0.797884583 : f32
    %cubic = arith.constant 0.044715 : f32{body}
    %y = arith.truncf %r : f32 to {dtype}
    moe.yield %y : {dtype}
  }} : tensor<?x{K}x{dtype}> -> tensor<?x{N}x{dtype}>
  return %y : tensor<?x{N}x{dtype}>
}}"""
    layer = moe.compile(text, target=target, device="cuda").layer({})
    out = gpu.empty(dtype, (len(x), N))
    layer(out=out, x=gpu.upload(x), w=gpu.upload(w))
    return gpu.download(out)


def half_unit(exact: np.ndarray, dtype: str) -> np.ndarray:
    """Half the distance of numbers of `dtype` around `exact`."""
    bits, least = {"bf16": (8, -133), "f16": (11, -24)}[dtype]
    exponent = np.frexp(exact)[1]
    return np.exp2(np.maximum(exponent - bits, least) - 1)


def all_numbers(dtype: str) -> np.ndarray:
    return np.arange(65536, dtype=np.uint16).view(data.numpy_type(dtype))


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_all_numbers(name, dtype, target):
    body, function, relative, of_operand = ACTIVATIONS[name]
    x = all_numbers(dtype).reshape(-1, K)
    with np.errstate(invalid="ignore"):  # signalling NaN
        finite = np.isfinite(x.astype(np.float64))
    # Products with the identity: the sums are the rows, except for infinities and NaN.
    rows = np.where(finite, x, x.dtype.type(0))
    y = run(body, dtype, target, rows, np.eye(N, K, dtype=x.dtype)[None])[finite]
    operand = x[finite].astype(np.float64)
    exact = function(torch.from_numpy(operand)).numpy()
    largest = float(np.finfo(np.float16).max) if dtype == "f16" else 3.3895e38
    bound = (1.0001 * half_unit(exact, dtype) + relative * np.abs(exact)
             + of_operand * np.abs(operand) + TINY)
    error = np.abs(y.astype(np.float64) - exact)
    off = (error > bound) & (np.abs(exact) < largest)
    assert not off.any(), (operand[off][:9], y[off][:9], exact[off][:9])
    # It is the nearest number for nearly all.
    assert np.mean(error <= half_unit(exact, dtype) * 1.0001 + TINY) > 0.98


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ["silu", "gelu_tanh", "tanh"])
def test_infinities_and_nan(name, target):
    body, function, *_ = ACTIVATIONS[name]
    x = np.zeros((3, K), data.numpy_type("bf16"))
    x[:, 0] = [np.inf, -np.inf, np.nan]
    w = np.zeros((1, N, K), x.dtype)
    w[:, :, 0] = 1
    y = run(body, "bf16", target, x, w).astype(np.float64)
    # In f32, as frameworks compute it: silu(-inf) is -inf / inf.
    expected = {"silu": [np.inf, np.nan, np.nan], "gelu_tanh": [np.inf, np.nan, np.nan],
                "tanh": [1, -1, np.nan]}[name]
    np.testing.assert_array_equal(y, np.repeat(np.array(expected)[:, None], N, 1))
