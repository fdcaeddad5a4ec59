"""Where the choices of a gate leave it, in a graph: ids of experts, and their weights."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import sympy
import torch

from ..._graph.function import argument, extents_of
from ..choices import packet_of, rank_of
from .parameters import Matrix, matrices_of

__all__ = ["Cut", "choices_of", "cuts_of", "shape_of", "size_of"]

Node = torch.fx.Node
aten = torch.ops.aten

# Values that are tried as weights, the nearest to the experts.
_MOST_CUTS = 12


@dataclass(frozen=True)
class Cut:
    """Where the choices of a gate leave it: nodes [T, K] of ids, or several [T], and the weights of
    the choices or of all experts, or of each of several ids, none if all are 1. ``elsewhere`` says
    that weights of other experts are not 0."""

    ids: tuple[Node, ...]
    experts: int
    matrices: list[tuple[Matrix, dict[Node, int | None]]]  # as ``matrices_of`` returns them
    behind: set[Node]  # what is computed of the parameters of experts
    weights: tuple[Node, ...] = ()
    elsewhere: bool = False


def cuts_of(graph: torch.fx.Graph, tensors: Mapping[Node, Any], rows: Node) -> Iterator[Cut]:
    """Yield the cuts that a graph may have between its gate and its experts."""
    for ids, experts in _ids_of(graph):
        yield from _cuts(graph, tensors, rows, ids, experts)


def _ids_of(graph: torch.fx.Graph) -> Iterator[tuple[tuple[Node, ...], int]]:
    """Yield nodes that may be the ids of experts, the last ones first, and how many those are."""
    found: list[tuple[Node, int]] = []
    for node in graph.nodes:
        if node.target is operator.getitem and node.args[1] == 1 and packet_of(node.args[0]) in (
                aten.topk, aten.max, aten.sort):
            scores, dim = node.args[0].args[0], argument(node.args[0], "dim", -1)
        elif packet_of(node) in (aten.argmax, aten.argsort):
            scores, dim = node.args[0], argument(node, "dim", None)
        else:
            continue
        experts = extents_of(scores.meta["val"])[-1]
        if dim not in (-1, rank_of(scores) - 1) or not isinstance(experts, int) or experts < 2:
            continue
        while len(node.users) == 1 and packet_of(user := next(iter(node.users))) is aten.slice:
            node = user
        found.append((node, experts))
    for node, experts in reversed(found):
        yield (node,), experts
    for experts in {e for _, e in found}:
        several = tuple(n for n, e in found if e == experts)
        if len(several) > 1:
            yield several, experts


def _cuts(graph: torch.fx.Graph, tensors: Mapping[Node, Any], rows: Node, ids: tuple[Node, ...],
          experts: int) -> Iterator[Cut]:
    """Yield cuts with the values that may be weights, the nearest to the experts first."""
    matrices = matrices_of(tensors, experts)
    large = {n for m, nodes in matrices if m.experts == experts for n in nodes}
    of_router = _ancestors(ids)
    large -= of_router
    if not large:
        return
    behind = _descendants(graph, large)
    of_gate = _descendants(graph, {n for n in of_router if n in tensors} or {rows}) - behind
    leaving = [n for n in of_gate if any(user in behind for user in n.users)]
    before = _ancestors(tuple(leaving))
    tokens = math.prod(extents_of(rows.meta["val"])[:-1])
    total = sum(choices_of(n) for n in ids)
    candidates = [n for n in reversed(list(graph.nodes)) if n in of_gate and n in before
                  and isinstance(n.meta.get("val"), torch.Tensor)
                  and n.meta["val"].is_floating_point()]
    single = [n for n in candidates if size_of(n, tokens) in (experts, total)]
    for node in single[:_MOST_CUTS]:
        if size_of(node, tokens) == experts:
            yield Cut(ids, experts, matrices, behind, (node,), True)
        yield Cut(ids, experts, matrices, behind, (node,))
    if len(ids) > 1 and total == len(ids):
        of_one = [n for n in candidates if size_of(n, tokens) == 1][:_MOST_CUTS]
        several = itertools.permutations(of_one, len(ids))
        yield from (Cut(ids, experts, matrices, behind, weights)
                    for weights in itertools.islice(several, 4 * _MOST_CUTS))
    yield Cut(ids, experts, matrices, behind)


def choices_of(ids: Node) -> int:
    shape = extents_of(ids.meta["val"])
    return shape[-1] if len(shape) > 1 and isinstance(shape[-1], int) else 1


def size_of(node: Node, tokens: Any) -> int | None:
    """Return how many numbers a value has for each token, None if that is not so."""
    size: Any = 1
    for extent in extents_of(node.meta["val"]):
        size = size * extent
    is_symbolic = isinstance(size, sympy.Expr) or isinstance(tokens, sympy.Expr)
    each = sympy.sympify(size) / tokens if is_symbolic else Fraction(size, tokens)
    return int(each) if isinstance(each, (Fraction, sympy.Integer)) and each == int(each) else None


def _ancestors(nodes: tuple[Node, ...]) -> set[Node]:
    found, todo = set(nodes), list(nodes)
    while todo:
        for source in todo.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                todo.append(source)
    return found


def _descendants(graph: torch.fx.Graph, nodes: set[Node]) -> set[Node]:
    found = set(nodes)
    for node in graph.nodes:
        if any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found - {n for n in nodes if n.op == "placeholder"}


def shape_of(value: torch.Tensor, count: int) -> list[int]:
    """Return a shape with so many tokens where it has some."""
    shape = []
    for extent in extents_of(value):
        if not isinstance(extent, int):
            extent = int(extent.subs({symbol: count for symbol in extent.free_symbols}))
        shape.append(extent)
    return shape
