"""The process that measures layers for ``bench gpu``: weights, inputs, checks and times.

Its task has groups, each a shape with its cells and participants; ``supervise`` runs it. If the
time limit of the rounds, ``most``, is 0, it only checks.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Sequence
from typing import Any

import torch
from moe_testing.device.cuda_driver import driver, is_double

from ..common import oracle
from ..common.participants import message
from ..common.rotation import count_inputs, count_layers
from ..common.timing import Budget
from ..device import supervise
from ..device.shapes import ALL
from . import clock, layer
from .participants import PARTICIPANTS, Case, Participant, Runner, Unavailable

# Fraction of the device's free memory for the weights.
WEIGHTS_SHARE = 0.35
# The minimum time for the rounds of a cell.
LEAST_SECONDS = 0.3
# Tokens whose results are compared with float64.
SAMPLED = 32
# How long a first call may emit no event: Triton autotunes, XLA and the driver compile.
FIRST_CALL_SECONDS = 75.0
GIB = 1 << 30


def _relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the maximum difference over the maximum magnitude; infinite if any is NaN."""
    error = float((actual - expected).abs().max() / expected.abs().max())
    return error if math.isfinite(error) else math.inf


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.int16), b.view(torch.int16))


class Group:
    """The opened participants of a shape, with its weights."""

    def __init__(self, task: dict[str, Any], group: dict[str, Any], device: clock.Device,
                 emit: supervise.Emit):
        self.shape, self.device, self.emit = ALL[group["shape"]], device, emit
        self.seed = task["seed"]
        self.absent: dict[str, tuple[str, str]] = {
            name: tuple(why) for name, why in group["excluded"].items()}
        names = [PARTICIPANTS[name] for name in group["participants"]]
        size = self.shape.parameters * 2
        free = driver().free_memory() if device.device.type == "cuda" else 8 * GIB
        if size > WEIGHTS_SHARE * free:
            raise Unavailable(f"its weights take {size / GIB:.1f} GiB, of {free / GIB:.1f} GiB "
                              "that are free")
        cache = driver().describe().l2
        smallest = min(tokens for tokens, _ in group["cells"])
        count = min(count_layers(self.shape, "bf16", smallest, cache),
                    max(int(WEIGHTS_SHARE * free / size), 1))
        self.layers = [layer.make_weights(self.shape, device.device, self.seed + i)
                       for i in range(count)]
        for other in self.layers[1:]:
            # All layers share the router, so that one set of inputs has the same routing in all.
            other.update({name: self.layers[0][name] for name in
                          ("router", "router_bias", "e_score_correction_bias") if name in other})
        self.inverse = None if self.shape.sigmoid else layer.invert(self.layers[0]["router"])
        device.wait()
        self.runners: dict[str, Runner] = {}
        case = Case(self.shape, self.layers, device.stream)
        for participant in names:
            if participant.name not in self.absent:
                self._open(participant, case)
        self.participants = names

    def _open(self, participant: Participant, case: Case) -> None:
        name = participant.name
        size = participant.copies * len(self.layers) * self.shape.parameters * 2
        if self.device.device.type == "cuda" and size > (free := 0.8 * driver().free_memory()):
            self.absent[name] = ("skipped", f"needs {size / GIB:.1f} GiB for its weights, "
                                 f"{free / GIB:.1f} GiB are free")
            return
        self.emit("running", participant=name, silence=FIRST_CALL_SECONDS)
        try:
            self.runners[name] = participant.open(case)
        except Unavailable as error:
            self.absent[name] = ("unavailable", str(error))
        except Exception as error:  # noqa: BLE001 -- a peer may raise anything
            self.absent[name] = ("failed", message(error))
            self._exit_if_context_lost(name)

    def _exit_if_context_lost(self, name: str) -> None:
        """End the process after a sticky CUDA error: later calls would fail, and the error would
        be attributed to the next participant."""
        try:
            driver().synchronize()
        except Exception as error:
            raise SystemExit(f"{name} left the device unusable: {message(error)}") from None

    # -- a cell -------------------------------------------------------------

    def cell(self, tokens: int, routing: str, seconds: float) -> None:
        shape, weights = self.shape, self.layers[0]
        inputs = count_inputs(tokens, few=8, some=512)
        batches = [layer.make_batch(shape, weights, tokens, routing, self.seed + tokens + i,
                                    self.inverse) for i in range(inputs)]
        rows = layer.sample(shape, weights, batches[0].x, SAMPLED)
        expected = layer.reference(shape, weights, batches[0].x[rows])
        self.device.wait()
        results, estimates = {}, {}
        for participant in self.participants:
            name = participant.name
            found = self._check(participant, [b.x for b in batches], rows, expected)
            estimates[name] = found.pop("seconds", 0.0)
            results[name] = found
        ready = [p for p in self.participants if results[p.name]["status"] == "ok"]
        if ready and seconds > 0:
            self._measure(ready, estimates, len(batches), seconds, results)
        active = sum(b.active_experts for b in batches) / len(batches)
        self.emit("cell", shape=shape.key, tokens=tokens, routing=routing, active_experts=active,
                  layers=len(self.layers), inputs=len(batches), participants=results)

    def _check(self, participant: Participant, inputs: Sequence[torch.Tensor],
               rows: torch.Tensor, expected: torch.Tensor) -> dict[str, Any]:
        """Return whether a participant computes the layer in this cell, and the seconds per
        call."""
        name = participant.name
        if name in self.absent:
            status, reason = self.absent[name]
            return {"status": status, "reason": reason}
        self.emit("running", participant=name, tokens=len(inputs[0]), silence=FIRST_CALL_SECONDS)
        runner = self.runners[name]
        try:
            runner.load(inputs)
            runner.step(0)
            self._wait(runner)
            actual = runner.output()[rows].double()
            if participant.kind == "yardstick":
                expected = runner.expected(rows)
            error = _relative_error(actual, expected)
            first = runner.output().clone() if participant.kind == "ours" else None
            # The first calls may have compiled or allocated.
            for number in (1, 2):
                begin = time.perf_counter()
                runner.step(number)
                self._wait(runner)
                elapsed = time.perf_counter() - begin
            if first is not None:
                runner.step(0)
                self._wait(runner)
                if not _same_bits(first, runner.output()):
                    return {"status": "wrong", "reason": "a second run gives other bits"}
        except Unavailable as error:
            return {"status": "unavailable", "reason": str(error)}
        except Exception as error:  # noqa: BLE001 -- a peer may raise anything
            self._exit_if_context_lost(name)
            return {"status": "failed", "reason": message(error)}
        allowed = oracle.tolerance("bf16", self.shape.top_k)
        if error > allowed:
            return {"status": "wrong",
                    "reason": f"relative error {error:.1e}, allowed {allowed:.1e}"}
        facts = runner.facts() if hasattr(runner, "facts") else {}
        return {"status": "ok", "error": error, "seconds": elapsed, **facts}

    def _wait(self, runner: Runner) -> None:
        if hasattr(runner, "wait"):
            runner.wait()
        self.device.wait()

    def _measure(self, ready: Sequence[Participant], estimates: dict[str, float], inputs: int,
                 seconds: float, results: dict[str, Any]) -> None:
        """Measure graphs, if they can be captured, and streams of calls, with interleaved
        participants."""
        streams, graphs = {}, {}
        for participant in ready:
            name, runner = participant.name, self.runners[participant.name]
            calls = clock.calls_of(estimates[name], len(self.layers) * inputs)
            if not self._on_stream(participant):
                streams[name] = clock.by_host(runner.step, calls, lambda r=runner: self._wait(r))
                continue
            streams[name] = clock.on_stream(runner.step, calls, self.device.stream)
            self.emit("running", participant=name, silence=FIRST_CALL_SECONDS)
            try:
                graph = self._capture(runner, range(calls))
                graphs[name] = clock.in_graph(graph, calls, self.device.stream)
                if participant.kind == "ours":
                    results[name]["kernels"] = self._kernels(runner)
            except Exception as error:  # noqa: BLE001 -- not all participants can be captured
                results[name]["no_graph"] = message(error)
                self._exit_if_context_lost(name)
        share = seconds / (bool(streams) + bool(graphs))
        for kind, samples in (("stream", streams), ("graph", graphs)):
            for name, summary in (
                    clock.interleave(samples, share, self._announce) if samples else {}).items():
                results[name][kind] = summary
        for participant in ready:
            found = results[participant.name]
            # The headline time excludes launch overhead, which `stream` includes.
            found["by"] = ("graph" if "graph" in found else
                           "stream" if self._on_stream(participant) else "host")
            found |= found.get("graph") or found["stream"]

    def _announce(self, name: str) -> None:
        self.emit("running", participant=name)

    def _on_stream(self, participant: Participant) -> bool:
        """Return true unless torch computes on the CPU, as on the CUDA double."""
        return participant.kind == "ours" or (
            participant.on_stream and self.device.device.type == "cuda")

    def _capture(self, runner: Runner, numbers: range) -> clock.Launchable:
        return self.device.capture(lambda: [runner.step(number) for number in numbers])

    def _kernels(self, runner: Runner) -> int | None:
        """Return the number of kernels that a call launches."""
        stream = driver().stream()
        usual = runner.stream
        runner.stream = lambda: stream
        try:
            return driver().capture(stream, lambda: runner.step(0)).kernels()
        finally:
            runner.stream = usual


def work(task: dict[str, Any], emit: supervise.Emit) -> None:
    device = clock.Device()
    why = "" if device.device.type == "cuda" or is_double() else "PyTorch finds no GPU"
    budget = Budget(task["seconds"], [len(g["cells"]) * g.get("weight", 1.0)
                                      for g in task["groups"]])
    for number, group in enumerate(task["groups"]):
        end = time.monotonic() + budget.next()
        emit("group", number=number, shape=group["shape"], silence=FIRST_CALL_SECONDS)
        try:
            if why:
                raise Unavailable(why)
            opened = Group(task, group, device, emit)
        except Unavailable as error:
            emit("refused", shape=group["shape"], reason=str(error))
            continue
        cells = Budget(end - time.monotonic(), [1.0] * len(group["cells"]))
        for tokens, routing in group["cells"]:
            # Half of the budget is for inputs, checks and captures; LEAST_SECONDS remain even if
            # creating the weights used all of it.
            opened.cell(tokens, routing, min(max(0.5 * cells.next(), LEAST_SECONDS),
                                             task["most"]))
        del opened
        gc.collect()
        if device.device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    supervise.serve(work)
