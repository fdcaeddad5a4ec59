"""Builds the IR of layers, with types, for ``moe.compile``.

    f = ir.Function("layer")
    x = f.input("x", (None, 64), "bf16")              # None is T, the tokens
    router = f.weight("router", (64, 8), "bf16")
    up, down = f.weight("up", (8, 64, 128), "bf16"), f.weight("down", (8, 128, 64), "bf16")
    weights, ids = f.gate(f.matmul(x, router), top_k=2, normalize="sum")
    grouped, offsets, positions = f.dispatch(x, ids, experts=8)
    y = f.expert(grouped, offsets, [up, down], lambda rows, u, d: f.convert(
        f.matmul(f.elementwise(ir.silu, f.matmul(rows, u), element="bf16"), d), "bf16"))
    f.output("y", f.combine(y, positions, weights))
    module = moe.compile(str(f))

An operation checks the shapes and element types of its operands and knows those of its
results. ``str`` of a function is IR in MLIR's generic form, which the compiler verifies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ._error import INVALID_ARGUMENT, MoEError

__all__ = [
    "Attribute", "Function", "Scalar", "TensorType", "Value", "absolute", "erf", "exp", "log",
    "maximum", "minimum", "sigmoid", "silu", "sqrt", "tanh",
]

FLOATS = ("f32", "bf16", "f16")
# NaN, infinity and its negative.
_BITS = {"f64": ("7FF8000000000000", "7FF0000000000000", "FFF0000000000000"),
         "f32": ("7FC00000", "7F800000", "FF800000")}


def _fail(message: str) -> NoReturn:
    raise MoEError(INVALID_ARGUMENT, message)


# --------------------------------------------------------------------------
# Types and attributes
# --------------------------------------------------------------------------

@dataclass(frozen=True)
class TensorType:
    """The type of a ranked tensor; an extent of None is dynamic."""

    shape: tuple[int | None, ...]
    element: str

    def __str__(self) -> str:
        extents = "".join(f"{'?' if e is None else e}x" for e in self.shape)
        return f"tensor<{extents}{self.element}>"


@dataclass(frozen=True)
class Attribute:
    """An attribute as MLIR writes it."""

    text: str

    def __str__(self) -> str:
        return self.text


def _real(value: float, element: str) -> str:
    """A number in decimal, or the bits of one that decimal does not have."""
    if math.isfinite(value):
        return f"{value:.17e} : {element}"
    nan, infinity, negative = _BITS[element]
    return f"0x{nan if math.isnan(value) else infinity if value > 0 else negative} : {element}"


def _text(value: Any) -> str:
    """An attribute of a value of Python: an int is i64, a float f64."""
    if isinstance(value, (Attribute, TensorType)):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value} : i64"
    if isinstance(value, float):
        return _real(value, "f64")
    if isinstance(value, str):
        escaped = "".join(c if c.isprintable() and c.isascii() and c not in '"\\' else
                          "".join(f"\\{byte:02X}" for byte in c.encode()) for c in value)
        return f'"{escaped}"'
    if isinstance(value, Sequence):
        return f"[{', '.join(_text(each) for each in value)}]"
    _fail(f"expected an attribute, got {type(value).__name__}")


def _segments(*sizes: int) -> Attribute:
    return Attribute(f"array<i32: {', '.join(map(str, sizes))}>")


# --------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------

class _Block:
    """Operations in order; ``parent`` is the block around the operation that has it."""

    def __init__(self, parent: _Block | None, arguments: Sequence[tuple[str, str]] = ()):
        self.parent = parent
        self.arguments = arguments
        self.lines: list[str] = []
        self.constants: dict[str, Value] = {}

    def text(self, indent: str) -> str:
        names = ", ".join(f"{name}: {type_}" for name, type_ in self.arguments)
        head = f"{indent}^bb0({names}):\n" if self.arguments else ""
        return head + "".join(f"{indent}  {line}\n" for each in self.lines
                              for line in each.split("\n"))


@dataclass(frozen=True)
class Value:
    """A value of a function: a tensor, or an index if its type is ``"index"``."""

    name: str
    type: TensorType | str
    block: _Block = field(repr=False, compare=False)

    @property
    def shape(self) -> tuple[int | None, ...]:
        return self._tensor().shape

    @property
    def element(self) -> str:
        return self._tensor().element

    def _tensor(self) -> TensorType:
        if isinstance(self.type, str):
            _fail(f"expected a tensor, got a value of type {self.type}")
        return self.type


class Scalar:
    """A float of an elementwise function, with Python's arithmetic; all of it is in f32."""

    def __init__(self, name: str, block: _Block, names: Iterator[str]):
        self.name, self._block, self._names = name, block, names

    def _apply(self, operation: str, *operands: Any) -> Scalar:
        values = [self._of(each) for each in operands]
        result = Scalar(next(self._names), self._block, self._names)
        types = ", ".join(["f32"] * len(values))
        self._block.lines.append(f'{result.name} = "{operation}"('
                                 f"{', '.join(v.name for v in values)}) : ({types}) -> f32")
        return result

    def _of(self, value: Any) -> Scalar:
        if isinstance(value, Scalar):
            if value._block is not self._block:
                _fail("expected a scalar of this elementwise function, got one of another")
            return value
        if not isinstance(value, (int, float)):
            _fail(f"expected a scalar or a number, got {type(value).__name__}")
        result = Scalar(next(self._names), self._block, self._names)
        self._block.lines.append(f'{result.name} = "arith.constant"() '
                                 f"<{{value = {_real(float(value), 'f32')}}}> : () -> f32")
        return result

    def __add__(self, other: Any) -> Scalar:
        return self._apply("arith.addf", self, other)

    def __radd__(self, other: Any) -> Scalar:
        return self._apply("arith.addf", other, self)

    def __sub__(self, other: Any) -> Scalar:
        return self._apply("arith.subf", self, other)

    def __rsub__(self, other: Any) -> Scalar:
        return self._apply("arith.subf", other, self)

    def __mul__(self, other: Any) -> Scalar:
        return self._apply("arith.mulf", self, other)

    def __rmul__(self, other: Any) -> Scalar:
        return self._apply("arith.mulf", other, self)

    def __truediv__(self, other: Any) -> Scalar:
        return self._apply("arith.divf", self, other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return self._apply("arith.divf", other, self)

    def __neg__(self) -> Scalar:
        return self._apply("arith.negf", self)


def exp(x: Scalar) -> Scalar:
    """The exponential function."""
    return x._apply("math.exp", x)


def log(x: Scalar) -> Scalar:
    """The natural logarithm."""
    return x._apply("math.log", x)


def sqrt(x: Scalar) -> Scalar:
    """The square root."""
    return x._apply("math.sqrt", x)


def tanh(x: Scalar) -> Scalar:
    """The hyperbolic tangent."""
    return x._apply("math.tanh", x)


def erf(x: Scalar) -> Scalar:
    """The error function."""
    return x._apply("math.erf", x)


def absolute(x: Scalar) -> Scalar:
    """The absolute value."""
    return x._apply("math.absf", x)


def maximum(x: Scalar, y: Scalar | float) -> Scalar:
    """The larger of two scalars; NaN if one is."""
    return x._apply("arith.maximumf", x, y)


def minimum(x: Scalar, y: Scalar | float) -> Scalar:
    """The smaller of two scalars; NaN if one is."""
    return x._apply("arith.minimumf", x, y)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + exp(-x))


