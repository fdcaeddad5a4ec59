"""Experts of which each computes all rows, and whose results masks choose among.

``y = torch.where(mask, expert(rows), y)`` for each expert leaves of each row what its expert makes
of it, as the ids are those of the masks.
"""

from __future__ import annotations

from typing import Any

import torch

from .._graph.function import extents_of
from .choices import is_single, number_of_experts, repeated, top_k_of
from .dense import Functions

__all__ = ["chosen"]

Node = torch.fx.Node


def chosen(loops: Any, node: Node) -> Any:
    """The results of an expert where a mask is true, and others before."""
    mask, rows, before = node.args[:3]
    found = loops.is_(mask, "hits")
    if found is None or not all(isinstance(v, Node) for v in (rows, before)) or any(
            extents_of(v.meta["val"]) != extents_of(node.meta["val"]) for v in (rows, before)):
        return None
    layout = tuple(d for d in found.layout if d != "unit")
    is_flat = layout == ("flat",)
    if not is_flat and (layout != ("token",) or not is_single(found.ids) or found.slot == "any"):
        return None
    others = loops.is_(before, "some of the choices")
    if others is not None and others.ids is not found.ids:
        return None
    parts = dict(before.meta["moe.chosen"]) if others is not None else {}
    if found.number in parts or found.ids in loops.masks:
        return None
    parts[found.number] = rows
    node.meta["moe.chosen"] = parts
    if set(parts) == set(range(number_of_experts(found.ids) or 0)):
        return _all(loops, node, found, is_flat)
    return loops.make("some of the choices", found.ids)


def _all(loops: Any, node: Node, found: Any, is_flat: bool) -> Any:
    """Every row is that of an expert: nothing is left of what was there before."""
    search, ids = loops.search, found.ids
    results = [node.meta["moe.chosen"][e] for e in range(len(node.meta["moe.chosen"]))]
    functions = Functions(results, search.tensors)
    if functions.rows is None:
        return None
    source = repeated(functions.rows, top_k_of(ids)) if is_flat else functions.rows
    wide = [] if source is None else [e for e in extents_of(source.meta["val"]) if e != 1]
    if len(wide) != 2 or isinstance(wide[0], int) or not search.has_experts(ids, len(results)):
        return None
    region = search.region(ids)
    if region.rows not in (None, rows := loops.matrix(source)):
        return None
    region.rows, region.is_guess = rows, True
    region.steps |= functions.steps
    region.parameters |= functions.parameters
    node.meta["moe.parts"] = results
    search.part(node, ids, "parts")
    if not is_flat:
        search.replace_single(node, ids, None)
        return None
    return loops.make("rows", ids)
