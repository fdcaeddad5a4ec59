"""``./dev bench gpu``: MoE layers on an NVIDIA GPU, this project and its peers."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from moe_testing.device import cuda_driver

from ..common import machine, routing
from ..common.options import counts, names_of
from ..device import bundle as bundles
from ..device import supervise
from ..device.shapes import ALL, SHAPES
from . import report
from .participants import CONSUMER_FENCE, PARTICIPANTS

WORKER, PEAKS = "bench.gpu.worker", "bench.gpu.peaks"
NAMES = tuple(PARTICIPANTS)
# Participants of the first groups, which compare both proxy fences: no peers, which compile.
FIRST = ("moe_mlir", CONSUMER_FENCE, "dense")
# The weight of such a cell in the time budget; others have 1.
FIRST_WEIGHT = 4.0
# A process must send an event this often, unless it announces otherwise.
SILENCE_SECONDS = 60.0
# Restarts of a process without the participant that crashed it.
RESTARTS = 12
# Shapes in which this project may crash the process before it is excluded.
OUR_FAILURES = 3
# Minimum tokens of cells with Zipf routing; with fewer, uniform draws are as skewed.
LEAST_SKEWED = 512
PACKAGES = ("torch", "triton", "jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin",
            "nvidia-cublas")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE",
                        default=Path("build/bench/gpu.json"),
                        help="the results; report and plot are written next to it "
                        "(default %(default)s)")
    parser.add_argument("--shapes", type=names_of(ALL), default=list(SHAPES), metavar="A,B",
                        help=f"any of {', '.join(ALL)} (default: all but those for checks)")
    parser.add_argument("--tokens", type=counts, default=None, metavar="T,T",
                        help="token counts (default: those of each shape)")
    parser.add_argument("--routings", type=names_of(("uniform", "zipf")),
                        default=list(routing.ROUTINGS), metavar="A,B",
                        help="any of uniform, zipf")
    parser.add_argument("--peers", type=names_of(NAMES[1:]), default=list(NAMES[1:]),
                        metavar="A,B", help=f"any of {', '.join(NAMES[1:])}")
    parser.add_argument("--minutes", type=float, default=9.0,
                        help="time limit of the run (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0,
                        help="time limit for the rounds of a cell (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> int:
    begin = time.monotonic()
    end = begin + 60 * arguments.minutes
    bundle = bundles.find()
    device = cuda_driver.driver().describe()
    if missing := [key for key in arguments.shapes if key not in bundle.shapes()]:
        raise bundles.NoBundle(f"'{bundle.directory}' has no artifact of {missing[0]}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    names = ["moe_mlir", *(name for name in NAMES[1:] if name in arguments.peers)]
    result: dict[str, Any] = {
        "format": 1, "benchmark": "gpu", "date": machine.now(), "commit": bundle.commit,
        "device": device.as_dict() | {"double": cuda_driver.is_double()}, "clocks": [_clocks()],
        "machine": machine.describe(), "versions": _versions(),
        "options": {"shapes": arguments.shapes, "tokens": arguments.tokens,
                    "routings": arguments.routings, "participants": names,
                    "minutes": arguments.minutes, "seed": arguments.seed},
        "peaks": None, "cells": [], "refused": [],
        "predictions": bundle.predictions(device.name)}
    report.write(result, arguments.json, plot=False)
    print(f"{device.name}, {device.driver}; commit {bundle.commit}", flush=True)
    for event in supervise.events(PEAKS, {}, SILENCE_SECONDS, end):
        if event["event"] == "peaks":
            result["peaks"] = {k: event[k] for k in ("copy", "dense_bf16")}
            print(f"copy {event['copy'] / 1e12:.2f} TB/s, dense matmul "
                  f"{event['dense_bf16'] / 1e12:.0f} TFLOP/s", flush=True)
        elif event["event"] == "ended" and not event["ok"]:
            result["refused"].append({"shape": "peaks", "reason": event["how"]})
            print(f"peaks: {event['how']}", flush=True)
    _groups(_make_groups(arguments, names, bundle.shapes("consumer")), arguments, end, result)
    result["clocks"].append(_clocks())
    result["seconds"] = time.monotonic() - begin
    print(report.markdown(result))
    for path in report.write(result, arguments.json):
        print(path)
    ours = [cell["participants"]["moe_mlir"]["status"] for cell in result["cells"]]
    return 0 if ours and all(status == "ok" for status in ours) else 1


def _make_groups(arguments: argparse.Namespace, names: list[str],
                 both_fences: set[str]) -> list[dict[str, Any]]:
    """Order groups by importance: first layers with both proxy fences, without peers and Zipf
    routing; then all shapes in their order, each by ascending tokens, uniform before Zipf."""
    first = []
    if CONSUMER_FENCE in names:
        first = [group | {"participants": [name for name in names if name in FIRST],
                          "weight": FIRST_WEIGHT}
                 for group in _of_shapes(arguments, [k for k in arguments.shapes
                                                     if k in both_fences], skewed=False)]
    rest = [name for name in names if name != CONSUMER_FENCE]
    groups = [group | {"participants": rest} for group in _of_shapes(arguments, arguments.shapes)]
    for name in names:
        if (most := PARTICIPANTS[name].most_shapes) is not None:
            for group in groups[most:]:
                group["excluded"][name] = (
                    "skipped", f"compiles for each number of tokens, so it has {most} shapes only")
    return first + groups


def _of_shapes(arguments: argparse.Namespace, keys: list[str],
               skewed: bool = True) -> list[dict[str, Any]]:
    groups = []
    for key in keys:
        shape = ALL[key]
        tokens = arguments.tokens or shape.tokens
        kinds = [kind for kind in shape.routings
                 if kind == "natural" or kind in arguments.routings]
        if not skewed and kinds != ["zipf"]:
            kinds = [kind for kind in kinds if kind != "zipf"]
        cells = [[t, kind] for kind in kinds for t in tokens
                 if kind != "zipf" or arguments.tokens or t >= LEAST_SKEWED]
        if cells:
            groups.append({"shape": key, "cells": cells, "excluded": {}})
    return groups


def _add(cell: dict[str, Any], cells: list[dict[str, Any]]) -> None:
    """Add a cell, or new participants of an existing one."""
    found = cell["participants"]
    if (all(found.get(name, {}).get("status") == "ok" for name in (CONSUMER_FENCE, "moe_mlir"))
            and "median" in found["moe_mlir"]):
        # Only times of the same interleaved rounds are comparable.
        found[CONSUMER_FENCE]["beside"] = found["moe_mlir"]["median"]
    if (other := _same(cell, cells)) is None:
        cells.append(cell)
    else:
        other.update(cell | {"participants": other["participants"] | found})


def _same(cell: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((other for other in cells if all(
        other.get(key) == cell[key] for key in ("shape", "tokens", "routing"))), None)


def _groups(groups: list[dict[str, Any]], arguments: argparse.Namespace, end: float,
            result: dict[str, Any]) -> None:
    """Run all shapes in one process, restarted without a participant that crashed it."""
    failures = 0
    for _ in range(1 + RESTARTS):
        groups[:] = [group for group in groups if group["cells"]]
        left, running, how, passed = end - time.monotonic(), None, "", 0
        if not groups or left <= 0:
            break
        for event in supervise.events(
                WORKER, {"groups": groups, "seed": arguments.seed, "seconds": left,
                         "most": arguments.seconds}, SILENCE_SECONDS, end):
            kind = event.pop("event")
            event.pop("silence", None)
            if kind == "group":
                # Earlier cells are done, or rejected.
                del groups[:event["number"] - passed]
                passed, running = event["number"], None
            elif kind == "running":
                running = event["participant"]
            elif kind == "cell":
                groups[0]["cells"].remove([event["tokens"], event["routing"]])
                _add(event, result["cells"])
                report.print_cell(event)
                report.write(result, arguments.json, plot=False)
            elif kind == "refused":
                result["refused"].append(event)
                print(f"{event['shape']}: {event['reason']}", flush=True)
            elif kind == "out of time":
                return _not_measured(groups, "no time was left", result)
            elif kind == "ended":
                if event["ok"]:
                    return
                how = event["how"]
        print(f"{groups[0]['shape']}: {how}, while running: {running}", flush=True)
        if running not in groups[0]["participants"] or running in groups[0]["excluded"]:
            _not_measured(groups[:1], f"{how}, while running: {running}", result)
            groups.pop(0)
            continue
        # Other shapes use other kernels of this project, so it is retried on them.
        failures += running == "moe_mlir"
        again = running == "moe_mlir" and failures < OUR_FAILURES
        for group in groups[:1] if again else groups:
            group["excluded"].setdefault(running, ("failed", f"{how} while it ran"))
    late = time.monotonic() > end
    _not_measured(groups, "no time was left" if late else "too many processes crashed", result)


def _not_measured(groups: list[dict[str, Any]], why: str, result: dict[str, Any]) -> None:
    for group in groups:
        for tokens, kind in group["cells"]:
            cell = {"shape": group["shape"], "tokens": tokens, "routing": kind}
            if (measured := _same(cell, result["cells"])) is not None:
                for name in group["participants"]:
                    measured["participants"].setdefault(
                        name, {"status": "not run", "reason": why})
            elif _same(cell, result["refused"]) is None:
                result["refused"].append(cell | {"reason": why})


def _clocks() -> dict[str, str]:
    """Return nvidia-smi's clocks of the first GPU."""
    fields = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "power.draw",
              "temperature.gpu")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    done = subprocess.run([tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader",
                           "--id=0"], capture_output=True, text=True)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    return dict(zip(fields, values)) if len(values) == len(fields) else {}


def _versions() -> dict[str, str]:
    return machine.versions(PACKAGES)
