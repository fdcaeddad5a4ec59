"""Functions of single elements: the regions of sorts and scatters as operations of scalars."""

from __future__ import annotations

from jaxlib.mlir import ir

__all__ = ["Scalars", "can_compute"]

# Of floats and of integers; None where there is none.
BINARY = {
    "add": ("arith.addf", "arith.addi"), "subtract": ("arith.subf", "arith.subi"),
    "multiply": ("arith.mulf", "arith.muli"), "divide": ("arith.divf", None),
    "maximum": ("arith.maximumf", "arith.maxsi"), "minimum": ("arith.minimumf", "arith.minsi"),
    "and": (None, "arith.andi"), "or": (None, "arith.ori"), "xor": (None, "arith.xori")}
# Of booleans, of which StableHLO has no sign: -1 is true in one bit.
BOOLEAN = {"add": "arith.ori", "multiply": "arith.andi", "maximum": "arith.ori",
           "minimum": "arith.andi"}
# The predicates of arith.cmpf, and of arith.cmpi of integers and of booleans.
COMPARISONS = {"EQ": (1, 0, 0), "NE": (13, 1, 1), "LT": (4, 2, 6), "LE": (5, 3, 7),
               "GT": (2, 4, 8), "GE": (3, 5, 9)}


def _element(type_: ir.Type) -> ir.Type:
    return type_.element_type if isinstance(type_, ir.RankedTensorType) else type_


def _is_boolean(type_: ir.Type) -> bool:
    return isinstance(type_, ir.IntegerType) and type_.width == 1


def _is_known(type_: ir.Type) -> bool:
    element = _element(type_)
    return isinstance(element, ir.FloatType) or (
        isinstance(element, ir.IntegerType) and element.is_signless)


def _text(op: ir.Operation, name: str) -> str:
    """Return the last word of an attribute: of ``#stablehlo<comparison_direction LT>``, LT."""
    return str(op.attributes[name]).rstrip(">").split()[-1] if name in op.attributes else ""


def can_compute(block: ir.Block) -> bool:
    """Is a block one of scalars that ``Scalars.run`` knows?"""
    for op in (o.operation for o in block.operations):
        name = op.name.split(".")[-1]
        values = [*op.operands, *op.results]
        if not all(_is_known(v.type) and not getattr(v.type, "shape", None) for v in values):
            return False
        if name in ("return", "constant", "select", "compare", "negate", "not"):
            continue
        is_float = isinstance(_element(op.operands[0].type), ir.FloatType) if values else False
        if BINARY.get(name, (None, None))[not is_float] is None:
            return False
    return True


class Scalars:
    """Builds scalars where its insertion point is."""

    def create(self, name: str, type_: ir.Type, *operands: ir.Value,
               **attributes: ir.Attribute) -> ir.Value:
        return ir.Operation.create(name, results=[type_], operands=operands,
                                   attributes=attributes).result

    # -- numbers ----------------------------------------------------------------

    def index(self, value: int) -> ir.Value:
        return self.number(value, ir.IndexType.get())

    def number(self, value: float, type_: ir.Type) -> ir.Value:
        attribute = (ir.FloatAttr if isinstance(type_, ir.FloatType) else ir.IntegerAttr).get(
            type_, value)
        return self.create("arith.constant", type_, value=attribute)

    def cast(self, value: ir.Value, type_: ir.Type) -> ir.Value:
        """Between an index and integers."""
        if value.type == type_:
            return value
        return self.create("arith.index_cast", type_, value)

    def binary(self, name: str, a: ir.Value, b: ir.Value) -> ir.Value:
        of_floats, of_integers = BINARY[name]
        if _is_boolean(a.type):
            of_integers = BOOLEAN.get(name, of_integers)
        return self.create(of_floats if isinstance(a.type, ir.FloatType) else of_integers,
                           a.type, a, b)

    def select(self, condition: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.create("arith.select", a.type, condition, a, b)

    def compare(self, direction: str, a: ir.Value, b: ir.Value, total: bool = False) -> ir.Value:
        if total and isinstance(a.type, ir.FloatType):
            a, b = self.ordered(a), self.ordered(b)
        is_float = isinstance(a.type, ir.FloatType)
        kind = 0 if is_float else 2 if _is_boolean(a.type) else 1
        return self.create(
            "arith.cmpf" if is_float else "arith.cmpi", ir.IntegerType.get_signless(1), a, b,
            predicate=ir.IntegerAttr.get(ir.IntegerType.get_signless(64),
                                         COMPARISONS[direction][kind]))

    def ordered(self, value: ir.Value) -> ir.Value:
        """An integer in the total order of floats: -NaN < -inf < ... < -0 < 0 < ... < NaN."""
        width = value.type.width
        bits = ir.IntegerType.get_signless(width)
        raw = self.create("arith.bitcast", bits, value)
        sign = self.create("arith.shrsi", bits, raw, self.number(width - 1, bits))
        flip = self.create("arith.andi", bits, sign, self.number((1 << (width - 1)) - 1, bits))
        return self.create("arith.xori", bits, raw, flip)

    # -- blocks -----------------------------------------------------------------

    def run(self, block: ir.Block, arguments: list[ir.Value]) -> list[ir.Value]:
        """Return what a block computes of scalars."""
        values = dict(zip(block.arguments, arguments))
        for op in (o.operation for o in block.operations):
            name = op.name.split(".")[-1]
            # Values of before the block are not scalars.
            operands = [values[x] if x in values else self.create(
                "tensor.extract", _element(x.type), x) for x in op.operands]
            if name == "return":
                return operands
            values[op.results[0]] = self.compute(op, name, operands)
        return []

    def compute(self, op: ir.Operation, name: str, operands: list[ir.Value]) -> ir.Value:
        type_ = _element(op.results[0].type)
        if name == "constant":
            value = next(iter(ir.DenseElementsAttr(op.attributes["value"])))
            return self.create("arith.constant", type_, value=value if isinstance(
                value, ir.Attribute) else (ir.FloatAttr if isinstance(type_, ir.FloatType)
                                           else ir.IntegerAttr).get(type_, value))
        if name == "select":
            return self.select(*operands)
        if name == "compare":
            return self.compare(_text(op, "comparison_direction"), *operands,
                                total=_text(op, "compare_type") == "TOTALORDER")
        if name == "negate":
            if isinstance(type_, ir.FloatType):
                return self.create("arith.negf", type_, operands[0])
            return self.binary("subtract", self.number(0, type_), operands[0])
        if name == "not":
            return self.binary("xor", operands[0], self.number(-1, type_))
        return self.binary(name, *operands)
