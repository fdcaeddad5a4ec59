"""Grouped products of other dialects, raised and compiled, against numpy in f64."""

from __future__ import annotations

import subprocess

import ml_dtypes
import numpy as np
import pytest
from moe_testing import data

from moe._tools import find_tool

GROUPS, K, N = 4, 48, 40


pytestmark = pytest.mark.filterwarnings("ignore:.*prepared in every call:RuntimeWarning")


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


def layer(arguments: str, result: str, body: str, raised: str = "moe.grouped_matmul"):
    """Raise and compile a function; weights are not prepared, but inputs as all else."""
    import moe

    done = subprocess.run(
        [find_tool("moe-opt"), "-", "--allow-unregistered-dialect", "--moe-raise-grouped"],
        input=f"func.func @f({arguments}) -> {result} {{\n{body}\n}}", text=True,
        capture_output=True, check=True)
    assert raised in done.stdout
    return moe.compile(done.stdout).layer()


def argument(name: str, kind: str) -> str:
    return f'%{name}: {kind} {{moe.name = "{name}", moe.role = "input"}}'


def close(y, expected, tolerance):
    """Relative to the largest result; a result of zeros is one exactly."""
    y, expected = np.asarray(y, np.float64), np.asarray(expected)
    assert np.abs(y - expected).max() <= tolerance * np.abs(expected).max()


def normal(name, *shape):
    return data.rng("raised products", name).standard_normal(shape).astype(np.float32)


def grouped(x, w, ends):
    y = np.zeros((len(x), w.shape[2]))
    for group, end in enumerate(ends):
        start = ends[group - 1] if group else 0
        rows = slice(min(max(start, 0), len(x)), min(max(end, 0), len(x)))
        y[rows] = x[rows].astype(np.float64) @ w[group]
    return y


RAGGED = """  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<
    lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [1],
    lhs_ragged_dimensions = [0], rhs_group_dimensions = [0]>}>
    : (tensor<?x48xf32>, tensor<4x48x40xf32>, tensor<4xi64>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>"""
FALLBACK = """ %y = "torch.operator"(%x, %w, %s) <{name = "torch.transformers.grouped_mm_fallback"}>
    : (tensor<?x48xf32>, tensor<4x48x40xf32>, tensor<4xi64>) -> tensor<?x40xf32>
  return %y : tensor<?x40xf32>"""
ROWS = ", ".join([argument("x", "tensor<?x48xf32>"), argument("w", "tensor<4x48x40xf32>"),
                  argument("s", "tensor<4xi64>")])


def test_sizes_of_64_bits():
    """Sizes above 2^31 are clamped to the rows, not cut to their lower half, nor their sums."""
    ragged = layer(ROWS, "tensor<?x40xf32>", RAGGED)
    x, w = normal("x", 33, K), normal("w", GROUPS, K, N)
    for sizes in ([5, 0, 20, 8], [5, 2**32 + 1, 3, 0], [2**31, 7, 7, 7], [1, 2**31 - 1, 2**31, 9],
                  [2**63 - 1, 2**63 - 1, 1, 1], [4, 2**33, 2**33, 2**33], [0, 0, 0, 0]):
        expected = grouped(x, w, [min(sum(sizes[:i + 1]), 33) for i in range(GROUPS)])
        close(ragged(x, w, np.asarray(sizes, np.int64)), expected, 2e-6)


def test_ends_of_64_bits():
    fallback = layer(ROWS, "tensor<?x40xf32>", FALLBACK)
    x, w = normal("x", 33, K), normal("w", GROUPS, K, N)
    for ends in ([5, 5, 25, 33], [2, 9, 2**32 + 3, 2**32 + 3], [2**31, 2**62, 2**62, 2**63 - 1]):
        expected = grouped(x, w, ends)
        close(fallback(x, w, np.asarray(ends, np.int64)), expected, 2e-6)


