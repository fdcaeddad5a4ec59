"""Experts of functions of JAX that no rule knows, found by what they compute; against JAX.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax

EXPERTS, TOP_K, HIDDEN, INNER, TOKENS = 5, 2, 8, 12, 11


def parameters():
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[-2]), jnp.float32)

    return {"router": draw(HIDDEN, EXPERTS), "gate": draw(EXPERTS, HIDDEN, INNER),
            "up": draw(EXPERTS, HIDDEN, INNER), "both": draw(EXPERTS, HIDDEN, 2 * INNER),
            "down": draw(EXPERTS, INNER, HIDDEN), "up_bias": draw(EXPERTS, INNER),
            "down_t": draw(EXPERTS, HIDDEN, INNER),
            "own": [{"up": draw(HIDDEN, INNER), "down": draw(INNER, HIDDEN)}
                    for _ in range(EXPERTS)]}


def choose(x, p):
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"]), TOP_K)
    return weights / weights.sum(-1, keepdims=True), ids


def places(ids):
    """The row of each choice in a buffer [E, T * K] of its expert."""
    mask = jax.nn.one_hot(ids.reshape(-1), EXPERTS, dtype=jnp.int32)
    return (jnp.cumsum(mask, 0) * mask).max(-1).reshape(ids.shape) - 1


# -- dispatches ------------------------------------------------------------------


def reversed_places(x, p):
    """Buffers that are filled from their ends."""
    weights, ids = choose(x, p)
    place = TOP_K * x.shape[0] - 1 - places(ids)
    rows = jnp.zeros((EXPERTS, TOP_K * x.shape[0], HIDDEN)).at[ids, place].set(x[:, None])
    y = jnp.einsum("etf,efh->eth", jax.nn.silu(jnp.einsum("eth,ehf->etf", rows, p["up"])),
                   p["down"])
    return (y[ids, place] * weights[..., None]).sum(1)


def interleaved(x, p):
    """Gate and up are columns in turn, the last product is transposed."""
    weights, ids = choose(x, p)
    place = places(ids)
    rows = jnp.zeros((TOP_K * x.shape[0], EXPERTS, HIDDEN)).at[place, ids].add(x[:, None])
    h = jnp.einsum("teh,ehf->tef", rows, p["both"])
    h = jax.nn.gelu(h[..., ::2]) * h[..., 1::2]
    y = jnp.einsum("tef,ehf->teh", h, p["down_t"])
    return jnp.einsum("tkh,tk->th", y[place, ids], weights)


def nonzero_lists(x, p):
    """A list of modules of their own; rows of each by nonzero, results set back."""
    weights, ids = choose(x, p)
    y = jnp.zeros((x.shape[0] + 1, HIDDEN))
    for e, own in enumerate(p["own"]):
        token, slot = jnp.nonzero(ids == e, size=x.shape[0], fill_value=-1)
        h = jnp.square(jax.nn.relu(x[token] @ own["up"])) @ own["down"]
        y = y.at[token].set(h * weights[token, slot, None] + y[token])
    return y[:-1]


def reversed_sort(x, p):
    """Rows sorted by falling expert, put into buffers by a scan's carry."""
    weights, ids = choose(x, p)
    flat = ids.reshape(-1)
    order = jnp.argsort(-flat)
    rows = jnp.repeat(x, TOP_K, axis=0)[order][::-1]
    sizes = (flat[:, None] == jnp.arange(EXPERTS)).sum(0, dtype=jnp.int32)
    h = jnp.tanh(lax.ragged_dot(rows, p["up"], sizes))
    y = lax.ragged_dot(h, p["down"], sizes)[::-1]
    back = jnp.zeros_like(y).at[order].set(y)
    return (back.reshape(-1, TOP_K, HIDDEN) * weights[..., None]).sum(1)


def permutation_matrix(x, p):
    """A product with a permutation sorts and unsorts the rows."""
    weights, ids = choose(x, p)
    flat = ids.reshape(-1)
    matrix = jax.nn.one_hot(jnp.argsort(flat), flat.size)
    rows = matrix @ jnp.repeat(x, TOP_K, axis=0)
    sizes = (flat[:, None] == jnp.arange(EXPERTS)).sum(0, dtype=jnp.int32)
    h = lax.ragged_dot(rows, p["up"], sizes) + (matrix @ p["up_bias"][flat])
    y = matrix.T @ lax.ragged_dot(jax.nn.silu(h), p["down"], sizes)
    return jnp.einsum("tkh,tk->th", y.reshape(-1, TOP_K, HIDDEN), weights)


