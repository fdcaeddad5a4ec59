"""The parts of the benchmarks that compute something: none needs a peer installed."""

from __future__ import annotations

import argparse
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from bench.common import data, options, oracle, routing, timing
from bench.common.comparison import best_of
from bench.common.rotation import select
from bench.common.shapes import DTYPE_BYTES, SHAPES
from bench.cpu import bench as cpu
from bench.cpu import metrics, peaks, report, roofline
from bench.cpu.participants import PARTICIPANTS, chosen
from bench.cpu.process import time_calls

TINY = SHAPES["tiny"]
PEAKS = {"threads": 1, "fma_f32": 100e9, "dot_bf16": 200e9, "read": 20e9, "copy": 10e9}


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


# -- shapes and limits ------------------------------------------------------


@pytest.mark.parametrize("key, billions", [
    ("granite", 0.0504), ("olmoe", 0.4028), ("qwen3", 0.6042), ("deepseek", 0.5711),
    ("mixtral", 1.4093)])
def test_parameters_are_those_of_the_model(key, billions):
    """One layer of the published models: H, I, E and the shared network, in billions."""
    assert SHAPES[key].parameters / 1e9 == pytest.approx(billions, abs=6e-5)


@pytest.mark.parametrize("key", list(SHAPES))
def test_configuration_says_the_same_as_the_shape(key):
    shape, config = SHAPES[key], SHAPES[key].config
    assert config["hidden_size"] == shape.hidden
    assert config.get("moe_intermediate_size", config.get("intermediate_size")) \
        == shape.intermediate
    assert {config.get(k) for k in ("num_experts", "num_local_experts", "n_routed_experts")} \
        - {None} == {shape.experts}
    assert config["num_experts_per_tok"] == shape.top_k
    assert config.get("n_shared_experts", 0) * shape.intermediate == shape.shared
    assert config.get("norm_topk_prob", True) == shape.renormalise


def test_weights_have_as_many_elements_as_the_shape_says():
    for shape in SHAPES.values():
        elements = sum(int(np.prod(d)) for d in data.weight_shapes(shape).values())
        assert elements == shape.parameters


def test_flops_and_bytes():
    # Two experts of three 64 x 48 products and a router of 8 x 64, two operations a term.
    assert TINY.flops(5) == 2 * 5 * (2 * 3 * 64 * 48 + 8 * 64)
    assert TINY.bytes_touched(5, 3, "f32") == 4 * (3 * 3 * 64 * 48 + 8 * 64 + 2 * 5 * 64)
    assert TINY.bytes_touched(5, 3, "bf16") == TINY.bytes_touched(5, 3, "f32") / 2
    assert TINY.rows_per_expert(32) == 8


def test_limit_is_memory_for_few_tokens_and_arithmetic_for_many():
    shape = SHAPES["olmoe"]
    few = roofline.seconds(shape, "f32", 1, 8, PEAKS)
    assert few == shape.bytes_touched(1, 8, "f32") / PEAKS["read"]
    many = roofline.seconds(shape, "f32", 2048, 64, PEAKS)
    assert many == shape.flops(2048) / PEAKS["fma_f32"]
    assert roofline.seconds(shape, "bf16", 2048, 64, PEAKS) == pytest.approx(many / 2)


def test_bf16_is_extended_where_there_is_no_dot_product():
    assert roofline.arithmetic_peak(PEAKS | {"dot_bf16": 0.0}, "bf16") == PEAKS["fma_f32"]


# -- routing and data -------------------------------------------------------


@pytest.mark.parametrize("kind", routing.ROUTINGS)
def test_drawn_experts_are_distinct(kind):
    rng = np.random.default_rng(1)
    ids = routing.draw_ids(routing.popularity(kind, 64, rng), 500, 8, rng)
    assert ids.shape == (500, 8) and ids.min() >= 0 and ids.max() < 64
    assert all(len(set(row)) == 8 for row in ids)


