"""Formats of quantised weights: ``moe.dequantize`` and ``#moe.format`` in numpy.

`Format`, `Field` and `Bits` have the parameters of the attributes of the same names;
``str`` of a format is the attribute.  `Format.decode` follows the text of
``include/moe/Dialect/MoE/IR/MoEFormatAttrs.td`` step by step; it is not fast.

`GGUF` has the formats of GGUF files by the names of their types, whose records hold all
fields of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["GGUF", "Bits", "Field", "Format"]

_F4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def _arguments(pairs: Sequence[tuple[str, object, object]]) -> str:
    """Format the parameters that differ from their defaults."""
    return ", ".join(f"{name} = {value}" for name, value, default in pairs if value != default)


@dataclass(frozen=True)
class Bits:
    """``#moe.bits``: where some bits of packed values are."""

    width: int
    byte: int = 0
    bit: int = 0
    run: int = 1
    first: int = 0
    count: int = 0
    shift: int = 0

    def __str__(self) -> str:
        text = _arguments([("width", self.width, None), ("byte", self.byte, 0),
                           ("bit", self.bit, 0), ("run", self.run, 1),
                           ("first", self.first, 0), ("count", self.count, 0),
                           ("shift", self.shift, 0)])
        return f"#moe.bits<{text}>"

    def read(self, bytes_: NDArray[np.uint8], start: NDArray[np.int64],
             index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return these bits of values ``index``, in place, of records that begin at ``start``.

        The last dimension of ``bytes_`` is indexed; the others are those of the result but
        for its last.
        """
        v = index - self.first
        covered = (v >= 0) & ((v < self.count) if self.count else True)
        v = np.where(covered, v, 0)
        if self.width >= 8:
            size = self.width // 8
            value = sum(bytes_[..., start + self.byte + v * size + i].astype(np.int64) << 8 * i
                        for i in range(size))
        else:
            per_byte = (8 - self.bit) // self.width
            byte = v // (per_byte * self.run) * self.run + v % self.run
            slot = v // self.run % per_byte
            value = bytes_[..., start + self.byte + byte].astype(np.int64)
            value = value >> self.bit + self.width * slot & (1 << self.width) - 1
        return np.where(covered, value << self.shift, 0)


@dataclass(frozen=True)
class Field:
    """``#moe.field``: numbers of a quantised tensor.

    ``element`` is the name of an MLIR type; ``block`` are the rows and columns of the
    elements that share a number.
    """

    element: str
    operand: int = 0
    block: tuple[int, int] = (1, 1)
    bits: tuple[Bits, ...] = ()
    axis: int = 1
    divide: bool = False

    def parameters(self) -> str:
        bits = "[" + ", ".join(map(str, self.bits)) + "]"
        return _arguments([("element", self.element, None), ("operand", self.operand, 0),
                           ("block", list(self.block), [1, 1]), ("bits", bits, "[]"),
                           ("axis", self.axis, 1),
                           ("divide", str(self.divide).lower(), "false")])

    def __str__(self) -> str:
        return f"#moe.field<{self.parameters()}>"

    def number(self, codes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the numbers that codes stand for."""
        import ml_dtypes

        if self.element[:2] in ("ui", "si"):
            width = int(self.element[2:])
            if self.element[0] == "s":
                codes = np.where(codes >= 1 << width - 1, codes - (1 << width), codes)
            return codes.astype(np.float32)
        if self.element == "f4E2M1FN":
            return _F4[codes]
        if self.element == "f8E8M0FNU":
            exponents = np.ldexp(np.float32(1), codes.astype(np.int32) - 127)
            return np.where(codes == 255, np.float32(np.nan), exponents.astype(np.float32))
        types = {"f32": (np.uint32, np.float32), "f16": (np.uint16, np.float16),
                 "bf16": (np.uint16, ml_dtypes.bfloat16),
                 "f8E4M3FN": (np.uint8, ml_dtypes.float8_e4m3fn),
                 "f8E5M2": (np.uint8, ml_dtypes.float8_e5m2)}
        stored, meaning = types[self.element]
        return codes.astype(stored).view(meaning).astype(np.float32)


@dataclass(frozen=True)
class Format:
    """``#moe.format``: how quantised weights are stored."""

    codes: Field
    record: tuple[int, int] | None = None
    offset: int = 0
    table: tuple[float, ...] | None = None
    scales: tuple[Field, ...] = ()
    mins: tuple[Field, ...] = ()
    zero: Field | None = None

    def __str__(self) -> str:
        def fields(those: Sequence[Field]) -> str:
            return "[" + ", ".join(map(str, those)) + "]"

        table = None
        if self.table is not None:
            table = [float(value) for value in self.table]
        record = None if self.record is None else list(self.record)
        text = _arguments([
            ("codes", f"<{self.codes.parameters()}>", None),
            ("record", record, None), ("offset", self.offset, 0), ("table", table, None),
            ("scales", fields(self.scales), "[]"), ("mins", fields(self.mins), "[]"),
            ("zero", None if self.zero is None else f"<{self.zero.parameters()}>", None)])
        return f"#moe.format<{text}>"

    def row_bytes(self, columns: int) -> int:
        """Return the bytes of a row of ``columns`` elements in records."""
        assert self.record is not None
        return -(-columns // self.record[0]) * self.record[1]

    def decode(self, operands: Sequence[ArrayLike], shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the weights in f32.

        Args:
          operands: the tensors of the fields; their leading dimensions are those of
            ``shape``.
          shape: that of the weights, ``[…, rows, columns]``.
        """
        arrays = [np.asarray(operand) for operand in operands]
        with np.errstate(all="ignore"):  # as the hardware computes
            codes = self._codes(self.codes, arrays, shape)
            if self.table is not None:
                value = np.array(self.table, np.float32)[codes]
            else:
                value = self.codes.number(codes)
            value = value - np.float32(self.offset)
            if self.zero is not None:
                value = value - self.zero.number(self._codes(self.zero, arrays, shape))
            if self.scales:
                value = self._product(self.scales, arrays, shape) * value
            if self.mins:
                value = value - self._product(self.mins, arrays, shape)
        return value.astype(np.float32)

    def _product(self, factors, arrays, shape):
        result = None
        for field in factors:
            factor = field.number(self._codes(field, arrays, shape))
            if field.divide:
                result = (np.float32(1) if result is None else result) / factor
            else:
                result = factor if result is None else result * factor
        return result

    def _codes(self, field: Field, arrays, shape: Sequence[int]) -> NDArray[np.int64]:
        """Return the code of a field for every element."""
        array = arrays[field.operand]
        *leading, rows, columns = shape
        n, k = np.arange(rows) // field.block[0], np.arange(columns) // field.block[1]
        count = -(-rows // field.block[0]), -(-columns // field.block[1])
        if not field.bits:
            unsigned = array.view(f"u{array.dtype.itemsize}").astype(np.int64)
            unsigned = unsigned.reshape(*leading, *count)  # last extents of 1 may be missing
            return unsigned[..., n[:, None], k[None, :]]
        if field.axis == 0:
            # The bytes of a column, in order.
            words = np.ascontiguousarray(np.swapaxes(array, -1, -2))
            bytes_ = words.view(np.uint8).reshape(*words.shape[:-1], -1)
            packed = self._read(field, bytes_, np.zeros(count[0], np.int64), np.arange(count[0]))
            return np.swapaxes(packed, -1, -2)[..., n[:, None], k[None, :]]
        flat = np.ascontiguousarray(array).view(np.uint8)
        bytes_ = flat.reshape(*array.shape[:len(leading) + 1], -1)
        element = np.arange(columns)
        start, index = np.zeros(columns, np.int64), element // field.block[1]
        if self.record is not None and field.operand == 0:
            start = element // self.record[0] * self.record[1]
            index = element % self.record[0] // field.block[1]
        return self._read(field, bytes_, start, index)[..., n, :]

    @staticmethod
    def _read(field: Field, bytes_, start, index) -> NDArray[np.int64]:
        return sum(bits.read(bytes_, start, index) for bits in field.bits)


def _record(element: str, *bits: Bits, columns: int) -> Field:
    return Field(element, block=(1, columns), bits=bits)


def _six_bits(low: int, high: int, bit: int) -> tuple[Bits, ...]:
    """The eight numbers of 6 bits in the scales of K-quants: four lie whole in the bytes from
    ``low`` on, and lend their upper two bits to the other four, whose lower four begin at
    ``bit`` of the bytes from ``high`` on."""
    return (Bits(6, byte=low, run=4, count=4),
            Bits(4, byte=high, bit=bit, run=4, first=4, count=4),
            Bits(2, byte=low, bit=6, run=4, first=4, count=4, shift=4))


GGUF = {
    "q8_0": Format(_record("si8", Bits(8, byte=2), columns=1), record=(32, 34),
                   scales=(_record("f16", Bits(16), columns=32),)),
    "q4_0": Format(_record("ui4", Bits(4, byte=2, run=16), columns=1), record=(32, 18), offset=8,
                   scales=(_record("f16", Bits(16), columns=32),)),
    "mxfp4": Format(_record("f4E2M1FN", Bits(4, byte=1, run=16), columns=1), record=(32, 17),
                    scales=(_record("f8E8M0FNU", Bits(8), columns=32),)),
    "q4_K": Format(_record("ui4", Bits(4, byte=16, run=32), columns=1), record=(256, 144),
                   scales=(_record("f16", Bits(16), columns=256),
                           _record("ui6", *_six_bits(4, 12, 0), columns=32)),
                   mins=(_record("f16", Bits(16, byte=2), columns=256),
                         _record("ui6", *_six_bits(8, 12, 4), columns=32))),
    "q6_K": Format(_record("ui6", Bits(4, run=64), Bits(2, byte=128, run=32, shift=4), columns=1),
                   record=(256, 210), offset=32,
                   scales=(_record("f16", Bits(16, byte=208), columns=256),
                           _record("si8", Bits(8, byte=192), columns=16))),
}
