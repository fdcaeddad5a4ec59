"""moe.grouped_matmul written directly, on a GPU or on the double of its driver: sums of many
steps, all tiles, the split of a sum over a cluster.  Results are exact (grouped_cases.grid)."""

from __future__ import annotations

import functools

import data
import gpu
import numpy as np
import pytest
from grouped_cases import Case, bits, normal
from test_grouped_ops import compare

TARGETS = ["sm_80", "sm_90a"]

# k: less than a step of 64, a whole number of steps that 4, 2 or no blocks can share, more
# steps than stages, a rest of 8.
CASES = [
    *[Case(f"sum_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=3,
           transposed=transposed, role="input")
      for element, k, n, transposed in (
          ("bf16", 8, 16, False), ("bf16", 72, 136, False), ("bf16", 512, 136, False),
          ("bf16", 1024, 72, False), ("bf16", 1096, 200, False), ("f16", 1024, 264, False),
          ("bf16", 24, 7, True), ("bf16", 72, 130, True), ("f16", 512, 71, True),
          ("bf16", 1024, 129, True), ("bf16", 1536, 64, True), ("bf16", 1096, 200, True))],
    *[Case(f"gather_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=4, gather=True,
           epilogue="product", transposed=transposed, role="input")
      for element, k, n, transposed in (
          ("bf16", 8, 16, False), ("bf16", 520, 136, False), ("bf16", 1024, 64, False),
          ("f16", 72, 33, True), ("bf16", 1024, 97, True), ("bf16", 512, 192, True))],
    Case("dense", 1024, 72, "bf16", experts=0, transposed=True, role="input"),
    Case("part", 512, 40, "bf16", groups=7, first=3, init="input", role="input"),
    Case("many_experts", 256, 24, "bf16", experts=100, gather=True, role="input"),
    Case("wide", 1024, 72, "bf16", "f32", experts=3, epilogue="swiglu", role="input",
         transposed=True),
]
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def needs_device(compiled):
    if gpu.find_driver() is None:
        pytest.skip("there is no driver of a GPU and no double of it in the build tree")


@functools.cache
def layer(name: str, target: str):
    import moe

    gpu.driver()
    return moe.compile(BY_NAME[name].text(), target=target, device="cuda").layer({})


def run(case: Case, target: str, arrays, rows: int):
    out = gpu.upload(arrays["init"] if case.init == "input" else
                     np.full((rows, case.n), 0x7F, data.numpy_type(case.out)))
    inputs = {name: gpu.upload(array) for name, array in arrays.items()}
    layer(case.name, target)(out=out, **inputs)
    return gpu.download(out)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", BY_NAME)
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
