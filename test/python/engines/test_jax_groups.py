"""Blocks of JAX whose tokens are in groups, each with slots of its own, as GShard, MaxText and
V-MoE write them, against JAX's own results.

`./dev check jax` runs this in an environment with JAX.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
import pytest
from engines.test_jax_einsums import EXPERTS, HIDDEN, TOP_K, count, parameters

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None,
                                reason="jax is not installed; ./dev check jax installs it")

if importlib.util.find_spec("jax") is not None:
    import jax
    import jax.numpy as jnp
    from jax import lax
    from moe.integrations.jax import from_jax

GROUPS, SIZE = 3, 22


def route(x, p, top_k=TOP_K):
    weights, ids = lax.top_k(jax.nn.softmax(x @ p["router"], axis=-1), top_k)
    return weights / weights.sum(-1, keepdims=True), ids


def experts(rows, p):
    """Rows [experts, groups, slots, hidden]."""
    h = jax.nn.relu(jnp.einsum("egch,ehi->egci", rows, p["wi"]) + p["bi"][:, None, None])
    return jnp.einsum("egci,eih->egch", h, p["wo"])


def places(mask):
    """The number of choices before each, of the same expert and group."""
    flat = mask.reshape(mask.shape[0], -1, EXPERTS)
    return jnp.cumsum(flat, axis=1).reshape(mask.shape) - mask


def combined(x, p, combine, dispatch=None):
    dispatch = combine > 0 if dispatch is None else dispatch
    rows = jnp.einsum("gsec,gsh->egch", dispatch.astype(x.dtype), x)
    return jnp.einsum("gsec,egch->gsh", combine, experts(rows, p))


# -- blocks -----------------------------------------------------------------------


def gshard_masks(x, p, capacity):
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    place = (places(mask) * mask).sum(-1).astype(jnp.int32)
    slots = jax.nn.one_hot(place, capacity, dtype=jnp.float32)
    return jnp.einsum("gsk,gske,gskc->gsec", weights, mask, slots)


def gshard(x, p, capacity):
    return combined(x, p, gshard_masks(x, p, capacity))


def switch(x, p, capacity):
    weights, ids = route(x, p, 1)
    mask = jax.nn.one_hot(ids[..., 0], EXPERTS, dtype=jnp.float32)
    place = (jnp.cumsum(mask, 1) * mask).sum(-1).astype(jnp.int32) - 1
    slots = jax.nn.one_hot(place, capacity, dtype=jnp.float32)
    return combined(x, p, weights[..., None] * mask[..., None] * slots[:, :, None])


def choices_first(x, p, capacity):
    """V-MoE: in each group all first choices come before all second ones."""
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.int32).transpose(0, 2, 1, 3)
    place = ((places(mask)) * mask).transpose(0, 2, 1, 3)
    mask = mask.transpose(0, 2, 1, 3)
    slots = jax.nn.one_hot(place.sum(-1), capacity, dtype=x.dtype)
    return combined(x, p, jnp.einsum("gsk,gske,gskc->gsec", weights, mask.astype(x.dtype), slots))


def maxtext_masks(x, p, capacity, first=1):
    """Gates set in a tensor; places from 1, so that the first of the slots is that of others."""
    weights, ids = route(x, p)
    groups, size, _ = ids.shape
    gates = jnp.zeros((groups, size, EXPERTS), x.dtype).at[
        jnp.arange(groups)[:, None, None], jnp.arange(size)[:, None], ids].set(weights)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.int32)
    flat = mask.reshape(groups, size * TOP_K, EXPERTS)
    counts = jnp.cumsum(flat, axis=1)
    kept = mask * jnp.less_equal(counts.reshape(mask.shape), capacity)
    kept = kept.sum(2)
    gates = gates * kept
    place = (flat * counts).reshape(mask.shape).sum(2) * kept
    slots = jax.nn.one_hot(place, capacity + 1, dtype=jnp.int32)
    combine = (gates[..., None] * slots)[..., first:]
    return combine, combine.astype(bool)


def maxtext(x, p, capacity):
    combine, dispatch = maxtext_masks(x, p, capacity)
    return combined(x, p, combine, dispatch)


# -- near misses --------------------------------------------------------------------


def counted_together(x, p):
    """Places among all tokens, slots of each group."""
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    place = (places(mask.reshape(1, -1, TOP_K, EXPERTS)).reshape(mask.shape) * mask).sum(-1)
    slots = jax.nn.one_hot(place.astype(jnp.int32), 24, dtype=jnp.float32)
    return combined(x, p, jnp.einsum("gsk,gske,gskc->gsec", weights, mask, slots))


def slots_as_groups(x, p):
    """As many slots as groups, which change places after the experts."""
    combine = gshard_masks(x, p, GROUPS)
    rows = jnp.einsum("gsec,gsh->egch", (combine > 0).astype(x.dtype), x)
    return jnp.einsum("gsec,ecgh->gsh", combine, experts(rows, p))


def other_groups(x, p):
    """Places of the group before: the masks are of one group, the counts of another."""
    weights, ids = route(x, p)
    mask = jax.nn.one_hot(ids, EXPERTS, dtype=jnp.float32)
    place = (jnp.roll(places(mask), 1, axis=0) * mask).sum(-1).astype(jnp.int32)
    slots = jax.nn.one_hot(place, 40, dtype=jnp.float32)
    return combined(x, p, jnp.einsum("gsk,gske,gskc->gsec", weights, mask, slots))


def other_groups_combined(x, p):
    """Results return to the next group."""
    combine = gshard_masks(x, p, 9)
    rows = jnp.einsum("gsec,gsh->egch", (combine > 0).astype(x.dtype), x)
    return jnp.einsum("gsec,egch->gsh", combine, jnp.roll(experts(rows, p), 1, axis=1))


def first_slot_lost(x, p):
    """One slot too many is cut off."""
    combine, dispatch = maxtext_masks(x, p, 6, first=2)
    return combined(x, p, combine, dispatch)


def others_in_a_slot(x, p):
    """The slot of those without one is kept."""
    combine, dispatch = maxtext_masks(x, p, 6, first=0)
    return combined(x, p, combine, dispatch)


def one_group_of_two(x, p):
    """The masks of two groups as if they were one of the double size."""
    combine = gshard_masks(x, p, 9)
    rows = jnp.einsum("gsec,gsh->ech", (combine > 0).astype(x.dtype), x)
    h = jax.nn.relu(jnp.einsum("ech,ehi->eci", rows, p["wi"]))
    return jnp.einsum("gsec,ech->gsh", combine, jnp.einsum("eci,eih->ech", h, p["wo"]))


# -- checks ---------------------------------------------------------------------------


def import_block(block, p):
    return from_jax(block, jax.ShapeDtypeStruct((GROUPS, SIZE, HIDDEN), jnp.float32), p)


def compare(imported, block, p):
    x = np.random.default_rng(5).standard_normal((GROUPS, SIZE, HIDDEN)).astype(np.float32)
    y, expected = imported.layer()(x), np.asarray(jax.jit(block)(x, p), np.float64)
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("capacity", [4, 44])
@pytest.mark.parametrize("name", ["gshard", "switch", "choices_first", "maxtext"])
def test_groups(name, capacity):
    """Few slots drop many choices, in each group others; many none."""
    block, p = functools.partial(globals()[name], capacity=capacity), parameters()
    imported = import_block(block, p)
    assert [count(imported, o) for o in ("gate", "dispatch", "grouped_matmul", "combine")] == [
        1, 1, 2, 1]
    priority = " priority(choice)" if name == "choices_first" else ""
    assert f"experts({EXPERTS * GROUPS}) capacity(<fixed = {capacity}>){priority} :" in (
        imported.mlir)
    compare(imported, block, p)


@pytest.mark.parametrize("name", [
    "counted_together", "slots_as_groups", "other_groups", "other_groups_combined",
    "first_slot_lost", "others_in_a_slot", "one_group_of_two"])
def test_near_misses(name):
    """What looks like groups and is none gives what JAX computes."""
    block, p = globals()[name], parameters()
    imported = import_block(block, p)
    assert "capacity(" not in imported.mlir
    compare(imported, block, p)