def test_first_choices_follow_the_popularity():
    """The frequency of an expert as the first of K is its probability."""
    rng = np.random.default_rng(2)
    for kind in routing.ROUTINGS:
        probabilities = routing.popularity(kind, 8, rng)
        assert probabilities.sum() == pytest.approx(1)
        first = routing.draw_ids(probabilities, 40_000, 2, rng)[:, 0]
        frequency = np.bincount(first, minlength=8) / len(first)
        # Four standard deviations of a frequency.
        np.testing.assert_allclose(frequency, probabilities,
                                   atol=4 * np.sqrt(0.25 / len(first)))


def test_zipf_falls_as_one_over_the_rank():
    probabilities = np.sort(routing.popularity("zipf", 32, np.random.default_rng(3)))[::-1]
    np.testing.assert_allclose(probabilities[0] / probabilities, np.arange(1, 33))


def test_unknown_routing_is_an_error():
    with pytest.raises(ValueError, match="expected a routing of uniform, zipf, got 'constant'"):
        routing.popularity("constant", 8, np.random.default_rng())


@pytest.mark.parametrize("dtype", list(DTYPE_BYTES))
@pytest.mark.parametrize("kind", routing.ROUTINGS)
def test_router_chooses_the_drawn_experts(kind, dtype):
    """Also where x, the router and the logits are rounded to the type."""
    weights = data.make_weights(TINY, dtype, seed=4)
    for batch in islice(data.batches(TINY, weights.router, dtype, 50, kind, seed=5), 3):
        logits = batch.x.astype(np.float32) @ weights.router.T.astype(np.float32)
        logits = logits.astype(data.NUMPY_DTYPES[dtype]).astype(np.float32)
        best = np.argsort(-logits, axis=1)[:, :TINY.top_k]
        np.testing.assert_array_equal(np.sort(best), np.sort(batch.ids))


def test_batches_differ_and_a_seed_repeats_them():
    weights = data.make_weights(TINY, "f32", seed=4)

    def draw(seed):
        return list(islice(data.batches(TINY, weights.router, "f32", 4, "uniform", seed), 2))

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first[0].x, again[0].x)
    np.testing.assert_array_equal(first[1].ids, again[1].ids)
    assert not np.array_equal(first[0].x, first[1].x)
    assert not np.array_equal(first[0].x, other[0].x)


def test_weights_vary_and_layers_differ_in_all_but_the_router():
    one, two = data.make_layers(SHAPES["tiny"], "f32", seed=6, count=2)
    for name, array in one.named().items():
        assert array.ctypes.data % data.ALIGNMENT == 0
        # Draws that are uniform with a variance of one over the terms of a product.
        assert array.std() == pytest.approx(array.shape[-1] ** -0.5, rel=0.05)
        assert np.array_equal(array, getattr(two, name)) == (name == "router")


def test_oracle_agrees_with_the_reference_of_the_package():
    from moe.reference import Normalize, gate

    weights = data.make_weights(TINY, "f32", seed=7)
    x = next(data.batches(TINY, weights.router, "f32", 6, "uniform", seed=8)).x.astype(np.float64)
    scores, ids = gate(x @ weights.router.T.astype(np.float64), top_k=TINY.top_k,
                       normalize=Normalize("sum"))
    expected = np.zeros_like(x)
    for token, row in enumerate(x):
        for score, expert in zip(scores[token], ids[token]):
            g, u = np.split(weights.gate_up_proj[expert].astype(np.float64) @ row, 2)
            hidden = g / (1 + np.exp(-g)) * u
            expected[token] += score * (weights.down_proj[expert].astype(np.float64) @ hidden)
    # The reference keeps the weights of the gate in f32.
    assert oracle.relative_error(oracle.run(TINY, weights, x), expected) < 1e-6


def test_relative_error():
    assert oracle.relative_error(np.array([1.0, 2.5]), np.array([1.0, 2.0])) == 0.25
    assert oracle.relative_error(np.array([1.0, np.nan]), np.array([1.0, 2.0])) == float("inf")


# -- timing -----------------------------------------------------------------


def test_statistics():
    found = timing.summarise([1.0, 2.0, 3.0, 4.0, 100.0], rounds=5)
    assert (found.median, found.mad, found.q1, found.q3) == (3.0, 1.0, 2.0, 4.0)
    assert (found.minimum, found.calls, found.rounds) == (1.0, 5, 5)
    with pytest.raises(ValueError, match="at least one time"):
        timing.summarise([], 0)


