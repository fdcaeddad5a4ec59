"""``moe.ir``: what it builds, against numpy in float64 and the IR that people write; what it
refuses."""

from __future__ import annotations

import subprocess

import ml_dtypes
import numpy as np
import pytest

import moe
from moe import ir
from moe._tools import find_tool

T, E, K, H, F = 21, 6, 2, 24, 40
TYPES = {"f32": (np.float32, 1e-5), "bf16": (ml_dtypes.bfloat16, 2e-2), "f16": (np.float16, 4e-3)}


def build(element: str, activation=ir.silu, **gate) -> ir.Function:
    f = ir.Function(tokens=(0, 64))
    x = f.input("x", (None, H), element)
    router = f.weight("router", (E, H), element)
    bias = f.weight("bias", (F,), "f32")
    up, down = f.weight("up", (E, H, F), element), f.weight("down", (E, F, H), element)
    weights, ids = f.gate(f.matmul(x, router, transposed=True), top_k=K, **gate)
    grouped, offsets, positions = f.dispatch(x, ids, experts=E)

    def expert(rows, u, d):
        h = f.elementwise(lambda a, b: activation(a + b), f.matmul(rows, u), bias, element=element)
        return f.convert(f.matmul(h, d), element)

    f.output("y", f.combine(f.expert(grouped, offsets, [up, down], expert), positions, weights))
    return f


def arrays(dtype) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shapes = {"x": (T, H), "router": (E, H), "up": (E, H, F), "down": (E, F, H)}
    found = {n: (rng.standard_normal(s) / s[-1] ** 0.25).astype(dtype) for n, s in shapes.items()}
    return {**found, "bias": rng.standard_normal(F).astype(np.float32)}


def expected(a: dict[str, np.ndarray], activation) -> np.ndarray:
    """The layer in float64, with softmax scores that are normalised."""
    a = {name: array.astype(np.float64) for name, array in a.items()}
    scores = a["x"] @ a["router"].T
    y = np.zeros_like(a["x"])
    for t, row in enumerate(scores):
        chosen = np.argsort(-row, kind="stable")[:K]
        weights = np.exp(row[chosen] - row.max())
        for e, w in zip(chosen, weights / weights.sum()):
            y[t] += w * (activation(a["x"][t] @ a["up"][e] + a["bias"]) @ a["down"][e])
    return y


@pytest.mark.parametrize("element", TYPES)
def test_layer(element):
    dtype, tolerance = TYPES[element]
    a = arrays(dtype)
    layer = moe.compile(str(build(element, normalize="sum"))).layer(
        {name: a[name] for name in ("router", "bias", "up", "down")})
    y = layer(a["x"]).astype(np.float64)
    want = expected(a, lambda h: h / (1 + np.exp(-h)))
    assert np.abs(y - want).max() <= tolerance * np.abs(want).max()
    assert layer(a["x"][:0]).shape == (0, H)


SCALARS = {
    "exp": (ir.exp, np.exp), "tanh": (ir.tanh, np.tanh), "sigmoid": (
        ir.sigmoid, lambda v: 1 / (1 + np.exp(-v))),
    "absolute": (ir.absolute, np.abs), "maximum": (
        lambda v: ir.maximum(v, -0.5), lambda v: np.maximum(v, -0.5)),
    "minimum": (lambda v: ir.minimum(v, 0.5), lambda v: np.minimum(v, 0.5)),
    "arithmetic": (lambda v: 3 - (2 * v - 1) / (v * v + 2) + 1, lambda v: (
        3 - (2 * v - 1) / (v * v + 2) + 1)),
    "roots": (lambda v: ir.sqrt(ir.log(v * v + 2)), lambda v: np.sqrt(np.log(v * v + 2))),
}


