"""FLOPs and bytes of a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._compile import plan
from .._dlpack import DTYPES
from .._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Layer, Module
from .._signature import TensorInfo

__all__ = ["Work"]


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes of a layer, as functions of its tokens T and of the rows of its experts.

    FLOPs are those of matmuls, two for a multiplication and an addition:

        flops = flops_per_call * calls + flops_per_token * T + flops_per_row * rows

    Bytes are moved at least: weights once a call, those of experts only where they have rows, and
    each row on its way in and out:

        bytes = bytes_per_call * calls + bytes_per_token * T + bytes_per_row * rows
                + bytes_per_expert * (experts with rows, summed over the calls)

    For experts behind transformers' interface with matrices ``[H, up]`` and ``[I, out]``,
    ``flops_per_row = 2 * (H * up + I * out)``. They have no router, and so no FLOPs of another
    kind.
    """

    flops_per_row: int
    flops_per_token: int = 0
    flops_per_call: int = 0
    bytes_per_row: int = 0
    bytes_per_expert: int = 0
    bytes_per_token: int = 0
    bytes_per_call: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int) or value < 0:
                raise MoEError(INVALID_ARGUMENT, f"{name} is {value!r}, expected an integer of at "
                               "least 0")

    @classmethod
    def of(cls, layer: Layer) -> Work:
        """Return the work of a layer with one dispatch, as the plan of ``moe-compile`` counts it.

        What a layer that trains keeps for its backward pass is not among the bytes.

        Raises:
          MoEError: if the layer comes from an artifact, which has no plan, if it has several
            dispatches, or if its work is no such function.
        """
        return _planned(layer.module, layer.signature.name)

    def flops(self, calls: int, tokens: int | None, rows: int) -> int | None:
        """Return the FLOPs of some calls; None if they depend on tokens that nobody knows."""
        if tokens is None and self.flops_per_token:
            return None
        return (self.flops_per_call * calls + self.flops_per_token * (tokens or 0)
                + self.flops_per_row * rows)

    def bytes(self, calls: int, tokens: int | None, rows: int, active: int | None) -> int | None:
        """Return the bytes of some calls; ``active`` are the experts with rows, summed over
        them."""
        if (tokens is None and self.bytes_per_token) or (active is None and self.bytes_per_expert):
            return None
        return (self.bytes_per_call * calls + self.bytes_per_token * (tokens or 0)
                + self.bytes_per_row * rows + self.bytes_per_expert * (active or 0))


def _planned(module: Module, name: str) -> Work:
    """Read the work from the plan of a call without tokens and of a call with one."""
    found = [f for f in plan(module, "0:1")["functions"] if f["name"] == name]
    dispatches = found[0]["dispatches"] if found else []
    if len(dispatches) != 1:
        raise MoEError(UNIMPLEMENTED, f"the plan of '{name}' has {len(dispatches)} dispatches, "
                       "expected one to count its work")
    dispatch, = dispatches
    none, one = (next(p for p in found[0]["at"] if p["tokens"] == t) for t in (0, 1))
    rows = one["dispatches"][0]["rows"]
    per_expert = dispatch["weight_bytes"] // dispatch["num_experts"]
    signature = module.signature(name)
    # What is kept for a backward function is not in the plan.
    trains = f"{name}_backward" in module.functions
    per_token = sum(_bytes_per_token(t) for t in (*signature.inputs, *signature.outputs)
                    if not (trains and t.is_saved))
    of_rows = (one["bytes"] - none["bytes"] - per_token
               - per_expert * one["dispatches"][0]["expected_active_experts"])
    return Work(flops_per_row=dispatch["flops_per_row"],
                flops_per_token=one["flops"] - none["flops"] - rows * dispatch["flops_per_row"],
                flops_per_call=none["flops"], bytes_per_row=round(of_rows / rows),
                bytes_per_expert=per_expert, bytes_per_token=per_token,
                bytes_per_call=round(none["bytes"]))


def _bytes_per_token(tensor: TensorInfo) -> int:
    """Return the bytes of a row of a tensor with one for each token; 0 for any other."""
    if min(tensor.shape, default=0) >= 0:
        return 0
    return -math.prod(tensor.shape) * -(-DTYPES[tensor.dtype][1] // 8)
