"""moe.grouped_contract, compiled for several processors and along the reference path, against
numpy in f64."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.grouped import PATHS, compiled_for, grid
from moe_testing.cases.grouped_contract import SOURCE_ROWS, Case
from moe_testing.data import bits

def _cases() -> list[Case]:
    made = []
    for element in ("f32", "bf16", "f16"):
        # Columns around vectors, panels and tasks.
        for k, n in ((1, 1), (7, 20), (20, 7), (33, 20), (16, 64), (64, 33), (100, 130),
                     (193, 70)):
            made.append(Case(f"size_{element}_{k}x{n}", k, n, element))
        for result in ("f32", "bf16", "f16"):
            made.append(Case(f"result_{element}_{result}", 33, 20, element, result))
            made.append(Case(f"add_{element}_{result}", 20, 33, element, result,
                             accumulate=True))
        for name, gathers in (("lhs", ("lhs",)), ("rhs", ("rhs",)), ("both", ("lhs", "rhs"))):
            made.append(Case(f"gather_{name}_{element}", 33, 40, element, gathers=gathers))
    made += [
        Case("wide", 65, 1100), Case("wide_bf16", 40, 1030, "bf16", "bf16"),
        Case("dense", 24, 40, experts=1, offsets=False),
        Case("dense_gather", 24, 40, "f16", experts=1, offsets=False, gathers=("rhs",)),
        Case("dense_add", 24, 40, "bf16", "bf16", experts=1, offsets=False, accumulate=True),
        Case("part", 24, 40, experts=3, groups=7, first=2),
        Case("last_part", 24, 40, "bf16", experts=3, groups=7, first=4, gathers=("lhs",),
             accumulate=True),
        Case("many_experts", 5, 6, experts=100),
        Case("unequal", 24, 40, lhs_rows=50),
    ]
    return made


CASES = _cases()
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@functools.cache
def module(path: str, threads: int = 0):
    """All cases in one module."""
    return compiled_for("\n".join(case.text() for case in CASES), path, threads)


def call(case: Case, path: str, arrays: dict[str, np.ndarray], threads: int = 0) -> np.ndarray:
    """The result, between guards that must survive."""
    kind = data.numpy_type(case.result)
    whole = np.full((case.experts + 2, case.k, case.n), 0xA5, np.uint8).repeat(
        kind.itemsize, 2).view(kind)
    out = whole[1:-1]
    module(path, threads).layer({}, function=case.name)(**arrays, out=out)
    assert (whole[[0, -1]].view(np.uint8) == 0xA5).all(), "written beside the result"
    return out


def check(case: Case, path: str, arrays: dict[str, np.ndarray]) -> None:
    y = call(case, path, arrays).astype(np.float64)
    sums, error = case.expected(arrays)
    assert np.isfinite(y).all()
    assert (np.abs(y - sums) <= error).all(), np.abs(y - sums).max()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BY_NAME)
def test_contract(name, path):
    case = BY_NAME[name]
    for rows in (0, 1, 2, 33, 300):
        check(case, path, case.inputs(rows))


SKEWED = {"one has all": (0, 0, 0, 400, 400, 400), "most": (0, 3, 390, 391, 391, 400),
          "blocks": (0, 128, 256, 257, 400, 400), "odd": (1, 2, 131, 258, 386, 399)}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("offsets", SKEWED.values(), ids=SKEWED)
@pytest.mark.parametrize("name", ["size_f32_33x20", "size_bf16_100x130", "size_f16_64x33",
                                  "add_bf16_f32", "add_f32_bf16", "gather_both_bf16"])
def test_skewed_rows(name, offsets, path):
    """An expert without rows has exact zeros, or what it had."""
    case = BY_NAME[name]
    arrays = case.inputs(400, offsets)
    check(case, path, arrays)
    y = call(case, path, arrays)
    kept = arrays.get("init", np.zeros_like(y))
    empty = np.diff(arrays["offsets"]) == 0
    np.testing.assert_array_equal(bits(y[empty]), bits(kept[empty]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["size_f32_33x20", "size_bf16_64x33", "result_f16_bf16"])
def test_exact_sums(name, path):
    """Sums of eighths are exact in f32, whatever the order: the result is that rounded once."""
    case = BY_NAME[name]
    arrays = case.inputs(300, draw=grid)
    sums, _ = case.expected(arrays)
    np.testing.assert_array_equal(call(case, path, arrays),
                                  sums.astype(np.float32).astype(data.numpy_type(case.result)))


LIES = [(0, 0, 0, 0, 0, 0), (33, 33, 33, 33, 33, 33), (-5, 4, 9, 60, 70, 80),
        (20, 10, 5, 0, 33, 1), (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1, 0, 33),
        (40, 50, 60, 70, 80, 90), (-9, -8, -7, -6, -5, -4)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("offsets", LIES, ids=str)
@pytest.mark.parametrize("name", ["size_f32_33x20", "gather_both_f32", "add_f32_f32",
                                  "gather_lhs_bf16"])
def test_offsets_that_lie(name, offsets, path):
    case = BY_NAME[name]
    check(case, path, case.inputs(33, offsets))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["gather_lhs_f32", "gather_both_bf16", "gather_rhs_f16"])
def test_gathered_numbers_that_are_no_rows(name, path):
    case = BY_NAME[name]
    arrays = case.inputs(33)
    for side in case.gathers:
        last = SOURCE_ROWS[side] - 1
        arrays[f"{side}_gather"][:8] = [-1, last + 1, -(2**31), 2**31 - 1, last, 0, 10**9, -2]
    check(case, path, arrays)


# -- bits ----------------------------------------------------------------------

BITS = ["size_f32_100x130", "size_bf16_193x70", "size_f16_33x20", "add_bf16_bf16", "wide",
        "gather_both_f32", "many_experts"]


@pytest.mark.parametrize("path", ["host", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("name", BITS)
def test_bits_do_not_depend_on_threads(name, path):
    case, rows = BY_NAME[name], 501
    cuts = np.linspace(0, rows // 3, case.offset_count).astype(np.int32)
    cuts[-1] = rows  # most rows belong to one expert
    arrays = case.inputs(rows, cuts)
    first = call(case, path, arrays, 1)
    for threads in (2, 7):
        for _ in range(3):
            np.testing.assert_array_equal(bits(call(case, path, arrays, threads)), bits(first))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["size_f32_16x64", "size_bf16_16x64", "size_f16_16x64"])
def test_sums_run_over_ascending_rows(name, path):
    """2^24 + 1 is 2^24 in f32, so that only this order loses all of the ones; 2^12 is in f16."""
    case = BY_NAME[name]
    arrays = case.inputs(390, (0, 390, 390, 390, 390, 390))
    for side, sign in (("lhs", 1), ("rhs", -1)):
        arrays[side][:] = 1
        arrays[side][0], arrays[side][-1] = 2.0**12, sign * 2.0**12
    assert (call(case, path, arrays) == 0).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["size_f32_33x20", "size_bf16_64x33", "size_f16_20x7",
                                  "gather_both_f32", "add_f32_f32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_row_stays_with_its_expert(name, value, path):
    """The first, an inner and the last row of an expert have such an element: its column has it,
    no other, and no other expert."""
    case = BY_NAME[name]
    arrays = case.inputs(301, (0, 60, 61, 200, 200, 301))
    if case.gathers:
        arrays["lhs_gather"][:] = np.arange(301) % (SOURCE_ROWS["lhs"] - 1)
    before = call(case, path, arrays).copy()
    column = case.k - 1
    for row in (61, 130, 199):
        if case.gathers:  # a row that nobody else gathers
            arrays["lhs_gather"][row] = SOURCE_ROWS["lhs"] - 1
            row = SOURCE_ROWS["lhs"] - 1
        arrays["lhs"][row, column] = value
    after = call(case, path, arrays)
    others = np.ones(after.shape, bool)
    others[2, column] = False
    if case.gathers:  # these rows have another source
        others[2] = False
    np.testing.assert_array_equal(bits(after[others]), bits(before[others]))
    with np.errstate(invalid="ignore"):
        sums, _ = case.expected(arrays)
    np.testing.assert_array_equal(np.isnan(after[2, column]), np.isnan(sums[2, column]))
    np.testing.assert_array_equal(np.isfinite(after[2, column]), np.isfinite(sums[2, column]))
    assert not np.isfinite(after[2, column].astype(np.float32)).any()


@functools.cache
def large(path: str, element: str):
    """A result of at least 16 MiB, which is stored past the caches, and offsets of an expert
    without rows."""
    case = Case("large", 1100, 1536, element, element, experts=3 if element == "f32" else 5)
    return case, compiled_for(case.text(), path).layer({}, function="large")


@pytest.mark.parametrize("path", ["host", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_a_large_result(element, path):
    """The same bits where its rows are aligned and where they are not."""
    case, layer = large(path, element)
    arrays = case.inputs(140, [0, 0, *np.linspace(20, 140, case.experts - 1)])
    count, bytes_each = case.experts * case.k * case.n, data.numpy_type(element).itemsize
    memory = np.full(count * bytes_each + 128, 0xA5, np.uint8)
    start = -memory.ctypes.data % 64
    made = []
    for first in (start, start + bytes_each):
        out = memory[first:first + count * bytes_each].view(data.numpy_type(element)).reshape(
            case.experts, case.k, case.n)
        layer(**arrays, out=out)
        assert (memory[first + count * bytes_each:first + count * bytes_each + 8] == 0xA5).all()
        made.append(bits(out).copy())
        if first == start:
            sums, error = case.expected(arrays)
            assert (np.abs(out.astype(np.float64) - sums) <= error).all()
        memory[:] = 0xA5
    np.testing.assert_array_equal(*made)


# -- what else there may be -----------------------------------------------------

OTHERS = """
// No rows to gather from.
func.func @nothing(%x: tensor<?x8xf32>, %g: tensor<?xi32>, %o: tensor<3xi32>) -> tensor<2x8x8xf32> {
  %none = tensor.extract_slice %x[0, 0] [0, 8] [1, 1] : tensor<?x8xf32> to tensor<0x8xf32>
  %e = tensor.empty() : tensor<2x8x8xf32>
  %y = moe.grouped_contract %none gather(%g : tensor<?xi32>), %x offsets(%o : tensor<3xi32>)
      outs(%e : tensor<2x8x8xf32>) : tensor<0x8xf32>, tensor<?x8xf32> -> tensor<2x8x8xf32>
  return %y : tensor<2x8x8xf32>
}

