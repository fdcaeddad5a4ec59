"""Arrays as DLTensors, without copies.

``as_tensor`` describes a numpy array, a torch tensor, a tensor of a checkpoint
file or anything with ``__dlpack__`` as a ``DLTensor`` that shares its memory.
Nothing is converted: the runtime rejects a wrong type, layout or device with a
message that has the expected one.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._error import INVALID_ARGUMENT, MoEError

CPU, CUDA, CUDA_HOST = 1, 2, 3
INT, UINT, FLOAT, BFLOAT, BOOL = 0, 1, 2, 4, 6
FLOAT8_E4M3FN, FLOAT8_E5M2, FLOAT8_E8M0FNU = 10, 12, 14


class DLDevice(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class DLDataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", DLDevice), ("ndim", ctypes.c_int32),
                ("dtype", DLDataType), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


# Names as in MLIR and in the metadata of an artifact.
DTYPES: dict[str, tuple[int, int]] = {
    "f16": (FLOAT, 16), "f32": (FLOAT, 32), "f64": (FLOAT, 64), "bf16": (BFLOAT, 16),
    "f8E4M3FN": (FLOAT8_E4M3FN, 8), "f8E5M2": (FLOAT8_E5M2, 8),
    "f8E8M0FNU": (FLOAT8_E8M0FNU, 8),
    "i8": (INT, 8), "i16": (INT, 16), "i32": (INT, 32), "i64": (INT, 64),
    "ui8": (UINT, 8), "ui16": (UINT, 16), "ui32": (UINT, 32), "ui64": (UINT, 64),
    "i1": (BOOL, 8),
}
_NAMES = {pair: name for name, pair in DTYPES.items()}
_NUMPY = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16",
          "f8E4M3FN": "float8_e4m3fn", "f8E5M2": "float8_e5m2", "f8E8M0FNU": "float8_e8m0fnu",
          "i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64", "ui8": "uint8",
          "ui16": "uint16", "ui32": "uint32", "ui64": "uint64", "i1": "bool"}
_FROM_NUMPY = {name: ours for ours, name in _NUMPY.items()}


# Described once: to create these objects costs more than the rest of a description.
_TYPES = {pair: DLDataType(*pair, 1) for pair in DTYPES.values()}
_ON_CPU = DLDevice(CPU, 0)


@functools.cache
def _extents(ndim: int) -> type[ctypes.Array[ctypes.c_int64]]:
    return ctypes.c_int64 * max(ndim, 1)


def dtype_name(dtype: DLDataType) -> str:
    """Return the MLIR name of a type, e.g. ``bf16``."""
    return _NAMES.get((dtype.code, dtype.bits), f"code{dtype.code}_{dtype.bits}")


def numpy_dtype(name: str) -> np.dtype:
    """Return the numpy dtype of an MLIR type; bfloat16 and 8-bit floats need ``ml_dtypes``."""
    if name == "bf16" or name.startswith("f8"):
        try:
            import ml_dtypes
            return np.dtype(getattr(ml_dtypes, _NUMPY[name]))
        except (ImportError, AttributeError):
            raise MoEError(INVALID_ARGUMENT, f"a {name} array needs the package 'ml_dtypes', 0.5 "
                           "or later (or pass torch tensors)") from None
    return np.dtype(_NUMPY[name])


class Tensor:
    """A ``DLTensor`` that keeps its memory, shape and strides alive."""

    __slots__ = ("dl", "owner", "_shape", "_strides")

    def __init__(self, data: int, dtype: tuple[int, int], shape: Sequence[int],
                 strides: Sequence[int] | None, owner: Any, device: tuple[int, int] = (CPU, 0)):
        ndim = len(shape)
        self.owner = owner
        self._shape = _extents(ndim)(*shape)
        self._strides = None if strides is None else _extents(ndim)(*strides)
        self.dl = DLTensor(data, _ON_CPU if device == (CPU, 0) else DLDevice(*device), ndim,
                           _TYPES.get(dtype) or DLDataType(*dtype, 1), self._shape,
                           self._strides, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.dl.shape[i] for i in range(self.dl.ndim))

    @property
    def dtype(self) -> str:
        return dtype_name(self.dl.dtype)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dl.dtype.bits // 8


class Raw:
    """Bytes of a file or buffer with a type and a shape, row-major.

    Represents a tensor of a checkpoint, even if numpy lacks its type. ``format`` is that of
    the blocks of a ``.gguf`` file, e.g. ``q4_K``; then the last extent of ``shape`` is in bytes.
    """

    __slots__ = ("data", "dtype", "shape", "format")

    def __init__(self, data: np.ndarray, dtype: str, shape: Sequence[int],
                 format: str | None = None):
        assert data.dtype == np.uint8 and data.ndim == 1
        self.data, self.dtype, self.shape, self.format = data, dtype, tuple(shape), format

    def reshape(self, shape: Sequence[int]) -> Raw:
        return Raw(self.data, self.dtype, shape, self.format)


def is_torch(array: Any) -> bool:
    return type(array).__module__.partition(".")[0] == "torch" or (
        hasattr(array, "data_ptr") and hasattr(array, "stride"))


def wants_gradient(array: Any) -> bool:
    """Return true if torch would differentiate a result that is computed from ``array``."""
    required = getattr(array, "requires_grad", None)
    if required is None or not is_torch(array):
        return False
    torch = sys.modules["torch"]
    if required and torch.is_grad_enabled():
        return True
    forward = torch.autograd.forward_ad
    # -1 outside forward-mode differentiation.
    return (getattr(forward, "_current_level", 0) >= 0
            and forward.unpack_dual(array).tangent is not None)


def as_tensor(array: Any, what: str = "array", writable: bool = False) -> Tensor:
    """Describe ``array`` as a DLTensor that shares its memory.

    Raises ``MoEError`` for unsupported objects; ``what`` names the object in the message.
    """
    if isinstance(array, Tensor):
        return array
    if isinstance(array, Raw):
        return Tensor(array.data.ctypes.data, DTYPES[array.dtype], array.shape, None, array.data)
    if isinstance(array, np.ndarray):
        return _from_numpy(array, what, writable)
    if is_torch(array):
        return _from_torch(array, what)
    if hasattr(array, "__dlpack__"):
        return _from_dlpack(array)
    raise MoEError(INVALID_ARGUMENT, f"{what}: expected a numpy array, a torch tensor or an object "
                   f"with __dlpack__, got {type(array).__module__}.{type(array).__qualname__}")


@functools.cache
def _name_of(dtype: np.dtype) -> str | None:
    return _FROM_NUMPY.get(dtype.name) if dtype.isnative else None


def _from_numpy(array: np.ndarray, what: str, writable: bool) -> Tensor:
    name = _name_of(array.dtype)
    if name is None:
        raise MoEError(INVALID_ARGUMENT, f"{what}: unsupported dtype '{array.dtype}'")
    if writable and not array.flags.writeable:
        raise MoEError(INVALID_ARGUMENT, f"{what}: the array is read-only")
    strides = None
    if not array.flags.c_contiguous:
        size = array.dtype.itemsize
        if any(stride % size for stride in array.strides):
            raise MoEError(INVALID_ARGUMENT, f"{what}: strides {array.strides} are not whole "
                           f"elements of {size} bytes")
        strides = [stride // size for stride in array.strides]
    return Tensor(array.ctypes.data, DTYPES[name], array.shape, strides, array)


@functools.cache
def _torch_names() -> dict[Any, str]:
    """Return the names of torch's types."""
    import torch

    names = {torch.float16: "f16", torch.float32: "f32", torch.float64: "f64",
             torch.bfloat16: "bf16", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
             torch.int64: "i64", torch.uint8: "ui8", torch.bool: "i1"}
    for name in ("ui16", "ui32", "ui64", "f8E4M3FN", "f8E5M2", "f8E8M0FNU"):
        if dtype := getattr(torch, _NUMPY[name], None):  # not in older versions
            names[dtype] = name
    return names


