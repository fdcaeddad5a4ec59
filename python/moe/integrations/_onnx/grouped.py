"""The function GroupedMatMul of ONNX (proposal 0010): a product with the matrix of each choice.

``input [M, K]``, ``weights [G, K, N]``, ``group_indices [M, k]`` in [-G, G) and perhaps ``bias
[G, N]`` give ``[M, k, N]``. Negative ids count from the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from ... import ir
from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._imported import Imported
from .arrays import array_of
from .quantized import FLOATS

OP_TYPE = "GroupedMatMul"
DOMAINS = "", "ai.onnx"


def is_grouped_matmul(node: onnx.NodeProto) -> bool:
    return node.op_type == OP_TYPE and node.domain in DOMAINS


def build(graph: onnx.GraphProto, node: onnx.NodeProto, directory: str) -> Imported:
    """Write a node as a function of its rows and ids, with the weights it has."""
    initializers = {t.name: t for t in graph.initializer}
    types = {value.name: value.type.tensor_type for value in (*graph.input, *graph.value_info)}

    def fail(message: str, code: int = INVALID_ARGUMENT) -> MoEError:
        return MoEError(code, f"node '{node.name}': {message}")

    def weight(position: int, what: str) -> np.ndarray:
        name = node.input[position]
        if name not in initializers:
            raise fail(f"expected {what} '{name}' to be an initializer", UNIMPLEMENTED)
        return array_of(initializers[name], directory, f"node '{node.name}': ")

    matrices = weight(1, "weights")
    if matrices.ndim != 3 or matrices.dtype not in FLOATS:
        raise fail("expected weights [groups, K, N] in f32, f16 or bf16, got "
                   f"{matrices.dtype}{list(matrices.shape)}")
    groups, k, n = matrices.shape
    element = FLOATS[matrices.dtype]
    indices = types.get(node.input[2])
    dims = indices.shape.dim if indices is not None and indices.HasField("shape") else ()
    if len(dims) != 2 or not dims[1].dim_value:
        raise fail(f"expected group_indices '{node.input[2]}' to be a matrix whose second extent "
                   "the graph's inputs or value_info have")
    choices = dims[1].dim_value
    f = ir.Function("layer")
    x = f.input("input", (None, k), element)
    given = f.input("group_indices", (None, choices), "i64")
    ids = _experts_of(f, given, groups)
    arrays = {"weights": matrices}
    params = [f.weight("weights", matrices.shape, element)]
    if len(node.input) > 3 and node.input[3]:
        arrays["bias"] = weight(3, "bias")
        if arrays["bias"].shape != (groups, n):
            raise fail(f"expected bias of shape {[groups, n]}, got {list(arrays['bias'].shape)}")
        params.append(f.weight("bias", (groups, n), element))

    def product(rows: ir.Value, matrix: ir.Value, *bias: ir.Value) -> ir.Value:
        y = f.matmul(rows, matrix)
        if bias:
            y = f.elementwise(lambda a, b: a + b, y, *bias)
        return f.convert(y, element)

    rows, offsets, positions = f.dispatch(x, ids, experts=groups)
    y = f.expert(rows, offsets, params, product)
    # A token of its own for each choice.
    flat = f.create("tensor.collapse_shape", [positions], [ir.TensorType((None,), "i32")],
                    {"reassociation": ir.Attribute("[[0, 1]]")})[0]
    tokens = f.create("tensor.dim", [flat, f.index(0)], ["index"])
    alone = f.create("tensor.expand_shape", [flat, *tokens], [ir.TensorType((None, 1), "i32")], {
        "reassociation": ir.Attribute("[[0, 1]]"), **_shape(None, 1)})[0]
    result = f.combine(y, alone)
    tokens = f.create("tensor.dim", [given, f.index(0)], ["index"])
    f.output("output", f.create(
        "tensor.expand_shape", [result, *tokens], [ir.TensorType((None, choices, n), element)],
        {"reassociation": ir.Attribute("[[0, 1], [2]]"), **_shape(None, choices, n)})[0])
    return Imported(str(f), arrays)


def _shape(*extents: int | None) -> dict[str, Any]:
    text = ", ".join(str(-(1 << 63) if extent is None else extent) for extent in extents)
    return {"static_output_shape": ir.Attribute(f"array<i64: {text}>")}


def _experts_of(f: ir.Function, given: ir.Value, groups: int) -> ir.Value:
    """Return ids in [0, groups) as i32; -1, no expert, for those that are out of range."""
    tokens = f.create("tensor.dim", [given, f.index(0)], ["index"])

    def splat(value: int) -> ir.Value:
        scalar = f.create("arith.constant", [], ["i64"], {"value": ir.Attribute(f"{value} : i64")})
        return f.create("tensor.splat", [*scalar, *tokens], [given.type])[0]

    def compare(predicate: int, a: ir.Value, b: ir.Value) -> ir.Value:
        return f.create("arith.cmpi", [a, b], [ir.TensorType(given.shape, "i1")],
                        {"predicate": ir.Attribute(f"{predicate} : i64")})[0]

    negative = compare(2, given, splat(0))  # slt
    wrapped = f.create("arith.addi", [given, splat(groups)], [given.type])[0]
    ids = f.create("arith.select", [negative, wrapped, given], [given.type])[0]
    known = compare(6, ids, splat(groups))  # ult
    ids = f.create("arith.select", [known, ids, splat(-1)], [given.type])[0]
    return f.create("arith.trunci", [ids], [ir.TensorType(given.shape, "i32")])[0]
