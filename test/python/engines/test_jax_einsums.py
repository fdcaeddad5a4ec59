"""Blocks of JAX without sorted choices, compiled, against JAX's own results: all experts on all
tokens, weights gathered for each choice, einsums of GShard and V-MoE with a capacity.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax

EXPERTS, TOP_K, HIDDEN, INNER, TOKENS = 8, 2, 48, 80, 33
THREE = "dense_tiled", "tunix", "unrolled"  # products, with a gate and up


def parameters(seed=0):
    """Weights whose columns differ in size, so that a mistake in one shows."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        array = rng.standard_normal(shape) * rng.uniform(0.2, 2.0, shape[-1])
        return jnp.asarray(array / np.sqrt(shape[-2]), jnp.float32)

    return {"router": draw(HIDDEN, EXPERTS), "wi": draw(EXPERTS, HIDDEN, INNER),
            "wg": draw(EXPERTS, HIDDEN, INNER), "wo": draw(EXPERTS, INNER, HIDDEN),
            "bi": draw(EXPERTS, INNER), "bo": draw(EXPERTS, HIDDEN)}


def route(x, p, top_k=TOP_K):
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"], axis=-1), top_k)
    return weights / weights.sum(-1, keepdims=True), ids


# -- all experts on all tokens --------------------------------------------------


def dense(x, p):
    weights, ids = route(x, p)
    gates = (jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    h = jax.nn.gelu(jnp.einsum("th,ehi->tei", x, p["wi"]) + p["bi"])
    y = jnp.einsum("tei,eih->teh", h, p["wo"]) + p["bo"]
    return jnp.einsum("te,teh->th", gates, y)


def dense_tiled(x, p):
    """The tokens are repeated for each expert; the gates are scattered."""
    weights, ids = route(x, p)
    tokens = jnp.arange(x.shape[0])[:, None]
    gates = jnp.zeros((x.shape[0], EXPERTS), x.dtype).at[tokens, ids].set(weights)
    rows = jnp.broadcast_to(x, (EXPERTS, *x.shape))
    h = jax.nn.silu(rows @ p["wg"]) * (rows @ p["wi"])
    return ((h @ p["wo"]) * gates.T[:, :, None]).sum(0)


def tunix(x, p):
    """Weights set in each row; the last product sums over the experts, too."""
    logits, ids = lax.top_k(jnp.einsum("td,de->te", x, p["router"]), TOP_K)
    gates = jax.vmap(lambda row, at, weights: row.at[at].set(weights))(
        jnp.zeros((x.shape[0], EXPERTS), x.dtype), ids, jax.nn.softmax(logits, axis=-1))
    h = jnp.einsum("td,edf->tef", x, p["wg"])
    h = jax.nn.silu(h) * jnp.einsum("td,edf->tef", x, p["wi"])
    return jnp.einsum("tef,efd,te->td", h, p["wo"], gates)


def unrolled(x, p):
    """A loop over the experts, each on all tokens."""
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS):
        gates = jnp.where(ids == e, weights, 0).sum(-1, keepdims=True)
        y = y + gates * (jax.nn.silu(x @ p["wg"][e]) * (x @ p["wi"][e]) @ p["wo"][e])
    return y


def looped(x, p, of_first=lambda e: e, of_second=lambda e: e, of_bias=lambda e: e):
    """The same with a bias of each expert in both products."""
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS):
        gates = jnp.where(ids == e, weights, 0).sum(-1, keepdims=True)
        h = jax.nn.gelu(x @ p["wi"][of_first(e)] + p["bi"][of_bias(e)])
        y = y + gates * (h @ p["wo"][of_second(e)] + p["bo"][e])
    return y


# -- weights gathered for each choice -------------------------------------------


def gathered(x, p):
    weights, ids = route(x, p)
    h = jnp.einsum("th,tkhi->tki", x, p["wi"][ids]) + p["bi"][ids]
    y = jnp.einsum("tki,tkih->tkh", jax.nn.relu(h), p["wo"][ids])
    return jnp.einsum("tkh,tk->th", y, weights)


def gathered_rows(x, p):
    """A row for each choice, with weights by take, and by an index under vmap."""
    weights, ids = route(x, p)
    flat = ids.reshape(-1)
    rows = jnp.repeat(x, TOP_K, axis=0)
    h = jnp.einsum("mh,mhi->mi", rows, jnp.take(p["wi"], flat, axis=0)) + p["bi"][flat]
    y = jax.vmap(lambda row, id: row @ p["wo"][id])(jnp.tanh(h), flat)
    return (y.reshape(-1, TOP_K, HIDDEN) * weights[..., None]).sum(1)


