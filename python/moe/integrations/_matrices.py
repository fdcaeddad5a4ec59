"""Matrices ``[T, E]`` of a graph: the choices that they have weights or marks of."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ._choices import number_of_experts, packet_of
from ._graph import Extent, argument, extents_of

__all__ = ["are_ids", "choices_of", "ids_of_mask", "is_of_mask"]

Node = torch.fx.Node
aten = torch.ops.aten


def are_ids(node: Any, experts: Extent) -> bool:
    """Return true for the indices of a top-k among the experts: different ones of a token."""
    source = node.args[0] if isinstance(node, Node) and node.target is operator.getitem else None
    if source is None or node.args[1] != 1 or packet_of(source) is not aten.topk:
        return False
    scores = extents_of(source.args[0].meta["val"])
    return scores[-1] == experts and argument(source, "dim", -1) in (-1, len(scores) - 1)


def _back(node: Any, packet: Any) -> Node | None:
    """Return the operand of a node that is this operation."""
    return node.args[0] if packet_of(node) is packet else None


def ids_of_mask(mask: Any) -> Node | None:
    """Return ids ``[T]``, or ``[T, K]``, that a mask ``[T, E]`` has ones at."""
    while (source := _back(mask, aten._to_copy)) is not None:
        mask = source
    if packet_of(mask) is aten.sum and list(argument(mask, "dim", None) or ()) in ([1], [-2]) and (
            not argument(mask, "keepdim", False)):
        return marked_ids(mask.args[0], extents_of(mask.meta["val"])[-1])
    if packet_of(mask) is not aten.eq:
        return None
    for marks, range_ in (mask.args[:2], mask.args[1::-1]):
        ids = _back(marks, aten.unsqueeze)
        if ids is not None and marks.args[1] in (-1, 1) and ids.meta["val"].ndim == 1 and (
                packet_of(range_) is aten.arange
                and number_of_experts(ids) == extents_of(range_.meta["val"])[0]
                and (argument(range_, "start", 0), argument(range_, "step", 1)) == (0, 1)):
            return ids
    return None


def is_of_mask(mix: Node, mask: Node) -> bool:
    """Return true for a product with a mask: 0 where the mask is."""
    def source(node: Any) -> Any:
        while (before := _back(node, aten._to_copy)) is not None:
            node = before
        return node

    mix = source(mix)
    return packet_of(mix) is aten.mul and any(source(a) is source(mask) for a in mix.args[:2])


def choices_of(mix: Node, experts: int) -> tuple[Node, Node] | None:
    """Return ids and weights ``[T, K]`` whose matrix ``[T, E]`` with 0 elsewhere ``mix`` is."""
    if mix.target is aten.scatter.src:
        into, dim, ids, weights = mix.args[:4]
        fill = None
        if packet_of(into) in (aten.full, aten.full_like):
            fill = argument(into, "fill_value", None)
        if fill == 0 and dim in (1, -1) and are_ids(ids, experts) and (
                extents_of(ids.meta["val"]) == extents_of(weights.meta["val"])):
            return ids, weights
    if packet_of(mix) is aten.sum and list(argument(mix, "dim", None) or ()) in ([1], [-2]) and (
            not argument(mix, "keepdim", False)):
        product = mix.args[0]
        if packet_of(product) is aten.mul:
            for mask, factor in (product.args[:2], product.args[1::-1]):
                weights, ids = _back(factor, aten.unsqueeze), marked_ids(mask, experts)
                if weights is not None and ids is not None and factor.args[1] in (-1, 2) and (
                        extents_of(ids.meta["val"]) == extents_of(weights.meta["val"])):
                    return ids, weights
    return None


def marked_ids(mask: Any, experts: int) -> Node | None:
    """Return ids ``[T, K]`` that a mask ``[T, K, E]`` has ones at."""
    while (source := _back(mask, aten._to_copy)) is not None:
        mask = source
    if packet_of(mask) is not aten.eq:
        return None
    for marks, range_ in (mask.args[:2], mask.args[1::-1]):
        ids = _back(marks, aten.unsqueeze)
        if ids is not None and marks.args[1] in (-1, 2) and are_ids(ids, experts) and (
                packet_of(range_) is aten.arange
                and extents_of(range_.meta["val"]) == (experts,)
                and (argument(range_, "start", 0), argument(range_, "step", 1)) == (0, 1)):
            return ids
    return None
