"""``libmoe_rt.so`` through ctypes: search, functions and structures.

Declares ``moe_rt/moe_rt.h`` (ABI ``ABI_VERSION``) and ``moe_rt/checkpoint.h``. Only the usual
call of a layer has an extension of its own (``_caller.py``).
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from pathlib import Path
from typing import Any

from ._dlpack import DLDataType, DLDevice, DLTensor
from ._error import FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, MoEError
from ._tools import build_tree

# MOE_RT_ABI_VERSION of moe_rt.h.
ABI_VERSION = 4

_P = ctypes.c_void_p
_STR = ctypes.c_char_p
_SIZE = ctypes.c_size_t
_I64 = ctypes.c_int64
_OUT = ctypes.POINTER


class ContextOptions(ctypes.Structure):
    _fields_ = [("struct_size", _SIZE), ("allocator", _P * 3), ("num_threads", _I64),
                ("executor", _P), ("device", DLDevice)]


class Executor(ctypes.Structure):
    _fields_ = [("user", _P), ("concurrency", _I64), ("parallel_for", _P)]


class RawTensorInfo(ctypes.Structure):
    _fields_ = [("name", _STR), ("role", ctypes.c_int), ("dtype", DLDataType),
                ("ndim", ctypes.c_int32), ("shape", _OUT(_I64)), ("alignment", ctypes.c_uint32),
                ("num_experts", _I64), ("retained", ctypes.c_bool)]


class RawStatistics(ctypes.Structure):
    _fields_ = [("num_experts", _I64), ("top_k", _I64), ("tokens_per_expert", _OUT(_I64)),
                ("calls", _I64), ("choices", _I64), ("dropped", _I64), ("padding", _I64)]


class RawStageProfile(ctypes.Structure):
    _fields_ = [("name", _STR), ("kernels", _STR), ("calls", _I64), ("runs", _I64),
                ("total_nanoseconds", _I64), ("samples", _OUT(_I64)), ("sample_count", _SIZE)]


class CheckpointTensor(ctypes.Structure):
    _fields_ = [("name", _STR), ("type", _STR), ("dtype", DLDataType), ("ndim", ctypes.c_int32),
                ("shape", _OUT(_I64)), ("data", _P), ("bytes", ctypes.c_uint64)]


# name: (result, arguments); a checked result of type _P is a status.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "moe_rt_status_code": (ctypes.c_int, [_P]),
    "moe_rt_status_message": (_STR, [_P]),
    "moe_rt_status_free": (None, [_P]),
    "moe_rt_context_create": (_P, [_OUT(ContextOptions), _OUT(_P)]),
    "moe_rt_context_trim": (None, [_P]),
    "moe_rt_context_destroy": (None, [_P]),
    "moe_rt_openmp_executor": (_P, [_STR, _OUT(Executor)]),
    "moe_rt_module_load": (_P, [_P, _STR, _OUT(_P)]),
    "moe_rt_module_load_memory": (_P, [_P, _P, _SIZE, _OUT(_P)]),
    "moe_rt_module_destroy": (None, [_P]),
    "moe_rt_module_metadata": (_STR, [_P]),
    "moe_rt_module_variant": (_SIZE, [_P]),
    "moe_rt_module_function_count": (_SIZE, [_P]),
    "moe_rt_module_function_name": (_STR, [_P, _SIZE]),
    "moe_rt_function_tensor_count": (_P, [_P, _STR, ctypes.c_int, _OUT(_SIZE)]),
    "moe_rt_function_tensor_info": (_P, [_P, _STR, ctypes.c_int, _SIZE, _OUT(RawTensorInfo)]),
    "moe_rt_function_token_range": (_P, [_P, _STR, _OUT(_I64), _OUT(_I64)]),
    "moe_rt_layer_create": (_P, [_P, _STR, _OUT(DLTensor), _SIZE, _OUT(_P)]),
    "moe_rt_checkpoint_open": (_P, [_STR, _OUT(_P)]),
    "moe_rt_checkpoint_close": (None, [_P]),
    "moe_rt_checkpoint_tensor_count": (_SIZE, [_P]),
    "moe_rt_checkpoint_tensor_name": (_STR, [_P, _SIZE]),
    "moe_rt_checkpoint_find": (_P, [_P, _STR, _OUT(CheckpointTensor)]),
    "moe_rt_layer_create_from_checkpoint": (_P, [_P, _STR, _P, _OUT(_P)]),
    "moe_rt_layer_destroy": (None, [_P]),
    "moe_rt_layer_update": (_P, [_P, _OUT(DLTensor), _SIZE]),
    "moe_rt_layer_weight_bytes": (ctypes.c_uint64, [_P]),
    "moe_rt_layer_quantization_errors": (_P, [_P, _SIZE, _OUT(_OUT(ctypes.c_float)),
                                              _OUT(_SIZE)]),
    "moe_rt_layer_workspace_bytes": (_P, [_P, _I64, _OUT(ctypes.c_uint64)]),
    "moe_rt_layer_call": (_P, [_P, _OUT(DLTensor), _SIZE, _OUT(DLTensor), _SIZE, _P,
                               ctypes.c_uint64]),
    "moe_rt_layer_call_on_stream": (_P, [_P, _OUT(DLTensor), _SIZE, _OUT(DLTensor), _SIZE, _P,
                                         ctypes.c_uint64, _P]),
    "moe_rt_layer_call_live_on_stream": (_P, [_P, _OUT(DLTensor), _SIZE, _OUT(DLTensor), _SIZE,
                                              _P, ctypes.c_uint64, _P, _P]),
    "moe_rt_layer_poll": (_P, [_P]),
    "moe_rt_layer_dispatch_count": (_SIZE, [_P]),
    "moe_rt_layer_statistics": (_P, [_P, _SIZE, _OUT(RawStatistics)]),
    "moe_rt_layer_reset_statistics": (None, [_P]),
    "moe_rt_layer_enable_statistics": (None, [_P, ctypes.c_int]),
    "moe_rt_layer_enable_profile": (_P, [_P, ctypes.c_int]),
    "moe_rt_layer_stage_count": (_SIZE, [_P]),
    "moe_rt_layer_profile": (_P, [_P, _SIZE, _OUT(RawStageProfile)]),
    "moe_rt_layer_reset_profile": (None, [_P]),
    "moe_rt_version": (_STR, []),
    "moe_rt_abi_version": (ctypes.c_int32, []),
}


def _candidates() -> list[str]:
    """List candidates for the runtime: $MOE_RT_LIBRARY, the package, a build tree, the system."""
    if named := os.environ.get("MOE_RT_LIBRARY"):
        return [named]
    package = Path(__file__).resolve().parent
    found = [package / "libmoe_rt.so", package / "lib" / "libmoe_rt.so",
             package / "lib" / "libmoe_rt.so.0"]
    build = build_tree()
    found += [build / "lib" / "libmoe_rt.so", build / "runtime" / "libmoe_rt.so",
              build / "runtime" / "src" / "libmoe_rt.so"]
    return [str(p) for p in found if p.exists()] + ["libmoe_rt.so"]


_lock = threading.Lock()
_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """Load the runtime, once."""
    global _library
    with _lock:
        if _library is not None:
            return _library
        errors = []
        for path in _candidates():
            try:
                lib = ctypes.CDLL(path)
                _check_abi(lib, path)
                for name, (result, arguments) in _FUNCTIONS.items():
                    function = getattr(lib, name)
                    function.restype, function.argtypes = result, arguments
            except (OSError, AttributeError) as error:
                errors.append(f"{path}: {error}")
                continue
            _library = lib
            return lib
        raise MoEError(NOT_FOUND, "libmoe_rt.so was not found; set MOE_RT_LIBRARY to its path ("
                       + "; ".join(errors) + ")")


def _check_abi(lib: ctypes.CDLL, path: str) -> None:
    """Reject a library of another version."""
    version = getattr(lib, "moe_rt_abi_version", None)
    found = "an older one" if version is None else version()
    if found != ABI_VERSION:
        raise MoEError(FAILED_PRECONDITION, f"{path} has ABI {found}, expected {ABI_VERSION}")


def check(status: int | None) -> None:
    """Raise the error of a moe_rt_status_t, if any, and free it."""
    if not status:
        return
    lib = library()
    code = lib.moe_rt_status_code(status)
    message = lib.moe_rt_status_message(status).decode(errors="replace")
    lib.moe_rt_status_free(status)
    error = MoEError(code, message)
    error._from_runtime = True
    raise error


def encode_path(path: str | os.PathLike[str]) -> bytes:
    """Encode a path for the system, which ends strings at a NUL."""
    try:
        encoded = os.fsencode(path)
    except UnicodeError as error:
        raise MoEError(INVALID_ARGUMENT, f"{path!r} is no path: {error}") from None
    if b"\0" in encoded:
        raise MoEError(INVALID_ARGUMENT, f"{path!r} is no path: it has a NUL character")
    return encoded


class OfThisProcess:
    """Holds an address in this process, which a copy would free twice."""

    def __reduce_ex__(self, _protocol: Any) -> Any:
        raise TypeError(f"cannot pickle or copy a moe.{type(self).__name__.lstrip('_')}: it is "
                        "code and memory of this process; keep the artifact and the weights, and "
                        "make it again with moe.load and Module.layer")


class Handle(OfThisProcess):
    """An object of the runtime, destroyed with this one and before its parent."""

    on_device = uses_openmp = False

    def __init__(self, pointer: int, destroy: Any, parent: Handle | None = None,
                 keep: Any = None):
        self.pointer, self.keep = pointer, keep
        self.before: list[Any] = []  # called with the pointer before that
        # The finalizer holds the parent (and the weights' memory), so that they
        # outlive the object whatever the order of garbage collection.
        self.close = weakref.finalize(self, _destroy, destroy, pointer, self.before,
                                      (parent, keep))


def _destroy(destroy: Any, pointer: int, before: list[Any], _kept: Any) -> None:
    for function in before:
        function(pointer)
    destroy(pointer)


def runtime_version() -> str:
    """Return the version of libmoe_rt.so."""
    return library().moe_rt_version().decode()