def test_budget_passes_on_what_is_left():
    clock = Clock()
    budget = timing.Budget(100.0, [1, 1, 2], clock)
    assert budget.next() == 25.0
    clock.now += 10.0  # 15 s less than its part
    assert budget.next() == pytest.approx(30.0)
    clock.now += 200.0
    assert budget.next() == 0.0
    with pytest.raises(ValueError):
        budget.next()


def test_a_slow_call_has_few_rounds_and_a_short_one_a_warm_up():
    assert timing.plan(3.0, share=1.0) == timing.Schedule(1, 1, 0)
    assert timing.plan(0.5, share=3.0) == timing.Schedule(6, 1, 0)
    short = timing.plan(0.001, share=1.0)
    assert (short.calls, short.warm_up) == (20, 1) and short.rounds == timing.MAX_ROUNDS


def test_samples_are_spread_over_the_rounds():
    schedule = timing.Schedule(rounds=3, calls=1, warm_up=0)
    assert [i for i in range(12) if timing.is_measured(schedule, i, 12)] == [3, 7, 11]
    every = timing.Schedule(rounds=12, calls=1, warm_up=0)
    assert all(timing.is_measured(every, i, 12) for i in range(12))


def sampler(name, seconds, clock, order):
    """A sample of calls that take ``seconds`` on ``clock`` and are noted in ``order``."""
    def step(number):
        order.append((name, number))
        clock.now += seconds
    return lambda first, count: time_calls(step, first, count, clock)


def test_participants_are_interleaved():
    clock, order = Clock(), []
    found = timing.interleave({"a": sampler("a", 0.125, clock, order),
                               "b": sampler("b", 0.25, clock, order)},
                              {"a": 0.125, "b": 0.25}, seconds=3.0, clock=clock)
    assert (found["a"].median, found["b"].median) == (0.125, 0.25)
    assert (found["a"].rounds, found["b"].rounds) == (12, 6)
    # The participants alternate, and the numbers of calls ascend.
    names = [name for name, _ in order]
    assert "".join(names).count("aaaa") == 0
    assert [n for name, n in order if name == "a"] == list(range(12))


def test_the_warm_up_of_a_sample_does_not_count():
    found = timing.interleave({"a": lambda first, count: [9.0] + [0.01] * (count - 1)},
                              {"a": 0.01}, seconds=1.0)
    assert found["a"].median == found["a"].q3 == 0.01


def test_a_call_longer_than_its_share_is_not_repeated():
    def never(first, count):
        raise AssertionError("called again")

    found = timing.interleave({"slow": never}, {"slow": 9.0}, seconds=3.0)
    assert (found["slow"].median, found["slow"].calls) == (9.0, 1)


def test_an_outclassed_participant_has_one_call():
    clock, order = Clock(), []
    estimates = {"fast": 0.125, "slow": 1.5, "dense": 0.015625}
    found = timing.interleave({n: sampler(n, s, clock, order) for n, s in estimates.items()},
                              estimates, seconds=9.0, yardsticks={"dense"}, clock=clock)
    names = [name for name, _ in order]
    assert "slow" not in names and (found["slow"].median, found["slow"].calls) == (1.5, 1)
    assert found["fast"].rounds > 1 and found["dense"].rounds > 1
    # No participant always follows the same one.
    assert "fast dense" in " ".join(names) and "dense fast" in " ".join(names)


def test_each_participant_begins_a_round():
    names = ["a", "b", "c", "d"]
    order, clock = [], Clock()
    timing.interleave({n: sampler(n, 0.125, clock, order) for n in names},
                      dict.fromkeys(names, 0.125), seconds=6.0, clock=clock)
    assert {name for name, _ in order[::4]} == {*names}


def test_a_short_call_has_some_rounds_however_little_time_there_is():
    assert timing.plan(0.1, share=0.0).rounds == timing.LEAST_ROUNDS
    assert timing.plan(0.25, share=0.0).rounds == 2
    assert timing.plan(3.0, share=0.0).rounds == 1


