"""The checks and benchmarks for a GPU (bench/device, bench/gpu), on the CUDA double."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from moe_testing.device import double

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))

from bench.device import bundle as bundles
from bench.device import supervise
from bench.device.shapes import ALL, SHAPES
from bench.gpu import clock, report


def environment(**more):
    paths = [ROOT, ROOT / "python"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | more


def command(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "bench.gpu", *arguments], text=True, cwd=ROOT,
                          capture_output=True, env=environment(**more))


def run(directory, *arguments, **more):
    """What a bundle does with its own Python files."""
    variables = {"PYTHON": sys.executable, "MOE_CUDA_LIBRARY": double.find_driver(), **more}
    return subprocess.run([directory / "run", *arguments], text=True, capture_output=True,
                          cwd=directory, env=os.environ | variables)


@pytest.fixture(scope="module")
def packed(compiled, tmp_path_factory):
    double.needs_device()
    directory = tmp_path_factory.mktemp("bundle") / "gpu"
    done = command("pack", str(directory), "--families", "switch", "--dtypes", "bf16",
                   "--targets", "sm_90a,sm_80", "--shapes",
                   "tiny,tiny_sigmoid,tiny_clamped")
    assert done.returncode == 0, done.stderr
    return directory


# -- bundles ------------------------------------------------------------------


def test_bundle_has_what_it_says(packed):
    bundle = bundles.Bundle(packed)
    assert {spec.key for spec in bundle.specs} == {
        f"{name}-bf16-{target}" for name in ("switch", "tiny")
        for target in ("sm_80", "sm_90a")} | {
            f"tiny_{name}-bf16-sm_90a-sm_80" for name in ("sigmoid", "clamped")} | {
                "tiny-bf16-sm_90a-consumer_fence"}
    assert bundle.shapes("consumer") == {"tiny"}
    assert all(bundle.artifact(spec.key) for spec in bundle.specs)
    assert bundle.commit == bundles.machine.commit()
    with pytest.raises(bundles.NoBundle, match="has no artifact of mixtral"):
        bundle.artifact("mixtral-bf16-sm_80")


def test_bundle_has_predictions(packed):
    """They are of the devices that the model knows, longer for more tokens."""
    bundle = bundles.Bundle(packed)
    for device in ("NVIDIA H100 80GB HBM3", "NVIDIA H200"):
        found = bundle.predictions(device)
        assert set(found) == {"tiny", "tiny_sigmoid", "tiny_clamped"}
        assert {"1", "8"} <= set(found["tiny"])
        assert 0 < found["tiny_clamped"]["1"] < found["tiny_clamped"]["32768"] < 1
    assert bundle.predictions("NVIDIA GeForce GT 710") == {}


def test_report_compares_with_predictions(packed):
    participants = {"moe_mlir": {"status": "ok", "median": 30e-6, "mad": 0, "by": "graph"}}
    cells = [{"shape": "tiny", "tokens": 1, "routing": routing, "participants": participants}
             for routing in ("uniform", "zipf")]
    result = {"cells": cells, "predictions": {"tiny": {"1": 20e-6}}}
    assert report._predictions(result)[2:] == ["| tiny | 1 | 20 | 30 | 1.50 |", ""]
    assert report._predictions(result | {"predictions": {}})[2:] == [""]


def test_whole_bundle_is_small(packed):
    """All there is to pack, with as many bytes a target as the most of these: below the limit."""
    found = {path: path.stat().st_size for path in packed.rglob("*") if path.is_file()}
    targets = {f"{spec.key}.moe": len(spec.target.split(","))
               for spec in bundles.Bundle(packed).specs}
    with bundles.zipfile.ZipFile(packed / "artifacts.zip") as archive:
        largest = max(info.compress_size / targets[info.filename] for info in archive.infolist())
    from moe_testing import layers

    count = len(list(bundles.specs(list(layers.FAMILIES), list(ALL), bundles.DTYPES,
                                   bundles.TARGETS)))
    # Those for two targets count twice.
    assert sum(found.values()) + (count + len(SHAPES)) * largest < bundles.LIMIT


def test_pack_spares_folders_of_others(tmp_path):
    (tmp_path / "thesis.txt").write_text("the only copy")
    done = command("pack", str(tmp_path), "--families", "none", "--shapes", "tiny")
    assert done.returncode == 1 and "is not empty and no bundle" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("arguments, message", [
    (["pack", "--families", "mixtrel"], "expected some of mixtral"),
    (["pack", "--shapes", "huge"], "expected some of fine"),
    (["check", "--tokens", "0"], "expected positive numbers, got '0'"),
    (["chek"], "invalid choice: 'chek'")])
def test_arguments(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2 and message in done.stderr


def test_no_bundle(tmp_path):
    for name in ("check", "bench"):
        done = command(name, MOE_GPU_BUNDLE=str(tmp_path))
        assert done.returncode == 1 and "./dev pack gpu makes one" in done.stderr


@pytest.mark.parametrize("name", ["check", "bench"])
def test_no_gpu(packed, name):
    done = run(packed, name, MOE_CUDA_DOUBLE_DEVICES="0")
    assert done.returncode == 1
    assert "the NVIDIA driver finds no GPU: cuInit: CUDA_ERROR_NO_DEVICE" in done.stderr
    done = run(packed, name, MOE_CUDA_LIBRARY="libnone.so.1")
    assert done.returncode == 1 and "there is no NVIDIA driver" in done.stderr


def test_dev_says_that_there_is_no_gpu():
    for arguments in (["check", "gpu"], ["bench", "gpu"]):
        done = subprocess.run([ROOT / "dev", *arguments], text=True, capture_output=True,
                              env=os.environ | {"MOE_CUDA_LIBRARY": "libnone.so.1",
                                                "PYTHON": sys.executable})
        assert done.returncode == 1
        assert "dev: there is no NVIDIA driver: libnone.so.1" in done.stderr


# -- check ----------------------------------------------------------------------


def test_check_passes(packed, tmp_path):
    done = run(packed, "check", "--jobs", "2", "--only", "switch.*90a|tiny-", "--json",
               tmp_path / "check.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed, 0 failed" in done.stdout.splitlines()[-1]
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["device"]["name"].startswith("CUDA double") and len(found["cases"]) == 4
    assert not found["not_run"]


def test_check_leaves_what_it_has_no_time_for(packed, tmp_path):
    """That has not run, and is neither right nor wrong."""
    path = tmp_path / "results" / "check.json"
    done = run(packed, "check", "--minutes", "0.001", "--no-sanitizer", "--json", path)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1 and "0 passed, 0 failed" in last and "FAIL" not in done.stdout
    found = json.loads(path.read_text())
    assert not found["cases"] and f"{len(found['not_run'])} not run" in last
    assert {"switch-bf16-sm_90a", "tiny_sigmoid-bf16-sm_90a-sm_80 T = 64"} < set(found["not_run"])


def test_check_begins_with_what_says_most(packed):
    from bench.device import check

    keys = [("family", "switch", "sm_80"), ("shape", "granite", "sm_90a,sm_80"),
            ("shape", "odd_deep", "sm_90a", "consumer"), ("shape", "fine", "sm_90a", "consumer"),
            ("shape", "fine", "sm_90a,sm_80"), ("shape", "odd_deep", "sm_90a"),
            ("family", "qwen3_moe", "sm_90a")]
    specs = [bundles.Spec(kind, name, "bf16", target, *fence)
             for kind, name, target, *fence in keys]
    assert [[specs.index(spec) for spec in its] for its in check._by_priority(specs).values()] == [
        [5, 6], [4], [2, 3], [0], [1]]
    listed = run(packed, "check", "--list").stdout.split()
    assert listed.index("tiny-bf16-sm_90a-consumer_fence") == 0 and len(listed) == 7


def test_check_of_models(packed, tmp_path):
    """Layers that the benchmark measures are checked as it does."""
    arguments = ("check", "--only", "tiny_", "--tokens", "3,9", "--no-sanitizer")
    done = run(packed, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed, 0 failed, 0 skipped" in done.stdout
    directory = broken(packed, tmp_path, "        self.layers[layer](",
                       "        if len(self.inputs[x].shape) and self.result.shape[0] == 3:\n"
                       "            __import__('os').abort()\n        self.layers[layer](",
                       "python/bench/gpu/participants/moe_mlir.py")
    done = run(directory, *arguments)
    assert done.returncode == 1
    assert "the process ended by SIGABRT" in done.stdout
    assert "2 passed, 2 failed, 0 skipped" in done.stdout


def test_check_skips_what_the_gpu_cannot_run(packed):
    done = run(packed, "check", "--only", "switch", "--tokens", "7", "--no-sanitizer",
               MOE_CUDA_DOUBLE_ARCH="8.0")
    assert done.returncode == 0, done.stdout
    assert "skip switch-bf16-sm_90a: needs compute capability 9.0" in done.stdout
    assert "1 passed, 0 failed, 1 skipped" in done.stdout


def broken(packed, tmp_path, old, new, file="python/moe_testing/oracles/formulas.py"):
    """A copy of the bundle in which something is wrong."""
    directory = tmp_path / "broken"
    shutil.copytree(packed, directory)
    path = directory / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return directory


@pytest.mark.parametrize("old, new, message, file", [
    # A number: as if the kernel had another constant.
    ("np.exp(-g)", "np.exp(-1.1 * g)", "relative error", "python/bench/common/oracle.py"),
    # A weight: the device has another one than the reference.
    ("arrays.upload(array, guarded=True) for name, array in weights.items()",
     "arrays.upload(array[::-1] if name == 'down_proj' else array, guarded=True) "
     "for name, array in weights.items()", "relative error",
     "python/bench/device/check_worker.py"),
    # Bits that change.
    ("first, second = runner.run(arrays.POISON), runner.run(0x00)",
     "first, second = runner.run(arrays.POISON), runner.run(0x00) + 1",
     "a second run gives other bits", "python/bench/device/check_worker.py"),
    # An output that is not written.
    ("        self.enqueue()\n", "", "elements in 7 of 7 rows, the first at [0, 0]: nan",
     "python/bench/device/check_worker.py"),
    # Something beside an array.
    ("self.address = self._memory.address + GUARD",
     "self.address = self._memory.address + GUARD - 256", "was written beside",
     "python/moe_testing/device/arrays.py"),
    # A process that ends.
    ("        self.enqueue()\n", "        __import__('os').abort()\n",
     "the process ended by SIGABRT", "python/bench/device/check_worker.py")])
def test_check_fails(packed, tmp_path, old, new, message, file):
    done = run(broken(packed, tmp_path, old, new, file), "check", "--only", "tiny-.*90a$",
               "--tokens", "7", "--no-sanitizer")
    assert done.returncode == 1
    assert message in done.stdout
    assert "0 passed, 1 failed" in done.stdout.splitlines()[-1]


def test_check_goes_on_behind_a_process_that_ended(packed, tmp_path):
    start = "    case = (FamilyCase"
    end = "    if spec.name == 'switch': __import__('os').abort()\n"
    directory = broken(packed, tmp_path, start, end + start, "python/bench/device/check_worker.py")
    done = run(directory, "check", "--jobs", "1", "--only", "bf16-sm_80", "--tokens", "7",
               "--no-sanitizer")
    assert done.returncode == 1
    assert "1 passed, 1 failed" in done.stdout.splitlines()[-1]


SANITIZER = """\
#!/bin/sh
# --tool NAME --error-exitcode N --print-limit N PROGRAM...
name=$2
shift 6
"$@"
echo "========= ERROR SUMMARY: of $name"
[ $name != racecheck ] || exit 86
"""


def test_sanitizer(packed, tmp_path):
    """Its exit status decides, and what it says is kept."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(SANITIZER)
    tool.chmod(0o755)
    directory = broken(packed, tmp_path, '"gpt_oss-bf16-sm_90a"', '"switch-bf16-sm_90a"',
                       "python/bench/device/check.py")
    done = run(directory, "check", "--only", "switch.*90a", "--tokens", "1",
               PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1, done.stdout
    assert "ok   memcheck switch-bf16-sm_90a: no errors" in done.stdout
    assert ("FAIL racecheck switch-bf16-sm_90a: ========= ERROR SUMMARY: of racecheck"
            in done.stdout)
    assert "3 passed, 1 failed, 0 skipped" in done.stdout


# -- bench ----------------------------------------------------------------------


def bench(directory, tmp_path, *arguments, **more):
    path = tmp_path / "gpu.json"
    done = run(directory, "bench", "--json", path, "--tokens", "5", "--seconds", "0.01",
               "--routings", "uniform", *arguments, **more)
    return done, json.loads(path.read_text()) if path.exists() else None


def test_bench_measures(packed, tmp_path):
    """All kinds of layers, through the double; torch computes on the CPU beside it."""
    done, found = bench(packed, tmp_path, "--shapes", "tiny,tiny_sigmoid,tiny_clamped")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["device"]["double"] and found["commit"] == bundles.machine.commit()
    assert found["peaks"]["copy"] > 0 and not found["refused"]
    for cell, routing in zip(found["cells"], ("uniform", "natural", "uniform"),
                             strict=True):
        assert (cell["tokens"], cell["routing"]) == (5, routing)
        ours, torch = (cell["participants"][n] for n in ("moe_mlir", "torch_grouped"))
        assert ours["status"] == torch["status"] == "ok"
        assert ours["by"] == "graph" and ours["variant"] == "sm_90a"
        assert 0 < ours["error"] < 0.02 and ours["median"] == ours["graph"]["median"] > 0
        assert cell["participants"]["triton_grouped"]["status"] == "unavailable"
    # The layer that is there with both fences, in the same rounds.
    other, *none = (cell["participants"].get("moe_mlir_consumer_fence")
                    for cell in found["cells"])
    assert other["status"] == "ok" and 0 < other["error"] < 0.02 and other["beside"] > 0
    assert none == [None, None]
    assert found["summary"]["consumer_over_producer"]["count"] == 1
    report = (tmp_path / "gpu.md").read_text()
    assert "| tiny | 5 | uniform |" in report.split("## Proxy fence")[1].split("\n## ")[0]
    assert "the times are meaningless" in report and "| tiny | 5 | uniform |" in report


@pytest.mark.parametrize("old, new, status, reason", [
    ("inputs]\n        tokens", "inputs[::-1]]\n        tokens", "wrong", "relative error"),
    ("    def load(self", "    def load(self, inputs):\n        raise ValueError('no')\n\n"
     "    def unused(self", "failed", "ValueError: no"),
    ("    def output(self", "    def output(self):\n        __import__('os').abort()\n\n"
     "    def unused(self", "failed", "the process ended by SIGABRT while it ran")])
def test_bench_fails(packed, tmp_path, old, new, status, reason):
    """A participant that is wrong, raises or ends the process is left out, with the reason."""
    directory = broken(packed, tmp_path, old, new,
                       "python/bench/gpu/participants/moe_mlir.py")
    done, found = bench(directory, tmp_path, "--shapes", "tiny", "--peers", "dense")
    assert done.returncode == 1
    cell, = found["cells"]
    assert cell["participants"]["moe_mlir"]["status"] == status
    assert reason in cell["participants"]["moe_mlir"]["reason"]
    assert cell["participants"]["dense"]["status"] == "ok"


def test_bench_begins_with_both_fences():
    """Of the layers that have them, without peers; then come all layers with all peers."""
    import argparse

    from bench.gpu import bench as command

    arguments = argparse.Namespace(shapes=["fine", "tiny", "narrow"], tokens=None,
                                   routings=["uniform", "zipf"])
    names = ["moe_mlir", "moe_mlir_consumer_fence", "torch_grouped", "dense"]
    groups = command._make_groups(arguments, names, {"fine", "narrow"})
    assert [group["shape"] for group in groups] == ["fine", "narrow", "fine", "tiny", "narrow"]
    assert all(group["participants"] == ["moe_mlir", "moe_mlir_consumer_fence", "dense"]
               for group in groups[:2])
    assert all(group["participants"] == ["moe_mlir", "torch_grouped", "dense"]
               for group in groups[2:])
    assert groups[0]["cells"] == [[32768, "uniform"]]
    assert groups[2]["cells"] == [[32768, "uniform"], [32768, "zipf"]]


def test_bench_adds_to_a_cell():
    """A participant without time left is missing in a cell measured with others."""
    from bench.gpu import bench as command

    def of(**times):
        return {"shape": "fine", "tokens": 8, "routing": "uniform", "participants": {
            name: {"status": "ok", "median": time} for name, time in times.items()}}

    result = {"cells": [], "refused": []}
    command._add(of(moe_mlir=1.0, moe_mlir_consumer_fence=2.0), result["cells"])
    command._add(of(moe_mlir=3.0, dense=4.0), result["cells"])
    groups = [{"shape": "fine", "cells": [[8, "uniform"], [9, "uniform"]],
               "participants": ["moe_mlir", "torch_grouped"]}] * 2
    command._not_measured(groups, "no time was left", result)
    cell, = result["cells"]
    found = cell["participants"]
    assert found["moe_mlir"]["median"] == 3.0 and found["dense"]["median"] == 4.0
    assert found["moe_mlir_consumer_fence"]["beside"] == 1.0
    assert found["torch_grouped"] == {"status": "not run", "reason": "no time was left"}
    assert [(r["shape"], r["tokens"]) for r in result["refused"]] == [("fine", 9)]


def test_bench_ends_in_time(packed, tmp_path):
    done, found = bench(packed, tmp_path, "--shapes", "tiny", "--minutes", "0.02")
    assert done.returncode == 1
    assert [r["reason"] for r in found["refused"]][-1] == "no time was left"


def test_bench_wants_what_the_bundle_has(packed, tmp_path):
    done, found = bench(packed, tmp_path, "--shapes", "mixtral")
    assert done.returncode == 1 and found is None
    assert "has no artifact of mixtral" in done.stderr


@pytest.mark.parametrize("key", ["tiny", "tiny_sigmoid", "tiny_clamped"])
def test_layers_in_torch(key):
    """The peer's layer and the reference in f64, against numpy and the models' formulas."""
    from moe_testing.oracles import formulas
    import numpy as np
    import torch
    from bench.common import data, oracle
    from bench.gpu import layer
    from bench.gpu.participants import torch_grouped

    shape = ALL[key]
    weights = layer.make_weights(shape, torch.device("cpu"), 1)
    inverse = None if shape.sigmoid else layer.invert(weights["router"])
    batch = layer.make_batch(shape, weights, 40, shape.routings[-1], 2, inverse)
    rows = layer.sample(shape, weights, batch.x, 16)
    expected = layer.reference(shape, weights, batch.x[rows])
    found = torch_grouped.layer(shape, weights, batch.x)[rows].double()
    assert (found - expected).abs().max() < oracle.tolerance("bf16", 2) * expected.abs().max()

    wide = {name: array.double() for name, array in weights.items()}
    x = batch.x[rows].double()
    if shape.clamped:
        logits = x @ wide["router"].T + wide["router_bias"]
        gates = formulas.softmax_gate(logits, 2, True)
        other = formulas.mixture(x, gates, formulas.gpt_oss_experts(wide))
        assert (other - expected).abs().max() < 1e-12
    elif shape.sigmoid:
        gates = formulas.sigmoid_gate(x @ wide["router"].T, wide["e_score_correction_bias"],
                                            2, 2.5, 4)
        gate, up = wide["gate_up_proj"].chunk(2, dim=1)
        named = {"gate_proj": gate, "up_proj": up, "down_proj": wide["down_proj"]}
        other = formulas.mixture(x, gates, formulas.swiglu_experts(named))
        other += formulas.shared(x, wide)
        assert (other - expected).abs().max() < 1e-12
    else:
        arrays = {name: array.numpy() for name, array in wide.items()}
        other = oracle.run(shape, data.Weights(**arrays), x.numpy())
        assert np.abs(other - expected.numpy()).max() < 1e-12


def test_inputs_have_the_routing_that_was_drawn():
    import torch
    from bench.gpu import layer

    shape = ALL["odd_deep"]
    weights = layer.make_weights(shape, torch.device("cpu"), 1)
    batches = [layer.make_batch(shape, weights, 200, kind, 7, layer.invert(weights["router"]))
               for kind in ("uniform", "zipf")]
    loads = [layer.route(shape, weights, b.x)[1].flatten().bincount(minlength=9) for b in batches]
    assert loads[0].max() < 1.5 * loads[0].min() and loads[1].max() > 2 * loads[1].min()


@pytest.mark.parametrize("seconds, rotation, calls", [
    (1e-5, 1, 64), (1e-5, 64, 64), (1e-5, 128, 128), (1e-4, 4, 20), (1e-3, 8, 8), (5e-3, 2, 2),
    (5e-3, 32, 4), (1.0, 4, 1)])
def test_samples_are_whole_rotations_if_they_are_short(seconds, rotation, calls):
    assert clock.calls_of(seconds, rotation) == calls


def test_participants_are_interleaved():
    """The first round is a warm-up, and rounds end at the time limit."""
    now, order = [0.0], []

    def sample(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds
            return seconds
        return run

    found = clock.interleave({"a": sample("a", 1.0), "b": sample("b", 2.0)}, 20.0,
                             clock=lambda: now[0])
    assert found["a"]["median"] == 1.0 and found["b"]["median"] == 2.0
    assert found["a"]["rounds"] == len(order) / 2 - 1 == 6
    assert order[:8] == ["b", "a", "a", "b", "a", "b", "b", "a"]


# -- processes ------------------------------------------------------------------


SILENT = """\
import time
from bench.device import supervise

def work(task, emit):
    emit("begin", silence=1.0)
    time.sleep(600)

supervise.serve(work)
"""


def test_a_silent_process_is_ended(monkeypatch, tmp_path):
    (tmp_path / "silent.py").write_text(SILENT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    first, last = supervise.events("silent", {}, 60.0, float("inf"))
    assert first["event"] == "begin"
    assert last == {"event": "ended", "ok": False, "how": "nothing happened for 1 s"}
