"""JAX: a layer around ``jax.lax.ragged_dot``, compiled by XLA for the GPU.

It runs on XLA's own stream, so it is timed by the host's clock: many calls, then a wait.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

# JAX must not preallocate the memory of the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import torch

from ...cpu.participants import jax_ragged
from . import Case, Unavailable, select


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """Return an array that shares the tensor's memory."""
    return jax.dlpack.from_dlpack(tensor.contiguous())


class Jitted:
    def __init__(self, case: Case):
        if case.shape.sigmoid or case.shape.clamped:
            raise Unavailable("neither sigmoid gates nor the experts of gpt-oss are implemented")
        if case.layers[0]["router"].is_cuda and jax.default_backend() != "gpu":
            raise Unavailable(f"the backend of JAX is {jax.default_backend()}")
        # Weights are ``[in, out]``, the layout of ragged_dot.
        self.layers = [{name: to_jax(t.transpose(-1, -2)) for name, t in w.items()}
                       for w in case.layers]
        self.function = jax.jit(jax_ragged.layer(case.shape))

    def load(self, inputs: Sequence[torch.Tensor]) -> None:
        self.inputs = [to_jax(x) for x in inputs]

    def step(self, number: int) -> None:
        index, x = select(number, len(self.layers), len(self.inputs))
        self.result = self.function(self.layers[index], self.inputs[x])

    def wait(self) -> None:
        self.result.block_until_ready()

    def output(self) -> torch.Tensor:
        return torch.from_dlpack(self.result)


def open(case: Case) -> Jitted:
    return Jitted(case)
