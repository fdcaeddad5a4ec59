"""Routers of JAX as their users write them, compiled, against JAX's own results: one choice by an
argmax in groups of tokens, experts above the k-th largest score, a bias that only the choice sees.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings

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
)

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax

GROUPS, SLOTS = 3, 2
LAYER = ["gate", "dispatch", "grouped_matmul", "combine"]


def dense(x, gates, p):
    h = jnp.tanh(jnp.einsum("th,ehi->tei", x, p["wi"]) + p["bi"])
    return jnp.einsum("te,teh->th", gates, jnp.einsum("tei,eih->teh", h, p["wo"]) + p["bo"])


# -- one choice ------------------------------------------------------------------


def first_of_largest(scores, otherwise=EXPERTS):
    """An argmax without one: the first index of those with the largest score."""
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, jnp.arange(EXPERTS), otherwise).min(-1)


def last_of_largest(scores):
    is_largest = scores == scores.max(-1, keepdims=True)
    return jnp.where(is_largest, jnp.arange(EXPERTS), -1).max(-1)


def switch(x, p, groups=GROUPS, gate="einsum", place="einsum", choose=None, slots=SLOTS,
           fills=lambda combine: combine.astype(bool)):
    """Groups of tokens with slots of their own, as GShard and praxis have them."""
    x = x.reshape(groups, -1, HIDDEN)
    probs = jax.nn.softmax(jnp.einsum("gsm,me->gse", x, p["router"]), axis=-1)
    index = (choose or (lambda scores: jnp.argmax(scores, axis=-1)))(probs)
    mask = jax.nn.one_hot(index, EXPERTS, dtype=x.dtype)
    weight = {"einsum": lambda: jnp.einsum("gse,gse->gs", probs, mask),
              "sum": lambda: jnp.sum(probs * mask, axis=-1),
              "max": lambda: probs.max(axis=-1)}[gate]()
    before = jnp.cumsum(mask, axis=-2) - mask
    kept = mask * jnp.less(before, slots).astype(x.dtype)
    at = {"einsum": lambda: jnp.einsum("gse,gse->gs", before, kept),
          "sum": lambda: jnp.sum(before * kept, axis=-1)}[place]()
    weight = weight * jnp.einsum("gse->gs", kept)
    combine = jnp.einsum("gse,gsc->gsec", weight[..., None] * mask,
                         jax.nn.one_hot(at.astype(jnp.int32), slots, dtype=x.dtype))
    rows = jnp.einsum("gsec,gsm->egcm", fills(combine).astype(x.dtype), x)
    h = jnp.tanh(jnp.einsum("egcm,emi->egci", rows, p["wi"]))
    y = jnp.einsum("egci,eim->egcm", h, p["wo"])
    return jnp.einsum("gecm,gsec->gsm", jnp.einsum("egcm->gecm", y), combine).reshape(-1, HIDDEN)


@pytest.mark.parametrize("place", ["einsum", "sum"])
@pytest.mark.parametrize("gate", ["einsum", "sum", "max"])
def test_one_choice_of_groups(gate, place):
    block, p = functools.partial(switch, gate=gate, place=place), parameters()
    imported = import_block(block, p, TOKENS)
    assert [count(imported, o) for o in LAYER] == [1, 1, 2, 1]
    compare(imported, block, p, TOKENS)


def switch_of_tokens(x, p):
    """The same of all tokens; slots are filled where the weights are above 0."""
    probs = jax.nn.softmax(x @ p["router"], axis=-1)
    index = jnp.argmax(probs, axis=-1)
    mask = jax.nn.one_hot(index, EXPERTS, dtype=x.dtype)
    before = jnp.cumsum(mask, axis=0) - mask
    kept = mask * (before < SLOTS)
    slots = jax.nn.one_hot((before * kept).sum(-1).astype(jnp.int32), SLOTS, dtype=x.dtype)
    combine = ((probs * mask).sum(-1)[:, None] * kept)[:, :, None] * slots[:, None]
    rows = jnp.einsum("tec,th->ech", (combine > 0).astype(x.dtype), x)
    y = jnp.einsum("eci,eih->ech", jnp.tanh(jnp.einsum("ech,ehi->eci", rows, p["wi"])), p["wo"])
    return jnp.einsum("tec,ech->th", combine, y)


def with_sigmoid(x, p):
    """The weight of one expert is the sigmoid of its logit (BASE)."""
    logits = x @ p["router"]
    index = jnp.argmax(logits, axis=-1)
    weight = jax.nn.sigmoid(jnp.take_along_axis(logits, index[:, None], axis=-1))
    return dense(x, jax.nn.one_hot(index, EXPERTS, dtype=x.dtype) * weight, p)


@pytest.mark.parametrize("block", [
    "switch_of_tokens", "with_sigmoid",
    functools.partial(switch, fills=lambda combine: combine > 0)])
def test_one_choice(block):
    block, p = globals()[block] if isinstance(block, str) else block, parameters()
    imported = import_block(block, p, TOKENS)
    assert [count(imported, o) for o in LAYER] == [1, 1, 2, 1]
    compare(imported, block, p, TOKENS)


def test_first_index_of_the_largest():
    block, p = functools.partial(switch, choose=first_of_largest), parameters()
    p["router"] = jnp.round(p["router"])
    imported = import_block(block, p, TOKENS)
    assert [count(imported, o) for o in LAYER] == [1, 1, 2, 1]
    compare(imported, block, p, TOKENS)
    # Scores that are equal: the first one is chosen.
    x = np.zeros((TOKENS, HIDDEN), np.float32)
    x[:, 0] = 1.0
    p["router"] = jnp.zeros_like(p["router"]).at[0, 2:].set(1.0)
    same = import_block(block, p, TOKENS).layer()(x)
    np.testing.assert_allclose(same, jax.jit(block)(x, p), atol=1e-6)


@pytest.mark.parametrize("choose", ["last_of_largest", "none_of_an_expert"])
def test_other_indices_are_no_argmax(choose):
    """The last one among equals, or an index of an expert where none is the largest."""
    choices = {"last_of_largest": last_of_largest,
               "none_of_an_expert": functools.partial(first_of_largest, otherwise=1)}
    block, p = functools.partial(switch, choose=choices[choose]), parameters()
    imported = import_block(block, p, TOKENS)
    assert count(imported, "dispatch") == 0
    compare(imported, block, p, TOKENS)


# -- thresholds ------------------------------------------------------------------


def threshold(x, p, form="where", kth="top_k", normalize=True, of=lambda scores: scores):
    probs = of(jax.nn.softmax(x @ p["router"], axis=-1))
    least = {"top_k": lambda: lax.top_k(probs, TOP_K)[0][:, -1:],
             "min": lambda: lax.top_k(probs, TOP_K)[0].min(-1, keepdims=True),
             "sort": lambda: jnp.sort(probs, axis=-1)[:, -TOP_K][:, None],
             "descending": lambda: -jnp.sort(-probs, axis=-1)[:, TOP_K - 1:TOP_K]}[kth]()
    gates = {"where": lambda: jnp.where(probs >= least, probs, 0.0),
             "less": lambda: jnp.where(probs < least, 0.0, probs),
             "swapped": lambda: jnp.where(least <= probs, probs, 0.0),
             "product": lambda: probs * (probs >= least)}[form]()
    if normalize:
        gates = gates / gates.sum(-1, keepdims=True)
    return dense(x, gates, p)


def masked_softmax(x, p):
    logits = x @ p["router"]
    least = lax.top_k(logits, TOP_K)[0][:, -1:]
    return dense(x, jax.nn.softmax(jnp.where(logits < least, -jnp.inf, logits), axis=-1), p)


def compare_ties(imported, block, p, tokens):
    """Whole numbers of few sizes, and tokens of padding: many scores are equal."""
    rng = np.random.default_rng(tokens)
    x = np.round(rng.standard_normal((tokens, HIDDEN))).astype(np.float32)
    x[tokens // 2:] = 0.0
    y, expected = imported.layer()(x), np.asarray(jax.jit(block)(x, p), np.float64)
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("block", [
    *(functools.partial(threshold, form=form) for form in ("where", "less", "swapped", "product")),
    *(functools.partial(threshold, kth=kth) for kth in ("min", "sort", "descending")),
    functools.partial(threshold, normalize=False), masked_softmax])
def test_thresholds(block, tokens):
    p = parameters()
    p["router"] = jnp.round(p["router"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        imported = import_block(block, p, tokens)
        imported.layer()
    assert [count(imported, o) for o in LAYER[1:]] == [1, 2, 1]
    compare(imported, block, p, TOKENS)
    compare_ties(imported, block, p, TOKENS)


def test_thresholds_choose_more_than_k():
    """What a choice of k would not compute: the inputs have ties."""
    p = parameters()
    x = np.zeros((1, HIDDEN), np.float32)
    probs = jax.nn.softmax(x @ p["router"], axis=-1)
    assert (probs >= lax.top_k(probs, TOP_K)[0][:, -1:]).sum() == EXPERTS > TOP_K


def other_scores(x, p):
    """A threshold of the token before."""
    probs = jax.nn.softmax(x @ p["router"], axis=-1)
    least = lax.top_k(jnp.roll(probs, 1, axis=0), TOP_K)[0][:, -1:]
    return dense(x, jnp.where(probs >= least, probs, 0.0), p)


def below(x, p):
    """The experts that are not among the best."""
    probs = jax.nn.softmax(x @ p["router"], axis=-1)
    least = lax.top_k(probs, TOP_K)[0][:, -1:]
    return dense(x, jnp.where(probs >= least, 0.0, probs), p)


def filled(x, p):
    """Others weigh something, too."""
    probs = jax.nn.softmax(x @ p["router"], axis=-1)
    least = lax.top_k(probs, TOP_K)[0][:, -1:]
    return dense(x, jnp.where(probs >= least, probs, 0.01), p)


@pytest.mark.parametrize("block", ["other_scores", "below", "filled"])
def test_thresholds_of_others(block):
    block, p = globals()[block], parameters()
    imported = import_block(block, p, TOKENS)
    compare(imported, block, p, TOKENS)
    compare_ties(imported, block, p, TOKENS)


# -- a bias ----------------------------------------------------------------------


def take(scores, ids, form):
    tokens = jnp.arange(scores.shape[0])[:, None]
    hot = jax.nn.one_hot(ids, EXPERTS, dtype=scores.dtype)
    return {"take": lambda: jnp.take_along_axis(scores, ids, axis=-1),
            "clip": lambda: jnp.take_along_axis(scores, ids, axis=-1, mode="clip"),
            "index": lambda: scores[tokens, ids],
            "one_hot": lambda: (hot * scores[:, None]).sum(-1),
            "einsum": lambda: jnp.einsum("tke,te->tk", hot, scores),
            "vmap": lambda: jax.vmap(lambda row, at: row[at])(scores, ids)}[form]()


def limit(biased, count, keep, form="any", score="top2", fill=-np.inf, shape="flat"):
    """Scores of the experts in the best groups, others filled."""
    size = EXPERTS // count
    grouped = biased.reshape(-1, count, size)
    best = lax.top_k(grouped, 2)[0].sum(-1) if score == "top2" else grouped.max(-1)
    _, ids = lax.top_k(best, keep)
    hot = jax.nn.one_hot(ids, count)
    mask = {"any": lambda: (hot > 0).any(axis=1), "sum": lambda: hot.sum(axis=1) > 0,
            "scatter": lambda: jnp.zeros_like(best).at[
                jnp.arange(biased.shape[0])[:, None], ids].set(1.0) > 0}[form]()
    if shape == "flat":
        return jnp.where(jnp.repeat(mask, size, axis=-1), biased, fill)
    if shape == "broadcast":
        wide = jnp.broadcast_to(mask[..., None], grouped.shape).reshape(biased.shape)
        return jnp.where(wide, biased, fill)
    if shape == "inverted":
        return jnp.where(~jnp.repeat(mask, size, axis=-1), fill, biased)
    return jnp.where(mask[..., None], grouped, fill).reshape(biased.shape)


def deepseek(x, p, form="take", groups=None, scale=2.5, score=None):
    scores = (score or jax.nn.sigmoid)(x @ p["router"])
    biased = scores + p["bias"]
    _, ids = lax.top_k(limit(biased, **groups) if groups else biased, TOP_K)
    weights = take(scores, ids, form)
    weights = weights / (weights.sum(-1, keepdims=True) + 1e-20) * scale
    flat = ids.ravel()
    order = jnp.argsort(flat)
    sizes = jnp.bincount(flat, length=EXPERTS)
    h = jnp.tanh(lax.ragged_dot(x[order // TOP_K], p["wi"], sizes))
    y = lax.ragged_dot(h, p["wo"], sizes)[jnp.argsort(order)].reshape(-1, TOP_K, HIDDEN)
    return jnp.einsum("tkh,tk->th", y, weights)


def biased_parameters():
    p = parameters()
    p["bias"] = jnp.asarray(np.random.default_rng(5).standard_normal(EXPERTS), jnp.float32) / 4
    return p


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("options", [
    *({"form": form} for form in ("take", "clip", "index", "one_hot", "einsum", "vmap")),
    *({"groups": {"count": 4, "keep": 2, "form": form}} for form in ("any", "sum", "scatter")),
    *({"groups": {"count": 4, "keep": 2, "shape": shape}}
      for shape in ("broadcast", "inverted", "grouped")),
    {"groups": {"count": 4, "keep": 2, "score": "max"}},
    {"groups": {"count": 4, "keep": 2, "fill": 0.0}, "form": "one_hot"}], ids=str)
def test_bias(options, tokens):
    """The whole router is a gate: nothing says that it is left to loops."""
    block, p = functools.partial(deepseek, **options), biased_parameters()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        imported = import_block(block, p, tokens)
        imported.layer()
    assert [count(imported, o) for o in LAYER[1:]] == [1, 2, 1]
    assert ("groups(" in imported.mlir) == ("groups" in options)
    for number in (1, TOKENS) if tokens is None else (TOKENS,):
        compare(imported, block, p, number)


def biased_weights(x, p):
    """The weights have the bias, too."""
    scores = jax.nn.sigmoid(x @ p["router"]) + p["bias"]
    weights, ids = lax.top_k(scores, TOP_K)
    return gathered(x, ids, weights, p)


def groups_of_others(x, p):
    """The mask is that of the groups of the token before."""
    scores = jax.nn.sigmoid(x @ p["router"])
    mask = limit(jnp.roll(scores, 1, axis=0), 4, 2) > 0
    _, ids = lax.top_k(jnp.where(mask, scores, -jnp.inf), TOP_K)
    return gathered(x, ids, take(scores, ids, "take"), p)


def groups_of_neighbours(x, p):
    """Groups of every fourth expert, of which the mask has those that follow each other."""
    scores = jax.nn.sigmoid(x @ p["router"])
    best = scores.reshape(-1, EXPERTS // 4, 4).max(1)
    mask = jax.nn.one_hot(lax.top_k(best, 2)[1], 4).sum(1) > 0
    _, ids = lax.top_k(jnp.where(jnp.repeat(mask, EXPERTS // 4, axis=-1), scores, -jnp.inf), TOP_K)
    return gathered(x, ids, take(scores, ids, "take"), p)


def scores_of_next(x, p):
    """The weights are those of the next expert."""
    scores = jax.nn.sigmoid(x @ p["router"])
    _, ids = lax.top_k(scores + p["bias"], TOP_K)
    return gathered(x, ids, take(scores, (ids + 1) % EXPERTS, "take"), p)


def gathered(x, ids, weights, p):
    h = jnp.tanh(jnp.einsum("th,tkhi->tki", x, p["wi"][ids]))
    return jnp.einsum("tkh,tk->th", jnp.einsum("tki,tkih->tkh", h, p["wo"][ids]), weights)


@pytest.mark.parametrize("block", ["biased_weights", "groups_of_others", "groups_of_neighbours",
                                   "scores_of_next"])
def test_bias_near_misses(block):
    block, p = globals()[block], biased_parameters()
    imported = import_block(block, p, TOKENS)
    assert "groups(" not in imported.mlir
    compare(imported, block, p, TOKENS)
