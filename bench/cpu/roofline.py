"""The machine's limit for a call: arithmetic or memory, whichever takes longer."""

from __future__ import annotations

from collections.abc import Mapping

from ..common.shapes import Shape


def arithmetic_peak(peaks: Mapping[str, float], dtype: str) -> float:
    """FLOP/s; bf16 is extended to f32 where the processor has no dot product of it."""
    return (peaks["dot_bf16"] if dtype == "bf16" else 0.0) or peaks["fma_f32"]


def seconds(shape: Shape, dtype: str, tokens: int, active_experts: float,
            peaks: Mapping[str, float]) -> float:
    """The least time of a call whose weights come from memory."""
    return max(shape.flops(tokens) / arithmetic_peak(peaks, dtype),
               shape.bytes_touched(tokens, active_experts, dtype) / peaks["read"])


def estimate(shape: Shape, dtype: str, tokens: int, peaks: Mapping[str, float]) -> float:
    """The same before the routing is drawn: as many experts as can be active."""
    return seconds(shape, dtype, tokens, min(tokens * shape.top_k, shape.experts), peaks)
