"""Parameters of experts, by the places that their elements have.

The matrices of all experts are large: a program moves views of three numbers in place of them,
the expert, the row and the column of each element, which take no memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["MOST", "Matrix", "Moved", "matrices_of"]

Node = torch.fx.Node

# Elements of a value: what needs more is not searched.
MOST = 1 << 24


@dataclass(frozen=True)
class Matrix:
    """A parameter of all experts, [experts, ...], or one of each; ``nodes`` are its placeholders.
    ``experts`` is 1 where all use the same."""

    nodes: tuple[Node, ...]
    experts: int
    shape: tuple[int, ...]  # of one expert


@dataclass
class Moved:
    """Elements of parameters that a program has moved: the number of the parameter, the expert,
    the row and the column of each, and random numbers in place of them if they are few."""

    places: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
    numbers: torch.Tensor | None

    def map(self, move: Callable[[torch.Tensor], torch.Tensor]) -> Moved:
        return Moved(tuple(move(p) for p in self.places),
                     None if self.numbers is None else move(self.numbers))


def matrices_of(tensors: Mapping[Node, tuple[str, torch.Tensor]], experts: int) -> (
        list[tuple[Matrix, dict[Node, int | None]]]):
    """Return the parameters of a program, and the expert of each placeholder of one; None is all
    of them."""
    found: list[tuple[Matrix, dict[Node, int | None]]] = []
    rest = {n: t for n, (_, t) in tensors.items() if t.is_floating_point() and t.ndim > 0}
    # Modules in a list have one each: "experts.3.w1".
    groups: dict[tuple[Any, ...], dict[int, Node]] = {}
    for node, tensor in rest.items():
        name = tensors[node][0]
        for number in re.finditer(r"(?<![^._])\d+(?![^._])", name):
            key = name[:number.start()], name[number.end():], tuple(tensor.shape)
            groups.setdefault(key, {})[int(number[0])] = node
    for (*_, shape), nodes in groups.items():
        if sorted(nodes) == list(range(experts)) and len(shape) <= 2 and experts > 1:
            own = tuple(nodes[e] for e in range(experts))
            found.append((Matrix(own, experts, shape), {n: e for e, n in enumerate(own)}))
            for node in own:
                rest.pop(node, None)
    for node, tensor in rest.items():
        shape = tuple(tensor.shape)
        if shape[0] == experts and len(shape) in (2, 3):
            found.append((Matrix((node,), experts, shape[1:]), {node: None}))
        elif len(shape) <= 2:
            found.append((Matrix((node,), 1, shape), {node: 0}))
    return found


def moved(number: int, matrix: Matrix, expert: int | None, numbers: torch.Tensor | None) -> Moved:
    """Return the parameter of an expert, or of all of them, where it lies."""
    first = matrix.experts if expert is None else 1
    rows, columns = ((1, 1) + matrix.shape)[-2:]
    shape = (first, rows, columns)

    def along(dim: int, begin: int = 0) -> torch.Tensor:
        line = torch.arange(begin, begin + shape[dim], dtype=torch.int32)
        return line.view([-1 if d == dim else 1 for d in range(3)]).expand(shape)

    places = (torch.tensor(number, dtype=torch.int32).expand(shape), along(0, expert or 0),
              along(1), along(2))
    own = matrix.shape if expert is not None else (matrix.experts, *matrix.shape)

    def cut(value: torch.Tensor) -> torch.Tensor:
        while value.ndim > len(own):
            value = value.squeeze(0 if len(own) < 3 and expert is not None else 1)
        return value

    if numbers is not None:
        numbers = numbers.reshape(own) if expert is None else numbers[expert].reshape(own)
    return Moved(tuple(cut(p) for p in places), numbers)
