"""Experts that are modules each, of which every one computes all tokens.

Their results are added up, each times the weights that the tokens have for its expert, or they are
stacked first, which ``batched`` reads. That they are one function of the same rows, with parameters
of their own, is seen by walking through all of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .._graph.function import argument, extents_of
from .choices import VIEWS, column_of, is_nothing, number_of_experts, packet_of
from .in_graph import GraphExperts
from .matrices import choices_of
from .nodes import adder

__all__ = ["Functions", "find_sums", "of_tokens", "stacked"]

Node = torch.fx.Node
aten = torch.ops.aten


def of_tokens(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, Any]]) -> set[Node]:
    """Return the nodes that are computed of the tokens."""
    found: set[Node] = set()
    for node in graph.nodes:  # each after its operands
        if node not in tensors if node.op == "placeholder" else any(
                source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _without_units(node: Node) -> Node:
    """Return what a tensor is a view of that has extents of 1 elsewhere."""
    while packet_of(node) in (*VIEWS, aten.unsqueeze, aten.squeeze, aten.expand) and [
            e for e in extents_of(node.meta["val"]) if e != 1] == [
            e for e in extents_of(node.args[0].meta["val"]) if e != 1]:
        node = node.args[0]
    return node


class Functions:
    """What several nodes compute of rows: ``rows``, or None where it is not one function of them;
    ``steps`` and ``parameters`` as ``GraphExperts`` takes them."""

    def __init__(self, results: Sequence[Node], tensors: Mapping[Node, tuple[str, Any]]):
        self.steps: dict[Node, tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = {}
        self.parameters: set[Node] = set()
        self.common: dict[Node, None] = {}
        self.seen: set[tuple[Node, ...]] = set()
        self.of_tokens = of_tokens(results[0].graph, tensors)
        same = self.visit(tuple(results)) and len(self.common) == 1
        self.rows = next(iter(self.common)) if same else None
        if self.rows is not None:
            self.steps[self.rows] = "rows", None, (), {}

    def visit(self, nodes: tuple[Any, ...]) -> bool:
        first = nodes[0]
        if isinstance(first, (list, tuple)):
            return all(isinstance(n, (list, tuple)) and len(n) == len(first) for n in nodes) and (
                all(self.visit(each) for each in zip(*nodes)))
        if not any(isinstance(n, Node) for n in nodes):
            return all(type(n) is type(first) and n == first for n in nodes)
        if not all(isinstance(n, Node) for n in nodes):
            return False
        if nodes in self.seen:
            return True
        self.seen.add(nodes)
        if not any(node in self.of_tokens for node in nodes):
            for node in nodes:
                self.constant(node)
            return True
        if not all(isinstance(n.meta.get("val"), torch.Tensor) for n in nodes):
            return False
        sources = tuple(map(_without_units, nodes))
        if all(source is sources[0] for source in sources):
            self.common[sources[0]] = None
            for node in nodes:
                self.same(node, sources[0])
            return True
        if sources != nodes:
            for node, source in zip(nodes, sources):
                self.same(node, source)
            return self.visit(sources)
        if any(n.op != "call_function" or n.target is not first.target
               or n.kwargs != first.kwargs for n in nodes):
            return False
        for node in nodes:
            self.steps[node] = "operation", node.target, node.args, dict(node.kwargs)
        return self.visit(tuple(node.args for node in nodes))

    def same(self, node: Node, source: Node) -> None:
        if node is not source:
            self.steps[node] = "part", None, (source,), {}

    def constant(self, node: Node) -> None:
        """Add what is computed of parameters alone."""
        if node.op == "placeholder":
            self.parameters.add(node)
        elif node not in self.steps:
            self.steps[node] = "operation", node.target, node.args, dict(node.kwargs)
            for source in node.all_input_nodes:
                self.constant(source)


def stacked(node: Node) -> tuple[list[Node], int, bool] | None:
    """Return rows that a tensor ``[T, E, N]`` in some order consists of, along which dimension; or
    of ``[E * T, N]`` or ``[T, E * N]``, which are merged along it."""
    parts, dim = node.args[0], argument(node, "dim", 0)
    rank = node.meta["val"].ndim
    dim %= rank
    if rank == 2:
        same = len({extents_of(p.meta["val"]) for p in parts}) == 1
        return (list(parts), dim, True) if same and len(parts) > 1 else None
    shapes = [extents_of(part.meta["val"]) for part in parts]
    if rank != 3 or len(parts) < 2 or len(set(shapes)) != 1 or shapes[0][dim] != 1:
        return None
    return list(parts), dim, False


# -- sums -------------------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    """Nodes may be numbers of tokens, too."""
    return isinstance(value, Node) and isinstance(value.meta["val"], torch.Tensor)


def _terms(search: Any, node: Node) -> list[Node]:
    """Return what a chain of additions adds up, in its order."""
    terms, stack = [], [node]
    while stack:
        one = stack.pop()
        if (added := _added(search, one)) is not None:  # each has two users
            stack += added
            continue
        chained = packet_of(one) is aten.add and argument(one, "alpha", 1) == 1 and (
            one is node or len(one.users) == 1)
        if chained and all(map(_is_tensor, one.args[:2])) and all(
                extents_of(a.meta["val"]) == extents_of(one.meta["val"])
                and a.meta["val"].dtype == one.meta["val"].dtype for a in one.args[:2]):
            stack += one.args[1::-1]
        elif chained and not isinstance(one.args[1], Node) and one.args[1] == 0:
            stack.append(one.args[0])
        elif not is_nothing(one):
            terms.append(one)
    return terms


def _added(search: Any, node: Node) -> list[Node] | None:
    """Return what is added where a mask is true, and what it is added to, if it is 0 elsewhere."""
    if packet_of(node) is not aten.where or not all(map(_is_tensor, node.args[:3])):
        return None
    found, (_, total, before) = search.is_(node.args[0], "hits"), node.args[:3]
    if found is None or packet_of(total) is not aten.add or before not in total.args[:2] or (
            argument(total, "alpha", 1) != 1 or found.slot not in (None, "any")):
        return None
    more = total.args[1] if total.args[0] is before else total.args[0]
    one = _weighted(search, more) if _is_tensor(more) else None
    same = one is not None and isinstance(one[0], tuple) and one[0][0] is found.ids
    return [more, before] if same and one[1] == found.number else None


def _weighted(search: Any, term: Node) -> tuple[Any, int, Node] | None:
    """Return whose weights, which expert's and the rows that a term multiplies."""
    if packet_of(term) is not aten.mul:
        return None
    for weights, rows in (term.args[:2], term.args[1::-1]):
        if not (_is_tensor(weights) and _is_tensor(rows)) or extents_of(
                rows.meta["val"]) != extents_of(term.meta["val"]) or (
                extents_of(weights.meta["val"])[-1] != 1):
            continue
        if (found := search.is_(weights, "expert weights")) is not None:
            return (found.ids, found.of), found.number, rows
        if (column := column_of(weights)) is not None:
            return column[0], column[1], rows
    return None


