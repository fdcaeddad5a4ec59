"""Finds experts in a graph that multiplies each choice by weights that it gathered for it.

Such graphs, of transformers' "batched_mm" experts for instance, read ``W[ids]`` and multiply
in batches; others compute every expert for every token and weight the results by a matrix
``[T, E]``. Every order of the dimensions occurs, as ``einsum`` makes. So the search follows
for each value what its dimensions consist of: tokens, choices or experts, columns. Where all
of it is a function of the rows of one expert that is added up by weights, ``find_batched``
makes a module of it, as ``find_experts`` does. What does not have this form stays as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from .._graph.function import argument, extents_of
from .._graph.scalars import RULES
from .axes import LAYOUTS, Axis, Dim, Dims, merge
from .choices import number_of_experts, packet_of, top_k_of
from .dense import Functions, stacked
from .matrices import are_among, are_ids, choices_of, ids_of_mask, is_of_mask, scattered_ids
from .nodes import adder
from .places import sum_along

__all__ = ["find_batched"]

Node = torch.fx.Node
aten = torch.ops.aten


@dataclass(frozen=True)
class _Value:
    """What a node is: "plain" rows or weights of choices, a "weight" of the experts, "cells":
    columns for each token and choice, or "weighted" ones, by ``mix``; "places" ``[T, E, C]`` of
    tokens among those that an expert takes."""

    kind: str
    dims: Dims
    base: Node | None = None  # plain: a node [T, N]; weight: the parameter
    columns: Axis | None = None  # of cells
    ids: Node | None = None  # of a weight that was gathered
    mix: Node | None = None

    def axes(self) -> list[Axis]:
        return [axis for dim in self.dims for axis in dim]


class _Batched:
    def __init__(self, tensors: Mapping[Node, tuple[str, torch.Tensor]]):
        self.tensors = tensors
        self.values: dict[Node, _Value | None] = {}
        self.steps: dict[Node, tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = {}
        self.tokens: Axis | None = None
        self.cells: Axis | None = None  # choices or experts
        self.experts: Axis | None = None
        self.ids: Node | None = None
        self.rows: Node | None = None
        self.mask: Node | None = None  # [T, E], that the rows were multiplied by
        self.scales_rows = False  # the mask is of weights
        self.places: Axis | None = None  # of an expert with a capacity, in place of tokens
        self.parameters: set[Node] = set()

    # -- values ---------------------------------------------------------------

    def value(self, node: Any) -> _Value | None:
        if not isinstance(node, Node) or not isinstance(node.meta.get("val"), torch.Tensor):
            return None
        if node not in self.values:
            self.values[node] = self._value(node)
        return self.values[node]

    def _value(self, node: Node) -> _Value | None:
        if node in self.tensors:
            return self.weight(node)
        if node.op == "call_function":
            packet = getattr(node.target, "overloadpacket", node.target)
            if packet in LAYOUTS and (source := self.value(node.args[0])) is not None:
                dims = LAYOUTS[packet](node, source.dims)
                if source.kind == "places" and packet is aten._to_copy:
                    dims = source.dims  # where there is one
                if dims is not None:
                    part = ("slice", None, (source.base,), {}) if source.kind == "weight" else (
                        "part", None, (node.args[0],), {})
                    self.steps[node] = part
                    return replace(source, dims=dims)
            if packet is aten.index:
                found = self.gathered(node)
            elif packet in (aten.bmm, aten.mm):
                found = self.product(node)
            elif packet is aten.sum:
                found = self.total(node)
            elif packet is aten.cat:
                found = self.stacked(node)
            elif packet is aten.gather:
                found = self.chosen(node)
            elif packet in (aten.slice, aten.split_with_sizes) or node.target is operator.getitem:
                found = self.columns(node)
            elif packet in RULES:
                found = self.elementwise(node) or self.masked_rows(node)
            else:
                found = None
            if found is not None:
                return found
        return self.plain(node)

    def weight(self, node: Node) -> _Value | None:
        shape = extents_of(node.meta["val"])
        if len(shape) not in (2, 3) or 1 in (shape[0], shape[-1]):
            return None
        if len(shape) == 3 and self.experts is None:
            self.experts = Axis(shape[0])
            # Biases may be used before.
            self.values = {n: v for n, v in self.values.items() if v is not None}
        if self.experts is None or shape[0] != self.experts.size:
            return None
        inner = tuple((Axis(size),) if size != 1 else () for size in shape[1:])
        return _Value("weight", ((self.experts,), *inner), node)

    def plain(self, node: Node) -> _Value | None:
        """Rows of something for each token, or a matrix."""
        shape = extents_of(node.meta["val"])
        of_tokens = getattr(next(iter(shape), 0), "is_Symbol", False)
        if len(shape) == 3 and of_tokens and isinstance(shape[1], int) and (
                1 not in shape and (node.meta["val"].is_floating_point()
                                    or node.meta["val"].dtype == torch.bool)
                and (self.tokens is None or self.tokens.size == shape[0])):
            self.tokens = self.tokens or Axis(shape[0])
            return _Value("places", ((self.tokens,), (Axis(shape[1]),), (Axis(shape[2]),)), node)
        if len(shape) == 3 and shape[0] == 1 and shape[2] != 1 and isinstance(shape[2], int) and (
                not isinstance(shape[1], int)):
            # [1, T, N], as graphs have it that are given batches.
            with node.graph.inserting_after(node):
                base = node.graph.call_function(aten.view.default, (node, [-1, shape[2]]))
            base.meta["val"] = node.meta["val"].reshape(-1, shape[2])
            self.values[base] = found = self.plain(base)
            self.steps[node] = "part", None, (base,), {}
            return found and replace(found, dims=((), *found.dims))
        if len(shape) != 2 or isinstance(shape[0], int) or shape[1] == 1 or not isinstance(
                shape[1], int):
            return None
        if self.tokens is None and shape[0].is_Symbol:
            self.tokens = Axis(shape[0])
        if self.tokens is None or shape[0] != self.tokens.size:
            return None
        return _Value("plain", ((self.tokens,), (Axis(shape[1]),)), node)

    def gathered(self, node: Node) -> _Value | None:
        source, indices = node.args[:2]
        table, index = self.value(source), None
        if len(indices) == 1 and isinstance(indices[0], Node):
            index = self.value(indices[0])
        if table is None or index is None or index.kind != "plain" or source not in self.tensors:
            return None
        ids = index.base
        if not are_among(ids, table.dims[0][0].size) or self.ids not in (None, ids):
            return None
        if self.ids is None:
            self.ids, self.cells = ids, index.axes()[-1]
        renamed = {self.values[ids].dims[1][0]: self.cells}
        dims = tuple(tuple(renamed.get(a, a) for a in dim) for dim in index.dims)
        self.steps[node] = "slice", None, (source,), {}
        return _Value("weight", (*dims, *table.dims[1:]), source, ids=ids)

    def stacked(self, node: Node) -> _Value | None:
        """The results of experts that are modules each."""
        if (found := stacked(node)) is None:
            return None
        results, dim, is_merged = found
        functions, count = Functions(results, self.tensors), len(results)
        if functions.rows is None or (rows := self.value(functions.rows)) is None or (
                rows.kind != "plain" or rows.base is not functions.rows
                or self.rows not in (None, rows.base) or self.ids is not None
                or self.experts not in (None, self.cells) or (
                    self.experts is not None and self.experts.size != count)):
            return None
        shape = extents_of(node.meta["val"])
        columns = Axis(extents_of(results[0].meta["val"])[-1])
        self.experts = self.cells = self.experts or Axis(count)
        if is_merged:
            inner: Dims = ((self.tokens,), (columns,))
            dims = tuple((self.cells, *d) if i == dim else d for i, d in enumerate(inner))
        else:
            rest = iter([(self.tokens,), (columns,)])
            dims = tuple((self.cells,) if i == dim else next(rest) for i in range(3))
        if any(len(d) == 1 and d[0].size != e for d, e in zip(dims, shape)):
            return None
        self.rows = rows.base
        self.steps |= functions.steps
        self.steps[node] = "parts", None, (results,), {}
        self.parameters |= functions.parameters
        return _Value("cells", dims, columns=columns)

    def chosen(self, node: Node) -> _Value | None:
        """The cells of the choices, of those of all experts."""
        source, dim, index = self.value(node.args[0]), node.args[1], self.value(node.args[2])
        if source is None or index is None or (source.kind, index.kind) != ("cells", "plain"):
            return None
        dim, ids = dim % len(source.dims), index.base
        if self.ids is not None or self.mask is not None or self.places is not None or (
                source.dims[dim] != (self.experts,) or not are_ids(ids, self.experts.size)):
            return None
        at = self.values[ids].dims[1]
        if len(index.dims) != len(source.dims) or any(
                (index.dims[i] != at) if i == dim else merge(index.dims[i], source.dims[i]) is None
                for i in range(len(source.dims))):
            return None
        self.ids, self.cells = ids, at[0]
        self.steps[node] = "part", None, (node.args[0],), {}
        return replace(source, dims=tuple(at if i == dim else d for i, d in enumerate(source.dims)))

    # -- operations -----------------------------------------------------------

    def product(self, node: Node) -> _Value | None:
        """A product of cells, or of rows, with the matrices of the experts; or a sum of cells
        with their weights."""
        pair = [self.value(a) for a in node.args]
        if None in pair:
            return None
        if packet_of(node) is aten.mm:  # of a batch of one
            pair = [replace(v, dims=((), *v.dims)) for v in pair]
            found = self.products(node, pair)
            return found and replace(found, dims=found.dims[1:])
        return self.products(node, pair)

    def products(self, node: Node, pair: list[_Value]) -> _Value | None:
        for which in (0, 1):
            act, other = pair[which], pair[1 - which]
            # [B, I, J] and [B, J, K]
            free, inner = (act.dims[1], act.dims[2]) if which == 0 else (act.dims[2], act.dims[1])
            other_inner, other_free = other.dims[1:] if which == 0 else other.dims[:0:-1]
            if act.kind in ("plain", "cells") and other.kind == "places":
                return self.placed(node, act, other, free, inner, other_free, other_inner, which)
            if act.kind in ("plain", "cells") and other.kind == "weight":
                return self.matmul(node, node.args[which], act, other, free, inner, other_free,
                                   other_inner, which)
            if act.kind == "cells" and other.kind == "plain" and inner == (self.cells,):
                batch = merge(act.dims[0], other.dims[0])
                mixed = other_inner == self.values[other.base].dims[1]
                if batch == (self.tokens,) and free == (act.columns,) and not other_free and (
                        mixed and other_inner[0].size == self.cells.size):
                    dims = (batch, free, ()) if which == 0 else (batch, (), free)
                    self.steps[node] = "part", None, (node.args[which],), {}
                    return _Value("sum", dims, columns=act.columns, mix=other.base)
        return None

    def placed(self, node: Node, act: _Value, places: _Value, free: Dim, inner: Dim,
               places_free: Dim, places_inner: Dim, which: int) -> _Value | None:
        """The rows that are at each place of an expert, or the sum of what the experts make of
        them, weighted."""
        _, experts, at = (dim[0] for dim in self.values[places.base].dims)
        if act.kind == "plain" and places.dims[0] == (experts,) and places_free == (at,) and (
                len(act.dims[0]) == 1 and act.dims[0][0].free
                and act.dims[0][0].size == experts.size):
            # Each expert by itself, on copies of the rows.
            found = self.placed(node, replace(act, dims=((), *act.dims[1:])),
                                replace(places, dims=((), *places.dims[1:])), free, inner,
                                (experts, at), places_inner, which)
            if found is None:
                return None
            (one, two), = (dim for dim in found.dims if len(dim) == 2)
            return replace(found, dims=((one,), *((two,) if len(dim) == 2 else dim
                                                  for dim in found.dims[1:])))
        if act.dims[0] or places.dims[0]:
            return None
        if act.kind == "plain":
            columns, = self.values[act.base].dims[1]
            if inner != (self.tokens,) or places_inner != inner or free != (columns,) or (
                    set(places_free) != {experts, at} or self.places is not None
                    or self.rows not in (None, act.base)):
                return None
            self.experts = self.experts or experts
            if self.experts.size != experts.size or self.cells not in (None, self.experts):
                return None
            self.cells, self.places, self.rows = self.experts, at, act.base
            self.steps[act.base] = self.steps[node] = "rows", None, (), {}
            cells = tuple(self.cells if axis is experts else axis for axis in places_free)
            return _Value("cells", ((), free, cells) if which == 0 else ((), cells, free),
                          columns=columns)
        same = {self.cells: experts, self.places: at}
        if free != (act.columns,) or places_free != (self.tokens,) or len(inner) != 2 or (
                tuple(same.get(axis) for axis in inner) != places_inner
                or any(a.size != b.size for a, b in zip(inner, places_inner))):
            return None
        self.steps[node] = "part", None, (node.args[which],), {}
        return _Value("sum", ((), free, places_free) if which == 0 else ((), places_free, free),
                      columns=act.columns, mix=places.base)

    def matmul(self, node: Node, operand: Node, act: _Value, weight: _Value, free: Dim, inner: Dim,
               weight_free: Dim, weight_inner: Dim, which: int) -> _Value | None:
        table = self.values[weight.base].dims
        if len(table) != 3 or () in table or len(inner) != 1 or len(weight_inner) != 1 or (
                inner[0].size != weight_inner[0].size):
            return None
        if self.cells is None:
            self.cells = self.experts
        columns = act.columns if act.kind == "cells" else self.values[act.base].dims[1][0]
        if inner[0] is not columns:
            return None
        if act.kind == "plain" and self.rows not in (None, act.base):
            return None
        matrix = [dim[0] for dim in table[1:]]
        if weight_inner[0] not in matrix:
            return None
        transposed = weight_inner[0] is matrix[1]
        made = matrix[0] if transposed else matrix[1]
        batch = merge(act.dims[0], weight.dims[0])
        if batch is None:
            return None
        dims = (batch, free, weight_free) if which == 0 else (batch, weight_free, free)
        axes = [axis for dim in dims for axis in dim]
        if len(axes) != 3 or set(axes) != {self.places or self.tokens, self.cells,
                                                    made}:
            return None
        if act.kind == "plain":
            self.rows = act.base
            self.steps[act.base] = "rows", None, (), {}
        self.parameters.add(weight.base)
        part = "transposed matmul" if transposed else "matmul"
        self.steps[node] = part, None, (operand, weight.base), {}
        # Each product has columns of its own.
        new = Axis(made.size)
        dims = tuple(tuple(new if a is made else a for a in dim) for dim in dims)
        return _Value("cells", dims, columns=new)

    def elementwise(self, node: Node) -> _Value | None:
        if node.kwargs.keys() - {"dtype", "layout", "device", "pin_memory", "rounding_mode",
                                 "approximate", "non_blocking", "memory_format"}:
            return None
        operands = [a for a in node.args if isinstance(a, Node)]
        found = [self.value(a) for a in operands]
        cells = [v for v in found if v is not None and v.kind == "cells"]
        if not cells or None in found:
            if len(found) == 1 and found[0] is not None and found[0].kind == "sum" and (
                    node.target.overloadpacket is aten._to_copy):
                self.steps[node] = "part", None, (operands[0],), {}
                return found[0]
            return None
        rank = node.meta["val"].ndim
        dims: Dims | None = ((),) * rank
        columns = cells[0].columns
        for value in found:
            known = {v.columns for v in cells}
            if value.kind == "weight" and len(self.values[value.base].axes()) == 2:
                known.add(self.values[value.base].axes()[1])  # a bias
                self.parameters.add(value.base)
            elif value.kind == "plain":
                if node.target.overloadpacket is not aten.mul or len(found) != 2:
                    return None
                known = {self.values[value.base].dims[1][0]}
            elif value.kind != "cells":
                return None
            aim = self.cells if value.kind == "plain" else columns
            if any(a.size != aim.size for a in known):
                return None
            own = ((),) * (rank - len(value.dims)) + tuple(
                tuple(aim if a in known else a for a in dim) for dim in value.dims)
            merged = [merge(a, b) if a and b else a or b for a, b in zip(dims, own)]
            if None in merged:
                return None
            dims = tuple(merged)
        axes = [axis for dim in dims for axis in dim]
        if len(axes) != 3 or set(axes) != {self.places or self.tokens, self.cells, columns}:
            return None
        mix = next((v.base for v in found if v.kind == "plain"), None)
        if mix is not None:
            of = next(a for a, v in zip(operands, found) if v.kind == "cells")
            self.steps[node] = "part", None, (of,), {}
            return _Value("weighted", dims, columns=columns, mix=mix)
        part = "operation of slices" if any(a in self.tensors for a in operands) else "operation"
        self.steps[node] = part, node.target, node.args, dict(node.kwargs)
        return _Value("cells", dims, columns=columns)

    def masked_rows(self, node: Node) -> _Value | None:
        """Rows of each expert, which are 0 where a mask says that a token has not chosen it, or
        have been multiplied by its weight."""
        pair = [self.value(a) for a in node.args[:2]]
        if packet_of(node) is not aten.mul or any(v is None or v.kind != "plain" for v in pair):
            return None
        for mask, rows in (pair, pair[::-1]):
            of_mask, columns = (self.values[v.base].dims[1][0] for v in (mask, rows))
            is_mask = ids_of_mask(mask.base) is not None
            if not is_mask and scattered_ids(mask.base, of_mask.size) is None:
                continue
            if self.mask not in (None, mask.base) or self.rows not in (None, rows.base) or (
                    self.ids is not None):
                continue
            if self.experts is None:
                self.experts = Axis(of_mask.size)
            cells, rank = self.cells or self.experts, node.meta["val"].ndim
            dims: Dims | None = ((),) * rank
            for value in (mask, rows):
                own = ((),) * (rank - len(value.dims)) + tuple(
                    tuple(cells if a is of_mask else a for a in dim) for dim in value.dims)
                dims = tuple(merge(a, b) if a and b else a or b for a, b in zip(dims, own))
                if None in dims:
                    return None
            axes = [axis for dim in dims for axis in dim]
            if of_mask.size != cells.size or len(axes) != 3 or (
                    set(axes) != {self.tokens, cells, columns}):
                continue
            self.cells, self.mask, self.rows = cells, mask.base, rows.base
            self.scales_rows = not is_mask
            self.steps[rows.base] = self.steps[node] = "rows", None, (), {}
            return _Value("cells", dims, columns=columns)
        return None

    def columns(self, node: Node) -> _Value | None:
        """Some columns of cells."""
        source = node.args[0]
        if node.target is operator.getitem:
            if getattr(source.target, "overloadpacket", None) is not aten.split_with_sizes:
                return None
            value, dim = self.value(source.args[0]), argument(source, "dim", 0)
            sizes = source.args[1]
            start = sum(sizes[:node.args[1]])
            bounds, step, rows = (start, start + sizes[node.args[1]]), 1, source.args[0]
        elif node.target.overloadpacket is aten.slice:
            value, dim, rows = self.value(source), argument(node, "dim", 0), source
            bounds = argument(node, "start", None), argument(node, "end", None)
            step = argument(node, "step", 1)
        else:
            return None
        if value is None or value.kind != "cells":
            return None
        dim %= len(value.dims)
        if value.dims[dim] != (value.columns,):
            return None
        size = extents_of(node.meta["val"])[dim]
        if size == 1:
            return None
        new = Axis(size)
        dims = tuple((new,) if i == dim else d for i, d in enumerate(value.dims))
        self.steps[node] = "operation", aten.slice.Tensor, (rows, 1, *bounds, step), {}
        return _Value("cells", dims, columns=new)

    def total(self, node: Node) -> _Value | None:
        """The sum of cells, weighted unless the rows were, or were 0 for other experts."""
        value = self.value(node.args[0])
        if value is None or value.kind not in ("cells", "weighted") or (
                value.kind == "cells" and self.mask is None) or (
                value.kind == "weighted" and self.scales_rows):
            return None
        dims = argument(node, "dim", None)
        if dims is None or len(dims) != 1 or argument(node, "keepdim", False) or (
                value.dims[dims[0]] != (self.cells,)):
            return None
        left = tuple(d for i, d in enumerate(value.dims) if i != dims[0] % len(value.dims))
        self.steps[node] = "part", None, (node.args[0],), {}
        return _Value("sum", left, columns=value.columns, mix=value.mix)


# -- the search ---------------------------------------------------------------


def find_batched(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
                 operation: Any, make: Any) -> dict[str, torch.nn.Module]:
    """Replace experts in ``graph`` by calls of ``operation`` on rows, ids, weights and a key.

    ``make`` makes the module of their number, columns, steps and parameters. Returns it by its
    key.
    """
    found: dict[str, torch.nn.Module] = {}
    while one := _find_one(graph, tensors, operation, make, f"batched{len(found)}"):
        found.update(one)
    graph.eliminate_dead_code()  # what the search wrote and did not use
    return found


def _find_one(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
              operation: Any, make: Any, key: str) -> dict[str, torch.nn.Module]:
    search = _Batched(tensors)
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        value = search.value(node)
        if value is None or value.kind != "sum" or search.rows is None:
            continue
        like, rows = node.meta["val"], search.rows.meta["val"]
        if value.axes() != [search.tokens, value.columns] or like.dtype != rows.dtype or (
                () in value.dims[-2:]):
            continue
        return _replace(graph, tensors, operation, make, search, node, value, key)
    return {}


def _replace(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
             operation: Any, make: Any, search: _Batched, node: Node,
             value: _Value, key: str) -> dict[str, torch.nn.Module]:
    experts, rows, mix = search.experts.size, search.rows, value.mix
    module = make(experts, value.columns.size, node, search.steps, search.parameters, tensors)
    if mix is None and (search.mask is None or not _is_zero_of_zeros(module, search)):
        return {}
    if search.mask is not None and mix is None and not search.scales_rows and (
            ids_of_mask(search.mask).meta["val"].ndim != 2):
        return {}
    if search.places is not None and mix.meta["val"].ndim != 3:
        return {}
    if search.ids is not None and extents_of(search.ids.meta["val"]) != extents_of(
            mix.meta["val"]):
        return {}
    with graph.inserting_before(node):
        if search.ids is not None:
            ids, weights = search.ids, mix
        elif search.scales_rows:
            ids, weights = choices_of(search.mask, experts)
        elif search.places is not None:
            ids, weights = _kept(graph, mix, experts)
        elif search.mask is not None:
            ids = ids_of_mask(search.mask)
            if mix is None:  # the sum alone
                weights = adder(graph)(aten.full_like.default, ids, 1, dtype=rows.meta["val"].dtype)
            elif is_of_mask(mix, search.mask):
                ids, weights = _gathered(graph, mix, ids)
            elif (choices := choices_of(mix, experts)) is not None and choices[0] is ids:
                ids, weights = choices
            else:
                return {}
        elif (choices := choices_of(mix, experts)) is not None:
            ids, weights = choices
        else:
            # All experts for every token.
            ids, weights = _every(graph, mix, experts), mix
        module.scales_rows = search.scales_rows
        module.is_guess = search.mask is not None or search.places is not None
        call = graph.call_function(operation, (rows, ids, weights, key))
        call.meta["val"] = node.meta["val"]
        if node.meta["val"].ndim != 2:
            columns = int(node.meta["val"].shape[-1])
            call.meta["val"] = node.meta["val"].reshape(-1, columns)
            shape = [e if isinstance(e, int) else -1 for e in extents_of(node.meta["val"])]
            call = graph.call_function(aten.view.default, (call, shape))
            call.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(call)
    graph.eliminate_dead_code()
    graph.lint()
    return {key: module}


def _is_zero_of_zeros(module: torch.nn.Module, search: _Batched) -> bool:
    """Return true for experts that make zeros of a row of zeros, whatever their matrices are."""
    if any(len(search.values[p].axes()) == 2 for p in search.parameters) or any(
            p.is_meta for p in module.parameters()):
        return False
    like = search.rows.meta["val"]
    row = torch.zeros(1, int(like.shape[-1]), dtype=like.dtype, device=like.device)
    with torch.no_grad():
        return not any(module.expert(e, row).count_nonzero() for e in range(module.count))


def _gathered(graph: torch.fx.Graph, matrix: Node, ids: Node) -> tuple[Node, Node]:
    """Return ids ``[T, K]``, and the elements of a matrix ``[T, E]`` at them."""
    if ids.meta["val"].ndim == 1:
        one = graph.call_function(aten.unsqueeze.default, (ids, 1))
        one.meta["val"] = ids.meta["val"].unsqueeze(1)
        ids = one
    elif ids.meta["val"].ndim > 2:
        shape = [-1, top_k_of(ids)]
        one = graph.call_function(aten.view.default, (ids, shape))
        one.meta["val"] = ids.meta["val"].reshape(shape)
        ids = one
    weights = graph.call_function(aten.gather.default, (matrix, 1, ids))
    weights.meta["val"] = torch.gather(matrix.meta["val"], 1, ids.meta["val"])
    return ids, weights


def _kept(graph: torch.fx.Graph, places: Node, experts: int) -> tuple[Node, Node]:
    """Return the choices that have a weight among the places ``[T, E, C]`` of the experts; the
    number of experts is the id of others."""
    make = adder(graph)
    with places.meta["val"].fake_mode:
        matrix = sum_along(make, places, -1)
        if matrix is None:
            matrix = make(aten.sum.dim_IntList, places, [-1])
        found = [n for n in graph.nodes if number_of_experts(n) == experts]
        # Several are those of one choice each.
        ids, weights = _gathered(graph, matrix, found[0]) if len(found) == 1 else (
            _every(graph, matrix, experts), matrix)
        none = make(aten.eq.Scalar, weights, 0)
        return make(aten.where.ScalarSelf, none, experts, ids), weights


def _every(graph: torch.fx.Graph, mix: Node, experts: int) -> Node:
    """Return ids of all experts for every token."""
    with mix.meta["val"].fake_mode:
        zeros = graph.call_function(aten.full_like.default, (mix, 0), {"dtype": torch.int64})
        zeros.meta["val"] = torch.full_like(mix.meta["val"], 0, dtype=torch.int64)
        range_ = graph.call_function(aten.arange.start_step, (0, experts),
                                     {"dtype": torch.int64})
        range_.meta["val"] = torch.arange(0, experts)
        ids = graph.call_function(aten.add.Tensor, (zeros, range_))
        ids.meta["val"] = zeros.meta["val"] + range_.meta["val"]
    return ids
