"""Operations of expert parallelism in numpy, a part of ``moe.reference``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["all_gather", "collect", "exchange", "own_rows", "partition", "place"]


def place(ids: ArrayLike, placement: ArrayLike) -> NDArray[np.int32]:
    """``moe.place``: the slot of each choice ``[T, K]``, by the slots of each expert
    ``[E, R]``, -1 behind the last one."""
    ids, placement = np.asarray(ids), np.asarray(placement)
    slots = np.full(ids.shape, -1, np.int32)
    for t, k in np.ndindex(*ids.shape):
        if 0 <= ids[t, k] < len(placement):
            its = placement[ids[t, k]]
            its = its[its >= 0]
            if len(its):
                slots[t, k] = its[t % len(its)]
    return slots


def partition(slots: ArrayLike, *, num_slots: int, num_ranks: int) -> tuple[
        NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32],
        NDArray[np.int32]]:
    """``moe.partition``: the tokens that go to each rank.

    Args:
      slots: ``[T, K]``, ``rank * num_slots + local slot``, or -1.

    Returns:
      ``(tokens [T, K], local [T, K, K], send [num_ranks], home [T, K], returns
      [num_ranks])``.
    """
    slots = np.asarray(slots).astype(np.int64)
    tokens, top_k = slots.shape
    slots = np.where((slots >= 0) & (slots < num_slots * num_ranks), slots, -1)
    listed, local, home = [], [], np.full(slots.shape, -1, np.int32)
    send, returns = np.zeros(num_ranks, np.int32), np.zeros(num_ranks, np.int32)
    rows = 0
    for rank in range(num_ranks):
        here = (slots >= 0) & (slots // num_slots == rank)
        for t in np.flatnonzero(here.any(1)):
            listed.append(t)
            local.append(np.where(here[t], slots[t] % num_slots, -1))
            for k in np.flatnonzero(here[t]):
                home[t, k] = rows
                rows += 1
        send[rank], returns[rank] = here.any(1).sum(), here.sum()
    padded = np.full(tokens * top_k, -1, np.int32)
    padded[:len(listed)] = listed
    padded_local = np.full((tokens * top_k, top_k), -1, np.int32)
    padded_local[:len(listed)] = np.array(local).reshape(len(listed), top_k)
    return (padded.reshape(tokens, top_k), padded_local.reshape(tokens, top_k, top_k), send, home,
            returns)


def collect(positions: ArrayLike, received: ArrayLike) -> tuple[NDArray[np.int32],
                                                                NDArray[np.int32]]:
    """``moe.collect``: the rows that go home.

    Args:
      positions: ``[R, K]``, the rows of the choices of received tokens, or -1.
      received: how many of the tokens came from each rank.

    Returns:
      ``(order [R, K], returns [ranks])``.
    """
    positions, received = np.asarray(positions), np.asarray(received)
    sources = np.repeat(np.arange(len(received)), received)[:len(positions)]
    counted = (positions[:len(sources)] >= 0).sum(1)
    returns = np.bincount(sources, counted, minlength=len(received)).astype(np.int32)
    listed = positions[:len(sources)][positions[:len(sources)] >= 0]
    order = np.full(positions.size, -1, np.int32)
    order[:len(listed)] = listed
    return order.reshape(positions.shape), returns


def exchange(sources: Sequence[Sequence[ArrayLike]], send: Sequence[ArrayLike],
             gather: Sequence[ArrayLike | None] | None = None) -> tuple[
                 list[list[NDArray[Any]]], list[NDArray[np.int32]]]:
    """``moe.exchange`` of all ranks.

    Args:
      sources: of each rank, its sources; a row is the last dimension.
      send: of each rank, how many rows go to each.
      gather: of each rank, the rows of its first source that it sends, in their order, or None.

    Returns:
      ``(rows, received)``: of each rank, the rows ``[n, width]`` of each source, and how many came
      from each rank, with as many entries as ``send``.
    """
    size = len(sources)
    counts = [np.asarray(each)[:size] for each in send]
    ends = [np.cumsum(each) for each in counts]
    rows: list[list[NDArray[Any]]] = [[] for _ in range(size)]
    for i in range(len(sources[0])):
        listed = []
        for rank in range(size):
            source = np.asarray(sources[rank][i])
            source = source.reshape(-1, source.shape[-1])
            index = gather[rank] if gather is not None and i == 0 else None
            total = ends[rank][-1]
            listed.append(source[:total] if index is None
                          else source[np.asarray(index).ravel()[:total]])
        for rank in range(size):
            rows[rank].append(np.concatenate(
                [its[end[rank] - count[rank]:end[rank]]
                 for its, count, end in zip(listed, counts, ends)]))
    received = []
    for rank in range(size):
        received.append(np.zeros(len(np.asarray(send[rank])), np.int32))
        received[rank][:size] = [count[rank] for count in counts]
    return rows, received


def all_gather(sources: Sequence[ArrayLike]) -> list[NDArray[Any]]:
    """``moe.all_gather`` of all ranks: each has the rows of all, in their order."""
    whole = np.concatenate([np.asarray(each) for each in sources])
    return [whole.copy() for _ in sources]


def own_rows(whole: Sequence[ArrayLike], counts: Sequence[int]) -> list[NDArray[Any]]:
    """``moe.own_rows`` of all ranks, which have ``counts`` rows of what each has whole."""
    ends = np.cumsum(counts)
    return [np.asarray(each)[end - count:end] for each, count, end in zip(whole, counts, ends)]