def test_each_input_goes_through_all_layers():
    assert [select(i, layers=2, inputs=3) for i in range(7)] == [
        (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 0)]


# -- options and the report -------------------------------------------------


def test_options():
    assert options.counts("4,1,4") == [1, 4]
    assert options.names_of(["a", "b"])("b,a") == ["b", "a"]
    for parse, text in ((options.counts, "0"), (options.counts, "x"),
                        (options.names_of(["a"]), "c")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"got '{text}'"):
            parse(text)


def test_transformers_stands_for_its_variants():
    names = [p.name for p in chosen(["moe_mlir", "transformers"])]
    assert names == ["moe_mlir", "transformers/eager", "transformers/grouped_mm",
                     "transformers/batched_mm"]
    with pytest.raises(ValueError, match="no participant 'tvm'"):
        chosen(["tvm"])


def took(seconds):
    return {"status": "ok", "error": 1e-7} | timing.summarise([seconds], 1).as_dict()


def cell(tokens=1, kind="uniform", limit=0.001, **participants):
    return {"shape": "olmoe", "dtype": "f32", "threads": 1, "tokens": tokens, "routing": kind,
            "active_experts": 8.0, "layers": 1, "inputs": 4, "limit": limit,
            "participants": {name: took(s) if isinstance(s, float) else s
                             for name, s in participants.items()}}


WRONG = {"status": "wrong", "reason": "relative error 3.0e-01, allowed 1.0e-04", "error": 0.3}


def result(cells, **more):
    names = list(dict.fromkeys(name for c in cells for name in c["participants"]))
    return {"format": 1, "benchmark": "cpu", "date": "2026-01-01T00:00:00+00:00",
            "commit": "abc", "versions": {"numpy": "2"}, "peaks": [PEAKS], "cells": cells,
            "machine": {"processor": "P", "vectors": ["avx2"], "cores": 1, "load_average": 0.0,
                        "last_level_cache": 2**25, "memory": 2**34, "system": "Linux"},
            "options": {"participants": names, "threads": [1], "tokens": [1, 2048],
                        "dtypes": ["f32"]},
            "costs": [], "memory": [], "refused": []} | more


def test_ratio_is_to_the_best_peer_that_is_right():
    found = cell(moe_mlir=0.002, onnxruntime=0.004, jax=0.008, iree=WRONG, dense=0.001)
    assert best_of(found, metrics.PEERS) == ("onnxruntime", 0.004)
    assert metrics.ratio(found) == 2.0
    assert metrics.fraction_of_limit(found) == 0.5
    assert metrics.ratio(cell(moe_mlir=WRONG, jax=0.1)) is None
    assert metrics.ratio(cell(moe_mlir=0.1, dense=0.1)) is None


def test_a_peer_that_is_far_behind_is_not_run_again_in_its_shape():
    cells = [cell(moe_mlir=1.0, jax=0.5, onnxruntime=0.01, dense=9.0),
             cell(tokens=4, moe_mlir=1.0, jax=0.4, onnxruntime=0.02, iree=0.1)]
    found = cpu._too_slow_peers("olmoe", cells)
    assert found == {"jax": ("skipped", "at least 20 times slower than the best peer in all "
                             "previous cells of this shape")}
    assert cpu._too_slow_peers("granite", cells) == {}


def test_copy_to_new_pages(monkeypatch):
    """All bytes are copied, in parts."""
    monkeypatch.setattr(peaks, "COPY_PART", 1000)
    arrays = [np.ones((40, 50), np.float32), np.ones(3, np.uint8)]
    copied, copyto = [], np.copyto

    def record(to, source):
        copyto(to, source)
        copied.append(int(to.astype(np.int64).sum()))

    monkeypatch.setattr(peaks.np, "copyto", record)
    assert peaks.copy_to_new_pages(arrays, threads=2) > 0
    assert len(copied) == 9
    assert sum(copied) == sum(int(a.reshape(-1).view(np.uint8).astype(np.int64).sum())
                              for a in arrays)


