"""Weights of ``com.microsoft.QMoE``: the formats that the operator defines, as #moe.format.

A matrix ``[N, K]`` of an expert has a row for each output. Integers of 2, 4 and 8 bits and floats
of 4 and 8 stay as they are; those of 3 bits, which cross bytes, get 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np

from ... import ir
from ..._error import UNIMPLEMENTED

if TYPE_CHECKING:
    from .node import Node

KINDS = "int", "fp8", "fp4", "nvfp4"
FLOATS = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16",
          np.dtype(ml_dtypes.bfloat16): "bf16"}


def check(node: Node) -> None:
    """Refuse a node whose weights are in a format that is not known."""
    kind = kind_of(node)
    if kind not in KINDS:
        raise node.fail(f"expected quant_type {', '.join(KINDS)}, got '{kind}'", UNIMPLEMENTED)
    for name in ("fc1", "fc2", "fc3"):
        if bits_of(node, name) not in (2, 3, 4, 8):
            raise node.fail("expected expert_weight_bits 2, 3, 4 or 8, got "
                            f"{bits_of(node, name)}")
    if kind == "int" and node.number("weights_prepacked", -1) == 1:
        raise node.fail("expected weights that are not prepacked", UNIMPLEMENTED)


def kind_of(node: Node) -> str:
    return node.number("quant_type", b"int").decode()


def bits_of(node: Node, name: str) -> int:
    if kind_of(node) != "int":
        return 8 if kind_of(node) == "fp8" else 4
    return node.number(f"{name}_expert_weight_bits", node.number("expert_weight_bits", 4))


def extents(node: Node, first: np.ndarray, second: np.ndarray, halves: int) -> tuple[int, int, int]:
    """Return the experts, the width of a token and that of an expert."""
    if kind_of(node) == "nvfp4":  # of these the extents are those of the transposed matrices
        return first.shape[0], first.shape[1], second.shape[1]
    return first.shape[0], second.shape[1], first.shape[1] // halves


def dequantized(node: Node, name: str, array: np.ndarray, shape: tuple[int, int, int]) -> ir.Value:
    """Return a matrix, decoded in the function."""
    experts, rows, columns = shape
    kind, bits = kind_of(node), bits_of(node, name)
    operands: list[ir.Value] = []

    def operand(suffix: str, value: np.ndarray, element: str) -> int:
        operands.append(node.weight(name + suffix, value, element))
        return len(operands) - 1

    offset, zero = 0, ""
    if kind == "int":
        node.expect(name, array, (experts, rows, -(-columns * bits // 8)))
        size = node.number("block_size", 0) or columns
        if columns % size:
            raise node.fail(f"expected a block_size that divides {columns}, got {size}")
        if bits == 3:
            array, bits = _to_nibbles(array, columns), 4
            offset = 4
        else:
            offset = 1 << bits - 1
        codes = f"element = ui{bits}" + (f", bits = [#moe.bits<width = {bits}>]" if bits < 8
                                         else "")
        operand("", array.view(np.int8), "i8")
        scales = [_block_scale(node, name, operand, (experts, rows, columns // size), size,
                               by_row=columns == size)]
        if (zeros := node.read(name + "_zero_points")) is not None:
            if bits_of(node, name) == 3:
                _expect_middle(node, name, zeros, columns // size)
            else:
                zero = _zero(node, name, zeros, operand, bits, shape, size)
                offset = 0
    elif kind == "fp8":
        node.expect(name, array, shape)
        codes = "element = f8E4M3FN"
        operand("", array.view(ml_dtypes.float8_e4m3fn), "f8E4M3FN")
        if (size := node.number("block_size", 0)) > 0:
            blocks = (experts, -(-rows // size), -(-columns // size))
            scales = [_scale(node, name + "_scales", operand, "_scale", [blocks],
                             f"[{size}, {size}]")]
        else:
            scales = [_global_scale(node, name, operand, shape)]
    else:
        size = 16 if kind == "nvfp4" else 32
        if columns % size:
            raise node.fail(f"expected rows of {name} of whole blocks of {size}, got {columns}")
        if kind == "nvfp4":
            node.expect(name, array, (experts, columns, rows // 2))
            array = (array.reshape(experts, rows, columns // 2)
                     if node.number("weights_prepacked", -1) == 1 else _transpose_nibbles(array))
        node.expect(name, array, (experts, rows, columns // 2))
        codes = "element = f4E2M1FN, bits = [#moe.bits<width = 4>]"
        operand("", np.ascontiguousarray(array).view(np.int8), "i8")
        element = np.dtype(ml_dtypes.float8_e4m3fn if kind == "nvfp4" else
                           ml_dtypes.float8_e8m0fnu)
        scales = [_scale(node, name + "_scales", operand, "_scale",
                         [(experts, rows, columns // size)], f"[1, {size}]", element),
                  _global_scale(node, name, operand, shape)]
    text = (f"#moe.format<codes = <{codes}>, offset = {offset}, scales = [{', '.join(scales)}]"
            f"{zero}>")
    return node.function.create("moe.dequantize", operands, [ir.TensorType(shape, node.element)],
                                {"format": ir.Attribute(text)})[0]


def _scale(node, what, operand, suffix, shapes, block, element=None) -> str:
    array = node.read(what)
    if array is None:
        raise node.fail(f"expected {what}")
    if element is None:
        if array.dtype not in FLOATS:
            raise node.fail(f"expected {what} in f32, f16 or bf16, got {array.dtype}")
        text = FLOATS[array.dtype]
    else:
        if array.dtype != element:
            raise node.fail(f"expected {what} in {element}, got {array.dtype}")
        text = {"float8_e4m3fn": "f8E4M3FN", "float8_e8m0fnu": "f8E8M0FNU"}[element.name]
    index = operand(suffix, node.expect(what, array, *shapes).reshape(shapes[0]), text)
    return f"#moe.field<element = {text}, operand = {index}, block = {block}>"


def _block_scale(node, name, operand, shape, size, by_row) -> str:
    shapes = [shape, shape[:2]] if by_row else [shape]
    return _scale(node, name + "_scales", operand, "_scale", shapes, f"[1, {size}]")


def _global_scale(node, name, operand, shape) -> str:
    return _scale(node, name + "_global_scale", operand, "_global_scale",
                  [(shape[0], 1, 1), (shape[0],)], f"[{shape[1]}, {shape[2]}]",
                  None)


def _zero(node, name, zeros, operand, bits, shape, size) -> str:
    """Those of blocks are packed along a row, those of whole rows along the rows."""
    experts, rows, columns = shape
    per_byte, block = 8 // bits, f"block = [1, {size}]"
    packed, axis = (experts, rows, -(-(columns // size) // per_byte)), ""
    if not node.number("block_size", 0):
        packed, axis = (experts, -(-rows // per_byte), 1), ", axis = 0" if bits < 8 else ""
    node.expect(name + "_zero_points", zeros, packed, *([packed[:2]] if packed[2] == 1 else []))
    index = operand("_zero_point", zeros.reshape(packed).view(np.int8), "i8")
    packing = f", bits = [#moe.bits<width = {bits}>]" if bits < 8 else ""
    return f", zero = <element = ui{bits}, operand = {index}, {block}{axis}{packing}>"


# -- packed codes ---------------------------------------------------------------


def _unpack(array: np.ndarray, bits: int, count: int) -> np.ndarray:
    """Return the first codes of each row of bytes, the lowest bits first."""
    stream = np.unpackbits(array, axis=-1, bitorder="little")[..., :count * bits]
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return (stream.reshape(*array.shape[:-1], count, bits) * weights).sum(-1, dtype=np.uint8)


def _pack_nibbles(codes: np.ndarray) -> np.ndarray:
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], -1)
    return codes[..., 0::2] | codes[..., 1::2] << 4


def _by_expert(array: np.ndarray, convert) -> np.ndarray:
    """Convert one expert at a time, which takes a fraction of the memory."""
    return np.stack([convert(expert) for expert in array])


def _to_nibbles(array: np.ndarray, columns: int) -> np.ndarray:
    return _by_expert(array, lambda expert: _pack_nibbles(_unpack(expert, 3, columns)))


def _transpose_nibbles(array: np.ndarray) -> np.ndarray:
    return _by_expert(array, lambda expert: _pack_nibbles(np.ascontiguousarray(
        _unpack(expert, 4, 2 * expert.shape[-1]).T)))


def _expect_middle(node: Node, name: str, zeros: np.ndarray, blocks: int) -> None:
    if (_unpack(zeros, 3, blocks) != 4).any():
        raise node.fail(f"expected {name}_zero_points of 3 bits to be 4")
