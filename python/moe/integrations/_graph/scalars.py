"""Writes scalar operations of torch as the body of a ``linalg.generic``.

An operation computes in f32, and its caller rounds to the type of its result, like
torch's CPU kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..._error import UNIMPLEMENTED, MoEError

aten, prims = torch.ops.aten, torch.ops.prims

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


@dataclass(frozen=True)
class Scalar:
    """A value of a body: its name and its type."""

    name: str
    element: str


def float_text(value: float) -> str:
    """Return a number of f32 as MLIR writes it."""
    value = float(value)
    return f"{value:.9e}" if math.isfinite(value) else {
        math.inf: "0x7F800000", -math.inf: "0xFF800000"}.get(value, "0x7FC00000")


class Body:
    """The lines of a body; ``what`` names in messages what it is part of."""

    def __init__(self, what: str):
        self.what = what
        self.lines: list[str] = []

    def error(self, why: str) -> MoEError:
        return MoEError(UNIMPLEMENTED, f"{self.what} {why}")

    def let(self, element: str, text: str) -> Scalar:
        value = Scalar(f"%v{len(self.lines)}", element)
        self.lines.append(f"{value.name} = {text}")
        return value

    def constant(self, value: float) -> Scalar:
        """Return a constant of f32."""
        return self.let("f32", f"arith.constant {float_text(value)} : f32")

    def operand(self, value: Any) -> str:
        """Return the name of a scalar in f32, or of a constant."""
        if not isinstance(value, Scalar):
            return self.constant(value).name
        if value.element == "i1":
            raise self.error("computes with truth values, expected floats")
        return self.convert(value, "f32").name

    def op(self, name: str, *operands: Any) -> Scalar:
        """Return an operation on f32 operands with an f32 result."""
        names = ", ".join([self.operand(o) for o in operands])
        return self.let("f32", f"{name} {names} : f32")

    def convert(self, value: Scalar, element: str) -> Scalar:
        """Return a float in another type."""
        if value.element == element:
            return value
        if "i1" in (value.element, element):
            raise self.error(f"converts {value.element} to {element}")
        if value.element != "f32" and element != "f32":
            value = self.convert(value, "f32")
        name = "arith.extf" if element == "f32" else "arith.truncf"
        return self.let(element, f"{name} {value.name} : {value.element} to {element}")


Rule = Callable[..., Scalar]


def _unary(name: str) -> Rule:
    return lambda b, x: b.op(name, x)


def _binary(name: str) -> Rule:
    return lambda b, x, y: b.op(name, x, y)


def _scaled(name: str) -> Rule:
    """Scale the second operand of ``add`` or ``sub`` by ``alpha``."""
    def rule(b: Body, x: Any, y: Any, alpha: float = 1) -> Scalar:
        return b.op(name, x, y if alpha == 1 else b.op("arith.mulf", y, alpha))
    return rule


def _div(b: Body, x: Any, y: Any, rounding_mode: str | None = None) -> Scalar:
    quotient = b.op("arith.divf", x, y)
    if rounding_mode is None:
        return quotient
    return b.op({"floor": "math.floor", "trunc": "math.trunc"}[rounding_mode], quotient)


def _remainder(b: Body, x: Any, y: Any) -> Scalar:
    """What is left of a division that rounds down."""
    floor = b.op("math.floor", b.op("arith.divf", x, y))
    return b.op("arith.subf", x, b.op("arith.mulf", floor, y))


def _compare(predicate: str) -> Rule:
    def rule(b: Body, x: Any, y: Any) -> Scalar:
        return b.let("i1", f"arith.cmpf {predicate}, {b.operand(x)}, {b.operand(y)} : f32")
    return rule


def _sigmoid_of(b: Body, numerator: Any, x: Any) -> Scalar:
    exp = b.op("math.exp", b.op("arith.negf", x))
    return b.op("arith.divf", numerator, b.op("arith.addf", 1.0, exp))


def _clamp(b: Body, x: Any, min: Any = None, max: Any = None) -> Scalar:
    # NaN is propagated, as in torch.
    if min is not None:
        x = b.op("arith.maximumf", x, min)
    return x if max is None else b.op("arith.minimumf", x, max)


def _pow(b: Body, x: Any, y: Any) -> Scalar:
    if isinstance(y, (int, float)) and y in (2, 3):
        square = b.op("arith.mulf", x, x)
        return square if y == 2 else b.op("arith.mulf", square, x)
    return b.op("math.powf", x, y)


def _where(b: Body, mask: Any, x: Any, y: Any) -> Scalar:
    if not isinstance(mask, Scalar) or mask.element != "i1":
        raise b.error("selects by something else than a comparison")
    return b.let("f32", f"arith.select {mask.name}, {b.operand(x)}, {b.operand(y)} : f32")


def _round(b: Body, x: Any, decimals: int = 0) -> Scalar:
    if decimals:
        raise b.error(f"rounds to {decimals} decimals, expected to whole numbers")
    return b.op("math.roundeven", x)


def _sign(b: Body, x: Any) -> Scalar:
    below = _where(b, _compare("olt")(b, x, 0.0), -1.0, 0.0)
    return _where(b, _compare("ogt")(b, x, 0.0), 1.0, below)


def _elu(b: Body, x: Any, alpha: float = 1.0, scale: float = 1.0,
         input_scale: float = 1.0) -> Scalar:
    bent = b.op("math.expm1", x if input_scale == 1 else b.op("arith.mulf", x, input_scale))
    bent = bent if alpha * scale == 1 else b.op("arith.mulf", bent, alpha * scale)
    same = x if scale == 1 else b.op("arith.mulf", x, scale)
    return _where(b, _compare("ogt")(b, x, 0.0), same, bent)


def _leaky_relu(b: Body, x: Any, negative_slope: float = 0.01) -> Scalar:
    return _where(b, _compare("ogt")(b, x, 0.0), x, b.op("arith.mulf", x, negative_slope))


def _log_of_base(base: int) -> Rule:
    return lambda b, x: b.op("arith.mulf", b.op("math.log", x), 1 / math.log(base))


def _softplus(b: Body, x: Any, beta: float = 1.0, threshold: float = 20.0) -> Scalar:
    scaled = x if beta == 1 else b.op("arith.mulf", x, beta)
    bent = b.op("math.log1p", b.op("math.exp", scaled))
    if beta != 1:
        bent = b.op("arith.divf", bent, beta)
    return _where(b, _compare("ogt")(b, scaled, threshold), x, bent)


def _gelu(b: Body, x: Any, approximate: str = "none") -> Scalar:
    half = b.op("arith.mulf", 0.5, x)
    if approximate == "tanh":
        cube = b.op("arith.mulf", b.op("arith.mulf", x, x), x)
        inner = b.op("arith.addf", x, b.op("arith.mulf", 0.044715, cube))
        bent = b.op("math.tanh", b.op("arith.mulf", math.sqrt(2 / math.pi), inner))
    else:
        bent = b.op("math.erf", b.op("arith.mulf", x, math.sqrt(0.5)))
    return b.op("arith.mulf", half, b.op("arith.addf", 1.0, bent))


# Elementwise operations of ATen by what they do with scalars.
RULES: dict[Any, Rule] = {
    aten.add: _scaled("arith.addf"), aten.sub: _scaled("arith.subf"),
    aten.rsub: lambda b, x, y, alpha=1: _scaled("arith.subf")(b, y, x, alpha),
    aten.mul: _binary("arith.mulf"), aten.div: _div,
    aten.remainder: _remainder, aten.floor: _unary("math.floor"), aten.trunc: _unary("math.trunc"),
    aten.minimum: _binary("arith.minimumf"), aten.maximum: _binary("arith.maximumf"),
    aten.neg: _unary("arith.negf"), aten.abs: _unary("math.absf"), aten.exp: _unary("math.exp"),
    aten.expm1: _unary("math.expm1"), aten.log: _unary("math.log"),
    aten.log1p: _unary("math.log1p"),
    aten.sqrt: _unary("math.sqrt"), aten.rsqrt: _unary("math.rsqrt"), aten.erf: _unary("math.erf"),
    aten.ceil: _unary("math.ceil"), aten.round: _round, aten.sign: _sign,
    aten.sin: _unary("math.sin"), aten.cos: _unary("math.cos"), aten.exp2: _unary("math.exp2"),
    aten.log2: _log_of_base(2), aten.log10: _log_of_base(10),
    aten.elu: _elu, aten.leaky_relu: _leaky_relu,
    aten.hardtanh: lambda b, x, min_val=-1.0, max_val=1.0: _clamp(b, x, min_val, max_val),
    aten.tanh: _unary("math.tanh"), aten.pow: _pow, aten.clamp: _clamp,
    aten.clamp_min: lambda b, x, y: _clamp(b, x, min=y),
    aten.clamp_max: lambda b, x, y: _clamp(b, x, max=y),
    aten.relu: lambda b, x: _clamp(b, x, min=0.0),
    aten.reciprocal: lambda b, x: b.op("arith.divf", 1.0, x),
    aten.sigmoid: lambda b, x: _sigmoid_of(b, 1.0, x),
    aten.silu: lambda b, x: _sigmoid_of(b, x, x),
    aten.gelu: _gelu, aten.softplus: _softplus,
    aten.gt: _compare("ogt"), aten.ge: _compare("oge"), aten.lt: _compare("olt"),
    aten.le: _compare("ole"), aten.eq: _compare("oeq"), aten.ne: _compare("une"),
    aten.isnan: lambda b, x: _compare("uno")(b, x, x),
    aten.isinf: lambda b, x: _compare("oeq")(b, b.op("math.absf", x), math.inf),
    aten.where: _where,
    # The type of the result is sufficient.
    aten._to_copy: lambda b, x, **_: x, prims.convert_element_type: lambda b, x, *_: x,
}
