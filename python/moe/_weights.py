"""Weights of a layer: arrays by name, or tensors of a checkpoint.

``libmoe_rt.so`` (moe_rt/checkpoint.h) maps files: a weight that is one tensor of a file
is bound without a copy.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ._dlpack import DTYPES, Raw, dtype_name
from ._error import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, MoEError
from ._library import CheckpointTensor, Handle, check, encode_path, library
from ._signature import TensorInfo


class Checkpoint:
    """The tensors of a ``.safetensors`` or ``.gguf`` file or of a model's directory, mapped.

    Block-quantised tensors of a ``.gguf`` file are arrays of bytes: the last extent is that of
    the blocks of a row. Any part of a file that is split opens all of them.

    ``module.layer(checkpoint)`` binds them, as ``module.layer(path)`` does; the layers of
    one model share a checkpoint, whose files are opened and checked once.
    """

    def __init__(self, path: str | os.PathLike[str]):
        lib, out = library(), ctypes.c_void_p()
        check(lib.moe_rt_checkpoint_open(encode_path(path), ctypes.byref(out)))
        self.path = Path(path)
        self._handle = Handle(out.value, lib.moe_rt_checkpoint_close)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the tensors, sorted."""
        lib, checkpoint = library(), self._handle.pointer
        return tuple(lib.moe_rt_checkpoint_tensor_name(checkpoint, i).decode()
                     for i in range(lib.moe_rt_checkpoint_tensor_count(checkpoint)))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __getitem__(self, name: str) -> Raw:
        """Return a tensor in mapped memory.

        It has ``data`` (its bytes), ``dtype``, ``shape`` and ``format``: ggml's name of its blocks
        (``q4_0``, ``q6_K``, ``mxfp4``), or None.
        """
        if name not in self:
            raise MoEError(NOT_FOUND, f"{self.path}: there is no tensor {name!r}")
        found = CheckpointTensor()
        check(library().moe_rt_checkpoint_find(self._handle.pointer, name.encode(),
                                               ctypes.byref(found)))
        dtype = dtype_name(found.dtype)
        if dtype not in DTYPES:
            raise MoEError(UNIMPLEMENTED, f"{self.path}: tensor '{name}' is {found.type.decode()}, "
                           "which no array here can be")
        # The runtime names the format of blocks, whose elements are bytes.
        kind = found.type.decode()
        return Raw(np.asarray(_Mapped(found.data, found.bytes, self._handle)), dtype,
                   found.shape[:found.ndim], kind if dtype == "ui8" and kind != "u8" else None)

    def __repr__(self) -> str:
        return f"<moe.Checkpoint {self.path}: {len(self.names)} tensors>"


class _Mapped:
    """Bytes of a checkpoint, which stays open as long as an array refers to them."""

    def __init__(self, address: int, size: int, handle: Handle):
        self._handle = handle
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1",
                                    "version": 3}


def resolve(weights: Any, infos: Sequence[TensorInfo]) -> Checkpoint | list[Any]:
    """Return a checkpoint, or arrays in signature order."""
    if isinstance(weights, Checkpoint):
        return weights
    if isinstance(weights, (str, os.PathLike)):
        return Checkpoint(weights)
    if weights is None:
        weights = []
    if isinstance(weights, Mapping):
        names = [info.name for info in infos]
        missing = [n for n in names if n not in weights]
        unknown = [n for n in weights if n not in names]
        if missing or unknown:
            parts = []
            if missing:
                parts.append("missing weights: " + ", ".join(missing))
            if unknown:
                parts.append("unknown weights: " + ", ".join(map(str, unknown)))
            raise MoEError(INVALID_ARGUMENT, "; ".join(parts))
        return [weights[n] for n in names]
    if isinstance(weights, Sequence) and not isinstance(weights, (bytes, bytearray)):
        if len(weights) != len(infos):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(infos)} weights ("
                           + ", ".join(info.name for info in infos) + f"), got {len(weights)}")
        return list(weights)
    raise MoEError(INVALID_ARGUMENT, "weights: expected a mapping, a sequence, a .safetensors or "
                   f".gguf file or a checkpoint directory, got {type(weights).__qualname__}")
