"""Finds experts in a graph that sorts the choices of its tokens by expert.

Such graphs, of transformers' "grouped_mm" experts for instance, flatten the ids ``[T, K]``,
sort them, gather the rows of the tokens in that order, multiply them in groups, weight the
results, and bring them back: by the inverse permutation and a sum over the choices, or by
an addition at the tokens' places. What happens between is a function of one expert and its
rows. ``find_experts`` makes a module of it that is called with rows, ids and weights, as
experts that are written out are, and puts one call in the graph. What does not have this
form stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .._graph.function import argument, extents_of
from .batched import find_batched
from .by_value import find_by_value
from .choices import is_arange, is_zero, keeps_rows, packet_of, repeated, rounds, untransposed
from .dense import find_sums, of_tokens
from .in_graph import GraphExperts
from .loops import Loops
from .maps import MAPS
from .nodes import adder
from .region import Region, experts_of
from .slices import SLICES

__all__ = ["find_experts"]

Node = torch.fx.Node
aten = torch.ops.aten


@dataclass(frozen=True)
class _Is:
    """What a value is, of the choices of ``ids``, a node ``[T, K]``.

    Of all choices, in the order of ``ids``: "ids", "weights" (``of``), "rows" (results of
    experts), "inverse" (places in the sorted order). Sorted by expert: "sorted ids",
    "order" (places in the order of ids), "tokens" (their tokens), "sorted weights" (``of``),
    "grouped" (rows of an expert). For each expert: "counts", "ends". For one expert, the
    ``number``-th: "count", "size" (that is read back). "parts" are grouped rows that are split
    by such sizes, "part" is one of them, or what is computed of it; ``of`` is the split. A
    "mask" ``[T, E]`` has ones at the ids, and a "map" is its transpose.

    In a loop over the experts "chosen" are ids, or those of choice ``slot``, "hits" where they
    are the ``number``-th, with dimensions as ``layout`` says; "places" are the indices of hits,
    "token", "choice" and "choice place" one of them, in an order that ``layout`` says. A "part"
    is the rows of these tokens; "part weights" are ``of`` weights, "expert weights" those of all
    tokens; "weighted part" is their product, "sum" what it is added to. A "number of hits" is that
    of each token, and "some of the choices" are rows that masks chose among those of experts.
    """

    kind: str
    ids: Node
    of: Node | None = None  # the weights [T, K] that are in it, if any
    number: int | None = None
    slot: int | str | None = None  # "any": of each token whether it has a choice
    layout: tuple[str, ...] = ()


def find_experts(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
                 operation: Any, reasons: list[str] | None = None) -> dict[str, torch.nn.Module]:
    """Replace experts in ``graph`` by calls of ``operation`` on rows, ids, weights and a key.

    ``tensors`` has the names and values of placeholders. Returns the experts by key; ``reasons``
    get why loops over experts are left.
    """
    search = _Search(graph, tensors, operation)
    found = search.run()
    if reasons is not None and not found:
        reasons += search.loops.left_out() or search.loops.reasons
    if not found and not any(node.target is operation for node in graph.nodes):
        graph.eliminate_dead_code()  # what the search wrote and did not use
        found = find_batched(graph, tensors, operation, GraphExperts) or find_by_value(
            graph, tensors, operation)
    return found


class _Search:
    def __init__(self, graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
                 operation: Any):
        self.graph, self.tensors, self.operation = graph, tensors, operation
        self.of_tokens = of_tokens(graph, tensors)
        self.known: dict[Node, _Is] = {}
        self.regions: dict[Node, Region] = {}  # by ids
        self.found: dict[str, torch.nn.Module] = {}
        self.loops = Loops(self, _Is)

    def run(self) -> dict[str, torch.nn.Module]:
        _add_other_packages()
        for node in list(self.graph.nodes):
            if node.op != "call_function":
                continue
            packet = getattr(node.target, "overloadpacket", node.target)
            rule = _RULES.get(packet, _Search.other)
            found = self.loops.rule(packet, node)
            if found is None:
                rule = SLICES.get(packet) or MAPS.get(packet) or rule
                found = rule(self, node)
            if found is not None:
                self.known[node] = found
        if not self.found and not any(n.target is self.operation for n in self.graph.nodes):
            self.found.update(find_sums(self))
        if self.found:
            self.graph.eliminate_dead_code()
            self.graph.lint()
        return self.found

    def is_(self, node: Any, *kinds: str) -> _Is | None:
        found = self.known.get(node) if isinstance(node, Node) else None
        return found if found is not None and found.kind in kinds else None

    def region(self, ids: Node) -> Region:
        return self.regions.setdefault(ids, Region(ids))

    # -- rules, by operation --------------------------------------------------

    def view(self, node: Node) -> _Is | None:
        source, shape = node.args[0], extents_of(node.meta["val"])
        old = extents_of(source.meta["val"])
        if len(old) in (2, 3) and old[:-2] in ((), (1,)) and isinstance(old[-1], int) and (
                not isinstance(old[-2], int)):
            is_float = source.meta["val"].is_floating_point()
            if len(shape) == 1 and not is_float:
                return _Is("ids", self.loops.matrix(source))
            if is_float and shape[0] == old[-2] * old[-1] and shape[1:] in ((), (1,)):
                of = self.loops.matrix(source)
                return _Is("weights", of, of)
        found = self.is_(source, "rows", "sorted weights", "weights", "tokens")
        if found is None:
            return self.other(node)
        top_k = extents_of(found.ids.meta["val"])[1] if found.kind == "rows" else None
        if found.kind == "rows" and len(shape) == 3 and shape[1] == top_k:
            return _Is("choices", found.ids, found.of)
        if found.kind != "rows" and shape == (*old, 1):
            return found
        return None

    def same(self, node: Node) -> _Is | None:
        """A conversion of ids or weights, or of rows in the region."""
        found = self.known.get(node.args[0])
        if found is None or found.kind == "part" or (found.kind == "grouped" and found.of is None):
            return self.other(node)
        of_floats = found.kind in ("weights", "sorted weights", "rows", "choices", "grouped")
        return None if of_floats and rounds(node) else found

    def sort(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "ids")
        ids = self.loops.chosen(node.args[0]) if found is None else None
        if ids is not None and ids.slot is None and ids.layout == ("token",):
            found = _Is("ids", self.loops.matrix(ids.ids))
        if found is None or argument(node, "descending", False):
            # The inverse permutation, where it is made by another sort.
            found = self.is_(node.args[0], "order")
            if found is None or argument(node, "descending", False):
                return None
            return _Is("sort of order", found.ids)
        return _Is("sort", found.ids)

    def argsort(self, node: Node) -> _Is | None:
        found = self.sort(node)
        return found and _Is({"sort": "order"}.get(found.kind, "inverse"), found.ids)

    def getitem(self, node: Node) -> _Is | None:
        source, part = node.args
        if found := self.is_(source, "parts"):
            return _Is("part", found.ids, source, part)
        if found := self.is_(source, "sort"):
            return _Is("order" if part else "sorted ids", found.ids)
        if found := self.is_(source, "sort of order"):
            return _Is("inverse", found.ids) if part else None
        return self.other(node)

    def divide(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "order")
        if found is None:
            return self.other(node)
        # Places are not below 0.
        floor = node.target is operator.floordiv or (
            node.kwargs.get("rounding_mode") in ("floor", "trunc")) or (
            "floor_divide" in str(node.target))
        top_k = extents_of(found.ids.meta["val"])[1]
        return _Is("tokens", found.ids) if floor and node.args[1] == top_k else None

    def index(self, node: Node) -> _Is | None:
        source, indices = node.args[0], node.args[1]
        indices = indices if isinstance(indices, (list, tuple)) else [node.args[2]]
        if (found := self.loops.index(node, source, indices)) is not None:
            return found
        if len(indices) != 1:
            return None
        if found := self.is_(indices[0], "tokens"):
            return self.rows(node, source, found)
        if (found := self.is_(indices[0], "order")) and extents_of(source.meta["val"]) == (
                extents_of(found.ids.meta["val"])[0],) and source.meta["val"].is_floating_point():
            return _Is("sorted weights", found.ids, self.loops.matrix(source))
        if (found := self.is_(indices[0], "order")) and (of := self.is_(source, "weights")):
            same = extents_of(of.of.meta["val"]) == extents_of(found.ids.meta["val"])
            return _Is("sorted weights", found.ids, of.of) if same else None
        if found and (rows := repeated(source, extents_of(found.ids.meta["val"])[1])):
            return self.rows(node, rows, found)
        if (found := self.is_(indices[0], "sorted ids")) and source in self.tensors:
            region = self.region(found.ids)
            region.parameters.add(source)
            return self.part(node, found.ids, "slice", source.meta["val"].shape[0])
        if found := self.is_(indices[0], "inverse"):
            of = self.is_(source, "grouped")
            if of is not None and of.ids is found.ids:
                return _Is("rows", found.ids, of.of)
        return None

    def rows(self, node: Node, source: Node, found: _Is) -> _Is | None:
        """The rows of the tokens, sorted by expert."""
        region = self.region(found.ids)
        if source.meta["val"].ndim != 2 or region.rows not in (None, source):
            return None
        region.rows = source
        return self.part(node, found.ids, "rows")

    def gather(self, node: Node) -> _Is | None:
        source, dim, index = node.args[:3]
        found = self.is_(index, "tokens")
        if found is None or dim != 0 or extents_of(index.meta["val"])[1:] != extents_of(
                source.meta["val"])[1:]:
            return self.other(node)
        return self.rows(node, source, found)

    def expand(self, node: Node) -> _Is | None:
        """Places of tokens, one for each column."""
        found = self.is_(node.args[0], "tokens")
        return found if found and node.args[0].meta["val"].ndim == 2 else self.other(node)

    def counts(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "ids", "sorted ids")
        if found is None and (ids := self.loops.chosen(node.args[0])) is not None:
            found = _Is("ids", self.loops.matrix(ids.ids)) if ids.slot is None else None
        if found is None:
            return None
        packet = node.target.overloadpacket
        if packet is torch.ops.moe_mlir.counts:
            bins = node.args[1]
        elif packet is aten.histc:
            bins, low, high = (argument(node, n, d) for n, d in (
                ("bins", 100), ("min", 0), ("max", 0)))
            # A limit of the last bin counts there what equals it: ids of dropped choices.
            if low != 0 or high not in (bins - 1, bins) or (
                    high == bins and found.ids in self.loops.masks):
                return None
        else:
            bins = argument(node, "minlength", 0)
            if argument(node, "weights", None) is not None:
                return None
        return _Is("counts", found.ids) if self.has_experts(found.ids, bins) else None

    def cumsum(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "counts")
        return found and _Is("ends", found.ids)

    def grouped_matmul(self, node: Node) -> _Is | None:
        rows, weight = node.args[:2]
        ends = node.args[2] if len(node.args) > 2 else node.kwargs.get("offs")
        part = "matmul"
        if (transposed := untransposed(weight)) is not None:
            part, weight = "transposed matmul", transposed
        of, found = self.is_(rows, "grouped"), self.is_(ends, "ends")
        if of is None or found is None or of.ids is not found.ids or of.of is not None or (
                weight.meta["val"].ndim != 3 or not self.of_parameters(weight, found.ids)):
            return None
        more = [v for n, v in node.kwargs.items() if n != "offs"] + list(node.args[3:])
        if any(v is not None for v in more):
            return None
        return self.part(node, found.ids, part, weight.meta["val"].shape[0])

    def index_put(self, node: Node) -> _Is | None:
        """The inverse of a permutation, ``inverse[order] = 0, 1, 2, ...``, or a sum of rows."""
        into, indices, values = node.args[:3]
        if len(indices) != 1:
            return None
        if argument(node, "accumulate", False):
            return self.add_rows(node, into, indices[0], values)
        found = self.is_(indices[0], "order")
        if found and is_arange(values):
            return _Is("inverse", found.ids)
        of = self.is_(values, "grouped")
        if found and of and of.ids is found.ids and extents_of(into.meta["val"]) == extents_of(
                values.meta["val"]):
            node.meta["moe.rows"] = values
            if extents_of(found.ids.meta["val"])[1] == 1 and not any(
                    user.meta["val"].ndim == 3 for user in node.users):
                self.replace_single(node, found.ids, of.of)
            return _Is("rows", found.ids, of.of)  # all of them
        return None

    def scatter(self, node: Node) -> _Is | None:
        into, dim, index, values = node.args[:4]
        # The ids of a token differ where the sizes of the parts are those of the rows.
        if node.target is aten.scatter.value and values == 1 and is_zero(into) and (
                dim in (1, -1)) and into.meta["val"].ndim == 2 and (
                not index.meta["val"].is_floating_point()):
            return _Is("mask", index)
        found = self.is_(index, "order")
        return _Is("inverse", found.ids) if found and dim == 0 and is_arange(values) and (
            node.target is aten.scatter.src) else None

    def multiply(self, node: Node) -> _Is | None:
        for rows, weights in (node.args[:2], node.args[1::-1]):
            of, found = self.is_(rows, "grouped"), self.is_(weights, "sorted weights")
            if of and found and of.ids is found.ids and of.of is None and (
                    len(weights.meta["val"].shape) == 2):
                if self.scale_rows(node, rows, found):
                    return self.known[rows]
                self.region(of.ids).weights = found.of
                node.meta["moe.rows"] = self.result_of(rows)
                return _Is("grouped", of.ids, found.of)
            of = self.is_(rows, "choices")
            if of and of.of is None and isinstance(weights, Node):
                source = _without_last(weights)
                if source is not None and extents_of(source.meta["val"]) == extents_of(
                        of.ids.meta["val"]):
                    node.meta["moe.rows"] = self.result_of(rows)
                    return _Is("choices", of.ids, source)
        return self.other(node)

    def scale_rows(self, node: Node, rows: Node, weights: _Is) -> bool:
        """Multiply the rows of tokens with one choice before they are sorted, if ``node`` is that
        product of sorted ``rows``, and more is computed of it than a sum."""
        region, of = self.region(weights.ids), weights.of
        sums = {aten.index_add, aten.scatter_add, aten.index_put}
        # All that is gathered would be of the scaled rows.
        others = any(n is not rows and n.meta["moe.part"] == "rows" for n in region.nodes)
        if rows.meta.get("moe.part") != "rows" or len(rows.users) != 1 or others or (
                region.ones is not None or extents_of(of.meta["val"])[1:] != (1,)
                or any(packet_of(user) in sums for user in node.users)):
            return False
        with self.graph.inserting_before(node):
            make = adder(self.graph)
            region.ones = make(aten.full_like.default, of, 1)
            region.rows = make(aten.mul.Tensor, region.rows, of)
        region.nodes.remove(rows)
        self.part(node, weights.ids, "rows")
        return True

    def sum(self, node: Node) -> _Is | None:
        if (found := self.is_(node.args[0], "mask")) and list(node.args[1]) in ([0], [-2]):
            bins = node.args[0].meta["val"].shape[1]
            keeps = argument(node, "keepdim", False)
            return _Is("counts", found.ids) if not keeps and self.has_experts(
                found.ids, bins) else None
        found = self.is_(node.args[0], "choices")
        if found is None:
            return self.other(node)
        if list(node.args[1]) not in ([1], [-2]) or argument(node, "keepdim", False):
            return None
        self.replace(node, found, self.result_of(node.args[0]))
        return None

    def index_add(self, node: Node) -> _Is | None:
        into, dim, index, rows = node.args[:4]
        if dim == 0 and argument(node, "alpha", 1) == 1:
            self.add_rows(node, into, index, rows)
        return None

    def add_rows(self, node: Node, into: Node, index: Node, rows: Node) -> None:
        """The sum of each token's rows, added to what is there."""
        found, of = self.is_(index, "tokens"), self.is_(rows, "grouped")
        if found and of and of.ids is found.ids and into not in self.known and (
                index.meta["val"].ndim == 1
                or extents_of(index.meta["val"]) == extents_of(rows.meta["val"])):
            self.replace(node, of, self.result_of(rows), None if is_zero(into) else into)

    # -- a part for each expert -----------------------------------------------

    def slice(self, node: Node) -> _Is | None:
        """The count of one expert; or all there is."""
        if extents_of(node.meta["val"]) == extents_of(node.args[0].meta["val"]):
            return self.same(node)
        start, end = argument(node, "start", 0), argument(node, "end", None)
        found = self.is_(node.args[0], "counts")
        if found is None or end != start + 1 or argument(node, "dim", 0) != 0:
            return self.other(node)
        return _Is("count", found.ids, number=start)

    def select(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "counts")
        return _Is("count", found.ids, number=node.args[2]) if found else self.other(node)

    def squeeze(self, node: Node) -> _Is | None:
        return self.is_(node.args[0], "count") or self.other(node)

    def read_back(self, node: Node) -> _Is | None:
        found = self.is_(node.args[0], "count")
        return found and _Is("size", found.ids, number=found.number)

    def split(self, node: Node) -> _Is | None:
        rows, sizes = node.args[:2]
        of = self.is_(rows, "grouped")
        known = [self.is_(size, "size") for size in sizes] if isinstance(sizes, list) else [None]
        if None in known:
            return self.other(node)
        if of is None or of.of is not None or argument(node, "dim", 0) != 0 or any(
                size.ids is not of.ids or size.number != i for i, size in enumerate(known)):
            return None
        return _Is("parts", of.ids) if self.has_experts(of.ids, len(known)) else None

    def cat(self, node: Node) -> _Is | None:
        """The results of the parts, in their order."""
        parts = [self.is_(part, "part") for part in node.args[0]]
        if None in parts or argument(node, "dim", 0) != 0:
            return self.other(node)
        first = parts[0]
        if first.layout or len(parts) != self.region(first.ids).experts or any(
                part.of is not first.of or part.number != i for i, part in enumerate(parts)):
            return None
        for part in node.args[0]:
            self.of_part(part, first)
        return self.part(node, first.ids, "parts")

    def of_part(self, node: Node, split: _Is) -> None:
        """Add what makes the result of a part to the function of an expert."""
        found = self.known.get(node)
        if found is None:
            self.of_parameters(node, split.ids)
        elif node not in self.region(split.ids).nodes and "moe.part" not in node.meta:
            if node.target is operator.getitem and node.args[0] is split.of:
                self.part(node, split.ids, "part")
                return
            for source in node.all_input_nodes:
                self.of_part(source, split)
            self.part(node, split.ids, "operation")

    def other(self, node: Node) -> _Is | None:
        """Any operation on rows of an expert is part of its function."""
        among, parameters = None, []
        for source in node.all_input_nodes:
            found = self.known.get(source)
            if found is None and self.of_parameters(source, None):
                parameters.append(source)
            elif found is None or found.kind not in ("grouped", "part") or (
                    found.kind == "grouped" and found.of is not None) or (
                    among not in (None, found)):
                return None
            else:
                among = found
        if among is None:
            return None
        if among.kind == "part":
            return among
        if not keeps_rows(node):
            self.region(among.ids).is_guess = True  # it may mix the rows of all experts
        for source in parameters:
            self.of_parameters(source, among.ids)
        return self.part(node, among.ids, "operation")

    # -- the function of an expert --------------------------------------------

    def part(self, node: Node, ids: Node, part: str, experts: int | None = None) -> _Is | None:
        if experts is not None and not self.has_experts(ids, experts):
            return None
        node.meta["moe.part"] = part
        self.region(ids).nodes.append(node)
        return _Is("grouped", ids)

    def has_experts(self, ids: Node, experts: int) -> bool:
        region = self.region(ids)
        if region.experts is None:
            region.experts = experts
        return region.experts == experts

    def of_parameters(self, node: Node, ids: Node | None) -> bool:
        """Return true if a value is computed of parameters alone; with ``ids`` add it to the
        function of an expert."""
        if node.op == "placeholder":
            if node not in self.tensors:
                return False
            if ids is not None:
                self.region(ids).parameters.add(node)
            return True
        if node in self.of_tokens:
            return False
        if node.op != "call_function" or node in self.known or not node.all_input_nodes or not all(
                self.of_parameters(source, ids) for source in node.all_input_nodes):
            return False
        if ids is not None and node not in self.region(ids).nodes:
            node.meta["moe.part"] = "operation"
            self.region(ids).nodes.append(node)
        return True

    def result_of(self, node: Node) -> Node:
        """Return the rows of the experts before they were weighted and brought back."""
        while "moe.part" not in node.meta:
            node = node.meta.get("moe.rows") or node.args[0]
        return node

    def replace_single(self, node: Node, ids: Node, weights: Node | None) -> None:
        """Replace the results of the only choice of each token."""
        region = self.region(ids)
        if region.rows is not None and region.experts is not None:
            region.is_guess = True
            given = self.loops.columns(node, ids, weights, None)
            self.call(node, region, *given, self.result_of(node))

    def replace(self, node: Node, found: _Is, result: Node, into: Node | None = None) -> None:
        region = self.region(found.ids)
        weights = found.of or region.ones
        if region.rows is None or region.experts is None or weights is None or (
                extents_of(weights.meta["val"]) != extents_of(found.ids.meta["val"])):
            return
        self.call(node, region, found.ids, weights, result, into)

    def call(self, node: Node, region: Region, ids: Node, weights: Node,
             result: Node | None = None, into: Node | None = None,
             mask: Node | None = None) -> None:
        """Put a call of the experts in place of a node, whose rows ``result`` are. It is added
        to ``into``, or stands for its rows where ``mask`` is true."""
        key = f"grouped{len(self.found)}"
        self.found[key] = experts_of(region, result or node, self.tensors)
        like, rows = node.meta["val"], region.rows.meta["val"]
        with self.graph.inserting_before(node):
            call = self.graph.call_function(self.operation, (region.rows, ids, weights, key))
            call.meta["val"] = like.reshape(rows.shape).to(rows.dtype)
            total = call
            if like.dtype != rows.dtype:
                total = self.graph.call_function(aten._to_copy.default, (total,),
                                                 {"dtype": like.dtype})
                total.meta["val"] = like.reshape(rows.shape)
            if like.ndim != rows.ndim:
                shape = [e if isinstance(e, int) else -1 for e in extents_of(like)]
                total = self.graph.call_function(aten.view.default, (total, shape))
                total.meta["val"] = like
            if mask is not None:
                where = self.graph.call_function(aten.view.default, (mask, [-1, 1]))
                where.meta["val"] = mask.meta["val"].reshape(-1, 1)
                total = self.graph.call_function(aten.where.self, (where, total, into))
                total.meta["val"] = node.meta["val"]
            elif into is not None:
                total = self.graph.call_function(aten.add.Tensor, (into, call))
                total.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(total)