def scan_buffers(x, p):
    """A scan over experts, each on all choices, whose results a mask selects."""
    weights, ids = choose(x, p)
    rows = jnp.concatenate([x] * TOP_K)
    flat = ids.T.reshape(-1)

    def step(kept, given):
        e, up, down = given
        y = jax.nn.relu(rows @ up) @ down
        return jnp.where((flat == e)[:, None], y, kept), None

    y, _ = lax.scan(step, jnp.zeros_like(rows), (jnp.arange(EXPERTS), p["up"], p["down"]))
    return jnp.einsum("kth,tk->th", y.reshape(TOP_K, -1, HIDDEN), weights)


def one_hot_products(x, p):
    """All experts on repeated rows in each product, one-hot masks select after each."""
    weights, ids = choose(x, p)
    rows = jnp.tile(x[:, None], (1, TOP_K, 1)).reshape(-1, HIDDEN)
    hot = jax.nn.one_hot(ids.reshape(-1), EXPERTS, axis=0)

    def product(rows, w):
        return jnp.einsum("bm,bmn->mn", hot, jnp.einsum("mk,bkn->bmn", rows, w))

    y = product(product(rows, p["gate"]) * jax.nn.gelu(product(rows, p["up"])), p["down"])
    return (y.reshape(-1, TOP_K, HIDDEN) * weights[..., None]).sum(1)


def rolled(x, p):
    """Slots of an expert begin at its number, around the end of the buffer."""
    weights, ids = choose(x, p)
    size = TOP_K * x.shape[0]
    place = (places(ids) + ids) % size
    rows = jnp.zeros((EXPERTS * size, HIDDEN)).at[ids * size + place].set(x[:, None])
    h = jnp.einsum("eth,ehf->etf", rows.reshape(EXPERTS, size, HIDDEN), p["up"])
    h = jax.nn.silu(h + p["up_bias"][:, None])
    y = jnp.einsum("etf,efh->eth", h, p["down"]).reshape(-1, HIDDEN)
    return jnp.einsum("tk,tkh->th", weights, y[ids * size + place])


DISPATCHES = [reversed_places, interleaved, nonzero_lists, reversed_sort, permutation_matrix,
              scan_buffers, one_hot_products, rolled]


def inputs(tokens=TOKENS):
    return jax.ShapeDtypeStruct((tokens, HIDDEN), jnp.float32)


