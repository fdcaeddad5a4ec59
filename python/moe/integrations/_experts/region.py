"""The function of one expert that was found in a graph: the nodes that it consists of."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .._graph.function import extents_of
from .choices import untransposed
from .in_graph import GraphExperts

__all__ = ["Region", "experts_of"]

Node = torch.fx.Node


@dataclass
class Region:
    """The function of an expert: nodes between the rows that are gathered and the result."""

    ids: Node
    rows: Node | None = None
    weights: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    experts: int | None = None
    parameters: set[Node] = field(default_factory=set)
    ones: Node | None = None  # the weights, where they are in the rows
    steps: dict[Node, Any] = field(default_factory=dict)  # others, as ``GraphExperts`` takes them
    is_guess: bool = False  # to be compared with the graph that it comes from


def experts_of(region: Region, result: Node,
               tensors: Mapping[Node, tuple[str, Any]]) -> GraphExperts:
    """Return the experts of a region whose rows ``result`` are, as a module."""
    # The graph erases these nodes.
    steps = region.steps | {
        n: (n.meta["moe.part"], n.target, _arguments(n), n.kwargs) for n in region.nodes}
    columns = int(extents_of(result.meta["val"])[-1])
    made = GraphExperts(region.experts, columns, result, steps, region.parameters, tensors)
    made.is_guess = region.is_guess
    return made


def _arguments(node: Node) -> tuple[Any, ...]:
    if "moe.parts" in node.meta:
        return (node.meta["moe.parts"],)
    if node.meta["moe.part"] == "part":
        return node.args[0].args[:1] if node.target is operator.getitem else node.args[:1]
    if node.meta["moe.part"] != "transposed matmul":
        return node.args
    return node.args[0], untransposed(node.args[1])
