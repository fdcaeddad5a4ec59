"""Rotation over layers and inputs, so that neither is in the caches, as in a model."""

from __future__ import annotations

import math

from .shapes import Shape

# Weights are reused only after this many cache sizes of other weights were read.
CACHE_FILLS = 4
MAX_LAYERS = 8


def count_layers(shape: Shape, dtype: str, tokens: int, cache: int) -> int:
    """Return the number of layers to rotate over, so that active experts are read from memory, as
    in a model of many layers."""
    active = min(tokens * shape.top_k, shape.experts)
    touched = shape.bytes_touched(tokens, active, dtype)
    return min(max(math.ceil(CACHE_FILLS * cache / touched), 1), MAX_LAYERS)


def count_inputs(tokens: int, few: int, some: int) -> int:
    """Return the number of inputs to rotate over: more if an input has few tokens and thus few
    active experts."""
    return 16 if tokens <= few else 4 if tokens <= some else 2


def select(number: int, layers: int, inputs: int) -> tuple[int, int]:
    """Return the layer and the input of call ``number``: each input passes through all layers."""
    return number % layers, number // layers % inputs
