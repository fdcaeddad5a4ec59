"""The CUDA driver through ctypes: memory, streams, events, graphs.

It is the library that the runtime opens, libcuda.so.1 or what ``MOE_CUDA_LIBRARY`` names, and
the primary context, which the runtime and the frameworks share.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # so that ./dev can ask for a GPU with any Python
    import numpy as np

_Address = ctypes.c_uint64
_Handle = ctypes.c_void_p
_INT_P, _FLOAT_P = ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_float)
_HANDLE_P, _SIZE_P = ctypes.POINTER(_Handle), ctypes.POINTER(ctypes.c_size_t)

_FUNCTIONS: dict[str, list[Any]] = {
    "cuInit": [ctypes.c_uint], "cuDriverGetVersion": [_INT_P],
    "cuDeviceGetCount": [_INT_P], "cuDeviceGet": [_INT_P, ctypes.c_int],
    "cuDeviceGetName": [ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
    "cuDeviceGetAttribute": [_INT_P, ctypes.c_int, ctypes.c_int],
    "cuDeviceTotalMem_v2": [_SIZE_P, ctypes.c_int],
    "cuDevicePrimaryCtxRetain": [_HANDLE_P, ctypes.c_int],
    "cuCtxSetCurrent": [_Handle], "cuCtxSynchronize": [],
    "cuGetErrorName": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
    "cuMemGetInfo_v2": [_SIZE_P, _SIZE_P],
    "cuMemAlloc_v2": [ctypes.POINTER(_Address), ctypes.c_size_t], "cuMemFree_v2": [_Address],
    "cuMemcpyHtoD_v2": [_Address, _Handle, ctypes.c_size_t],
    "cuMemcpyDtoH_v2": [_Handle, _Address, ctypes.c_size_t],
    "cuMemcpyDtoDAsync_v2": [_Address, _Address, ctypes.c_size_t, _Handle],
    "cuMemsetD8_v2": [_Address, ctypes.c_ubyte, ctypes.c_size_t],
    "cuStreamCreate": [_HANDLE_P, ctypes.c_uint], "cuStreamSynchronize": [_Handle],
    "cuEventCreate": [_HANDLE_P, ctypes.c_uint], "cuEventDestroy_v2": [_Handle],
    "cuEventRecord": [_Handle, _Handle], "cuEventSynchronize": [_Handle],
    "cuEventElapsedTime": [_FLOAT_P, _Handle, _Handle],
    "cuStreamBeginCapture_v2": [_Handle, ctypes.c_int],
    "cuStreamEndCapture": [_Handle, _HANDLE_P],
    "cuGraphInstantiateWithFlags": [_HANDLE_P, _Handle, ctypes.c_ulonglong],
    "cuGraphLaunch": [_Handle, _Handle], "cuGraphGetNodes": [_Handle, _HANDLE_P, _SIZE_P],
    "cuGraphExecDestroy": [_Handle], "cuGraphDestroy": [_Handle],
}
# CU_DEVICE_ATTRIBUTE_*
_MULTIPROCESSORS, _MAJOR, _MINOR, _L2_BYTES, _CLOCK_KHZ = 16, 75, 76, 38, 13
_CAPTURE_GLOBAL, _CAPTURE_RELAXED = 0, 2
_STREAM_NON_BLOCKING = 1
_NODE_IS_KERNEL = 0


class NoDevice(Exception):
    """There is no GPU to work with; says why."""


class DriverError(Exception):
    """A call of the driver failed."""


@dataclass(frozen=True)
class Description:
    name: str
    capability: str
    multiprocessors: int
    memory: int
    l2: int
    clock_mhz: float
    driver: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def library_name() -> str:
    return os.environ.get("MOE_CUDA_LIBRARY") or "libcuda.so.1"


def is_double() -> bool:
    """Whether the library is the double of test/cuda_double: its times say nothing."""
    return hasattr(driver().library, "moe_cuda_double_reset")


class Driver:
    """The first device and its primary context, which is made current on this thread."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL(library_name())
            for name, arguments in _FUNCTIONS.items():
                getattr(self.library, name).argtypes = arguments
        except (OSError, AttributeError) as error:
            raise NoDevice(f"there is no NVIDIA driver: {error}") from None
        if code := self.library.cuInit(0):
            raise NoDevice(f"the NVIDIA driver finds no GPU: cuInit: {self._name(code)}")
        count = ctypes.c_int()
        self("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            raise NoDevice("the NVIDIA driver finds no GPU")
        device, context = ctypes.c_int(), _Handle()
        self("cuDeviceGet", ctypes.byref(device), 0)
        self._device = device.value
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)

    def __call__(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver."""
        if code := getattr(self.library, name)(*arguments):
            raise DriverError(f"{name}: {self._name(code)}")

    def _name(self, code: int) -> str:
        text = ctypes.c_char_p()
        self.library.cuGetErrorName(code, ctypes.byref(text))
        return text.value.decode() if text.value else f"CUDA error {code}"

    # -- the device ---------------------------------------------------------

    def _attribute(self, number: int) -> int:
        """0 where the driver does not know it."""
        value = ctypes.c_int()
        if self.library.cuDeviceGetAttribute(ctypes.byref(value), number, self._device):
            return 0
        return value.value

    def describe(self) -> Description:
        name, memory, version = ctypes.create_string_buffer(128), ctypes.c_size_t(), ctypes.c_int()
        self("cuDeviceGetName", name, len(name), self._device)
        self("cuDeviceTotalMem_v2", ctypes.byref(memory), self._device)
        self("cuDriverGetVersion", ctypes.byref(version))
        return Description(
            name.value.decode(), f"{self._attribute(_MAJOR)}.{self._attribute(_MINOR)}",
            self._attribute(_MULTIPROCESSORS), memory.value, self._attribute(_L2_BYTES),
            self._attribute(_CLOCK_KHZ) / 1e3,
            f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")

    def capability(self) -> tuple[int, int]:
        return self._attribute(_MAJOR), self._attribute(_MINOR)

    def free_memory(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def instructions(self) -> int:
        """How many all kernels have executed so far, on the double."""
        count = self.library.moe_cuda_double_instructions
        count.restype = ctypes.c_uint64
        return count()

    def synchronize(self) -> None:
        self("cuCtxSynchronize")

    # -- memory -------------------------------------------------------------

    def allocate(self, size: int) -> int:
        address = _Address()
        self("cuMemAlloc_v2", ctypes.byref(address), max(size, 1))
        return address.value

    def release(self, address: int) -> None:
        self.library.cuMemFree_v2(address)

    def fill(self, address: int, byte: int, size: int) -> None:
        if size:
            self("cuMemsetD8_v2", address, byte, size)

    def upload(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self("cuMemcpyHtoD_v2", address, array.ctypes.data, array.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        if array.nbytes:
            self("cuMemcpyDtoH_v2", array.ctypes.data, address, array.nbytes)

    # -- streams, events, graphs --------------------------------------------

    def stream(self, blocking: bool = True) -> int:
        """A stream; if it is blocking, it and the legacy default stream wait for each other."""
        handle = _Handle()
        self("cuStreamCreate", ctypes.byref(handle), 0 if blocking else _STREAM_NON_BLOCKING)
        return handle.value

    def wait(self, stream: int) -> None:
        self("cuStreamSynchronize", stream)

    def capture(self, stream: int, work: Callable[[], Any], relaxed: bool = True) -> Graph:
        """What ``work`` gives to ``stream``, as a graph; nothing of it runs. Unless the capture is
        relaxed, the driver refuses calls that might wait for something."""
        handle = _Handle()
        self("cuStreamBeginCapture_v2", stream, _CAPTURE_RELAXED if relaxed else _CAPTURE_GLOBAL)
        try:
            work()
        except BaseException:
            self.library.cuStreamEndCapture(stream, ctypes.byref(handle))
            raise
        self("cuStreamEndCapture", stream, ctypes.byref(handle))
        return Graph(self, handle.value)


@functools.cache
def driver() -> Driver:
    """Of this process. Raises ``NoDevice``."""
    return Driver()


class Memory:
    """Bytes of the device, released with this."""

    def __init__(self, size: int):
        self.size = size
        self._driver = driver()
        self.address = self._driver.allocate(size)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._driver.release(self.address)


class Event:
    """A point of a stream, with its time."""

    def __init__(self) -> None:
        self._driver, handle = driver(), _Handle()
        self._driver("cuEventCreate", ctypes.byref(handle), 0)
        self.handle = handle.value

    def record(self, stream: int) -> None:
        self._driver("cuEventRecord", self.handle, stream)

    def seconds_since(self, before: Event) -> float:
        """Waits for this event."""
        milliseconds = ctypes.c_float()
        self._driver("cuEventSynchronize", self.handle)
        self._driver("cuEventElapsedTime", ctypes.byref(milliseconds), before.handle, self.handle)
        return milliseconds.value / 1e3

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self._driver.library.cuEventDestroy_v2(self.handle)


class Graph:
    """A graph that was captured, ready to be launched."""

    def __init__(self, owner: Driver, graph: int):
        self._driver, self._graph, handle = owner, graph, _Handle()
        owner("cuGraphInstantiateWithFlags", ctypes.byref(handle), graph, 0)
        self._executable = handle.value

    def launch(self, stream: int) -> None:
        self._driver("cuGraphLaunch", self._executable, stream)

    def kernels(self) -> int | None:
        """How many of its nodes are kernels, where the driver says so."""
        count = ctypes.c_size_t()
        self._driver("cuGraphGetNodes", self._graph, None, ctypes.byref(count))
        nodes = (_Handle * max(count.value, 1))()
        self._driver("cuGraphGetNodes", self._graph, nodes, ctypes.byref(count))
        kind_of = getattr(self._driver.library, "cuGraphNodeGetType", None)
        if kind_of is None:
            return None
        kinds = []
        for node in nodes[:count.value]:
            kind = ctypes.c_int()
            kind_of(_Handle(node), ctypes.byref(kind))
            kinds.append(kind.value)
        return kinds.count(_NODE_IS_KERNEL)

    def __del__(self) -> None:
        if hasattr(self, "_executable"):
            self._driver.library.cuGraphExecDestroy(self._executable)
            self._driver.library.cuGraphDestroy(self._graph)


if __name__ == "__main__":
    try:
        print(driver().describe().name)
    except NoDevice as reason:
        raise SystemExit(str(reason)) from None
