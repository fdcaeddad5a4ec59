"""What elementwise operations of ATen do with integers and truth values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .function import IntegerBody
from .scalars import Scalar

__all__ = ["INTEGER_RULES"]

aten = torch.ops.aten

Rule = Callable[..., Scalar]


def _integer(name: str) -> Rule:
    """Integers and truth values, which count as 0 and 1."""
    def rule(b: IntegerBody, x: Any, y: Any, alpha: int = 1, **_: Any) -> Scalar:
        known = [v.element for v in (x, y) if isinstance(v, Scalar)]
        wide = "i32" if set(known) == {"i32"} else "i64"
        x, y = (b.cast(v, wide) if isinstance(v, Scalar) else
                b.let(wide, f"arith.constant {int(v)} : {wide}") for v in (x, y))
        if alpha != 1:
            factor = b.let(wide, f"arith.constant {int(alpha)} : {wide}")
            y = b.let(wide, f"arith.muli {y.name}, {factor.name} : {wide}")
        result = "i1" if name.startswith("cmpi") else wide
        return b.let(result, f"arith.{name} {x.name}, {y.name} : {wide}")
    return rule


def _divide(b: IntegerBody, x: Any, y: Any, rounding_mode: str | None = None) -> Scalar:
    return _integer("floordivsi" if rounding_mode == "floor" else "divsi")(b, x, y)


def _remainder(b: IntegerBody, x: Any, y: Any) -> Scalar:
    """What is left of a division that rounds down."""
    return _integer("subi")(b, x, _integer("muli")(b, _integer("floordivsi")(b, x, y), y))


def _clamp(b: IntegerBody, x: Any, min: Any = None, max: Any = None) -> Scalar:
    if min is not None:
        x = _integer("maxsi")(b, x, min)
    return x if max is None else _integer("minsi")(b, x, max)


def _not(b: IntegerBody, x: Scalar) -> Scalar:
    ones = b.let(x.element, "arith.constant true" if x.element == "i1" else
                 f"arith.constant -1 : {x.element}")
    return b.let(x.element, f"arith.xori {x.name}, {ones.name} : {x.element}")


def _logical_not(b: IntegerBody, x: Scalar) -> Scalar:
    return _not(b, b.cast(x, "i1"))


def _logical(name: str) -> Rule:
    def rule(b: IntegerBody, x: Scalar, y: Scalar) -> Scalar:
        return b.let("i1", f"arith.{name} {b.cast(x, 'i1').name}, {b.cast(y, 'i1').name} : i1")
    return rule


# Where no operand is a float.
INTEGER_RULES: dict[Any, Rule] = {
    aten.add: _integer("addi"), aten.sub: _integer("subi"), aten.mul: _integer("muli"),
    aten.div: _divide, aten.remainder: _remainder, aten.clamp: _clamp,
    aten.clamp_min: lambda b, x, y: _clamp(b, x, min=y),
    aten.clamp_max: lambda b, x, y: _clamp(b, x, max=y),
    aten.minimum: _integer("minsi"), aten.maximum: _integer("maxsi"),
    aten.eq: _integer("cmpi eq,"), aten.ne: _integer("cmpi ne,"), aten.lt: _integer("cmpi slt,"),
    aten.le: _integer("cmpi sle,"), aten.gt: _integer("cmpi sgt,"),
    aten.ge: _integer("cmpi sge,"),
    aten.bitwise_and: _integer("andi"), aten.bitwise_or: _integer("ori"),
    aten.bitwise_not: _not, aten.logical_not: _logical_not,
    aten.logical_and: _logical("andi"), aten.logical_or: _logical("ori"),
}
