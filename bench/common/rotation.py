"""The layers and inputs that calls go through, so that caches hold neither as in a model."""

from __future__ import annotations

import math

from .shapes import Shape

# Weights are used again after the caches were filled this many times with others.
CACHE_FILLS = 4
MAX_LAYERS = 8


def count_layers(shape: Shape, dtype: str, tokens: int, cache: int) -> int:
    """How many layers a call rotates over, so that the experts that it uses come from memory
    as in a model of many layers."""
    active = min(tokens * shape.top_k, shape.experts)
    touched = shape.bytes_touched(tokens, active, dtype)
    return min(max(math.ceil(CACHE_FILLS * cache / touched), 1), MAX_LAYERS)


def count_inputs(tokens: int, few: int, some: int) -> int:
    """How many inputs calls rotate over: many where an input has few tokens, and so uses few of
    the experts."""
    return 16 if tokens <= few else 4 if tokens <= some else 2


def select(number: int, layers: int, inputs: int) -> tuple[int, int]:
    """The layer and the input of call ``number``: each input passes through all layers."""
    return number % layers, number // layers % inputs
