"""Finds a loop over the experts in a graph: for each of them, the rows of its tokens.

A traced loop is a chain of additions to a tensor of zeros, one for each expert: at the
tokens whose ids are that expert, of a function of their rows, times their weights. The
tokens are selected by a mask, by the indices where one is true, or by a slice of the sorted
choices; all choices of a token at once, or one loop for each of them.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from .._graph.function import argument, extents_of
from .choices import (VIEWS, column_of, dimensions, is_arange, is_nothing, is_single, is_zero,
                       keeps_sign, layout_of, number_of_experts, packet_of, rank_of, repeated,
                       rounds, top_k_of)
from .limits import limit, limit_each
from .masked import chosen
from .matrices import elements_at, scattered_ids
from .nodes import adder, place_of

__all__ = ["Loops"]

Node = torch.fx.Node
aten = torch.ops.aten


class Loops:
    """The rules of ``routing`` for loops; ``search`` has what is known of each node."""

    def __init__(self, search: Any, is_: Any):
        self.search, self.make = search, is_
        self.matrices: dict[tuple[Node, Node], Node] = {}
        self.rows: dict[Node, Node] = {}
        self.limited: dict[tuple[Node, Node], Node] = {}
        self.masks: dict[Node, Node] = {}  # of ids that are those of some choices alone
        self.reasons: dict[str, None] = {}  # why something that looks like a loop is none

    def rule(self, packet: Any, node: Node) -> Any:
        rule = _RULES.get(packet)
        return None if rule is None else rule(self, node)

    def left(self, node: Node, why: str) -> None:
        self.reasons[f"{why} ({place_of(node)})"] = None

    def left_out(self) -> list[str]:
        """Return which experts the largest sum lacks, if nothing else is wrong."""
        sums = [n for n, found in self.search.known.items() if found.kind == "sum"]
        if self.reasons or not sums:
            return []
        last = max(sums, key=lambda n: len(n.meta["moe.parts"]))
        experts = number_of_experts(self.search.known[last].ids)
        missing = sorted(set(range(experts or 0)) - {e for _, e in last.meta["moe.parts"]})
        lacks = f"lacks expert {missing[0]}" if missing else "is used in another way"
        return [f"a sum over experts {lacks} ({place_of(last)})"]

    def is_(self, node: Any, *kinds: str) -> Any:
        return self.search.is_(node, *kinds)

    # -- the ids --------------------------------------------------------------

    def chosen(self, node: Any) -> Any:
        """Return what is known of ids, or of those of one choice."""
        if not isinstance(node, Node):
            return None
        if (found := self.is_(node, "chosen")) is not None:
            return found
        if (found := self.is_(node, "ids")) is not None and top_k_of(found.ids) == 1:
            return self.make("chosen", found.ids, layout=("token",))
        if number_of_experts(node) is None:
            return None
        layout = layout_of(node)
        return layout and self.make("chosen", node, layout=layout)

    def equal(self, node: Node) -> Any:
        """Where the ids are one expert, or each of them."""
        ids, number = node.args
        found = self.chosen(ids)
        flat = self.is_(ids, "ids")
        if flat and found is None and isinstance(number, int) and len(
                extents_of(ids.meta["val"])) == 1 and self.search.has_experts(
                flat.ids, number_of_experts(flat.ids)):
            return self.make("hits", flat.ids, number=number, layout=("flat",))
        if isinstance(number, int) and found is not None:
            return self.make("hits", found.ids, number=number, slot=found.slot,
                             layout=found.layout)
        if is_arange(number):
            source, last = ids, rank_of(ids) - 1
            if packet_of(source) is aten.unsqueeze and source.args[1] in (-1, last):
                source = source.args[0]
            elif packet_of(source) in VIEWS and extents_of(ids.meta["val"]) == (
                    *extents_of(source.args[0].meta["val"]), 1):
                source = source.args[0]
            else:
                return None
            found = self.chosen(source)
            if found and number_of_experts(found.ids) == extents_of(number.meta["val"])[0]:
                return self.make("hits", found.ids, slot=found.slot,
                                 layout=(*found.layout, "expert"))
        return None

    def same(self, node: Node) -> Any:
        found = self.is_(node.args[0], "hits", "weighted part", "part weights", "expert weights",
                         "number of hits")
        if found is not None and rounds(node):
            return None
        if found is not None and found.kind == "number of hits" and (
                node.meta["val"].dtype == torch.bool):
            return self.like(found, kind="hits")
        if found is None and (ids := self.chosen(node.args[0])) is not None:
            return ids
        if found is not None and found.kind == "weighted part":
            node.meta["moe.rows"] = node.args[0]
        return found

    def permute(self, node: Node) -> Any:
        found = self.is_(node.args[0], "hits")
        if found is None:
            return None
        order = list(node.args[1]) if packet_of(node) is aten.permute else _order(node)
        return self.like(found, layout=tuple(found.layout[i] for i in order))

    def like(self, found: Any, **changes: Any) -> Any:
        fields = {f: getattr(found, f) for f in ("kind", "ids", "of", "number", "slot", "layout")}
        return self.make(**{**fields, **changes})

    def select(self, node: Node) -> Any:
        """One expert of a mask, or one choice of each token."""
        found = self.is_(node.args[0], "hits") or self.chosen(node.args[0])
        dim, at = argument(node, "dim", 0), node.args[2]
        if found is None or not isinstance(at, int):
            return None
        return self.one(found, dim % len(found.layout), at)

    def one(self, found: Any, dim: int, at: int) -> Any:
        what, left = found.layout[dim], (*found.layout[:dim], *found.layout[dim + 1:])
        if what == "expert" and at >= 0:
            return self.like(found, number=at, layout=left)
        if what == "choice":
            return self.like(found, slot=at % top_k_of(found.ids), layout=left)
        return self.like(found, layout=left) if what == "unit" else None

    def slice(self, node: Node) -> Any:
        """The indices along one dimension of a mask; one expert, or one choice."""
        source, dim = node.args[0], argument(node, "dim", 0) % rank_of(node)
        start, end = argument(node, "start", 0) or 0, argument(node, "end", None)
        if extents_of(node.meta["val"]) == extents_of(source.meta["val"]):
            return self.search.known.get(source) if self.is_(
                source, "hits", "chosen", "expert weights") else self.chosen(source)
        found = self.is_(source, "places")
        if found is not None and dim == 1 and end == start + 1:
            return self.place(found, start)
        found = self.is_(source, "hits") or self.chosen(source)
        if found is None or end != start + 1 or found.layout[dim] not in ("expert", "choice"):
            return None
        one = self.one(found, dim, start)
        return self.like(one, layout=(*found.layout[:dim], "unit", *found.layout[dim + 1:]))

    def column(self, node: Node) -> Any:
        """One of the columns that the indices of a mask are split into."""
        split, at = node.args
        if packet_of(split) not in (aten.split_with_sizes, aten.split, aten.unbind):
            return None
        found, dim = self.is_(split.args[0], "places"), argument(split, "dim", 0)
        sizes = 1 if packet_of(split) is aten.unbind else split.args[1]
        ones = sizes == 1 or (isinstance(sizes, (list, tuple)) and set(sizes) == {1})
        return self.place(found, at) if found and ones and dim in (1, -1) else None

    def place(self, found: Any, at: int) -> Any:
        """The indices of a mask along one of its dimensions."""
        what = found.layout[at]
        if what == "unit":
            return self.make("unit place", found.ids)
        if what not in ("token", "choice", "flat"):
            return None
        order = tuple(d for d in found.layout if d != "unit")
        return self.make("token" if what == "flat" else what, found.ids, number=found.number,
                         slot=found.slot, layout=order)

    def units(self, node: Node) -> Any:
        """A view that moves dimensions of one element."""
        source = node.args[0]
        if not isinstance(source.meta.get("val"), torch.Tensor):
            return None
        old, new = (extents_of(n.meta["val"]) for n in (source, node))
        places = self.is_(source, "places")
        if places is not None and len(places.layout) == 1 and len(new) == 1:
            return self.place(places, 0)
        if [e for e in old if e != 1] != [e for e in new if e != 1]:
            return None
        found = self.is_(source, "hits") or self.chosen(source)
        if found is not None and found.kind == "chosen" and len(old) == 2 and len(new) == 1 and (
                old[1] == 1):
            return None  # flat ids, which may be sorted
        if found is not None:
            # Which extents of 1 are choices is not seen.
            kept = iter([d for d, e in zip(found.layout, old) if e != 1])
            return self.like(found, layout=tuple("unit" if e == 1 else next(kept) for e in new))
        found = self.is_(source, "weighted part", "sum")
        if found is not None and old == new:
            node.meta["moe.rows"] = source
            return found
        if found is not None and found.kind == "sum":
            node.meta["moe.parts"] = source.meta["moe.parts"]
            node.meta["moe.anything"] = source.meta["moe.anything"]
            node.meta["moe.base"] = source.meta["moe.base"]
            return found
        return self.is_(source, "token", "choice", "unit place", "part weights", "expert weights")

    def any(self, node: Node) -> Any:
        """Whether a token has a choice at an expert."""
        found, dims = self.is_(node.args[0], "hits"), argument(node, "dim", None)
        dims = [dims] if isinstance(dims, int) else dims
        if found is None or found.slot is not None or dims is None or len(dims) != 1:
            return None
        dim = dims[0] % len(found.layout)
        if found.layout[dim] != "choice":
            return None
        keeps = ("unit",) if argument(node, "keepdim", False) else ()
        return self.like(found, slot="any",
                         layout=(*found.layout[:dim], *keeps, *found.layout[dim + 1:]))

    def of_matrix(self, node: Node) -> Any:
        """The tokens with a weight in a column of a matrix that is 0 elsewhere."""
        column = column_of(node)
        if column is None:
            return None
        matrix, number = column
        found = self.chosen(scattered_ids(matrix, extents_of(matrix.meta["val"])[-1]))
        shape = extents_of(node.meta["val"])
        if found is None or found.slot is not None or 1 in shape:
            return None
        return self.like(found, kind="hits", number=number, slot="any", layout=("token",))

    def positive(self, node: Node) -> Any:
        """Where such a weight is, or such a choice."""
        if (found := self.is_(node.args[0], "number of hits")) is not None:
            some = node.args[1] == (1 if packet_of(node) is aten.ge else 0)
            return self.like(found, kind="hits") if some else None
        if node.args[1] != 0 or packet_of(node) is aten.ge:
            return None
        found = self.of_matrix(node.args[0])
        if found is not None and packet_of(node) is aten.gt and not keeps_sign(node.args[0]):
            return self.left(node, "weights below 0 leave out their choices")
        return found

    def nonzero(self, node: Node) -> Any:
        found = self.is_(node.args[0], "hits") or self.of_matrix(node.args[0])
        if found is None or "expert" in found.layout:
            return None
        return self.like(found, kind="places")

    # -- its rows and their weights -------------------------------------------

    def index(self, node: Node, source: Node, indices: Sequence[Any]) -> Any:
        indices = self.without_units(source, indices)
        if len(indices) == 2 and None not in indices:
            return self.weights(node, source, *indices)
        if indices[0] is None and len(indices) == 2 and packet_of(source) is aten.unsqueeze and (
                source.args[1] == 0):
            source, indices = source.args[0], indices[1:]
        at = self.selection(indices)
        if at is None:
            return None
        if self.is_(source, "sum") or is_zero(source):
            return self.like(at, kind="sum at", of=source)
        if (weights := self.weights_of(node, source, at)) is not None:
            return self.like(at, kind="part weights", of=weights)
        wide = [e for e in extents_of(source.meta["val"]) if e != 1]
        if not source.meta["val"].is_floating_point() or len(wide) != 2 or at.kind == "place":
            return None
        if at.layout == ("flat",):
            source = repeated(source, top_k_of(at.ids))
            if source is None:
                return None
        region = self.search.region(at.ids)
        if region.rows not in (None, rows := self.matrix(source)):
            return None
        region.rows = rows
        # The function of an expert takes rows without a batch.
        region.is_guess = region.is_guess or rank_of(node) != 2
        self.search.part(node, at.ids, "rows")
        return self.like(at, kind="part")

    def without_units(self, source: Node, indices: Sequence[Any]) -> Sequence[Any]:
        """Leave out indices of leading extents of 1, as a batch of one sequence has them."""
        shape = extents_of(source.meta["val"])
        while len(indices) > 1 and shape[0] == 1 and self.is_(indices[0], "unit place"):
            indices, shape = indices[1:], shape[1:]
        return indices

    def selection(self, indices: Sequence[Any]) -> Any:
        """Return which tokens indices are: of one expert, in an order."""
        if len(indices) != 1:
            return None
        found = self.is_(indices[0], "token", "hits", "choice place")
        if found is None:
            return None
        order = tuple(d for d in found.layout if d != "unit")
        if found.kind == "hits" and order not in (("token",), ("flat",)):
            return None
        return self.like(found, kind="place" if found.kind == "choice place" else "tokens of one",
                         of=None, layout=order)

    def matrix(self, source: Node) -> Node:
        """Return rows ``[1, T, H]`` as ``[T, H]``, and one number for each token as ``[T, 1]``."""
        shape = extents_of(source.meta["val"])
        if len(shape) == 2 and (shape[0] != 1 or isinstance(shape[1], int)):
            return source
        if source not in self.rows:
            graph, last = self.search.graph, shape[-1] if isinstance(shape[-1], int) else 1
            with graph.inserting_after(source):
                view = graph.call_function(aten.view.default, (source, [-1, last]))
            view.meta["val"] = source.meta["val"].reshape(-1, last)
            self.rows[source] = view
        return self.rows[source]

    def weights_of(self, node: Node, source: Node, at: Any) -> Node | None:
        """Return the weights of all choices that ``source``, one for each token, is of."""
        if (found := self.is_(source, "expert weights")) is not None:
            return found.of if (found.ids, found.number) == (at.ids, at.number) else None
        values = source.meta["val"]
        if not values.is_floating_point():
            return None
        if at.kind == "place":
            found = self.is_(source, "weights")
            same = found is not None and extents_of(found.of.meta["val"]) == extents_of(
                at.ids.meta["val"])
            return found.of if same else None
        shape = [e for e in extents_of(values) if e != 1]
        if at.slot is None and shape == [e for e in extents_of(at.ids.meta["val"]) if e != 1] and (
                len(shape) == 1):
            return source
        column = column_of(source)
        if column is None:
            return None
        of, number = column
        width = extents_of(of.meta["val"])[-1]
        if at.slot == number and width == top_k_of(at.ids) and "choice" in dimensions(at.ids):
            return of
        if number == at.number and width == number_of_experts(at.ids) and at.slot in (None, "any"):
            return self.gathered(node, of, at.ids)
        return None

    def gathered(self, node: Node, matrix: Node, ids: Node) -> Node:
        """Return the elements of a matrix ``[T, E]`` at the ids."""
        key = matrix, ids
        if key not in self.matrices:
            graph = self.search.graph
            index, matrix = self.matrix(ids), self.matrix(matrix)
            with graph.inserting_before(node):
                found = elements_at(matrix, ids, extents_of(matrix.meta["val"])[-1])
                if found is None:
                    new = graph.call_function(aten.gather.default, (matrix, -1, index))
                    new.meta["val"] = torch.gather(matrix.meta["val"], -1, index.meta["val"])
            self.matrices[key] = new if found is None else found[1]
        return self.matrices[key]

    def weights(self, node: Node, source: Node, token: Node, choice: Node) -> Any:
        token, choice = self.is_(token, "token"), self.is_(choice, "choice")
        if token is None or choice is None or self.like(token, kind="choice") != choice:
            return None
        if packet_of(source) is aten.unsqueeze and source.args[1] in (-1, rank_of(source) - 1):
            source = source.args[0]
        if extents_of(source.meta["val"]) != extents_of(token.ids.meta["val"]):
            return None
        return self.like(token, kind="part weights", of=source)

    def masked(self, node: Node) -> Any:
        """The weights of one expert, and 0 where a token does not choose it; or how many tokens
        each expert has."""
        product, dims = node.args[0], argument(node, "dim", None)
        found, of = self.is_(product, "hits"), None
        if found is not None:
            if "expert" not in found.layout and (one := self.any(node)) is not None:
                return self.like(one, kind="number of hits")
            left = [d for i, d in enumerate(found.layout)
                    if i not in [d % len(found.layout) for d in dims or ()]]
            experts = number_of_experts(found.ids)
            if left == ["expert"] and not argument(node, "keepdim", False) and (
                    found.slot is None) and self.search.has_experts(
                    found.ids, experts):
                return self.make("counts", self.matrix(found.ids))
            return None
        if packet_of(product) is aten.mul:
            for mask, of in (product.args[:2], product.args[1::-1]):
                if (found := self.is_(mask, "hits")) is not None:
                    break
        elif packet_of(product) is aten.where and is_nothing(product.args[2]):
            found, of = self.is_(product.args[0], "hits"), product.args[1]
        if isinstance(of, Node) and found is not None and found.layout == ("choice", "token") and (
                packet_of(of) in (aten.permute, aten.transpose, aten.t)) and rank_of(of) == 2:
            of = of.args[0]
        if found is None or not isinstance(of, Node) or "expert" in found.layout or (
                found.slot is not None or extents_of(of.meta["val"]) != extents_of(
                    found.ids.meta["val"]) or not dims or len(dims) != 1
                or found.layout[dims[0] % len(found.layout)] != "choice"
                or not of.meta["val"].is_floating_point()):
            return None
        return self.like(found, kind="expert weights", of=of, layout=())

    def multiply(self, node: Node) -> Any:
        for rows, weights in (node.args[:2], node.args[1::-1]):
            of, found = self.is_(rows, "part"), self.is_(weights, "part weights")
            if of and found and _key(of) == _key(found) and rank_of(weights) == rank_of(rows) == 2:
                node.meta["moe.rows"] = rows
                return self.like(found, kind="weighted part")
        return limit_each(self, node)

    # -- the sum --------------------------------------------------------------

    def add(self, node: Node) -> Any:
        """What was at the tokens, and the result of an expert."""
        if argument(node, "alpha", 1) != 1:
            return None
        if (both := self.sums(node)) is not None:
            return both
        for old, new in (node.args[:2], node.args[1::-1]):
            at, found = self.is_(old, "sum at"), self.is_(new, "weighted part", "part")
            if at and found and _key(at) == _key(found):
                node.meta["moe.sum"], node.meta["moe.rows"] = at.of, _result_of(new)
                weights = found.of if found.kind == "weighted part" else None
                return self.like(found, kind="added part", of=weights)
        return None

    def sums(self, node: Node) -> Any:
        """Sums of different experts, or one and zeros."""
        pair = [self.is_(a, "sum") for a in node.args[:2]]
        if pair[1] is None or (pair[0] is None and not is_zero(node.args[0])) or any(
                a.meta.get("moe.anything") for a in node.args[:2]):
            return None
        one, other = pair
        parts = [node.args[i].meta["moe.parts"] if pair[i] else {} for i in (0, 1)]
        if (one is not None and (one.ids, one.of) != (other.ids, other.of)) or (
                parts[0].keys() & parts[1].keys()):
            return None
        node.meta["moe.parts"] = {**parts[0], **parts[1]}
        node.meta["moe.anything"], node.meta["moe.base"] = False, node.args[0]
        if other.layout == ("flat",):
            return self.choices(node, other, other.of)
        self.replace(node, other, other.of)
        return other

    def scatter(self, node: Node) -> Any:
        """Rows at the places of their tokens, one for each, among zeros or in place of others."""
        into, dim, index, rows = node.args[:4]
        if dim != 0 or node.target is not aten.scatter.src:
            return None
        if is_zero(into):
            return self.added(node, into, index, rows)
        at = self.selection([index])
        if at is not None and not self.is_alone(at):
            return self.left(node, "results of the choices of a token replace one another")
        return at and self.added(node, into, index, rows, replaces=True)

    def is_alone(self, at: Any) -> bool:
        """Return true if a token is there once, and nothing was there before."""
        return at.slot != "any" and (
            at.slot is not None or is_single(at.ids) or at.layout == ("flat",))

    def index_add(self, node: Node) -> Any:
        into, dim, index, rows = node.args[:4]
        if dim != 0 or argument(node, "alpha", 1) != 1:
            return None
        return self.added(node, into, index, rows)

    def scatter_reduce(self, node: Node) -> Any:
        into, dim, index, rows, reduce = node.args[:5]
        if dim != 0 or reduce != "sum" or not argument(node, "include_self", True):
            return None
        return self.added(node, into, index, rows)

    def scatter_add(self, node: Node) -> Any:
        into, dim, index, rows = node.args[:4]
        return self.added(node, into, index, rows) if dim == 0 else None

    def columns_of(self, node: Node) -> Any:
        """Places of tokens, one for each column."""
        found, shape = self.is_(node.args[0], "token"), extents_of(node.meta["val"])
        same = found and rank_of(node.args[0]) == 2 and len(shape) == 2 and (
            shape[0] == extents_of(node.args[0].meta["val"])[0])
        return found if same else None

    def index_put(self, node: Node) -> Any:
        into, indices, values = node.args[:3]
        if len(indices := self.without_units(into, indices)) != 1:
            return None
        if argument(node, "accumulate", False):
            return self.added(node, into, indices[0], values)
        found = self.is_(values, "added part")
        if found is not None:
            return self.added(node, into, indices[0], values) if (
                values.meta["moe.sum"] is into) else None
        at = self.selection(indices)
        if at is not None and self.is_alone(at):
            return self.added(node, into, indices[0], values, replaces=True)
        # Rows of different tokens among zeros.
        if at is not None and self.is_(values, "weighted part", "part") and not is_zero(into):
            return self.left(node, "results of the choices of a token replace one another")
        return self.added(node, into, indices[0], values) if at is not None and (
            is_zero(into)) else None

    def added(self, node: Node, into: Node, index: Node, rows: Node,
              replaces: bool = False) -> Any:
        found = self.is_(rows, "weighted part", "added part", "part")
        at = self.selection([index])
        if at is None:
            return None
        if found is None or _key(at) != _key(found):
            what = "no function of their rows and weights" if found is None else (
                "of other tokens or choices")
            return self.left(node, f"what is added to the tokens of expert {at.number} is {what}")
        if rank_of(index) == 2 and self.is_(index, "token") and extents_of(
                index.meta["val"]) != extents_of(rows.meta["val"]):
            return None
        weights = None if found.kind == "part" else found.of
        before = self.is_(into, "sum")
        parts = dict(into.meta["moe.parts"]) if before else {}
        key = found.slot, found.number
        if key in parts:
            return self.left(node, f"expert {found.number} is added twice")
        if replaces and any(slot != found.slot for slot, _ in parts):
            return self.left(node, "results of choices replace one another")
        if before is None and not (replaces or is_zero(into)):
            return self.left(node, "a sum over experts does not begin with zeros")
        # Where results are added, nothing else was before.
        anything = into.meta.get("moe.anything") if before else not is_zero(into)
        if anything and not (replaces and (found.ids not in self.masks or is_single(found.ids))):
            return None
        if before is not None and (before.ids, before.of) != (found.ids, weights):
            return self.left(node, f"expert {found.number} has other choices or weights than those "
                             "before it")
        node.meta["moe.parts"] = {**parts, key: _result_of(rows)}
        node.meta["moe.anything"] = anything
        node.meta["moe.base"] = into.meta["moe.base"] if before else into
        if found.layout == ("flat",):
            return self.choices(node, found, weights)
        self.replace(node, found, weights)
        return self.like(found, kind="sum", of=weights, number=None, slot=None, layout=())

    def choices(self, node: Node, found: Any, weights: Node | None) -> Any:
        """The results of all choices, in the order of the ids."""
        search, ids, parts = self.search, found.ids, node.meta["moe.parts"]
        experts = number_of_experts(ids)
        if weights is not None:
            return None
        if len(parts) < experts:
            return self.like(found, kind="sum", of=None, number=None, layout=("flat",))
        results = [parts[None, number] for number in range(experts)]
        for part in results:
            search.of_part(part, search.known[part])
        search.part(node, ids, "parts")
        node.meta["moe.parts"] = results
        search.region(ids).is_guess = True
        return self.make("rows", ids)

    def replace(self, node: Node, found: Any, weights: Node | None) -> None:
        """Replace the sum of all parts by one call, of one choice or of all."""
        search, ids, parts = self.search, found.ids, node.meta["moe.parts"]
        experts, slots = number_of_experts(ids), {slot for slot, _ in parts}
        if len(parts) != experts * len(slots) or {n for _, n in parts} != set(range(experts)):
            return
        if len(slots) == 1 and found.slot not in (None, "any"):
            if any(packet_of(user) in (aten.index, aten.index_put, aten.index_add)
                   and user.args[0] is node for user in node.users) and top_k_of(ids) > 1:
                return  # of other choices, too
            slot = found.slot
        elif slots in ({None}, {"any"}) or slots == set(range(top_k_of(ids))):
            slot = None
        else:
            return
        region, like = search.region(ids), node.meta["val"]
        if not search.has_experts(ids, experts) or region.rows is None:
            return
        rows = region.rows.meta["val"]
        if like.dtype not in (rows.dtype, torch.float32) or like.shape[-1] != rows.shape[-1]:
            return
        first = next(iter(parts))[0]
        of_experts = [parts[first, number] for number in range(experts)]
        if not all(_same_function(part, parts[first, number])
                   for (_, number), part in parts.items()):
            self.left(node, "an expert is another function of each choice")
            return
        for part in of_experts:
            search.of_part(part, search.known[part])
        search.part(node, ids, "parts")
        node.meta["moe.parts"] = of_experts
        given = self.columns(node, ids, weights, slot)
        region.is_guess = region.is_guess or slots != {None} or weights is None
        mask = self.masks.get(ids) if node.meta["moe.anything"] else None
        search.call(node, region, *given, into=mask and node.meta["moe.base"], mask=mask)
        node.meta["moe.parts"] = parts

    def columns(self, node: Node, ids: Node, weights: Node | None, slot: int | None) -> (
            tuple[Node, Node]):
        """Return ids and weights ``[T, K]``; without weights ones."""
        graph, given = self.search.graph, []
        make = adder(graph)
        with graph.inserting_before(node):
            for value in (ids, weights):
                if value is None:
                    value = make(aten.full_like.default, given[0], 1,
                                 dtype=self.search.region(ids).rows.meta["val"].dtype)
                else:
                    top_k = top_k_of(ids)
                    if extents_of(value.meta["val"])[1:] != (top_k,):
                        value = make(aten.view.default, value, [-1, top_k])
                    if slot is not None and top_k > 1:
                        value = make(aten.slice.Tensor, value, 1, slot, slot + 1)
                given.append(value)
        return tuple(given)


def _key(found: Any) -> tuple[Any, ...]:
    """Return what two selections of the same tokens in the same order share."""
    return found.ids, found.number, found.slot, found.layout


def _result_of(node: Node) -> Node:
    """Return the rows of an expert before they were weighted."""
    while (rows := node.meta.get("moe.rows")) is not None:
        node = rows
    return node


def _same_function(one: Any, other: Any) -> bool:
    """Return true if two nodes are the same function of rows and parameters."""
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(
            _same_function(a, b) for a, b in zip(one, other))
    if not isinstance(one, Node) or not isinstance(other, Node):
        return type(one) is type(other) and one == other
    if one is other or (one.meta.get("moe.part") == other.meta.get("moe.part") == "rows"):
        return True
    if not all(isinstance(n.meta.get("val"), torch.Tensor) for n in (one, other)):
        return not isinstance(one.meta.get("val"), torch.Tensor) and (
            one.op == other.op)  # numbers of rows
    return (one.target is other.target and one.op == other.op == "call_function"
            and one.kwargs == other.kwargs and _same_function(one.args, other.args))


def _order(node: Node) -> list[int]:
    order = list(range(rank_of(node)))
    first, second = node.args[1:] if len(node.args) > 1 else (0, 1)
    order[first], order[second] = order[second], order[first]
    return order


_RULES = {
    aten.eq: Loops.equal, aten.ne: Loops.positive, aten.gt: Loops.positive,
    aten.ge: Loops.positive,
    aten._to_copy: Loops.same, aten.clone: Loops.same,
    aten.permute: Loops.permute, aten.transpose: Loops.permute, aten.t: Loops.permute,
    aten.select: Loops.select, aten.nonzero: Loops.nonzero, aten.slice: Loops.slice,
    aten.squeeze: Loops.units, aten.unsqueeze: Loops.units,
    **{packet: Loops.units for packet in VIEWS},
    aten.bitwise_and: limit, aten.logical_and: limit, aten.where: chosen,
    aten.any: Loops.any, aten.sum: Loops.masked, aten.mul: Loops.multiply,
    aten.add: Loops.add, aten.index_add: Loops.index_add, aten.index_put: Loops.index_put,
    aten.scatter_reduce: Loops.scatter_reduce, aten.scatter_add: Loops.scatter_add,
    aten.scatter: Loops.scatter, aten.repeat: Loops.columns_of, aten.expand: Loops.columns_of,
    operator.getitem: Loops.column,
}
