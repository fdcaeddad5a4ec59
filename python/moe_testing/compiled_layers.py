"""The families as layers for this CPU, compiled once in a process."""

from __future__ import annotations

import functools

import moe

from . import data, layers

ALL = list(layers.FAMILIES)
# A token's result depends on that token alone.
PER_TOKEN = [name for name in ALL if name not in layers.WHOLE]
ROUTED = [name for name in ALL if name != "hash_layer"]


@functools.cache
def module(name: str, dtype: str = "f32") -> moe.Module:
    return moe.compile(layers.text(name, dtype))


@functools.cache
def layer(name: str, dtype: str = "f32") -> moe.Layer:
    return module(name, dtype).layer(data.weights_of(name, dtype))
