"""ggml as a participant of ``bench cpu``; most of it is skipped where that has not built it."""

from __future__ import annotations

import dataclasses
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from bench.common import data, machine, oracle, shapes
from bench.common.formats import FORMATS
from bench.common.participants import Unavailable
from bench.cpu import bench as cpu
from bench.cpu import ggml, worker
from bench.cpu.participants import PARTICIPANTS, Case, ggml_graph

needs_ggml = pytest.mark.skipif(
    not ggml.library_path().exists(),
    reason="ggml is not built; './dev bench cpu --quick --peers ggml' does that")

# Whole blocks of every format.
SMALL = shapes.Shape("small", "small", 256, 512, 8, 2, True, shapes.SHAPES["tiny"].config)
SHAPES = {"softmax": dataclasses.replace(SMALL, renormalise=False), "renormalised": SMALL,
          "one choice": dataclasses.replace(SMALL, top_k=1),
          "shared": dataclasses.replace(SMALL, top_k=3, shared=256)}
PEAKS = {"threads": 1, "fma_f32": 100e9, "dot_bf16": 200e9, "read": 20e9, "copy": 10e9}


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """Quantising takes long."""
    monkeypatch.setattr(data, "QUANTISED_ROWS", 64)


# -- formats ----------------------------------------------------------------


@needs_ggml
@pytest.mark.parametrize("name", list(FORMATS))
def test_formats_decode_to_what_ggml_decodes(name):
    numbers = np.random.default_rng(1).standard_normal((3, 512)).astype(np.float32)
    rows = ggml.quantise(name, numbers)
    expected = ggml.decode(name, rows, numbers.size)
    np.testing.assert_allclose(FORMATS[name].decode(rows).ravel(), expected, rtol=1e-6,
                               atol=1e-6 * np.abs(expected).max())


# Half of the largest step of each format, over the largest magnitude in a block of uniform numbers:
# q4_0 has no 8, and mxfp4 no 8, which is that magnitude. Rounding of the scales adds to it.
@needs_ggml
@pytest.mark.parametrize("name, step", [
    ("q8_0", 1 / 254), ("q4_0", 1 / 8), ("q4_K", 1 / 14), ("q6_K", 1 / 50), ("mxfp4", 1 / 4)])
def test_ggml_quantises(name, step):
    rows = np.random.default_rng(2).uniform(-1, 1, (5, 512)).astype(np.float32)
    decoded = FORMATS[name].decode(ggml.quantise(name, rows))
    assert np.abs(decoded - rows).max() <= 1.2 * step


# -- the layer --------------------------------------------------------------


def run(shape, dtype, tokens, threads=1, layers=2, weights=None):
    """Return the results of all layers on the first input, and what they should be."""
    quantise = ggml.quantise if dtype in FORMATS else None
    made = data.make_layers(shape, dtype, 3, layers, quantise)
    batch = next(data.batches(shape, made[0].router, dtype, tokens, "uniform", seed=4))
    runner = ggml_graph.open(Case(shape, dtype, threads, weights or made, ""))
    runner.load([batch.x])
    results = []
    for layer in range(layers):
        runner.step(layer)
        results.append(runner.output())
    return runner, results, [oracle.run(shape, w, batch.x) for w in made]


@needs_ggml
@pytest.mark.parametrize("shape", list(SHAPES))
@pytest.mark.parametrize("dtype", [*shapes.DTYPE_BYTES, *FORMATS])
def test_ggml_computes_the_layer(dtype, shape):
    for tokens in (1, 5, 67):
        _, results, expected = run(SHAPES[shape], dtype, tokens, threads=1 + tokens % 2)
        for actual, right in zip(results, expected):
            error = oracle.relative_error(actual, right)
            assert error <= oracle.tolerance(dtype, SHAPES[shape].top_k), (tokens, error)


