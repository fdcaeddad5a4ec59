"""Translates a torch function of the columns of a row to the body of a ``linalg.generic``.

``trace`` runs the function once under ``make_fx`` and translates its ATen operations.
torch's decompositions reduce composite operations, so that any activation that is
elementwise in the end is supported.
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

from ..._error import UNIMPLEMENTED, MoEError
from .scalars import DTYPES, RULES, Body, Scalar

aten = torch.ops.aten


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
class _Computed:
    """Columns that were computed: a scalar of the body."""

    value: Scalar
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
        self.graph, self.columns, self.element = graph, columns, element
        self.body = Body(what)
        self.inputs: dict[Columns, Scalar] = {}

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
        return self.body.error(why)

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
        rule = RULES.get(packet)
        if rule is None:
            raise self.error(f"uses {node.target}, which has no translation to MLIR")
        meta = node.meta["val"] if "val" in node.meta else node.meta["tensor_meta"]
        widths = {getattr(a, "count", getattr(a, "columns", None)) for a in arguments
                  if isinstance(a, (Columns, _Computed))}
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
        value = rule(self.body, *map(self._scalar, arguments), **options)
        return _Computed(self.body.convert(value, result), width)

    def _scalar(self, value: Any) -> Any:
        """Return columns as a scalar of the body; anything else unchanged."""
        if isinstance(value, Columns):
            return self._input(value)
        return value.value if isinstance(value, _Computed) else value

    def _input(self, columns: Columns) -> Scalar:
        if columns not in self.inputs:
            self.inputs[columns] = Scalar(f"%in{len(self.inputs)}", self.element)
        return self.inputs[columns]

    def _output(self, result: Any) -> Elementwise:
        value = self._scalar(result)
        if not isinstance(value, Scalar) or value.element != self.element:
            kind = getattr(value, "element", type(value).__name__)
            raise self.error(f"returns {kind}, expected a tensor of {self.element}")
        count = result.count if isinstance(result, Columns) else result.columns
        return Elementwise(tuple(self.inputs), tuple(v.name for v in self.inputs.values()),
                           "\n".join(self.body.lines), value.name, self.element, count)


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

_HANDLED = [*_VIEWS, *RULES]
