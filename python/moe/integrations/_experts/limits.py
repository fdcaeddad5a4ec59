"""Marks of choices of which some alone are kept, such as those within a capacity."""

from __future__ import annotations

from typing import Any

import torch

from .._graph.function import extents_of
from .choices import dimensions, number_of_experts, packet_of
from .nodes import adder

__all__ = ["limit", "limit_each"]

Node = torch.fx.Node
aten = torch.ops.aten


def limit(loops: Any, node: Node) -> Any:
    """Of the choices some alone, whatever their expert: those within a capacity."""
    for hits, keep in (node.args[:2], node.args[1::-1]):
        found = loops.is_(hits, "hits")
        if found is None or not isinstance(keep, Node) or keep in loops.search.known or (
                keep.meta["val"].dtype != torch.bool or found.slot is not None
                or found.layout != dimensions(found.ids) or extents_of(
                    keep.meta["val"]) != extents_of(found.ids.meta["val"])):
            continue
        key = found.ids, keep
        if key not in loops.limited:
            graph, none = loops.search.graph, number_of_experts(found.ids)
            with graph.inserting_before(node):
                new = graph.call_function(aten.where.ScalarOther, (keep, found.ids, none))
            new.meta["val"] = found.ids.meta["val"]
            loops.limited[key], loops.masks[new] = new, keep
        return loops.like(found, ids=loops.limited[key])
    return None


def limit_each(loops: Any, node: Node) -> Any:
    """A product of marks of choices ``[..., E]`` with marks of those that are kept."""
    for hits, keep in (node.args[:2], node.args[1::-1]):
        found = loops.is_(hits, "hits")
        if found is None or "expert" not in found.layout or found.slot is not None:
            continue
        while packet_of(keep) in (aten._to_copy, aten.clone):
            keep = keep.args[0]
        if not isinstance(keep, Node) or keep in loops.search.known or (
                keep.meta["val"].dtype != torch.bool
                or extents_of(keep.meta["val"]) != extents_of(hits.meta["val"])):
            continue
        if (key := (found.ids, keep)) not in loops.limited:
            loops.limited[key] = _kept(loops, node, found, keep)
        return loops.like(found, ids=loops.limited[key])
    return None


def _kept(loops: Any, node: Node, found: Any, keep: Node) -> Node:
    """Return ids of which those that are not marked are the number of experts."""
    graph, ids, none = loops.search.graph, found.ids, number_of_experts(found.ids)
    order = ["unit"] * found.layout.count("unit") + [
        d for d in dimensions(ids) if d != "unit"] + ["expert"]
    left = list(enumerate(found.layout))

    make = adder(graph)
    with graph.inserting_before(node):
        places = []
        for what in order:
            places.append(next(p for p in left if p[1] == what))
            left.remove(places[-1])
        keep = make(aten.permute.default, keep, [i for i, _ in places])
        shape = [e if isinstance(e, int) else -1 for e in extents_of(ids.meta["val"])]
        keep = make(aten.view.default, make(aten.clone.default, keep), [*shape, none])
        # Of ids that are limited already, the number of experts is one.
        at = make(aten.clamp_max.default, ids, none - 1) if ids in loops.masks else ids
        at = make(aten.unsqueeze.default, at, -1)
        mask = make(aten.squeeze.dim, make(aten.gather.default, keep, -1, at), -1)
        new = make(aten.where.ScalarOther, mask, ids, none)
    loops.masks[new] = mask
    return new
