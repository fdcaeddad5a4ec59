"""Gradients of compiled functions of JAX, against JAX's own in float64.

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
    from engines.test_jax import EXPERTS, HIDDEN, TOP_K, import_block, maxtext, parameters, rows

TOLERANCE = 1e-6


def used():
    return {name: w for name, w in parameters().items() if name != "wi"}


def in_numpy_order(x, p):
    """maxtext without grouped products, which JAX differentiates in float64."""
    weights, ids = jax.lax.top_k(x @ p["router"], TOP_K)
    weights = jax.nn.softmax(weights, axis=-1)
    y = 0.0
    for e in range(EXPERTS):
        h = jax.nn.silu(x @ p["wi_0"][e]) * (x @ p["wi_1"][e])
        y += (weights * (ids == e)).sum(-1, keepdims=True) * (h @ p["wo"][e])
    return y


def in_f64(x, p, dy):
    with jax.enable_x64(True):
        x, dy = jnp.asarray(np.asarray(x), "float64"), jnp.asarray(np.asarray(dy), "float64")
        p = {name: jnp.asarray(np.asarray(w), "float64") for name, w in p.items()}
        gradients = jax.jit(jax.grad(lambda x, p: (in_numpy_order(x, p) * dy).sum(), (0, 1)))(x, p)
        return jax.tree_util.tree_map(np.asarray, gradients)


def compare(ours, theirs):
    leaves, names = jax.tree_util.tree_flatten(theirs)
    for name, a, b in zip(range(len(leaves)), jax.tree_util.tree_leaves(ours), leaves):
        assert np.asarray(a).shape == b.shape
        assert np.abs(np.asarray(a, np.float64) - b).max() <= TOLERANCE * np.abs(b).max(), name


@pytest.fixture(scope="module")
def trained():
    return import_block(maxtext, used()).trainable()


@pytest.mark.parametrize("tokens", [1, 33])
def test_gradients_of_everything(trained, tokens):
    x, p = rows(tokens), used()
    dy = np.random.default_rng(1).standard_normal((tokens, HIDDEN)).astype(np.float32)

    def loss(x, p):
        return (trained(x, p) * dy).sum()

    theirs = in_f64(x, p, dy)
    compare(jax.grad(loss, (0, 1))(x, p), theirs)
    compare(jax.jit(jax.grad(loss, (0, 1)))(x, p), theirs)
    # Of some arguments, and the value without a gradient.
    compare(jax.grad(loss)(x, p), theirs[0])
    compare(jax.grad(lambda w: loss(x, {**p, "wo": w}))(p["wo"]), theirs[1]["wo"])
    np.testing.assert_allclose(trained(x, p), maxtext(x, p), rtol=1e-4, atol=1e-5)


def test_no_tokens(trained):
    p = used()
    gradients = jax.grad(lambda p: trained(rows(0), p).sum())(p)
    assert all((np.asarray(g) == 0).all() for g in gradients.values())


def test_steps_follow_those_of_jax(trained):
    """Weights change in every step."""
    x, ours, theirs = rows(33), used(), used()

    def step(f, p):
        gradients = jax.grad(lambda p: (f(x, p) ** 2).mean())(p)
        return {name: w - 0.1 * gradients[name] for name, w in p.items()}

    for _ in range(3):
        ours, theirs = step(trained, ours), step(in_numpy_order, theirs)
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5)


def test_errors(trained):
    x, p = rows(5), used()
    with pytest.raises(moe.MoEError, match="structure that was imported"):
        trained(x, {"wo": p["wo"]})
    # A gradient of a gradient.
    with pytest.raises(moe.MoEError, match="has no gradient"):
        jax.grad(lambda x: jax.grad(lambda x: trained(x, p).sum())(x).sum())(x)
