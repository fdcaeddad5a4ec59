"""Artifacts for every level of x86-64, not only for the processor of this machine.

Layers of each kind of kernel are compiled for each level in f32, bf16 and f16. What their
code asks of the host is looked at for every level; where this processor has the level, they
run and are compared with transformers and the papers' formulas.
"""

from __future__ import annotations

import subprocess

import ml_dtypes
import numpy as np
import pytest
from moe_testing import data, layers

# Plain products; biases, interleaved columns and clamps; groups and a shared expert;
# experts that choose tokens.
NAMES = ("mixtral", "gpt_oss", "deepseek_v3", "expert_choice")
TYPES = ("f32", "bf16", "f16")

# Functions of the C and the math library. A compiler's library is not among them.
HOST = {"memcpy", "memmove", "memset"} | {
    f + suffix for suffix in ("", "f")
    for f in ("exp", "exp2", "expm1", "log", "log1p", "log2", "pow", "sqrt", "tanh", "erf", "fma",
              "floor", "ceil", "trunc", "round", "roundeven", "fabs", "sin", "cos")}

# Infinity and NaN are among the numbers.
pytestmark = [pytest.mark.skipif("sse2" not in data.processor_flags(), reason="needs an x86-64"),
              pytest.mark.filterwarnings("ignore:.*encountered in cast:RuntimeWarning")]


def undefined(artifact):
    """The functions that an artifact calls and does not have."""
    done = subprocess.run(["nm", "--dynamic", "--undefined-only", artifact],
                          capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines()}


def compile_for(level, text, tmp_path, pipeline="moe-cpu"):
    """The path of an artifact, whose symbols have been looked at."""
    import moe

    path = tmp_path / "a.moe"
    done = subprocess.run(
        [str(moe.find_compiler()), "-", f"--target={level}", f"--pipeline={pipeline}", "-o", path],
        input=text, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert undefined(path) <= HOST
    return path


def load(level, path):
    import moe

    data.skip_unless_runs(level)  # its symbols are as expected
    return moe.load(path)


@pytest.mark.parametrize("level", data.LEVELS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name, pipeline", [(n, "moe-cpu") for n in NAMES]
                         + [("mixtral", "moe-reference")])
def test_layers(name, pipeline, dtype, level, compiled, tmp_path):
    path = compile_for(level, layers.text(name, dtype), tmp_path, pipeline)
    inputs, weights = data.inputs_of(name, 33, dtype), data.weights_of(name, dtype)
    y = load(level, path).layer(weights)(**inputs)
    expected = data.oracle(name, inputs, weights)
    assert data.relative_error(y, expected) < data.TOLERANCE[dtype]


def elementwise(source, result, body):
    return f"""
func.func @f(%x: tensor<?x1x{source}>) -> tensor<?x1x{result}> {{
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x1x{source}>
  %e = tensor.empty(%n) : tensor<?x1x{result}>
  %y = linalg.map ins(%x : tensor<?x1x{source}>)
      outs(%e : tensor<?x1x{result}>) (%v: {source}, %o: {result}) {{
{body}
    linalg.yield %r : {result}
  }}
  return %y : tensor<?x1x{result}>
}}
"""


TRUNCATE = "    %r = arith.truncf %v : {} to {}"
EXTEND = "    %r = arith.extf %v : {} to {}"
NUMPY = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "f32": np.float32, "f64": np.float64}


def hard_numbers(dtype, result):
    """Every number of the result's type, what lies halfway between two, and what lies next to
    that, of either sign."""
    every = np.arange(1 << 15, dtype=np.uint16).view(NUMPY[result]).astype(np.float64)
    every = every[np.isfinite(every)]
    halfway = (every[:-1] + every[1:]) / 2
    above = every[-1] + (every[-1] - every[-2]) / 2
    numbers = np.concatenate([every, halfway, [above, above * 2, 1e-30, 1e30]])
    numbers = numbers.astype(NUMPY[dtype])
    with np.errstate(over="ignore"):
        numbers = np.concatenate([numbers, np.nextafter(numbers, NUMPY[dtype](0)),
                                  np.nextafter(numbers, NUMPY[dtype](np.inf))])
    return np.concatenate([numbers, -numbers, NUMPY[dtype]([np.inf, -np.inf, np.nan])])


