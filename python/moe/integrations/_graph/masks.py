"""Masks that mark one index of their last dimension, and elements that are read by an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .function import Extent, Function, IntegerBody, Tensor
from .scalars import Scalar

__all__ = ["coordinates", "marked"]

aten = torch.ops.aten


def marked(f: Function, packet: Any, shape: Sequence[Extent], arguments: Sequence[Any]) -> (
        Tensor | None):
    """Return the index that a mask ``[..., E]`` marks, if it is known to mark one at most."""
    if len(arguments) == 1 and packet is aten._to_copy:
        return arguments[0].marked
    if len(arguments) != 2 or not all(isinstance(a, Tensor) for a in arguments) or (
            not shape or not isinstance(shape[-1], int) or shape[-1] == 1):
        return None
    for one, other in (arguments, arguments[::-1]):
        if packet is aten.eq and one.is_range and one.shape[-1] == shape[-1] and (
                other.element in ("i32", "i64") and other.shape == (*shape[:-1], 1)):
            return f.convert(other, "i64")
        if packet in (aten.mul, aten.bitwise_and, aten.logical_and) and one.marked is not None and (
                one.shape == tuple(shape)):
            return _kept(f, one.marked, other, shape)
    return None


def _kept(f: Function, marked: Tensor, factor: Tensor, shape: Sequence[Extent]) -> Tensor:
    """Return ``marked`` where the factor at the index is not 0, and -1 elsewhere."""
    aligned = (1,) * (len(shape) - len(factor.shape)) + factor.shape

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        names = {n: body.let("i64", f"arith.constant {v} : i64").name
                 for n, v in (("none", -1), ("zero", 0), ("count", shape[-1]))}
        id_ = values[0].name
        inside = body.let("i1", f"arith.cmpi ult, {id_}, {names['count']} : i64").name
        index = body.let("i64", f"arith.select {inside}, {id_}, {names['zero']} : i64")
        at = coordinates(f, aligned, body, len(shape) - 1, index, marked.shape)
        found = body.let(factor.element, f"tensor.extract {factor.name}[{at}] : {factor.type}")
        kept = body.let("i1", f"arith.andi {body.cast(found, 'i1').name}, {inside} : i1")
        return body.let("i64", f"arith.select {kept.name}, {id_}, {names['none']} : i64")

    return f.elementwise([marked], marked.shape, "i64", write)


def coordinates(f: Function, shape: Sequence[Extent], body: IntegerBody, dim: int, index: Scalar,
                 like: Sequence[Extent]) -> str:
    """Return the indices into a tensor of ``shape`` that has ``index`` in place of ``dim``."""
    loops = {d: i for i, d in enumerate([d for d, e in enumerate(like) if e != 1])}
    names = []
    for d, extent in enumerate(shape):
        if extent == 1:
            continue
        if d == dim:
            text = f"arith.index_cast {index.name} : {index.element} to index"
        else:
            text = f"linalg.index {loops[d]} : index" if d in loops else "arith.constant 0 : index"
        names.append(body.let("index", text).name)
    return ", ".join(names)