def gathered_one(x, p):
    """One choice of each token."""
    weights, ids = route(x, p, 1)
    h = jax.nn.relu(jnp.einsum("th,thi->ti", x, p["wi"][ids[:, 0]]))
    y = jnp.einsum("ti,tih->th", h, p["wo"][ids[:, 0]])
    return jnp.einsum("tkh,tk->th", y[:, None], weights)


# -- a capacity ---------------------------------------------------------------


def experts(rows, p):
    h = jax.nn.relu(jnp.einsum("ech,ehi->eci", rows, p["wi"]))
    return jnp.einsum("eci,eih->ech", h, p["wo"])


def gshard(x, p, capacity):
    """Slots in the order of the tokens; the mask is where the weights are above 0."""
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    before = jnp.cumsum(mask.reshape(-1, EXPERTS), 0).reshape(mask.shape) - mask
    place = (before * mask).sum(-1).astype(jnp.int32)
    slots = jax.nn.one_hot(place, capacity, dtype=jnp.float32)
    combine = jnp.einsum("tk,tke,tkc->tec", weights, mask, slots)
    rows = jnp.einsum("tec,th->ech", (combine > 0).astype(x.dtype), x)
    return jnp.einsum("tec,ech->th", combine, experts(rows, p))


def gshard_kept(x, p, capacity):
    """Choices beyond the capacity are taken out of the mask first."""
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.int32)
    before = jnp.cumsum(mask.reshape(-1, EXPERTS), 0).reshape(mask.shape) - mask
    mask = mask * (before < capacity)
    place = jnp.sum(before * mask, -1)
    slots = jax.nn.one_hot(place, capacity, dtype=x.dtype)
    dispatch = jnp.einsum("tke,tkc->tec", mask.astype(x.dtype), slots)
    combine = jnp.einsum("tk,tke,tkc->tec", weights, mask.astype(x.dtype), slots)
    rows = jnp.einsum("tec,th->ech", dispatch, x)
    return jnp.einsum("tec,ech->th", combine, experts(rows, p))