@pytest.mark.parametrize("level", data.LEVELS)
@pytest.mark.parametrize("source, result", [
    ("f32", "f16"), ("f32", "bf16"), ("f64", "f16"), ("f64", "bf16")])
def test_rounding(source, result, level, compiled, tmp_path):
    """As numpy and ml_dtypes round; f64 once, not by way of f32."""
    text = elementwise(source, result, TRUNCATE.format(source, result))
    path = compile_for(level, text, tmp_path)
    x = hard_numbers(source, result)
    y = load(level, path).layer({})(x[:, None])[:, 0]
    with np.errstate(over="ignore"):
        if (source, result) == ("f64", "bf16"):     # ml_dtypes rounds twice
            expected = round_to_bf16(x)
        else:
            expected = x.astype(NUMPY[result])
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(y[finite].view(np.uint16), expected[finite].view(np.uint16))
    assert np.isnan(y[~finite].astype(np.float32)).all()


def round_to_bf16(x):
    """f64 to bf16, by the nearer of the two neighbours; the even one where both are near."""
    below = np.abs(x).astype(np.float32)
    below = np.where(below.astype(np.float64) > np.abs(x), np.nextafter(below, np.float32(0)),
                     below)
    low = (below.view(np.uint32) >> 16).astype(np.uint32)

    def value(bits):
        return (bits << 16).view(np.float32).astype(np.float64)

    high = np.where(low == 0x7F7F, 2.0 ** 128, value(low + 1))
    with np.errstate(invalid="ignore"):
        from_low, from_high = np.abs(x) - value(low), high - np.abs(x)
    up = (from_high < from_low) | ((from_high == from_low) & (low & 1 == 1))
    bits = np.where(np.isinf(x), 0x7F80, low + up) | np.where(np.signbit(x), 0x8000, 0)
    return bits.astype(np.uint16).view(ml_dtypes.bfloat16)


@pytest.mark.parametrize("level", data.LEVELS)
@pytest.mark.parametrize("source", ["f16", "bf16"])
@pytest.mark.parametrize("result", ["f32", "f64"])
def test_extension(source, result, level, compiled, tmp_path):
    """All 65536 encodings."""
    path = compile_for(level, elementwise(source, result, EXTEND.format(source, result)), tmp_path)
    x = np.arange(1 << 16).astype(np.uint16).view(NUMPY[source])
    y = load(level, path).layer({})(x[:, None])[:, 0]
    np.testing.assert_array_equal(y, x.astype(NUMPY[result]))


@pytest.mark.parametrize("level", data.LEVELS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_arithmetic(dtype, level, compiled, tmp_path):
    """Each operation rounds to the type, whether a branch or a constant comes between or not."""
    path = compile_for(level, elementwise(dtype, dtype, f"""
    %c = arith.constant 1.5 : {dtype}
    %s = arith.addf %v, %c : {dtype}
    %p = arith.mulf %s, %v : {dtype}
    %less = arith.cmpf olt, %p, %c : {dtype}
    %b = scf.if %less -> {dtype} {{
      %m = arith.negf %p : {dtype}
      scf.yield %m : {dtype}
    }} else {{
      %q = math.sqrt %p : {dtype}
      scf.yield %q : {dtype}
    }}
    %r = arith.maximumf %b, %v : {dtype}"""), tmp_path)
    x = np.random.default_rng(5).standard_normal(500).astype(NUMPY[dtype])
    y = load(level, path).layer({})(x[:, None])[:, 0]
    one_half = NUMPY[dtype](1.5)
    product = ((x + one_half) * x)
    with np.errstate(invalid="ignore"):
        expected = np.maximum(np.where(product < one_half, -product, np.sqrt(product)), x)
    np.testing.assert_array_equal(y.view(np.uint16), expected.view(np.uint16))
