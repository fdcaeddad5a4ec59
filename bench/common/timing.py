"""Interleaved measurement of participants; statistics of their times."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

# Shorter calls are repeated within a sample, after a warm-up call that is not timed: it wakes the
# participant's threads and loads its code, like the previous layer in a model.
SAMPLE_SECONDS = 0.02
MAX_ROUNDS = 15
# A call this long needs no warm-up: its first time is representative.
LONG_CALL = 2.0
# Each participant has at least this many rounds, or seconds of calls, even beyond the time limit.
LEAST_ROUNDS, LEAST_SECONDS = 5, 0.5
# A participant this many times slower than the fastest is outclassed: it has one call and no
# rounds, since its long calls would take the time of the others.
OUTCLASSED = 10.0


@dataclass(frozen=True)
class Summary:
    """Seconds per call; ``mad`` is the median absolute deviation from the median."""

    median: float
    mad: float
    q1: float
    q3: float
    minimum: float
    calls: int
    rounds: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def summarise(seconds: Sequence[float], rounds: int) -> Summary:
    if not len(seconds):
        raise ValueError("expected at least one time")
    times = np.asarray(seconds, np.float64)
    q1, median, q3 = np.percentile(times, (25, 50, 75))
    return Summary(float(median), float(np.median(np.abs(times - median))), float(q1), float(q3),
                   float(times.min()), len(times), rounds)


class Budget:
    """Splits the remaining time among parts by their weights, in order. Time that a part does not
    use goes to later parts."""

    def __init__(self, seconds: float, weights: Sequence[float],
                 clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.end = clock() + seconds
        self.weights = list(weights)

    @property
    def left(self) -> float:
        return max(self.end - self.clock(), 0.0)

    def next(self) -> float:
        """Return the seconds of the next part."""
        if not self.weights:
            raise ValueError("expected no more parts than weights")
        total = sum(self.weights)
        weight = self.weights.pop(0)
        return self.left * weight / total if total else 0.0


@dataclass(frozen=True)
class Schedule:
    """Measurements of a participant: one sample in each of ``rounds`` rounds, of ``warm_up`` calls
    and ``calls`` timed calls."""

    rounds: int
    calls: int
    warm_up: int


def plan(seconds_a_call: float, share: float) -> Schedule:
    """Plan samples that take about ``share`` seconds, or the minimum number of rounds."""
    call = max(seconds_a_call, 1e-6)
    calls = int(np.clip(SAMPLE_SECONDS / call, 1, 32))
    warm_up = 1 if call < SAMPLE_SECONDS else 0
    sample = call * (calls + warm_up)
    least = np.clip(LEAST_SECONDS / sample, 1, LEAST_ROUNDS)
    rounds = int(np.clip(share / sample, least, MAX_ROUNDS))
    return Schedule(rounds, calls, warm_up)


def is_measured(schedule: Schedule, number: int, total: int) -> bool:
    """Return true if a participant is measured in round ``number`` of ``total``: its samples are
    distributed evenly over all rounds."""
    return (number + 1) * schedule.rounds // total > number * schedule.rounds // total


# Runs calls ``first`` to ``first + count - 1`` and returns the seconds of each.
Sample = Callable[[int, int], Sequence[float]]


def interleave(samples: Mapping[str, Sample], estimates: Mapping[str, float], seconds: float,
               yardsticks: Collection[str] = (),
               clock: Callable[[], float] = time.perf_counter) -> dict[str, Summary]:
    """Measure ``samples`` in interleaved rounds of about ``seconds`` in all.

    Call i selects the weights and the input; all participants run the same sequence. The order of
    participants changes from round to round. A participant that is outclassed, or whose single call
    is long and exceeds its share, is not measured in rounds: its time is the estimate.
    ``yardsticks`` do not count as the fastest participant.
    """
    share = seconds / len(samples)
    slow = OUTCLASSED * min((estimates[name] for name in samples if name not in yardsticks),
                            default=math.inf)
    once = {name: [estimates[name]] for name in samples
            if estimates[name] > min(max(share, LONG_CALL), slow)}
    names = [name for name in samples if name not in once]
    schedules = {name: plan(estimates[name], share) for name in names}
    total = max((schedule.rounds for schedule in schedules.values()), default=0)
    times: dict[str, list[float]] = {name: [] for name in names}
    rounds = dict.fromkeys(names, 0)
    calls = dict.fromkeys(names, 0)
    end = clock() + 2 * seconds
    for number in range(total):
        start = number // 2 % len(names)
        for name in (names[start:] + names[:start])[::1 if number % 2 else -1]:
            schedule = schedules[name]
            if not is_measured(schedule, number, total) or (times[name] and clock() > end):
                continue
            count = schedule.warm_up + schedule.calls
            times[name] += samples[name](calls[name], count)[schedule.warm_up:]
            calls[name] += count
            rounds[name] += 1
    return {name: summarise(once.get(name) or times[name], rounds.get(name, 1))
            for name in samples}