def choices_first(x, p, capacity):
    """V-MoE: all first choices come before all second ones."""
    weights, ids = route(x, p)
    flat = jax.nn.one_hot(ids.T.reshape(-1), EXPERTS, dtype=jnp.int32)
    place = jnp.cumsum(flat, axis=0) * flat - 1
    place = place.reshape(TOP_K, -1, EXPERTS).transpose(1, 0, 2).max(1)
    dispatch = jax.nn.one_hot(place, capacity, dtype=jnp.bool_)
    gates = (jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    combine = jnp.einsum("te,tec->tec", gates, dispatch.astype(x.dtype))
    rows = jnp.einsum("th,tec->ech", x, dispatch.astype(x.dtype))
    return jnp.einsum("tec,ech->th", combine, experts(rows, p))


def switch(x, p, capacity):
    """One choice; the mask is where the weights are not 0."""
    weights, ids = route(x, p, 1)
    mask = jax.nn.one_hot(ids[:, 0], EXPERTS, dtype=jnp.float32)
    place = jnp.sum(jnp.cumsum(mask, 0) * mask, -1) - 1.0
    slots = jax.nn.one_hot(place.astype(jnp.int32), capacity, dtype=jnp.float32)
    combine = weights[:, :, None] * mask[:, :, None] * slots[:, None, :]
    rows = jnp.einsum("tec,th->ech", combine.astype(bool).astype(x.dtype), x)
    return jnp.einsum("tec,ech->th", combine, experts(rows, p))


# -- near misses ----------------------------------------------------------------


def next_expert(x, p):
    """Weights of the expert after the chosen one."""
    weights, ids = route(x, p)
    h = jnp.einsum("th,tkhi->tki", x, p["wi"][(ids + 1) % EXPERTS])
    return jnp.einsum("tki,tkih,tk->th", h, p["wo"][ids], weights)


def other_gate(x, p):
    """Gates of the choices of other logits than the experts'."""
    weights, ids = route(x, p)
    _, others = route(x[::-1], p)
    h = jnp.einsum("th,tkhi->tki", x, p["wi"][ids])
    y = jnp.einsum("tki,tkih->tkh", h, p["wo"][others])
    return jnp.einsum("tkh,tk->th", y, weights)


def more_classes(x, p):
    """One-hot of the next id."""
    weights, ids = route(x, p)
    gates = (jax.nn.one_hot(ids + 1, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    y = jnp.einsum("th,ehi,eio->teo", x, p["wi"], p["wo"])
    return jnp.einsum("te,teh->th", gates, y)


def tokens_as_experts(x, p):
    """A square matrix of gates, transposed."""
    x = x[:EXPERTS]
    weights, ids = route(x, p)
    gates = (jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    y = jnp.einsum("tei,eih->teh", jnp.einsum("th,ehi->tei", x, p["wi"]), p["wo"])
    return jnp.einsum("et,teh->th", gates, y)


def square_transposed(x, p):
    """Square weights in both layouts."""
    weights, ids = route(x, p)
    gates = (jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    square = p["wi"][:, :, :HIDDEN]
    y = jnp.einsum("tei,ehi->teh", jnp.einsum("th,ehi->tei", x, square), square)
    return jnp.einsum("te,teh->th", gates, y)


def capacity_block(x, p, place, mask=None, slots=20):
    weights, ids = route(x, p)
    hot = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    at = jax.nn.one_hot(place(hot), slots, dtype=jnp.float32)
    combine = jnp.einsum("tk,tke,tkc->tec", weights, hot, at)
    dispatch = (combine > 0) if mask is None else mask(combine, x, p)
    rows = jnp.einsum("tec,th->ech", dispatch.astype(x.dtype), x)
    return jnp.einsum("tec,ech->th", combine, experts(rows, p))


def place_from(hot, sums):
    return ((sums - hot) * hot).sum(-1).astype(jnp.int32)


def last_first(x, p):
    """Places from the last token to the first one."""
    def place(hot):
        sums = jnp.cumsum(hot.reshape(-1, EXPERTS)[::-1], 0)[::-1].reshape(hot.shape)
        return place_from(hot, sums)
    return capacity_block(x, p, place, slots=5)


def place_from_one(x, p):
    """Places from 1: the first slot is empty, and the last one drops one more."""
    def place(hot):
        sums = jnp.cumsum(hot.reshape(-1, EXPERTS), 0).reshape(hot.shape)
        return (sums * hot).sum(-1).astype(jnp.int32)
    return capacity_block(x, p, place, slots=5)


def each_choice_apart(x, p):
    """Each choice is counted apart: two tokens share a slot."""
    return capacity_block(x, p, lambda hot: place_from(hot, jnp.cumsum(hot, 0)), slots=5)


def counts_of_16_bits(x, p):
    """Counts that are rounded above 256 (here they are not)."""
    def place(hot):
        flat = hot.reshape(-1, EXPERTS).astype(jnp.bfloat16)
        return place_from(hot, jnp.cumsum(flat, 0).reshape(hot.shape).astype(jnp.float32))
    return capacity_block(x, p, place)


def negative_weights(x, p):
    """Choices whose weight is below 0 get no slot."""
    _, ids = route(x, p)
    weights = (x @ p["router"])[:, :TOP_K]
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    before = jnp.cumsum(mask.reshape(-1, EXPERTS), 0).reshape(mask.shape) - mask
    slots = jax.nn.one_hot((before * mask).sum(-1).astype(jnp.int32), 20, dtype=jnp.float32)
    combine = jnp.einsum("tk,tke,tkc->tec", weights, mask, slots)
    rows = jnp.einsum("tec,th->ech", (combine > 0).astype(x.dtype), x)
    return jnp.einsum("tec,ech->th", combine, experts(rows + 1, p))


def first_of_all(x, p):
    """Each expert has the first one's weights."""
    return looped(x, p, of_first=lambda e: 0)


def second_of_first(x, p):
    """The second product has the first expert's weights, the others are their own."""
    return looped(x, p, of_second=lambda e: 0)


def like_first(x, p):
    """One of the experts has the first one's weights."""
    return looped(x, p, of_first=lambda e: 0 if e == 5 else e)


def bias_of_next(x, p):
    """Biases of the next expert."""
    return looped(x, p, of_bias=lambda e: (e + 1) % EXPERTS)


def bias_of_first(x, p):
    return looped(x, p, of_bias=lambda e: 0)


def twice_first(x, p):
    """A factor that all of them have is computed with the first one's weights."""
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS):
        gates = jnp.where(ids == e, weights, 0).sum(-1, keepdims=True)
        h = jax.nn.silu(x @ p["wg"][e]) * (x @ p["wg"][0])
        y = y + gates * (h @ p["wo"][e])
    return y


def first_token(x, p):
    """As many tokens as experts; each expert adds its result of the first token."""
    x = x[:EXPERTS]
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS):
        gates = jnp.where(ids == e, weights, 0).sum(-1, keepdims=True)
        h = jnp.tanh(x @ p["wi"][e])
        y = y + gates * ((h + h[:1]) @ p["wo"][e])
    return y


# -- checks ---------------------------------------------------------------------


def import_block(block, p, tokens):
    from moe.integrations.jax import from_jax

    extent = tokens if tokens else jax.export.symbolic_shape("t")[0]
    return from_jax(block, jax.ShapeDtypeStruct((extent, HIDDEN), jnp.float32), p)


def compare(imported, block, p, tokens):
    """Errors are relative to the size of the result, of as many sums as JAX has."""
    x = np.random.default_rng(tokens + 1).standard_normal((tokens, HIDDEN)).astype(np.float32)
    y, expected = imported.layer()(x), np.asarray(jax.jit(block)(x, p), np.float64)
    assert y.shape == expected.shape
    if expected.size:
        assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


def count(imported, operation):
    return imported.mlir.count(f"= moe.{operation} ")


@pytest.mark.parametrize("name", ["dense", "dense_tiled", "tunix", "unrolled", "looped",
                                  "gathered", "gathered_rows", "gathered_one"])
def test_blocks(name):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, TOKENS)
    assert [count(imported, o) for o in ("gate", "dispatch", "combine")] == [1, 1, 1]
    assert count(imported, "grouped_matmul") == (3 if name in THREE else 2)
    compare(imported, block, p, TOKENS)


@pytest.mark.parametrize("name", ["dense", "dense_tiled", "tunix", "unrolled", "looped",
                                  "gathered", "gathered_one"])
def test_any_number_of_tokens(name):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, None)
    assert [count(imported, o) for o in ("dispatch", "grouped_matmul", "combine")] == [
        1, 3 if name in THREE else 2, 1]
    for tokens in (0, 1, TOKENS):
        compare(imported, block, p, tokens)


@pytest.mark.parametrize("capacity, tokens", [(3, TOKENS), (40, TOKENS), (3, None)])
@pytest.mark.parametrize("name", ["gshard", "gshard_kept", "choices_first", "switch"])
def test_capacity(name, capacity, tokens):
    """Few slots drop most choices, many none."""
    block, p = functools.partial(globals()[name], capacity=capacity), parameters()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    priority = " priority(choice)" if name == "choices_first" else ""
    assert f"experts({EXPERTS}) capacity(<fixed = {capacity}>){priority} :" in imported.mlir
    for number in (tokens,) if tokens else (1, 7, TOKENS):
        compare(imported, block, p, number)


@pytest.mark.parametrize("name", ["dense", "gathered", "gshard"])
def test_16_bits(name):
    """Both round intermediates to 8 bits, not at the same places."""
    from moe.integrations.jax import from_jax

    block = functools.partial(gshard, capacity=5) if name == "gshard" else globals()[name]
    p = jax.tree_util.tree_map(lambda array: array.astype(jnp.bfloat16), parameters())
    imported = from_jax(block, jax.ShapeDtypeStruct((TOKENS, HIDDEN), jnp.bfloat16), p)
    assert [count(imported, o) for o in ("dispatch", "grouped_matmul", "combine")] == [1, 2, 1]
    x = np.random.default_rng(3).standard_normal((TOKENS, HIDDEN)).astype("bfloat16")
    expected = np.asarray(jax.jit(block)(x, p), np.float64)
    error = np.abs(np.asarray(imported.layer()(x), np.float64) - expected).max()
    assert error <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize("name", [
    "next_expert", "other_gate", "more_classes", "tokens_as_experts", "square_transposed",
    "last_first", "place_from_one", "each_choice_apart", "counts_of_16_bits",
    "negative_weights", "first_of_all", "second_of_first", "like_first", "bias_of_next",
    "bias_of_first", "twice_first", "first_token"])
def test_near_misses(name, monkeypatch):
    """What looks like a block and is none gives what JAX computes."""
    block, p = globals()[name], parameters()
    # What the search by value finds is compared too.
    compare(import_block(block, p, TOKENS), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, TOKENS)
    if name == "square_transposed":
        assert count(imported, "grouped_matmul") == 2 and "transposed outs" in imported.mlir
    elif name == "bias_of_first":  # one bias for all of them
        assert count(imported, "grouped_matmul") == 2
    elif name not in ("next_expert", "other_gate"):  # which are products of rows with ids
        assert count(imported, "grouped_matmul") == 0
    compare(imported, block, p, TOKENS)


@pytest.mark.parametrize("name", ["last_first", "place_from_one", "each_choice_apart"])
def test_other_places(name, monkeypatch):
    """Other running sums with any number of tokens."""
    block, p = globals()[name], parameters()
    # What the search by value finds is compared too.
    compare(import_block(block, p, None), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, None)
    assert count(imported, "grouped_matmul") == 0
    for tokens in (1, TOKENS):
        compare(imported, block, p, tokens)
