"""Arrays on the device; with guards around them, where asked for, that show what was written
beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import moe
import numpy as np
from moe import _dlpack

from .cuda_driver import Memory, driver

GUARD = 4096
GUARD_BYTE = 0x5A
# All ones are not a number, whatever the type.
POISON = 0xFF


class Guarded:
    """Bytes of the device between two guards."""

    def __init__(self, size: int):
        self.size = size
        self._memory = Memory(size + 2 * GUARD)
        self.address = self._memory.address + GUARD
        driver().fill(self._memory.address, GUARD_BYTE, GUARD)
        driver().fill(self.address + size, GUARD_BYTE, GUARD)

    def poison(self, byte: int = POISON) -> None:
        driver().fill(self.address, byte, self.size)

    def intact(self) -> bool:
        """Whether both guards are as they were."""
        guard = np.empty(GUARD, np.uint8)
        for address in (self._memory.address, self.address + self.size):
            driver().download(address, guard)
            if (guard != GUARD_BYTE).any():
                return False
        return True


def empty(dtype: str, shape: Sequence[int], guarded: bool = False) -> _dlpack.Tensor:
    """An array of the device. With guards, and on the double of the driver, which knows the
    bounds of each allocation, what is in it is not a number."""
    code, bits = _dlpack.DTYPES[dtype]
    size = math.prod(shape) * bits // 8
    memory = Guarded(size) if guarded else Memory(size)
    if guarded:
        memory.poison()
    return _dlpack.Tensor(memory.address, (code, bits), shape, None, memory, (_dlpack.CUDA, 0))


def put(tensor: _dlpack.Tensor, array: np.ndarray) -> None:
    """Write an array of the same shape and type to one of the device."""
    driver().upload(tensor.dl.data, np.ascontiguousarray(array))


def upload(array: np.ndarray, guarded: bool = False) -> _dlpack.Tensor:
    tensor = empty(_dlpack._FROM_NUMPY[array.dtype.name], array.shape, guarded)
    put(tensor, array)
    return tensor


def download(tensor: _dlpack.Tensor) -> np.ndarray:
    array = np.empty(tensor.shape, _dlpack.numpy_dtype(tensor.dtype))
    driver().download(tensor.dl.data, array)
    return array


def run(layer: moe.Layer, inputs: Mapping[str, np.ndarray], tokens: int) -> np.ndarray:
    """Call a layer of one output with arrays of the host."""
    info, = layer.signature.outputs
    out = empty(info.dtype, [tokens if d < 0 else d for d in info.shape])
    layer(out=out, **{name: upload(array) for name, array in inputs.items()})
    return download(out)