def test_scaled():
    """_scaled_grouped_mm: sums of f8 products are exact in f32, scales of all sizes."""
    f8 = "f8E4M3FN"
    arguments = ", ".join([
        argument("x", f"tensor<?x48x{f8}>"), argument("w", f"tensor<4x40x48x{f8}>"),
        argument("a", "tensor<?xf32>"), argument("b", "tensor<4x40xf32>"),
        argument("s", "tensor<4xi32>")])
    body = """  %e = tensor.empty() : tensor<4x48x40xf8E4M3FN>
  %t = linalg.transpose ins(%w : tensor<4x40x48xf8E4M3FN>)
    outs(%e : tensor<4x48x40xf8E4M3FN>) permutation = [0, 2, 1]
  %y = "torch.operator"(%x, %t, %a, %b, %s) <{name = "torch.aten._scaled_grouped_mm"}>
    : (tensor<?x48xf8E4M3FN>, tensor<4x48x40xf8E4M3FN>, tensor<?xf32>, tensor<4x40xf32>,
       tensor<4xi32>) -> tensor<?x40xbf16>
  return %y : tensor<?x40xbf16>"""
    scaled = layer(arguments, "tensor<?x40xbf16>", body)
    rng = data.rng("raised products", "scales")
    x = normal("x8", 33, K).astype(ml_dtypes.float8_e4m3fn)
    w = normal("w8", GROUPS, N, K).astype(ml_dtypes.float8_e4m3fn)
    a = np.exp2(rng.uniform(-20, 20, 33)).astype(np.float32)
    b = np.exp2(rng.uniform(-20, 20, (GROUPS, N))).astype(np.float32)
    ends = np.asarray([5, 5, 25, 33], np.int32)
    y = np.asarray(scaled(x, w, a, b, ends), np.float64)
    group = np.searchsorted(ends, np.arange(33), side="right")
    expected = grouped(x.astype(np.float32), w.astype(np.float32).swapaxes(1, 2), ends)
    expected = expected * a[:, None] * b[group]
    # Element by element: they differ by many powers of two.
    size = np.abs(x.astype(np.float64)) @ np.ones((K, 1)) * a[:, None] * b[group]
    assert (np.abs(y - expected) <= 2**-8 * np.abs(expected) + 1e-6 * size).all()


GATHER = """  %of = "stablehlo.gather"(%w, %i) <{dimension_numbers = #stablehlo.gather<
      offset_dims = [2, 3], collapsed_slice_dims = [0], start_index_map = [0],
      index_vector_dim = 2>, slice_sizes = array<i64: 1, 48, 40>}>
    : (tensor<4x48x40xf32>, tensor<?x3x1xi32>) -> tensor<?x3x48x40xf32>
  %y = "stablehlo.dot_general"(%x, %of) <{dot_dimension_numbers = #stablehlo.dot<
      lhs_batching_dimensions = [0], rhs_batching_dimensions = [0],
      lhs_contracting_dimensions = [1], rhs_contracting_dimensions = [2]>}>
    : (tensor<?x48xf32>, tensor<?x3x48x40xf32>) -> tensor<?x3x40xf32>
  return %y : tensor<?x3x40xf32>"""


def test_ids_of_rows():
    """Ids that are arguments, some of them none of a group, which a gather clamps."""
    arguments = ", ".join([argument("x", "tensor<?x48xf32>"),
                           argument("w", "tensor<4x48x40xf32>"),
                           argument("i", "tensor<?x3x1xi32>")])
    gathered = layer(arguments, "tensor<?x3x40xf32>", GATHER)
    x, w = normal("x", 33, K), normal("w", GROUPS, K, N)
    rng = data.rng("raised products", "ids")
    for ids in (rng.integers(0, GROUPS, (33, 3)), rng.integers(-9, 12, (33, 3)),
                np.full((33, 3), 2), np.full((33, 3), -(2**31))):
        y = gathered(x, w, ids.astype(np.int32)[..., None])
        expected = np.einsum("th,tkhi->tki", x.astype(np.float64),
                             w.astype(np.float64)[np.clip(ids, 0, GROUPS - 1)])
        close(y, expected, 2e-6)


