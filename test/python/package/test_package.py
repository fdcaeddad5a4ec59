"""The package without a compiler: arrays, checkpoints, errors, imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import moe
import numpy as np
import pytest
from moe import _dlpack, _weights
from moe._signature import TensorInfo

bf16 = moe.reference.bfloat16()


def info(name, dtype, *shape, alignment=4):
    return TensorInfo(name, "weight", dtype, tuple(shape), alignment)


# -- arrays -------------------------------------------------------------------


@pytest.mark.parametrize("dtype, name", [
    (np.float32, "f32"), (np.float16, "f16"), (bf16, "bf16"), (np.float64, "f64"),
    (np.int32, "i32"), (np.int64, "i64"), (np.int8, "i8"), (np.uint8, "ui8"), (bool, "i1"),
    (_dlpack.numpy_dtype("f8E4M3FN"), "f8E4M3FN")])
def test_numpy(dtype, name):
    a = np.zeros((3, 5), dtype)
    t = _dlpack.as_tensor(a)
    assert (t.dtype, t.shape, t.dl.data) == (name, (3, 5), a.ctypes.data)
    assert not t.dl.strides and t.dl.device.device_type == 1 and t.nbytes == a.nbytes


def test_numpy_strides_are_in_elements():
    a = np.zeros((6, 8), bf16)[::2, 1:]
    t = _dlpack.as_tensor(a)
    assert t.dl.data == a.ctypes.data and [t.dl.strides[i] for i in range(2)] == [16, 1]


def test_torch():
    torch = pytest.importorskip("torch")
    for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16"), (torch.int32, "i32"),
                        (torch.float8_e4m3fn, "f8E4M3FN")):
        a = torch.zeros(3, 5, dtype=dtype)
        t = _dlpack.as_tensor(a)
        assert (t.dtype, t.shape, t.dl.data) == (name, (3, 5), a.data_ptr()) and not t.dl.strides
    t = _dlpack.as_tensor(torch.zeros(3, 5, requires_grad=True).T)
    assert t.shape == (5, 3) and [t.dl.strides[i] for i in range(2)] == [1, 5]
    with pytest.raises(moe.MoEError, match="unsupported device 'meta'"):
        _dlpack.as_tensor(torch.zeros(1, device="meta"))


def test_any_dlpack():
    class Other:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **_):
            return self.array.__dlpack__()

    a = np.arange(12, dtype=np.float32).reshape(3, 4)[1:]
    t = _dlpack.as_tensor(Other(a))
    assert (t.shape, t.dtype, t.dl.data) == ((2, 4), "f32", a.ctypes.data)


@pytest.mark.parametrize("bad, what", [
    ([1.0], "builtins.list"), (np.zeros(2, "c8"), "complex64"), (np.zeros(2, ">f4"), ">f4"),
    (np.zeros(2, "U3"), "U3")])
def test_what_is_no_tensor(bad, what):
    with pytest.raises(moe.MoEError, match=f"input 'x'.*{what}"):
        _dlpack.as_tensor(bad, "input 'x'")


def test_a_read_only_output_is_refused():
    a = np.zeros(3, np.float32)
    a.flags.writeable = False
    _dlpack.as_tensor(a)
    with pytest.raises(moe.MoEError, match="read-only"):
        _dlpack.as_tensor(a, "output", writable=True)


def test_memory_stays_alive():
    t = _dlpack.as_tensor(np.full(1000, 7, np.int32))
    held = (_dlpack.ctypes.c_int32 * 1000).from_address(t.dl.data)
    assert sum(held) == 7000


# -- weights -------------------------------------------------------------------


def test_names_and_counts():
    infos = [info("a", "f32", 1), info("b", "f32", 1)]
    a, b = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert _weights.resolve({"b": b, "a": a}, infos) == [a, b]
    with pytest.raises(moe.MoEError, match="missing weights: b; unknown weights: c"):
        _weights.resolve({"a": a, "c": b}, infos)
    with pytest.raises(moe.MoEError, match=r"expected 2 weights \(a, b\), got 1"):
        _weights.resolve([a], infos)
    with pytest.raises(moe.MoEError, match="expected a mapping"):
        _weights.resolve(3, infos)
    with pytest.raises(moe.MoEError, match="expected a mapping"):
        _weights.resolve(b"x", infos)


# -- imports -----------------------------------------------------------------


def test_the_package_imports_without_torch_ml_dtypes_and_the_runtime():
    code = ("import sys; sys.modules['torch'] = sys.modules['ml_dtypes'] = None; import moe, "
            "numpy; print('moe.reference' in sys.modules, 'reference' in dir(moe)); "
            "print(moe.reference.gate(numpy.zeros((1, 4), 'f'), top_k=1)[1])")
    package = Path(moe.__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=package, capture_output=True,
                          text=True, env={"MOE_RT_LIBRARY": "/nowhere"})
    assert done.returncode == 0, done.stderr
    # The reference is there for who asks for it.
    assert done.stdout.splitlines() == ["False True", "[[0]]"]
