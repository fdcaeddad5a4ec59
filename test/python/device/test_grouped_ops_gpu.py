"""moe.grouped_matmul written directly, on a GPU or on the double of its driver: sums of many
steps, all tiles, the split of a sum over a cluster.  Results are exact (cases/grouped.py: grid)."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.grouped import Case, compare, normal
from moe_testing.cases.grouped_device import BY_NAME, CASES
from moe_testing.data import bits
from moe_testing.device import arrays as gpu
from moe_testing.device import double

TARGETS = ["sm_80", "sm_90a"]

pytestmark = pytest.mark.usefixtures("device")


@functools.cache
def layer(name: str, target: str):
    import moe

    return moe.compile(BY_NAME[name].text(), target=target, device="cuda").layer({})


def run(case: Case, target: str, arrays, rows: int):
    out = gpu.upload(arrays["init"] if case.init == "input" else
                     np.full((rows, case.n), 0x7F, data.numpy_type(case.out)))
    inputs = {name: gpu.upload(array) for name, array in arrays.items()}
    layer(case.name, target)(out=out, **inputs)
    return gpu.download(out)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_numbers(name, target):
    case = BY_NAME[name]
    weights = case.weights()
    for rows in (0, 1, 7, 33, 90, 201, 600):
        arrays = weights | case.inputs(rows)
        y = run(case, target, arrays, rows)
        expected, written = case.expected(arrays, rows)
        once = written == 1
        if case.init == "input":
            once |= written == 0
        compare(case, y[once].astype(np.float32), expected[once].astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["gather_bf16_1024x97t", "sum_bf16_1024x72"])
@pytest.mark.parametrize("offsets", [(0, 0, 0, 0, 0), (9, 9, 9, 9, 9), (-5, 4, 9, 60, 3),
                                     (20, 10, 5, 0, 0), (0, 1, 1, 9, 9),
                                     (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1, 0)], ids=str)
def test_offsets_that_lie(name, offsets, target):
    case = BY_NAME[name]
    for rows in (9, 90):
        arrays = case.weights() | case.inputs(rows, offsets[:case.offsets])
        with double.racing():
            y = run(case, target, arrays, rows)
        expected, written = case.expected(arrays, rows)
        compare(case, y[written == 1].astype(np.float32),
                expected[written == 1].astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rows", [1, 3, 40, 300])
def test_same_bits_again(rows, target):
    case = BY_NAME["gather_bf16_1024x97t"]
    arrays = case.weights(normal) | case.inputs(rows, draw=normal)
    arrays["offsets"] = np.linspace(0, rows, case.offsets).astype(np.int32)
    first = run(case, target, arrays, rows)
    np.testing.assert_array_equal(bits(run(case, target, arrays, rows)), bits(first))


# Rows of each of twelve experts.
ROUTINGS = {
    "around_tiles": [64, 65, 0, 63, 129, 1, 128, 0, 7, 9, 127, 66],
    "all_of_one": [0] * 7 + [300] + [0] * 4,
    "none_of_many": [24] * 11 + [0],
    "none_of_few": [0, 0, 130, 0, 65, 0, 0, 0, 0, 100, 0, 0],
    "last_and_first": [200] + [0] * 10 + [57],
}


def starts(counts):
    return np.concatenate([[0], np.cumsum(counts)])


def check(name: str, target: str, rows: int, offsets):
    case = BY_NAME[name]
    arrays = case.weights() | case.inputs(rows, offsets)
    y = run(case, target, arrays, rows)
    expected, written = case.expected(arrays, rows)
    sure = written <= 1 if case.init == "input" else written == 1
    compare(case, y[sure].astype(np.float32), expected[sure].astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("name", ["two_bf16", "two_f16"])
def test_tiles_by_rows(name, routing, target):
    counts = ROUTINGS[routing]
    check(name, target, sum(counts), starts(counts))


@pytest.mark.parametrize("target", TARGETS)
def test_tiles_by_rows_of_some_experts(target):
    """Rows of experts that others compute are left alone."""
    check("two_of_part", target, 500, starts([90, 1, 64, 65, 3, 200, 77]))


@pytest.mark.parametrize("target", TARGETS)
def test_tiles_by_rows_of_many_experts(target):
    """Few rows on average, of the lowest tile."""
    check("few_of_40", target, 300, starts([3] * 20 + [65] + [0] * 17 + [64, 111]))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["two_bf16", "two_f16"])
@pytest.mark.parametrize("offsets", [
    tuple(range(300, -1, -25)), (-5, 70, 60, 400, 100, 300, 299, 1000, 3, 68, 68, 2**31 - 1, 0),
    (-(2**31), 2**31 - 1) * 6 + (0,), (0,) * 13, (2**31 - 1,) * 13], ids=range(5))
def test_tiles_by_rows_of_offsets_that_lie(name, offsets, target):
    with double.racing():
        check(name, target, 300, offsets)


def launches_of(runs, target: str, log: Path, **environment: str):
    """Name of each kernel that runs; runs are the name of a case, a number of rows and
    offsets, in a new process."""
    double.in_new_process(__file__, target, json.dumps(runs), MOE_CUDA_DOUBLE_LOG=str(log),
                          **environment)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [e["kernel"] for e in events
            if e["event"] == "launch" and e["kernel"].startswith("grouped")]


@pytest.mark.parametrize("target", TARGETS)
def test_one_launch(target, tmp_path):
    """Whatever the rows of each expert: the first tile that holds their mean, or the last."""
    double.needs_double()
    low, middle, high = (("grouped_matmul", "grouped_matmul_2", "grouped_matmul_3")
                         if target == "sm_80" else
                         ("grouped_matmul_swapped", "grouped_matmul_swapped_3",
                          "grouped_matmul_wgmma"))
    lowest = 16 if target == "sm_80" else 8
    expected = {8: low, 40 * lowest: low, 40 * 64: middle, 40 * 64 + 1: high}
    # One expert has some; the others are of nobody, which is as good for what is launched.
    runs = [("few_of_40", rows, starts([0] * 5 + [min(rows, 70)] + [0] * 34).tolist())
            for rows in expected]
    assert launches_of(runs, target, tmp_path / "log") == list(expected.values())


def test_one_launch_with_a_split_sum(tmp_path):
    """With many multiprocessors clusters share the tiles of experts, also of one with more
    rows than a tile."""
    double.needs_double()
    counts = [3] * 20 + [65] + [0] * 17 + [64, 111]
    runs = [("split_of_40", sum(counts), starts(counts).tolist())]
    assert launches_of(runs, "sm_90a", tmp_path / "log", MOE_CUDA_DOUBLE_SMS="160") == [
        "grouped_matmul_swapped"]


if __name__ == "__main__":
    for its_name, its_rows, its_offsets in json.loads(sys.argv[2]):
        check(its_name, sys.argv[1], its_rows, its_offsets)