// Some columns of rows that are longer, every other one of them on one side, in a part of a result.
func.func @slices(%x: tensor<?x24xbf16>, %o: tensor<3xi32>) -> tensor<3x20x12xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 7.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x24xbf16>
  %a = tensor.extract_slice %x[0, 3] [%t, 20] [1, 1] : tensor<?x24xbf16> to tensor<?x20xbf16>
  %b = tensor.extract_slice %x[0, 1] [%t, 12] [1, 2] : tensor<?x24xbf16> to tensor<?x12xbf16>
  %e = tensor.empty() : tensor<3x20x12xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<3x20x12xf32>) -> tensor<3x20x12xf32>
  %p = tensor.extract_slice %f[1, 0, 0] [2, 20, 12] [1, 1, 1]
    : tensor<3x20x12xf32> to tensor<2x20x12xf32>
  %y = moe.grouped_contract %a, %b offsets(%o : tensor<3xi32>) outs(%p : tensor<2x20x12xf32>)
    : tensor<?x20xbf16>, tensor<?x12xbf16> -> tensor<2x20x12xf32>
  %r = tensor.insert_slice %y into %f[1, 0, 0] [2, 20, 12] [1, 1, 1]
    : tensor<2x20x12xf32> into tensor<3x20x12xf32>
  return %r : tensor<3x20x12xf32>
}

