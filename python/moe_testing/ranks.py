"""Several ranks as threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import moe.parallel
import numpy as np


def run(size: int, body: Callable[[moe.parallel.Communicator], Any]) -> list[Any]:
    """Call ``body`` with the communicator of each rank, all at once, and return the results.

    The first error of a rank is raised.
    """
    results: list[Any] = [None] * size
    errors: list[tuple[int, BaseException]] = []

    def run_rank(rank: int, communicator: moe.parallel.Communicator) -> None:
        try:
            results[rank] = body(communicator)
        except BaseException as error:  # noqa: BLE001 raised in the calling thread
            errors.append((rank, error))

    started = [threading.Thread(target=run_rank, args=(rank, communicator))
               for rank, communicator in enumerate(moe.parallel.threads(size))]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    if errors:
        raise min(errors, key=lambda each: each[0])[1]
    return results


def shares(random: np.random.Generator, tokens: int, size: int) -> list[int]:
    """How many of the tokens each rank has: uneven, and none for some."""
    if size == 1:
        return [tokens]
    weights = random.exponential(size=size) * (random.random(size) > 0.25)
    if not weights.any():
        weights[0] = 1
    return random.multinomial(tokens, weights / weights.sum()).tolist()


def split(arrays: dict[str, np.ndarray], counts: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """The rows of each rank."""
    ends = np.cumsum(counts)
    return [{name: array[end - count:end] for name, array in arrays.items()}
            for count, end in zip(counts, ends)]


def call(module: Callable[[moe.parallel.Group], moe.Module], weights: dict[str, np.ndarray],
         inputs: dict[str, np.ndarray], counts: Sequence[int], table: np.ndarray | None = None,
         **options: Any) -> list[np.ndarray]:
    """Run a layer on ranks with these counts of tokens; the outputs, whole."""
    parts = split(inputs, counts)

    def on_rank(communicator: moe.parallel.Communicator) -> Any:
        group = moe.parallel.Group(communicator, deadline=60, num_threads=1, **options)
        layer = module(group).layer(weights, table=table)
        result = layer(**parts[group.rank])
        return result if isinstance(result, tuple) else (result,)

    return [np.concatenate(each) for each in zip(*run(len(counts), on_rank))]
