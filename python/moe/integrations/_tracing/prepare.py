"""Makes programs of ``torch.export`` graphs that ``moe.from_torch`` reads."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch

from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._experts.choices import packet_of
from .._graph.function import argument, extents_of

__all__ = ["prepare"]

aten = torch.ops.aten


def _viewed(node: torch.fx.Node) -> torch.fx.Node | None:
    """Return the tensor that views of views are again, as writes in place leave them, or that a
    slice is all of, or one expansion."""
    whole = packet_of(node) is aten.expand or (
        packet_of(node) is aten.slice and argument(node, "step", 1) == 1)
    if whole and extents_of(node.meta["val"]) == extents_of(node.args[0].meta["val"]):
        return node.args[0]
    source = node
    while getattr(source.target, "overloadpacket", None) in (aten.view, aten._unsafe_view):
        source = source.args[0]
        if extents_of(source.meta["val"]) == extents_of(node.meta["val"]):
            return source
    return None


@functools.cache
def _decompositions() -> dict[Any, Any]:
    """Return what operations are decomposed; torch takes a while to list it."""
    keep = {aten.linear.default, aten.silu.default, aten.softplus.default}
    return {op: rule for op, rule in torch.export.default_decompositions().items()
            if op not in keep}


def prepare(program: torch.export.ExportedProgram, name: str) -> (
        tuple[torch.fx.Graph, dict[torch.fx.Node, tuple[str, torch.Tensor]], torch.fx.Node]):
    """Return the graph of a program, its placeholders of tensors with their names, and that of
    its rows."""
    try:
        program = program.run_decompositions(dict(_decompositions()))
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        raise MoEError(UNIMPLEMENTED, f"{name} cannot be exported: {reason}") from error
    graph, signature = program.graph_module.graph, program.graph_signature
    # The runtime reports ids that are no expert's.
    for node in reversed(graph.nodes):
        if str(node.target).startswith(("aten._assert", "aten.sym_constrain_range")):
            graph.erase_node(node)
    for node in list(graph.nodes):
        if (same := _viewed(node)) is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    for node in list(graph.nodes):
        if (one := _selected(node)) is not None:
            _select(graph, node, *one)
        elif packet_of(node) is aten.sort:
            _choose(graph, node)
    graph.eliminate_dead_code()
    if written := {**signature.buffers_to_mutate, **signature.user_inputs_to_mutate}:
        raise MoEError(UNIMPLEMENTED, f"{name} writes to {next(iter(written.values()))}, expected "
                       "a function of its rows")
    tensors = {**dict(program.named_parameters()), **dict(program.named_buffers()),
               **program.constants}
    sources = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
               **signature.inputs_to_lifted_tensor_constants}
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    inputs = [n for n in placeholders if n.name not in sources]
    if len(inputs) != 1:
        raise MoEError(UNIMPLEMENTED, f"{name} takes {len(inputs)} tensors, expected one: its rows")
    rows = inputs[0].meta["val"]
    extents = [e for e in extents_of(rows) if e != 1]
    if len(extents) != 2 or not isinstance(extents[1], int):
        raise MoEError(INVALID_ARGUMENT, f"{name} takes {tuple(rows.shape)}, expected [T, H]")
    graph.lint()
    named = {n: (sources[n.name].removeprefix("module."), tensors[sources[n.name]])
             for n in placeholders if n.name in sources}
    for node, (name, tensor) in named.items():
        if (shape := _shape_of(node)) is not None:
            named[node] = name, tensor.detach().view(shape)
    return graph, named, inputs[0]


def _selected(node: torch.fx.Node) -> tuple[torch.fx.Node, int, int] | None:
    """Return a tensor, a dimension and an index: the part of a weight that ``node`` cuts out."""
    if node.target is operator.getitem and packet_of(node.args[0]) in (
            aten.split, aten.split_with_sizes):
        source, sizes = node.args[0].args[:2]
        sizes = [sizes] if isinstance(sizes, int) else sizes
        if all(size == 1 for size in sizes) and _is_weight(source):
            return source, argument(node.args[0], "dim", 0), node.args[1]
    return None


def _select(graph: torch.fx.Graph, node: torch.fx.Node, source: torch.fx.Node, dim: int,
            index: int) -> None:
    with graph.inserting_before(node):
        one = graph.call_function(aten.select.int, (source, dim, index))
        one.meta["val"] = source.meta["val"].select(dim, index)
        same = graph.call_function(aten.unsqueeze.default, (one, dim))
        same.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(same)


def _is_weight(node: torch.fx.Node) -> bool:
    while packet_of(node) in (aten.view, aten.detach, aten.alias):
        node = node.args[0]
    return node.op == "placeholder"


def _choose(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """Make a top-k of a sort; of as many as are used, if these are the first."""
    scores = node.args[0].meta["val"]
    last, columns = (-1, scores.ndim - 1), scores.shape[-1]
    if argument(node, "dim", -1) not in last or not argument(node, "descending", False) or (
            not scores.is_floating_point() or not isinstance(columns, int)):
        return

    def end_of(cut: torch.fx.Node) -> Any:
        first = packet_of(cut) is aten.slice and argument(cut, "dim", 0) in last and (
            argument(cut, "start", 0) in (0, None) and argument(cut, "step", 1) == 1)
        return argument(cut, "end", None) if first else None

    parts = list(node.users)
    cuts = [(cut, part.args[1]) for part in parts for cut in part.users]
    ends = {end_of(cut) for cut, _ in cuts}
    count = next(iter(ends)) if len(ends) == 1 else None
    if not isinstance(count, int) or not 0 < count <= columns:
        count, cuts = columns, [(part, part.args[1]) for part in parts]
    with graph.inserting_before(node):
        chosen = graph.call_function(aten.topk.default, (node.args[0], count))
        chosen.meta["val"] = tuple(v[..., :count] for v in node.meta["val"])
        new = [graph.call_function(operator.getitem, (chosen, i)) for i in (0, 1)]
        for one, value in zip(new, chosen.meta["val"]):
            one.meta["val"] = value
    for cut, which in cuts:
        cut.replace_all_uses_with(new[which])


def _shape_of(node: torch.fx.Node) -> tuple[int, ...] | None:
    """Have a weight ``[E * M, N]`` that is used as ``[E, M, N]`` alone be that; returns it."""
    value, users = node.meta["val"], list(node.users)
    if value.ndim != 2 or not users or any(packet_of(u) not in (aten.view, aten.reshape)
                                           for u in users):
        return None
    shapes = {extents_of(user.meta["val"]) for user in users}
    shape = next(iter(shapes))
    if len(shapes) != 1 or len(shape) != 3:
        return None
    node.meta["val"] = users[0].meta["val"]
    for user in users:
        user.replace_all_uses_with(node)
        node.graph.erase_node(user)
    return shape
