"""Writes experts as dispatch, expert and combine, for choices that a graph has made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..._error import UNIMPLEMENTED, MoEError
from .._graph.function import Function, IntegerBody, Tensor, type_of
from .._graph.operations import element_of
from .._graph.scalars import DTYPES, Scalar
from .description import describe, is_experts, parameter_names
from .written import read

__all__ = ["Described", "choices_of", "describe_experts", "write_experts"]


@dataclass
class Described:
    """What a graph needs to know of an experts module."""

    experts: int
    output: int
    dtype: str
    weights: dict[str, torch.Tensor]
    shared: dict[str, torch.Tensor]  # of all experts
    region: Callable[[Function, Mapping[str, str]], str]
    keeps_others: bool = False
    scales_rows: bool = False  # weights multiply rows, and not results


def describe_experts(module: torch.nn.Module, rows: Tensor, marks: int | None) -> Described:
    """Describe experts behind transformers' interface, or read those that are written out.

    ``marks`` is the last extent of the mask that they get in place of ids, if they do.
    """
    name = type(module).__name__
    if is_experts(module) and marks is None:
        try:
            found = describe(module, name)
        except MoEError as error:
            if error.code != UNIMPLEMENTED:
                raise
        else:
            weights = {n: getattr(module, n) for n in parameter_names(module)}
            return Described(found.experts, found.output, found.dtype, weights, {},
                              lambda f, _: found.region(f.index(0)))
    dtype = next(d for d, element in DTYPES.items() if element == rows.element)
    written = read(module, name, rows.shape[-1], dtype, marks)
    weights = {w.name: w.stacked(written.experts) for w in written.weights}
    return Described(written.experts, written.output, written.dtype, weights, written.shared,
                      written.region, written.keeps_others,
                      getattr(module, "scales_rows", False))


def write_experts(f: Function, arguments: Mapping[str, str], experts: Described, rows: Tensor,
                   ids: Tensor, weights: Tensor) -> Tensor:
    """Write dispatch, experts and combine for choices that are given."""
    top_k, count = ids.shape[-1], experts.experts
    chosen = Tensor(ids.narrow, ids.shape, "i32") if ids.narrow else f.convert(ids, "i32")
    factors = f.convert(weights, "f32") if weights.element not in ("f32", "bf16") else weights
    kept = chosen
    if experts.keeps_others:
        # Choices beyond the experts have none.
        kept = f.elementwise([chosen], chosen.shape, "i32", lambda b, v: _below(b, v[0], count))
    elif not ids.narrow:
        # The number of experts as an id, which no top-k makes, marks no choice.
        kept = f.elementwise([chosen], chosen.shape, "i32", lambda b, v: _marked(b, v[0], count))
    matrix, scale = f.with_units(kept, ids.shape), f.with_units(factors, weights.shape)
    parts = [_part_of(f, arguments[n], w) for n, w in experts.weights.items()]
    r, i = rows.type, f"tensor<?x{top_k}xi32>"
    weighted = f" weights({scale} : tensor<?x{top_k}x{factors.element}>)"
    before, after = (weighted, "") if experts.scales_rows else ("", weighted)
    scaled = " scale_rows" if experts.scales_rows else ""
    grouped, offsets, positions = f.let_all(
        3, f"moe.dispatch {rows.name}, {matrix}{before} experts({count}){scaled} : {r}, {i}")
    result = type_of((rows.shape[0], experts.output), experts.dtype)
    params, types = (", ".join(each) for each in zip(*parts))
    region = experts.region(f, arguments)
    y = f.let(f"moe.expert {grouped}, {offsets} params({params} : {types}) {{\n"
              f"{region}\n}} : {r}, tensor<{count + 1}xi32> -> {result}")
    out = f.let(f"moe.combine {y}, {positions}{after} : {result}, {i}")
    sum_ = Tensor(out, (rows.shape[0], experts.output), experts.dtype)
    if not experts.keeps_others:
        return sum_
    share = f.elementwise([chosen, factors], chosen.shape, "f32",
                          lambda b, v: _beyond(b, v[0], v[1], count))
    total = f.reduce(share, (len(share.shape) - 1,), "arith.addf", 0.0)
    return f.elementwise(
        [sum_, rows, f.reshape(total, (rows.shape[0], 1))], sum_.shape, sum_.element,
        lambda b, v: b.op("arith.addf", v[0], b.op("arith.mulf", v[1], v[2])))


def _part_of(f: Function, name: str, weight: torch.Tensor) -> tuple[str, str]:
    """Return a weight of all experts without extents of 1 beyond the first, and its type."""
    shape, element = tuple(weight.shape), element_of(f, weight)
    kept = [d for d, e in enumerate(shape) if d == 0 or e != 1]
    type_ = type_of(shape, element)
    if len(kept) in (1, len(shape)):
        return name, type_
    groups = [list(range(first, last)) for first, last in zip(
        [0, *kept[1:]], [*kept[1:], len(shape)])]
    new = type_of([shape[d] for d in kept], element)
    return f.let(f"tensor.collapse_shape {name} {groups} : {type_} into {new}"), new


def choices_of(f: Function, mask: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and weights of the choices ``[T, K]`` that a mask ``[T, K, E]`` marks."""
    tokens, top_k, count = mask.shape
    if mask.marked is not None:
        ids = f.convert(f.reshape(mask.marked, (tokens, top_k)), "i32")
        return f.elementwise([ids], ids.shape, "i32", lambda b, v: _below(b, v[0], count)), weights
    # Any of them may be marked.
    at = sum(e != 1 for e in mask.shape[:-1])

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        index = body.let("index", f"linalg.index {at} : index").name if count > 1 else (
            body.let("index", "arith.constant 0 : index").name)
        id_ = body.let("i32", f"arith.index_cast {index} : index to i32").name
        none = body.let("i32", "arith.constant -1 : i32").name
        marks = body.cast(values[0], "i1").name
        return body.let("i32", f"arith.select {marks}, {id_}, {none} : i32")

    ids = f.elementwise([mask], mask.shape, "i32", write)
    each = f.elementwise([f.reshape(weights, (tokens, top_k, 1))], mask.shape, weights.element,
                         lambda _, v: v[0])
    shape = (tokens, top_k * count)
    return f.reshape(ids, shape), f.reshape(each, shape)


def _is_expert(body: IntegerBody, id_: Scalar, count: int) -> str:
    bound = body.let("i32", f"arith.constant {count} : i32")
    return body.let("i1", f"arith.cmpi ult, {id_.name}, {bound.name} : i32").name


def _below(body: IntegerBody, id_: Scalar, count: int) -> Scalar:
    none = body.let("i32", "arith.constant -1 : i32")
    return body.let("i32", f"arith.select {_is_expert(body, id_, count)}, {id_.name}, "
                           f"{none.name} : i32")


def _marked(body: IntegerBody, id_: Scalar, count: int) -> Scalar:
    mark, none = (body.let("i32", f"arith.constant {n} : i32") for n in (count, -1))
    is_mark = body.let("i1", f"arith.cmpi eq, {id_.name}, {mark.name} : i32")
    return body.let("i32", f"arith.select {is_mark.name}, {none.name}, {id_.name} : i32")


def _beyond(body: IntegerBody, id_: Scalar, weight: Scalar, count: int) -> Scalar:
    zero = body.constant(0.0)
    return body.let("f32", f"arith.select {_is_expert(body, id_, count)}, {zero.name}, "
                           f"{body.operand(weight)} : f32")
