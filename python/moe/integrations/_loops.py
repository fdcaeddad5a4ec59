"""Finds a loop over the experts in a graph: for each of them, the rows of its tokens.

A traced loop is a chain of additions to a tensor of zeros, one for each expert in order: at
the tokens whose ids are that expert, of a function of their rows, times their weights.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from ._graph import argument, extents_of

__all__ = ["Loops"]

Node = torch.fx.Node
aten = torch.ops.aten


class Loops:
    """The rules of ``_routing`` for loops; ``search`` has what is known of each node."""

    def __init__(self, search: Any, is_: Any):
        self.search, self.make = search, is_

    def rule(self, packet: Any, node: Node) -> Any:
        rule = _RULES.get(packet)
        return None if rule is None else rule(self, node)

    # -- the tokens of an expert ----------------------------------------------

    def equal(self, node: Node) -> Any:
        """Where the ids are one expert."""
        ids, number = node.args
        if isinstance(number, int) and _number_of_experts(ids) is not None:
            return self.make("hits", ids, number=number)
        if isinstance(number, Node) and _packet(number) is aten.arange and (
                _packet(ids) is aten.unsqueeze and ids.args[1] in (-1, ids.meta["val"].ndim - 1)):
            ids = ids.args[0]
            if _number_of_experts(ids) == extents_of(number.meta["val"])[0] and (
                    argument(number, "start", 0), argument(number, "step", 1)) == (0, 1):
                return self.make("one-hot", ids)
        return None

    def same(self, node: Node) -> Any:
        found = self.search.is_(node.args[0], "one-hot", "weighted part", "part weights")
        if found is not None and found.kind == "weighted part":
            node.meta["moe.rows"] = node.args[0]
        return found

    def permute(self, node: Node) -> Any:
        found = self.search.is_(node.args[0], "one-hot")
        order = list(node.args[1])
        return self.make("hits of all", found.ids) if found and order == [2, 1, 0] else None

    def select(self, node: Node) -> Any:
        found = self.search.is_(node.args[0], "hits of all")
        if found is None or argument(node, "dim", 0) != 0 or not isinstance(node.args[2], int):
            return None
        return self.make("hits, choices first", found.ids, number=node.args[2])

    def nonzero(self, node: Node) -> Any:
        found = self.search.is_(node.args[0], "hits", "hits, choices first")
        if found is None:
            return None
        kind = "places" if found.kind == "hits" else "places, choices first"
        return self.make(kind, found.ids, number=found.number)

    def slice(self, node: Node) -> Any:
        """The indices along one dimension."""
        found = self.search.is_(node.args[0], "places", "places, choices first")
        start = argument(node, "start", 0)
        if found is None or argument(node, "dim", 0) != 1 or argument(node, "end", 0) != start + 1:
            return None
        is_token = start == (0 if found.kind == "places" else 1)
        return self.make("token" if is_token else "choice", found.ids, node.args[0], found.number)

    def squeeze(self, node: Node) -> Any:
        return self.search.is_(node.args[0], "token", "choice", "part weights")

    def unsqueeze(self, node: Node) -> Any:
        found = self.search.is_(node.args[0], "part weights")
        return found if found and node.meta["val"].ndim == 2 and node.args[1] in (1, -1) else None

    # -- its rows and their weights -------------------------------------------

    def index(self, node: Node, source: Node, indices: Sequence[Any]) -> Any:
        if len(indices) == 2 and None not in indices:
            return self.weights(node, source, *indices)
        if indices[0] is None and len(indices) == 2 and _packet(source) is aten.unsqueeze and (
                source.args[1] == 0):
            source, indices = source.args[0], indices[1:]
        if len(indices) != 1:
            return None
        found = self.search.is_(indices[0], "token", "hits")
        if found is None or (found.kind == "hits" and found.ids.meta["val"].ndim != 1):
            return None
        of = found.of if found.kind == "token" else indices[0]
        values = source.meta["val"]
        if (sums := self.search.is_(source, "sum")) or _is_zero(source):
            if sums is None or sums.ids is found.ids:
                return self.make("sum at", found.ids, source, found.number)
        if values.ndim == 1 and extents_of(values) == extents_of(found.ids.meta["val"]):
            return self.make("part weights", found.ids, source, found.number)
        if values.ndim != 2 or not values.is_floating_point():
            return None
        region = self.search.region(found.ids)
        if region.rows not in (None, source):
            return None
        region.rows = source
        self.search.part(node, found.ids, "rows")
        return self.make("part", found.ids, of, found.number)

    def weights(self, node: Node, source: Node, token: Node, choice: Node) -> Any:
        token, choice = self.search.is_(token, "token"), self.search.is_(choice, "choice")
        if token is None or choice is None or token.of is not choice.of:
            return None
        if _packet(source) is aten.unsqueeze and source.args[1] in (2, -1):
            source = source.args[0]
        if extents_of(source.meta["val"]) != extents_of(token.ids.meta["val"]):
            return None
        return self.make("part weights", token.ids, source, token.number)

    def multiply(self, node: Node) -> Any:
        for rows, weights in (node.args[:2], node.args[1::-1]):
            of, found = self.search.is_(rows, "part"), self.search.is_(weights, "part weights")
            if of and found and of.ids is found.ids and of.number == found.number and (
                    weights.meta["val"].ndim == 2 and rows.meta["val"].ndim == 2):
                node.meta["moe.rows"] = rows
                return self.make("weighted part", of.ids, found.of, of.number)
        return None

    # -- the sum --------------------------------------------------------------

    def add(self, node: Node) -> Any:
        """What was at the tokens, and the result of an expert."""
        if argument(node, "alpha", 1) != 1:
            return None
        for old, new in (node.args[:2], node.args[1::-1]):
            at, found = self.search.is_(old, "sum at"), self.search.is_(new, "weighted part")
            if at and found and (at.ids, at.number) == (found.ids, found.number):
                node.meta["moe.sum"], node.meta["moe.rows"] = at.of, _result_of(new)
                return self.make("added part", found.ids, found.of, found.number)
        return None

    def index_add(self, node: Node) -> Any:
        into, dim, index, rows = node.args[:4]
        if dim != 0 or argument(node, "alpha", 1) != 1:
            return None
        return self.added(node, into, index, rows)

    def index_put(self, node: Node) -> Any:
        into, indices, values = node.args[:3]
        if len(indices) != 1:
            return None
        if argument(node, "accumulate", False):
            return self.added(node, into, indices[0], values)
        found = self.search.is_(values, "added part")
        if found is not None:
            return self.added(node, into, indices[0], values) if (
                values.meta["moe.sum"] is into) else None
        # A token is at one expert, and nothing was there.
        hits = self.search.is_(indices[0], "hits", "token")
        if hits is not None and hits.ids.meta["val"].ndim == 1:
            return self.added(node, into, indices[0], values)
        return None

    def added(self, node: Node, into: Node, index: Node, rows: Node) -> Any:
        found = self.search.is_(rows, "weighted part", "added part")
        at = self.search.is_(index, "token", "hits")
        if found is None or at is None or (at.ids, at.number) != (found.ids, found.number) or (
                at.kind == "hits" and at.ids.meta["val"].ndim != 1):
            return None
        before = self.search.is_(into, "sum")
        parts = list(into.meta["moe.parts"]) if before else []
        if before is None and not _is_zero(into):
            return None
        if before is not None and (before.ids, before.of) != (found.ids, found.of):
            return None
        if found.number != len(parts):
            return None
        node.meta["moe.parts"] = [*parts, _result_of(rows)]
        if len(parts) + 1 < _number_of_experts(found.ids):
            return self.make("sum", found.ids, found.of, found.number)
        self.replace(node, found)
        return None

    def replace(self, node: Node, found: Any) -> None:
        search, ids, weights = self.search, found.ids, found.of
        parts = node.meta["moe.parts"]
        if not search.has_experts(ids, len(parts)) or node.meta["val"].dtype != (
                search.region(ids).rows.meta["val"].dtype):
            return
        for part in parts:
            search.of_part(part, search.known[part])
        search.part(node, ids, "parts")
        graph, given = search.graph, []
        for value in (ids, weights):
            if value.meta["val"].ndim == 1:
                with graph.inserting_before(node):
                    column = graph.call_function(aten.unsqueeze.default, (value, 1))
                column.meta["val"] = value.meta["val"].unsqueeze(1)
                value = column
            given.append(value)
        search.call(node, search.region(ids), *given)


def _result_of(node: Node) -> Node:
    """Return the rows of an expert before they were weighted."""
    while (rows := node.meta.get("moe.rows")) is not None:
        node = rows
    return node


def _packet(node: Any) -> Any:
    return getattr(getattr(node, "target", None), "overloadpacket", None)


def _is_zero(node: Any) -> bool:
    packet = _packet(node)
    if packet in (aten.zeros, aten.zeros_like, aten.new_zeros):
        return True
    return packet in (aten.full, aten.full_like) and argument(node, "fill_value", None) == 0


def _number_of_experts(ids: Any) -> int | None:
    """Return how many scores ids are the best ones of, ``[T]`` or ``[T, K]``."""
    source = ids
    if isinstance(ids, Node) and ids.target is operator.getitem and ids.args[1] == 1:
        source = ids.args[0]
    if _packet(source) not in (aten.topk, aten.max, aten.argmax):
        return None
    scores = extents_of(source.args[0].meta["val"])
    default = None if _packet(source) is aten.argmax else -1
    dim = argument(source, "dim", default)
    ok = len(scores) == 2 and dim in (-1, 1) and isinstance(scores[1], int)
    return scores[1] if ok and isinstance(ids.meta.get("val"), torch.Tensor) else None


_RULES = {
    aten.eq: Loops.equal, aten._to_copy: Loops.same, aten.permute: Loops.permute,
    aten.select: Loops.select, aten.nonzero: Loops.nonzero, aten.slice: Loops.slice,
    aten.squeeze: Loops.squeeze, aten.unsqueeze: Loops.unsqueeze, aten.mul: Loops.multiply,
    aten.add: Loops.add, aten.index_add: Loops.index_add, aten.index_put: Loops.index_put,
}
