"""The families as layers for this CPU, compiled once in a process, and the PTX of artifacts."""

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


def ptx_of(module: moe.Module) -> str:
    """The PTX that an artifact for one target has; it is text that ends at a NUL."""
    image, = module.metadata["variants"][0]["images"]
    artifact = module.path.read_bytes()
    assert image["format"] == "ptx" and artifact.count(b".version") == 1
    start = artifact.index(b".version")
    return artifact[start:artifact.index(b"\0", start)].decode()
