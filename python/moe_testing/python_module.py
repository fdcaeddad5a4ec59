"""A module whose code is in Python: what the compiler would write is called through the
runtime as it is.  Its weights: ``gate``, which is prepared, and ``bias``, which calls read.
"""

from __future__ import annotations

import ctypes
import json
import platform

import moe
import numpy as np
from moe import _library

from . import data

EXPERTS, HIDDEN = 5, 3

_entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)
_workspace = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def memref(pointer, rank):
    """The array of a memref descriptor; None if it has no data."""
    words = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int64))
    if not words[1]:
        return None
    shape = tuple(words[3 + i] for i in range(rank))
    numbers = ctypes.cast(words[1], ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(numbers, shape)


@_entry
def pack(args, _executor):
    gate, up, both = memref(args[0], 2), memref(args[1], 2), memref(args[2], 3)
    both[:, 0], both[:, 1] = gate, up
    return 0


@_entry
def layer(args, _executor):
    x, gate, bias, both, y = (memref(args[i], rank) for i, rank in enumerate((2, 2, 1, 3, 2)))
    if gate is not None:
        return 1
    y[:] = x * (both[:, 0] * both[:, 1]).sum(0) + bias
    return 0


@_entry
def copy(args, _executor):
    """The first T bytes of the weight; x and y are of bytes."""
    x, weight, y = (ctypes.cast(args[i], ctypes.POINTER(ctypes.c_int64)) for i in range(3))
    ctypes.memmove(y[1], weight[1], x[3])
    return 0


none = _workspace(lambda tokens: 0)


def f32(name, role, *shape, **more):
    return {"name": name, "role": role, "dtype": "f32", "shape": list(shape), **more}


def function(name, arguments, **more):
    return {"name": name, "entry": name, "workspace": "none", "tokens": {"min": 0, "max": 100},
            "arguments": arguments, **more}


METADATA = {"format": 2, "variants": [{
    "target": {"triple": f"{platform.machine()}-unknown-linux-gnu"},
    "functions": [
        function("layer", [
            f32("x", "input", -1, HIDDEN),
            f32("gate", "weight", EXPERTS, HIDDEN, retained=False,
                source=[f"experts.{e}.gate" for e in range(EXPERTS)]),
            f32("bias", "weight", HIDDEN, source=["norm.bias"]),
            f32("both", "prepared", EXPERTS, 2, HIDDEN, prepare="pack", sources=["gate", "gate"]),
            f32("y", "output", -1, HIDDEN)]),
        function("pack", [f32("g", "input", -1, HIDDEN), f32("u", "input", -1, HIDDEN),
                          f32("b", "output", -1, 2, HIDDEN)], prepares="layer")]}]}


def copies(dtype, *shape, source="w", **of_weight):
    """Metadata of a function that returns the first T bytes of its weight ``w``."""
    return {**METADATA, "variants": [{**METADATA["variants"][0], "functions": [function("copy", [
        {"name": "x", "role": "input", "dtype": "i8", "shape": [-1]},
        {"name": "w", "role": "weight", "dtype": dtype, "shape": shape, "source": [source],
         **of_weight},
        {"name": "y", "role": "output", "dtype": "i8", "shape": [-1]}])]}]}


class PythonModule(moe.Module):
    """A module of the functions above."""

    def __init__(self, num_threads=0, metadata=METADATA):
        lib = _library.library()
        resolve = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            lambda _, symbol: ctypes.cast(globals()[symbol.decode()], ctypes.c_void_p).value)
        options = _library.ContextOptions(struct_size=ctypes.sizeof(_library.ContextOptions),
                                           num_threads=num_threads)
        out, text = ctypes.c_void_p(), json.dumps(metadata).encode()
        _library.check(lib.moe_rt_context_create(ctypes.byref(options), ctypes.byref(out)))
        context = _library.Handle(out.value, lib.moe_rt_context_destroy)
        create = lib.moe_rt_module_create
        create.restype, create.argtypes = ctypes.c_void_p, [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, type(resolve), ctypes.c_void_p,
            ctypes.c_void_p]
        _library.check(create(context.pointer, text, len(text), resolve, None,
                               ctypes.byref(out)))
        self.path = None
        self._handle = _library.Handle(out.value, lib.moe_rt_module_destroy, context)
        self.metadata = metadata


def first_bytes(dtype, shape, weights, count, source="w", **of_weight):
    """What a layer of ``copies`` makes of weights."""
    layer = PythonModule(1, copies(dtype, *shape, source=source, **of_weight)).layer(weights)
    return layer(np.zeros(count, np.int8)).tobytes()


def check(layer, weights):
    """Compare a call with what it is to compute."""
    x = np.arange(4 * HIDDEN, dtype=np.float32).reshape(4, HIDDEN)
    expected = x * (weights["gate"].astype(np.float64) ** 2).sum(0) + weights["bias"]
    data.assert_close(layer(x), expected, 1e-5, 1e-6)
