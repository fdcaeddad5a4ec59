"""Values of the rows of experts by which they are known again wherever a program moves them.

A family has a random number, or a function of such numbers, for each expert, token and column.
Whatever a program does to order them (sorts, scatters, products with masks), an element of a
result is looked up, and is that of one expert, token and column, or zero, or of no family.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

__all__ = ["Expression", "Family", "Places", "Tables"]

# Numbers of a program that are the same but for the order of an addition.
_SAME = 1e-12


@dataclass(frozen=True)
class Expression:
    """What a family is: the ``rows`` that experts are given, their "weights", a "parameter"
    (``name``), a "matmul" of an expression with a parameter (``name``, ``transposed``), some
    "columns" (``first``, ``count``) or an "operation" (``target``)."""

    kind: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    target: Any = None

    def parts(self) -> list[Expression]:
        return [a for a in self.args if isinstance(a, Expression)]

    @cached_property
    def is_weighted(self) -> bool:
        return self.kind == "weights" or any(p.is_weighted for p in self.parts())

    @cached_property
    def has_product(self) -> bool:
        return self.kind == "matmul" or any(p.has_product for p in self.parts())


@dataclass
class Family:
    """``table`` is [experts or 1, tokens or 1, columns]."""

    expression: Expression
    table: torch.Tensor

    @property
    def by_expert(self) -> bool:
        return self.table.shape[0] > 1

    @property
    def columns(self) -> int:
        return self.table.shape[2]

    @cached_property
    def _sorted(self) -> tuple[torch.Tensor, torch.Tensor]:
        known, order = self.table.flatten().sort()
        some = int((~known.isnan()).sum())  # those that are not lie behind
        return known[:some], order[:some]

    def find(self, values: torch.Tensor) -> torch.Tensor:
        """Return the places of values in the table, -1 where they are none of its."""
        known, order = self._sorted
        if not known.numel():
            return torch.full_like(values, -1, dtype=torch.int64)
        at = torch.searchsorted(known, values.contiguous()).clamp(max=known.numel() - 1)
        before = (at - 1).clamp(min=0)
        nearer = (known[before] - values).abs() < (known[at] - values).abs()
        at = torch.where(nearer, before, at)
        same = (known[at] - values).abs() <= _SAME * values.abs()
        return torch.where(same & (values != 0), order[at], -1)


@dataclass
class Places:
    """Where the elements of a value lie in the table of a family, all of the value's shape;
    ``known`` says which of them do."""

    family: Family
    known: torch.Tensor
    expert: torch.Tensor
    token: torch.Tensor
    column: torch.Tensor

    @property
    def first(self) -> int:
        return int(self.column[self.known].min())

    @property
    def last(self) -> int:
        return int(self.column[self.known].max())


class Tables:
    """The families of a program."""

    def __init__(self, draw: torch.Generator):
        self.draw = draw
        self.families: dict[Expression, Family] = {}

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.draw, dtype=torch.float64)

    def add(self, expression: Expression, table: torch.Tensor) -> Family:
        family = self.families.get(expression)
        if family is None:
            family = self.families[expression] = Family(expression, table)
        return family

    def locate(self, values: torch.Tensor) -> Places | None:
        """Return the family that most elements of a value are of, and where they lie in it."""
        flat = values.flatten()
        some = flat[flat != 0][:: max(1, int((flat != 0).sum()) // 16)]
        if not some.numel():
            return None
        found = [(int((f.find(some) >= 0).sum()), f) for f in reversed(self.families.values())]
        most, family = max(found, key=lambda each: each[0], default=(0, None))
        if not most:
            return None
        at = family.find(flat).reshape(values.shape)
        _, tokens, columns = family.table.shape
        return Places(family, at >= 0, at // (tokens * columns), at // columns % tokens,
                      at % columns)

    def holds(self, values: torch.Tensor) -> bool:
        """Return true where each element is one of a family, or zero."""
        places = self.locate(values)
        return places is not None and bool((places.known | (values == 0)).all())
