"""Weights for a layer: arrays by name, or tensors of a checkpoint.

Safetensors files are read here, with numpy alone, as memory maps: a weight that
is one tensor of a file is bound without a copy.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._dlpack import DTYPES, Raw
from ._error import DATA_LOSS, INVALID_ARGUMENT, NOT_FOUND, MoEError

if TYPE_CHECKING:
    from ._runtime import TensorInfo

_SAFETENSORS = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16",
                "F8_E4M3": "f8E4M3FN", "I64": "i64", "I32": "i32", "I16": "i16", "I8": "i8",
                "U8": "ui8", "BOOL": "i1"}


class SafetensorsFile:
    """A ``.safetensors`` file, memory-mapped."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        size = self.path.stat().st_size
        if size < 8:
            raise MoEError(DATA_LOSS, f"{path}: {size} bytes are no safetensors file")
        self._map = np.memmap(self.path, np.uint8, "r")
        length = int.from_bytes(self._map[:8].tobytes(), "little")
        if length > size - 8:
            raise MoEError(DATA_LOSS, f"{path}: the header has {length} bytes, the file {size}")
        try:
            header = json.loads(self._map[8:8 + length].tobytes())
        except ValueError as error:
            raise MoEError(DATA_LOSS, f"{path}: bad header: {error}") from None
        self._start = 8 + length
        self.tensors: dict[str, dict[str, Any]] = {
            name: entry for name, entry in header.items() if name != "__metadata__"}

    def __getitem__(self, name: str) -> Raw:
        entry = self.tensors[name]
        dtype = _SAFETENSORS.get(entry["dtype"])
        if dtype is None:
            raise MoEError(INVALID_ARGUMENT, f"{self.path}: tensor '{name}' has the unsupported "
                           f"dtype {entry['dtype']}")
        begin, end = entry["data_offsets"]
        bytes_wanted = math.prod(entry["shape"]) * DTYPES[dtype][1] // 8
        if not 0 <= begin <= end <= len(self._map) - self._start or end - begin != bytes_wanted:
            raise MoEError(DATA_LOSS, f"{self.path}: tensor '{name}' has the bytes [{begin}, {end})"
                           f", expected {bytes_wanted} inside the file")
        return Raw(self._map[self._start + begin:self._start + end], dtype, entry["shape"])


class Checkpoint:
    """The tensors of a ``.safetensors`` file or a checkpoint directory."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.exists():
            raise MoEError(NOT_FOUND, f"no such file or directory: '{path}'")
        self._files: dict[str, SafetensorsFile] = {}
        self._where: dict[str, str] = {}
        index = self.path / "model.safetensors.index.json"
        if self.path.is_file():
            self._add(self.path.name, self.path)
        elif index.exists():
            self._where = dict(json.loads(index.read_text())["weight_map"])
        else:
            files = sorted(self.path.glob("*.safetensors"))
            if not files:
                raise MoEError(NOT_FOUND, f"'{path}' has no .safetensors file")
            for file in files:
                self._add(file.name, file)

    def _add(self, name: str, path: Path) -> SafetensorsFile:
        file = self._files[name] = SafetensorsFile(path)
        for tensor in file.tensors:
            self._where.setdefault(tensor, name)
        return file

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __getitem__(self, name: str) -> Raw:
        file = self._where.get(name)
        if file is None:
            raise MoEError(NOT_FOUND, f"'{self.path}' has no tensor '{name}'")
        opened = self._files.get(file)
        if opened is None:
            path = self.path / file
            if not path.exists():
                raise MoEError(NOT_FOUND, f"no such file: '{path}'")
            opened = self._files[file] = SafetensorsFile(path)
        if name not in opened.tensors:
            raise MoEError(NOT_FOUND, f"'{opened.path}' has no tensor '{name}'")
        return opened[name]


def _aligned(raw: Raw, alignment: int) -> Raw:
    """``raw``, or a copy of it whose address is a multiple of ``alignment``."""
    if raw.data.ctypes.data % max(alignment, 1) == 0:
        return raw
    copy = _buffer(len(raw.data), alignment)
    copy[:] = raw.data
    return Raw(copy, raw.dtype, raw.shape)


def _buffer(size: int, alignment: int) -> np.ndarray:
    alignment = max(alignment, 64)
    whole = np.empty(size + alignment, np.uint8)
    start = -whole.ctypes.data % alignment
    return whole[start:start + size]


def _parts(checkpoint: Checkpoint, info: TensorInfo, names: Sequence[str]) -> list[Raw]:
    """The tensors ``names`` as one weight: one reshaped, or several to stack."""
    if len(names) == 1:
        raw = checkpoint[names[0]]
        _expect(checkpoint, names[0], raw, info, math.prod(raw.shape), math.prod(info.shape))
        return [raw.reshape(info.shape)]
    if len(names) != info.shape[0]:
        raise MoEError(INVALID_ARGUMENT, f"weight '{info.name}': expected {info.shape[0]} tensors "
                       f"to stack, got {len(names)}")
    parts = [checkpoint[name] for name in names]
    for name, raw in zip(names, parts):
        _expect(checkpoint, name, raw, info, raw.shape, info.shape[1:])
    return parts


def _bind(checkpoint: Checkpoint, info: TensorInfo, names: Sequence[str]) -> Raw:
    parts = _parts(checkpoint, info, names)
    if len(names) == 1:
        return _aligned(parts[0], info.alignment)
    whole = _buffer(sum(len(raw.data) for raw in parts), info.alignment)
    start = 0
    for raw in parts:
        whole[start:start + len(raw.data)] = raw.data
        start += len(raw.data)
    return Raw(whole, info.dtype, info.shape)


def _expect(checkpoint: Checkpoint, name: str, raw: Raw, info: TensorInfo, actual: Any,
            expected: Any) -> None:
    if raw.dtype != info.dtype:
        raise MoEError(INVALID_ARGUMENT, f"weight '{info.name}': tensor '{name}' of "
                       f"'{checkpoint.path}' is {raw.dtype}, expected {info.dtype}")
    if actual != expected:
        what = "shape" if isinstance(expected, tuple) else "element count"
        raise MoEError(INVALID_ARGUMENT, f"weight '{info.name}': tensor '{name}' of "
                       f"'{checkpoint.path}' has {what} {actual}, expected {expected}")


def _names(checkpoint: Checkpoint, info: TensorInfo,
           sources: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The tensors of a weight: that of its own name, else what the module names."""
    return [info.name] if info.name in checkpoint else sources.get(info.name, [info.name])


