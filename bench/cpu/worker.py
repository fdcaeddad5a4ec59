"""The measurement of a shape, a type and a thread count: all participants, by turns.

Reads its task as JSON from stdin and appends events, one JSON object per line, to a file; the
process that started it (``bench``) collects them, even if this one crashes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

# Must precede numpy and the participants' processes, which start threads.
TASK = json.load(sys.stdin) if __name__ == "__main__" else {}
if TASK:
    os.sched_setaffinity(0, TASK["cpus"])
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(TASK["threads"])
    os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np

from ..common import data, machine, oracle, timing
from ..common.formats import FORMATS
from ..common.rotation import count_inputs, count_layers
from ..common.shapes import SHAPES, Shape
from . import roofline
from .participants import PARTICIPANTS, Participant, Unavailable, chosen
from .process import Failed, Process, Recipe

# Memory that must stay free, and the share of all of it that a peer's weights must leave: huge
# pages run out before memory does, and then everybody is slower.
MARGIN, SPARE = 3 << 29, 0.2
# A peer this many times slower than the fastest participant in the previous cell is skipped if a
# call, scaled by T, would exceed the cell's budget. For the others the time is scaled by the
# roofline, and may exceed the budget PATIENCE times.
SLOW = 3
PATIENCE = 4
# Minimum seconds of a cell, even if the budget is used up.
LEAST_SECONDS = 0.5
# A participant that does not answer for so long is given up: more for opening, which copies and
# packs weights, and this factor of a cell's budget.
ANSWER_SECONDS, OPEN_SECONDS_A_BYTE, GRACE = 60.0, 30.0 / 2**30, 3.0
GIB = 1 << 30


@dataclass(frozen=True)
class Cell:
    tokens: int
    routing: str
    inputs: Sequence[data.Batch]
    active_experts: float  # the mean over the inputs


def weight(shape: Shape, dtype: str, tokens: int, peaks: Mapping[str, float]) -> float:
    """Return the weight of a cell in the budget: its roofline time, and a constant for many calls
    of small cells."""
    return roofline.estimate(shape, dtype, tokens, peaks) + 0.3


class Worker:
    def __init__(self, task: dict[str, Any], emit: Callable[..., None]):
        self.task, self.emit = task, emit
        self.shape, self.dtype = SHAPES[task["shape"]], task["dtype"]
        self.participants = chosen(task["participants"])
        self.processes: dict[str, Process] = {}
        # Why a participant is missing; seconds per call and tokens of its last cell.
        self.absent: dict[str, tuple[str, str]] = {
            name: (status, reason) for name, (status, reason) in task["absent"].items()}
        self.seen: dict[str, tuple[int, float]] = {}

    def run(self) -> None:
        begin = time.monotonic()
        task = self.task
        recipe = Recipe(task["shape"], self.dtype, task["threads"], task["seed"],
                        self._count_layers(), task["cache"])
        case = recipe.case()
        self.layers = case.layers
        for participant in self.participants:
            if participant.name not in self.absent:
                python = task["pythons"].get(participant.name, "")
                self._open(participant, Process(participant, recipe, case, python))
        # Opening uses the budget, but at least 30 % remain for the cells.
        left = max(task["seconds"] - (time.monotonic() - begin), 0.3 * task["seconds"])
        cells = [(tokens, routing) for tokens in task["tokens"] for routing in task["routings"]]
        budget = timing.Budget(left, [weight(self.shape, self.dtype, tokens, task["peaks"])
                                      for tokens, _ in cells])
        for tokens, routing in cells:
            seconds = max(budget.next(), LEAST_SECONDS)
            self._cell(self._make_cell(tokens, routing), seconds)

    def close(self) -> None:
        for process in self.processes.values():
            process.close()

    # -- opening ------------------------------------------------------------

    def _count_layers(self) -> int:
        """Return as many layers as the smallest cell needs to exceed the caches, if all copies of
        them fit in memory."""
        size = self.shape.weight_bytes(self.dtype)
        if self.dtype in FORMATS and "ggml" in self.absent:
            raise Unavailable(f"needs ggml: {self.absent['ggml'][1]}")
        # These weights and at least one copy of them.
        needed, free = 2 * size + MARGIN, machine.available_memory()
        if needed > free:
            raise Unavailable(f"needs {needed / GIB:.1f} GiB, {free / GIB:.1f} GiB are free")
        copies = 1 + sum(p.copies_in(self.dtype) for p in self.participants
                         if p.name not in self.absent)
        wanted = count_layers(self.shape, self.dtype, min(self.task["tokens"]),
                              machine.last_level_cache())
        return int(min(wanted, max((free - MARGIN) // (copies * size), 1)))

    def _open(self, participant: Participant, process: Process) -> None:
        name = participant.name
        self.processes[name] = process
        size = sum(layer.nbytes for layer in self.layers)
        margin = MARGIN
        if participant.kind == "peer":
            margin = max(margin, int(SPARE * machine.total_memory()))
        copies = participant.copies_in(self.dtype) * size
        needed = copies + margin
        if copies and needed > (free := machine.available_memory()):
            self._give_up(name, "skipped", f"needs {needed / GIB:.1f} GiB for its weights, "
                          f"{free / GIB:.1f} GiB are free")
            return
        seconds = ANSWER_SECONDS + OPEN_SECONDS_A_BYTE * size
        try:
            if participant.kind == "ours":
                self._report_costs(process, seconds)
            process.request(seconds, "open")
        except Unavailable as error:
            self._give_up(name, "unavailable", str(error))
        except Failed as error:
            self._give_up(name, "failed", str(error))

    def _report_costs(self, process: Process, seconds: float) -> None:
        """Report the costs of this project's compiler and packing."""
        try:
            self.emit("costs", **process.request(seconds, "costs"))
        except Failed as error:  # reported, and the cells still run
            self.emit("costs", error=str(error))

    def _give_up(self, name: str, status: str, reason: str) -> None:
        """End a participant's process, and with it its memory."""
        self.absent[name] = (status, reason)
        self.processes.pop(name).close()

    # -- a cell -------------------------------------------------------------

    def _make_cell(self, tokens: int, routing: str) -> Cell:
        seed = self.task["seed"] + tokens
        stream = data.batches(self.shape, self.layers[0].router, self.dtype, tokens, routing, seed)
        inputs = list(islice(stream, count_inputs(tokens, few=4, some=128)))
        active = np.mean([len(np.unique(batch.ids)) for batch in inputs])
        return Cell(tokens, routing, inputs, float(active))

    def _cell(self, cell: Cell, seconds: float) -> None:
        begin = time.perf_counter()
        tokens = sorted({0, 1, cell.tokens // 2, cell.tokens - 1} & set(range(cell.tokens)))
        expected = oracle.run(self.shape, self.layers[0], cell.inputs[0].x[tokens])
        results, estimates = {}, {}
        for participant in self.participants:
            name = participant.name
            status = self._check(participant, cell, tokens, expected, seconds)
            results[name] = {k: v for k, v in status.items() if k != "seconds"}
            if status["status"] == "ok":
                estimates[name] = status["seconds"]
        left = max(seconds - (time.perf_counter() - begin), 0.2 * seconds)
        if estimates:
            self._measure(cell, estimates, left, results)
        self.emit("cell", tokens=cell.tokens, routing=cell.routing,
                  active_experts=cell.active_experts, layers=len(self.layers),
                  inputs=len(cell.inputs), participants=results)

    def _measure(self, cell: Cell, estimates: dict[str, float], seconds: float,
                 results: dict[str, dict[str, Any]]) -> None:
        """Add the times of the participants, or why one failed, to ``results``."""
        allowed = ANSWER_SECONDS + GRACE * seconds

        def sample_of(name: str) -> timing.Sample:
            def sample(first: int, count: int) -> Sequence[float]:
                if name in self.absent:
                    return [math.nan] * count
                try:
                    return self.processes[name].request(allowed, "sample", first, count)
                except Failed as error:
                    self._give_up(name, "failed", str(error))
                    return [math.nan] * count
            return sample

        yardsticks = {p.name for p in self.participants if p.kind == "yardstick"}
        samples = {name: sample_of(name) for name in estimates}
        for name, summary in timing.interleave(samples, estimates, seconds, yardsticks).items():
            if name in self.absent:
                status, reason = self.absent[name]
                results[name] = {"status": status, "reason": reason}
            else:
                results[name] |= summary.as_dict()
                self.seen[name] = (cell.tokens, summary.median)

    def _check(self, participant: Participant, cell: Cell, tokens: list[int],
               expected: np.ndarray, seconds: float) -> dict[str, Any]:
        """Return whether a participant computes the layer in this cell, and the seconds per
        call."""
        name = participant.name
        if name in self.absent:
            status, reason = self.absent[name]
            return {"status": status, "reason": reason}
        if reason := self._too_slow(participant, cell, seconds):
            return {"status": "skipped", "reason": reason}
        try:
            return self._call(participant, cell, tokens, expected, seconds)
        except Unavailable as error:
            return {"status": "unavailable", "reason": str(error)}
        except Failed as error:
            if self.processes[name].ended:
                self._give_up(name, "failed", str(error))
            return {"status": "failed", "reason": str(error)}

    def _call(self, participant: Participant, cell: Cell, tokens: list[int],
              expected: np.ndarray, seconds: float) -> dict[str, Any]:
        def request(method: str, *arguments: Any) -> Any:
            return self.processes[participant.name].request(
                ANSWER_SECONDS + GRACE * seconds, method, *arguments)

        scratch, free = request("scratch", cell.tokens), machine.available_memory()
        if scratch + MARGIN > free:
            return {"status": "skipped", "reason": f"needs {scratch / GIB:.1f} GiB besides its "
                    f"weights, {free / GIB:.1f} GiB are free"}
        request("load", [batch.x for batch in cell.inputs])
        elapsed, = request("sample", 0, 1)
        # An estimate until the median is known.
        self.seen[participant.name] = (cell.tokens, elapsed)
        actual = request("output")
        if participant.kind == "yardstick":
            error = oracle.relative_error(actual, request("expected"))
        else:
            error = oracle.relative_error(actual[tokens], expected)
        allowed = oracle.tolerance(self.dtype, self.shape.top_k)
        if not error <= allowed:
            return {"status": "wrong", "error": error,
                    "reason": f"relative error {error:.1e}, allowed {allowed:.1e}"}
        if elapsed < timing.LONG_CALL:
            # The first call may have compiled or allocated, and one call says little.
            elapsed = min(request("sample", 1, 3))
        return {"status": "ok", "error": error, "seconds": elapsed}

    def _too_slow(self, participant: Participant, cell: Cell, seconds: float) -> str:
        """Return why a participant is too slow for this cell, from its time in the previous one."""
        tokens, before = self.seen.get(participant.name, (0, 0.0))
        if not tokens:
            return ""
        fastest = min(elapsed for name, (t, elapsed) in self.seen.items()
                      if name == participant.name
                      or (t == tokens and PARTICIPANTS[name].kind != "yardstick"))
        if participant.kind == "peer" and before > SLOW * fastest:
            growth, allowed = cell.tokens / tokens, seconds
        else:
            growth = self._least_seconds(cell.tokens) / self._least_seconds(tokens)
            allowed = PATIENCE * seconds
        if before * growth <= allowed:
            return ""
        return (f"expected {before * growth:.1f} s per call ({before:.2f} s at T = {tokens}), the "
                f"budget of the cell is {seconds:.1f} s")

    def _least_seconds(self, tokens: int) -> float:
        return roofline.estimate(self.shape, self.dtype, tokens, self.task["peaks"])


def main() -> None:
    machine.end_with_parent()
    with open(TASK["events"], "ab", buffering=0) as file:
        def emit(kind: str, **values: Any) -> None:
            # Whole lines, so that readers never see a partial event.
            file.write(json.dumps({"event": kind, **values}).encode() + b"\n")

        worker = Worker(TASK, emit)
        try:
            worker.run()
        except Unavailable as error:
            emit("refused", reason=str(error))
        finally:
            worker.close()
        emit("end")


if __name__ == "__main__":
    main()
