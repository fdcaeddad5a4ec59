"""Matrices ``[T, E]`` of a graph: the choices that they have weights or marks of."""

from __future__ import annotations

import operator
from typing import Any

import torch

from .._graph.function import Extent, argument, extents_of
from .._graph.scalars import RULES
from .choices import VIEWS, is_arange, is_zero, number_of_experts, packet_of

__all__ = ["are_among", "are_ids", "choices_of", "elements_at", "ids_of_mask", "is_of_mask",
           "scattered_ids"]

Node = torch.fx.Node
aten = torch.ops.aten


def are_ids(node: Any, experts: Extent) -> bool:
    """Return true for the indices of a top-k among the experts: different ones of a token."""
    while packet_of(node) in VIEWS and extents_of(node.meta["val"])[-1:] == extents_of(
            node.args[0].meta["val"])[-1:]:
        node = node.args[0]
    source = node.args[0] if isinstance(node, Node) and node.target is operator.getitem else None
    if source is None or node.args[1] != 1 or packet_of(source) is not aten.topk:
        return False
    scores = extents_of(source.args[0].meta["val"])
    return scores[-1] == experts and argument(source, "dim", -1) in (-1, len(scores) - 1)


def are_among(node: Any, experts: Extent) -> bool:
    """Return true for numbers of experts, which may be the same for a token: indices of the best
    of so many scores, or several of them side by side."""
    while packet_of(node) in (*VIEWS, aten.unsqueeze, aten.squeeze, aten.clone):
        node = node.args[0]
    if packet_of(node) is aten.cat:
        return all(are_among(part, experts) for part in node.args[0])
    return isinstance(node, Node) and number_of_experts(node) == experts


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
                is_arange(range_)
                and number_of_experts(ids) == extents_of(range_.meta["val"])[0]):
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


def _is_step(node: Any) -> bool:
    """Return true for an operation on each element of a matrix, or a softmax of its rows."""
    packet = packet_of(node)
    if packet is aten._softmax:
        return node.args[1] in (-1, node.meta["val"].ndim - 1)
    if packet not in RULES or not isinstance(node.args[0], Node):
        return False
    return not any(isinstance(a, Node) for a in [*node.args[1:], *node.kwargs.values()])


def _source(ids: Node) -> Node:
    """Return what ids are in another shape."""
    while packet_of(ids) in (*VIEWS, aten.unsqueeze, aten._to_copy, aten.clone):
        ids = ids.args[0]
    return ids


def _scattered(matrix: Any, experts: Extent) -> tuple[Node, Node, list[Node]] | None:
    """Return ids and elements ``[T, K]`` of a matrix ``[T, E]`` that is 0 elsewhere, and the steps
    that it is made of these by."""
    steps: list[Node] = []
    while getattr(matrix, "target", None) is not aten.scatter.src:
        if not _is_step(matrix):
            return None
        steps.insert(0, matrix)
        matrix = matrix.args[0]
    into, dim, ids, elements = matrix.args[:4]
    fill = 0 if is_zero(into) else argument(into, "fill_value", None) if packet_of(into) in (
        aten.full, aten.full_like) else None
    if fill is None or dim not in (-1, matrix.meta["val"].ndim - 1) or (
            number_of_experts(_source(ids)) != experts
            or extents_of(ids.meta["val"]) != extents_of(elements.meta["val"])):
        return None
    other = torch.full((1, 1), fill, dtype=matrix.meta["val"].dtype)
    for step in steps:
        if packet_of(step) is aten._softmax:
            # Of −inf it is 0, whatever the rest is.
            if other != -torch.inf:
                return None
            other = torch.zeros_like(other)
        else:
            other = step.target(other, *step.args[1:], **step.kwargs)
    return (ids, elements, steps) if other == 0 else None


def scattered_ids(matrix: Any, experts: Extent) -> Node | None:
    """Return the ids of a matrix ``[T, E]`` that is 0 but for the choices."""
    found = _scattered(matrix, experts)
    return None if found is None else found[0]


def elements_at(matrix: Node, ids: Node | None, experts: Extent) -> tuple[Node, Node] | None:
    """Return ids and elements ``[T, K]`` of such a matrix, of these ids if they are given. They are
    made where the graph inserts."""
    if (found := _scattered(matrix, experts)) is None or ids not in (None, found[0]):
        return None
    ids, elements, steps = found
    for step in steps:
        more = step.args[1:]
        new = step.graph.call_function(step.target, (elements, *more), dict(step.kwargs))
        new.meta["val"] = step.target(elements.meta["val"], *more, **step.kwargs)
        elements = new
    return ids, elements


def choices_of(mix: Node, experts: int) -> tuple[Node, Node] | None:
    """Return ids and weights ``[T, K]`` whose matrix ``[T, E]`` with 0 elsewhere ``mix`` is."""
    if (found := elements_at(mix, None, experts)) is not None:
        return found
    if packet_of(mix) is aten.sum and list(argument(mix, "dim", None) or ()) in ([1], [-2]) and (
            not argument(mix, "keepdim", False)):
        product = mix.args[0]
        if packet_of(product) is aten.mul:
            for mask, factor in (product.args[:2], product.args[1::-1]):
                weights, ids = _back(factor, aten.unsqueeze), marked_ids(mask, experts)
                if weights is not None and ids is not None and factor.args[1] in (-1, 2) and (
                        extents_of(ids.meta["val"]) == extents_of(weights.meta["val"])):
                    return ids, weights
    return _product_with_marks(mix, experts)


def _without_units(node: Node) -> Node:
    """Return what a value is with extents of 1 elsewhere."""
    def wide(value: Node) -> list[Extent]:
        return [e for e in extents_of(value.meta["val"]) if e != 1]

    while packet_of(node) in (*VIEWS, aten.unsqueeze, aten.squeeze, aten.permute, aten.clone) and (
            wide(node) == wide(node.args[0])):
        # Extents of the same size may have changed places.
        if packet_of(node) is aten.permute and (order := [
                d for d in node.args[1]
                if extents_of(node.args[0].meta["val"])[d] != 1]) != sorted(order):
            break
        node = node.args[0]
    return node


def _product_with_marks(mix: Node, experts: int) -> tuple[Node, Node] | None:
    """The sum over the choices by a product of matrices, as ``einsum`` makes it."""
    product = _without_units(mix)
    if packet_of(product) is not aten.bmm:
        return None
    for at, (mask, factor) in enumerate((product.args, product.args[::-1])):
        order = [0, 1, 2]
        while packet_of(mask) in (aten.permute, aten._to_copy, aten.clone):
            if packet_of(mask) is aten.permute:
                order = [mask.args[1][d] for d in order]
            mask = mask.args[0]
        ids, weights = marked_ids(mask, experts), _without_units(factor)
        # [T, E, K] and [T, K, 1], or [T, 1, K] and [T, K, E].
        if ids is not None and order == ([0, 2, 1], [0, 1, 2])[at] and (
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
        while (wider := _back(ids, aten._to_copy)) is not None and not (
                wider.meta["val"].is_floating_point()):
            ids = wider
        if ids is not None and marks.args[1] in (-1, 2) and are_ids(ids, experts) and (
                is_arange(range_) and extents_of(range_.meta["val"]) == (experts,)):
            return ids
    return None
