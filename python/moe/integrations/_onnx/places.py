"""Operators of ONNX that find places in tensors, and read or write there.

Exporters compute places in ways that a trace cannot follow: an index into two dimensions that were
merged, and those of all elements of the rows that a mask selects. The tensors know where they come
from, by attributes.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true as is_known

from ..._error import UNIMPLEMENTED, MoEError
from .values import Extents, as_tensor, extents

__all__ = ["Places", "gather", "gather_elements", "gather_nd", "non_zero", "scatter_elements",
           "scatter_nd"]


class Places:
    """The indices of all elements of the rows that a mask selects."""

    def __init__(self, mask: torch.Tensor):
        self.mask = mask


def non_zero(_: Any, x: Any) -> Any:
    """The indices of each dimension in a row; exporters transpose them at once."""
    if (mask := getattr(x, "rows_of", None)) is not None:
        return Places(mask)
    places = torch.nonzero(x)
    rows = places.t()
    rows.transposed_of = places
    return rows


def gather(attributes: dict[str, Any], x: Any, at: Any) -> Any:
    axis = attributes.get("axis", 0)
    if isinstance(x, Extents) and isinstance(at, Extents):
        return extents([x[i] for i in at], at.scalar)
    if axis == 0 and (places := getattr(x, "transposed_of", None)) is not None and (
            isinstance(at, Extents) and len(at) == 1):
        first = at[0] % places.shape[1]
        return places.select(1, first) if at.scalar else places[:, first:first + 1].t()
    x = as_tensor(x)
    if isinstance(at, Extents) and at.scalar:
        return x.select(axis, at[0])
    at = as_tensor(at)
    whole, places = getattr(x, "merged_of", None), getattr(at, "merged", None)
    if axis == 0 and None not in (whole, places) and is_known(whole.shape[1] == places[2]):
        rest = functools.reduce(operator.mul, whole.shape[2:], 1)
        return whole[places[:2]].reshape(*at.shape, rest)
    return x[(slice(None),) * (axis % x.dim()) + (at,)]


def gather_elements(attributes: dict[str, Any], x: Any, at: Any) -> Any:
    x, at, axis = as_tensor(x), as_tensor(at), attributes.get("axis", 0)
    return x.gather(axis, _from_start(attributes, x, at, axis))


def _from_start(attributes: dict[str, Any], x: Any, at: Any, axis: int) -> Any:
    """Count indices below 0 from the end, if there may be any."""
    return at if attributes["chosen"] else torch.where(at < 0, at + x.shape[axis], at)


def gather_nd(attributes: dict[str, Any], x: Any, at: Any) -> Any:
    if attributes.get("batch_dims", 0):
        raise MoEError(UNIMPLEMENTED, "GatherND with batch_dims is not supported")
    return as_tensor(x)[_columns_of(as_tensor(at))]


def _columns_of(at: Any) -> tuple[Any, ...]:
    """Return what indexes each dimension, of indices in the last one."""
    if (parts := getattr(at, "columns", None)) is not None:
        return parts
    return (at.squeeze(-1),) if at.shape[-1] == 1 else at.unbind(-1)


def scatter_elements(attributes: dict[str, Any], x: Any, at: Any, updates: Any) -> Any:
    axis, reduction = attributes.get("axis", 0), attributes.get("reduction", b"none").decode()
    if all(isinstance(v, Extents) for v in (x, at, updates)) and reduction == "none":
        shape = list(x)
        for place, value in zip(at, updates):
            shape[place] = value
        return extents(shape)
    x, at, updates = as_tensor(x), as_tensor(at), as_tensor(updates)
    at = _from_start(attributes, x, at, axis)
    if reduction == "none":
        return x.scatter(axis, at, updates)
    if reduction == "add":
        return x.scatter_add(axis, at, updates)
    raise MoEError(UNIMPLEMENTED, f"ScatterElements with reduction {reduction} is not supported")


def scatter_nd(attributes: dict[str, Any], x: Any, at: Any, updates: Any) -> Any:
    reduction = attributes.get("reduction", b"none").decode()
    if reduction not in ("none", "add"):
        raise MoEError(UNIMPLEMENTED, f"ScatterND with reduction {reduction} is not supported")
    if isinstance(at, Places):
        if (rows := getattr(updates, "rows", None)) is None:
            raise MoEError(UNIMPLEMENTED, "ScatterND of what is no rows is not supported")
        return as_tensor(x).index_put((at.mask,), rows, accumulate=reduction == "add")
    return as_tensor(x).index_put(_columns_of(as_tensor(at)), as_tensor(updates),
                                  accumulate=reduction == "add")
