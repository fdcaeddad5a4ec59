"""Functions of JAX with experts, compiled, against JAX's own results.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess

import moe
import numpy as np
import pytest
from moe._tools import find_tool

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax

EXPERTS, TOP_K, HIDDEN, INNER = 8, 3, 48, 80
TOKENS = (0, 1, 5, 33)


def parameters(dtype="float32", seed=0):
    """Weights whose columns differ in size, so that a mistake in one shows."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        array = rng.standard_normal(shape) * rng.uniform(0.2, 2.0, shape[-1])
        return jnp.asarray(array / np.sqrt(shape[-2]), dtype)

    return {"router": draw(HIDDEN, EXPERTS), "wi": draw(EXPERTS, HIDDEN, 2 * INNER),
            "wi_0": draw(EXPERTS, HIDDEN, INNER),
            "wi_1": draw(EXPERTS, HIDDEN, INNER), "wo": draw(EXPERTS, INNER, HIDDEN)}


def swiglu(rows, sizes, p):
    gate, up = (lax.ragged_dot(rows, p[name], sizes) for name in ("wi_0", "wi_1"))
    return lax.ragged_dot(jax.nn.silu(gate) * up, p["wo"], sizes)


# -- blocks, as their users write them ----------------------------------------


def maxtext(x, p):
    """top_k of the logits, argsort, take, ragged_dot, argsort of the order, einsum."""
    weights, ids = lax.top_k(x @ p["router"], TOP_K)
    weights = jax.nn.softmax(weights.astype(jnp.float32), axis=-1).astype(x.dtype)
    flat = jnp.ravel(ids)
    order = jnp.argsort(flat)
    rows = jnp.take(x, indices=order // TOP_K, axis=0)
    y = swiglu(rows, jnp.bincount(flat, length=EXPERTS), p)
    y = jnp.take(y, indices=jnp.argsort(order), axis=0).reshape(-1, TOP_K, x.shape[-1])
    return jnp.einsum("BKE,BK -> BE", y.astype(jnp.float32),
                      weights.astype(jnp.float32)).astype(x.dtype)


def scatter_add(x, p):
    """Softmax before the choice, renormalised; the rows are weighted, then added up."""
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"], axis=-1), TOP_K)
    weights = weights / weights.sum(-1, keepdims=True)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat, stable=True)
    tokens = order // TOP_K
    sizes = jnp.zeros(EXPERTS, jnp.int32).at[flat].add(1)
    y = swiglu(x[tokens], sizes, p) * weights.reshape(-1)[order][:, None]
    return jnp.zeros_like(x).at[tokens].add(y)


def one_hot_counts(x, p):
    """Counts by a one-hot sum, tokens by repeat, the inverse by a scatter."""
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"], axis=-1), TOP_K)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    tokens = jnp.repeat(jnp.arange(x.shape[0]), TOP_K)[order]
    sizes = jax.nn.one_hot(flat, EXPERTS, dtype=jnp.int32).sum(0)
    y = swiglu(x[tokens], sizes, p)
    y = jnp.zeros_like(y).at[order].set(y, unique_indices=True)
    return (y.reshape(*ids.shape, -1) * weights[..., None]).sum(1)


