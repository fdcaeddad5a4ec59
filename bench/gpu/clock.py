"""Times on a stream: events around calls, or around a graph of them; interleaved participants."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from moe_testing.device.cuda_driver import Event, driver

from ..common import timing

MIN_ROUNDS, MAX_ROUNDS = 3, 40
# The minimum duration of a sample, much longer than the resolution of events of 0.5 µs.
SAMPLE_SECONDS = 0.002
MAX_CALLS = 64
# Factor by which a sample may be longer to complete a rotation.
LONG_SAMPLE = 10

Sample = Callable[[], float]
Step = Callable[[int], None]


class Launchable(Protocol):
    def launch(self, stream: int) -> None: ...


class Device:
    """The device of torch's tensors, the common stream, and its capture."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            self.device = torch.device("cuda")
            self._torch_stream = torch.cuda.Stream()
            torch.cuda.set_stream(self._torch_stream)
        else:
            # On the CUDA double, torch computes on the CPU.
            self.device, self._stream = torch.device("cpu"), driver().stream()

    def stream(self) -> int:
        """Return the current stream, which differs while torch captures."""
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
    """A graph captured by torch, whose allocator then keeps its memory."""

    def __init__(self, work: Callable[[], None], stream: torch.cuda.Stream):
        self._graph = torch.cuda.CUDAGraph()
        # Other frameworks and runtimes may use the device meanwhile.
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="relaxed"):
            work()

    def launch(self, stream: int) -> None:
        self._graph.replay()


def calls_of(seconds_a_call: float, rotation: int) -> int:
    """Return the calls of a sample: whole rotations over layers and inputs, unless they take more
    than ``LONG_SAMPLE`` times ``SAMPLE_SECONDS``."""
    wanted = SAMPLE_SECONDS / max(seconds_a_call, 1e-7)
    rotations = min(max(round(wanted / rotation), 1), max(MAX_CALLS // rotation, 1))
    if rotation > LONG_SAMPLE * wanted:
        return max(int(LONG_SAMPLE * wanted), 1)
    return rotations * rotation


def on_stream(step: Step, calls: int, stream: Callable[[], int]) -> Sample:
    """Time calls that the host enqueues on a stream."""
    number = 0

    def sample() -> float:
        nonlocal number
        begin, end = Event(), Event()
        begin.record(stream())
        for _ in range(calls):
            step(number)
            number += 1
        end.record(stream())
        return end.seconds_since(begin) / calls

    return sample


def in_graph(graph: Launchable, calls: int, stream: Callable[[], int]) -> Sample:
    """Time the same calls as one CUDA graph, without launch overhead of the host."""
    def sample() -> float:
        begin, end = Event(), Event()
        begin.record(stream())
        graph.launch(stream())
        end.record(stream())
        return end.seconds_since(begin) / calls

    return sample


def by_host(step: Step, calls: int, wait: Callable[[], None]) -> Sample:
    """Time participants that run on their own stream by the host's clock."""
    number = 0

    def sample() -> float:
        nonlocal number
        wait()
        begin = time.perf_counter()
        for _ in range(calls):
            step(number)
            number += 1
        wait()
        return (time.perf_counter() - begin) / calls

    return sample


def interleave(samples: Mapping[str, Sample], seconds: float,
               announce: Callable[[str], None] = lambda name: None,
               clock: Callable[[], float] = time.perf_counter) -> dict[str, dict[str, Any]]:
    """Measure participants in interleaved rounds of about ``seconds`` in all; the order changes
    from round to round. The first round is a warm-up. Samples are announced, in case one hangs."""
    names, end = list(samples), clock() + seconds
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(MAX_ROUNDS + 1):
        start = number // 2 % len(names)
        for name in (names[start:] + names[:start])[::1 if number % 2 else -1]:
            announce(name)
            found = samples[name]()
            if number:
                times[name].append(found)
        if number >= MIN_ROUNDS and clock() > end:
            break
    return {name: timing.summarise(found, len(found)).as_dict() for name, found in times.items()}
