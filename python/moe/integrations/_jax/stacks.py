"""Weights that a function puts together, as one array: prepared once, not in every call.

Experts that are arrays of their own are stacked by the passes that raise them, or by the function
itself. What is made of weights alone, and of several of them, is made here, of their arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxlib.mlir import ir

from .build import defining
from .extents import ints

__all__ = ["stack_weights"]

Array = Any
DTYPES = {"f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16"}


def stack_weights(function: ir.Operation, arguments: Sequence[tuple[str, str]],
                  weights: dict[str, Array]) -> list[tuple[str, str]]:
    """Make what a function computes of several of its weights one of its arguments.

    Returns the names and roles that its arguments have then. ``weights`` gets the new arrays, and
    loses those that nothing else needs.
    """
    block = function.regions[0].blocks[0]
    names = {value: name for value, (name, role) in zip(block.arguments, arguments)
             if role == "weight"}
    # The weights that each value is made of.
    of: dict[ir.Value, frozenset[str]] = {v: frozenset([name]) for v, name in names.items()}
    for op in (o.operation for o in block.operations):
        if op.name in VIEWS and len(op.results) == 1 and all(x in of for x in op.operands):
            of[op.results[0]] = frozenset().union(*(of[x] for x in op.operands))
    signature, made = list(arguments), []
    for value, leaves in of.items():
        # What is made of it is made of it at once.
        if value not in names and len(leaves) > 1 and any(not any(
                result in of for result in use.owner.operation.results) for use in value.uses):
            name = _name([names[v] for v in names if names[v] in leaves], weights)
            weights[name] = _evaluate(value, names, weights)
            made.append((value, name))
    for value, name in made:
        value.replace_all_uses_with(block.add_argument(value.type, function.location))
        signature.append((name, "weight"))
    if not made:
        return signature
    for op in [o.operation for o in block.operations][::-1]:
        if op.name in VIEWS and not any(True for r in op.results for _ in r.uses):
            op.erase()
    for index in range(len(signature))[::-1]:
        name, role = signature[index]
        if role == "weight" and name in names.values() and not any(
                True for _ in block.arguments[index].uses):
            block.erase_argument(index)
            del signature[index], weights[name]
    results = [value.type for value in list(block.operations)[-1].operands]
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get([argument.type for argument in block.arguments], results))
    return signature


def _name(names: list[str], taken: dict[str, Array]) -> str:
    """Return the name of several weights: ``experts.*.up`` of experts.0.up and experts.1.up."""
    parts = [name.split(".") for name in names]
    differ = [i for i, each in enumerate(zip(*parts)) if len(set(each)) > 1]
    if len({len(p) for p in parts}) == 1 and len(differ) == 1 and all(
            p[differ[0]].isdigit() for p in parts):
        joined = ".".join("*" if i == differ[0] else part for i, part in enumerate(parts[0]))
    else:
        joined = "+".join(names)
    name, count = joined, 0
    while name in taken:
        count += 1
        name = f"{joined}_{count}"
    return name


# -- arrays -------------------------------------------------------------------


def _evaluate(value: ir.Value, names: dict[ir.Value, str], weights: dict[str, Array]) -> Array:
    """Compute an array, which nothing else has, of those of the weights."""
    if value in names:
        return np.asarray(weights[names[value]])
    op = defining(value)
    return VIEWS[op.name](op, lambda x: _evaluate(x, names, weights))


def _shape(op: ir.Operation) -> list[int]:
    return list(op.results[0].type.shape)


def _dtype(type_: ir.Type) -> np.dtype:
    if (name := DTYPES.get(str(type_.element_type), "")) == "bfloat16":
        import ml_dtypes  # a dependency of JAX

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name or "V1")


def _broadcast(op: ir.Operation, get: Callable[[ir.Value], Array]) -> Array:
    source, shape = get(op.operands[0]), [1] * len(_shape(op))
    for dim, extent in zip(ints(op, "broadcast_dimensions"), source.shape):
        shape[dim] = extent
    return np.broadcast_to(source.reshape(shape), _shape(op))


def _slice(op: ir.Operation, get: Callable[[ir.Value], Array]) -> Array:
    return get(op.operands[0])[tuple(map(slice, *(
        ints(op, name) for name in ("start_indices", "limit_indices", "strides"))))]


def _insert(op: ir.Operation, get: Callable[[ir.Value], Array]) -> Array:
    starts, sizes, strides = (list(ir.DenseI64ArrayAttr(op.attributes[name])) for name in (
        "static_offsets", "static_sizes", "static_strides"))
    into = get(op.operands[1])
    into[tuple(slice(start, start + (size - 1) * stride + 1, stride) for start, size, stride in zip(
        starts, sizes, strides))] = get(op.operands[0]).reshape(sizes)
    return into


VIEWS: dict[str, Callable[[ir.Operation, Callable[[ir.Value], Array]], Array]] = {
    "stablehlo.broadcast_in_dim": _broadcast,
    "stablehlo.reshape": lambda op, get: get(op.operands[0]).reshape(_shape(op)),
    "stablehlo.transpose": lambda op, get: get(op.operands[0]).transpose(ints(op, "permutation")),
    "stablehlo.concatenate": lambda op, get: np.concatenate(
        [get(x) for x in op.operands], ir.IntegerAttr(op.attributes["dimension"]).value),
    "stablehlo.slice": _slice,
    "tensor.empty": lambda op, get: np.empty(_shape(op), _dtype(op.results[0].type)),
    "tensor.insert_slice": _insert,
}
