"""Times on a stream: events around calls, or around a graph of them; participants in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from moe_testing.device.cuda_driver import Event, driver

from ..common import timing

MIN_ROUNDS, MAX_ROUNDS = 3, 40
# What a turn takes at least, so that events, whose clock ticks in half microseconds, say much.
TURN_SECONDS = 0.002
MAX_CALLS = 64
# How many times that a turn may take for the sake of a whole rotation.
LONG_TURN = 10

Turn = Callable[[], float]
Step = Callable[[int], None]


class Launchable(Protocol):
    def launch(self, stream: int) -> None: ...


class Device:
    """Where torch's tensors are, the stream for everything, and how to capture it."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            self.device = torch.device("cuda")
            self._torch_stream = torch.cuda.Stream()
            torch.cuda.set_stream(self._torch_stream)
        else:
            # The double of the driver: torch computes on the CPU beside it.
            self.device, self._stream = torch.device("cpu"), driver().stream()

    def stream(self) -> int:
        """That of the moment: while torch captures, it is another one."""
        if self.device.type == "cuda":
            return torch.cuda.current_stream().cuda_stream
        return self._stream

    def wait(self) -> None:
        driver().wait(self.stream())

    def capture(self, work: Callable[[], None]) -> Launchable:
        if self.device.type == "cuda":
            return _TorchGraph(work, self._torch_stream)
        return driver().capture(self.stream(), work)


class _TorchGraph:
    """Captured by torch, whose allocator then keeps the graph's memory."""

    def __init__(self, work: Callable[[], None], stream: torch.cuda.Stream):
        self._graph = torch.cuda.CUDAGraph()
        # Other frameworks, and runtimes, may do as they like meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="relaxed"):
            work()

    def launch(self, stream: int) -> None:
        self._graph.replay()


def calls_of(seconds_a_call: float, rotation: int) -> int:
    """How many calls a turn has: whole rotations over layers and inputs, as long as they take
    no longer than some turns."""
    wanted = TURN_SECONDS / max(seconds_a_call, 1e-7)
    rotations = min(max(round(wanted / rotation), 1), max(MAX_CALLS // rotation, 1))
    if rotation > LONG_TURN * wanted:
        return max(int(LONG_TURN * wanted), 1)
    return rotations * rotation


def on_stream(step: Step, calls: int, stream: Callable[[], int]) -> Turn:
    """Calls that the host enqueues one after another."""
    number = 0

    def turn() -> float:
        nonlocal number
        begin, end = Event(), Event()
        begin.record(stream())
        for _ in range(calls):
            step(number)
            number += 1
        end.record(stream())
        return end.seconds_since(begin) / calls

    return turn


def in_graph(graph: Launchable, calls: int, stream: Callable[[], int]) -> Turn:
    """The same calls as one graph: the host has no part in the time."""
    def turn() -> float:
        begin, end = Event(), Event()
        begin.record(stream())
        graph.launch(stream())
        end.record(stream())
        return end.seconds_since(begin) / calls

    return turn


def by_host(step: Step, calls: int, wait: Callable[[], None]) -> Turn:
    """For whoever runs on a stream of their own."""
    number = 0

    def turn() -> float:
        nonlocal number
        wait()
        begin = time.perf_counter()
        for _ in range(calls):
            step(number)
            number += 1
        wait()
        return (time.perf_counter() - begin) / calls

    return turn


def interleave(turns: Mapping[str, Turn], seconds: float,
               announce: Callable[[str], None] = lambda name: None,
               clock: Callable[[], float] = time.perf_counter) -> dict[str, dict[str, Any]]:
    """Measure in about ``seconds``, each in turn; who begins changes from round to round. The
    first round warms up. Each turn is announced, in case it does not end."""
    names, end = list(turns), clock() + seconds
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(MAX_ROUNDS + 1):
        start = number // 2 % len(names)
        for name in (names[start:] + names[:start])[::1 if number % 2 else -1]:
            announce(name)
            found = turns[name]()
            if number:
                times[name].append(found)
        if number >= MIN_ROUNDS and clock() > end:
            break
    return {name: timing.summarise(found, len(found)).as_dict() for name, found in times.items()}
