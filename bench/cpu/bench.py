"""``./dev bench cpu``: MoE layers on the CPU, this project and its peers."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..common import machine, routing, timing
from ..common.comparison import Result, best_of, time_of
from ..common.formats import FORMATS
from ..common.options import counts, names_of
from ..common.shapes import DEFAULT_DTYPES, DEFAULT_SHAPES, DEFAULT_TOKENS, DTYPE_BYTES, SHAPES
from . import environments, ggml, peaks, report, roofline
from .metrics import PEERS
from .participants import PARTICIPANTS, Unavailable, chosen
from .worker import ANSWER_SECONDS, GRACE, OPEN_SECONDS_A_BYTE, weight

POLL_SECONDS = 0.5
# Ratio to the best peer from which on a peer is skipped.
TOO_SLOW = 10.0
# The process whose memory is measured reads its weights from a file of at most this many bytes.
MEMORY_TOKENS, MEMORY_LIMIT = 32, 1 << 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = [*PARTICIPANTS, "transformers"]
    parser.add_argument("--json", type=Path, metavar="FILE",
                        help="the results; report and plot are written next to it "
                        "(default build/bench/cpu.json)")
    parser.add_argument("--shapes", type=names_of(SHAPES), default=list(DEFAULT_SHAPES),
                        metavar="A,B", help=f"any of {', '.join(SHAPES)}")
    parser.add_argument("--tokens", type=counts, default=list(DEFAULT_TOKENS), metavar="T,T",
                        help="token counts (default %(default)s)")
    parser.add_argument("--dtypes", type=names_of(DTYPE_BYTES), default=list(DEFAULT_DTYPES),
                        metavar="A,B",
                        help=f"any of {', '.join(DTYPE_BYTES)} "
                        f"(default {','.join(DEFAULT_DTYPES)})")
    parser.add_argument("--formats", type=names_of(FORMATS), default=[], metavar="A,B",
                        help="quantised weights as well, of those participants that take them: of "
                        f"{', '.join(FORMATS)} (default none)")
    parser.add_argument("--threads", type=counts, default=None, metavar="N,N",
                        help="thread counts (default 1,2, up to the number of processors)")
    parser.add_argument("--routings", type=names_of(routing.ROUTINGS),
                        default=list(routing.ROUTINGS), metavar="A,B",
                        help="any of uniform, zipf")
    parser.add_argument("--peers", type=names_of(names), default=list(PARTICIPANTS), metavar="A,B",
                        help=f"participants besides moe_mlir: any of {', '.join(names)}")
    parser.add_argument("--budget", type=float, default=25.0, metavar="MINUTES",
                        help="approximate time limit of the run (default %(default)s)")
    add_all_rows(parser)
    parser.add_argument("--quick", action="store_true",
                        help="only granite with T = 1, 32 and 128, in 3 minutes")
    parser.add_argument("--seed", type=int, default=0)


def add_all_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all-rows", action="store_true",
                        help="report all cells and participants, not a selection")


def run(arguments: argparse.Namespace) -> int:
    if arguments.quick:
        arguments.shapes, arguments.tokens, arguments.budget = ["granite"], [1, 32, 128], 3.0
    cores = len(os.sched_getaffinity(0))
    threads = arguments.threads or [n for n in (1, 2) if n <= cores]
    if threads[-1] > cores:
        raise SystemExit(f"bench: expected at most {cores} threads, got {threads[-1]}")
    output = arguments.json or machine.ROOT / "build" / "bench" / "cpu.json"
    output.parent.mkdir(parents=True, exist_ok=True)

    participants = [p.name for p in chosen(["moe_mlir", *arguments.peers])]
    if arguments.formats and "ggml" not in participants:
        raise SystemExit("bench: expected ggml among the peers, as it quantises for --formats")
    pythons, absent = _prepare(participants)
    end = time.monotonic() + 60 * arguments.budget
    print("peaks of the machine", flush=True)
    library = peaks.build(output.parent)
    measured = {n: peaks.measure(library, n) for n in threads}
    result: dict[str, Any] = {
        "format": 1, "benchmark": "cpu", "date": machine.now(), "commit": machine.commit(),
        "machine": machine.describe(),
        "versions": machine.versions() | environments.versions(participants),
        "options": {"shapes": arguments.shapes, "tokens": arguments.tokens,
                    "dtypes": arguments.dtypes, "formats": arguments.formats, "threads": threads,
                    "routings": arguments.routings, "participants": participants,
                    "budget_minutes": arguments.budget, "seed": arguments.seed},
        "peaks": list(measured.values()), "cells": [], "costs": [], "refused": []}

    if "ggml" in participants and "ggml" not in absent:
        result["versions"]["ggml"] = f"of {ggml.version()}"
    groups = [(shape, dtype, n) for shape in arguments.shapes
              for dtype in [*arguments.dtypes, *arguments.formats] for n in threads]
    result["memory"] = _memory([group for group in groups if group[1] in DTYPE_BYTES])
    # Half a second is the start-up time of a process.
    budget = timing.Budget(end - time.monotonic(), [
        0.5 + len(arguments.routings) * sum(weight(SHAPES[s], d, t, measured[n])
                                            for t in arguments.tokens)
        for s, d, n in groups])
    for shape, dtype, n in groups:
        seconds = budget.next()
        print(f"{shape} {dtype}, {n} thread{'s' if n > 1 else ''}, {seconds:.0f} s", flush=True)
        task = {"shape": shape, "dtype": dtype, "threads": n, "cpus": machine.cpus(n),
                "tokens": arguments.tokens, "routings": arguments.routings,
                "participants": [name for name in participants
                                 if dtype in DTYPE_BYTES or PARTICIPANTS[name].formats],
                "seconds": seconds, "seed": arguments.seed, "peaks": measured[n],
                "absent": absent | _too_slow_peers(shape, result["cells"]), "pythons": pythons}
        _group(task, result)
        # The maximum of several measurements, as other processes may run on the machine.
        for name, again in peaks.measure(library, n).items():
            measured[n][name] = max(measured[n][name], again)
        _set_limits(result)
        report.write(result, output, arguments.all_rows)
    print(report.markdown(result, arguments.all_rows))
    for path in report.write(result, output, arguments.all_rows):
        print(path)
    return 0


def _prepare(participants: Sequence[str]) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Build and install what is missing; return the Python of each participant that has its own,
    and the participants that this failed for, with the reason."""
    pythons, absent = {}, {}
    for name in participants:
        try:
            if name == "ggml":
                if not ggml.library_path().exists():
                    print(f"building ggml of {ggml.version()}, some minutes, once", flush=True)
                ggml.build()
            if requirements := PARTICIPANTS[name].requirements:
                pythons[name] = str(environments.python(requirements))
        except Unavailable as error:
            print(f"{name}: {error}", flush=True)
            absent[name] = ("unavailable", str(error))
    return pythons, absent


