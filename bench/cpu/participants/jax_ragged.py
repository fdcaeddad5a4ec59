"""JAX: a layer around ``jax.lax.ragged_dot``, compiled by XLA for the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...common.data import Weights, empty
from ...common.shapes import Shape
from . import Case, Unavailable, select

Arrays = dict[str, jax.Array]


def make_arrays(weights: Weights) -> Arrays:
    """Return the weights as ``[in, out]``, the layout of ragged_dot."""
    arrays = {}
    for name, array in weights.named().items():
        transposed = empty((*array.shape[:-2], array.shape[-1], array.shape[-2]), array.dtype)
        transposed[...] = array.swapaxes(-1, -2)
        arrays[name] = jnp.asarray(transposed)
    return arrays


def layer(shape: Shape) -> Callable[[Arrays, jax.Array], jax.Array]:
    """Compute the layer from its weights and x."""

    def swiglu(gate: jax.Array, up: jax.Array) -> jax.Array:
        return jax.nn.silu(gate) * up

    def run(w: Arrays, x: jax.Array) -> jax.Array:
        logits = jnp.dot(x, w["router"], preferred_element_type=jnp.float32)
        scores, ids = jax.lax.top_k(jax.nn.softmax(logits), shape.top_k)
        if shape.renormalise:
            scores /= scores.sum(1, keepdims=True)
        flat = ids.reshape(-1)
        order = jnp.argsort(flat)
        sizes = jnp.bincount(flat, length=shape.experts).astype(jnp.int32)
        rows = x[order // shape.top_k]
        gate, up = jnp.split(jax.lax.ragged_dot(rows, w["gate_up_proj"], sizes), 2, axis=1)
        rows = jax.lax.ragged_dot(swiglu(gate, up), w["down_proj"], sizes)
        rows = jnp.zeros_like(rows).at[order].set(rows, unique_indices=True)
        rows = rows.reshape(*ids.shape, -1).astype(jnp.float32) * scores[..., None]
        y = rows.sum(1).astype(x.dtype)
        if shape.shared:
            y += swiglu(x @ w["shared_gate_proj"], x @ w["shared_up_proj"]) @ w["shared_down_proj"]
        return y

    return run


class Jitted:
    def __init__(self, case: Case):
        if jax.default_backend() != "cpu":
            raise Unavailable(f"the backend of JAX is {jax.default_backend()}")
        self.layers = [make_arrays(w) for w in case.layers]
        self.function = jax.jit(layer(case.shape))
        self.case = case
        self.compiled: dict[int, jax.stages.Compiled] = {}

    def _compile(self, tokens: int) -> jax.stages.Compiled:
        if tokens not in self.compiled:
            dtype = self.layers[0]["router"].dtype
            x = jax.ShapeDtypeStruct((tokens, self.case.shape.hidden), dtype)
            self.compiled[tokens] = self.function.lower(self.layers[0], x).compile()
        return self.compiled[tokens]

    def scratch(self, tokens: int) -> int:
        return self._compile(tokens).memory_analysis().temp_size_in_bytes

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.run = self._compile(len(inputs[0]))
        self.inputs = [jnp.asarray(x) for x in inputs]

    def step(self, number: int) -> None:
        index, x = select(number, len(self.layers), len(self.inputs))
        self.result = self.run(self.layers[index], self.inputs[x])
        self.result.block_until_ready()

    def output(self) -> np.ndarray:
        return np.asarray(self.result).astype(np.float32)


def open(case: Case) -> Jitted:
    return Jitted(case)
