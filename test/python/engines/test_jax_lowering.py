"""Functions of JAX that jaxlib lowers in part, compiled, against JAX's own results: sorts,
scatters, gathers of dynamic slices, cumulative sums and control flow.

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

    from moe.integrations.jax import from_jax


def while_(x):
    """A loop whose number of steps is in the data."""
    def more(state):
        return (state[1] < 10) & (jnp.sum(state[0] ** 2) < 1e4)

    return lax.while_loop(more, lambda s: (s[0] * 1.5 + x, s[1] + 1), (x, 0))[0]


def scanned(x):
    return lax.scan(lambda c, w: (c + jnp.tanh(x * w), jnp.sum(c, axis=1)),
                    jnp.zeros_like(x), jnp.arange(5, dtype=x.dtype))


def weighed(x):
    """Rows of another number than the tokens, added up."""
    return jnp.sum(x * jnp.arange(x.shape[0], dtype=x.dtype)[:, None], axis=0)


def ids_of(x, count):
    return (jnp.abs(x) * 7).astype(jnp.int32) % count


FUNCTIONS = {
    "while": while_,
    "scan": scanned,
    "fori_from_data": lambda x: lax.fori_loop(2, ids_of(x[0, 0], 5), lambda i, a: a * 2 + i, x),
    "cond": lambda x: lax.cond(x[0, 0] > 0, lambda: x * 2, lambda: x - 1),
    "switch": lambda x: lax.switch(ids_of(x[0, 0], 5) - 1, [
        lambda: x * 2, lambda: x - 1, lambda: x[::-1]]),
    "sort_tokens": lambda x: jnp.sort(x, axis=0),
    "sort_descending": lambda x: jnp.sort(x, axis=1, descending=True),
    "argsort": lambda x: jnp.argsort(jnp.round(x), axis=0),
    "argsort_unusual": lambda x: jnp.argsort(jnp.where(
        x > 1, jnp.nan, jnp.where(x < -1, -jnp.inf, jnp.where(x > 0, -0.0, 0.0))), axis=1),
    "sort_integers": lambda x: lax.sort((ids_of(x, 3), x), dimension=0, num_keys=2),
    "top_k_rank_3": lambda x: lax.top_k(x.reshape(-1, 2, 3), 2),
    "top_k_equal": lambda x: lax.top_k(jnp.stack([jnp.round(jnp.abs(x)), x * x * 0], 1), 3),
    "top_k_unusual": lambda x: lax.top_k(jnp.where(
        x > 1, jnp.nan, jnp.where(x < -1, -jnp.inf, jnp.where(x > 0, -0.0, 0.0))), 3),
    "top_k_softmax_of_nan": lambda x: lax.top_k(jax.nn.softmax(jnp.where(x > 1.5, jnp.nan, x)), 2),
    "cumsum": lambda x: jnp.cumsum(ids_of(x, 9), axis=0),
    "cumsum_reverse": lambda x: lax.cumsum(x, axis=0, reverse=True),
    "cummax": lambda x: lax.cummax(x, axis=0),
    "scatter_add": lambda x: jnp.zeros((4, 6)).at[ids_of(x[:, 0], 5)].add(x),
    "scatter_set": lambda x: x.at[:, 2].set(x[:, 0]).at[0].set(7.0),
    "scatter_max": lambda x: jnp.zeros((4,)).at[ids_of(x, 4)].max(x),
    "scatter_multiply": lambda x: jnp.ones((4, 6)).at[ids_of(x[:, 0], 4)].multiply(x),
    "scatter_places": lambda x: jnp.zeros((4, 3)).at[ids_of(x, 4), ids_of(x + 1, 5)].add(
        x, mode="drop"),
    "take_columns": lambda x: x[:, ids_of(x[0], 6)],
    "take_along": lambda x: jnp.take_along_axis(x, ids_of(x, 6), axis=1),
    "take_fill": lambda x: jnp.take(x, ids_of(x[:, 0], 9), axis=1, mode="fill", fill_value=3),
    "bincount": lambda x: jnp.bincount(ids_of(x, 5).ravel(), length=4),
    "segment_sum": lambda x: jax.ops.segment_sum(x, ids_of(x[:, 0], 3), num_segments=3),
    "repeat": lambda x: weighed(jnp.repeat(x, 3, axis=0)),
    "searchsorted": lambda x: jnp.searchsorted(jnp.arange(-2.0, 2.0, 0.25), x[:, 0]),
    "reverse": lambda x: x[::-1],
    "roll": lambda x: jnp.roll(x, 1, axis=0),
    "slices": lambda x: weighed(x[1::2]),
    "pad": lambda x: weighed(jnp.pad(x, ((1, 2), (0, 0)))),
    "concatenate": lambda x: weighed(jnp.concatenate([x, x[:1], x * 2])),
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (0, ids_of(x[0, 0], 9)), (1, 2)),
    "dynamic_update": lambda x: lax.dynamic_update_slice(x, x[:1, :2] * 3, (0, ids_of(
        x[0, 0], 9))),
    "argmax": lambda x: jnp.argmax(x, axis=1),
    "argmax_tokens": lambda x: jnp.argmax(x, axis=0),
    "transposed_reshape": lambda x: jnp.cos(x.T.reshape(3, -1)).sum(1),
    "tile": lambda x: weighed(jnp.tile(x, (2, 1))),
    "vmap": lambda x: jax.vmap(lambda r: r[jnp.argsort(r)] * jnp.sum(r))(x),
    "erf_inv": lambda x: lax.erf_inv(jnp.tanh(x)),
    "quotients": lambda x: ids_of(x, 9) // 2 + ids_of(x, 7) % 3,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("is_dynamic", [False, True], ids=["static", "dynamic"])
def test_functions_compute_what_jax_does(name, is_dynamic):
    function = jax.jit(FUNCTIONS[name])
    tokens = jax.export.symbolic_shape("t")[0] if is_dynamic else 11
    layer = from_jax(function, jax.ShapeDtypeStruct((tokens, 6), jnp.float32)).layer()
    for count in (11, 1, 4) if is_dynamic else (11,):
        x = np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)
        actual = layer(x)
        expected = jax.tree_util.tree_leaves(function(x))
        for got, want in zip(actual if isinstance(actual, tuple) else (actual,), expected,
                             strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
