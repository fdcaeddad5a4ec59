"""``./dev check gpu``: what the compiled kernels compute on a GPU, against float64.

A case is one artifact: a layer of a family (test/python/layers.py) in one type, compiled for one
target, or a layer of odd sizes. For each number of tokens inputs are drawn anew, the output and
the workspace hold what is not a number before the call, guards lie around every array, and a
second run, on another workspace, must give the same bits. Then a captured graph is replayed with
other inputs, and all tokens go to one expert.
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

from .. import machine
from ..options import counts
from . import bundle as bundles
from . import driver, supervise
from .bundle import Spec

WORKER = "bench.gpu.check_worker"
# A step may compile PTX in the driver, and run on a machine with other work.
STEP_SECONDS = 60.0
# What compute-sanitizer looks at: gathered rows and weights along k, and along n; wgmma.
SANITIZED = ("qwen3_moe-bf16-sm_90a", "gpt_oss-bf16-sm_90a", "deepseek_v3-bf16-sm_80")
SANITIZED_TOKENS = (5, 67)
SANITIZERS = ("memcheck", "racecheck", "synccheck")
SANITIZER_SECONDS = 90.0
FOUND_ERRORS = 86


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", default="", metavar="REGEX",
                        help="cases whose name, as qwen3_moe-bf16-sm_90a, has this")
    parser.add_argument("--tokens", type=counts, default=[], metavar="T,T",
                        help="only these numbers of tokens, and nothing else")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--jobs", type=int, default=min(8, (os.cpu_count() or 2) // 2),
                        metavar="N",
                        help="processes at a time (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0,
                        help="what has not run by then fails (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go")
    parser.add_argument("--no-sanitizer", action="store_true",
                        help="leave compute-sanitizer out")
    parser.add_argument("--list", action="store_true", help="say which cases there are")


class Results:
    """What is known of each case; written as it comes."""

    def __init__(self, path: Path | None, header: dict[str, Any]):
        self.path, self.header = path, header
        self.cases: dict[str, dict[str, Any]] = {}
        self.skipped: list[str] = []
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

    def _write(self) -> None:
        if self.path:
            self.path.write_text(json.dumps(
                self.header | {"cases": self.cases, "skipped": self.skipped}, indent=1) + "\n")

    @property
    def failed(self) -> list[str]:
        return [key for key, found in self.cases.items() if not found["ok"]]


def run(arguments: argparse.Namespace) -> int:
    # Several processes compute references at a time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begin = time.monotonic()
    end = begin + 60 * arguments.minutes
    bundle = bundles.find()
    specs = [spec for spec in bundles.matching(bundle.specs, arguments.only)
             if spec.kind == "family" or spec.name in bundles.CHECKED]
    if not specs:
        raise SystemExit(f"check: no case of '{bundle.directory}' has '{arguments.only}'")
    if arguments.list:
        print(*(spec.key for spec in specs), sep="\n")
        return 0
    device = driver.driver().describe()
    runs_wgmma = driver.driver().capability() == (9, 0)
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
    if not arguments.no_sanitizer:
        end -= 60 * arguments.minutes / 4
    jobs = max(1, min(arguments.jobs, len(here)))
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda job: _run_cases(here[job::jobs], arguments, end, results),
                      range(jobs)))
    if not arguments.no_sanitizer:
        _sanitize([spec.key for spec in here], arguments, begin + 60 * arguments.minutes, results)
    failed = results.failed
    if failed:
        print("failed:", *failed, sep="\n  ")
    print(f"{len(results.cases) - len(failed)} passed, {len(failed)} failed, "
          f"{len(results.skipped)} skipped, {time.monotonic() - begin:.0f} s")
    return 1 if failed else 0


def _run_cases(specs: Sequence[Spec], arguments: argparse.Namespace, end: float,
               results: Results) -> None:
    """Cases one after another; a process that ended is begun again behind the case it was at."""
    left = [spec.key for spec in specs]
    while left:
        running, step, how = left[0], "start", ""
        for event in supervise.events(
                WORKER, {"cases": left, "seed": arguments.seed, "tokens": arguments.tokens},
                STEP_SECONDS, end):
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
                    results.add(key, False, "not run: no time is left", reason="no time is left")
                return
            elif kind == "ended":
                how = event["how"]
        # One that failed on its own and then ended the process has its result.
        if running in left:
            left.remove(running)
            results.add(running, False, f"{how} (in {step})", reason=how, step=step)


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
        return results.skip(key, "no time is left")
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