def find_sums(search: Any) -> dict[str, torch.nn.Module]:
    """Replace such sums in the graph of a search by calls of its operation; returns the experts."""
    found: dict[str, torch.nn.Module] = {}
    for node in list(search.graph.nodes):
        if packet_of(node) not in (aten.add, aten.where) or not isinstance(
                node.meta.get("val"), torch.Tensor) or any(
                _added(search, user) is not None for user in node.users):
            continue
        groups: dict[Any, dict[int, list[tuple[Node, Node]]]] = {}
        terms = _terms(search, node)
        for term in terms:
            if (one := _weighted(search, term)) is not None:
                groups.setdefault(one[0], {}).setdefault(one[1], []).append((term, one[2]))
        for of, parts in groups.items():
            experts = number_of_experts(of[0]) if isinstance(of, tuple) else extents_of(
                of.meta["val"])[-1]
            if set(parts) == set(range(experts or 0)) and all(
                    len(part) == 1 for part in parts.values()):
                ordered = [parts[i][0] for i in range(experts)]
                if (module := _replace(search, node, terms, of, ordered,
                                       f"dense{len(found)}")) is not None:
                    found[f"dense{len(found)}"] = module
                    break
    return found


def _replace(search: Any, node: Node, terms: list[Node], of: Any,
             parts: list[tuple[Node, Node]], key: str) -> GraphExperts | None:
    graph, like, results = search.graph, node.meta["val"], [rows for _, rows in parts]
    functions = Functions(results, search.tensors)
    source = functions.rows
    if source is None or len(results) < 2 or not source.meta["val"].is_floating_point():
        return None
    wide = [e for e in extents_of(source.meta["val"]) if e != 1]
    if like.dtype != source.meta["val"].dtype or len(wide) != 2 or isinstance(wide[0], int) or (
            wide != [e for e in extents_of(like) if e != 1]):
        return None

    make = adder(graph)
    with graph.inserting_before(node):
        if isinstance(of, tuple):
            ids, weights = (_as_choices(make, value, of[0]) for value in of)
        elif (choices := choices_of(of, len(results))) is not None:
            ids, weights = choices
        else:
            return None
        rows = _add_view(make, source, [-1, wide[1]])
        functions.steps[node] = "parts", None, (results,), {}
        module = GraphExperts(len(results), wide[1], node, functions.steps, functions.parameters,
                              search.tensors)
        module.is_guess = True
        total = graph.call_function(search.operation, (rows, ids, weights, key))
        total.meta["val"] = rows.meta["val"]
        total = _add_view(make, total, [e if isinstance(e, int) else -1 for e in extents_of(like)])
        own = {term for term, _ in parts}
        for term in terms:
            if term not in own:
                total = make(aten.add.Tensor, term, total)
    node.replace_all_uses_with(total)
    return module


def _as_choices(make: Callable[..., Node], value: Node, ids: Node) -> Node:
    shape = extents_of(ids.meta["val"])
    tokens = next(i for i, e in enumerate(shape) if not isinstance(e, int))
    return _add_view(make, value, [-1, shape[-1] if tokens < len(shape) - 1 else 1])


def _add_view(make: Callable[..., Node], node: Node, shape: list[int]) -> Node:
    """Return a node in another shape, which may be its own."""
    same = len(shape) == node.meta["val"].ndim and all(
        isinstance(e, int) == (size != -1) for e, size in zip(extents_of(node.meta["val"]), shape))
    return node if same else make(aten.view.default, node, shape)