def _set_limits(result: dict[str, Any]) -> None:
    """Add the roofline time of the machine to each cell."""
    measured = {p["threads"]: p for p in result["peaks"]}
    for cell in result["cells"]:
        cell["limit"] = roofline.seconds(
            SHAPES[cell["shape"]], cell["dtype"], cell["tokens"], cell["active_experts"],
            measured[cell["threads"]])


def _group(task: dict[str, Any], result: dict[str, Any]) -> None:
    """Run the worker of a shape, a type and a thread count."""
    key = {name: task[name] for name in ("shape", "dtype", "threads")}
    for event in _events(task):
        kind = event.pop("event")
        if kind == "cell":
            result["cells"].append(key | event)
            _print_cell(result["cells"][-1])
        elif kind in ("costs", "refused"):
            result[kind].append(key | event)


def _too_slow_peers(shape: str, cells: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Return the peers to skip, which were ``TOO_SLOW`` times slower than the best peer in all
    previous cells of this shape: one call may take longer than the rest of the cell."""
    ratios: dict[str, list[float]] = {}
    for cell in cells:
        if cell["shape"] == shape and (best := best_of(cell, PEERS)):
            for name in cell["participants"]:
                if name in PEERS and (median := time_of(cell, name)):
                    ratios.setdefault(name, []).append(median / best[1])
    return {name: ("skipped", f"at least {min(times):.0f} times slower than the best peer in all "
                   "previous cells of this shape")
            for name, times in ratios.items() if min(times) > TOO_SLOW}


def _events(task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of a worker; that it did not come to its end is the last one."""
    with tempfile.TemporaryDirectory(prefix="moe-bench-") as directory:
        path, errors = Path(directory) / "events", Path(directory) / "errors"
        path.touch()
        weights = SHAPES[task["shape"]].weight_bytes(task["dtype"])
        # Each participant may fail to answer once.
        end = time.monotonic() + GRACE * task["seconds"] + len(task["participants"]) * (
            ANSWER_SECONDS + OPEN_SECONDS_A_BYTE * weights)
        with errors.open("w") as stderr, path.open() as events:
            process = subprocess.Popen([sys.executable, "-m", "bench.cpu.worker"], text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                       stderr=stderr)
            process.stdin.write(json.dumps(task | {"events": str(path), "cache": directory}))
            process.stdin.close()
            running, rest = True, ""
            while running:
                running = process.poll() is None
                *lines, rest = (rest + events.read()).split("\n")
                for event in map(json.loads, lines):
                    if event["event"] == "end":
                        process.wait()
                        return
                    yield event
                if running and time.monotonic() > end:
                    process.kill()
                    process.wait()
                    yield {"event": "refused", "reason": "the worker timed out and was killed"}
                    return
                time.sleep(POLL_SECONDS if running else 0)
        code = process.returncode
        how = (f"the worker ended by {signal.Signals(-code).name}" if code < 0 else
               f"the worker ended with status {code}")
        if code > 0 and (lines := errors.read_text().strip().splitlines()):
            how += f": {lines[-1][:300]}"
        yield {"event": "refused", "reason": how}


def _memory(groups: list[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """Measure the memory of a process with one layer, of the smallest shape in each type."""
    from .participants import moe_mlir

    if not groups:
        return []
    shape = min((SHAPES[s] for s, _, _ in groups), key=lambda s: s.parameters)
    threads, found = groups[-1][2], []
    for dtype in dict.fromkeys(d for _, d, _ in groups):
        size = shape.parameters * DTYPE_BYTES[dtype]
        memory = (moe_mlir.peak_memory(shape, dtype, threads, MEMORY_TOKENS)
                  if size <= MEMORY_LIMIT else {"error": "its weights are too large to write"})
        found.append({"shape": shape.key, "dtype": dtype, "threads": threads} | memory)
    return found


def _print_cell(cell: dict[str, Any]) -> None:
    times = ", ".join(
        f"{name} {1e3 * found['median']:.3g} ms" if found["status"] == "ok" else
        f"{name} {found['status']}" for name, found in cell["participants"].items())
    print(f"  T = {cell['tokens']} {cell['routing']}: {times}", flush=True)
