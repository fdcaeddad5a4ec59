"""``moe.place``, ``moe.partition`` and ``moe.collect`` in numpy, a part of ``moe.reference``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["collect", "partition", "place"]


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