@pytest.mark.parametrize("block", DISPATCHES, ids=lambda block: block.__name__)
def test_written_anew(block):
    from moe.integrations._jax.by_value import find_by_value

    p = parameters()
    written = find_by_value(block, (inputs(), p))
    assert written is not None
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.standard_normal((TOKENS, HIDDEN)), jnp.float32)
    # Rows that are alike choose the same experts.
    for given in (x, x[:1] * (1 + 0.01 * x)):
        expected = np.asarray(block(given, p))
        assert np.abs(written(given, p) - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("block", [interleaved, nonzero_lists, one_hot_products],
                         ids=lambda block: block.__name__)
def test_compiled(block):
    from moe.integrations.jax import from_jax

    p = parameters()
    imported = from_jax(block, inputs(), p)
    for operation in ("moe.gate", "moe.dispatch", "moe.combine"):
        assert imported.mlir.count(f"= {operation}") == 1
    x = np.random.default_rng(5).standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    expected = np.asarray(block(jnp.asarray(x), p))
    assert np.abs(imported.layer()(x) - expected).max() <= 2e-6 * np.abs(expected).max()


def test_any_number_of_tokens():
    from moe.integrations.jax import from_jax

    p = parameters()
    tokens, = jax.export.symbolic_shape("t")
    imported = from_jax(one_hot_products, inputs(tokens), p)
    assert imported.mlir.count("= moe.dispatch") == 1
    layer = imported.layer()
    for count in (0, 1, 30):
        x = np.random.default_rng(count).standard_normal((count, HIDDEN)).astype(np.float32)
        expected = np.asarray(one_hot_products(jnp.asarray(x), p))
        y = np.asarray(layer(x))
        assert y.shape == expected.shape
        if count:
            assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


# -- near misses -----------------------------------------------------------------


def buffered(x, p, weigh=lambda w: w, parts=lambda w: w, source=lambda x: x, keep=None,
             act=jax.nn.silu if importlib.util.find_spec("jax") is not None else None):
    """``reversed_places``, with what a near miss changes."""
    weights, ids = choose(x, p)
    size = TOP_K * x.shape[0]
    place = size - 1 - places(ids)
    rows = jnp.zeros((EXPERTS, size, HIDDEN)).at[ids, place].set(source(x)[:, None])
    h = act(jnp.einsum("eth,ehf->etf", rows, parts(p["up"])))
    y = jnp.einsum("etf,efh->eth", h, p["down"])[ids, place]
    if keep is not None:
        y = jnp.where((size - 1 - place < keep)[..., None], y, 0)
    return (y * weigh(weights)[..., None]).sum(1)


def other_activation(h):
    return jnp.concatenate([jax.nn.silu(h[:-1]), jax.nn.relu(h[-1:])])


NEAR = {
    "weights of the other choice": {"weigh": lambda w: w[:, ::-1]},
    "weights of the next token": {"weigh": lambda w: jnp.roll(w, 1, 0)},
    "a matrix of two experts": {"parts": lambda w: w.at[1].set(w[0])},
    "rows of the next token": {"source": lambda x: jnp.roll(x, 1, 0)},
    "dropped choices": {"keep": 1},
    "another activation of one expert": {"act": other_activation},
}


def test_near_misses_have_a_hit():
    from moe.integrations._jax.by_value import find_by_value

    assert find_by_value(buffered, (inputs(), parameters())) is not None


@pytest.mark.parametrize("name", NEAR)
def test_near_miss(name):
    """What is written anew, if anything is, is what the function computes: never the hit."""
    from moe.integrations._jax.by_value import find_by_value

    p = parameters()

    def block(x, p):
        return buffered(x, p, **NEAR[name])

    written = find_by_value(block, (inputs(), p))
    x = jnp.asarray(np.random.default_rng(6).standard_normal((TOKENS, HIDDEN)), jnp.float32)
    expected = np.asarray(block(x, p))
    assert np.abs(expected - buffered(x, p)).max() > 1e-3 * np.abs(expected).max()
    if name in ("rows of the next token", "dropped choices", "another activation of one expert"):
        assert written is None
    if written is not None:
        assert np.abs(written(x, p) - expected).max() <= 2e-6 * np.abs(expected).max()


def test_squared_weights():
    """The weights are what experts are weighted by, whatever was done to them before."""
    from moe.integrations._jax.by_value import find_by_value

    def block(x, p):
        return buffered(x, p, weigh=jnp.square)

    p = parameters()
    written = find_by_value(block, (inputs(), p))
    x = jnp.asarray(np.random.default_rng(7).standard_normal((TOKENS, HIDDEN)), jnp.float32)
    expected = np.asarray(block(x, p))
    assert np.abs(expected - buffered(x, p)).max() > 1e-3 * np.abs(expected).max()
    assert written is not None
    assert np.abs(written(x, p) - expected).max() <= 2e-6 * np.abs(expected).max()


def capacity(x, p, size=24):
    """Choices beyond a capacity are dropped by indices out of bounds."""
    weights, ids = choose(x, p)
    place = size - 1 - places(ids)
    slot = jnp.where(place >= 0, ids * size + place, EXPERTS * size)
    rows = jnp.zeros((EXPERTS * size, HIDDEN)).at[slot].set(x[:, None], mode="drop")
    h = jax.nn.silu(jnp.einsum("eth,ehf->etf", rows.reshape(EXPERTS, size, HIDDEN), p["up"]))
    y = jnp.einsum("etf,efh->eth", h, p["down"]).reshape(-1, HIDDEN)
    y = y.at[slot].get(mode="fill", fill_value=0)
    return (y * weights[..., None]).sum(1)


def another_trace(x, p):
    """The sum over the choices is another operation for a number of tokens that is known."""
    weights, ids = choose(x, p)
    tokens = x.shape[0]
    size = TOP_K * tokens
    place = size - 1 - places(ids)
    rows = jnp.zeros((EXPERTS, size, HIDDEN)).at[ids, place].set(x[:, None])
    h = jax.nn.silu(jnp.einsum("eth,ehf->etf", rows, p["up"]))
    y = jnp.einsum("etf,efh->eth", h, p["down"])[ids, place] * weights[..., None]
    if not isinstance(tokens, int):
        return y.sum(1)
    return (jnp.ones((1, TOP_K)) @ y.transpose(1, 0, 2).reshape(TOP_K, -1)).reshape(x.shape)


@pytest.mark.filterwarnings("ignore:.*has nothing that is known as experts")
@pytest.mark.parametrize("block", [capacity, another_trace], ids=lambda block: block.__name__)
def test_any_number_of_tokens_is_another_function(block):
    """What few tokens show is not what many do: capacities, and what is traced."""
    from moe.integrations.jax import from_jax

    p = parameters()
    tokens, = jax.export.symbolic_shape("t")
    layer = from_jax(block, inputs(tokens), p).layer()
    x = np.random.default_rng(8).standard_normal((200, HIDDEN)).astype(np.float32)
    expected = np.asarray(block(jnp.asarray(x), p))
    assert np.abs(np.asarray(layer(x)) - expected).max() <= 2e-6 * np.abs(expected).max()
