"""Extents of tensors of a program: which are the same number, where shapes are dynamic."""

from __future__ import annotations

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

__all__ = ["ELEMENTWISE", "ints", "is_size", "number_of", "extent_of"]

ELEMENTWISE = frozenset("stablehlo." + name for name in (
    "abs add and clamp compare convert cosine divide exponential exponential_minus_one floor log "
    "log_plus_one logistic maximum minimum multiply negate not or power remainder rsqrt select "
    "sign sine sqrt subtract tanh xor").split()) | {"chlo.erf", "chlo.square"}
# With the operand that is the shape.
SHAPED = {"stablehlo.dynamic_broadcast_in_dim": 1, "stablehlo.dynamic_reshape": 1,
          "stablehlo.dynamic_iota": 0}
Number = int | ir.Value | None


def ints(op: ir.Operation, name: str) -> list[int]:
    return list(ir.DenseI64ArrayAttr(op.attributes[name]))


def is_size(op: ir.Operation, dimension: int) -> bool:
    """Is it the extent of this dimension?"""
    return (op.name == "stablehlo.get_dimension_size"
            and ir.IntegerAttr(op.attributes["dimension"]).value == dimension)


def _operation(value: ir.Value) -> ir.Operation | None:
    return None if isinstance(value.owner, ir.Block) else value.owner.operation


def number_of(vector: ir.Value, place: int = 0) -> Number:
    """Return an element of a tensor of integers: a number, or the value that it comes from."""
    op = _operation(vector)
    if op is None:
        return vector
    if op.name == "stablehlo.constant":
        values = list(ir.DenseIntElementsAttr(op.attributes["value"]))
        return int(values[place if len(values) > 1 else 0])
    if op.name == "stablehlo.concatenate":
        for part in op.operands:
            if place < (extent := part.type.get_dim_size(0)):
                return number_of(part, place)
            place -= extent
    if op.name in ("stablehlo.reshape", "stablehlo.convert", "stablehlo.broadcast_in_dim"):
        source = op.operands[0].type
        if source.rank == 0 or source.shape == [1] or op.name == "stablehlo.convert":
            return number_of(op.operands[0], place if source.rank and source.shape != [1] else 0)
        return None
    return vector


def extent_of(value: ir.Value, dim: int, depth: int = 50) -> Number:
    """Return an extent as ``number_of`` does, as far as it is known."""
    type_ = value.type
    if not isinstance(type_, ir.RankedTensorType):
        return None
    if not type_.is_dynamic_dim(dim):
        return type_.get_dim_size(dim)
    op = _operation(value)
    if op is None or depth == 0:
        return None

    def of(operand: ir.Value, at: int) -> Number:
        return extent_of(operand, at, depth - 1)

    if op.name in SHAPED:
        return number_of(op.operands[SHAPED[op.name]], dim)
    if op.name in ELEMENTWISE:
        same = [x for x in op.operands if x.type.rank == type_.rank]
        return next((found for x in same if (found := of(x, dim)) is not None), None)
    if op.name == "stablehlo.transpose":
        return of(op.operands[0], ints(op, "permutation")[dim])
    if op.name == "stablehlo.reduce" and len(op.results) == 1:
        kept = [d for d in range(op.operands[0].type.rank) if d not in ints(op, "dimensions")]
        return of(op.operands[0], kept[dim])
    if op.name == "stablehlo.dot_general":
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        left, right = ([d for d in range(op.operands[i].type.rank) if d not in batch + over]
                       for i, (batch, over) in enumerate((
                           (list(numbers.lhs_batching_dimensions),
                            list(numbers.lhs_contracting_dimensions)),
                           (list(numbers.rhs_batching_dimensions),
                            list(numbers.rhs_contracting_dimensions)))))
        places = [*((0, d) for d in numbers.lhs_batching_dimensions), *((0, d) for d in left),
                  *((1, d) for d in right)]
        operand, at = places[dim]
        return of(op.operands[operand], at)
    return None
