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
    """Raised or not."""
    check(block, parameters(), 3, 5, False)


def test_in_a_program():
    """The layer keeps the shape of its input."""
    p = parameters()
    layer = check(maxtext, p, 1, "t", True)
    x = jnp.asarray(rows(6)).reshape(1, 6, HIDDEN)
    expected = np.asarray(x + maxtext(x, p), np.float64)
    y = jax.jit(lambda x: x + to_jax(layer)(x))(x)
    assert np.abs(np.asarray(y) - expected).max() <= 2e-6 * np.abs(expected).max()


# -- a batch and a sequence of any size -------------------------------------------


def counted(x, p):
    """A sum over all tokens, as a loss has it, scales the result."""
    return maxtext(x, p) * (jnp.square(x).sum((0, 1)) / (x.shape[0] * x.shape[1]))


def by_sequence(x, p):
    """Tokens less the mean of their sequence."""
    return maxtext(x - x.mean(1, keepdims=True), p)


def by_batch(x, p):
    """Tokens less the mean of their place."""
    return maxtext(x - x.mean(0, keepdims=True), p)


def turned(x, p):
    """The sequence first: other rows than those of the input."""
    return jnp.swapaxes(maxtext(jnp.swapaxes(x, 0, 1), p), 0, 1)


def transposed(x, p):
    """A product whose tokens come last, in the order of the places."""
    y = jnp.einsum("hd,bsd->hsb", p["router"].T, x)
    return maxtext(x + y[:1].T.reshape(x.shape[0], x.shape[1], 1), p)


def numbered(x, p):
    """The place of a token in its sequence is added to it."""
    return maxtext(x + jnp.arange(x.shape[1], dtype=x.dtype)[:, None], p)


def any_batch(block, p, *inputs):
    extents = jax.export.symbolic_shape(f"b, s, {HIDDEN}")
    return from_jax(block, jax.ShapeDtypeStruct(extents, jnp.float32), *inputs, p)


def dense(x, p):
    """All experts on all tokens by einsums, whose products have the tokens last."""
    weights, ids = lax.top_k(jax.nn.softmax(jnp.einsum("bsd,de->bse", x, p["router"])), TOP_K)
    gates = jnp.einsum("bske,bsk->bse", jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype), weights)
    gate, up = jnp.split(jnp.einsum("bsd,edf->bsef", x, p["wi"]), 2, axis=-1)
    y = jnp.einsum("bsef,efd->bsed", jax.nn.silu(gate) * up, p["wo"])
    return jnp.einsum("bsed,bse->bsd", y, gates)


@pytest.mark.parametrize("block", [maxtext, flax, normed, counted, dense],
                         ids=lambda f: f.__name__)
def test_batch_and_sequence(block):
    """The layer takes the tokens of all sequences as rows."""
    p = parameters()
    imported = any_batch(block, p)
    if block is dense:
        assert imported.mlir.count("= moe.grouped_matmul ") == 2
    for operation in ("moe.gate", "moe.dispatch", "moe.combine"):
        assert imported.mlir.count(f"= {operation} ") == 1
    layer = imported.layer()
    for batch, length in ((1, 1), (2, 7), (5, 3)):
        x = rows(batch * length).reshape(batch, length, HIDDEN)
        expected = np.asarray(jax.jit(block)(x, p), np.float64)
        y = layer(x.reshape(-1, HIDDEN)).reshape(x.shape)
        assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("block", [attention, by_sequence, by_batch, turned, transposed,
                                   numbered],
                         ids=lambda f: f.__name__)
def test_what_is_no_rows(block):
    """Rows do not say which sequence they are of, or where they are in it."""
    with pytest.raises(moe.MoEError, match="the batch or the sequence is needed by itself, by "
                       ".*stablehlo.*two symbolic extents"):
        any_batch(block, parameters())


def doubled(x, p):
    """Twice as many tokens."""
    return maxtext(jnp.concatenate([x, x * 2], axis=1), p)


def padded(x, p):
    return maxtext(jnp.pad(x, ((0, 0), (1, 2), (0, 0))), p)


@pytest.mark.parametrize("block", [doubled, padded], ids=lambda f: f.__name__)
@pytest.mark.parametrize("sequence", ["t", 7])
def test_other_tokens(block, sequence):
    """Another number of tokens than the input has, as rank and type do not tell."""
    p = parameters()
    extents = jax.export.symbolic_shape(f"1, {sequence}, {HIDDEN}")
    try:
        layer = from_jax(block, jax.ShapeDtypeStruct(extents, jnp.float32), p).layer()
    except moe.MoEError as error:
        assert "expected the dynamic extents of results to be the number of tokens" in str(error)
        return
    x = rows(7).reshape(1, 7, HIDDEN)
    expected = np.asarray(jax.jit(block)(x, p), np.float64)
    assert np.abs(layer(x) - expected).max() <= 2e-6 * np.abs(expected).max()


def test_other_symbols():
    """A third one, or the same two in the other order."""
    p = parameters()
    for second in (f"s, b, {HIDDEN}", f"b, u, {HIDDEN}", "b, s, s"):
        first = jax.export.symbolic_shape(f"b, s, {HIDDEN}")
        other = jax.export.symbolic_shape(second, scope=first[0].scope)
        with pytest.raises(moe.MoEError, match="expected one symbolic extent, .*, got "):
            from_jax(lambda x, y, p: maxtext(x, p), *(
                jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (first, other)), p)
