"""Compares a traced graph with the module that it was traced of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ..._error import UNIMPLEMENTED, MoEError
from .examples import call_once, first_of
from .unchanged import unchanged

__all__ = ["check_graph"]

Node = torch.fx.Node

# Of the largest result; operations round where those that they were decomposed into do not.
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class _Run(torch.fx.Interpreter):
    """Runs a graph whose experts are modules."""

    def __init__(self, graph: torch.fx.Graph, experts: Mapping[str, torch.nn.Module]):
        super().__init__(torch.fx.GraphModule(torch.nn.Module(), graph))
        self.experts = experts

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target is not torch.ops.moe_mlir.traced_experts.default:
            return super().call_function(target, args, kwargs)
        rows, ids, weights, key = args
        matrix = rows.reshape(-1, rows.shape[-1])
        experts = self.experts[key]
        run = experts.scaled if getattr(experts, "scales_rows", False) else experts
        result = run(matrix, ids, weights)
        return result.reshape(*rows.shape[:-1], result.shape[-1])


def check_graph(graph: torch.fx.Graph, tensors: Mapping[Node, tuple[str, torch.Tensor]],
                rows: Node, experts: Mapping[str, torch.nn.Module], module: torch.nn.Module,
                name: str, counts: Sequence[int], supposes: bool, text: str) -> None:
    """Check that a graph computes what ``module`` does, for one row, which traces leave out, and
    for so many rows as ``counts`` has, where ``text`` is not true.

    If the trace ``supposes`` something of the values, too, rows are compared that few experts or
    all of them get.
    """
    run = _Run(graph, experts)
    like = rows.meta["val"]
    if like.is_meta:
        return
    some = [((n, 1.0, 0.0),) for n in {1, *counts}]
    for x in _samples(like, [*some, *_SAMPLES] if supposes else some):
        tokens = x.numel() // x.shape[-1]
        with unchanged(module), torch.no_grad():
            try:
                expected = call_once(module, x)
            except MoEError:
                raise
            except Exception:  # noqa: BLE001 - it does not take so few rows, or so many
                if tokens in (1, *counts) or isinstance(module, torch.fx.GraphModule):
                    continue
                raise
            given = [x.clone() if node is rows else tensors[node][1].detach()
                     for node in graph.nodes if node.op == "placeholder"]
            try:
                actual = run.run(*given)
            except Exception as error:
                raise _differs(name, tokens, supposes, text) from error
        actual = first_of(actual)
        limit = _TOLERANCES[like.dtype] * float(expected.float().abs().nan_to_num().max())
        same = actual.numel() == expected.numel() and torch.allclose(
            actual.reshape(expected.shape).float(), expected.float(), 0.0, limit, equal_nan=True)
        if not same:
            raise _differs(name, tokens, supposes, text)


def _differs(name: str, tokens: int, supposes: bool, text: str) -> MoEError:
    what = "the number of tokens" + (f" ({text})" if text else "")
    if supposes:
        what = f"{what}, or on the values of a tensor" if text else "the values of a tensor"
    return MoEError(UNIMPLEMENTED, f"{name} cannot be exported: its operations depend on {what}, "
                    f"as {tokens} row{'s' if tokens > 1 else ''} show{'' if tokens > 1 else 's'}")


# Rows that few experts get, as many of one kind do, and rows that all of them get: numbers of
# tokens, with what random rows are multiplied with, and what is added. Each costs the module a
# call, and large experts take theirs.
_SAMPLES = (((2, 1.0, 0.0),), ((13, 0.0, 1.0),),
            ((24, 1.0, 0.0), (8, 4.0, 0.0), (17, 1.0, 3.0), (18, 1.0, -3.0)))


def _samples(like: torch.Tensor, kinds: Sequence[Sequence[tuple[int, float, float]]]) -> (
        Iterator[torch.Tensor]):
    draw = torch.Generator().manual_seed(0)
    columns = int(like.shape[-1])
    for parts in kinds:
        x = torch.cat([torch.randn(tokens, columns, generator=draw) * scale + shift
                       for tokens, scale, shift in parts])
        yield x.reshape(*[1] * (like.ndim - 2), *x.shape).to(like.device, like.dtype)
