"""Arrays in the memory of a GPU, or of the double of its driver.

The double (test/cuda_double) runs kernels on the CPU, strictly: what
hardware leaves undefined is an error there.  ``MOE_CUDA_LIBRARY`` names another driver.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from moe import _dlpack

HERE = Path(__file__).resolve().parent


def find_driver() -> str | None:
    """The library that the runtime is to open as the driver."""
    if named := os.environ.get("MOE_CUDA_LIBRARY"):
        return named
    build = Path(os.environ.get("MOE_BUILD_DIR", HERE.parents[1] / "build"))
    double = build / "lib" / "cuda_double" / "libcuda.so.1"
    return str(double) if double.exists() else None


class Driver:
    """What the tests themselves ask of the driver: memory and graphs."""

    def __init__(self, path: str):
        self._library = ctypes.CDLL(path)
        self._call("cuInit", ctypes.c_uint(0))
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def _call(self, name: str, *arguments: Any) -> None:
        result = getattr(self._library, name)(*arguments)
        assert result == 0, f"{name}: CUDA error {result}"

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        return address.value

    def release(self, address: int) -> None:
        self._library.cuMemFree_v2(ctypes.c_uint64(address))

    def upload(self, address: int, array: np.ndarray) -> None:
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address),
                   ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))

    def download(self, address: int, array: np.ndarray) -> None:
        self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data),
                   ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))

    def instructions(self) -> int:
        """How many all kernels have executed so far, on the double."""
        count = self._library.moe_cuda_double_instructions
        count.restype = ctypes.c_uint64
        return count()

    def create_stream(self) -> int:
        stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # non-blocking
        return stream.value

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def capture(self, stream: int, enqueue: Callable[[], Any]) -> int:
        """A graph of what is enqueued."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamBeginCapture_v2", ctypes.c_void_p(stream), ctypes.c_int(0))
        enqueue()
        self._call("cuStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph,
                   ctypes.c_ulonglong(0))
        self._call("cuGraphDestroy", graph)
        return executable.value

    def replay(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))
        self.wait(stream)


@functools.cache
def driver() -> Driver:
    path = find_driver()
    assert path is not None
    os.environ["MOE_CUDA_LIBRARY"] = path
    return Driver(path)


class Memory:
    """Bytes of the device, released with this."""

    def __init__(self, size: int):
        self.address = driver().allocate(size)

    def __del__(self) -> None:
        driver().release(self.address)


def empty(dtype: str, shape: Sequence[int]) -> _dlpack.Tensor:
    """An array of the device; what is in it is not a number."""
    code, bits = _dlpack.DTYPES[dtype]
    memory = Memory(int(np.prod(shape)) * bits // 8)
    return _dlpack.Tensor(memory.address, (code, bits), shape, None, memory, (_dlpack.CUDA, 0))


def upload(array: np.ndarray) -> _dlpack.Tensor:
    array = np.ascontiguousarray(array)
    tensor = empty(_dlpack._FROM_NUMPY[array.dtype.name], array.shape)
    if array.nbytes:
        driver().upload(tensor.dl.data, array)
    return tensor


def download(tensor: _dlpack.Tensor) -> np.ndarray:
    array = np.empty(tensor.shape, _dlpack.numpy_dtype(tensor.dtype))
    if array.nbytes:
        driver().download(tensor.dl.data, array)
    return array


def run(layer: Any, inputs: dict[str, np.ndarray], tokens: int) -> np.ndarray:
    """Call a layer of one output with arrays of the host."""
    info, = layer.signature.outputs
    out = empty(info.dtype, [tokens if d < 0 else d for d in info.shape])
    layer(out=out, **{name: upload(array) for name, array in inputs.items()})
    return download(out)
