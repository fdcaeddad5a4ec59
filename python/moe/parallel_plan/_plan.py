"""What a call of a layer over several ranks moves, keeps and takes, before it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._error import INVALID_ARGUMENT, MoEError
from ._layer import LayerShape, Memory, default_table
from ._links import Links
from ._placement import Shares, check_size, check_table, shares
from ._routing import Routing, tail_rows

__all__ = ["Direction", "Plan", "make_plan"]

# The ranks tell one another 9 words before rows move; where rows are read, they also tell where
# three values lie (runtime/src/parallel/group.h).
AGREEMENT_BYTES = {"all_to_all": 72, "peer": 192}
# How many rows of a token travel: one for each choice, for each rank with some, or for each node
# with some, where it goes on to ranks inside.
ROWS = ("choice", "rank", "node")
MOST_CHUNKS = 16
# The part of all tokens from which on they need not be packed.
NEARLY_ALL = 0.99
MOST_PAIRS = 64  # of ranks that a report has pairs of


@dataclass(frozen=True)
class Direction:
    """Bytes of each rank in one direction, out to the experts or home: ``[N]`` each."""

    node_sent: np.ndarray
    node_received: np.ndarray
    network_sent: np.ndarray
    network_received: np.ndarray

    def most(self, link: str) -> float:
        """Return the bytes of the busiest rank over a link, ``node`` or ``network``."""
        return float(max(getattr(self, f"{link}_sent").max(),
                         getattr(self, f"{link}_received").max()))

    def seconds(self, links: Links, part: float = 1.0) -> dict[str, float]:
        """Return the time of each link, for a part of the bytes."""
        return {"node": links.node.seconds(self.most("node") * part),
                "network": links.network.seconds(self.most("network") * part)}


@dataclass(frozen=True)
class Plan:
    """The plan of a layer over ``ranks`` ranks, ``node_size`` of them a node.

    ``received`` are the rows that a rank receives on average and ``computed`` those that its
    experts compute, ``[N]``. With probability ``1 - delta`` no rank of all receives more than
    ``tail`` rows, if tokens are independent; none ever receives more than ``bound``.
    """

    layer: LayerShape
    routing: Routing
    table: np.ndarray
    node_size: int
    tokens: tuple[int, ...]
    delta: float
    received: np.ndarray
    computed: np.ndarray
    bound: int
    tail: int
    out: Direction
    home: Direction
    agreement_bytes: int
    gathered_bytes: int
    links: Links | None
    memory_limit: int
    memory: Memory | None
    memory_mean: Memory | None
    rounds: int | None
    rounds_mean: int | None
    is_exact: bool
    pairs: np.ndarray | None = field(repr=False)

    @property
    def ranks(self) -> int:
        """The number of ranks."""
        return len(self.table)

    def seconds(self) -> dict[str, Any]:
        """Return the times of both directions over each link, and those of the whole call.

        A direction takes as long as its slower link. ``compute`` is that of the fullest rank: the
        longer of its FLOP and of reading its experts. ``overlapped`` is the whole in ``chunks``
        of the tokens, as many as make it shortest, if the exchange of one runs under the compute
        of another.
        """
        links = self.links
        if links is None:
            return {}
        found: dict[str, Any] = {"out": self.out.seconds(links), "home": self.home.seconds(links)}
        exchange = max(found["out"].values()) + max(found["home"].values())
        found["exchange"] = exchange
        if links.flops is None or links.bandwidth is None or not self.layer.flops_per_row:
            return found

        def stages(chunks: int) -> tuple[float, float, float]:
            part = 1 / chunks
            reading = self.layer.expert_bytes * float((self.table >= 0).sum(1).max())
            compute = max(float(self.computed.max()) * part * self.layer.flops_per_row
                          / links.flops, reading / links.bandwidth)
            return (max(self.out.seconds(links, part).values()), compute,
                    max(self.home.seconds(links, part).values()))

        def overlapped(chunks: int) -> float:
            each = stages(chunks)
            return sum(each) + (chunks - 1) * max(each)

        found["compute"] = stages(1)[1]
        found["layer"] = exchange + found["compute"]
        found["chunks"] = min(range(1, MOST_CHUNKS + 1), key=overlapped)
        found["overlapped"] = overlapped(found["chunks"])
        return found

    def way(self) -> tuple[str, str]:
        """Return how rows should travel out, as ``Group(way=...)`` takes it, and why."""
        if self.ranks == 1:
            return "all_to_all", "one rank sends nothing"
        if self.node_size == self.ranks and not self.memory_limit:
            return "peer", "all ranks are on one machine, and no call runs in rounds"
        if self.memory_limit and (self.rounds is None or self.rounds > 1):
            return "all_to_all", "a call may run in rounds"
        everything = self._gathered()
        if self.links is None:
            part = (self.out.node_sent + self.out.network_sent).sum() / max(
                (everything.node_sent + everything.network_sent).sum(), 1e-300)
            return (("all_gather", f"{part:.1%} of all tokens go to each other rank: packing them "
                     "saves no bytes") if part >= NEARLY_ALL else
                    ("all_to_all", f"{part:.1%} of all tokens go to each other rank"))
        packed, whole = self._way_seconds(self.out), max(everything.seconds(self.links).values())
        words = (f"{packed * 1e6:.1f} us, those of all tokens unpacked {whole * 1e6:.1f} us")
        return ("all_gather" if whole < packed else "all_to_all"), f"packed rows take {words}"

    def _gathered(self) -> Direction:
        """The bytes out, if all tokens go to all ranks."""
        count, size = self.ranks, self.layer.token_bytes
        tokens, others = np.array(self.tokens, np.float64), self.node_size - 1
        node = np.arange(count) // self.node_size
        in_node = np.add.reduceat(tokens, np.arange(0, count, self.node_size))[node]
        return Direction(tokens * others * size, (in_node - tokens) * size,
                         tokens * (count - self.node_size) * size, (tokens.sum() - in_node) * size)

    def _way_seconds(self, out: Direction) -> float:
        """The time of packed rows: a row is read and written before it leaves."""
        links = self.links
        packing = 0.0
        if links is not None and links.bandwidth is not None:
            packing = 2 * float((out.node_sent + out.network_sent).max()) / links.bandwidth
        return packing + (max(out.seconds(links).values()) if links is not None else 0.0)

    # ---------------------------------------------------------------------
    # Reports
    # ---------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON has it."""
        def numbers(values: np.ndarray) -> list[Any]:
            return [round(each, 3) for each in values.astype(float).tolist()]

        def direction(each: Direction, row_bytes: int) -> dict[str, Any]:
            return {"row_bytes": row_bytes,
                    **{link: {"sent": numbers(getattr(each, f"{link}_sent")),
                              "received": numbers(getattr(each, f"{link}_received"))}
                       for link in ("node", "network")}}

        found: dict[str, Any] = {
            "format": 1, "layer": self.layer.name, "experts": self.layer.experts,
            "top_k": self.layer.top_k, "ranks": self.ranks, "ranks_per_node": self.node_size,
            "slots": self.table.shape[1], "load": self.routing.name,
            "tokens": list(self.tokens), "delta": self.delta,
            "method": "exact" if self.is_exact else "copies taken as independent",
            "rows_received": {"bound": self.bound, "tail": self.tail,
                              "mean": numbers(self.received)},
            "rows_computed": {"mean": numbers(self.computed),
                              "fullest_over_mean": self.imbalance},
            "out": direction(self.out, self.layer.token_bytes),
            "home": direction(self.home, self.layer.choice_bytes),
            "way": dict(zip(("name", "reason"), self.way())),
            "agreement_bytes": self.agreement_bytes, "gathered_bytes": self.gathered_bytes}
        if self.pairs is not None:
            found["rows_sent_by_pair"] = [numbers(row) for row in self.pairs]
        if self.memory is not None:
            found["memory"] = {name: {**vars(memory), "call": memory.call} for name, memory in
                               (("bound", self.memory), ("mean", self.memory_mean))}
        if self.memory_limit:
            found["rounds"] = {"limit": self.memory_limit, "bound": self.rounds,
                               "mean": self.rounds_mean}
        if self.links is not None:
            found["seconds"] = {"links": self.links.name, **self.seconds()}
        return found

    @property
    def imbalance(self) -> float:
        """The rows that the fullest rank computes over the mean."""
        mean = float(self.computed.mean())
        return float(self.computed.max()) / mean if mean else 1.0

    def __str__(self) -> str:
        layer, least, most = self.layer, min(self.tokens), max(self.tokens)
        lines = [
            f"{layer.name}: {layer.experts} experts, top {layer.top_k}, {self.ranks} ranks"
            + (f" in {-(-self.ranks // self.node_size)} nodes" if self.node_size > 1 else "")
            + f", {self.table.shape[1]} slots a rank, {self.routing.name}",
            f"  tokens a rank        {least}" + (f" to {most}" if most != least else ""),
            f"  rows received        {_range(self.received)} on average, {self.tail} with "
            f"probability {self.delta:g}, never more than {self.bound}",
            f"  rows computed        {_range(self.computed)} on average, fullest over mean "
            f"{self.imbalance:.3f}"]
        if not self.is_exact:
            lines.append("                       copies are taken as independent of one another")
        for name, each, row in (("out", self.out, layer.token_bytes),
                                ("home", self.home, layer.choice_bytes)):
            for link in ("node", "network"):
                sent, got = (getattr(each, f"{link}_{way}") for way in ("sent", "received"))
                if link == "network" and self.node_size >= self.ranks and not sent.any():
                    continue
                if link == "node" and self.node_size == 1:
                    continue
                lines.append(f"  {name + ', ' + link:<20} sends {_size(sent.max())}, receives "
                             f"{_size(got.max())} at most, rows of {row} bytes")
        lines.append("  way                  {}: {}".format(*self.way()))
        lines.append(f"  agreement            {_size(self.agreement_bytes)} to all others"
                     + (f", gathered {_size(self.gathered_bytes)}" if self.gathered_bytes else ""))
        if self.memory is not None:
            for name, memory in (("bound", self.memory), ("average", self.memory_mean)):
                lines.append(f"  memory, {name:<12} weights {_size(memory.weights)}, received "
                             f"{_size(memory.received)}, packed {_size(memory.packed)}, home "
                             f"{_size(memory.home + memory.gathered)}, workspace "
                             + ("unknown" if memory.workspace is None
                                else _size(memory.workspace)))
        if self.memory_limit:
            words = [f"{each}" if each else "no number suffices" for each in
                     (self.rounds, self.rounds_mean)]
            lines.append(f"  rounds               {words[0]} at the bound, {words[1]} on average, "
                         f"in {_size(self.memory_limit)}")
        times = self.seconds()
        if times:
            lines.append(f"  time ({self.links.name})")
            for way in ("out", "home"):
                lines.append(f"    {way:<18} " + ", ".join(
                    f"{link} {seconds * 1e6:.1f} us" for link, seconds in times[way].items()))
            if "compute" in times:
                lines.append(f"    {'compute':<18} {times['compute'] * 1e6:.1f} us")
                lines.append(f"    {'layer':<18} {times['layer'] * 1e6:.1f} us, in "
                             f"{times['chunks']} overlapped chunks "
                             f"{times['overlapped'] * 1e6:.1f} us")
        return "\n".join(lines)