class Reader:
    """The weights of a layer in a checkpoint, read piece by piece.

    Everything is found and checked first.  ``sources`` is that of ``resolve``.
    """

    def __init__(self, path: str | os.PathLike[str], infos: Sequence[TensorInfo],
                 sources: Mapping[str, Sequence[str]]):
        checkpoint = Checkpoint(path)
        self._parts = [_parts(checkpoint, info, _names(checkpoint, info, sources))
                       for info in infos]

    def read(self, weight: int, first: int, count: int, address: int, size: int) -> None:
        """Copy elements of a weight's first dimension, ``size`` bytes, to an address."""
        offset = first * (size // count)
        for part in self._parts[weight]:
            length = len(part.data)
            taken = min(size, length - offset)
            if taken > 0:
                source = part.data.ctypes.data + offset
                ctypes.memmove(address, source, taken)
                _drop_pages(source, taken)
                address, size = address + taken, size - taken
            offset = max(offset - length, 0)
        if size > 0:
            raise MoEError(INVALID_ARGUMENT, f"weight {weight}: {size} bytes beyond its end were "
                           "asked for")


def _drop_pages(address: int, size: int) -> None:
    """Let pages of a mapped file leave memory; reading them brings them back."""
    advice = getattr(mmap, "MADV_DONTNEED", None)
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if advice is not None and start < end:
        madvise = ctypes.CDLL(None).madvise
        madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        madvise(start, end - start, advice)


def resolve(weights: Any, infos: Sequence[TensorInfo],
            sources: Mapping[str, Sequence[str]]) -> list[Any]:
    """Weights in signature order.

    ``sources`` names, for a weight of the signature, tensors of a checkpoint;
    a weight without an entry is looked up by its own name.
    """
    if weights is None:
        weights = []
    if isinstance(weights, (str, os.PathLike)):
        checkpoint = Checkpoint(weights)
        return [_bind(checkpoint, info, _names(checkpoint, info, sources)) for info in infos]
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
    if isinstance(weights, Sequence):
        if len(weights) != len(infos):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(infos)} weights ("
                           + ", ".join(info.name for info in infos) + f"), got {len(weights)}")
        return list(weights)
    raise MoEError(INVALID_ARGUMENT, "weights: expected a mapping, a sequence, a .safetensors file "
                   f"or a checkpoint directory, got {type(weights).__qualname__}")
