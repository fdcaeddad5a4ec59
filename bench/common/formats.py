"""Block formats of quantised weights, as in GGUF files: their sizes, and what they encode.

The decoders follow the description of the formats (ggml-common.h), not the code of a participant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


def _f16(data: np.ndarray, offset: int) -> np.ndarray:
    """Return the f16 at ``offset`` of each block ``[N, block bytes]`` as f32 ``[N, 1]``."""
    return np.ascontiguousarray(data[:, offset:offset + 2]).view(np.float16).astype(np.float32)


def _nibbles(data: np.ndarray) -> np.ndarray:
    """Return the low nibbles of the last dimension, then the high ones."""
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _q8_0(data: np.ndarray) -> np.ndarray:
    return _f16(data, 0) * data[:, 2:].view(np.int8)


def _q4_0(data: np.ndarray) -> np.ndarray:
    return _f16(data, 0) * (_nibbles(data[:, 2:]).astype(np.float32) - 8)


def _q4_k(data: np.ndarray) -> np.ndarray:
    """Eight groups of 32 have a scale and a minimum of 6 bits each."""
    packed, quants = data[:, 4:16], data[:, 16:]
    low, middle, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], axis=1)
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], axis=1)
    # 32 bytes have the low nibbles of one group and the high ones of the next.
    values = _nibbles(quants.reshape(-1, 4, 32)).reshape(-1, 8, 32)
    result = (_f16(data, 0) * scales)[..., None] * values
    return (result - (_f16(data, 2) * minima)[..., None]).reshape(len(data), 256)


def _q6_k(data: np.ndarray) -> np.ndarray:
    """Sixteen groups of 16 have a scale of 8 bits; the upper two bits of a number are apart."""
    low = data[:, :128].reshape(-1, 2, 64)
    high = data[:, 128:192].reshape(-1, 2, 1, 32)
    upper = high >> np.arange(0, 8, 2, dtype=np.uint8)[:, None] & 3
    values = _nibbles(low).reshape(-1, 2, 4, 32) | upper << 4
    scales = _f16(data, 208) * data[:, 192:208].view(np.int8)
    result = scales[..., None] * (values.reshape(-1, 16, 16).astype(np.float32) - 32)
    return result.reshape(len(data), 256)


_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
_E2M1 = np.concatenate([_E2M1, -_E2M1])


def _mxfp4(data: np.ndarray) -> np.ndarray:
    scales = np.exp2(data[:, :1].astype(np.float32) - 127)
    return scales * _E2M1[_nibbles(data[:, 1:])]


@dataclass(frozen=True)
class Format:
    """``block_bytes`` bytes encode ``block`` consecutive numbers of a row."""

    name: str
    block: int
    block_bytes: int
    decode_blocks: Callable[[np.ndarray], np.ndarray]

    def row_bytes(self, columns: int) -> int:
        return columns // self.block * self.block_bytes

    def decode(self, data: np.ndarray) -> np.ndarray:
        """Decode rows ``[..., row bytes]`` to f32 ``[..., columns]``."""
        blocks = np.ascontiguousarray(data).reshape(-1, self.block_bytes)
        return self.decode_blocks(blocks).reshape(*data.shape[:-1], -1)


FORMATS = {each.name: each for each in (
    Format("q8_0", 32, 34, _q8_0),
    Format("q4_0", 32, 18, _q4_0),
    Format("q4_K", 256, 144, _q4_k),
    Format("q6_K", 256, 210, _q6_k),
    Format("mxfp4", 32, 17, _mxfp4),
)}