def _without_last(node: Node) -> Node | None:
    """Return the tensor that a view gave a last extent of 1."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet is aten.unsqueeze and node.args[1] in (-1, node.meta["val"].ndim - 1):
        return node.args[0]
    if packet in (aten.view, aten.reshape) and extents_of(node.meta["val"]) == (
            *extents_of(node.args[0].meta["val"]), 1):
        return node.args[0]
    return None


_RULES: dict[Any, Callable[[_Search, Node], _Is | None]] = {
    aten.view: _Search.view, aten.reshape: _Search.view, aten.unsqueeze: _Search.view,
    aten._unsafe_view: _Search.view, aten.flatten: _Search.view,
    aten._to_copy: _Search.same, aten.clone: _Search.same, aten.detach: _Search.same,
    aten.sort: _Search.sort, aten.argsort: _Search.argsort, operator.getitem: _Search.getitem,
    aten.div: _Search.divide, aten.floor_divide: _Search.divide,
    aten.index: _Search.index, aten.index_select: _Search.index,
    aten.histc: _Search.counts, aten.bincount: _Search.counts, aten.cumsum: _Search.cumsum,
    torch.ops.moe_mlir.counts: _Search.counts,
    aten._grouped_mm: _Search.grouped_matmul, aten.index_put: _Search.index_put,
    aten.scatter: _Search.scatter, aten.mul: _Search.multiply, aten.sum: _Search.sum,
    aten.index_add: _Search.index_add, aten.scatter_add: _Search.index_add,
    aten.gather: _Search.gather, aten.expand: _Search.expand,
    aten.slice: _Search.slice, aten.select: _Search.select, aten.squeeze: _Search.squeeze,
    aten._local_scalar_dense: _Search.read_back, aten.split_with_sizes: _Search.split,
    aten.cat: _Search.cat,
}


def _add_other_packages() -> None:
    """Add operations that say the same in other packages, where they are loaded."""
    if (fallback := getattr(torch.ops.transformers, "grouped_mm_fallback", None)) is not None:
        _RULES[fallback] = _Search.grouped_matmul