// Gradients of two parts of the tokens, one added to the other.
func.func @twice(%x: tensor<?x8xf32>, %o: tensor<3xi32>, %q: tensor<3xi32>) -> tensor<2x8x8xbf16> {
  %e = tensor.empty() : tensor<2x8x8xbf16>
  %a = moe.grouped_contract %x, %x offsets(%o : tensor<3xi32>) outs(%e : tensor<2x8x8xbf16>)
    : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<2x8x8xbf16>
  %b = moe.grouped_contract %x, %x offsets(%q : tensor<3xi32>) accumulate
      outs(%a : tensor<2x8x8xbf16>)
    : tensor<?x8xf32>, tensor<?x8xf32> -> tensor<2x8x8xbf16>
  return %b : tensor<2x8x8xbf16>
}
"""


@functools.cache
def others(path: str):
    return compiled_for(OTHERS, path)


def eighths(name: str, *shape: int) -> np.ndarray:
    return grid(data.rng(name, shape), shape, "f32")


@pytest.mark.parametrize("path", PATHS)
def test_no_rows_to_gather_from(path):
    layer = others(path).layer({}, function="nothing")
    y = layer(eighths("x", 9, 8), np.zeros(9, np.int32), np.int32([0, 4, 9]))
    np.testing.assert_array_equal(y, np.zeros((2, 8, 8), np.float32))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rows", [0, 1, 33, 200])
def test_slices(rows, path):
    x, offsets = eighths("x", rows, 24), np.int32([0, rows // 3, rows])
    y = others(path).layer({}, function="slices")(x.astype(data.numpy_type("bf16")), offsets)
    expected = np.full((3, 20, 12), 7, np.float32)
    for e in range(2):
        part = x[offsets[e]:offsets[e + 1]]
        expected[1 + e] = part[:, 3:23].T @ part[:, 1::2]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("path", PATHS)
def test_gradients_that_are_added(path):
    """In the destination of the first; the sum of both is rounded from f32."""
    x, first, second = eighths("x", 40, 8), np.int32([0, 5, 20]), np.int32([20, 31, 40])
    y = others(path).layer({}, function="twice")(x, first, second)
    bf16 = data.numpy_type("bf16")
    for e in range(2):
        a, b = (x[o[e]:o[e + 1]] for o in (first, second))
        expected = ((a.T @ a).astype(bf16).astype(np.float32) + b.T @ b).astype(bf16)
        np.testing.assert_array_equal(y[e], expected)