@pytest.mark.parametrize("name", SCALARS)
def test_scalars(name):
    write, compute = SCALARS[name]
    f = ir.Function()
    f.output("y", f.elementwise(write, f.input("x", (None, 7), "f32")))
    x = np.random.default_rng(1).standard_normal((5, 7)).astype(np.float32)
    want = compute(x.astype(np.float64))
    y = moe.compile(str(f)).layer({})(x)
    assert np.abs(y - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_constants(value):
    f = ir.Function()
    f.output("y", f.elementwise(lambda v: v * 0.0 + value, f.input("x", (None, 3), "f32")))
    assert (moe.compile(str(f)).layer({})(np.ones((2, 3), np.float32)) == value).all()


def fused(text: str) -> str:
    done = subprocess.run([find_tool("moe-opt"), "--moe-fuse"], input=text, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_same_as_written():
    f = ir.Function()
    x, w = f.input("x", (None, 24), "f32"), f.weight("w", (24, 4), "f32", source=["a\"b"],
                                                     convert=True)
    weights, ids = f.gate(f.matmul(x, w), top_k=2, score="sigmoid", groups=(2, 1), scale=2.5,
                          normalize="sum", epsilon=1e-20)
    f.output("weights", weights)
    f.output("ids", ids)
    written = r"""
      func.func @layer(%x: tensor<?x24xf32> {moe.name = "x", moe.role = "input"},
          %w: tensor<24x4xf32> {moe.convert, moe.name = "w", moe.role = "weight",
                                moe.source = ["a\"b"]})
          -> (tensor<?x2xf32> {moe.name = "weights"}, tensor<?x2xi32> {moe.name = "ids"}) {
        %c0 = arith.constant 0 : index
        %zero = arith.constant 0.0 : f32
        %t = tensor.dim %x, %c0 : tensor<?x24xf32>
        %e = tensor.empty(%t) : tensor<?x4xf32>
        %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
        %l = linalg.matmul ins(%x, %w : tensor<?x24xf32>, tensor<24x4xf32>)
                           outs(%z : tensor<?x4xf32>) -> tensor<?x4xf32>
        %weights, %ids = moe.gate %l top_k(2) score(sigmoid) groups(<count = 2, keep = 1>)
          normalize(<sum, epsilon = 1.0e-20>) scale(2.5) : tensor<?x4xf32>
        return %weights, %ids : tensor<?x2xf32>, tensor<?x2xi32>
      }"""
    assert fused(str(f)) == fused(written)
    assert "moe.grouped_matmul" in fused(written)


def test_any_operation():
    """What has no method of its own is created by its name."""
    f = ir.Function()
    x = f.input("x", (None, 4), "f32")
    f.output("y", *f.create("math.absf", [x], [x.type]))
    assert "math.absf" in fused(str(f))
    f = ir.Function()
    f.output("y", *f.create("moe.gate", [f.input("x", (None, 4), "f32")], [
        ir.TensorType((None, 9), "f32"), ir.TensorType((None, 9), "i32")][:1]))
    with pytest.raises(moe.MoEError, match="moe.gate"):  # the compiler verifies
        moe.compile(str(f))


def refused(message: str):
    return pytest.raises(moe.MoEError, match="INVALID_ARGUMENT: .*" + message)


def test_types_are_checked():
    f = ir.Function()
    x, w = f.input("x", (None, 24), "f32"), f.weight("w", (24, 4), "f32")
    ids = f.input("ids", (None, 2), "i32")
    with refused(r"same extents along k, got tensor<\?x24xf32> and tensor<24x4xf32> \(transposed"):
        f.matmul(x, w, transposed=True)
    with refused(r"matrix of floats as rhs of a product, got tensor<\?x2xi32>"):
        f.matmul(x, ids)
    logits = f.matmul(x, w)
    for top_k in (0, 5):
        with refused(f"top_k between 1 and the experts of .*, got {top_k}"):
            f.gate(logits, top_k=top_k)
    with refused(r"bias of 4 experts, got tensor<\?x24xf32>"):
        f.gate(logits, top_k=2, bias=x)
    with refused("keyword as score, got 'soft max'"):
        f.gate(logits, top_k=2, score="soft max")
    with refused("matrix of i32 as ids, got .*xf32>"):
        f.dispatch(x, logits, experts=4)
    grouped, offsets, _ = f.dispatch(x, ids, experts=4)
    with refused("parameters of 4 experts, got tensor<24x4xf32>"):
        f.expert(grouped, offsets, [w], lambda rows, p: rows)
    with refused("rows from the function of an expert, got tensor<24x4xf32>"):
        f.expert(grouped, offsets, [], lambda rows: w)
    with refused(r"floats with the last extents of tensor<\?x24xf32>, got tensor<\?x4xf32>"):
        f.elementwise(lambda a, b: a + b, x, logits)
    with refused("scalar or a number, got str"):
        f.elementwise(lambda a: a + "1", x)
    with refused("static extents of the weight 'v'"):
        f.weight("v", (None, 4), "f32")
    with refused("'x' is the name of another argument"):
        f.input("x", (None, 4), "f32")
    with refused("expected outputs of function 'layer', got none"):
        str(f)


def test_values_stay_where_they_are():
    f, other = ir.Function(), ir.Function()
    x = f.input("x", (None, 24), "f32")
    grouped, offsets, _ = f.dispatch(x, f.input("ids", (None, 2), "i32"), experts=4)
    kept = []
    f.expert(grouped, offsets, [], lambda rows: kept.append(rows) or rows)
    for value in (kept[0], other.input("x", (None, 24), "f32")):
        with refused("visible here, got %.* of another function or region"):
            f.output("y", value)
    scalars = []
    f.elementwise(lambda a: scalars.append(a) or a, x)
    with refused("scalar of this elementwise function, got one of another"):
        f.elementwise(lambda a: a + scalars[0], x)
