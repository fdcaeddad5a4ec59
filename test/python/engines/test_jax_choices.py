"""Blocks of JAX that take the results of the chosen experts from those of all, or columns of a loop
over the experts, compiled, against JAX's own results.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import importlib.util

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


def halves(x):
    """Gate and up are the columns of one product."""
    gate, up = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * up


def of_all(x, p):
    """All experts on all tokens, [T, E, H]."""
    h = halves(jnp.einsum("th,ehi->tei", x, p["wi"]))
    return jnp.einsum("tei,eih->teh", h, p["wo"][:, :h.shape[-1]])


def weighed(y, weights):
    return jnp.sum(y * weights[:, :, None], axis=1)


# -- the results of the chosen ------------------------------------------------------


def taken(x, p):
    weights, ids = route(x, p)
    return weighed(jnp.take_along_axis(of_all(x, p), ids[:, :, None], axis=1), weights)


def taken_unnormalized(x, p):
    """vmap over the experts, whose results are stacked first."""
    weights, ids = lax.top_k(jax.nn.sigmoid(x @ p["router"]), TOP_K)
    y = jax.vmap(lambda wi, wo: jax.nn.gelu(x @ wi) @ wo)(p["wi"], p["wo"])
    return jnp.einsum("tkh,tk->th", y[ids, jnp.arange(x.shape[0])[:, None]], weights)


def indexed(x, p):
    """By two indices; the tokens are counted."""
    weights, ids = route(x, p)
    return weighed(of_all(x, p)[jnp.arange(x.shape[0])[:, None], ids], weights)


def taken_one(x, p):
    """One choice."""
    weights, ids = route(x, p, 1)
    return weighed(jnp.take_along_axis(of_all(x, p), ids[:, :, None], axis=1), weights + 1)


# -- slots by masks, weighed by the scores of all experts -------------------------------


def places(hot):
    """The place of each token at its expert, counted from 0; below 0 at all others."""
    return jnp.cumsum(hot, axis=-2) * hot - 1


def flaxformer(x, p, groups=3, slots=4, scores=lambda scores: scores):
    """One choice, groups of tokens, scores times a mask of slots; vmap over the experts."""
    x = x.reshape(groups, -1, HIDDEN)
    probabilities = jax.nn.softmax(jnp.einsum("gth,he->gte", x, p["router"]), axis=-1)
    _, ids = lax.top_k(probabilities, 1)
    hot = jax.nn.one_hot(ids[..., 0], EXPERTS, dtype=jnp.int32)
    mask = jax.nn.one_hot(places(hot) * 1.0, slots, dtype=jnp.bool_)
    combine = jnp.einsum("...te,...tec->...tec", scores(probabilities), mask)
    rows = jnp.einsum("gth,gtec->gech", x, mask)
    rows = jnp.swapaxes(rows, 0, 1).reshape(EXPERTS, groups * slots, HIDDEN)
    y = jax.vmap(lambda wi, wo, rows: jax.nn.relu(rows @ wi) @ wo)(p["wi"], p["wo"], rows)
    y = y.reshape(EXPERTS, groups, slots, HIDDEN).swapaxes(0, 1)
    return jnp.einsum("gech,gtec->gth", y, combine).reshape(-1, HIDDEN)


def one_group(x, p):
    """The same, written as products of broadcast arrays."""
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    _, ids = lax.top_k(probabilities, 1)
    hot = jax.nn.one_hot(ids[:, 0], EXPERTS, dtype=jnp.int32)
    mask = jax.nn.one_hot(places(hot), SLOTS, dtype=x.dtype)
    rows = jnp.einsum("tec,th->ech", mask, x)
    y = jnp.einsum("eci,eih->ech", jnp.tanh(jnp.einsum("ech,ehi->eci", rows, p["wi"])), p["wo"])
    return jnp.einsum("tec,ech->th", mask * probabilities[:, :, None], y)


# -- experts that choose their tokens ---------------------------------------------------


def expert_choice(x, p, weigh=lambda weights: weights, dispatch=lambda mask: mask):
    """Each expert takes its best tokens."""
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    weights, ids = lax.top_k(jnp.swapaxes(probabilities, 0, 1), SLOTS)
    mask = jax.nn.one_hot(ids, x.shape[0], dtype=x.dtype)
    combine = jnp.einsum("ec,ect->ect", weigh(weights), mask)
    rows = jnp.einsum("ect,th->ech", dispatch(mask), x)
    h = jax.nn.gelu(jnp.einsum("ech,ehf->ecf", rows, p["wi"]) + p["bi"][:, None])
    y = jnp.einsum("ecf,efh->ech", h, p["wo"])
    return jnp.einsum("ech,ect->th", y, combine)


# -- loops --------------------------------------------------------------------------


def scan(x, p):
    """Columns of gate and up in a loop, the choice by other scores, and a shared expert."""
    scores = jax.nn.sigmoid(x @ p["router"])
    _, ids = lax.top_k(scores + p["bo"][:, 0], TOP_K)
    weights = jnp.take_along_axis(scores, ids, axis=-1)
    weights = weights / (weights.sum(-1, keepdims=True) + 1e-20) * 2.5
    down = p["wo"][:, :p["wi"].shape[-1] // 2]

    def step(sum_, expert):
        e, wi, wo = expert
        gates = jnp.where(ids == e, weights, 0.0).sum(-1, keepdims=True)
        return sum_ + gates * (halves(x @ wi) @ wo), None

    y, _ = lax.scan(step, jnp.zeros_like(x), (jnp.arange(EXPERTS), p["wi"], down))
    return y + halves(x @ p["wi"][0]) @ down[0]


# -- near misses --------------------------------------------------------------------


def of_the_next(x, p):
    weights, ids = route(x, p)
    return weighed(jnp.take_along_axis(
        of_all(x, p), ((ids + 1) % EXPERTS)[:, :, None], axis=1), weights)


def of_other_tokens(x, p):
    """The tokens in the other order."""
    weights, ids = route(x, p)
    return weighed(of_all(x, p)[jnp.arange(x.shape[0])[::-1, None], ids], weights)


def of_a_square(x, p):
    """As many tokens as experts, and the indices in the other order."""
    x = x[:EXPERTS]
    weights, ids = route(x, p)
    return weighed(of_all(x, p)[ids, jnp.arange(EXPERTS)[:, None]], weights)


def of_fewer(x, p):
    """The last experts are none that a choice has: their rows are those of the last one left."""
    weights, ids = route(x, p)
    return weighed(jnp.take_along_axis(
        of_all(x, p)[:, :EXPERTS - 2], ids[:, :, None], axis=1, mode="clip"), weights)


def other_scores(x, p):
    """The scores of the next expert."""
    return flaxformer(x, p, scores=lambda scores: jnp.roll(scores, 1, axis=-1))


def expert_choice_of_others(x, p):
    """The rows of the expert before."""
    return expert_choice(x, p, dispatch=lambda mask: jnp.roll(mask, 1, axis=0))


def expert_choice_by_rank(x, p):
    """Weights that depend on the rank of a choice."""
    return expert_choice(x, p, weigh=lambda weights: weights / (1 + jnp.arange(SLOTS)))


FORMS = "taken", "taken_unnormalized", "indexed", "taken_one", "scan"
NEAR_MISSES = ("of_the_next", "of_other_tokens", "of_a_square", "of_fewer",
               "expert_choice_of_others", "expert_choice_by_rank")


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("name", FORMS)
def test_forms(name, tokens):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    for number in (tokens,) if tokens else (1, 7, TOKENS):
        compare(imported, block, p, number)


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_near_misses(name, monkeypatch):
    block, p = globals()[name], parameters()
    # What the search by value finds is compared too.
    compare(import_block(block, p, TOKENS), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, TOKENS)
    assert count(imported, "dispatch") == 0
    compare(imported, block, p, TOKENS)


@pytest.mark.parametrize("name", ["flaxformer", "one_group"])
def test_slots(name):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, TOKENS)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    assert "capacity(<fixed = " in imported.mlir
    compare(imported, block, p, TOKENS)


def test_scores_of_others():
    """Raised with these scores, or not."""
    p = parameters()
    compare(import_block(other_scores, p, TOKENS), other_scores, p, TOKENS)


@pytest.mark.parametrize("tokens", [TOKENS, EXPERTS])
def test_expert_choice(tokens):
    """As many tokens as experts, too."""
    p = parameters()
    imported = import_block(expert_choice, p, tokens)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    assert "select(expert_choice)" in imported.mlir
    compare(imported, expert_choice, p, tokens)