def _range(values: np.ndarray) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{low:.1f}" if high - low < 0.05 else f"{low:.1f} to {high:.1f}"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""


# --------------------------------------------------------------------------
# Making one
# --------------------------------------------------------------------------


def _traffic(rows: str, found: Shares, tokens: np.ndarray, node_size: int,
             size: float) -> Direction:
    """The bytes out, if a token sends so many rows of ``size`` bytes."""
    count = found.hits.shape[1]
    node = np.arange(count) // node_size
    hits = found.choices if rows == "choice" else found.hits  # [sources, ranks]
    in_node = np.add.reduceat(tokens, np.arange(0, count, node_size))[node]
    if len(hits) == 1:
        # All ranks send alike, but for their number of tokens.
        to = hits[0]
        to_node = np.add.reduceat(to, np.arange(0, count, node_size))[node]
        within = tokens * (to_node - to), (in_node - tokens) * to
        across = tokens * (to.sum() - to_node), (tokens.sum() - in_node) * to
        nodes = tokens[:, None] * found.nodes if rows == "node" else None
    else:
        pairs = hits * tokens[:, None]
        is_same = node[:, None] == node[None]
        inside = np.where(is_same & ~np.eye(count, dtype=bool), pairs, 0.0)
        outside = np.where(is_same, 0.0, pairs)
        within, across = (inside.sum(1), inside.sum(0)), (outside.sum(1), outside.sum(0))
        nodes = tokens[:, None] * found.nodes if rows == "node" else None
    if nodes is not None:
        # A row crosses to another node once, to one of its ranks in turn, and goes on inside.
        others = np.arange(nodes.shape[1])[None] != node[:, None]
        crossing = np.where(others, nodes, 0.0)
        arriving = crossing.sum(0)[node] / node_size
        forwarded = across[1] * (node_size - 1) / node_size
        mean = np.add.reduceat(forwarded, np.arange(0, count, node_size))[node] / node_size
        within = within[0] + mean, within[1] + forwarded
        across = crossing.sum(1), arriving
    return Direction(*(each * size for each in (*within, *across)))


