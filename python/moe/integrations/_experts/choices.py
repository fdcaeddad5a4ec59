"""What nodes of a graph say of choices: ids of a top-k, columns of weights, repeated rows."""

from __future__ import annotations

import operator
from typing import Any

import torch

from .._graph.function import argument, extents_of

__all__ = ["VIEWS", "column_of", "dimensions", "is_arange", "is_nothing", "is_single", "is_zero",
           "keeps_rows", "keeps_sign", "layout_of", "number_of_experts", "packet_of", "rank_of",
           "repeated", "rounds", "top_k_of", "untransposed"]

Node = torch.fx.Node
aten = torch.ops.aten

VIEWS = (aten.view, aten.reshape, aten._unsafe_view, aten.flatten)


def packet_of(node: Any) -> Any:
    return getattr(getattr(node, "target", None), "overloadpacket", None)


def rank_of(node: Node) -> int:
    return node.meta["val"].ndim


def repeated(node: Node, count: int) -> Node | None:
    """Return rows of which ``node`` has each ``count`` times, one after the other."""
    if packet_of(node) not in VIEWS:
        return node if count == 1 else None
    copies = node.args[0]
    while packet_of(copies) is aten.clone:
        copies = copies.args[0]
    rows = copies.args[0] if packet_of(copies) in (aten.expand, aten.repeat) else None
    if packet_of(rows) is not aten.unsqueeze or rows.args[1] != 1:
        return None
    rows = rows.args[0]
    shape = extents_of(rows.meta["val"])
    same = len(shape) == 2 and extents_of(copies.meta["val"]) == (shape[0], count, shape[1])
    return rows if same and extents_of(node.meta["val"]) == (shape[0] * count, shape[1]) else None


def is_arange(node: Any) -> bool:
    """Return true for 0, 1, 2, ..."""
    return packet_of(node) is aten.arange and (
        argument(node, "start", 0), argument(node, "step", 1)) == (0, 1)


def untransposed(node: Any) -> Node | None:
    """Return the tensor whose last two dimensions ``node`` has in the other order."""
    packet = packet_of(node)
    if packet in (aten.t, aten.numpy_T):
        return node.args[0] if rank_of(node) == 2 else None
    if packet not in (aten.permute, aten.transpose) or rank_of(node) < 2:
        return None
    rank = rank_of(node)
    order = list(range(rank))
    if packet is aten.permute:
        order = [d % rank for d in node.args[1]]
    else:
        first, second = (d % rank for d in node.args[1:])
        order[first], order[second] = order[second], order[first]
    return node.args[0] if order == [*range(rank - 2), rank - 1, rank - 2] else None


def is_zero(node: Any) -> bool:
    """Return true for a tensor of zeros."""
    packet = packet_of(node)
    if packet in (aten.clone, aten._to_copy, aten.view, aten.expand, aten.permute):
        return is_zero(node.args[0])
    if packet in (aten.zeros, aten.zeros_like, aten.new_zeros):
        return True
    return packet in (aten.full, aten.full_like) and argument(node, "fill_value", None) == 0


def keeps_rows(node: Node) -> bool:
    """Return true for an operation on each row by itself, as far as is known."""
    packet = packet_of(node)
    if torch.Tag.pointwise in getattr(node.target, "tags", ()) or packet in (
            aten._to_copy, aten.clone, aten.detach, aten.mm, aten.addmm, aten.linear) or (
            node.target is operator.getitem):
        return True
    if packet in VIEWS:
        return extents_of(node.meta["val"])[:1] == extents_of(node.args[0].meta["val"])[:1]
    cuts = packet in (aten.slice, aten.select, aten.split, aten.split_with_sizes)
    return cuts and argument(node, "dim", 0) % rank_of(node.args[0]) != 0


def keeps_sign(node: Any) -> bool:
    """Return true for numbers that are known not to be below 0, as those of a softmax are."""
    packet = packet_of(node)
    if not isinstance(node, Node):
        return isinstance(node, (int, float)) and node >= 0
    if node.target is operator.getitem:
        of = packet_of(node.args[0]) in (aten.topk, aten.max, aten.sort) and node.args[1] == 0
        return of and keeps_sign(node.args[0].args[0])
    if not isinstance(node.meta["val"], torch.Tensor):
        return False
    if packet in _NOT_NEGATIVE or is_zero(node) or node.meta["val"].dtype == torch.bool:
        return True
    if packet in _OF_ALL:
        return argument(node, "alpha", 1) == 1 and all(keeps_sign(a) for a in node.args[:2])
    if packet is aten.scatter:
        return keeps_sign(node.args[0]) and keeps_sign(node.args[3])
    if packet is aten.where:
        return keeps_sign(node.args[1]) and keeps_sign(node.args[2])
    if packet is aten.full:
        return keeps_sign(node.args[1])
    return packet in _OF_FIRST and keeps_sign(node.args[0])


