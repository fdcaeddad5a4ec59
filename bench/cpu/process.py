"""A participant in a process of its own, which is stopped while others are measured.

So no participant's threads, allocator or OpenMP runtime is in the way of another's, and one that
crashes or hangs ends alone. The process is forked from the worker and shares its weights, or, for a
participant with an environment of its own, started with that environment's Python; then it draws
the same weights from the seed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Any

from ..common import data, machine
from ..common.formats import FORMATS
from ..common.participants import Unavailable, message
from ..common.shapes import SHAPES
from . import ggml
from .participants import PARTICIPANTS, Case, Participant, Runner

END_SECONDS = 5.0


class Failed(Exception):
    """A participant that raised, ended its process or did not answer; has what it did."""


@dataclass(frozen=True)
class Recipe:
    """What a process needs to make a case by itself."""

    shape: str
    dtype: str
    threads: int
    seed: int
    layers: int
    cache: str

    def case(self) -> Case:
        shape = SHAPES[self.shape]
        # ggml is the only one here that writes all of its formats.
        quantise = ggml.quantise if self.dtype in FORMATS else None
        layers = data.make_layers(shape, self.dtype, self.seed, self.layers, quantise)
        return Case(shape, self.dtype, self.threads, layers, self.cache)


class Process:
    """The methods of Runner, and ``sample``, in another process."""

    def __init__(self, participant: Participant, recipe: Recipe, case: Case, python: str = ""):
        """Fork, or start ``python``, that of an environment of the participant's own."""
        self.connection, theirs = Pipe()
        self.ended = ""  # how
        self.pid = os.fork()
        if not self.pid:
            self._run(theirs, participant, recipe, case, python)
        theirs.close()

    def _run(self, connection: Connection, participant: Participant, recipe: Recipe, case: Case,
             python: str) -> None:
        """Serve in the new process, and end it without the clean-up that is the parent's."""
        status = 1
        try:
            machine.end_with_parent()
            self.connection.close()
            if python:
                os.set_inheritable(connection.fileno(), True)
                os.chdir(machine.ROOT)
                os.execv(python, [python, "-m", __name__, str(connection.fileno()),
                                  participant.name, json.dumps(asdict(recipe))])
            serve(connection, participant, case)
            status = 0
        finally:
            os._exit(status)

    def request(self, seconds: float, method: str, *arguments: Any) -> Any:
        """Let the process run, call a method there and stop it; raise what the method raises.

        Raises Failed also if the process ends, or does not answer within ``seconds``.
        """
        if self.ended:
            raise Failed(self.ended)
        try:
            os.kill(self.pid, signal.SIGCONT)
            self.connection.send((method, arguments))
            if not self.connection.poll(seconds):
                raise self._end(f"no answer in {seconds:.0f} s")
            status, value = self.connection.recv()
        except (EOFError, OSError):
            raise self._end() from None
        os.kill(self.pid, signal.SIGSTOP)
        if status != "ok":
            raise (Unavailable if status == "unavailable" else Failed)(value)
        return value

    def _end(self, reason: str = "") -> Failed:
        if reason:
            os.kill(self.pid, signal.SIGKILL)
        how = _wait(self.pid)
        self.ended = reason or how
        self.connection.close()
        return Failed(self.ended)

    def close(self) -> None:
        if not self.ended:
            self._end("closed")


def _wait(pid: int) -> str:
    """Wait for the end of a process that closed its connection; return how it ended."""
    end = time.monotonic() + END_SECONDS
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(found[1])
    return (f"the process ended by {signal.Signals(-code).name}" if code < 0 else
            f"the process ended with status {code}")


# -- in the participant's process --------------------------------------------


def serve(connection: Connection, participant: Participant, case: Case) -> None:
    """Answer requests until the connection is closed."""
    runner: Runner | None = None

    def open_() -> None:
        nonlocal runner
        runner = participant.open(case)

    def sample(first: int, count: int) -> list[float]:
        return time_calls(runner.step, first, count)

    methods: dict[str, Callable[..., Any]] = {
        "open": open_, "sample": sample, "costs": lambda: participant.costs(case)}
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        try:
            call = methods.get(method) or getattr(runner, method)
            answer = ("ok", call(*arguments))
        except Unavailable as error:
            answer = ("unavailable", str(error))
        except Exception as error:  # noqa: BLE001 -- a peer may raise anything
            answer = ("failed", message(error))
        connection.send(answer)


def time_calls(step: Callable[[int], None], first: int, count: int,
               clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Return the seconds of each of ``count`` calls from number ``first`` on."""
    times = []
    for number in range(first, first + count):
        begin = clock()
        step(number)
        times.append(clock() - begin)
    return times


def main(arguments: Sequence[str]) -> None:
    machine.end_with_parent()
    connection = Connection(int(arguments[0]))
    try:
        case = Recipe(**json.loads(arguments[2])).case()
    except Exception as error:  # noqa: BLE001 -- the answer to the first request
        connection.recv()
        connection.send(("failed", message(error)))
        return
    serve(connection, PARTICIPANTS[arguments[1]], case)


if __name__ == "__main__":
    main(sys.argv[1:])
