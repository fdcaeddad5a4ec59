"""Recognises slices of sorted choices between counts that Python read; see ``_tracing.reads``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._tracing import numbers  # noqa: F401  (registers the operations)

__all__ = ["SLICES"]

Node = torch.fx.Node

_SORTED = ("sorted",)


def _expert_of(search: Any, sources: list[Node], start: list[int], end: list[int]) -> Any:
    """Return which expert's rows are between two sums of counts."""
    found = search.is_(sources[0], "counts") if len(sources) == 1 else None
    number = sum(start)
    ones = [1] * number + [0] * (len(start) - number)
    if found is None or number >= len(start) - 1 or start != ones or (
            end != [1] * (number + 1) + ones[number + 1:]):
        return None
    return found, number


def _rows_between(search: Any, node: Node) -> Any:
    rows, sources, start, end = node.args[:4]
    found = _expert_of(search, sources, start, end)
    of = search.is_(rows, "grouped", "tokens", "order", "sorted weights")
    if found is None or of is None or of.ids is not found[0].ids:
        return None
    make, number = type(of), found[1]
    if of.kind == "grouped":
        if of.of is not None:
            return None
        search.part(node, of.ids, "part")
        return make("part", of.ids, rows, number, layout=_SORTED)
    kind = {"tokens": "token", "order": "choice place", "sorted weights": "part weights"}[of.kind]
    return make(kind, of.ids, of.of, number, layout=_SORTED)


def _joined(search: Any, node: Node) -> Any:
    """The results of the parts, in their order."""
    parts = [search.is_(part, "part", "weighted part") for part in node.args[0]]
    return None if None in parts else _whole(search, node, node.args[0], parts)


def _whole(search: Any, node: Node, nodes: list[Node], parts: list[Any]) -> Any:
    first = parts[0]
    if len(parts) != search.region(first.ids).experts or any(
            (part.ids, part.of, part.layout, part.number) != (first.ids, first.of, _SORTED, i)
            for i, part in enumerate(parts)):
        return None
    results = []
    for rows, part in zip(nodes, parts):
        while (source := rows.meta.get("moe.rows")) is not None:
            rows = source
        search.of_part(rows, search.known[rows])
        results.append(rows)
    node.meta["moe.parts"] = results
    found = search.part(node, first.ids, "parts")
    if first.kind == "weighted part":
        return type(found)("grouped", first.ids, first.of)
    return found


def _put_between(search: Any, node: Node) -> Any:
    """The results of the parts, each in its place."""
    into, sources, start, end, rows = node.args
    found, part = _expert_of(search, sources, start, end), search.is_(rows, "part",
                                                                      "weighted part")
    if found is None or part is None or found[0].ids is not part.ids or found[1] != part.number:
        return None
    # What was there before does not matter, as all of it is replaced.
    before = into.meta["moe.placed"] if search.is_(into, "placed") else {}
    node.meta["moe.placed"] = placed = {**before, part.number: (rows, part)}
    if len(placed) == search.region(part.ids).experts:
        nodes, parts = zip(*(placed[n] for n in sorted(placed)))
        return _whole(search, node, list(nodes), list(parts))
    return type(part)("placed", part.ids)


def _copy(search: Any, node: Node) -> Any:
    """What a write in place leaves."""
    found = search.known.get(node.args[1])
    if found is None or found.kind not in ("placed", "grouped"):
        return None
    node.meta.update({k: v for k, v in node.args[1].meta.items() if k.startswith("moe.placed")})
    if found.kind == "grouped":
        node.meta["moe.rows"] = node.args[1]
    return found


SLICES: dict[Any, Callable[[Any, Node], Any]] = {
    torch.ops.moe_mlir.rows_between: _rows_between, torch.ops.moe_mlir.joined: _joined,
    torch.ops.moe_mlir.put_between: _put_between, torch.ops.aten.copy: _copy,
}
