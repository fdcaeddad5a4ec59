"""``moe_rt_communicator_t`` of ``moe_rt/group.h``: an engine that moves rows between ranks."""

from __future__ import annotations

import ctypes
from typing import Any

from ._dlpack import DLDevice
from ._library import OfThisProcess

__all__ = ["Communicator", "FUNCTIONS", "RawCommunicator"]

_P, _I64, _U64, _I32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64, ctypes.c_int32
_WORDS, _REQUEST = ctypes.POINTER(_I64), ctypes.POINTER(_P)

#: The types of its functions, by name.
FUNCTIONS = {
    "allocate": ctypes.CFUNCTYPE(_P, _P, _U64),
    "release": ctypes.CFUNCTYPE(None, _P, _P, _U64),
    "counts": ctypes.CFUNCTYPE(_I32, _P, _P, _P, _I32, _P, _REQUEST),
    "exchange": ctypes.CFUNCTYPE(_I32, _P, _P, _WORDS, _WORDS, _P, _WORDS, _WORDS, _U64, _P,
                                 _REQUEST),
    "gather": ctypes.CFUNCTYPE(_I32, _P, _P, _P, _WORDS, _U64, _P, _REQUEST),
    "peer": ctypes.CFUNCTYPE(_P, _P, _I32, _P),
    "test": ctypes.CFUNCTYPE(_I32, _P, _P),
    "abort": ctypes.CFUNCTYPE(None, _P),
    "message": ctypes.CFUNCTYPE(ctypes.c_char_p, _P),
}


class RawCommunicator(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("user", _P), ("rank", _I32), ("size", _I32),
                ("node_size", _I32), ("features", ctypes.c_uint32), ("device", DLDevice),
                *FUNCTIONS.items()]


class Communicator(OfThisProcess):
    """One rank of an engine; ``keep`` is what it needs while it is in use."""

    def __init__(self, raw: RawCommunicator, keep: Any = None):
        self.raw = raw
        self._keep = keep
