"""Nodes that are added to a traced graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["adder"]

Node = torch.fx.Node


def adder(graph: torch.fx.Graph) -> Callable[..., Node]:
    """Return a function that adds a call where the graph inserts, and computes its value."""

    def make(target: Any, *args: Any, **kwargs: Any) -> Node:
        new = graph.call_function(target, args, kwargs)
        values = [a.meta["val"] if isinstance(a, Node) else a for a in args]
        new.meta["val"] = target(*values, **kwargs)
        return new

    return make
