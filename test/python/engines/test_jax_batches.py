"""Blocks of JAX that take a batch of sequences, as their users write them, against JAX itself.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import importlib.util

import moe
import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from engines.test_jax import EXPERTS, HIDDEN, TOP_K, parameters, rows, swiglu
    from jax import lax
    from moe.integrations.jax import from_jax, to_jax


def permuted(x, weights, ids, p):
    """Rows of a batch in the order of their experts, and back."""
    batch, sequence, hidden = x.shape
    flat = jnp.ravel(ids)
    order = jnp.argsort(flat)
    given = jnp.take(jnp.reshape(x, (batch * sequence, hidden)), indices=order // TOP_K, axis=0)
    y = swiglu(given, jnp.bincount(flat, length=EXPERTS), p)
    y = jnp.take(y, indices=jnp.argsort(order), axis=0).reshape(-1, TOP_K, hidden)
    y = jnp.einsum("BKE,BK -> BE", y, jnp.reshape(weights, (-1, TOP_K)))
    return y.reshape(batch, sequence, hidden)


def maxtext(x, p):
    """Softmax of the chosen logits."""
    weights, ids = lax.top_k(jnp.einsum("bsd,de->bse", x, p["router"]), TOP_K)
    return permuted(x, jax.nn.softmax(weights, axis=-1), ids, p)


def flax(x, p):
    """A dense layer as the router; renormalised, scaled; a residual around."""
    probabilities = jax.nn.softmax(jnp.dot(x, p["router"]), axis=-1)
    weights, ids = lax.top_k(probabilities, TOP_K)
    weights = weights / jnp.sum(weights, axis=-1, keepdims=True) * 2.5
    return x + permuted(x, weights, ids, p)


def deepseek(x, p):
    """Sigmoid scores, and a bias for the choice."""
    scores = jax.nn.sigmoid(x @ p["router"])
    _, ids = lax.top_k(scores, TOP_K)
    weights = jnp.take_along_axis(scores, ids, axis=-1)
    return permuted(x, weights / (weights.sum(-1, keepdims=True) + 1e-20), ids, p)


def normed(x, p):
    """A norm before the block: operations of all kinds on the batch."""
    mean = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    y = x * lax.rsqrt(mean + 1e-6) * p["wo"][0, 0]
    return maxtext(jnp.where(jnp.abs(y) > 4, 4.0, y), p)


def attention(x, p):
    """Tokens of a sequence that depend on each other: the batch is not one of rows alone."""
    scores = jax.nn.softmax(jnp.einsum("bsd,btd->bst", x, x) / 7, axis=-1)
    return maxtext(jnp.einsum("bst,btd->bsd", scores, x), p)


def sequence_axis(x, p):
    """A softmax along the sequence, and the batch in the other order."""
    y = jnp.swapaxes(jax.nn.softmax(jnp.swapaxes(x, 1, 2), axis=-1), 1, 2)
    return maxtext(y[::-1] * 9, p)


def check(block, p, batch, sequence, raised):
    extents = jax.export.symbolic_shape(f"{batch}, {sequence}, {HIDDEN}")
    imported = from_jax(block, jax.ShapeDtypeStruct(extents, jnp.float32), p)
    if raised:
        for operation in ("moe.gate", "moe.dispatch", "moe.combine"):
            assert imported.mlir.count(f"= {operation} ") == 1
        assert imported.mlir.count("= moe.grouped_matmul ") == 3
    layer = imported.layer()
    for length in (1, 14, 33) if sequence == "t" else (sequence,):
        x = rows(batch * length).reshape(batch, length, HIDDEN)
        expected = np.asarray(jax.jit(block)(x, p), np.float64)
        assert np.abs(layer(x) - expected).max() <= 2e-6 * np.abs(expected).max()
    return layer


@pytest.mark.parametrize("batch, sequence", [(1, "t"), (2, 7), (1, 9)])
def test_maxtext(batch, sequence):
    check(maxtext, parameters(), batch, sequence, True)


@pytest.mark.parametrize("block", [flax, normed], ids=lambda f: f.__name__)
def test_any_number_of_tokens(block):
    check(block, parameters(), 1, "t", True)


@pytest.mark.parametrize("block", [deepseek, attention, sequence_axis], ids=lambda f: f.__name__)
def test_right_in_any_case(block):
    """Raised or not, or an error that names what is not lowered."""
    try:
        check(block, parameters(), 3, 5, False)
    except moe.MoEError as error:
        assert "no lowering of stablehlo" in str(error)
        assert block is deepseek


def test_in_a_program():
    """The layer keeps the shape of its input."""
    p = parameters()
    layer = check(maxtext, p, 1, "t", True)
    x = jnp.asarray(rows(6)).reshape(1, 6, HIDDEN)
    expected = np.asarray(x + maxtext(x, p), np.float64)
    y = jax.jit(lambda x: x + to_jax(layer)(x))(x)
    assert np.abs(np.asarray(y) - expected).max() <= 2e-6 * np.abs(expected).max()


def test_two_symbols():
    extents = jax.export.symbolic_shape(f"b, s, {HIDDEN}")
    with pytest.raises(moe.MoEError, match="expected one symbolic extent, .*, got b, s; a batch"):
        from_jax(maxtext, jax.ShapeDtypeStruct(extents, jnp.float32), parameters())
