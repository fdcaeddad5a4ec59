"""Runs of a graph with chosen experts, and the values in them that are sums over the choices."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from .cuts import Cut, choices_of, shape_of
from .interpreter import Interpreter
from .tables import Expression, Family, Tables

__all__ = ["Match", "Run", "run_with"]

Node = torch.fx.Node

# Choices of a token of which some may be dropped.
_MOST_DROPS = 6


@dataclass(frozen=True)
class Match:
    """A value [T, columns] that is the sum over the choices of a family."""

    node: Node
    expression: Expression


@dataclass
class Run:
    """A run with ``ids``: ``found`` has which choices [T, K] each match is the sum of."""

    interpreter: Interpreter
    ids: torch.Tensor
    found: dict[Match, torch.Tensor] = field(default_factory=dict)


def run_with(graph: torch.fx.Graph, rows: Node, cut: Cut, count: int, round_: int) -> Run:
    draw = torch.Generator().manual_seed(round_)
    tables = Tables(draw)
    shape = shape_of(rows.meta["val"], count)
    count = torch.Size(shape[:-1]).numel()
    x = tables.random(1, count, shape[-1])
    tables.add(Expression("rows"), x)
    ids = _draw_ids(cut, count, round_, draw)
    given = {rows: x.reshape(shape)}
    begin = 0
    for node in cut.ids:
        own = choices_of(node)
        part = ids[:, begin:begin + own]
        begin += own
        given[node] = part.reshape(shape_of(node.meta["val"], count)).to(node.meta["val"].dtype)
    run = Run(Interpreter(tables, cut.matrices, cut.experts, given), ids)
    weights = None
    if cut.weights:
        every = tables.random(cut.experts, count, 1)
        if not cut.elsewhere:
            chosen = torch.zeros(count, cut.experts, dtype=torch.bool).scatter_(1, ids, True)
            kept = _kept(graph, cut, given, ids, draw)
            if kept is not None:
                if bool((kept & ~chosen).any()):
                    return run  # weights of others, which are not given here
                chosen = kept
            every = torch.where(chosen.t()[:, :, None], every, torch.nan)
        tables.add(Expression("weights"), every)
        dense = every[:, :, 0].t()
        weights = dense.gather(1, ids).nan_to_num(0.0)
        parts = weights.split(1, 1) if len(cut.weights) > 1 else (weights,)
        for node, part in zip(cut.weights, parts):
            wanted = shape_of(node.meta["val"], count)
            if torch.Size(wanted).numel() == dense.numel() != part.numel() or cut.elsewhere:
                part = dense.nan_to_num(0.0)
            given[node] = part.reshape(wanted)
    terms: dict[Expression, torch.Tensor] = {}
    for node in graph.nodes:
        result = run.interpreter.run(node)
        if node in cut.behind and isinstance(result, torch.Tensor) and (
                result.is_floating_point()):
            for family in _families_of(tables, result, count):
                each = terms.get(family.expression)
                if each is None:
                    each = terms[family.expression] = _terms(family, ids, weights)
                kept = _summed(result.reshape(count, -1), each)
                if kept is not None:
                    run.found[Match(node, family.expression)] = kept
    return run


def _kept(graph: torch.fx.Graph, cut: Cut, given: Mapping[Node, torch.Tensor], ids: torch.Tensor,
          draw: torch.Generator) -> torch.Tensor | None:
    """Return for each token and expert whether a gate gives it a weight that is not 0 when these
    choices are given, None if that is not known: weights of those that it drops are 0."""
    plain, count = Interpreter(Tables(draw), cut.matrices, cut.experts, given), len(ids)
    for node in graph.nodes:
        plain.run(node)
        if all(n in plain.values for n in cut.weights):
            break
    values = [plain.values.get(node) for node in cut.weights]
    if any(not isinstance(v, torch.Tensor) for v in values):
        return None
    found = torch.cat([v.reshape(count, -1) for v in values], 1) != 0
    if found.shape == ids.shape:
        return torch.zeros(count, cut.experts, dtype=torch.bool).scatter_(1, ids, found)
    return found


def _families_of(tables: Tables, result: torch.Tensor, count: int) -> Iterator[Family]:
    columns = result.shape[-1] if result.ndim else 0
    if result.numel() != count * columns:
        return
    for family in tables.families.values():
        if family.by_expert and family.columns == columns and family.table.shape[1] == count and (
                family.expression.has_product):
            yield family


def _terms(family: Family, ids: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """What each choice of a token adds to its sum [T, K, columns]."""
    each = family.table[ids, torch.arange(ids.shape[0])[:, None]]
    if weights is not None and not family.expression.is_weighted:
        each = each * weights[:, :, None]
    return each


def _summed(result: torch.Tensor, terms: torch.Tensor) -> torch.Tensor | None:
    """Return which terms [T, K] a result [T, columns] is the sum of; None if it is of none."""
    tokens, count = terms.shape[:2]
    kept = torch.ones(tokens, count, dtype=torch.bool)
    todo = ~_is_same(result, terms.sum(1)).all(1)
    if not bool(todo.any()):
        return kept
    if count > _MOST_DROPS:
        return None
    # Fewer and fewer of them; a token may have lost all.
    for some in sorted(itertools.product((True, False), repeat=count), key=sum, reverse=True)[1:]:
        chosen = torch.tensor(some)
        same = todo & _is_same(result, terms[:, chosen].sum(1)).all(1)
        kept[same] = chosen
        todo &= ~same
        if not bool(todo.any()):
            return kept if bool(kept.any()) else None
    return None


def _is_same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a - b).abs() <= 1e-9 * (1 + b.abs())


def _draw_ids(cut: Cut, count: int, round_: int, draw: torch.Generator) -> torch.Tensor:
    """Different experts of a token: any of all, the first of all, or any of the last ones."""
    total = sum(choices_of(node) for node in cut.ids)
    scores = torch.rand(count, cut.experts, generator=draw)
    if round_ == 1:  # all tokens at the same experts
        scores = scores[:1].expand(count, -1)
    elif round_ == 2:  # none at the first ones
        scores[:, :max(0, min(cut.experts - total - 1, cut.experts // 2))] = -1
    return scores.argsort(1, descending=True)[:, :total]
