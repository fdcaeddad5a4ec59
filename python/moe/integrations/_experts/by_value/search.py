"""Finds experts of a graph by what it computes, however it brings rows to experts and back.

Where no rule for a way to write experts applies, the graph is run on few tokens with chosen
experts (see ``interpreter``). If a value is, for each token, the sum over its choices of what
one function of an expert makes of its row, times the weight of the choice, and stays so for
other choices, then that is what the graph computes of them: tokens at one expert, experts
without tokens. The caller compares the result with the program, on rows that its own router
has chosen experts for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..._graph.function import extents_of
from ..choices import rank_of
from ..in_graph import GraphExperts
from ..nodes import adder
from .cuts import Cut, choices_of, cuts_of, size_of
from .function import Function, function_of
from .interpreter import ERRORS
from .runs import Run, run_with

__all__ = ["find_by_value"]

Node = torch.fx.Node
aten = torch.ops.aten

# Numbers of tokens, in turn, of a program that takes any.
_TOKENS = (8, 12, 7)

# Capacities that are looked for, and elements of the rows of all experts that are run for one.
_MOST_LIMIT, _MOST_OF_LIMITS = 1 << 16, 1 << 22


@dataclass(frozen=True)
class _Mask:
    """A value that says which choices are kept: one of [T, K], or of [T, E], or transposed."""

    node: Node
    by_expert: bool
    transposed: bool


@torch.no_grad()
def find_by_value(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
                  operation: Any) -> dict[str, torch.nn.Module]:
    """Replace experts in ``graph`` by calls of ``operation``, as ``find_experts`` does."""
    rows = [n for n in graph.nodes if n.op == "placeholder" and n not in tensors]
    if len(rows) != 1:
        return {}
    try:
        for cut in cuts_of(graph, tensors, rows[0]):
            try:
                found = _find(graph, tensors, rows[0], cut)
            except ERRORS:  # values that the cut cannot have
                continue
            if found is not None:
                return _replace(graph, tensors, operation, cut, *found)
    except ERRORS:  # a graph that has no such cut, or no place for the call
        graph.eliminate_dead_code()
    return {}


def _find(graph: torch.fx.Graph, tensors: Mapping[Node, Any], rows: Node, cut: Cut) -> (
        tuple[Node, Function, _Mask | None] | None):
    """Return the node that the sum is, the function of an expert, and what drops choices."""
    runs: list[Run] = []
    for round_, count in enumerate(_TOKENS):
        if not _is_left(runs, run_with(graph, rows, cut, count, round_)):
            return None
    if not _has_limits(graph, tensors, rows, cut, runs):
        return None
    for match in reversed(runs[-1].found):
        columns = int(match.node.meta["val"].shape[-1])
        interpreter = runs[-1].interpreter
        function = function_of(match.expression, columns, interpreter.matrices,
                               interpreter.carriers)
        if function is None:
            continue
        kept = [run.found[match] for run in runs]
        if all(bool(k.all()) for k in kept):
            return match.node, function, None
        for mask in _masks(graph, match.node):
            if all(_agrees(mask, run, k) for run, k in zip(runs, kept)):
                return match.node, function, mask
    return None


def _is_left(runs: list[Run], run: Run) -> bool:
    """Add a run, with what all of them have found; return whether that is anything."""
    if runs:
        run.found = {m: kept for m, kept in run.found.items() if m in runs[-1].found}
    runs.append(run)
    return bool(run.found)


def _has_limits(graph: torch.fx.Graph, tensors: Mapping[Node, Any], rows: Node, cut: Cut,
                runs: list[Run]) -> bool:
    """Run the graph with so many tokens that none of its integers holds all of them, as a
    capacity does; return whether a match is left.

    What would take long is not run: then an integer that is no extent of a parameter may be one.
    """
    shape = extents_of(rows.meta["val"])
    if all(isinstance(extent, int) for extent in shape):
        return True
    own = {e for _, t in tensors.values() for e in t.shape} | {cut.experts, runs[0].ids.shape[1]}
    columns = max(e for e in (*own, shape[-1]))
    most = _MOST_OF_LIMITS // (cut.experts * columns)
    found = {i for node in graph.nodes for i in _integers((node.args, node.kwargs))
             if max(_TOKENS) <= i <= _MOST_LIMIT}
    # Places of all experts are explained by those of one.
    known = own | {a * b for a in own for b in own} | {
        cut.experts * i + more for i in found for more in (0, 1)}
    if any(i >= most for i in found - known):
        return False
    if limits := [i for i in found if i < most]:
        return _is_left(runs, run_with(graph, rows, cut, max(limits) + 1, 1))
    return True


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _integers(each)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, float) and value.is_integer():
        yield int(value)


def _masks(graph: torch.fx.Graph, until: Node) -> Iterator[_Mask]:
    for node in graph.nodes:
        if node is until:
            return
        for by_expert, transposed in itertools.product((False, True), repeat=2):
            yield _Mask(node, by_expert, transposed)


def _agrees(mask: _Mask, run: Run, kept: torch.Tensor) -> bool:
    """Return true if a value says in a run which choices are kept."""
    value = run.interpreter.values.get(mask.node)
    count, total = run.ids.shape
    width = run.interpreter.experts if mask.by_expert else total
    if not isinstance(value, torch.Tensor) or value.numel() != count * width or (
            not bool(((value == 0) | (value == 1)).all())):
        return False
    value = value.reshape(width, count).t() if mask.transposed else value.reshape(count, width)
    if mask.by_expert:
        value = value.gather(1, run.ids)
    return torch.equal(value != 0, kept)


# -- the call that replaces it ----------------------------------------------------


def _replace(graph: torch.fx.Graph, tensors: Mapping[Node, Any], operation: Any, cut: Cut,
             node: Node, function: Function, mask: _Mask | None) -> dict[str, torch.nn.Module]:
    module = GraphExperts(cut.experts, function.columns, function.result, function.steps,
                          function.parameters, tensors)
    module.is_guess = True
    module.scales_rows = function.scales_rows
    key = "by_value"
    like, rows = node.meta["val"], function.rows
    tokens = math.prod(extents_of(rows.meta["val"])[:-1])
    with graph.inserting_before(node):
        make = adder(graph)
        with like.fake_mode:
            parts = []
            for ids in cut.ids:
                parts.append(make(aten.view.default, ids, [-1, choices_of(ids)]))
            ids = parts[0] if len(parts) == 1 else make(aten.cat.default, parts, 1)
            total = sum(choices_of(n) for n in cut.ids)
            if not cut.weights:
                weights = make(aten.full_like.default, ids, 1, dtype=rows.meta["val"].dtype)
            elif len(cut.weights) > 1:
                weights = make(aten.cat.default, [
                    make(aten.view.default, n, [-1, 1]) for n in cut.weights], 1)
            else:
                is_dense = size_of(cut.weights[0], tokens) != total or cut.elsewhere
                weights = make(aten.view.default, cut.weights[0],
                               [-1, cut.experts if is_dense else total])
                if is_dense:
                    weights = make(aten.gather.default, weights, 1, ids)
            if mask is not None:  # the number of experts is the id of others
                ids = make(aten.where.ScalarOther, _kept_of(make, mask, ids, cut), ids, cut.experts)
            columns = function.columns
            matrix = rows
            if rank_of(rows) != 2:
                matrix = make(aten.view.default, rows, [-1, extents_of(rows.meta["val"])[-1]])
            call = graph.call_function(operation, (matrix, ids, weights, key))
            call.meta["val"] = matrix.meta["val"].new_empty((matrix.meta["val"].shape[0], columns))
            if call.meta["val"].dtype != like.dtype:
                call = make(aten._to_copy.default, call, dtype=like.dtype)
            if extents_of(like) != extents_of(call.meta["val"]):
                shape = [e if isinstance(e, int) else -1 for e in extents_of(like)]
                call = make(aten.view.default, call, shape)
                call.meta["val"] = like
    node.replace_all_uses_with(call)
    graph.eliminate_dead_code()
    graph.lint()
    return {key: module}


def _kept_of(make: Any, mask: _Mask, ids: Node, cut: Cut) -> Node:
    """Return which choices [T, K] are kept."""
    width = cut.experts if mask.by_expert else sum(choices_of(n) for n in cut.ids)
    shape = [width, -1] if mask.transposed else [-1, width]
    value = make(aten.reshape.default, mask.node, shape)
    if mask.transposed:
        value = make(aten.permute.default, value, [1, 0])
    if mask.by_expert:
        value = make(aten.gather.default, value, 1, ids)
    return make(aten.ne.Scalar, value, 0)
