"""Sums over the places ``[T, E, C]`` of experts with a capacity, of which masks are made.

A mask says at which place of an expert a token is. Its sum over the places is made of what it is
made of, without a tensor that grows with the square of the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._graph.function import argument, extents_of
from .choices import is_arange, packet_of

__all__ = ["sum_along"]

Node = torch.fx.Node
aten = torch.ops.aten
Make = Callable[..., Node]


def sum_along(make: Make, node: Any, dim: int) -> Node | None:
    """Return the sum of ``node`` along a dimension, written by ``make``; None if it is not known
    what it consists of."""
    rule = _RULES.get(packet_of(node))
    return None if rule is None else rule(make, node, dim % node.meta["val"].ndim)


def _without(make: Make, node: Node, dim: int) -> Node:
    return make(aten.squeeze.dim, node, dim)


def _copy(make: Make, node: Node, dim: int) -> Node | None:
    source, value = node.args[0], node.meta["val"]
    # A sum of numbers is another one where each is rounded first; marks are 0 or 1.
    exact = source.meta["val"].dtype in (value.dtype, torch.bool, torch.int64)
    total = sum_along(make, source, dim) if exact else None
    return None if total is None else make(aten._to_copy.default, total, dtype=value.dtype)


def _permute(make: Make, node: Node, dim: int) -> Node | None:
    order = [d % node.meta["val"].ndim for d in node.args[1]]
    total, at = sum_along(make, node.args[0], order[dim]), order[dim]
    if total is None:
        return None
    left = [d - (d > at) for d in order if d != at]
    return make(aten.permute.default, total, left)


def _unsqueeze(make: Make, node: Node, dim: int) -> Node | None:
    at = node.args[1] % node.meta["val"].ndim
    if at == dim:
        return node.args[0]
    total = sum_along(make, node.args[0], dim - (at < dim))
    return None if total is None else make(aten.unsqueeze.default, total, at - (dim < at))


def _multiply(make: Make, node: Node, dim: int) -> Node | None:
    """A factor that is the same at all places stays."""
    rank = node.meta["val"].ndim
    for factor, rest in (node.args[:2], node.args[1::-1]):
        if not all(isinstance(n, Node) and n.meta["val"].ndim == rank for n in (factor, rest)):
            continue
        if extents_of(factor.meta["val"])[dim] == 1 and (
                total := sum_along(make, rest, dim)) is not None:
            return make(aten.mul.Tensor, _without(make, factor, dim), total)
    return None


def _sum(make: Make, node: Node, dim: int) -> Node | None:
    """Sums along two dimensions, in the other order."""
    source, dims = node.args[0], argument(node, "dim", None)
    if not dims or argument(node, "keepdim", False) or (
            node.meta["val"].dtype != source.meta["val"].dtype):
        return None
    rank = source.meta["val"].ndim
    summed = [d % rank for d in dims]
    at = [d for d in range(rank) if d not in summed][dim]
    total = sum_along(make, source, at)
    return None if total is None else make(
        aten.sum.dim_IntList, total, [d - (d > at) for d in summed])


def _matmul(make: Make, node: Node, dim: int) -> Node | None:
    """An outer product."""
    left, right = node.args
    if extents_of(left.meta["val"])[-1] != 1 or dim == 0:
        return None
    whole, factor = (right, left) if dim == 2 else (left, right)
    total = sum_along(make, whole, dim)
    return None if total is None else make(
        aten.mul.Tensor, total, _without(make, factor, 3 - dim))


def _add(make: Make, node: Node, dim: int) -> Node | None:
    if not isinstance(node.args[1], Node) and node.args[1] == 0:  # of Python's sum
        return sum_along(make, node.args[0], dim)
    shapes = [extents_of(a.meta["val"]) for a in node.args[:2] if isinstance(a, Node)]
    if len(shapes) != 2 or shapes[0] != shapes[1] or argument(node, "alpha", 1) != 1:
        return None
    totals = [sum_along(make, a, dim) for a in node.args[:2]]
    return None if None in totals else make(aten.add.Tensor, *totals)


def _equal(make: Make, node: Node, dim: int) -> Node | None:
    """Marks of numbers along a range: whether they are in it."""
    for numbers, range_ in (node.args[:2], node.args[1::-1]):
        if packet_of(numbers) is not aten.unsqueeze or not is_arange(range_) or (
                dim != node.meta["val"].ndim - 1 or numbers.args[1] not in (-1, dim)):
            continue
        source = numbers.args[0]
        least = make(aten.ge.Scalar, source, 0)
        return make(aten.bitwise_and.Tensor, least, make(
            aten.lt.Scalar, source, argument(range_, "end", 0)))
    return None


_RULES: dict[Any, Callable[[Make, Node, int], Node | None]] = {
    aten._to_copy: _copy, aten.permute: _permute, aten.unsqueeze: _unsqueeze,
    aten.mul: _multiply, aten.bmm: _matmul, aten.add: _add, aten.eq: _equal, aten.sum: _sum,
}
