"""Blocks of JAX that write out each expert or each choice, compiled, against JAX's own results.

Experts may be arrays of their own, which become one weight, and groups of tokens may have slots of
their own. `./dev check jax` runs this in an environment with JAX.
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


def separate(seed=0):
    """The same parameters, where each expert has its own."""
    p = parameters(seed)
    experts = [{name: p[name][e] for name in ("wi", "bi", "wo", "bo")} for e in range(EXPERTS)]
    return {"router": p["router"], "experts": experts}


def mlp(x, expert):
    return jax.nn.gelu(x @ expert["wi"] + expert["bi"]) @ expert["wo"] + expert["bo"]


def dense_gates(x, p):
    weights, ids = route(x, p)
    return (jax.nn.one_hot(ids, EXPERTS) * weights[..., None]).sum(1)


# -- an array for each expert -------------------------------------------------------


def columns(x, p, expert_of=lambda e: e):
    """A sum over a list of experts, by the columns of a matrix of weights."""
    gates = dense_gates(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS):
        y = y + gates[:, e:e + 1] * mlp(x, p["experts"][expert_of(e)])
    return y


def masks(x, p):
    """By a mask of each expert, added to what is there."""
    weights, ids = route(x, p)
    y = jnp.tanh(x)
    for e, expert in enumerate(p["experts"]):
        y = y + jnp.where(ids == e, weights, 0).sum(-1)[:, None] * mlp(x, expert)
    return y


def stacked_results(x, p):
    y = jnp.stack([mlp(x, expert) for expert in p["experts"]], axis=1)
    return jnp.einsum("te,teh->th", dense_gates(x, p), y)


def taken_results(x, p):
    weights, ids = route(x, p)
    y = jnp.stack([mlp(x, expert) for expert in p["experts"]], axis=1)
    return (jnp.take_along_axis(y, ids[..., None], axis=1) * weights[..., None]).sum(1)


def stacked_weights(x, p):
    """The function itself makes one weight of them."""
    wi, bi, wo, bo = (jnp.stack([e[name] for e in p["experts"]])
                      for name in ("wi", "bi", "wo", "bo"))
    h = jax.nn.gelu(jnp.einsum("th,ehi->tei", x, wi) + bi)
    return jnp.einsum("te,teh->th", dense_gates(x, p), jnp.einsum("tei,eih->teh", h, wo) + bo)


def transposed(x, p):
    """Weights [out, in], and the experts in another order than the sum."""
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e in range(EXPERTS)[::-1]:
        h = jax.nn.gelu(jnp.einsum("th,ih->ti", x, p["experts"][e]["wi"].T))
        y = y + jnp.where(ids == e, weights, 0).sum(-1)[:, None] * (h @ p["experts"][e]["wo"])
    return y


def of_the_first(x, p):
    """All have the weights of the first one."""
    return columns(x, p, lambda e: 0)


def twice(x, p):
    """The last one has those of the one before."""
    return columns(x, p, lambda e: min(e, EXPERTS - 2))


def another_function(x, p):
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for e, expert in enumerate(p["experts"]):
        h = (jnp.tanh if e == 3 else jax.nn.gelu)(x @ expert["wi"])
        y = y + jnp.where(ids == e, weights, 0).sum(-1)[:, None] * (h @ expert["wo"])
    return y


def scaled_rows(x, p):
    """The rows of each expert are its own, as a batch of one sequence."""
    gates, y = dense_gates(x, p), jnp.zeros_like(x)
    for e, expert in enumerate(p["experts"]):
        rows = x[None] * p["scales"][e:e + 1][:, None]
        y = y + gates[:, e:e + 1] * jax.nn.gelu(rows @ expert["wi"] @ expert["wo"])[0]
    return y


def stacked_rows(x, p):
    """The same, stacked."""
    rows = jnp.stack([x * p["scales"][e] for e in range(EXPERTS)])
    wi = jnp.stack([expert["wi"] for expert in p["experts"]])
    wo = jnp.stack([expert["wo"] for expert in p["experts"]])
    y = jnp.einsum("eti,eih->eth", jnp.tanh(jnp.einsum("eth,ehi->eti", rows, wi)), wo)
    return jnp.einsum("te,eth->th", dense_gates(x, p), y)


def with_the_first(x, p):
    """The first expert is added to all."""
    y = [mlp(x, expert) for expert in p["experts"]]
    return jnp.einsum("te,teh->th", dense_gates(x, p), jnp.stack(y, axis=1) + y[0][:, None])


def two_orders(x, p):
    """The experts in two orders, of which both begin with the first one."""
    first, *others = (mlp(x, expert) for expert in p["experts"])
    y = jnp.stack([first, *others], axis=1) * jnp.stack([first, *others[::-1]], axis=1)
    return jnp.einsum("te,teh->th", dense_gates(x, p), y)


@pytest.mark.parametrize("name", ["scaled_rows", "stacked_rows", "with_the_first", "two_orders"])
def test_rows_of_the_first(name):
    """What the first expert computes stands for all only where each has its own."""
    block = globals()[name]
    p = separate() | {"scales": jnp.asarray(
        np.random.default_rng(2).uniform(0.5, 2, (EXPERTS, HIDDEN)), jnp.float32)}
    compare(import_block(block, p, TOKENS), block, p, TOKENS)


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("name", ["columns", "masks", "stacked_results", "taken_results",
                                  "stacked_weights", "transposed"])
def test_separate_experts(name, tokens, recwarn):
    block, p = globals()[name], separate()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    # One weight of all experts, which is prepared once.
    assert {"router", "experts.*.wi", "experts.*.wo"} <= set(imported.weights)
    assert not any(name.startswith("experts.0") for name in imported.weights)
    assert imported.weights["experts.*.wi"].shape == (EXPERTS, *p["experts"][0]["wi"].shape)
    for number in (tokens,) if tokens else (0, 1, TOKENS):
        compare(imported, block, p, number)
    assert not [w for w in recwarn if "prepared in every call" in str(w.message)]


@pytest.mark.parametrize("name", ["of_the_first", "twice", "another_function"])
def test_separate_near_misses(name, monkeypatch):
    block, p = globals()[name], separate()
    # What the search by value finds is compared too.
    compare(import_block(block, p, TOKENS), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, TOKENS)
    assert count(imported, "dispatch") == (name == "twice")  # one weight has it two times
    compare(imported, block, p, TOKENS)


def test_gradients_of_separate_experts():
    block, p = transposed, separate()
    imported = import_block(block, p, TOKENS)
    x = np.random.default_rng(1).standard_normal((TOKENS, HIDDEN)).astype(np.float32)

    def loss(function):
        return jax.grad(lambda p: jnp.sin(function(jnp.asarray(x), p)).sum())(p)

    for got, expected in zip(*map(jax.tree_util.tree_leaves, (
            loss(imported.trainable()), loss(block)))):
        assert np.abs(got - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1)


# -- an expert for each choice ------------------------------------------------------


def choices(x, p, column=lambda k: k, weight=lambda k: k, function=lambda k: jnp.tanh):
    """A sum over the choices, whose weights are gathered by a column of the ids."""
    weights, ids = route(x, p)
    y = jnp.zeros_like(x)
    for k in range(ids.shape[1]):
        e = ids[:, column(k)]
        h = function(k)(jnp.einsum("th,thi->ti", x, p["wi"][e]) + p["bi"][e])
        y = y + weights[:, weight(k), None] * jnp.einsum("ti,tih->th", h, p["wo"][e])
    return y


def choices_backwards(x, p):
    return choices(x, p, lambda k: 1 - k, lambda k: 1 - k)


def choices_stacked(x, p):
    weights, ids = route(x, p)
    y = []
    for e in ids.T:
        h = jnp.tanh(jnp.einsum("th,thi->ti", x, p["wi"][e]))
        y.append(jnp.einsum("ti,tih->th", h, p["wo"][e]))
    return jnp.einsum("tkh,tk->th", jnp.stack(y, 1), weights)


def other_weights(x, p):
    """The weight of the other choice."""
    return choices(x, p, weight=lambda k: 1 - k)


def first_twice(x, p):
    return choices(x, p, column=lambda k: 0)


def other_functions(x, p):
    return choices(x, p, function=lambda k: (jnp.tanh, jnp.sin)[k])


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("name", ["choices", "choices_backwards"])
def test_choices(name, tokens):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in (
        "gate", "dispatch", "route", "grouped_matmul", "combine")] == [1, 1, 0, 2, 1]
    for number in (tokens,) if tokens else (1, 7, TOKENS):
        compare(imported, block, p, number)


def stacked_with_the_first(x, p):
    """The first choice is added to both."""
    weights, ids = route(x, p)
    h = [jnp.tanh(jnp.einsum("th,thi->ti", x, p["wi"][ids[:, k]])) for k in range(ids.shape[1])]
    h = jnp.stack(h, 1) + h[0][:, None]
    y = jnp.einsum("tki,tkih->tkh", h, p["wo"][ids])
    return jnp.einsum("tk,tkh->th", weights, y)


def test_choices_with_the_first():
    block, p = stacked_with_the_first, parameters()
    compare(import_block(block, p, TOKENS), block, p, TOKENS)


@pytest.mark.parametrize("name", ["other_weights", "first_twice", "other_functions"])
def test_choices_near_misses(name, monkeypatch):
    block, p = globals()[name], parameters()
    # What the search by value finds is compared too.
    compare(import_block(block, p, TOKENS), block, p, TOKENS)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, TOKENS)
    assert count(imported, "dispatch") == 0
    compare(imported, block, p, TOKENS)


# -- functions of one token ---------------------------------------------------------


def each_token(x, p):
    def of_token(x):
        weights, ids = route(x[None], p)
        h = jnp.tanh(jnp.einsum("h,khi->ki", x, p["wi"][ids[0]]))
        return weights[0] @ jnp.einsum("ki,kih->kh", h, p["wo"][ids[0]])

    return jax.vmap(of_token)(x)


def each_choice(x, p):
    """And of each of its choices, which jax.vmap repeats, too."""
    def of_token(x):
        weights, ids = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
        return jax.vmap(lambda e, w: w * (jnp.tanh(x @ p["wi"][e]) @ p["wo"][e]))(
            ids, weights).sum(0)

    return jax.vmap(of_token)(x)


@pytest.mark.parametrize("tokens", [TOKENS, None])
@pytest.mark.parametrize("name", ["each_token", "each_choice"])
def test_functions_of_a_token(name, tokens):
    block, p = globals()[name], parameters()
    imported = import_block(block, p, tokens)
    assert [count(imported, o) for o in (
        "gate", "dispatch", "route", "grouped_matmul", "combine")] == [1, 1, 0, 2, 1]
    for number in (tokens,) if tokens else (1, 7, TOKENS):
        compare(imported, block, p, number)


# -- slots of groups of tokens ------------------------------------------------------

GROUPS, SIZE, SLOTS = 3, 11, 5


def in_groups(x, p, by_choice=True, fill=0, of=lambda e: e, kept=SLOTS):
    """V-MoE's dispatcher by indices: slots of each group, vmapped over the groups."""
    def places(ids):
        order = ids.T if by_choice else ids
        hot = jax.nn.one_hot(order.reshape(-1), EXPERTS, dtype=jnp.int32)
        place = (jnp.cumsum(hot, axis=0) * hot - 1).max(axis=1)
        return place.reshape(ids.shape[::-1]).T if by_choice else place.reshape(ids.shape)

    weights, ids = route(x, p)
    ids, x = ids.reshape(GROUPS, SIZE, -1), x.reshape(GROUPS, SIZE, -1)
    index = jnp.stack([of(ids), jax.vmap(places)(ids)], axis=-1)

    def dispatch(x, index):
        rows = jnp.broadcast_to(x[:, None, :], (*index.shape[:2], HIDDEN))
        slots = jnp.zeros((EXPERTS, SLOTS, HIDDEN), x.dtype)
        return slots.at[index[..., 0], index[..., 1]].add(rows, mode="drop")

    slots = jax.vmap(dispatch)(x, index)
    slots = slots.swapaxes(0, 1).reshape(EXPERTS, GROUPS * SLOTS, HIDDEN)
    h = jnp.tanh(jnp.einsum("ech,ehi->eci", slots, p["wi"]) + p["bi"][:, None])
    y = jnp.einsum("eci,eih->ech", h, p["wo"])
    y = y.reshape(EXPERTS, GROUPS, SLOTS, HIDDEN).swapaxes(0, 1)
    rows = jax.vmap(lambda y, index: y.at[index[..., 0], index[..., 1]].get(
        mode="fill", fill_value=fill))(y[:, :, :kept], index)
    return jnp.einsum("tkh,tk->th", rows.reshape(*weights.shape, HIDDEN), weights)


