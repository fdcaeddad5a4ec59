"""Nodes that are added to a traced graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

__all__ = ["adder", "place_of"]

Node = torch.fx.Node


def adder(graph: torch.fx.Graph) -> Callable[..., Node]:
    """Return a function that adds a call where the graph inserts, and computes its value."""

    def make(target: Any, *args: Any, **kwargs: Any) -> Node:
        new = graph.call_function(target, args, kwargs)
        values = torch.fx.node.map_arg(args, lambda n: n.meta["val"])
        new.meta["val"] = target(*values, **kwargs)
        return new

    return make


def place_of(node: Node) -> str:
    """Return the line of code that a node comes from; its name where that is not known."""
    lines = re.findall(r'File "(.*?)", line (\d+)', node.meta.get("stack_trace") or "")
    own = Path(__file__).parent.parent.as_posix()
    if not lines or lines[-1][0].startswith(own):
        return node.name
    return f"{Path(lines[-1][0]).name}:{lines[-1][1]}"
