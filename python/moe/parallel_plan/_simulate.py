"""How the exchanges of a layer scale with the number of ranks, by constants of links."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._error import INVALID_ARGUMENT, MoEError
from ._layer import LayerShape, default_table
from ._links import Links
from ._placement import shares
from ._plan import Direction, Plan, _traffic, make_plan
from ._routing import Routing

__all__ = ["Scale", "plot", "report", "simulate"]


@dataclass(frozen=True)
class Scale:
    """What is simulated for a number of ranks."""

    plan: Plan
    times: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the numbers of the busiest rank."""
        plan = self.plan
        return {"ranks": plan.ranks, "slots": plan.table.shape[1],
                "rows_received": float(plan.received.max()),
                "rows_computed": float(plan.computed.max()),
                "bytes": {way: {link: getattr(plan, way).most(link) for link in
                                ("node", "network")} for way in ("out", "home")},
                "seconds": self.times}


def simulate(layer: Callable[[int], LayerShape], sizes: Sequence[int], routing: Routing,
             tokens: int, links: Links, *, node_size: int = 8, out: str = "rank",
             home: str | None = None) -> list[Scale]:
    """Return the plan and its times for numbers of ranks, ``tokens`` on each.

    ``layer`` gives the layer for a number of slots. Where there are more ranks than experts, each
    expert has copies, which the runtime does not take; loads are then uniform.
    """
    found = []
    for ranks in sizes:
        if ranks < 1:
            raise MoEError(INVALID_ARGUMENT, f"expected at least 1 rank, got {ranks}")
        of_node = min(node_size, ranks)
        if ranks % of_node:
            raise MoEError(INVALID_ARGUMENT, f"{ranks} ranks in nodes of {of_node}, expected a "
                           "multiple")
        shape = layer(-(-routing.experts // ranks))
        if ranks <= routing.experts:
            plan = make_plan(shape, ranks, routing, tokens, node_size=of_node, links=links,
                             out=out, home=home, with_memory=False)
        else:
            plan = _plan_of_copies(shape, ranks, routing, tokens, of_node, links, out, home)
        found.append(Scale(plan, plan.seconds()))
    return found


def _plan_of_copies(layer: LayerShape, ranks: int, routing: Routing, tokens: int, node_size: int,
                    links: Links, out: str, home: str | None) -> Plan:
    """A plan in which all ranks are like the first one."""
    if not routing.is_uniform or ranks % routing.experts:
        raise MoEError(INVALID_ARGUMENT, f"expected at most a rank for each of {routing.experts} "
                       "experts, or a multiple of them and a uniform load, got "
                       f"{ranks} ranks and {routing.name}")
    home = home or layer.home_rows
    table = default_table(routing.experts, ranks, 1)
    of_one = shares(routing, table, node_size, [0])
    one = make_plan(layer, routing.experts, routing, tokens, node_size=node_size, links=links,
                    out=out, home=home, with_memory=False)

    def sent(rows: str, size: float) -> Direction:
        # Of the first rank; the others send, and therefore all receive, as much.
        found = _traffic(rows, of_one, np.full(ranks, float(tokens)), node_size, size)
        within, across = found.node_sent[:1], found.network_sent[:1]
        return Direction(within, within, across, across)

    hits = of_one.choices if out == "choice" else of_one.hits
    return replace(one, table=table, received=hits.sum(1) * tokens,
                   computed=of_one.choices.sum(1) * tokens, bound=ranks * tokens, tail=0,
                   out=sent(out, layer.token_bytes), home=sent(home, layer.choice_bytes),
                   is_exact=of_one.is_exact, pairs=None)


def report(scales: Sequence[Scale], links: Links) -> str:
    """Return a table of what was simulated."""
    has_compute = any("layer" in scale.times for scale in scales)
    head = (f"{'ranks':>6} {'slots':>5} {'rows received':>13} {'out':>10} {'home':>10}"
            + (f" {'compute':>10} {'layer':>10} {'overlapped':>10}" if has_compute else ""))
    lines = [f"simulated, times in us ({links.name})", head]
    for scale in scales:
        times, plan = scale.times, scale.plan
        numbers = [max(times[way].values()) for way in ("out", "home")]
        if has_compute:
            numbers += [times[name] for name in ("compute", "layer", "overlapped")]
        lines.append(f"{plan.ranks:>6} {plan.table.shape[1]:>5} {plan.received.max():>13.1f} "
                     + " ".join(f"{seconds * 1e6:>10.1f}" for seconds in numbers))
    return "\n".join(lines)


def plot(scales: dict[str, Sequence[Scale]], path: str | os.PathLike[str]) -> None:
    """Draw simulated times over numbers of ranks, a panel for each name."""
    try:
        import matplotlib
    except ImportError:
        raise MoEError(INVALID_ARGUMENT, "a picture needs the package matplotlib") from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(scales), figsize=(5 * len(scales) + 1.5, 4), squeeze=False,
                                layout="constrained")
    for axis, (name, found) in zip(axes[0], scales.items()):
        ranks = [scale.plan.ranks for scale in found]
        for label, color, get in (
                ("out", "tab:blue", lambda t: max(t["out"].values())),
                ("home", "tab:orange", lambda t: max(t["home"].values())),
                ("compute", "tab:green", lambda t: t.get("compute")),
                ("layer", "black", lambda t: t.get("layer")),
                ("layer, overlapped", "gray", lambda t: t.get("overlapped"))):
            times = [get(scale.times) for scale in found]
            if all(each is not None for each in times):
                axis.plot(ranks, [each * 1e6 for each in times], "o-", color=color, label=label)
        axis.set(xscale="log", yscale="log", xlabel="ranks", ylabel="µs a call (simulated)",
                 title=name)
        axis.set_xscale("log", base=2)
        axis.set_xticks(ranks, [str(each) for each in ranks], rotation=45)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle("Simulated, not measured: alpha + bytes / beta on the slower link")
    try:
        figure.savefig(path, dpi=90)
    except (OSError, ValueError) as error:
        raise MoEError(INVALID_ARGUMENT, f"'{os.fspath(path)}': {error}") from error
    finally:
        plt.close(figure)