def make_plan(layer: LayerShape, ranks: int, routing: Routing, tokens: int | Sequence[int], *,
              node_size: int = 1, table: np.ndarray | None = None, links: Links | None = None,
              memory_limit: int = 0, delta: float = 1e-6, out: str = "rank",
              home: str | None = None, with_memory: bool = True) -> Plan:
    """Return the plan of a layer.

    Args:
      layer: what is known of the layer.
      ranks: the number of ranks.
      routing: how tokens choose experts.
      tokens: tokens of a rank, or of each rank.
      node_size: ranks of a node, between which ``links.node`` is used.
      table: the expert of each slot of each rank; by default neighbouring ones.
      links: constants for times.
      memory_limit: bytes that a call may use besides tensors and weights; more make rounds.
      delta: probability of more rows than ``tail`` on any rank.
      out: rows of a token on the way out: one a ``choice``, one a ``rank``, or one a ``node``.
      home: the same on the way home; by default that of the layer. The runtime sends one a rank
        out, and a choice home, or with ``reduce=per_rank`` one a rank.
      with_memory: also the memory and the rounds, which take as long as there are ranks.
    """
    if ranks < 1 or node_size < 1:
        raise MoEError(INVALID_ARGUMENT, f"expected at least 1 rank, got {ranks} in nodes of "
                       f"{node_size}")
    if ranks % node_size:
        raise MoEError(INVALID_ARGUMENT, f"{ranks} ranks in nodes of {node_size}, expected a "
                       "multiple")
    home = home or layer.home_rows
    if out not in ROWS or home not in ROWS:
        raise MoEError(INVALID_ARGUMENT, f"expected rows a {', '.join(ROWS)}, got '{out}' out and "
                       f"'{home}' home")
    if not 0 < delta < 1:
        raise MoEError(INVALID_ARGUMENT, f"delta is {delta:g}, expected above 0 and below 1")
    if routing.experts != layer.experts or routing.top_k != layer.top_k:
        raise MoEError(INVALID_ARGUMENT, f"the load has {routing.experts} experts and top_k "
                       f"{routing.top_k}, expected {layer.experts} and {layer.top_k}")
    each = [tokens] * ranks if isinstance(tokens, int) else list(tokens)
    if len(each) != ranks or min(each) < 0:
        raise MoEError(INVALID_ARGUMENT, f"expected tokens of at least 0 for each of {ranks} "
                       f"ranks, got {len(each)} numbers from {min(each, default=0)}")
    check_size(layer.experts, ranks, layer.slots if table is None else np.shape(table)[1])
    if table is None:
        table = default_table(layer.experts, ranks, layer.slots)
    else:
        check_table(table, layer.experts, ranks)

    found = shares(routing, table, node_size)
    counts = np.array(each, np.float64)
    received, computed = ((of * counts[:, None] if len(of) > 1 else of * counts.sum()).sum(0)
                          for of in (found.hits, found.choices))
    everyone = sum(each)
    # Where each choice has a row, a token may bring as many as the rank has experts.
    most = min(layer.top_k, int((table >= 0).sum(1).max())) if out == "choice" else 1
    highest = min(float(received.max()) / everyone, 1.0) if everyone else 0.0
    tail = min(tail_rows(everyone, highest, delta / ranks), everyone) * most
    memory = memory_mean = rounds = rounds_mean = None
    # As Plan.way says.
    way = "peer" if node_size == ranks > 1 and not memory_limit else "all_to_all"
    if with_memory:
        memory, memory_mean, rounds, rounds_mean = _memory(layer, each, found, memory_limit, way)
    back = _traffic(home, found, counts, node_size, layer.choice_bytes)
    pairs = (found.choices if out == "choice" else found.hits) * counts[:, None]
    return Plan(
        layer, routing, table, node_size, tuple(each), delta,
        computed if out == "choice" else received, computed, everyone * most, tail,
        _traffic(out, found, counts, node_size, layer.token_bytes),
        Direction(back.node_received, back.node_sent, back.network_received, back.network_sent),
        AGREEMENT_BYTES[way] * (ranks - 1),
        layer.gathered_bytes * max(each, default=0) * (ranks - 1),
        links, memory_limit, memory, memory_mean, rounds, rounds_mean, found.is_exact,
        pairs if ranks <= MOST_PAIRS else None)


def _memory(layer: LayerShape, tokens: list[int], found: Shares, limit: int,
            way: str) -> tuple[Memory, Memory, int | None, int | None]:
    """Memory and rounds at the bound and on average, of a rank that has the most tokens and
    receives the most rows."""
    everyone, rank = sum(tokens), int(np.argmax(tokens))
    alike = len(found.hits) == 1
    sent = [math.ceil(tokens[rank] * hit) for hit in found.hits[0 if alike else rank]]
    received = found.hits.sum(0) if alike else np.array(tokens) @ found.hits
    hits = np.broadcast_to(found.hits[:, received.argmax()], (len(tokens),))
    got = [math.ceil(count * hit) for count, hit in zip(tokens, hits)]
    # A token goes to top_k ranks at most.
    most = [tokens[rank]] * min(len(tokens), layer.top_k)
    bound = layer.memory(tokens[rank], everyone, sum(most), everyone, way)
    mean = layer.memory(tokens[rank], everyone, sum(sent), sum(got), way)
    if not limit:
        return bound, mean, 1, 1
    return (bound, mean, layer.rounds(tokens, rank, most, tokens, limit),
            layer.rounds(tokens, rank, sent, got, limit))
