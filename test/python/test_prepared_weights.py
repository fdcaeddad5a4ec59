"""Weights that are prepared when a layer is made.  The code is in Python: what
the compiler would write is called through the runtime as it is.
"""

from __future__ import annotations

import ctypes
import json
import platform

import data
import moe
import numpy as np
import pytest
from moe import _runtime

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


class PythonModule(moe.Module):
    """A module of the functions above."""

    def __init__(self, num_threads=0):
        lib = _runtime.library()
        resolve = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
            lambda _, symbol: ctypes.cast(globals()[symbol.decode()], ctypes.c_void_p).value)
        options = _runtime._ContextOptions(struct_size=ctypes.sizeof(_runtime._ContextOptions),
                                           num_threads=num_threads)
        out, text = ctypes.c_void_p(), json.dumps(METADATA).encode()
        _runtime._check(lib.moe_rt_context_create(ctypes.byref(options), ctypes.byref(out)))
        context = _runtime._Handle(out.value, lib.moe_rt_context_destroy)
        create = lib.moe_rt_module_create
        create.restype, create.argtypes = ctypes.c_void_p, [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, type(resolve), ctypes.c_void_p,
            ctypes.c_void_p]
        _runtime._check(create(context.pointer, text, len(text), resolve, None,
                               ctypes.byref(out)))
        self.path = None
        self._handle = _runtime._Handle(out.value, lib.moe_rt_module_destroy, context)
        self.metadata = METADATA


@pytest.fixture(autouse=True)
def needs_the_runtime():
    try:
        _runtime.library()
    except moe.MoEError as error:
        pytest.skip(str(error))


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {"gate": rng.standard_normal((EXPERTS, HIDDEN), np.float32),
            "bias": rng.standard_normal(HIDDEN, np.float32)}


def check(layer, weights):
    x = np.arange(4 * HIDDEN, dtype=np.float32).reshape(4, HIDDEN)
    expected = x * (weights["gate"].astype(np.float64) ** 2).sum(0) + weights["bias"]
    data.assert_close(layer(x), expected, 1e-5, 1e-6)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_from_arrays(weights, threads):
    module = PythonModule(threads)
    assert module.functions == ("layer",)
    assert [w.retained for w in module.signature().weights] == [False, True]
    given = {name: array.copy() for name, array in weights.items()}
    layer = module.layer(given)
    assert layer.weight_bytes == EXPERTS * 2 * HIDDEN * 4
    given["gate"][:] = np.nan  # read no more
    check(layer, weights)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_from_a_checkpoint(weights, threads, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "model.safetensors"
    numpy.save_file({"norm.bias": weights["bias"],
                     **{f"experts.{e}.gate": row for e, row in enumerate(weights["gate"])}}, file)
    layer = PythonModule(threads).layer(tmp_path)
    assert layer.weight_bytes == (EXPERTS * 2 + 1) * HIDDEN * 4
    check(layer, weights)
    numpy.save_file({"norm.bias": weights["bias"]}, file)
    with pytest.raises(moe.MoEError, match="has no tensor 'experts.0.gate'"):
        PythonModule(threads).layer(tmp_path)


def test_what_a_reader_raises_arrives(weights, monkeypatch, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    file = tmp_path / "model.safetensors"
    numpy.save_file(weights, file)
    check(PythonModule().layer(file), weights)

    def fail(*_):
        raise OSError("the disk is gone")

    monkeypatch.setattr(moe._weights.Reader, "read", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        PythonModule().layer(file)


def test_threads_are_checked():
    with pytest.raises(moe.MoEError, match="num_threads is -1, expected 0 to 4096"):
        moe.load(b"", num_threads=-1)