_NOT_NEGATIVE = (aten._softmax, aten._safe_softmax, aten.sigmoid, aten.relu, aten.exp, aten.abs,
                 aten.softplus, aten.sqrt)
_OF_ALL = (aten.mul, aten.div, aten.add)
_OF_FIRST = (*VIEWS, aten._to_copy, aten.clone, aten.detach, aten.unsqueeze, aten.squeeze,
             aten.permute, aten.transpose, aten.t, aten.expand, aten.slice, aten.select,
             aten.gather, aten.sum, aten.amax, aten.mean)


def rounds(node: Node) -> bool:
    """Return true for a conversion of numbers to integers."""
    old, new = (n.meta["val"] for n in (node.args[0], node))
    return old.is_floating_point() and not new.is_floating_point()


def is_nothing(value: Any) -> bool:
    if not isinstance(value, Node):
        return value == 0
    return is_zero(value) or (packet_of(value) is aten.scalar_tensor and value.args[0] == 0)


def column_of(node: Node) -> tuple[Node, int] | None:
    """Return the matrix and the number of a column of it, ``[T]`` or ``[T, 1]``."""
    while packet_of(node) in (*VIEWS, aten.unsqueeze, aten.squeeze, aten._to_copy, aten.clone) and [
            e for e in extents_of(node.meta["val"]) if e != 1] == [
            e for e in extents_of(node.args[0].meta["val"]) if e != 1]:
        node = node.args[0]
    packet = packet_of(node)
    if packet is aten.select and isinstance(node.args[2], int):
        source, dim, at = node.args[:3]
    elif packet is aten.slice and argument(node, "end", None) == (
            argument(node, "start", 0) or 0) + 1:
        source, dim, at = node.args[0], argument(node, "dim", 0), argument(node, "start", 0) or 0
    else:
        return None
    while packet_of(source) is aten.slice and extents_of(source.meta["val"]) == extents_of(
            source.args[0].meta["val"]):
        source = source.args[0]
    rank = rank_of(source)
    if dim % rank != rank - 1:
        return None
    return source, at % extents_of(source.meta["val"])[-1]


def number_of_experts(ids: Any) -> int | None:
    """Return how many scores ids are the best ones of, ``[T]`` or ``[T, K]``."""
    source = ids
    if isinstance(ids, Node) and ids.target is operator.getitem and ids.args[1] == 1:
        source = ids.args[0]
    if packet_of(source) is aten.where and isinstance(source.args[2], int):
        experts = number_of_experts(source.args[1])  # or this number, which is none
        return experts if experts == source.args[2] else None
    if packet_of(source) is aten.gather:
        some, dim, index = source.args[:3]
        width = extents_of(some.meta["val"])[-1]
        last = dim in (-1, rank_of(source) - 1) and number_of_experts(index) == width
        return number_of_experts(some) if last else None
    if packet_of(source) not in (aten.topk, aten.max, aten.argmax):
        return None
    scores = extents_of(source.args[0].meta["val"])
    default = None if packet_of(source) is aten.argmax else -1
    dim = argument(source, "dim", default)
    ok = len(scores) >= 2 and dim in (-1, len(scores) - 1) and isinstance(scores[-1], int)
    return scores[-1] if ok and isinstance(ids.meta.get("val"), torch.Tensor) else None


def layout_of(ids: Node) -> tuple[str, ...] | None:
    """Return what the dimensions of ids are: "token", "choice" or "unit"."""
    shape = extents_of(ids.meta["val"])
    tokens = [i for i, e in enumerate(shape) if not isinstance(e, int)]
    if len(tokens) != 1 or any(e != 1 for e in shape[:tokens[0]]) or len(shape) > tokens[0] + 2:
        return None
    return (*["unit"] * tokens[0], "token", *["choice"] * (len(shape) - tokens[0] - 1))


def dimensions(ids: Node) -> tuple[str, ...]:
    return layout_of(ids) or ()


def top_k_of(ids: Node) -> int:
    """Return the number of choices of a token."""
    shape = extents_of(ids.meta["val"])
    return shape[-1] if "choice" in dimensions(ids) else 1


def is_single(ids: Node) -> bool:
    return top_k_of(ids) == 1
