"""The roofline of a call: its arithmetic time or its memory time, whichever is longer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..common.formats import FORMATS
from ..common.shapes import Shape


def arithmetic_peak(peaks: Mapping[str, float], dtype: str) -> float:
    """Return FLOP/s; without a bf16 dot product the processor extends bf16 to f32, as it does f16.

    Of a format there is no limit: which integers a participant multiplies is its own choice.
    """
    if dtype in FORMATS:
        return math.inf
    return (peaks["dot_bf16"] if dtype == "bf16" else 0.0) or peaks["fma_f32"]


def seconds(shape: Shape, dtype: str, tokens: int, active_experts: float,
            peaks: Mapping[str, float]) -> float:
    """Return the roofline time of a call whose weights are read from memory."""
    return max(shape.flops(tokens) / arithmetic_peak(peaks, dtype),
               shape.bytes_touched(tokens, active_experts, dtype) / peaks["read"])


def estimate(shape: Shape, dtype: str, tokens: int, peaks: Mapping[str, float]) -> float:
    """Return the roofline before the routing is drawn, with as many experts as can be active, to
    share time out: a format's arithmetic counts as that of f32."""
    least = seconds(shape, dtype, tokens, min(tokens * shape.top_k, shape.experts), peaks)
    return max(least, shape.flops(tokens) / peaks["fma_f32"]) if dtype in FORMATS else least
