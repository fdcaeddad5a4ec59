"""Operations of PyTorch that exporters write out in operators of ONNX, which become one again.

transformers' exporter makes of a grouped product a ``Split`` of the ends and one of the weights,
for each group ``Range``, ``Gather`` and ``MatMul``, and a ``Concat``. A histogram of ids becomes
comparisons with the edges of its bins, and a quotient that is rounded down a truncated one.
"""

from __future__ import annotations

from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper

from ..._error import UNIMPLEMENTED, MoEError

__all__ = ["OPERATORS", "Nodes", "fuse"]

# Of this module alone: rows, weights [G, k, n] and ends; ids, with an attribute; two integers.
PRODUCT, COUNTS, FLOOR_DIVIDE = "GroupedProductByEnds", "Counts", "FloorDivide"


class Nodes:
    """The nodes of a graph by their outputs, and its constants."""

    def __init__(self, nodes: list[onnx.NodeProto], initializers: dict[str, onnx.TensorProto]):
        self.producers = {name: node for node in nodes for name in node.output if name}
        self.initializers = initializers

    def made_by(self, name: str, op_type: str) -> onnx.NodeProto | None:
        node = self.producers.get(name)
        return node if node is not None and node.op_type == op_type and (
            node.domain in ("", "ai.onnx")) else None

    def chain(self, name: str, *op_types: str) -> onnx.NodeProto | None:
        """Return the last node of a chain of first inputs with these types."""
        node = None
        for op_type in op_types:
            node = self.made_by(name if node is None else node.input[0], op_type)
            if node is None:
                return None
        return node

    def numbers(self, name: str) -> list[Any] | None:
        """Return the numbers of a constant."""
        node = self.made_by(name, "Constant")
        if name in self.initializers:
            return numpy_helper.to_array(self.initializers[name]).reshape(-1).tolist()
        if node is not None:
            value = helper.get_attribute_value(node.attribute[0])
            if node.attribute[0].name == "value":
                return numpy_helper.to_array(value).reshape(-1).tolist()
            return list(value) if isinstance(value, (list, tuple)) else [value]
        source = self.source(name, "Cast", "Reshape")
        return None if source == name else self.numbers(source)

    def number(self, name: str) -> int | None:
        """Return the only number of a constant, if it is an integer."""
        numbers = self.numbers(name)
        return int(numbers[0]) if numbers is not None and len(numbers) == 1 and (
            isinstance(numbers[0], (bool, int)) or numbers[0] == int(numbers[0])) else None

    def source(self, name: str, *others: str) -> str:
        """Return what a value is a view of, through nodes of the other types, too."""
        node = self.producers.get(name)
        views = "Squeeze", "Identity", *others
        return node.input[0] if node is not None and node.op_type in views and (
            node.domain in ("", "ai.onnx")) else name

    def part(self, name: str, *others: str) -> tuple[str, int, int] | None:
        """Return what a value is an element of along the first dimension: of what, which, of how
        many."""
        while (source := self.source(name, *others)) != name:
            name = source
        node = self.made_by(name, "Split")
        if node is None or _attribute(node, "axis", 0) != 0:
            return None
        sizes = _attribute(node, "split", None)
        if len(node.input) > 1 and node.input[1]:
            if node.input[1] not in self.initializers:
                return None
            sizes = numpy_helper.to_array(self.initializers[node.input[1]]).tolist()
        if sizes is not None and set(sizes) != {1}:
            return None
        return node.input[0], list(node.output).index(name), len(node.output)


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def fuse(nodes: list[onnx.NodeProto],
         initializers: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Return the nodes with one for each such operation; nothing uses what it was made of."""
    known = Nodes(nodes, initializers)
    rules = {"Concat": _product, "Sub": lambda *of: _counts(*of) or _floor_divide(*of)}
    return [node.op_type in rules and rules[node.op_type](node, known) or node for node in nodes]


def _product(concat: onnx.NodeProto, known: Nodes) -> onnx.NodeProto | None:
    if _attribute(concat, "axis", None) != 0:
        return None
    count, operands = len(concat.input), None
    for group, name in enumerate(concat.input):
        product = known.made_by(name, "MatMul")
        gather = product and known.made_by(product.input[0], "Gather")
        rows = gather and known.made_by(gather.input[1], "Range")
        if rows is None or _attribute(gather, "axis", 0) != 0 or known.number(rows.input[2]) != 1:
            return None
        weights, end = known.part(product.input[1]), known.part(rows.input[1], "Cast", "Reshape")
        if None in (weights, end) or not weights[1:] == end[1:] == (group, count):
            return None
        first = (known.part(rows.input[0], "Cast", "Reshape") if group
                 else known.number(rows.input[0]))
        if first != ((end[0], group - 1, count) if group else 0):
            return None
        found = [gather.input[0], weights[0], end[0]]
        if operands not in (None, found):
            return None
        operands = found
    return operands and helper.make_node(PRODUCT, operands, list(concat.output), concat.name)


def _floor_divide(sub: onnx.NodeProto, known: Nodes) -> onnx.NodeProto | None:
    """trunc(a / b), less 1 where a < 0 and b does not divide it, for b > 0."""
    divide = known.made_by(sub.input[0], "Div")
    both = known.chain(sub.input[1], "Cast", "And")
    if divide is None or both is None:
        return None
    a, b = divide.input
    if (known.number(b) or 0) < 1 or _attribute(known.made_by(sub.input[1], "Cast"), "to",
                                                0) not in (6, 7):
        return None
    is_negative = rest = False
    for name in both.input:
        equal = known.made_by(name, "Equal")
        less = known.made_by(name if equal is None else equal.input[0], "Less")
        if less is not None and less.input[0] == a and known.number(less.input[1]) == 0:
            is_negative = equal is None or known.number(equal.input[1]) == 1
        modulo = known.chain(name, "Cast", "Mod")
        if modulo is not None and list(modulo.input) == [a, b]:
            rest = _attribute(known.made_by(name, "Cast"), "to", 0) == 9
    return helper.make_node(FLOOR_DIVIDE, [a, b], list(sub.output), sub.name) if (
        is_negative and rest) else None


def _counts(sub: onnx.NodeProto, known: Nodes) -> onnx.NodeProto | None:
    """How many elements are below each edge but the first, less those below each but the last."""
    upper, lower = (known.made_by(name, "Slice") for name in sub.input)
    if upper is None or lower is None or upper.input[0] != lower.input[0]:
        return None
    total = known.made_by(upper.input[0], "ReduceSum")
    less = total and known.chain(total.input[0], "Cast", "Less")
    spread = less and known.made_by(less.input[0], "Unsqueeze")
    bounded = spread and known.made_by(spread.input[0], "Where")
    edges = less and known.numbers(less.input[1])
    if bounded is None or edges is None or _attribute(total, "keepdims", 1):
        return None
    below = _ranges(lower, known, len(edges)), _ranges(upper, known, len(edges))
    count = len(edges) - 1
    # Each of the integers has a bin of its own, and what is less than all of them none.
    alone = all(edges[i] <= i < edges[i + 1] for i in range(count))
    edge = known.initializers.get(less.input[1])
    by_edge = (known.number(spread.input[1]), known.number(total.input[1])) == (0, 1)
    if below != ((0, count), (1, count + 1)) or not alone or not by_edge or (
            edge is None or list(edge.dims) != [count + 1, 1]):
        return None
    return _bounded(bounded, known, count) and helper.make_node(
        COUNTS, [bounded.input[1]], list(sub.output), sub.name, count=count)


def _ranges(node: onnx.NodeProto, known: Nodes, extent: int) -> tuple[int, int] | None:
    """Return the first and last place of a slice of a vector."""
    numbers = [known.number(name) for name in node.input[1:]]
    if None in numbers or numbers[2:] not in ([], [0], [0, 1]):
        return None
    return slice(numbers[0], numbers[1]).indices(extent)[:2]


def _bounded(where: onnx.NodeProto, known: Nodes, count: int) -> bool:
    """Does it keep the integers in [0, count), and make others less than these?"""
    value, other = where.input[1], known.numbers(where.input[2])
    if other is None or any(number >= 0 for number in other):
        return False
    conditions, found = [where.input[0]], set()
    while conditions:
        name = conditions.pop()
        if (both := known.made_by(name, "And")) is not None:
            conditions += both.input
            continue
        least, most = (known.made_by(name, op) for op in ("GreaterOrEqual", "LessOrEqual"))
        nan = known.chain(name, "Not", "IsNaN")
        if least is not None and known.number(least.input[1]) == 0:
            found.add(least.input[0])
        elif most is not None and known.number(most.input[1]) == count - 1:
            found.add(most.input[0])
        elif nan is not None:
            found.add(nan.input[0])
        else:
            return False
    return found == {value}


def _by_ends(_: Any, rows: torch.Tensor, weights: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """The product of the rows of each group, in their order, up to the last end."""
    try:
        import transformers.integrations.moe  # noqa: F401: registers the operator
    except ImportError as error:
        raise MoEError(UNIMPLEMENTED, f"a grouped product needs transformers: {error}") from error
    return torch.ops.transformers.grouped_mm_fallback(rows, weights, ends.to(torch.int32))


OPERATORS = {
    PRODUCT: _by_ends,
    COUNTS: lambda attributes, x: torch.histc(
        x.float(), attributes["count"], 0, attributes["count"] - 1),
    FLOOR_DIVIDE: lambda _, a, b: torch.floor_divide(a, b[0] if isinstance(b, list) else b)}