def of_the_next_expert(x, p):
    return in_groups(x, p, of=lambda ids: (ids + 1) % EXPERTS)


def filled_with_ones(x, p):
    return in_groups(x, p, fill=1)


def fewer_kept(x, p):
    return in_groups(x, p, kept=SLOTS - 1)


@pytest.mark.parametrize("by_choice", [True, False])
def test_slots_of_groups(by_choice):
    block, p = functools.partial(in_groups, by_choice=by_choice), parameters()
    imported = import_block(block, p, GROUPS * SIZE)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    assert f"experts({EXPERTS * GROUPS}) capacity(<fixed = {SLOTS}>)" in imported.mlir
    assert ("priority(choice)" in imported.mlir) == by_choice
    compare(imported, block, p, GROUPS * SIZE)


@pytest.mark.parametrize("name", ["of_the_next_expert", "filled_with_ones", "fewer_kept"])
def test_slots_near_misses(name, monkeypatch):
    block, p = globals()[name], parameters()
    # What the search by value finds is compared too.
    compare(import_block(block, p, GROUPS * SIZE), block, p, GROUPS * SIZE)
    monkeypatch.setattr("moe.integrations.jax.find_by_value", lambda *_: None)
    imported = import_block(block, p, GROUPS * SIZE)
    assert count(imported, "dispatch") == 0
    compare(imported, block, p, GROUPS * SIZE)