@needs_ggml
def test_inputs_and_token_counts_change():
    """Each call has the input and the layer that it asks for, whatever ran before."""
    weights = data.make_layers(SMALL, "f32", 5, 2)
    runner = ggml_graph.open(Case(SMALL, "f32", 2, weights, ""))
    for tokens in (7, 1, 40, 7):
        stream = data.batches(SMALL, weights[0].router, "f32", tokens, "zipf", seed=tokens)
        inputs = [batch.x for batch in islice(stream, 3)]
        runner.load(inputs)
        for call in (0, 5, 2, 3, 0):
            runner.step(call)
            right = oracle.run(SMALL, weights[call % 2], inputs[call // 2])
            assert oracle.relative_error(runner.output(), right) < 1e-5


@needs_ggml
def test_what_llama_cpp_reorders_is_reordered():
    """Both tensors of experts in the formats that have a kernel for it with AVX2."""
    expected = {"f32": 0, "f16": 0, "bf16": 0}
    if "avx2" in machine.flags().split():
        expected |= {"q4_0": 2, "q4_K": 2, "mxfp4": 2}
    for dtype, count in expected.items():
        assert run(SMALL, dtype, 1)[0].reordered == count, dtype


# -- in a run ---------------------------------------------------------------


def work(monkeypatch, dtype, absent=None):
    """Run a worker with ggml alone; return its events."""
    monkeypatch.setitem(shapes.SHAPES, "small", SMALL)
    events = []
    task = {"shape": "small", "dtype": dtype, "threads": 1, "tokens": [1, 9],
            "routings": ["uniform"], "participants": ["ggml"], "seconds": 1.0, "seed": 0,
            "peaks": PEAKS, "absent": absent or {}, "pythons": {}, "cache": ""}
    made = worker.Worker(task, lambda kind, **values: events.append((kind, values)))
    try:
        made.run()
    finally:
        made.close()
    return [values["participants"]["ggml"] for kind, values in events if kind == "cell"]


@needs_ggml
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "q4_K"])
def test_a_worker_measures_it(monkeypatch, dtype):
    cells = work(monkeypatch, dtype)
    assert [cell["status"] for cell in cells] == ["ok", "ok"]
    assert all(0 < cell["minimum"] <= cell["median"] for cell in cells)


@needs_ggml
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", *FORMATS])
@pytest.mark.parametrize("broken", ["gate_up_proj", "down_proj"])
def test_a_wrong_result_is_not_measured(monkeypatch, dtype, broken):
    """Two experts have each other's weights."""
    add = ggml_graph.Network._add

    def swap(self, weights):
        array = getattr(weights, broken)
        swapped = data.empty(array.shape, array.dtype)
        swapped[...] = array[np.arange(len(array)) ^ 1]
        add(self, dataclasses.replace(weights, **{broken: swapped}))

    monkeypatch.setattr(ggml_graph.Network, "_add", swap)
    for cell in work(monkeypatch, dtype):
        assert cell["status"] == "wrong" and "median" not in cell
        assert cell["error"] > 5 * oracle.tolerance(dtype, SMALL.top_k)


def test_it_is_absent_with_the_reason_where_it_cannot_be_built(monkeypatch, tmp_path):
    monkeypatch.setattr(ggml, "BUILDS", tmp_path)
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'ERROR: no matching distribution' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    pythons, absent = cpu._prepare(["moe_mlir", "ggml"])
    reason = "python failed: ERROR: no matching distribution"
    assert absent == {"ggml": ("unavailable", reason)}
    assert pythons == {} and cpu._prepare(["moe_mlir"]) == ({}, {})
    assert work(monkeypatch, "f32", absent) == 2 * [{"status": "unavailable", "reason": reason}]
    with pytest.raises(Unavailable, match="needs ggml: python failed"):
        work(monkeypatch, "q4_0", absent)


def test_formats_are_for_those_who_take_them():
    assert [p.name for p in PARTICIPANTS.values() if p.formats] == ["moe_mlir", "ggml"]
    ggml_ = PARTICIPANTS["ggml"]
    assert (ggml_.copies_in("bf16"), ggml_.copies_in("q4_0")) == (0, 1)
