"""Experts that were found in a graph, as a module."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from .._layers.module import register

__all__ = ["GraphExperts"]

Node = torch.fx.Node


class GraphExperts(torch.nn.Module):
    """The experts of a graph, written out: a loop that runs the function of each."""

    def __init__(self, count: int, columns: int, result: Node,
                 steps: Mapping[Node, tuple[str, Any, tuple[Any, ...], dict[str, Any]]],
                 parameters: Iterable[Node], tensors: Mapping[Node, tuple[str, Any]]):
        super().__init__()
        self.count, self.columns, self.result, self.steps = count, columns, result, dict(steps)
        self.is_guess = False
        self.scales_rows = False  # weights multiply rows, and not results: see ``scaled``
        self.values: dict[Node, Callable[[], torch.Tensor]] = {}
        names = _names_of_parts(self.steps, tensors)
        for node in parameters:
            name, tensor = tensors[node]
            name = names.get(node, name)
            if not isinstance(tensor, torch.nn.Parameter):
                tensor = torch.nn.Parameter(tensor, False)
            owner, last = register(self, name, tensor), name.rpartition(".")[2]
            self.values[node] = lambda owner=owner, last=last: getattr(owner, last)

    def scaled(self, rows: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Return the sum of what the experts make of rows times their weights."""
        total = 0.0
        for ids, weights in zip(ids.unbind(-1), weights.unbind(-1)):
            scale = weights[:, None]
            scaled = (rows * scale).to(rows.dtype)
            total = total + self(scaled, ids[:, None], torch.ones_like(scale))
        return total

    def forward(self, rows: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> (
            torch.Tensor):
        out = torch.zeros((rows.shape[0], self.columns), dtype=rows.dtype)
        for expert in range(self.count):
            token, choice = torch.where(ids == expert)
            if token.numel():
                y = self.expert(expert, rows[token])
                out.index_add_(0, token, (y * weights[token, choice, None]).to(out.dtype))
        return out

    def expert(self, expert: int, rows: torch.Tensor) -> torch.Tensor:
        """Run the nodes of the region for the rows of one expert."""
        done: dict[Node, Any] = {}

        def value(node: Node) -> Any:
            if node in self.values:
                return self.values[node]()
            if node not in done:
                done[node] = run(*self.steps[node])
            return done[node]

        def run(part: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if part == "rows":
                return rows
            if part == "slice":
                return value(args[0])[expert]
            if part == "parts":
                return value(args[0][expert])
            if part == "matmul":
                return value(args[0]) @ value(args[1])[expert]
            if part == "transposed matmul":
                return value(args[0]) @ value(args[1])[expert].t()
            if part == "part":
                return value(args[0])
            of = value
            if part == "operation of slices":
                def of(node: Node) -> Any:
                    return value(node)[expert] if node in self.values else value(node)
            args, kwargs = torch.fx.node.map_arg((args, kwargs), of)
            return target(*args, **kwargs)

        return value(self.result)


def _names_of_parts(steps: Mapping[Node, Any], tensors: Mapping[Node, tuple[str, Any]]) -> (
        dict[Node, str]):
    """Return names ``experts.0.w`` of parameters that are those of one expert each, where they
    have others. Which belong together is seen by their places in the functions of the experts."""
    groups: dict[tuple[Node, ...], None] = {}
    seen: set[tuple[Node, ...]] = set()

    def visit(nodes: tuple[Any, ...]) -> None:
        if isinstance(nodes[0], (list, tuple)):
            for each in zip(*nodes):
                visit(each)
        if not all(isinstance(n, Node) for n in nodes) or nodes in seen or (
                all(n is nodes[0] for n in nodes)):
            return
        seen.add(nodes)
        if all(n in tensors for n in nodes):
            groups[nodes] = None
        elif all(n in steps and steps[n][:2] == steps[nodes[0]][:2] for n in nodes):
            visit(tuple(steps[n][2] for n in nodes))

    for part, _, args, _ in steps.values():
        if part == "parts":
            visit(tuple(args[0]))
    given = {}
    for number, group in enumerate(groups):
        parts = [re.fullmatch(r"(.*?)(\d+)(\..*)", tensors[node][0]) for node in group]
        if all(parts) and len({(p[1], p[3]) for p in parts}) == 1 and [
                int(p[2]) for p in parts] == list(range(len(parts))):
            continue
        own = [tensors[node][0] for node in group]
        after = os.path.commonprefix([name[::-1] for name in own])[::-1].strip("_.")
        after = after if after and not after[0].isdigit() else f"w{number}"
        given |= {node: f"experts.{i}.{after}" for i, node in enumerate(group)}
    if len(set(given.values())) < len(given):
        given = {node: f"experts.{i}.w{number}" for number, group in enumerate(groups)
                 for i, node in enumerate(group)}
    return given