def fused_up(x, p):
    """One product for gate and up, which split divides; logits in f32."""
    weights, ids = lax.top_k(jnp.dot(x, p["router"], preferred_element_type=jnp.float32), TOP_K)
    weights = jax.nn.sigmoid(weights)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    sizes = jnp.bincount(flat, length=EXPERTS).astype(jnp.int32)
    gate, up = jnp.split(lax.ragged_dot(x[order // TOP_K], p["wi"], sizes), 2, axis=1)
    y = lax.ragged_dot(jax.nn.gelu(gate) * up, p["wo"], sizes)
    y = y[jnp.argsort(order)].reshape(*ids.shape, -1)
    return jnp.sum(y * weights[..., None].astype(y.dtype), axis=1)


def biased(x, p):
    """A bias of each row's expert, by the sorted ids; rows weighed before the experts."""
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"]), TOP_K)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    sizes = jnp.bincount(flat, length=EXPERTS)
    given = x[order // TOP_K] * weights.reshape(-1)[order][:, None]
    y = jax.nn.gelu(lax.ragged_dot(given, p["wi_0"], sizes) + p["wi_1"][:, 0][flat[order]])
    y = lax.ragged_dot(y, p["wo"], sizes)
    return y[jnp.argsort(order)].reshape(-1, TOP_K, HIDDEN).sum(1)


def test_uses_of_the_order():
    p = parameters()
    imported = import_block(biased, p)
    for operation in ("moe.dispatch", "moe.combine"):
        assert imported.mlir.count(f"= {operation} ") == 1
    layer = imported.layer()
    for tokens in TOKENS:
        compare(layer, biased, p, tokens)


GATES = {"maxtext": "top_k(3) order(select_then_score)",
         "scatter_add": "top_k(3) normalize(<sum>)", "one_hot_counts": "top_k(3)"}
BLOCKS = ["maxtext", "scatter_add", "one_hot_counts", "fused_up"]


def import_block(block, p, dtype=None, tokens=None):
    from moe.integrations.jax import from_jax

    if tokens is None:
        tokens, = jax.export.symbolic_shape("t")
    return from_jax(block, jax.ShapeDtypeStruct((tokens, HIDDEN), dtype or jnp.float32), p)


def rows(tokens, dtype="float32"):
    return np.random.default_rng(tokens + 1).standard_normal((tokens, HIDDEN)).astype(dtype)


def compare(layer, block, p, tokens, tolerance=2e-6):
    x = rows(tokens)
    y = layer(x)
    assert y.shape == (tokens, HIDDEN)
    if tokens:
        expected = np.asarray(jax.jit(block)(x, p), np.float64)
        assert np.abs(y - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name):
    block, p = globals()[name], parameters()
    imported = import_block(block, p)
    for operation in ("moe.gate", "moe.dispatch", "moe.combine"):
        assert imported.mlir.count(f"= {operation} ") == 1
    assert imported.mlir.count("= moe.grouped_matmul ") == (2 if name == "fused_up" else 3)
    assert set(imported.weights) == set(p)
    # The gate is one operation, whole: nothing of it is left around it.
    if name in GATES:
        raised = subprocess.run([find_tool("moe-opt"), "-", "--moe-raise-gate"], text=True,
                                input=imported.mlir, capture_output=True, check=True).stdout
        assert re.search(r"= moe.gate .*", raised)[0].startswith(f"= moe.gate %2 {GATES[name]} :")
    layer = imported.layer()
    for tokens in TOKENS:
        compare(layer, block, p, tokens)


def test_one_number_of_tokens():
    p = parameters()
    imported = import_block(maxtext, p, tokens=5)
    assert "moe.dispatch" in imported.mlir
    compare(imported.layer(), maxtext, p, 5)


def test_bfloat16():
    p = parameters("bfloat16")
    layer = import_block(maxtext, p, jnp.bfloat16).layer()
    for tokens in (1, 33):
        x = rows(tokens, "bfloat16")
        expected = np.asarray(maxtext(x, p), np.float64)
        # Both round intermediates to 8 bits, the product of the experts' rows not at the same
        # places; where two experts are as good, the choice is the same, since logits are.
        error = np.abs(np.asarray(layer(x), np.float64) - expected).max()
        assert error <= 2e-2 * np.abs(expected).max()


def test_empty_and_full_experts():
    """All tokens choose the same experts: the others have no rows."""
    p = parameters()
    p["router"] = jnp.zeros_like(p["router"]).at[:, 5].set(jnp.abs(p["router"][:, 5]))
    compare(import_block(scatter_add, p).layer(), scatter_add, p, 33)


def test_products_alone():
    """Products of rows that are given with their sizes; rows of no group are 0."""
    from moe.integrations.jax import from_jax

    p = parameters()
    tokens, = jax.export.symbolic_shape("t")
    layer = from_jax(lambda x, sizes, w: lax.ragged_dot(x, w, sizes),
                     jax.ShapeDtypeStruct((tokens, HIDDEN), jnp.float32),
                     jax.ShapeDtypeStruct((EXPERTS,), jnp.int32), p["wi_0"]).layer()
    x = rows(40)
    for sizes in ([5] * EXPERTS, [0, 7, 0, 0, 13, 1, 0, 0], [0] * EXPERTS,
                  [0, 0, 0, 0, 0, 0, 0, 40], [30, 0, 30, 30, 0, 0, 0, 0]):
        sizes = np.asarray(sizes, np.int32)
        y, expected = layer(x, sizes), np.asarray(lax.ragged_dot(x, p["wi_0"], sizes), np.float64)
        assert np.abs(y - expected).max() <= 2e-6 * max(np.abs(expected).max(), 1e-30)
        assert not y[sizes.sum():].any()


def test_products_that_stablehlo_expands():
    """chlo.ragged_dot after StableHLO's own passes, for compilers that run them first."""
    from jaxlib.mlir import ir
    from moe.integrations._jax import stablehlo as _stablehlo

    rng = np.random.default_rng(4)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((10, 4), (3, 4, 5)))
    traced = jax.jit(lax.ragged_dot).trace(x, w, np.zeros(3, np.int32))
    with _stablehlo._context():
        module = ir.Module.parse(str(traced.lower(lowering_platforms=("cuda",)).compiler_ir()))
        _stablehlo._run(module, "func.func(chlo-legalize-to-stablehlo),canonicalize,cse")
        text = _stablehlo._text(module)
    assert text.count("stablehlo.dot_general") == 3
    text = _stablehlo._moe_opt(text, "--mlir-print-op-generic", "--moe-raise-grouped")
    assert "moe.grouped_matmul" in text and "dot_general" not in text
    arguments = [("x", "input"), ("w", "weight"), ("sizes", "input")]
    layer = moe.compile(_stablehlo.lower(text, {}, arguments)).layer({"w": w})
    for sizes in ([3, 0, 4], [10, 0, 0], [4, 4, 4], [0, 0, 0]):
        ends = np.minimum(np.cumsum(sizes), 10)
        expected = np.zeros((10, 5))
        for group, (start, end) in enumerate(zip([0, *ends], ends)):
            expected[start:end] = x[start:end].astype(np.float64) @ w[group]
        y = layer(x, np.asarray(sizes, np.int32))
        assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


def test_gradient_of_weights():
    """A product that is ragged along the contraction; empty groups give exact zeros."""
    from moe.integrations.jax import from_jax

    numbers = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())), lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[])

    def gradient(x, dy, sizes):
        return lax.ragged_dot_general(x, dy, sizes, numbers)

    layer = from_jax(gradient, *(jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (
        ((40, HIDDEN), jnp.float32), ((40, INNER), jnp.float32), ((EXPERTS,), jnp.int32)))).layer()
    x, dy = rows(40), np.random.default_rng(9).standard_normal((40, INNER)).astype(np.float32)
    for sizes in ([0, 5, 0, 3, 20, 0, 12, 0], [0] * EXPERTS, [30, 30, 0, 0, 0, 0, 0, 0]):
        sizes = np.asarray(sizes, np.int32)
        y = layer(x, dy, sizes)
        ends = np.minimum(np.cumsum(sizes), 40)
        for group, (end, size) in enumerate(zip(ends, np.diff(ends, prepend=0))):
            part = slice(end - size, end)
            expected = x[part].T.astype(np.float64) @ dy[part]
            assert np.abs(y[group] - expected).max() <= 2e-6 * max(np.abs(expected).max(), 1e-30)


