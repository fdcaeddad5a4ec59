"""Operations of tensors and numbers, made before another operation."""

from __future__ import annotations

from jaxlib.mlir import ir

__all__ = ["constant", "constants", "create", "defining", "element"]


def create(name: str, result: ir.Type, operands: list[ir.Value], at: ir.Operation,
           **attributes: ir.Attribute) -> ir.Value:
    with ir.InsertionPoint(at), at.location:
        return ir.Operation.create(name, results=[result], operands=operands,
                                   attributes=attributes).result


def defining(value: ir.Value) -> ir.Operation | None:
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.operation


def constant(value: int, at: ir.Operation) -> ir.Value:
    index = ir.IndexType.get()
    return create("arith.constant", index, [], at, value=ir.IntegerAttr.get(index, value))


def element(vector: ir.Value, place: int, at: ir.Operation) -> ir.Value:
    """Return an element of a tensor of integers as an index, computed without the tensor."""
    owner = defining(vector)
    name = owner.name if owner else ""
    if name == "stablehlo.constant":
        return constant(constants(vector)[place], at)
    if name == "stablehlo.get_dimension_size":
        return create("tensor.dim", ir.IndexType.get(), [owner.operands[0], constant(
            ir.IntegerAttr(owner.attributes["dimension"]).value, at)], at)
    if name == "stablehlo.concatenate":
        for part in owner.operands:
            if place < (extent := part.type.get_dim_size(0)):
                return element(part, place, at)
            place -= extent
    if name in ("stablehlo.reshape", "stablehlo.convert", "stablehlo.broadcast_in_dim"):
        source = owner.operands[0]
        if source.type.rank == 0 or source.type.shape == vector.type.shape == [1]:
            return element(source, 0, at)
    if (quotient := _floor_division(vector)) is not None:
        operands = [element(operand, place, at) for operand in quotient]
        return create("arith.floordivsi", ir.IndexType.get(), operands, at)
    if name in _ARITHMETIC:
        operands = [element(operand, place, at) for operand in owner.operands]
        return create(_ARITHMETIC[name], ir.IndexType.get(), operands, at)
    places = [constant(place, at)] if vector.type.rank else []
    found = create("tensor.extract", vector.type.element_type, [vector, *places], at)
    return create("arith.index_cast", ir.IndexType.get(), [found], at)


_ARITHMETIC = {"stablehlo.add": "arith.addi", "stablehlo.subtract": "arith.subi",
               "stablehlo.multiply": "arith.muli", "stablehlo.maximum": "arith.maxsi",
               "stablehlo.minimum": "arith.minsi"}


def _floor_division(value: ir.Value) -> list[ir.Value] | None:
    """Return the operands if this is one as JAX writes it, by a number above 0."""
    owner = defining(value)
    if owner is None or owner.name != "stablehlo.select":
        return None
    less, quotient = (defining(operand) for operand in list(owner.operands)[1:])
    if quotient is None or less is None or quotient.name != "stablehlo.divide" or (
            less.name != "stablehlo.subtract") or less.operands[0] != quotient.results[0]:
        return None
    by = constants(quotient.operands[1])
    return list(quotient.operands) if by and min(by) > 0 else None


def constants(value: ir.Value) -> list[int] | None:
    """Return the elements of a vector of integers, if they are known."""
    owner = defining(value)
    if owner is None:
        return None
    if owner.name == "stablehlo.concatenate":
        parts = [constants(part) for part in owner.operands]
        return None if any(p is None for p in parts) else [v for part in parts for v in part]
    if owner.name != "stablehlo.constant":
        return None
    return [int(v) for v in ir.DenseIntElementsAttr(owner.attributes["value"])]
