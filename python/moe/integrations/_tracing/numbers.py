"""Numbers that Python reads of counts, and the operations between them; see ``reads``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

__all__ = ["Number", "counts", "joined", "put_between", "rows_between", "size_between"]

# -- operations of the graph --------------------------------------------------


def _bounds(sources: Sequence[torch.Tensor], start: Sequence[int],
            end: Sequence[int]) -> tuple[int, int]:
    """Return sums of the elements of ``sources``, by their factors; the last is a constant."""
    values = [v for source in sources for v in source.tolist()] + [1]
    first, last = (sum(map(operator.mul, values, factors)) for factors in (start, end))
    return first, last


@torch.library.custom_op("moe_mlir::counts", mutates_args=())
def counts(ids: torch.Tensor, experts: int) -> torch.Tensor:
    """Count the ids of each expert."""
    return torch.bincount(ids.flatten(), minlength=experts)[:experts]


@counts.register_fake
def _(ids: torch.Tensor, experts: int) -> torch.Tensor:
    return ids.new_empty(experts, dtype=torch.int64)


@torch.library.custom_op("moe_mlir::size_between", mutates_args=())
def size_between(sources: list[torch.Tensor], start: list[int], end: list[int]) -> int:
    """Return the number of rows between two numbers."""
    first, last = _bounds(sources, start, end)
    return last - first


@size_between.register_fake
def _(sources: list[torch.Tensor], start: list[int], end: list[int]) -> int:
    # Neither 0 nor 1, which a trace would take for another shape.
    return torch.library.get_ctx().new_dynamic_size(min=2)


@torch.library.custom_op("moe_mlir::rows_between", mutates_args=())
def rows_between(x: torch.Tensor, sources: list[torch.Tensor], start: list[int],
                 end: list[int], size: int) -> torch.Tensor:
    """Return ``x[start:end]``."""
    first, last = _bounds(sources, start, end)
    return x[first:last].clone()


@rows_between.register_fake
def _(x: torch.Tensor, sources: list[torch.Tensor], start: list[int], end: list[int],
      size: int) -> torch.Tensor:
    return x.new_empty((size, *x.shape[1:]))


@torch.library.custom_op("moe_mlir::put_between", mutates_args=())
def put_between(into: torch.Tensor, sources: list[torch.Tensor], start: list[int],
                end: list[int], rows: torch.Tensor) -> torch.Tensor:
    """Return ``into`` after ``into[start:end] = rows``."""
    first, last = _bounds(sources, start, end)
    result = into.clone()
    result[first:last] = rows
    return result


@put_between.register_fake
def _(into: torch.Tensor, sources: list[torch.Tensor], start: list[int], end: list[int],
      rows: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(into)


@torch.library.custom_op("moe_mlir::joined", mutates_args=())
def joined(parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    """Concatenate parts that are as many rows as ``like`` has."""
    return torch.cat(parts)


@joined.register_fake
def _(parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return parts[0].new_empty((like.shape[0], *parts[0].shape[1:]))


# -- numbers ------------------------------------------------------------------


class Number:
    """A sum of elements of tensors, by factors, and a constant; each element is 1 or more."""

    def __init__(self, reads: Any, terms: dict[tuple[int, int], int], constant: int = 0):
        self.reads, self.constant = reads, constant
        self.terms = {key: factor for key, factor in terms.items() if factor}

    def _with(self, other: Any, sign: int) -> Number:
        if isinstance(other, Number):
            terms = dict(self.terms)
            for key, factor in other.terms.items():
                terms[key] = terms.get(key, 0) + sign * factor
            return Number(self.reads, terms, self.constant + sign * other.constant)
        if isinstance(other, (int, np.integer)):
            return Number(self.reads, self.terms, self.constant + sign * int(other))
        raise self.reads.error("computes with one as a number")

    def __add__(self, other: Any) -> Number:
        return self._with(other, 1)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Number:
        return self._with(other, -1)

    def __neg__(self) -> Number:
        return Number(self.reads, {k: -f for k, f in self.terms.items()}, -self.constant)

    def __rsub__(self, other: Any) -> Number:
        return -self + other

    def _sign(self, other: Any) -> int | None:
        """Return -1, 0 or 1 for what is less than, equal to or above ``other``."""
        left = self - other
        if not left.terms:
            return (left.constant > 0) - (left.constant < 0)
        for sign in (1, -1):
            least = sum(sign * f for f in left.terms.values()) + sign * left.constant
            if all(sign * f > 0 for f in left.terms.values()) and least > 0:
                self.reads.assumed = True
                return sign
        return None

    def compare(self, function: Callable[[int, int], bool], other: Any) -> bool | None:
        """Return what a comparison is, if that is known."""
        if not isinstance(other, (Number, int, np.integer)):
            return None
        sign = self._sign(other)
        if sign is not None:
            return function(sign, 0)
        if function in (operator.ge, operator.lt):  # n >= 1
            sign = (self + 1)._sign(other)
            if sign == 1:
                return function(sign, 0)
        return None

    def _compared(self, function: Callable[[int, int], bool], other: Any) -> bool:
        found = self.compare(function, other)
        if found is None:
            raise self.reads.error("branches by it")
        return found

    def __eq__(self, other: Any) -> bool:
        return self._compared(operator.eq, other)

    def __ne__(self, other: Any) -> bool:
        return self._compared(operator.ne, other)

    def __lt__(self, other: Any) -> bool:
        return self._compared(operator.lt, other)

    def __le__(self, other: Any) -> bool:
        return self._compared(operator.le, other)

    def __gt__(self, other: Any) -> bool:
        return self._compared(operator.gt, other)

    def __ge__(self, other: Any) -> bool:
        return self._compared(operator.ge, other)

    def __bool__(self) -> bool:
        return self._compared(operator.ne, 0)

    def __hash__(self) -> int:
        return hash((frozenset(self.terms.items()), self.constant))

    def item(self) -> Number:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.reads.error("computes with one as a number")

    def _unread(self, *_: Any) -> Any:
        raise self.reads.error("computes with one as a number")

    __index__ = __int__ = __float__ = __mul__ = __rmul__ = __truediv__ = __floordiv__ = _unread
    __mod__ = __rtruediv__ = __rfloordiv__ = __pow__ = _unread
