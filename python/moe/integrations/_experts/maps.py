"""Routing maps ``[T, E]``: what is selected by them comes sorted by expert, then by token.

Megatron-LM and what follows it keep the choices as a map that is true at the experts of a token,
and as a matrix of their weights. ``masked_select`` of the map's transpose takes tokens and weights
in the order of a stable sort of the ids, without a sort.
"""

from __future__ import annotations

from typing import Any

import torch

from .._graph.function import extents_of
from .choices import is_arange, packet_of, untransposed
from .matrices import are_ids, elements_at

__all__ = ["MAPS"]

Node = torch.fx.Node
aten = torch.ops.aten

_COPIES = (aten.clone, aten._to_copy, aten.detach)


def _before_transpose(node: Any) -> Node | None:
    """Return the matrix that ``node`` is the transpose of, through copies."""
    while packet_of(node) in _COPIES:
        if node.meta["val"].dtype != node.args[0].meta["val"].dtype:
            return None
        node = node.args[0]
    return untransposed(node)


def _transpose(search: Any, node: Node) -> Any:
    """The map by expert, ``[E, T]``."""
    source = _before_transpose(node)
    found = search.is_(source, "mask")
    return search.other(node) if found is None else type(found)("map", found.ids)


def _are_numbers(source: Any, shape: tuple[Any, ...]) -> bool:
    """Return true for 0, 1, 2, ... in each row of ``shape``, before or after broadcasting."""
    while packet_of(source) in (*_COPIES, aten.expand, aten.repeat, aten.unsqueeze, aten.view):
        before = source.args[0]
        old, new = extents_of(before.meta["val"]), extents_of(source.meta["val"])
        if packet_of(source) is aten.repeat and old[-1] != new[-1] or old[-1:] != new[-1:]:
            return False
        source = before
    return is_arange(source) and not source.meta["val"].is_floating_point() and (
        extents_of(source.meta["val"]) == shape[-1:])


def _select(search: Any, node: Node) -> Any:
    """Tokens, or weights, of all choices, sorted by expert."""
    source, found = node.args[0], search.is_(node.args[1], "map")
    shape = extents_of(node.args[1].meta["val"])
    if found is None or not are_ids(found.ids, shape[0]):
        return None  # ids of a token that are the same are one place of the map
    if _are_numbers(source, shape):
        return type(found)("tokens", found.ids)
    matrix = _before_transpose(source)
    if matrix is None or not matrix.meta["val"].is_floating_point():
        return None
    with search.graph.inserting_before(node):
        made = elements_at(matrix, found.ids, shape[0])
    return None if made is None else type(found)("sorted weights", found.ids, made[1])


MAPS = {aten.permute: _transpose, aten.transpose: _transpose, aten.t: _transpose,
        aten.numpy_T: _transpose, aten.masked_select: _select}
