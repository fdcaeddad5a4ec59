"""Which rank holds which experts, and which copy of an expert a token takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._error import INVALID_ARGUMENT, MoEError
from ._routing import Routing

__all__ = ["Shares", "balance", "check_table", "place", "shares"]


def _error(message: str) -> MoEError:
    return MoEError(INVALID_ARGUMENT, message)


def check_table(table: np.ndarray, experts: int, ranks: int | None = None) -> None:
    """Raise an error unless a table has every expert, none twice on a rank."""
    if ranks is not None and len(table) != ranks:
        raise _error(f"the table has {len(table)} ranks, expected {ranks}")
    for rank, row in enumerate(table.tolist()):
        held = [expert for expert in row if expert != -1]
        for slot, expert in enumerate(row):
            if not -1 <= expert < experts:
                raise _error(f"the table has expert {expert} in slot {slot} of rank {rank}, "
                             f"expected 0 to {experts - 1} or -1")
        if len(set(held)) != len(held):
            twice = next(e for e in held if held.count(e) > 1)
            raise _error(f"the table has expert {twice} twice on rank {rank}, expected it once at "
                         "most")
    missing = np.setdiff1d(np.arange(experts), table)
    if len(missing):
        raise _error(f"the table has expert {missing[0]} on no rank, expected all {experts} "
                     "experts")


def check_size(experts: int, ranks: int, slots: int) -> None:
    """Raise an error unless the experts fit on the ranks."""
    if ranks < 1 or slots < 1:
        raise _error(f"expected at least 1 rank and 1 slot, got {ranks} and {slots}")
    if ranks > experts:
        raise _error(f"expected at most a rank for each of {experts} experts, got {ranks} ranks")
    if ranks * slots < experts:
        raise _error(f"{ranks} ranks with {slots} slots hold {ranks * slots} experts, expected "
                     f"at least {experts}")


def copies_of(load: np.ndarray, ranks: int, slots: int, replicas: int) -> np.ndarray:
    """Return how many ranks hold each expert: the largest share gets a copy until slots end."""
    copies = np.ones(len(load), np.int64)
    limit = min(ranks, replicas)
    for _ in range(ranks * slots - len(load)):
        share = np.where(copies < limit, load / copies, -1.0)
        expert = int(share.argmax())
        if share[expert] < 0:
            break
        copies[expert] += 1
    return copies


def place(load: np.ndarray, ranks: int, slots: int, replicas: int | None = None) -> np.ndarray:
    """Return a table ``[ranks, slots]`` for a load: −1 is an empty slot.

    Copies go to the experts with the largest share. Shares are placed longest first, each on the
    rank with the least load that has not the expert; then shares of the fullest rank are swapped
    with others while that helps. Where that leaves more than a thousandth, other numbers of copies
    are tried. An expert is on ``replicas`` ranks at most, and never twice on
    one.
    """
    load = np.asarray(load, np.float64)
    check_size(len(load), ranks, slots)
    if not np.isfinite(load).all() or (load < 0).any():
        raise _error("expected loads of at least 0")
    if replicas is not None and replicas < 1:
        raise _error(f"expected at least 1 replica, got {replicas}")
    limit = min(ranks, ranks if replicas is None else replicas)
    copies = copies_of(load, ranks, slots, limit)
    best = _place(load, copies, ranks, slots)
    fullest = balance(best, load) if load.any() else 1.0
    # No rank has less than a share of the largest expert on as many ranks as it may be.
    least = max(1.0, float(load.max()) / limit / (load.sum() / ranks)) if load.any() else 1.0
    for other in _other_copies(load, copies, limit):
        if fullest <= GOOD_BALANCE * least:
            break
        table = _place(load, other, ranks, slots)
        if (found := balance(table, load)) < fullest:
            best, fullest = table, found
    return best


# A placement is good enough if the fullest rank has so much of what it has at least; else some
# others are tried, in which one copy or two are of other experts.
GOOD_BALANCE = 1.001
MOST_TRIES = 80


def _other_copies(load: np.ndarray, copies: np.ndarray, limit: int) -> Iterator[np.ndarray]:
    """Copies of which some go from an expert to another one, the smallest changes first."""
    shares = load / copies
    givers = [e for e in np.argsort(load / np.maximum(copies - 1, 0.5)) if copies[e] > 1]
    takers = [e for e in np.argsort(-shares) if copies[e] < limit]
    ways = [(g, t) for g in givers[:16] for t in takers[:16] if g != t]
    ways.sort(key=lambda way: max(load[way[0]] / (copies[way[0]] - 1), shares[way[1]]))
    tries = 0
    for count in (1, 2):
        for chosen in itertools.combinations(ways, count):
            other = copies.copy()
            for giver, taker in chosen:
                other[giver] -= 1
                other[taker] += 1
            if other.min() < 1 or other.max() > limit:
                continue
            yield other
            tries += 1
            if tries == MOST_TRIES:
                return


def _place(load: np.ndarray, copies: np.ndarray, ranks: int, slots: int) -> np.ndarray:
    """Place copies: longest first, then swaps."""
    shares = load / copies
    order = sorted(range(len(load)), key=lambda expert: (-shares[expert], expert))
    table = np.full((ranks, slots), -1, np.int64)
    used = np.zeros(ranks, np.int64)
    sums = np.zeros(ranks)
    has = np.zeros((ranks, len(load)), bool)

    def put(rank: int, slot: int, expert: int) -> None:
        table[rank, slot] = expert
        has[rank, expert] = True
        sums[rank] += shares[expert]

    for expert in order:
        for _ in range(copies[expert]):
            free = np.flatnonzero((used < slots) & ~has[:, expert])
            if len(free):
                rank = int(free[sums[free].argmin()])
            else:
                # Those with a free slot hold the expert: one takes a share of a full rank.
                rank = int(np.flatnonzero(~has[:, expert])[0])
                other = int(np.flatnonzero(used < slots)[0])
                slot = next(s for s in range(slots) if not has[other, table[rank, s]])
                moved = table[rank, slot]
                has[rank, moved] = False
                sums[rank] -= shares[moved]
                put(other, used[other], moved)
                used[other] += 1
                put(rank, slot, expert)
                continue
            put(rank, used[rank], expert)
            used[rank] += 1
    _swap(table, shares, has, sums)
    ordered = np.sort(np.where(table < 0, np.iinfo(np.int64).max, table), axis=1)
    return np.where(ordered == np.iinfo(np.int64).max, -1, ordered).astype(np.int32)


def _swap(table: np.ndarray, shares: np.ndarray, has: np.ndarray, sums: np.ndarray) -> None:
    """Swap shares of the fullest rank with those of others while the fullest gets less."""
    values = np.append(shares, 0.0)[table]  # of an empty slot: the last
    for _ in range(64 * table.size):
        fullest = int(sums.argmax())
        mine = table[fullest]
        # [slot of the fullest, rank, slot of the rank]
        less = values[fullest][:, None, None] - values[None]
        highest = np.maximum(sums[fullest] - less, sums[None, :, None] + less)
        gain = sums[fullest] - highest
        gain[less <= 0] = -1
        gain[:, fullest] = -1
        # An expert is not twice on a rank afterwards.
        gain[has[:, mine].T & (mine >= 0)[:, None]] = -1
        theirs = has[fullest][table] & (table >= 0)
        gain[:, theirs] = -1
        best = int(gain.argmax())
        if gain.flat[best] <= 1e-12 * max(sums[fullest], 1e-300):
            return
        slot, rank, other = (int(i) for i in np.unravel_index(best, gain.shape))
        for place, index, expert in ((fullest, slot, table[rank, other]),
                                     (rank, other, table[fullest, slot])):
            old = table[place, index]
            if old >= 0:
                has[place, old] = False
                sums[place] -= shares[old]
        table[fullest, slot], table[rank, other] = table[rank, other], table[fullest, slot]
        for place, index in ((fullest, slot), (rank, other)):
            new = table[place, index]
            values[place, index] = shares[new] if new >= 0 else 0.0
            if new >= 0:
                has[place, new] = True
                sums[place] += shares[new]


def balance(table: np.ndarray, load: np.ndarray) -> float:
    """Return the load of the fullest rank over the mean; copies of an expert share evenly."""
    load = np.asarray(load, np.float64)
    held = table >= 0
    copies = np.bincount(table[held], minlength=len(load))
    shares = np.append(load / np.maximum(copies, 1), 0.0)
    return float(shares[table].sum(1).max() / (load.sum() / len(table)))


# --------------------------------------------------------------------------
# Who sends what to whom
# --------------------------------------------------------------------------


def targets(table: np.ndarray, experts: int, rank: int, node_size: int) -> list[list[int]]:
    """Return the ranks that a rank sends choices of each expert to, token by token in turn.

    As the runtime does it: to itself if it holds the expert, else within its node if one there
    does, else to all of them, rotated by the rank.
    """
    holders: list[list[int]] = [[] for _ in range(experts)]
    for holder, row in enumerate(table.tolist()):
        for expert in row:
            if expert >= 0:
                holders[expert].append(holder)
    chosen = []
    for ranks in holders:
        if node_size > 1:
            ranks = [r for r in ranks if r // node_size == rank // node_size] or ranks
        ranks = [rank] if rank in ranks else ranks
        first = rank % len(ranks)
        chosen.append(ranks[first:] + ranks[:first])
    return chosen


# Copies are taken in turn by the number of the token. Up to so many turns they are told apart.
MOST_TURNS = 60


@dataclass(frozen=True)
class Shares:
    """What a token of each rank sends to each rank, on average: ``[sources, ranks]``.

    ``hits`` is the probability of a choice there, ``choices`` the number of choices, and ``nodes``
    ``[sources, nodes]`` the probability of a choice in the node. With one source, all ranks
    are like it. ``is_exact`` is false where copies are taken for independent of each other.
    """

    hits: np.ndarray
    choices: np.ndarray
    nodes: np.ndarray
    is_exact: bool


def shares(routing: Routing, table: np.ndarray, node_size: int,
           sources: list[int] | None = None) -> Shares:
    """Return what the ranks of a table send to one another, or some ``sources`` of them."""
    ranks = len(table)
    copies = np.bincount(table[table >= 0], minlength=routing.experts)
    if sources is None:
        sources = list(range(ranks)) if copies.max() > 1 else [0]
    found = [_share_of(routing, table, node_size, source) for source in sources]
    return Shares(*(np.stack([each[i] for each in found]) for i in range(3)),
                  is_exact=all(each[3] for each in found))


def _share_of(routing: Routing, table: np.ndarray, node_size: int,
              source: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    ranks, experts = len(table), routing.experts
    nodes = -(-ranks // node_size)
    ways = targets(table, experts, source, node_size)
    if routing.ids is not None:
        return (*_count(routing.ids, ways, ranks, node_size), True)
    held = np.zeros((ranks, experts))
    for expert, way in enumerate(ways):
        held[way, expert] += 1 / len(way)
    choices = held @ routing.load
    turns = math.lcm(*{len(way) for way in ways})
    exact = turns <= MOST_TURNS
    hits, of_nodes = np.zeros(ranks), np.zeros(nodes)
    for turn in range(turns if exact else 1):
        if turns > 1 and exact:
            held = np.zeros((ranks, experts))
            held[[way[turn % len(way)] for way in ways], np.arange(experts)] = 1
        in_nodes = np.add.reduceat(held, np.arange(0, ranks, node_size), axis=0)
        both = routing.hit(np.concatenate([held, in_nodes]) if node_size > 1 else held)
        hits += both[:ranks]
        of_nodes += both[ranks:] if node_size > 1 else both
    count = turns if exact else 1
    return hits / count, choices, of_nodes / count, exact


def _count(ids: np.ndarray, ways: list[list[int]], ranks: int,
           node_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of recorded tokens, each counted."""
    tokens = len(ids)
    width = max(len(way) for way in ways)
    padded = np.array([way + [-1] * (width - len(way)) for way in ways])
    lengths = np.array([len(way) for way in ways])
    turn = np.arange(tokens)[:, None] % lengths[np.maximum(ids, 0)]
    to = np.where(ids >= 0, padded[np.maximum(ids, 0), turn], -1)
    choices = np.bincount(to[to >= 0], minlength=ranks) / tokens

    def reached(places: np.ndarray, count: int) -> np.ndarray:
        ordered = np.sort(places, axis=1)
        first = np.ones(ordered.shape, bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        return np.bincount(ordered[first & (ordered >= 0)], minlength=count) / tokens

    nodes = -(-ranks // node_size)
    return (reached(to, ranks), choices,
            reached(np.where(to >= 0, to // node_size, -1), nodes))
