"""Translates a torch function of the columns of a row to the body of a ``linalg.generic``.

``trace`` runs the function once under ``make_fx`` and translates its ATen operations.
torch's decompositions reduce composite operations, so that any activation that is
elementwise in the end is supported. An operation computes in f32 and rounds to the type
of its result, like torch's CPU kernels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.fx.experimental.proxy_tensor import make_fx

from .._error import UNIMPLEMENTED, MoEError

aten, prims = torch.ops.aten, torch.ops.prims

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


@dataclass(frozen=True)
class Columns:
    """``count`` columns of the argument from ``offset`` on, every ``stride``-th."""

    offset: int
    stride: int
    count: int


@dataclass(frozen=True)
class Elementwise:
    """A traced function: ``text`` computes ``result`` from ``arguments``.

    Argument ``i`` of the body is an element of ``inputs[i]``, of the type ``element``, as
    is the result.
    """

    inputs: tuple[Columns, ...]
    arguments: tuple[str, ...]
    text: str
    result: str
    element: str
    columns: int


@dataclass(frozen=True)
class _Value:
    """A scalar of the body: one column of ``columns``."""

    name: str
    element: str
    columns: int


def trace(function: Callable[[torch.Tensor], torch.Tensor], columns: int, dtype: torch.dtype,
          what: str) -> Elementwise:
    """Trace ``function`` on rows of ``columns`` elements of ``dtype``.

    Raises ``MoEError`` for a function that is not elementwise, or that uses an operation
    without a translation; ``what`` names the function in the message.
    """
    handled = {overload for packet in _HANDLED for overload in _overloads(packet)}
    table = {op: rule for op, rule in decomposition_table.items() if op not in handled}
    with torch.no_grad():
        # Two rows, so that a function of the whole tensor is visible in the shapes.
        example = torch.zeros(2, columns, dtype=dtype)
        try:
            graph = make_fx(lambda x: function(x), decomposition_table=table)(example)
        except Exception as error:
            raise MoEError(UNIMPLEMENTED, f"{what} cannot be traced: {error}") from error
    return _Translation(graph, columns, DTYPES[dtype], what).run()


def _overloads(packet: Any) -> list[Any]:
    return [getattr(packet, name) for name in packet.overloads()]


class _Translation:
    def __init__(self, graph: torch.fx.GraphModule, columns: int, element: str, what: str):
        self.graph, self.columns, self.element, self.what = graph, columns, element, what
        self.inputs: dict[Columns, _Value] = {}
        self.lines: list[str] = []
        self.names = 0

    def run(self) -> Elementwise:
        known: dict[torch.fx.Node, Any] = {}
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                known[node] = Columns(0, 1, self.columns)
            elif node.op == "get_attr":
                known[node] = self._constant(node)
            elif node.op == "call_function":
                arguments = torch.fx.map_arg(node.args, known.__getitem__)
                options = dict(torch.fx.map_arg(node.kwargs, known.__getitem__))
                known[node] = self._call(node, arguments, options)
            else:
                return self._output(known[node.args[0]])
        raise self.error("returns nothing")

    def error(self, why: str) -> MoEError:
        return MoEError(UNIMPLEMENTED, f"{self.what} {why}")

    # -- one operation ------------------------------------------------------

    def _constant(self, node: torch.fx.Node) -> float:
        tensor = getattr(self.graph, node.target)
        # A parameter may change later, so it cannot become a constant.
        if isinstance(tensor, torch.nn.Parameter) or tensor.ndim != 0:
            raise self.error(f"uses a {type(tensor).__name__.lower()} of shape "
                             f"{tuple(tensor.shape)}, expected elementwise operations and numbers")
        return tensor.item()

    def _call(self, node: torch.fx.Node, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _VIEWS:
            return _VIEWS[packet](self, *arguments, **options)
        rule = _RULES.get(packet)
        if rule is None:
            raise self.error(f"uses {node.target}, which has no translation to MLIR")
        meta = node.meta["val"] if "val" in node.meta else node.meta["tensor_meta"]
        scalars = [self._scalar(a) for a in arguments]
        widths = {s.columns for s in scalars if isinstance(s, _Value)}
        if len(widths) != 1:
            raise self.error(f"applies {node.target} to {sorted(widths)} columns, expected columns "
                             "of one count")
        width = widths.pop()
        if tuple(meta.shape) != (2, width):
            raise self.error(f"uses {node.target}, which is not elementwise: it makes "
                             f"{tuple(meta.shape)} of (2, {width})")
        result = DTYPES.get(meta.dtype, "i1" if meta.dtype is torch.bool else None)
        if result is None:
            raise self.error(f"computes in {meta.dtype}, expected f32, bf16 or f16")
        return self._convert(rule(self, width, *scalars, **options), result)

    def _scalar(self, value: Any) -> Any:
        """Return columns as a scalar of the body, in f32; anything else unchanged."""
        if isinstance(value, Columns):
            value = self._input(value)
        if isinstance(value, _Value) and value.element in ("bf16", "f16"):
            return self._convert(value, "f32")
        return value

    def _input(self, columns: Columns) -> _Value:
        if columns not in self.inputs:
            name = f"%in{len(self.inputs)}"
            self.inputs[columns] = _Value(name, self.element, columns.count)
        return self.inputs[columns]

    def _output(self, value: Any) -> Elementwise:
        if isinstance(value, Columns):
            value = self._input(value)
        if not isinstance(value, _Value) or value.element != self.element:
            kind = getattr(value, "element", type(value).__name__)
            raise self.error(f"returns {kind}, expected a tensor of {self.element}")
        return Elementwise(tuple(self.inputs), tuple(v.name for v in self.inputs.values()),
                           "\n".join(self.lines), value.name, self.element, value.columns)

    # -- text ---------------------------------------------------------------

    def let(self, width: int, element: str, text: str) -> _Value:
        value = _Value(f"%v{self.names}", element, width)
        self.names += 1
        self.lines.append(f"{value.name} = {text}")
        return value

    def constant(self, value: float) -> str:
        """Return a constant of f32."""
        value = float(value)
        text = f"{value:.9e}" if math.isfinite(value) else {
            math.inf: "0x7F800000", -math.inf: "0xFF800000"}.get(value, "0x7FC00000")
        return self.let(0, "f32", f"arith.constant {text} : f32").name

    def operand(self, value: Any) -> str:
        if isinstance(value, _Value):
            if value.element == "i1":
                raise self.error("computes with truth values, expected floats")
            return value.name
        return self.constant(value)

    def op(self, width: int, name: str, *operands: Any) -> _Value:
        """Return an operation on f32 operands with an f32 result."""
        names = ", ".join(self.operand(o) for o in operands)
        return self.let(width, "f32", f"{name} {names} : f32")

    def _convert(self, value: _Value, element: str) -> _Value:
        if value.element == element:
            return value
        if "i1" in (value.element, element):
            raise self.error(f"converts {value.element} to {element}")
        name = "arith.extf" if element == "f32" else "arith.truncf"
        if value.element != "f32" and element != "f32":
            value = self._convert(value, "f32")
        return self.let(value.columns, element,
                        f"{name} {value.name} : {value.element} to {element}")


# -- views --------------------------------------------------------------------


def _slice(t: _Translation, x: Any, dim: int = 0, start: int | None = None, end: int | None = None,
           step: int = 1) -> Any:
    if dim not in (1, -1):
        raise t.error(f"slices dimension {dim}, expected the columns")
    if not isinstance(x, Columns):
        raise t.error("slices a computed tensor, expected the columns of its argument")
    start, end, step = slice(start, end, step).indices(x.count)
    return Columns(x.offset + start * x.stride, step * x.stride, len(range(start, end, step)))


def _split(t: _Translation, x: Any, sizes: int | Sequence[int], dim: int = 0) -> list[Any]:
    if isinstance(sizes, int):
        sizes = [sizes] * math.ceil(x.count / sizes) if isinstance(x, Columns) else [sizes]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [_slice(t, x, dim, s, s + n) for s, n in zip(starts, sizes)]


_VIEWS: dict[Any, Callable[..., Any]] = {
    aten.slice: _slice, aten.split: _split, aten.split_with_sizes: _split,
    aten.alias: lambda t, x: x, aten.clone: lambda t, x, **_: x, aten.detach: lambda t, x: x,
    aten.lift_fresh_copy: lambda t, x: x, aten.lift_fresh: lambda t, x: x,
}


# -- arithmetic ---------------------------------------------------------------


def _unary(name: str) -> Callable[..., _Value]:
    return lambda t, n, a: t.op(n, name, a)


def _binary(name: str) -> Callable[..., _Value]:
    return lambda t, n, a, b: t.op(n, name, a, b)


def _scaled(name: str) -> Callable[..., _Value]:
    """Scale the second operand of ``add`` or ``sub`` by ``alpha``."""
    def rule(t: _Translation, n: int, a: Any, b: Any, alpha: float = 1) -> _Value:
        return t.op(n, name, a, b if alpha == 1 else t.op(n, "arith.mulf", b, alpha))
    return rule


def _compare(predicate: str) -> Callable[..., _Value]:
    def rule(t: _Translation, n: int, a: Any, b: Any) -> _Value:
        return t.let(n, "i1", f"arith.cmpf {predicate}, {t.operand(a)}, {t.operand(b)} : f32")
    return rule


def _sigmoid_of(t: _Translation, n: int, numerator: Any, a: _Value) -> _Value:
    exp = t.op(n, "math.exp", t.op(n, "arith.negf", a))
    return t.op(n, "arith.divf", numerator, t.op(n, "arith.addf", 1.0, exp))


def _clamp(t: _Translation, n: int, a: _Value, min: Any = None, max: Any = None) -> _Value:
    # NaN is propagated, as in torch.
    if min is not None:
        a = t.op(n, "arith.maximumf", a, min)
    return a if max is None else t.op(n, "arith.minimumf", a, max)


def _pow(t: _Translation, n: int, a: Any, b: Any) -> _Value:
    if b == 2:
        return t.op(n, "arith.mulf", a, a)
    if b == 3:
        return t.op(n, "arith.mulf", t.op(n, "arith.mulf", a, a), a)
    return t.op(n, "math.powf", a, b)


def _where(t: _Translation, n: int, mask: Any, a: Any, b: Any) -> _Value:
    if not isinstance(mask, _Value) or mask.element != "i1":
        raise t.error("selects by something else than a comparison")
    return t.let(n, "f32", f"arith.select {mask.name}, {t.operand(a)}, {t.operand(b)} : f32")


def _gelu(t: _Translation, n: int, a: _Value, approximate: str = "none") -> _Value:
    half = t.op(n, "arith.mulf", 0.5, a)
    if approximate == "tanh":
        cube = t.op(n, "arith.mulf", t.op(n, "arith.mulf", a, a), a)
        inner = t.op(n, "arith.addf", a, t.op(n, "arith.mulf", 0.044715, cube))
        bent = t.op(n, "math.tanh", t.op(n, "arith.mulf", math.sqrt(2 / math.pi), inner))
    else:
        bent = t.op(n, "math.erf", t.op(n, "arith.mulf", a, math.sqrt(0.5)))
    return t.op(n, "arith.mulf", half, t.op(n, "arith.addf", 1.0, bent))


_RULES: dict[Any, Callable[..., _Value]] = {
    aten.add: _scaled("arith.addf"), aten.sub: _scaled("arith.subf"),
    aten.rsub: lambda t, n, a, b, alpha=1: _scaled("arith.subf")(t, n, b, a, alpha),
    aten.mul: _binary("arith.mulf"), aten.div: _binary("arith.divf"),
    aten.minimum: _binary("arith.minimumf"), aten.maximum: _binary("arith.maximumf"),
    aten.neg: _unary("arith.negf"), aten.abs: _unary("math.absf"), aten.exp: _unary("math.exp"),
    aten.expm1: _unary("math.expm1"), aten.log: _unary("math.log"),
    aten.log1p: _unary("math.log1p"),
    aten.sqrt: _unary("math.sqrt"), aten.rsqrt: _unary("math.rsqrt"), aten.erf: _unary("math.erf"),
    aten.tanh: _unary("math.tanh"), aten.pow: _pow, aten.clamp: _clamp,
    aten.clamp_min: lambda t, n, a, b: _clamp(t, n, a, min=b),
    aten.clamp_max: lambda t, n, a, b: _clamp(t, n, a, max=b),
    aten.relu: lambda t, n, a: _clamp(t, n, a, min=0.0),
    aten.reciprocal: lambda t, n, a: t.op(n, "arith.divf", 1.0, a),
    aten.sigmoid: lambda t, n, a: _sigmoid_of(t, n, 1.0, a),
    aten.silu: lambda t, n, a: _sigmoid_of(t, n, a, a),
    aten.gelu: _gelu,
    aten.gt: _compare("ogt"), aten.ge: _compare("oge"), aten.lt: _compare("olt"),
    aten.le: _compare("ole"), aten.eq: _compare("oeq"), aten.ne: _compare("une"),
    aten.where: _where,
    # The type of the result is sufficient.
    aten._to_copy: lambda t, n, a, **_: a, prims.convert_element_type: lambda t, n, a, *_: a,
}
_HANDLED = [*_VIEWS, *_RULES]