def silu(x: Scalar) -> Scalar:
    """x / (1 + exp(-x))."""
    return x / (1.0 + exp(-x))


# --------------------------------------------------------------------------
# Functions
# --------------------------------------------------------------------------

class Function:
    """A layer: its signature, and operations that are appended in order."""

    def __init__(self, name: str = "layer", *, tokens: tuple[int, int] | None = None):
        self.name, self.tokens = name, tokens
        self._block = _Block(None)
        self._arguments: list[tuple[Value, dict[str, Any]]] = []
        self._outputs: list[tuple[str, Value]] = []
        self._names = (f"%{n}" for n in itertools.count())

    # -- signature ------------------------------------------------------------

    def input(self, name: str, shape: Sequence[int | None], element: str) -> Value:
        """Add a tensor that callers pass; its dynamic extents are the tokens of a call."""
        return self._argument(name, shape, element, "input")

    def weight(self, name: str, shape: Sequence[int], element: str, *,
               source: Sequence[str] = (), convert: bool = False) -> Value:
        """Add a tensor that is bound when a layer is made.

        Args:
          source: tensors of a checkpoint that it is made of, instead of the one of its name.
          convert: take tensors of other float types.
        """
        if any(extent is None for extent in shape):
            _fail(f"expected static extents of the weight '{name}', got {tuple(shape)}")
        extra: dict[str, Any] = {"moe.source": list(source)} if source else {}
        if convert:
            extra["moe.convert"] = Attribute("unit")
        return self._argument(name, shape, element, "weight", extra)

    def _argument(self, name: str, shape: Sequence[int | None], element: str, role: str,
                  extra: Mapping[str, Any] = {}) -> Value:
        if self._outputs:
            _fail(f"'{name}' has to be added before outputs")
        if any(attributes["moe.name"] == name for _, attributes in self._arguments):
            _fail(f"'{name}' is the name of another argument")
        root = self._block
        while root.parent:
            root = root.parent
        value = Value(f"%a{len(self._arguments)}", TensorType(tuple(shape), element), root)
        self._arguments.append((value, {"moe.name": name, "moe.role": role, **extra}))
        return value

    def output(self, name: str, value: Value) -> None:
        """Add a result."""
        self._check(value)
        if any(name == other for other, _ in self._outputs):
            _fail(f"'{name}' is the name of another output")
        self._outputs.append((name, value))

    def __str__(self) -> str:
        if not self._outputs:
            _fail(f"expected outputs of function '{self.name}', got none")
        arguments = [f"{value.name}: {value.type} {_dictionary(attributes)}"
                     for value, attributes in self._arguments]
        results = [f"{value.type} {_dictionary({'moe.name': name})}"
                   for name, value in self._outputs]
        tokens = (f" attributes {_dictionary({'moe.tokens': list(self.tokens)})}"
                  if self.tokens else "")
        names = ", ".join(value.name for _, value in self._outputs)
        types = ", ".join(str(value.type) for _, value in self._outputs)
        separator = ",\n    "
        return (f"func.func @{self.name}(\n    {separator.join(arguments)})\n"
                f"    -> ({separator.join(results)}){tokens} {{\n{self._block.text('')}"
                f"  return {names} : {types}\n}}\n")

    # -- operations -----------------------------------------------------------

    def create(self, name: str, operands: Sequence[Value], results: Sequence[TensorType | str],
               attributes: Mapping[str, Any] = {},
               regions: Sequence[_Block] = ()) -> tuple[Value, ...]:
        """Append any operation, by its name, with properties and the types of its results."""
        for each in operands:
            self._check(each)
        values = tuple(Value(next(self._names), type_, self._block) for type_ in results)
        head = f"{', '.join(v.name for v in values)} = " if values else ""
        properties = f" <{_dictionary(attributes)}>" if attributes else ""
        bodies = ", ".join("{\n" + region.text("") + "}" for region in regions)
        types = ", ".join(str(each.type) for each in operands)
        to = ", ".join(str(type_) for type_ in results)
        self._block.lines.append(
            f'{head}"{name}"({", ".join(each.name for each in operands)}){properties}'
            + (f" ({bodies})" if bodies else "") + f" : ({types}) -> ({to})")
        return values

    def _check(self, value: Value) -> Value:
        block: _Block | None = self._block
        while block is not None and block is not value.block:
            block = block.parent
        if block is None:
            _fail(f"expected a value of this function that is visible here, got {value.name} of "
                  "another function or region")
        return value

    @contextmanager
    def _region(self, types: Sequence[TensorType | str]) -> Iterator[tuple[_Block, list[Value]]]:
        outer = self._block
        names = [next(self._names) for _ in types]
        self._block = _Block(outer, [(n, str(t)) for n, t in zip(names, types)])
        try:
            yield self._block, [Value(n, t, self._block) for n, t in zip(names, types)]
        finally:
            self._block = outer

    def index(self, value: int) -> Value:
        """A constant of type index."""
        key = f"{value} : index"
        if key not in self._block.constants:
            self._block.constants[key] = self.create(
                "arith.constant", [], ["index"], {"value": Attribute(key)})[0]
        return self._block.constants[key]

    def _extents(self, like: Sequence[tuple[Value, int]]) -> list[Value]:
        """The dynamic ones of extents that each are an extent of a tensor."""
        return [self.create("tensor.dim", [value, self.index(dim)], ["index"])[0]
                for value, dim in like if value.shape[dim] is None]

    def _init(self, like: Sequence[tuple[Value, int]], element: str) -> Value:
        """A tensor without values, whose extents are extents of others."""
        type_ = TensorType(tuple(value.shape[dim] for value, dim in like), element)
        return self.create("tensor.empty", self._extents(like), [type_])[0]

    def matmul(self, lhs: Value, rhs: Value, *, transposed: bool = False) -> Value:
        """``lhs [M, K]`` times ``rhs [K, N]``, with ``transposed`` ``[N, K]``, summed in f32."""
        for what, value in (("lhs", lhs), ("rhs", rhs)):
            if len(value.shape) != 2 or value.element not in FLOATS:
                _fail(f"expected a matrix of floats as {what} of a product, got {value.type}")
        k = rhs.shape[transposed]
        if lhs.shape[1] != k:
            _fail(f"expected the same extents along k, got {lhs.type} and {rhs.type}"
                  + (" (transposed)" if transposed else ""))
        init = self._init([(lhs, 0), (rhs, 1 - transposed)], "f32")
        zero = self.create("arith.constant", [], ["f32"], {"value": Attribute("0.0 : f32")})[0]
        with self._region(["f32", "f32"]) as (fill, arguments):
            self.create("linalg.yield", arguments[:1], [])
        init = self.create("linalg.fill", [zero, init], [init.type],
                           {"operandSegmentSizes": _segments(1, 1)}, [fill])[0]
        b = "(d1, d2)" if transposed else "(d2, d1)"
        maps = ["(d0, d2)", b, "(d0, d1)"]
        with self._region([lhs.element, rhs.element, "f32"]) as (body, (x, y, old)):
            x, y = (v if v.type == "f32" else self.create("arith.extf", [v], ["f32"])[0]
                    for v in (x, y))
            product = self.create("arith.mulf", [x, y], ["f32"])[0]
            total = self.create("arith.addf", [old, product], ["f32"])
            self.create("linalg.yield", total, [])
        return self.create("linalg.matmul", [lhs, rhs, init], [init.type], {
            "operandSegmentSizes": _segments(2, 1),
            "indexing_maps": [Attribute(f"affine_map<(d0, d1, d2) -> {m}>") for m in maps],
        }, [body])[0]

    def elementwise(self, function: Callable[..., Scalar], *tensors: Value,
                    element: str = "f32") -> Value:
        """Apply a function of scalars to tensors, rounded once to ``element``.

        The first tensor has the shape of the result; others may lack its first dimensions.
        """
        if element not in FLOATS:
            _fail(f"expected f32, bf16 or f16, got {element}")
        first = tensors[0]
        rank = len(first.shape)
        for each in tensors:
            trailing = first.shape[rank - len(each.shape):] if len(each.shape) <= rank else ()
            if each.shape != trailing or each.element not in FLOATS:
                _fail(f"expected floats with the last extents of {first.type}, got {each.type}")
        init = self._init([(first, dim) for dim in range(rank)], element)
        dims = ", ".join(f"d{i}" for i in range(rank))
        maps = [", ".join(f"d{i}" for i in range(rank - len(v.shape), rank))
                for v in (*tensors, init)]
        with self._region([*(v.element for v in tensors), element]) as (body, arguments):
            scalars = [v if v.type == "f32" else self.create("arith.extf", [v], ["f32"])[0]
                       for v in arguments[:-1]]
            result = function(*(Scalar(v.name, body, self._names) for v in scalars))
            if not isinstance(result, Scalar):
                _fail(f"expected a scalar from the function, got {type(result).__name__}")
            value = Value(result.name, "f32", result._block)
            if element != "f32":
                value = self.create("arith.truncf", [value], [element])[0]
            self.create("linalg.yield", [value], [])
        kinds = ", ".join(["#linalg.iterator_type<parallel>"] * rank)
        return self.create("linalg.generic", [*tensors, init], [init.type], {
            "operandSegmentSizes": _segments(len(tensors), 1),
            "indexing_maps": [Attribute(f"affine_map<({dims}) -> ({m})>") for m in maps],
            "iterator_types": Attribute(f"[{kinds}]")}, [body])[0]

    def convert(self, value: Value, element: str) -> Value:
        """Round, or extend, the elements of a tensor of floats."""
        if value.element == element:
            return value
        return self.elementwise(lambda x: x, value, element=element)

    # -- moe ------------------------------------------------------------------

    def gate(self, logits: Value, *, top_k: int, bias: Value | None = None,
             score: str = "softmax", order: str = "score_then_select",
             normalize: str | None = None, epsilon: float = 0.0,
             groups: tuple[int, int] | None = None, group_score: str = "max",
             scale: float | None = None, attributes: Mapping[str, Any] = {},
             ) -> tuple[Value, Value]:
        """Choose ``top_k`` experts for each row of logits; returns their weights and ids.

        Args:
          bias: added for the selection only.
          normalize: ``sum``, ``norm`` or ``softmax`` of the weights of a token.
          groups: the number of groups of experts, and how many of them stay.
          attributes: other attributes of moe.gate, such as ``threshold``.
        """
        rows, experts = _matrix("logits", logits)
        if experts is None or not 1 <= top_k <= experts:
            _fail(f"expected top_k between 1 and the experts of {logits.type}, got {top_k}")
        if bias is not None and bias.shape != (experts,):
            _fail(f"expected a bias of {experts} experts, got {bias.type}")
        properties: dict[str, Any] = {
            "top_k": top_k, "score": _enum("score", score), "order": _enum("order", order),
            "operandSegmentSizes": _segments(1, int(bias is not None), 0, 0), **attributes}
        if normalize is not None:
            guard = f", epsilon = {epsilon:.17e}" if epsilon else ""
            properties["normalize"] = Attribute(f"#moe.normalize<{normalize}{guard}>")
        if groups is not None:
            properties["groups"] = Attribute(f"#moe.groups<count = {groups[0]}, "
                                             f"keep = {groups[1]}, score = {group_score}>")
        if scale is not None:
            properties["scale"] = float(scale)
        weights, ids = self.create("moe.gate", [logits, *([] if bias is None else [bias])], [
            TensorType((rows, top_k), "f32"), TensorType((rows, top_k), "i32")], properties)
        return weights, ids

    def dispatch(self, rows: Value, ids: Value, *, experts: int,
                 attributes: Mapping[str, Any] = {}) -> tuple[Value, Value, Value]:
        """Group the rows of the tokens by expert; returns them, the offsets and the positions.

        Args:
          attributes: other attributes of moe.dispatch; not ``capacity``, which bounds the rows.
        """
        tokens, hidden = _matrix("rows", rows)
        _, top_k = _matrix("ids", ids, ("i32",))
        if ids.shape[0] != tokens:
            _fail(f"expected ids of the tokens of {rows.type}, got {ids.type}")
        if "capacity" in attributes:
            _fail("expected no capacity; create moe.dispatch with the bound of its rows instead")
        most = None if tokens is None or top_k is None else tokens * top_k
        grouped, offsets, positions = self.create("moe.dispatch", [rows, ids], [
            TensorType((most, hidden), rows.element), TensorType((experts + 1,), "i32"), ids.type,
        ], {"num_experts": experts, **attributes})
        return grouped, offsets, positions

    def expert(self, grouped: Value, offsets: Value, params: Sequence[Value],
               body: Callable[..., Value]) -> Value:
        """Apply a function to the rows of each expert and its slices of the parameters."""
        rows, hidden = _matrix("grouped rows", grouped)
        if len(offsets.shape) != 1 or offsets.element != "i32" or not offsets.shape[0]:
            _fail(f"expected offsets of all experts, a vector of i32, got {offsets.type}")
        experts = offsets.shape[0] - 1
        for each in params:
            if not each.shape or each.shape[0] != experts:
                _fail(f"expected parameters of {experts} experts, got {each.type}")
        types = [TensorType((None, hidden), grouped.element),
                 *(TensorType(each.shape[1:], each.element) for each in params)]
        with self._region(types) as (region, arguments):
            result = self._check(body(*arguments))
            if len(result.shape) != 2 or result.shape[0] is not None:
                _fail(f"expected rows from the function of an expert, got {result.type}")
            self.create("moe.yield", [result], [])
        return self.create(
            "moe.expert", [grouped, offsets, *params],
            [TensorType((rows, result.shape[1]), result.element)],
            {"operandSegmentSizes": _segments(1, 1, len(params), 0)}, [region])[0]

    def combine(self, grouped: Value, positions: Value, weights: Value | None = None) -> Value:
        """The weighted sum of the rows of each token."""
        _, hidden = _matrix("grouped rows", grouped)
        tokens, _ = _matrix("positions", positions, ("i32",))
        if weights is not None and weights.shape != positions.shape:
            _fail(f"expected a weight for each of {positions.type}, got {weights.type}")
        return self.create("moe.combine", [grouped, positions,
                                           *([] if weights is None else [weights])],
                           [TensorType((tokens, hidden), grouped.element)],
                           {"operandSegmentSizes": _segments(1, 1, int(weights is not None), 0)},
                           )[0]


def _dictionary(attributes: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name} = {_text(value)}" for name, value in attributes.items()) + "}"


def _enum(name: str, value: str) -> Attribute:
    if not value.replace("_", "").isalnum():
        _fail(f"expected a keyword as {name}, got '{value}'")
    return Attribute(f"#moe<{name} {value}>")


def _matrix(what: str, value: Value, elements: Sequence[str] = FLOATS,
            ) -> tuple[int | None, int | None]:
    """The extents of a matrix."""
    if len(value.shape) != 2 or value.element not in elements:
        _fail(f"expected a matrix of {' or '.join(elements)} as {what}, got {value.type}")
    return value.shape[0], value.shape[1]