def test_vmap():
    """Products of a batch, and their gradients: each element has its sizes."""
    from moe.integrations.jax import from_jax

    def loss(x, w, sizes):
        return (jax.vmap(lax.ragged_dot)(x, w, sizes) ** 2).sum()

    rng = np.random.default_rng(5)
    x, w = (rng.standard_normal(shape).astype(np.float32)
            for shape in ((3, 40, HIDDEN), (3, EXPERTS, HIDDEN, INNER)))
    sizes = np.asarray([[5] * EXPERTS, [0, 7, 0, 0, 13, 1, 0, 0], [0] * EXPERTS], np.int32)
    for function in (lambda *a: jax.vmap(lax.ragged_dot)(*a),
                     lambda *a: jax.grad(loss, argnums=0)(*a),
                     lambda *a: jax.grad(loss, argnums=1)(*a)):
        layer = from_jax(function, *(jax.ShapeDtypeStruct(a.shape, a.dtype)
                                     for a in (x, w, sizes))).layer()
        y, expected = layer(x, w, sizes), np.asarray(function(x, w, sizes), np.float64)
        assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


# -- near misses ----------------------------------------------------------------


def ends_as_sizes(x, p, flat, order):
    """Ends where sizes are meant: JAX takes them for sizes."""
    return swiglu(x[order // TOP_K], jnp.cumsum(jnp.bincount(flat, length=EXPERTS)), p)


def descending(x, p, flat, order):
    """The rows of the last expert first, multiplied as if they were those of the first."""
    return swiglu(x[jnp.argsort(-flat) // TOP_K], jnp.bincount(flat, length=EXPERTS), p)


def other_tokens(x, p, flat, order):
    """Rows of other tokens than those that chose."""
    return swiglu(x[order // (TOP_K + 1)], jnp.bincount(flat, length=EXPERTS), p)


def order_again(x, p, flat, order):
    """The order is applied again, not inverted."""
    return swiglu(x[order // TOP_K], jnp.bincount(flat, length=EXPERTS), p)[order]


def shifted_counts(x, p, flat, order):
    """Counts of the next expert."""
    return swiglu(x[order // TOP_K], jnp.bincount((flat + 1) % EXPERTS, length=EXPERTS), p)


def square_transposed(x, p, flat, order):
    """Square weights, transposed."""
    square = jnp.swapaxes(p["wi_0"][:, :, :HIDDEN], 1, 2)
    return lax.ragged_dot(x[order // TOP_K], square, jnp.bincount(flat, length=EXPERTS))


@pytest.mark.parametrize("name", ["ends_as_sizes", "descending", "other_tokens", "order_again",
                                  "shifted_counts", "square_transposed"])
def test_near_misses(name):
    """What looks like a block and is none gives what JAX computes."""

    def block(x, p):
        weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"], axis=-1), TOP_K)
        flat = ids.reshape(-1)
        y = globals()[name](x, p, flat, jnp.argsort(flat))
        return (y.reshape(-1, TOP_K, HIDDEN) * weights[..., None]).sum(1)

    p = parameters()
    compare(import_block(block, p, tokens=33).layer(), block, p, 33)


def test_example():
    """The program of the documentation."""
    from pathlib import Path

    page = Path(__file__).resolve().parents[3] / "docs/foreign-programs.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    rng = np.random.default_rng(3)
    shapes = {"router": (64, 8), "gate": (8, 64, 96), "up": (8, 64, 96), "down": (8, 96, 64)}
    values = {"params": {name: jnp.asarray(rng.standard_normal(shape) / 8, jnp.float32)
                         for name, shape in shapes.items()},
              "x": rng.standard_normal((7, 64)).astype(np.float32)}
    exec(code, values)
    expected = np.asarray(values["block"](values["x"], values["params"]), np.float64)
    assert np.abs(values["y"] - expected).max() <= 2e-6 * np.abs(expected).max()


def test_names():
    """Leaves of two trees with the same keys are told apart."""
    from moe.integrations.jax import from_jax

    def f(x, a, b, c):
        return x @ a["w"]["k"] + b["w"]["k"] + c

    x = jax.ShapeDtypeStruct((4, HIDDEN), jnp.float32)
    a, b = jnp.ones((HIDDEN, 8)), jnp.ones((8,))
    imported = from_jax(f, x, {"w": {"k": a}}, {"w": {"k": b}}, b)
    assert sorted(imported.weights) == ["arg1.w.k", "arg2.w.k", "arg3"]


def test_errors():
    from moe import MoEError
    from moe.integrations.jax import from_jax

    with pytest.raises(MoEError, match="expected an input"):
        from_jax(lambda x: x, jnp.ones((2, 2)))
    with pytest.raises(MoEError, match="no lowering of stablehlo.fft"):
        from_jax(lambda x: jnp.fft.fft(x).real, jax.ShapeDtypeStruct((4, 2), jnp.float32))
