"""What the dimensions of tensors consist of, through views, copies and permutations of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .._graph.function import Extent, extents_of

__all__ = ["LAYOUTS", "Axis", "Dim", "Dims", "merge"]

Node = torch.fx.Node
aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Axis:
    """What a dimension consists of, or a factor of it: not 1."""

    size: Extent
    free: bool = False  # copies along something that is not known yet


Dim = tuple[Axis, ...]
Dims = tuple[Dim, ...]


def merge(one: Dim, other: Dim) -> Dim | None:
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
        dim: list[Axis] = []
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
    return tuple(dim if dim or extent == 1 else (Axis(extent, free=True),)
                 for dim, extent in zip(dims, shape))


def _repeat(node: Node, dims: Dims) -> Dims | None:
    counts = node.args[1]
    dims = ((),) * (len(counts) - len(dims)) + dims
    if not all(isinstance(count, int) for count in counts):
        return None
    return tuple(dim if count == 1 else (Axis(count, free=True), *dim)
                 for dim, count in zip(dims, counts))


def _same(node: Node, dims: Dims) -> Dims | None:
    return dims if node.meta["val"].dtype == node.args[0].meta["val"].dtype else None


def _whole(node: Node, dims: Dims) -> Dims | None:
    """A slice of everything."""
    return dims if extents_of(node.meta["val"]) == extents_of(node.args[0].meta["val"]) else None


LAYOUTS = {
    aten.view: _view, aten.reshape: _view, aten._unsafe_view: _view, aten.flatten: _view,
    aten.squeeze: _view, aten.permute: _permute, aten.transpose: _transpose, aten.t: _transpose,
    aten.unsqueeze: _unsqueeze, aten.expand: _expand, aten.repeat: _repeat, aten.clone: _same,
    aten.detach: _same, aten.alias: _same, aten._to_copy: _same, aten.slice: _whole,
}
