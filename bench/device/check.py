"""``./dev check gpu``: verifies compiled kernels on a GPU against float64.

A case is one artifact: a layer of a family (moe_testing/layers.py) in one type, compiled for one
target, or a layer of odd sizes. For each number of tokens, inputs are drawn, output and workspace
are filled with NaN before the call, every array has guards, and a second run on another workspace
must produce the same bits. Then a captured graph is replayed with other inputs, and all tokens go
to one expert. Layers of published models are checked with weights generated on the device, and
some cases under compute-sanitizer.

The most informative cases run first, and results are written immediately: a case of each kind of
kernel, the layers with performance goals, those with the other proxy fence of gathered rows, then
the others. Cases that the time limit excludes are not failures.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moe_testing.device import cuda_driver

from ..common import machine
from ..common.options import counts
from . import bundle as bundles
from . import supervise
from .bundle import Spec
from .shapes import ALL, CHECKED, MAIN

WORKER, LAYER_WORKER = "bench.device.check_worker", "bench.gpu.worker"
# Time limits of a step, which may compile PTX in the driver. The CUDA double is much slower.
STEP_SECONDS, DOUBLE_SECONDS = 60.0, 600.0
# Cases that together cover every kernel for sm_90a: K-major and MN-major weights, interleaved gate
# and up, biases, a clamp, shared experts; many stages along k, and partial tiles.
FIRST = tuple(f"{name}-bf16-sm_90a" for name in (
    "qwen3_moe", "odd_wide", "odd_deep", "gpt_oss", "deepseek_v3"))
# The fraction of the time limit by which each part must end.
SHARES = {"first": 0.35, "main layers": 0.55, "other fence": 0.7, "cases": 0.9, "layers": 1.0}
SHARES_BEFORE_SANITIZER = SHARES | {"cases": 0.8, "layers": 0.9}
# Token counts of the layers of models, and one with 2^32 elements of rows.
LAYER_TOKENS = (1, 64, 4096)
MANY_TOKENS = {"fine": 131072}
# The fraction of device memory that the weights of such a layer may take.
LAYER_SHARE = 0.35
# Cases for compute-sanitizer: gathered rows, K-major and MN-major weights; wgmma.
SANITIZED = ("qwen3_moe-bf16-sm_90a", "gpt_oss-bf16-sm_90a", "deepseek_v3-bf16-sm_80")
SANITIZED_TOKENS = (5, 67)
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZER_SECONDS = 90.0
FOUND_ERRORS = 86


def step_seconds() -> float:
    return DOUBLE_SECONDS if cuda_driver.is_double() else STEP_SECONDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="REGEX",
                        help="only cases whose name, e.g. qwen3_moe-bf16-sm_90a, matches")
    parser.add_argument("--tokens", type=counts, default=[], metavar="T,T",
                        help="check only these token counts; no graph, no skewed routing")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--jobs", type=int, default=min(8, (os.cpu_count() or 2) // 2),
                        metavar="N",
                        help="parallel processes (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0,
                        help="time limit; the rest is reported as not run "
                        "(default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the results")
    parser.add_argument("--no-sanitizer", action="store_true",
                        help="skip compute-sanitizer")
    parser.add_argument("--list", action="store_true", help="list the cases in order and exit")


class Results:
    """The results of the cases so far, written after each one."""

    def __init__(self, path: Path | None, header: dict[str, Any]):
        self.path, self.header = path, header
        self.cases: dict[str, dict[str, Any]] = {}
        self.skipped: list[str] = []
        self.not_run: list[str] = []
        self._write()
        self._lock = threading.Lock()

    def add(self, key: str, ok: bool, text: str, **values: Any) -> None:
        with self._lock:
            self.cases[key] = {"ok": ok, **values}
            print(f"{'ok  ' if ok else 'FAIL'} {key}: {text}", flush=True)
            self._write()

    def skip(self, key: str, why: str) -> None:
        with self._lock:
            self.skipped.append(f"{key}: {why}")
            print(f"skip {key}: {why}", flush=True)
            self._write()

    def leave(self, key: str) -> None:
        """Record that no time is left for a case."""
        with self._lock:
            self.not_run.append(key)
            self._write()

    def _write(self) -> None:
        if self.path:
            machine.write(self.path, json.dumps(
                self.header | {"cases": self.cases, "skipped": self.skipped,
                               "not_run": self.not_run}, indent=1) + "\n")

    @property
    def failed(self) -> list[str]:
        return [key for key, found in self.cases.items() if not found["ok"]]


def run(arguments: argparse.Namespace) -> int:
    # Several processes compute references in parallel.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begin, allowed = time.monotonic(), 60 * arguments.minutes
    bundle = bundles.find()
    specs = bundles.matching(bundle.specs, arguments.only)
    if not specs:
        raise SystemExit(f"check: no case of '{bundle.directory}' has '{arguments.only}'")
    if arguments.list:
        print(*(spec.key for its in _by_priority(specs).values() for spec in its), sep="\n")
        return 0
    device = cuda_driver.driver().describe()
    runs_wgmma = cuda_driver.driver().capability() == (9, 0)
    print(f"{device.name}, compute capability {device.capability}, {device.driver}; commit "
          f"{bundle.commit}; {len(specs)} cases, seed {arguments.seed}", flush=True)
    results = Results(arguments.json, {
        "format": 1, "check": "gpu", "date": machine.now(), "commit": bundle.commit,
        "device": device.as_dict(), "seed": arguments.seed})
    here = [spec for spec in specs if spec.target != "sm_90a" or runs_wgmma]
    for spec in specs:
        if spec not in here:
            results.skip(spec.key, f"needs compute capability 9.0, this GPU has "
                         f"{device.capability}")
    sanitizes = not arguments.no_sanitizer
    shares = SHARES_BEFORE_SANITIZER if sanitizes else SHARES
    for part, its in _by_priority(here).items():
        # Each part has a deadline, so that the first ones cannot use all of the time.
        end = begin + shares[part] * allowed
        _run_all_cases([spec for spec in its if not _is_layer(spec)], arguments, end, results)
        for fence in ("producer", "consumer"):
            _run_layers([spec for spec in its if _is_layer(spec) and spec.fence == fence],
                        arguments, device.memory, end, results)
    if sanitizes:
        _sanitize([spec.key for spec in here], arguments, begin + allowed, results)
    failed = results.failed
    if failed:
        print("failed:", *failed, sep="\n  ")
    if results.not_run:
        print("not run, as no time was left:", *results.not_run, sep="\n  ")
    print(f"{len(results.cases) - len(failed)} passed, {len(failed)} failed, "
          f"{len(results.skipped)} skipped, {len(results.not_run)} not run, "
          f"{time.monotonic() - begin:.0f} s")
    # A run without any finished case is a failure.
    return 1 if failed or results.not_run and not results.cases else 0


def _by_priority(specs: Sequence[Spec]) -> dict[str, list[Spec]]:
    """Return the parts of a run in order of priority."""
    parts: dict[str, list[Spec]] = {part: [] for part in SHARES}
    for spec in specs:
        if spec.key in FIRST:
            parts["first"].append(spec)
        elif spec.fence != "producer":
            parts["other fence"].append(spec)
        elif _is_layer(spec):
            parts["main layers" if spec.name in MAIN else "layers"].append(spec)
        else:
            parts["cases"].append(spec)
    return parts


def _run_all_cases(specs: Sequence[Spec], arguments: argparse.Namespace, end: float,
                   results: Results) -> None:
    jobs = min(arguments.jobs, len(specs))
    if not specs:
        return
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda job: _run_cases(specs[job::jobs], arguments, end, results),
                      range(jobs)))


def _run_cases(specs: Sequence[Spec], arguments: argparse.Namespace, end: float,
               results: Results) -> None:
    """Run cases in a process, which is restarted after the case that ended it."""
    left = [spec.key for spec in specs]
    while left:
        running, step, how = left[0], "start", ""
        for event in supervise.events(
                WORKER, {"cases": left, "seed": arguments.seed, "tokens": arguments.tokens},
                step_seconds(), end):
            kind = event["event"]
            if kind == "step":
                step = event["step"]
            elif kind == "begin":
                running, step = event["case"], "load"
            elif kind == "case":
                left.remove(event["case"])
                text = (f"error {event['error']:.1e}, {event['seconds']:.1f} s" if event["ok"]
                        else event["reason"])
                results.add(event["case"], event["ok"], text,
                            **{k: v for k, v in event.items() if k not in ("event", "case", "ok")})
            elif kind == "out of time":
                for key in left:
                    results.leave(key)
                return
            elif kind == "ended":
                how = event["how"]
        # A case that failed before the process ended keeps its result.
        if running in left:
            left.remove(running)
            results.add(running, False, f"{how} (in {step})", reason=how, step=step)


def _is_layer(spec: Spec) -> bool:
    """Return true if the case is a layer of a model, which ``bench`` measures, too."""
    return spec.kind == "shape" and spec.name not in CHECKED


def _run_layers(specs: Sequence[Spec], arguments: argparse.Namespace, memory: int, end: float,
                results: Results) -> None:
    """Check layers of models, each shape once, as ``bench`` does before it measures."""
    groups = []
    for spec in specs:
        shape = ALL[spec.name]
        if 2 * shape.parameters > LAYER_SHARE * memory:
            results.skip(spec.key, f"its weights take {shape.parameters / 2**29:.1f} GiB")
            continue
        tokens = arguments.tokens or sorted({*LAYER_TOKENS, MANY_TOKENS.get(spec.name, 1)})
        groups.append({"shape": spec.name, "excluded": {}, "participants": [spec.participant],
                       "cells": [[count, shape.routings[-1]] for count in tokens]})
    keys = {spec.name: spec.key for spec in specs}
    while groups:
        how = None
        for event in supervise.events(
                LAYER_WORKER, {"groups": groups, "most": 0.0, "seed": arguments.seed,
                               "seconds": 1.0}, step_seconds(), end):
            kind, shape = event["event"], event.get("shape")
            while kind == "group" and groups[0]["shape"] != shape:
                groups.pop(0)
            if kind == "cell":
                found, = event["participants"].values()
                groups[0]["cells"].remove([event["tokens"], event["routing"]])
                results.add(f"{keys[shape]} T = {event['tokens']}", found["status"] == "ok",
                            f"error {found['error']:.1e}" if found["status"] == "ok" else
                            found["reason"], **found)
            elif kind == "refused":
                results.skip(keys[shape], event["reason"])
            elif kind == "out of time":
                for group in groups:
                    for count, _ in group["cells"]:
                        results.leave(f"{keys[group['shape']]} T = {count}")
                return
            elif kind == "ended" and not event["ok"]:
                how = event["how"]
        if how is None:
            return
        # The cell at which it ended.
        results.add(f"{keys[groups[0]['shape']]} T = {groups[0]['cells'][0][0]}", False, how,
                    reason=how)
        groups[0]["cells"] = groups[0]["cells"][1:]
        groups = [group for group in groups if group["cells"]]


def _find_sanitizer() -> str | None:
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path="/usr/local/cuda/bin:/opt/cuda/bin")


def _sanitize(keys: Sequence[str], arguments: argparse.Namespace, end: float,
              results: Results) -> None:
    if (tool := _find_sanitizer()) is None:
        for sanitizer in SANITIZERS:
            results.skip(sanitizer, "compute-sanitizer is neither in PATH nor in /usr/local/cuda")
        return
    runs = [(sanitizer, key) for sanitizer in SANITIZERS for key in SANITIZED if key in keys]
    with ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        list(pool.map(lambda run: _sanitize_one(tool, *run, arguments, end, results), runs))


def _sanitize_one(tool: str, sanitizer: str, case: str, arguments: argparse.Namespace,
                  end: float, results: Results) -> None:
    command = [tool, "--tool", sanitizer, "--error-exitcode", str(FOUND_ERRORS),
               "--print-limit", "10"]
    key, outcome, last = f"{sanitizer} {case}", None, {}
    if time.monotonic() > end:
        return results.leave(key)
    for event in supervise.events(
            WORKER, {"cases": [case], "seed": arguments.seed,
                     "tokens": arguments.tokens or SANITIZED_TOKENS},
            SANITIZER_SECONDS, min(end, time.monotonic() + SANITIZER_SECONDS), command):
        if event["event"] == "case":
            outcome = event
        last = event
    output = last.get("output", "")
    if last["event"] == "out of time" or "how" in last and last["how"].startswith("nothing"):
        results.skip(key, f"it took longer than {SANITIZER_SECONDS:.0f} s")
    elif "device not supported" in output.lower() or (
            outcome is None and "ERROR SUMMARY" not in output):
        why = [line for line in output.splitlines() if line.strip()]
        results.skip(key, "compute-sanitizer does not work here: "
                     + (why[0][:200] if why else last.get("how", "")))
    else:
        lines = [line for line in output.splitlines() if line.startswith("=========")]
        ok = last["ok"] and outcome is not None and outcome["ok"]
        results.add(key, ok, "no errors" if ok else "\n".join(lines[:20]) or last["how"],
                    output=lines[:60])