def test_summary():
    cells = [cell(moe_mlir=0.002, jax=0.001), cell(kind="zipf", moe_mlir=0.003, jax=0.006),
             cell(tokens=2048, limit=1.0, moe_mlir=2.0, jax=10.0)]
    costs = {"shape": "olmoe", "dtype": "f32", "threads": 1, "compile_s": 0.5, "prepare_s": 0.1,
             "prepare_again_s": 0.05, "copy_s": 0.04, "first_result_s": 0.2, "weight_bytes": 5e8}
    memory = {"weight_bytes": 90, "workspace_bytes": 10, "before_bytes": 50, "peak_bytes": 170}
    found = metrics.summarise(result(cells, costs=[costs], memory=[memory]))
    assert found["ratio"] == {"min": 0.5, "median": 2.0, "max": 5.0, "count": 3}
    assert found["ratio_of_minima"] == found["ratio"]
    # Only T = 2048 has 64 rows per expert.
    assert found["limit_many_rows"] == {"min": 0.5, "median": 0.5, "max": 0.5, "count": 1}
    assert found["zipf_over_uniform"]["median"] == pytest.approx(1.5)
    assert found["bandwidth_one_token"]["max"] == pytest.approx(
        SHAPES["olmoe"].bytes_touched(1, 8, "f32") / 0.002 / 20e9)
    assert found["prepare_over_copy"]["median"] == pytest.approx(0.4)
    assert found["prepare_again_over_copy"]["median"] == pytest.approx(0.8)
    assert found["memory"]["median"] == pytest.approx(1.2)


def test_summary_of_nothing():
    assert set(metrics.summarise(result([])).values()) == {None}
    assert "| speedup over the best peer, median times | - |" in report.markdown(result([]))


def test_report_lists_missing_measurements_with_reasons():
    found = result(
        [cell(moe_mlir=0.002, iree=WRONG), cell(tokens=4, moe_mlir=0.002, iree=WRONG)],
        refused=[{"shape": "mixtral", "dtype": "f32", "threads": 2, "reason": "needs 9.9 GiB"}])
    text = report.markdown(found, all_rows=True)
    assert ("- iree: wrong: relative error 3.0e-01, allowed 1.0e-04 "
            "(olmoe f32, 1 thread, T = 1 uniform and 1 more)") in text
    assert "- mixtral f32, 2 threads: not measured: needs 9.9 GiB" in text
    text = report.markdown(found)
    assert ("- iree: wrong in 2 of 2 cells, first: relative error 3.0e-01, allowed 1.0e-04"
            in text)
    assert "- mixtral f32, 2 threads: not measured: needs 9.9 GiB" in text


def test_the_report_is_short_unless_all_rows_are_asked_for():
    cells = [cell(tokens=tokens, kind=kind, moe_mlir=0.002, jax=0.004) | {"shape": shape}
             for shape in ("granite", "olmoe", "qwen3") for tokens in (1, 4, 32)
             for kind in routing.ROUTINGS]
    some, everything = (report.markdown(result(cells), all_rows) for all_rows in (False, True))
    assert "4 of 18 cells" in some
    rows = [line for line in some.splitlines() if line.startswith(("| granite", "| olmoe", "| qw"))]
    assert [row.split(" | ")[:5] for row in rows] == [
        [f"| {shape}", "f32", "1", str(tokens), "uniform"]
        for shape in ("granite", "qwen3") for tokens in (1, 32)]
    assert all(row in everything for row in rows) and "| granite | f32 | 1 | 4 |" in everything
    assert "## All participants" in everything and "## All participants" not in some


def test_report_and_json_are_written(tmp_path):
    written = report.write(result([cell(moe_mlir=0.002, jax=0.004)]), tmp_path / "cpu.json")
    assert all(path.stat().st_size for path in written)
    assert '"summary"' in written[0].read_text()
    assert "| olmoe | f32 | 1 | 1 | uniform | 8 | 0.125 | 2 ± 0 | 4 (jax) | 2.00 |" \
        in written[1].read_text()


def test_participants_are_listed_once_each():
    kinds = [p.kind for p in PARTICIPANTS.values()]
    assert kinds.count("ours") == 1 and set(kinds) == {"ours", "peer", "yardstick"}