BMM = """  %c0 = arith.constant 0 : index
  %none = arith.constant 0 : i64
  %groups = arith.constant 4 : i64
  %zero = arith.constant 0.0 : f32
  %m = tensor.dim %i, %c0 : tensor<?xi64>
  %e = tensor.empty(%m) : tensor<?x48x40xf32>
  %of = linalg.generic {indexing_maps = [affine_map<(m, k, n) -> (m)>,
                                         affine_map<(m, k, n) -> (m, k, n)>],
      iterator_types = ["parallel", "parallel", "parallel"]}
      ins(%i : tensor<?xi64>) outs(%e : tensor<?x48x40xf32>) {
  ^bb0(%id: i64, %out: f32):
    %below = arith.cmpi slt, %id, %none : i64
    %wrapped = arith.addi %id, %groups : i64
    %at = arith.select %below, %wrapped, %id : i64
    %g = arith.index_cast %at : i64 to index
    %k = linalg.index 1 : index
    %n = linalg.index 2 : index
    %v = tensor.extract %w[%g, %k, %n] : tensor<4x48x40xf32>
    linalg.yield %v : f32
  } -> tensor<?x48x40xf32>
  %o = tensor.empty(%m) : tensor<?x1x40xf32>
  %z = linalg.fill ins(%zero : f32) outs(%o : tensor<?x1x40xf32>) -> tensor<?x1x40xf32>
  %y = linalg.batch_matmul ins(%x, %of : tensor<?x1x48xf32>, tensor<?x48x40xf32>)
    outs(%z : tensor<?x1x40xf32>) -> tensor<?x1x40xf32>
  return %y : tensor<?x1x40xf32>"""


def test_bmm():
    """Gathered weights in linalg, an id below 0 counts from the end."""
    arguments = ", ".join([argument("x", "tensor<?x1x48xf32>"),
                           argument("w", "tensor<4x48x40xf32>"), argument("i", "tensor<?xi64>")])
    bmm = layer(arguments, "tensor<?x1x40xf32>", BMM)
    x, w = normal("x", 33, 1, K), normal("w", GROUPS, K, N)
    for low in (0, -GROUPS):
        ids = data.rng("raised products", "ids", low).integers(low, GROUPS, 33)
        close(bmm(x, w, ids), x.astype(np.float64) @ w.astype(np.float64)[ids], 2e-6)


BATCHES = """  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<
    lhs_batching_dimensions = [0], rhs_batching_dimensions = [1],
    lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [2],
    lhs_ragged_dimensions = [1], rhs_group_dimensions = [0]>}>
    : (tensor<3x33x48xf32>, tensor<4x3x48x40xf32>, tensor<3x4xi32>) -> tensor<3x33x40xf32>
  return %y : tensor<3x33x40xf32>"""


def test_batches():
    """Each batch has sizes and rows of no group of its own."""
    arguments = ", ".join([argument("x", "tensor<3x33x48xf32>"),
                           argument("w", "tensor<4x3x48x40xf32>"),
                           argument("s", "tensor<3x4xi32>")])
    batches = layer(arguments, "tensor<3x33x40xf32>", BATCHES)
    x, w = normal("x", 3, 33, K), normal("w", GROUPS, 3, K, N)
    sizes = np.asarray([[5, 0, 20, 8], [0, 0, 0, 3], [30, 30, 0, 2]], np.int32)
    expected = [grouped(x[b], w[:, b], np.cumsum(sizes[b])) for b in range(3)]
    y = batches(x, w, sizes)
    close(y, expected, 2e-6)
    assert not y[1, 3:].any()


BATCH_GROUPS = """
  %y = "chlo.ragged_dot"(%x, %w, %s) <{ragged_dot_dimension_numbers = #chlo.ragged_dot<
    lhs_batching_dimensions = [0], rhs_batching_dimensions = [0],
    lhs_contracting_dimensions = [2], rhs_contracting_dimensions = [1],
    lhs_ragged_dimensions = [0]>}>
    : (tensor<3x33x48xf32>, tensor<3x48x40xf32>, tensor<2xi32>) -> tensor<3x33x40xf32>
  return %y : tensor<3x33x40xf32>"""


def test_groups_of_batches():
    arguments = ", ".join([argument("x", "tensor<3x33x48xf32>"),
                           argument("w", "tensor<3x48x40xf32>"), argument("s", "tensor<2xi32>")])
    product = layer(arguments, "tensor<3x33x40xf32>", BATCH_GROUPS, "linalg.generic")
    x, w = normal("x", 3, 33, K), normal("w", 3, K, N)
    y = product(x, w, np.asarray([1, 1], np.int32))
    close(y, x.astype(np.float64) @ w.astype(np.float64), 2e-6)
