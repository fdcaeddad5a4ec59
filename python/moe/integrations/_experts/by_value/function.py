"""The function of an expert that was found by value, as ``GraphExperts`` takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .parameters import Matrix
from .tables import Expression

__all__ = ["Function", "function_of"]

Node = torch.fx.Node
aten = torch.ops.aten

_ROWS = Expression("rows")
_WEIGHTS = Expression("weights")


@dataclass
class Function:
    """Steps from ``rows``, a node of the graph, to ``result``; ``scales_rows`` says that rows
    are multiplied with weights, and not results."""

    rows: Node
    scales_rows: bool
    columns: int = 0
    result: Any = None
    steps: dict[Node, tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = field(
        default_factory=dict)
    parameters: set[Node] = field(default_factory=set)


def function_of(expression: Expression, columns: int, matrices: list[Matrix],
                carriers: Mapping[Expression, Node]) -> Function | None:
    """Return the function that an expression is, ``carriers`` are the nodes that rows of tokens
    lie in; None if it is none of the rows alone."""
    while expression.kind == "operation" and expression.target is aten._to_copy.default:
        expression = expression.args[0]
    scaled: Expression | None = None
    if expression.is_weighted:
        found = _without_weights(expression, matrices)
        if found is None:
            return None
        expression, scaled = found
    roots: dict[Expression, None] = {}
    _collect_rows(expression, matrices, carriers, roots)
    root = next(iter(roots)) if len(roots) == 1 else _ROWS
    if root not in carriers or scaled not in (None, root):
        return None
    function = Function(carriers[root], scaled is not None, columns)
    function.result = _Writer(function, matrices, root).write(expression)
    return function


def _is_of_experts(expression: Expression, matrices: list[Matrix]) -> bool:
    own = {"matmul": 1, "parameter": 0}.get(expression.kind)
    if own is not None and matrices[expression.args[own]].experts > 1:
        return True
    return any(_is_of_experts(part, matrices) for part in expression.parts())


def _without_weights(expression: Expression, matrices: list[Matrix]) -> (
        tuple[Expression, Expression | None] | None):
    """Return an expression without its weights, and the rows that they multiply if those are what
    experts are given; None if its result is not the weights times something."""
    if expression.kind == "operation" and expression.target is aten.mul.Tensor and (
            _WEIGHTS in expression.args):
        other, = (a for a in expression.args if a is not _WEIGHTS and a != _WEIGHTS)
        if not isinstance(other, Expression) or other.is_weighted:
            return None
        return other, None if _is_of_experts(other, matrices) else other
    weighted = [a for a in expression.parts() if a.is_weighted]
    found = [_without_weights(a, matrices) for a in weighted]
    if not found or None in found or len(set(scaled for _, scaled in found)) > 1:
        return None
    scaled = found[0][1]
    is_linear = expression.kind in ("matmul", "columns") or (
        expression.target is aten._to_copy.default)
    if scaled is None and not is_linear:
        return None
    given = iter(found)
    args = tuple(next(given)[0] if isinstance(a, Expression) and a.is_weighted else a
                 for a in expression.args)
    return Expression(expression.kind, args, expression.kwargs, expression.target), scaled


def _collect_rows(expression: Expression, matrices: list[Matrix],
                  carriers: Mapping[Expression, Node], roots: dict[Expression, None]) -> None:
    """Add the largest parts of an expression that rows of tokens in the graph are."""
    if expression in carriers and not _is_of_experts(expression, matrices):
        roots[expression] = None
        return
    if expression == _ROWS:
        roots[expression] = None
    for part in expression.parts():
        _collect_rows(part, matrices, carriers, roots)


class _Writer:
    """Writes expressions as steps, whose keys are nodes of a graph of their own."""

    def __init__(self, function: Function, matrices: list[Matrix], root: Expression):
        self.function, self.matrices, self.root = function, matrices, root
        self.keys = torch.fx.Graph()
        self.known: dict[Any, Node] = {}

    def step(self, part: str, target: Any = None, args: tuple[Any, ...] = (),
             kwargs: dict[str, Any] | None = None) -> Node:
        key = self.keys.placeholder(f"step{len(self.known)}_{len(self.function.steps)}")
        self.function.steps[key] = part, target, args, kwargs or {}
        return key

    def write(self, expression: Expression) -> Node:
        if expression not in self.known:
            self.known[expression] = self._write(expression)
        return self.known[expression]

    def _write(self, expression: Expression) -> Node:
        if expression == self.root:
            return self.step("rows")
        if expression.kind == "parameter":
            return self.parameter(expression.args[0])
        if expression.kind == "matmul":
            return self.product(*expression.args)
        if expression.kind == "columns":
            of, first, count = expression.args
            return self.step("operation", aten.slice.Tensor,
                             (self.write(of), 1, first, first + count))
        args = tuple(self.write(a) if isinstance(a, Expression) else
                     list(a) if isinstance(a, tuple) else a for a in expression.args)
        return self.step("operation", expression.target, args, dict(expression.kwargs))

    def parameter(self, number: int) -> Node:
        """The part of a parameter that is an expert's, or all of it."""
        key = "parameter", number
        if key not in self.known:
            matrix = self.matrices[number]
            self.function.parameters.update(matrix.nodes)
            if matrix.experts == 1:
                self.known[key] = matrix.nodes[0]
            elif len(matrix.nodes) > 1:
                self.known[key] = self.step("parts", None, (list(matrix.nodes),))
            else:
                self.known[key] = self.step("slice", None, (matrix.nodes[0],))
        return self.known[key]

    def product(self, rows: Expression, number: int, transposed: bool) -> Node:
        matrix, of = self.matrices[number], self.write(rows)
        if matrix.experts > 1 and len(matrix.nodes) == 1:
            self.function.parameters.add(matrix.nodes[0])
            return self.step("transposed matmul" if transposed else "matmul", None,
                             (of, matrix.nodes[0]))
        own = self.parameter(number)
        if transposed:
            own = self.step("operation", aten.permute.default, (own, [1, 0]))
        return self.step("operation", aten.mm.default, (of, own))
