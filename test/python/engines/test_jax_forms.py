"""Blocks of JAX in further forms, compiled, against JAX's own results: loops over the experts, one
choice by argmax, slots that are scattered and gathered, weights that are scores under a mask.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
from engines.test_jax_einsums import (
    EXPERTS,
    HIDDEN,
    TOKENS,
    TOP_K,
    compare,
    count,
    import_block,
    parameters,
    route,
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax

SLOTS = 5


# -- loops over the experts -------------------------------------------------------


def gates_of(weights, ids, expert):
    return jnp.sum(jnp.where(ids == expert, weights, 0.0), axis=-1)


def scan(x, p, first=0.0):
    """The weights of the experts are what is scanned."""
    weights, ids = route(x, p)

    def step(sum_, expert):
        e, wg, wi, wo = expert
        y = (jax.nn.silu(x @ wg) * (x @ wi)) @ wo
        return sum_ + gates_of(weights, ids, e)[:, None] * y, None

    experts = jnp.arange(EXPERTS), p["wg"], p["wi"], p["wo"]
    return lax.scan(step, jnp.full_like(x, first), experts)[0]


def scan_residual(x, p):
    """The sum begins with the tokens."""
    weights, ids = route(x, p)

    def step(sum_, expert):
        e, wi, wo = expert
        return sum_ + jnp.tanh(x @ wi) @ wo * gates_of(weights, ids, e)[:, None], None

    return lax.scan(step, x, (jnp.arange(EXPERTS), p["wi"], p["wo"]))[0]


def counted(x, p, of_first=lambda e: e, of_second=lambda e: e, count=EXPERTS):
    """A loop that indexes the weights and biases by its counter."""
    weights, ids = route(x, p)

    def step(e, sum_):
        h = jax.nn.gelu(x @ p["wi"][of_first(e)] + p["bi"][e])
        return sum_ + gates_of(weights, ids, e)[:, None] * (h @ p["wo"][of_second(e)] + p["bo"][e])

    return lax.fori_loop(0, count, step, jnp.zeros_like(x))


def mapped(x, p):
    """Rows of all experts, one after another, and an einsum."""
    weights, ids = route(x, p)
    gates = (jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype) * weights[..., None]).sum(1)
    y = lax.map(lambda w: jax.nn.relu(x @ w[0]) @ w[1], (p["wi"], p["wo"]))
    return jnp.einsum("te,eth->th", gates, y)


# -- one choice by argmax -----------------------------------------------------------


def argmax(x, p):
    """Rows are sorted by the only choice, whose probability is taken."""
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    ids = jnp.argmax(probabilities, axis=-1)
    gate = jnp.take_along_axis(probabilities, ids[:, None], axis=-1)[:, 0]
    return permuted(x, p, ids, gate)


def argmax_max(x, p):
    """The largest probability by max."""
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    ids = jnp.argmax(probabilities, axis=-1)
    return permuted(x, p, ids, jnp.max(probabilities, axis=-1))


def argmax_one_hot(x, p):
    """The probability by a mask, all experts on all tokens."""
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    mask = jax.nn.one_hot(jnp.argmax(probabilities, axis=-1), EXPERTS, dtype=x.dtype)
    y = jnp.einsum("teh,ehi->tei", jnp.repeat(x[:, None], EXPERTS, axis=1), p["wi"])
    y = jnp.einsum("tei,eih->teh", jax.nn.relu(y), p["wo"])
    return jnp.einsum("te,teh->th", mask, y) * jnp.sum(probabilities * mask, -1, keepdims=True)


def permuted(x, p, ids, gate):
    order = jnp.argsort(ids)
    sizes = jnp.bincount(ids, length=EXPERTS)
    h = jax.nn.relu(lax.ragged_dot(x[order], p["wi"], sizes))
    return lax.ragged_dot(h, p["wo"], sizes)[jnp.argsort(order)] * gate[:, None]


# -- slots by a scatter ---------------------------------------------------------------


def places(ids):
    """The number of choices before each, of the same expert."""
    flat = ids.reshape(-1)
    hot = jax.nn.one_hot(flat, EXPERTS, dtype=jnp.int32)
    return flat, jnp.sum((jnp.cumsum(hot, axis=0) - 1) * hot, axis=-1)


def experts(rows, p):
    h = jax.nn.gelu(jnp.einsum("ech,ehi->eci", rows, p["wi"]))
    return jnp.einsum("eci,eih->ech", h, p["wo"])


def buffered(x, p, slots=SLOTS, kept=None, mask=True):
    """Rows beyond the capacity have no slot, and are 0 in the result."""
    weights, ids = route(x, p)
    flat, place = places(ids)
    rows = jnp.zeros((EXPERTS, slots, HIDDEN), x.dtype).at[flat, place].set(
        x[jnp.repeat(jnp.arange(x.shape[0]), TOP_K)], mode="drop")
    y = experts(rows, p)[flat, jnp.minimum(place, slots - 1)]
    if mask:
        y = y * (place < (kept or slots))[:, None]
    return jnp.sum(y.reshape(-1, TOP_K, HIDDEN) * weights[..., None], axis=1)


def buffered_add(x, p):
    """Zeros are added to the last slot for those that are dropped; their weights are 0."""
    weights, ids = route(x, p)
    flat, place = places(ids)
    keep, place = place < SLOTS, jnp.minimum(place, SLOTS - 1)
    given = jnp.repeat(x, TOP_K, axis=0) * keep[:, None]
    rows = jnp.zeros((EXPERTS, SLOTS, HIDDEN), x.dtype).at[flat, place].add(given)
    y = experts(rows, p)[flat, place].reshape(-1, TOP_K, HIDDEN)
    return jnp.sum(y * (weights * keep.reshape(-1, TOP_K))[..., None], axis=1)


# -- scores under a mask ----------------------------------------------------------------


def masked(x, p, normalize=True, of=lambda scores: scores):
    """All experts by vmap; weights are the scores of those chosen, over their sum."""
    scores = jax.nn.softmax(x @ p["router"], axis=-1)
    _, ids = lax.top_k(scores, TOP_K)
    mask = jnp.any(jax.nn.one_hot(ids, EXPERTS, dtype=jnp.bool_), axis=-2)
    gates = jnp.where(mask, of(scores), 0.0)
    if normalize:
        gates = gates / jnp.sum(gates, axis=-1, keepdims=True)
    y = jax.vmap(lambda *w: jax.nn.gelu(x @ w[0] + w[1]) @ w[2] + w[3])(
        p["wi"], p["bi"], p["wo"], p["bo"])
    return jnp.einsum("te,eth->th", gates, y)


def biased_choice(x, p):
    """The choice is one of other numbers than the weights."""
    scores = jax.nn.sigmoid(x @ p["router"])
    _, ids = lax.top_k(scores + p["bo"][:, 0], TOP_K)
    gates = scores * jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype).max(1)
    y = jnp.einsum("tei,eih->teh", jnp.tanh(jnp.einsum("th,ehi->tei", x, p["wi"])), p["wo"])
    return jnp.einsum("te,teh->th", gates * 2.5, y)


def masked_logits(x, p):
    """A softmax of logits, of which others are −inf."""
    logits = x @ p["router"]
    _, ids = lax.top_k(logits, TOP_K)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=x.dtype).sum(1) > 0
    gates = jax.nn.softmax(jnp.where(mask, logits, -jnp.inf), axis=-1)
    y = jnp.einsum("tei,eih->teh", jax.nn.relu(jnp.einsum("th,ehi->tei", x, p["wi"])), p["wo"])
    return jnp.einsum("te,teh->th", gates, y)


# -- sorted rows --------------------------------------------------------------------------


def repeated_rows(x, p):
    """Rows are repeated for their choices, and then sorted; a shared expert beside them."""
    weights, ids = route(x, p)
    order = jnp.argsort(ids.ravel())
    sizes = jnp.bincount(ids.ravel(), length=EXPERTS)
    h = jax.nn.relu(lax.ragged_dot(jnp.repeat(x, TOP_K, axis=0)[order], p["wi"], sizes))
    y = lax.ragged_dot(h, p["wo"], sizes)[jnp.argsort(order)].reshape(-1, TOP_K, HIDDEN)
    return jnp.sum(y * weights[..., None], axis=1) + jax.nn.relu(x @ p["wi"][0]) @ p["wo"][0]


def sorted_weights(x, p):
    """Weights are gathered for each sorted row."""
    weights, ids = route(x, p)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    tokens, of = order // TOP_K, flat[order]
    h = jnp.tanh(jnp.einsum("mh,mhi->mi", x[tokens], p["wi"][of]))
    y = jnp.einsum("mi,mih->mh", h, p["wo"][of]) * weights.reshape(-1)[order][:, None]
    return jnp.zeros_like(x).at[tokens].add(y)


# -- near misses ----------------------------------------------------------------------------


def next_expert(x, p):
    return counted(x, p, of_first=lambda e: (e + 1) % EXPERTS)


def from_the_end(x, p):
    return counted(x, p, of_second=lambda e: EXPERTS - 1 - e)


def first_expert(x, p):
    return counted(x, p, of_second=lambda e: 0)


def fewer_experts(x, p):
    return counted(x, p, count=EXPERTS - 1)


def sums_of_sums(x, p):
    """Each expert takes what those before it have added up."""
    weights, ids = route(x, p)

    def step(sum_, expert):
        e, wi, wo = expert
        return sum_ + gates_of(weights, ids, e)[:, None] * (jnp.tanh((x + sum_) @ wi) @ wo), None

    return lax.scan(step, jnp.zeros_like(x), (jnp.arange(EXPERTS), p["wi"], p["wo"]))[0]


def scaled_by_counter(x, p):
    """What an expert computes depends on its number."""
    weights, ids = route(x, p)

    def step(e, sum_):
        h = jnp.tanh(x @ p["wi"][e]) * (1 + e)
        return sum_ + gates_of(weights, ids, e)[:, None] * (h @ p["wo"][e])

    return lax.fori_loop(0, EXPERTS, step, jnp.zeros_like(x))


def argmin(x, p):
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    mask = jax.nn.one_hot(jnp.argmin(probabilities, axis=-1), EXPERTS, dtype=x.dtype)
    y = jnp.einsum("tei,eih->teh", jnp.einsum("th,ehi->tei", x, p["wi"]), p["wo"])
    return jnp.einsum("te,teh->th", mask, y)


def argmax_of_tokens(x, p):
    """As many tokens as experts: the best token of each expert."""
    logits = (x @ p["router"])[:EXPERTS]
    mask = jax.nn.one_hot(jnp.argmax(logits, axis=0), EXPERTS, dtype=x.dtype)
    y = jnp.einsum("tei,eih->teh", jnp.einsum("th,ehi->tei", x[:EXPERTS], p["wi"]), p["wo"])
    return jnp.einsum("te,teh->th", mask, y)


def slots_unmasked(x, p):
    """A dropped choice has the row of the last slot."""
    return buffered(x, p, mask=False)


def slots_kept_less(x, p):
    """The last slot is filled, and not used."""
    return buffered(x, p, kept=SLOTS - 1)


def slots_from_one(x, p):
    """Places are those after the choice."""
    weights, ids = route(x, p)
    flat, place = places(ids)
    rows = jnp.zeros((EXPERTS, SLOTS, HIDDEN), x.dtype).at[flat, place + 1].set(
        x[jnp.repeat(jnp.arange(x.shape[0]), TOP_K)], mode="drop")
    y = experts(rows, p)[flat, jnp.minimum(place, SLOTS - 1)] * (place < SLOTS)[:, None]
    return jnp.sum(y.reshape(-1, TOP_K, HIDDEN) * weights[..., None], axis=1)


def scores_of_others(x, p):
    """The scores of the token before."""
    return masked(x, p, normalize=False, of=lambda scores: jnp.roll(scores, 1, axis=0))


def unsorted_weights(x, p):
    """Sorted rows, weights of the choices as they were."""
    weights, ids = route(x, p)
    flat = ids.reshape(-1)
    order = jnp.argsort(flat)
    y = jnp.einsum("mh,mhi->mi", x[order // TOP_K], p["wi"][flat])
    y = jnp.einsum("mi,mih->mh", y, p["wo"][flat])[jnp.argsort(order)]
    return jnp.sum(y.reshape(-1, TOP_K, HIDDEN) * weights[..., None], axis=1)


def pairs_of_indices(x, p):
    """A token and an expert in one vector, which loses a dimension."""
    weights, ids = route(x, p)
    tokens = jnp.broadcast_to(jnp.arange(x.shape[0])[:, None], ids.shape)
    at = jnp.stack([tokens, ids], axis=-1).reshape(-1, 2)
    scores = jax.nn.sigmoid(x @ p["router"])[at[:, 0], at[:, 1]].reshape(ids.shape)
    h = jnp.tanh(jnp.einsum("th,tkhi->tki", x, p["wi"][ids]))
    return jnp.einsum("tki,tkih,tk->th", h, p["wo"][ids], scores)


# -- checks ---------------------------------------------------------------------------------


FORMS = {"scan": 3, "scan_residual": 2, "counted": 2, "mapped": 2, "argmax": 2, "argmax_max": 2,
         "argmax_one_hot": 2, "buffered": 2, "buffered_add": 2, "masked": 2, "biased_choice": 2,
         "masked_logits": 2, "repeated_rows": 2, "sorted_weights": 2}


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("name", FORMS)
def test_forms(name, tokens):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, FORMS[name], 1]
    for number in (tokens,) if tokens else (1, 7, TOKENS):
        compare(imported, block, p, number)


@pytest.mark.parametrize("element", ["bfloat16", "int8"])
def test_indices_that_are_rounded(element):
    """No argmax: not every index is one of the type."""
    rng = np.random.default_rng(0)
    p = {"router": jnp.asarray(rng.standard_normal((HIDDEN, 300)), jnp.float32),
         "wi": jnp.asarray(rng.standard_normal((300, HIDDEN, HIDDEN)) / 7, jnp.float32)}

    def block(x, p):
        scores = jax.nn.softmax(x @ p["router"], axis=-1)
        index = lax.broadcasted_iota(jnp.int32, scores.shape, 1).astype(element).astype(jnp.int32)
        largest = scores == scores.max(-1, keepdims=True)
        ids = jnp.where(largest, index, 300).min(-1)
        y = jnp.einsum("th,ehi->tei", x, p["wi"])
        return jnp.einsum("te,teh->th", jax.nn.one_hot(ids, 300) * scores, y)

    compare(import_block(block, p, TOKENS), block, p, TOKENS)


@pytest.mark.parametrize("slots", [2, 40])
def test_slots(slots):
    """Few slots drop most choices, many none."""
    block, p = functools.partial(buffered, slots=slots), parameters()
    imported = import_block(block, p, TOKENS)
    assert f"capacity(<fixed = {slots}>)" in imported.mlir
    compare(imported, block, p, TOKENS)


@pytest.mark.parametrize("name", [
    "next_expert", "from_the_end", "first_expert", "fewer_experts", "sums_of_sums",
    "scaled_by_counter", "argmin", "argmax_of_tokens", "slots_unmasked", "slots_kept_less",
    "slots_from_one", "scores_of_others", "unsorted_weights"])
def test_near_misses(name, monkeypatch):
    """What looks like a block and is none gives what JAX computes, and no pass raises it."""
    block, p = globals()[name], parameters()
    # What the search finds by value, some of these among it, is compared too.
    compare(import_block(block, p, TOKENS), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, TOKENS)
    if name not in ("scores_of_others", "unsorted_weights"):
        assert count(imported, "combine") == 0
    compare(imported, block, p, TOKENS)


def test_pairs_of_indices():
    block, p = pairs_of_indices, parameters()
    compare(import_block(block, p, TOKENS), block, p, TOKENS)


def test_choices_without_experts():
    """They are compiled as they are, and a warning says so."""
    from moe.integrations.jax import from_jax

    def largest(x):
        return lax.top_k(x, TOP_K)[0].sum(-1, keepdims=True) * x

    with pytest.warns(RuntimeWarning, match="largest chooses and has nothing that is known"):
        imported = from_jax(largest, jax.ShapeDtypeStruct((TOKENS, HIDDEN), jnp.float32))
    x = np.random.default_rng(2).standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    expected = np.sort(x, axis=-1)[:, -TOP_K:].astype(np.float64).sum(-1, keepdims=True) * x
    assert np.abs(imported.layer()(x) - expected).max() <= 2e-6 * np.abs(expected).max()


def test_argmax_alone():
    """Without experts it stays what it is."""
    from moe.integrations.jax import from_jax

    imported = from_jax(lambda x: jnp.argmax(x, axis=-1).astype(jnp.float32)[:, None] * x,
                        jax.ShapeDtypeStruct((TOKENS, HIDDEN), jnp.float32))
    assert count(imported, "gate") == 0
    x = np.random.default_rng(2).standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    assert np.array_equal(imported.layer()(x), x.argmax(-1).astype(np.float32)[:, None] * x)