def _from_torch(tensor: Any, what: str) -> Tensor:
    import torch

    name = _torch_names().get(tensor.dtype)
    if name is None or tensor.layout is not torch.strided or tensor.is_nested:
        raise MoEError(INVALID_ARGUMENT, f"{what}: unsupported dtype or layout '{tensor.dtype}', "
                       f"'{tensor.layout}'")
    if tensor.is_conj() or tensor.is_neg():
        raise MoEError(INVALID_ARGUMENT, f"{what}: the tensor is a lazy view; call .resolve_neg()")
    device = tensor.device
    if device.type == "cpu":
        place = (CPU, 0)
    elif device.type == "cuda":
        place = (CUDA, device.index or 0)
    else:
        raise MoEError(INVALID_ARGUMENT, f"{what}: unsupported device '{device}'")
    strides = None if tensor.is_contiguous() else tensor.stride()
    try:
        address = tensor.data_ptr()
    except RuntimeError as error:  # inside torch.func.vmap, for example
        raise MoEError(INVALID_ARGUMENT, f"{what}: the tensor has no memory of its own: "
                       f"{error}") from error
    return Tensor(address, DTYPES[name], tuple(tensor.shape), strides, tensor, place)


def _from_dlpack(array: Any) -> Tensor:
    capsule = array.__dlpack__()
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    # DLManagedTensor starts with its DLTensor. The capsule is not consumed: its
    # own destructor frees it when `owner` goes.
    source = DLTensor.from_address(get(capsule, b"dltensor"))
    shape = [source.shape[i] for i in range(source.ndim)]
    strides = [source.strides[i] for i in range(source.ndim)] if source.strides else None
    tensor = Tensor((source.data or 0) + source.byte_offset,
                    (source.dtype.code, source.dtype.bits), shape, strides, (capsule, array),
                    (source.device.device_type, source.device.device_id))
    tensor.dl.dtype.lanes = source.dtype.lanes
    return tensor


# numpy asks for huge pages from this size on, PyTorch never.
_HUGE_BYTES = 4 << 20


def _advise_huge_pages(address: int, size: int) -> None:
    """Let new memory have huge pages: the first store to each small page takes longer."""
    page = mmap.PAGESIZE
    first = -(-address // page) * page
    whole = (address + size - first) // page * page
    # If the kernel refuses, pages stay small: nothing else changes.
    _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole),
                    ctypes.c_int(mmap.MADV_HUGEPAGE))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def empty_tensor(shape: Sequence[int], dtype: Any, device: Any) -> Any:
    """Return a new tensor of torch; on the CPU its memory may have huge pages."""
    import torch

    new = torch.empty(tuple(shape), dtype=dtype, device=device)
    if new.device.type == "cpu" and new.nbytes >= _HUGE_BYTES:
        _advise_huge_pages(new.data_ptr(), new.nbytes)
    return new


def empty_like_kind(example: Any, dtype: str, shape: Sequence[int]) -> Any:
    """Return a new array of the kind (numpy or torch, and device) of ``example``."""
    if is_torch(example):
        import torch

        name = {"bf16": "bfloat16", "ui8": "uint8", "i1": "bool"}.get(dtype) or _NUMPY[dtype]
        return empty_tensor(shape, getattr(torch, name), example.device)
    return np.empty(tuple(shape), numpy_dtype(dtype))