# -- weights that the function arranges otherwise -----------------------------------


def views(x, p):
    """Gate and up as one weight [E, 2, I, H], a transposed router and down."""
    weights, ids = jax.lax.top_k(jax.nn.softmax(x @ p["router"].T), 2)
    order = jnp.argsort(ids.reshape(-1))
    sizes = jnp.bincount(ids.reshape(-1), length=EXPERTS)
    gating = jnp.swapaxes(p["gating"].reshape(EXPERTS, -1, HIDDEN), 1, 2)
    gate, up = jnp.split(jax.lax.ragged_dot(x[order // 2], gating, sizes), 2, axis=-1)
    y = jax.lax.ragged_dot(jax.nn.silu(gate) * up, p["down"].transpose(0, 2, 1), sizes)
    return (y[jnp.argsort(order)].reshape(-1, 2, HIDDEN) * weights[..., None]).sum(1)


def test_views_of_weights(recwarn):
    """They are prepared once, of the arrays that the function has."""
    p = parameters()
    inner = p["wi"].shape[2]
    p = {"router": p["router"].T, "down": p["wo"].transpose(0, 2, 1), "gating": jnp.stack(
        [p["wg"], p["wi"]], axis=1).transpose(0, 1, 3, 2)}
    assert p["gating"].shape == (EXPERTS, 2, inner, HIDDEN)
    imported = import_block(views, p, None)
    assert sorted(imported.weights) == ["down", "gating", "router"]
    layer = imported.layer()
    assert not [w for w in recwarn if "prepared in every call" in str(w.message)]
    x = np.random.default_rng(5).standard_normal((TOKENS, HIDDEN)).astype(np.float32)
    for gating in (p["gating"], p["gating"][:, ::-1]):
        layer.update({**p, "gating": gating})
        expected = np.asarray(jax.jit(views)(x, {**p, "gating": gating}), np.float64)
        assert np.abs(layer(x) - expected).max() <= 2e-6 * np.abs(expected).max()
