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

from .._graph.function import Extent, argument, extents_of
from .._graph.scalars import RULES
from .choices import number_of_experts, packet_of
from .matrices import are_ids, choices_of, ids_of_mask, is_of_mask, scattered_ids
from .places import sum_along

__all__ = ["find_batched"]

Node = torch.fx.Node
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class _Axis:
    """What a dimension consists of, or a factor of it: not 1."""

    size: Extent
    free: bool = False  # copies along something that is not known yet


Dim = tuple[_Axis, ...]
Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class _Value:
    """What a node is: "plain" rows or weights of choices, a "weight" of the experts, "cells":
    columns for each token and choice, or "weighted" ones, by ``mix``; "places" ``[T, E, C]`` of
    tokens among those that an expert takes."""

    kind: str
    dims: Dims
    base: Node | None = None  # plain: a node [T, N]; weight: the parameter
    columns: _Axis | None = None  # of cells
    ids: Node | None = None  # of a weight that was gathered
    mix: Node | None = None

    def axes(self) -> list[_Axis]:
        return [axis for dim in self.dims for axis in dim]


class _Batched:
    def __init__(self, tensors: Mapping[Node, tuple[str, torch.Tensor]]):
        self.tensors = tensors
        self.values: dict[Node, _Value | None] = {}
        self.steps: dict[Node, tuple[str, Any, tuple[Any, ...], dict[str, Any]]] = {}
        self.tokens: _Axis | None = None
        self.cells: _Axis | None = None  # choices or experts
        self.experts: _Axis | None = None
        self.ids: Node | None = None
        self.rows: Node | None = None
        self.mask: Node | None = None  # [T, E], that the rows were multiplied by
        self.scales_rows = False  # the mask is of weights
        self.places: _Axis | None = None  # of an expert with a capacity, in place of tokens
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
            if packet in _LAYOUTS and (source := self.value(node.args[0])) is not None:
                dims = _LAYOUTS[packet](node, source.dims)
                if dims is not None:
                    part = ("slice", None, (source.base,), {}) if source.kind == "weight" else (
                        "part", None, (node.args[0],), {})
                    self.steps[node] = part
                    return replace(source, dims=dims)
            if packet is aten.index:
                found = self.gathered(node)
            elif packet is aten.bmm:
                found = self.product(node)
            elif packet is aten.sum:
                found = self.total(node)
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
        if len(shape) not in (2, 3) or 1 in shape:
            return None
        if len(shape) == 3 and self.experts is None:
            self.experts = _Axis(shape[0])
        if self.experts is None or shape[0] != self.experts.size:
            return None
        inner = tuple((_Axis(size),) for size in shape[1:])
        return _Value("weight", ((self.experts,), *inner), node)

    def plain(self, node: Node) -> _Value | None:
        """Rows of something for each token, or a matrix."""
        shape = extents_of(node.meta["val"])
        if len(shape) == 3 and not isinstance(shape[0], int) and isinstance(shape[1], int) and (
                1 not in shape and node.meta["val"].is_floating_point()
                and (self.tokens is None or self.tokens.size == shape[0])):
            self.tokens = self.tokens or _Axis(shape[0])
            return _Value("places", ((self.tokens,), (_Axis(shape[1]),), (_Axis(shape[2]),)), node)
        if len(shape) != 2 or isinstance(shape[0], int) or shape[1] == 1 or not isinstance(
                shape[1], int):
            return None
        if self.tokens is None:
            self.tokens = _Axis(shape[0])
        if shape[0] != self.tokens.size:
            return None
        return _Value("plain", ((self.tokens,), (_Axis(shape[1]),)), node)

    def gathered(self, node: Node) -> _Value | None:
        source, indices = node.args[:2]
        table, index = self.value(source), None
        if len(indices) == 1 and isinstance(indices[0], Node):
            index = self.value(indices[0])
        if table is None or index is None or index.kind != "plain" or source not in self.tensors:
            return None
        ids = index.base
        if not are_ids(ids, table.dims[0][0].size) or self.ids not in (None, ids):
            return None
        if self.ids is None:
            self.ids, self.cells = ids, index.axes()[-1]
        renamed = {self.values[ids].dims[1][0]: self.cells}
        dims = tuple(tuple(renamed.get(a, a) for a in dim) for dim in index.dims)
        self.steps[node] = "slice", None, (source,), {}
        return _Value("weight", (*dims, *table.dims[1:]), source, ids=ids)

    # -- operations -----------------------------------------------------------

    def product(self, node: Node) -> _Value | None:
        """A product of cells, or of rows, with the matrices of the experts; or a sum of cells
        with their weights."""
        pair = [self.value(a) for a in node.args]
        if None in pair:
            return None
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
                batch = _merge(act.dims[0], other.dims[0])
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
        if len(table) != 3 or len(inner) != 1 or len(weight_inner) != 1 or (
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
        batch = _merge(act.dims[0], weight.dims[0])
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
        new = _Axis(made.size)
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
            if value.kind == "weight" and len(self.values[value.base].dims) == 2:
                known.add(self.values[value.base].dims[1][0])  # a bias
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
            merged = [_merge(a, b) if a and b else a or b for a, b in zip(dims, own)]
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
        self.steps[node] = "operation", node.target, node.args, dict(node.kwargs)
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
                self.experts = _Axis(of_mask.size)
            cells, rank = self.cells or self.experts, node.meta["val"].ndim
            dims: Dims | None = ((),) * rank
            for value in (mask, rows):
                own = ((),) * (rank - len(value.dims)) + tuple(
                    tuple(cells if a is of_mask else a for a in dim) for dim in value.dims)
                dims = tuple(_merge(a, b) if a and b else a or b for a, b in zip(dims, own))
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
        new = _Axis(size)
        dims = tuple((new,) if i == dim else d for i, d in enumerate(value.dims))
        self.steps[node] = "operation", aten.slice.Tensor, (rows, 1, *bounds, step), {}
        return _Value("cells", dims, columns=new)

    def total(self, node: Node) -> _Value | None:
        """The sum of cells, weighted unless the rows were."""
        value = self.value(node.args[0])
        if value is None or value.kind != ("cells" if self.scales_rows else "weighted"):
            return None
        dims = argument(node, "dim", None)
        if dims is None or len(dims) != 1 or argument(node, "keepdim", False) or (
                value.dims[dims[0]] != (self.cells,)):
            return None
        left = tuple(d for i, d in enumerate(value.dims) if i != dims[0] % len(value.dims))
        self.steps[node] = "part", None, (node.args[0],), {}
        return _Value("sum", left, columns=value.columns, mix=value.mix)


# -- layouts ------------------------------------------------------------------


def _merge(one: Dim, other: Dim) -> Dim | None:
    """Return what two equal dimensions consist of."""
    if len(one) != len(other):
        return None
    merged = []
    for a, b in zip(one, other):
        if a is not b and not ((a.free or b.free) and a.size == b.size):
            return None
        merged.append(b if a.free else a)
    return tuple(merged)


def _view(node: Node, dims: Dims) -> Dims | None:
    axes, result = [a for dim in dims for a in dim], []
    for extent in extents_of(node.meta["val"]):
        dim: list[_Axis] = []
        size: Extent = 1
        while size != extent:
            if not axes or len(dim) > 4:
                return None
            dim.append(axes.pop(0))
            size = size * dim[-1].size
        result.append(tuple(dim))
    return None if axes else tuple(result)


def _permute(node: Node, dims: Dims) -> Dims:
    return tuple(dims[i] for i in node.args[1])


def _transpose(node: Node, dims: Dims) -> Dims:
    order = list(range(len(dims)))
    if len(order) > 1:
        first, second = node.args[1:] if len(node.args) > 1 else (0, 1)
        order[first], order[second] = order[second], order[first]
    return tuple(dims[i] for i in order)


def _unsqueeze(node: Node, dims: Dims) -> Dims:
    at = node.args[1] % (len(dims) + 1)
    return (*dims[:at], (), *dims[at:])


def _expand(node: Node, dims: Dims) -> Dims | None:
    shape = extents_of(node.meta["val"])
    dims = ((),) * (len(shape) - len(dims)) + dims
    return tuple(dim if dim or extent == 1 else (_Axis(extent, free=True),)
                 for dim, extent in zip(dims, shape))


def _repeat(node: Node, dims: Dims) -> Dims | None:
    counts = node.args[1]
    dims = ((),) * (len(counts) - len(dims)) + dims
    if not all(isinstance(count, int) for count in counts):
        return None
    return tuple(dim if count == 1 else (_Axis(count, free=True), *dim)
                 for dim, count in zip(dims, counts))


def _same(node: Node, dims: Dims) -> Dims | None:
    return dims if node.meta["val"].dtype == node.args[0].meta["val"].dtype else None


def _whole(node: Node, dims: Dims) -> Dims | None:
    """A slice of everything."""
    return dims if extents_of(node.meta["val"]) == extents_of(node.args[0].meta["val"]) else None


_LAYOUTS = {
    aten.view: _view, aten.reshape: _view, aten._unsafe_view: _view, aten.flatten: _view,
    aten.squeeze: _view, aten.permute: _permute, aten.transpose: _transpose, aten.t: _transpose,
    aten.unsqueeze: _unsqueeze, aten.expand: _expand, aten.repeat: _repeat, aten.clone: _same,
    aten.detach: _same, aten.alias: _same, aten._to_copy: _same, aten.slice: _whole,
}


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
        if value.axes() != [search.tokens, value.columns] or like.ndim != 2 or (
                like.dtype != rows.dtype):
            continue
        return _replace(graph, tensors, operation, make, search, node, value, key)
    return {}


def _replace(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
             operation: Any, make: Any, search: _Batched, node: Node,
             value: _Value, key: str) -> dict[str, torch.nn.Module]:
    experts, rows, mix = search.experts.size, search.rows, value.mix
    module = make(experts, value.columns.size, node, search.steps, search.parameters, tensors)
    if search.scales_rows and not _is_zero_of_zeros(module, search):
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
            if not is_of_mask(mix, search.mask):
                return {}
            ids, weights = _gathered(graph, mix, ids_of_mask(search.mask))
        elif (choices := choices_of(mix, experts)) is not None:
            ids, weights = choices
        else:
            # All experts for every token.
            ids, weights = _every(graph, mix, experts), mix
        module.scales_rows = search.scales_rows
        module.is_guess = search.mask is not None or search.places is not None
        call = graph.call_function(operation, (rows, ids, weights, key))
        call.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(call)
    graph.eliminate_dead_code()
    graph.lint()
    return {key: module}


def _is_zero_of_zeros(module: torch.nn.Module, search: _Batched) -> bool:
    """Return true for experts that make zeros of a row of zeros, whatever their matrices are."""
    if any(len(search.values[p].dims) == 2 for p in search.parameters) or any(
            p.is_meta for p in module.parameters()):
        return False
    like = search.rows.meta["val"]
    row = torch.zeros(1, int(like.shape[-1]), dtype=like.dtype, device=like.device)
    with torch.no_grad():
        return not module.expert(0, row).count_nonzero()


def _gathered(graph: torch.fx.Graph, matrix: Node, ids: Node) -> tuple[Node, Node]:
    """Return ids ``[T, K]``, and the elements of a matrix ``[T, E]`` at them."""
    if ids.meta["val"].ndim == 1:
        one = graph.call_function(aten.unsqueeze.default, (ids, 1))
        one.meta["val"] = ids.meta["val"].unsqueeze(1)
        ids = one
    weights = graph.call_function(aten.gather.default, (matrix, 1, ids))
    weights.meta["val"] = torch.gather(matrix.meta["val"], 1, ids.meta["val"])
    return ids, weights


def _kept(graph: torch.fx.Graph, places: Node, experts: int) -> tuple[Node, Node]:
    """Return the choices that have a weight among the places ``[T, E, C]`` of the experts; the
    number of experts is the id of others."""
    def make(target: Any, *args: Any, **kwargs: Any) -> Node:
        node = graph.call_function(target, args, kwargs)
        node.meta["val"] = target(*[a.meta["val"] if isinstance(a, Node) else a for a in args],
                                  **kwargs)
        return node

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
