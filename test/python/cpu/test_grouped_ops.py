"""moe.grouped_matmul written directly, compiled for several processors and along the
reference path, against numpy."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.grouped import (CASES, EPILOGUES, LHS_ROWS, PATHS, Case, compare,
                                       compiled_for, grid, guarded, normal)
from moe_testing.data import bits

BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@functools.cache
def module(path: str, threads: int = 0):
    """All cases in one module."""
    return compiled_for("\n".join(case.text() for case in CASES), path, threads)


def bind(case: Case, path: str, weights, threads: int = 0):
    return module(path, threads).layer(case.split(weights)[0], function=case.name)


def call(case: Case, layer, arrays, rows: int):
    """The result, between guards that must survive."""
    whole, out = guarded(rows, case.n, case.out)
    layer(**{k: v for k, v in case.split(arrays)[1].items()}, out=out)
    pattern = np.concatenate([whole[:8], whole[8 + rows:]])
    assert (pattern.view(np.uint8) == 0xA5).all(), "something was written beside the result"
    return out


def check(case: Case, layer, arrays, rows: int):
    y = call(case, layer, arrays, rows)
    expected, written = case.expected(arrays, rows)
    once = written == 1
    if case.init == "input":
        once |= written == 0
    actual, expected = (v[once].astype(np.float32) for v in (y, expected))
    compare(case, actual, expected)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", BY_NAME)
def test_grouped_matmul(name, path):
    case = BY_NAME[name]
    weights = case.weights()
    layer = bind(case, path, weights)
    long = case.k > 1000
    for rows in (5, 40) if long and path == "reference" else (0, 1, 7, 33, 200):
        check(case, layer, weights | case.inputs(rows), rows)


LIES = [(0, 0, 0, 0), (33, 33, 33, 33), (0, 33, 33, 33), (-5, 4, 9, 60), (20, 10, 5, 0),
        (0, 20, 10, 33), (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1), (40, 50, 60, 70),
        (-9, -8, -7, -6), (5, 5, 6, 6)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("offsets", LIES, ids=str)
@pytest.mark.parametrize("name", ["gather", "init", "gather_bf16", "in_call", "extra_rn_37",
                                  "long_f32_2051x65"])
def test_offsets_that_lie(name, offsets, path):
    """They are held to the rows there are; what several experts write is any of theirs."""
    case = BY_NAME[name]
    weights = case.weights()
    offsets = offsets[:case.offsets]
    check(case, bind(case, path, weights), weights | case.inputs(33, offsets), 33)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["gather", "gather_bf16", "dense_gather", "last_part"])
def test_gathered_numbers_that_are_no_rows(name, path):
    case = BY_NAME[name]
    weights = case.weights()
    arrays = weights | case.inputs(33)
    arrays["gather"][:8] = [-1, LHS_ROWS, -(2**31), 2**31 - 1, LHS_ROWS - 1, 0, 10**9, -2]
    check(case, bind(case, path, weights), arrays, 33)


# -- bits ----------------------------------------------------------------------

BITS = ["size_f32_33x100", "size_bf16_33x100t", "size_f16_64x129", "long_f32_2051x65",
        "long_bf16_4099x65", "gather", "epilogue_swiglu_f32_40", "epilogue_gelu_bf16_33t", "dense",
        "in_call_bf16", "many_experts"]


@pytest.mark.parametrize("path", ["host", "x86-64-v3"])
@pytest.mark.parametrize("name", BITS)
def test_bits_do_not_depend_on_threads(name, path):
    case, rows = BY_NAME[name], 501
    weights = case.weights(normal)
    arrays = weights | case.inputs(rows, draw=normal)
    if case.experts:  # every row belongs to an expert, most to one
        cuts = np.linspace(0, rows // 3, case.offsets).astype(np.int32)
        cuts[-1] = rows
        arrays["offsets"] = cuts
    first = call(case, bind(case, path, weights, 1), arrays, rows)
    for threads in (2, 5):
        layer = bind(case, path, weights, threads)
        for _ in range(3):
            np.testing.assert_array_equal(bits(call(case, layer, arrays, rows)), bits(first))


@pytest.mark.parametrize("path", ["host", "x86-64-v4", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("name", BITS)
def test_bits_do_not_depend_on_other_rows(name, path):
    """Each row alone has the bits that it has among others."""
    case, rows = BY_NAME[name], 23
    weights = case.weights(normal)
    layer = bind(case, path, weights)
    arrays = weights | case.inputs(rows, draw=normal)
    if case.experts:
        cuts = np.linspace(0, rows, case.offsets).astype(np.int32)
        arrays["offsets"] = cuts
    whole = call(case, layer, arrays, rows)
    for row in range(rows):
        alone = dict(arrays)
        for key in ("gather",) if case.gather else ("x",):
            alone[key] = arrays[key][row:row + 1]
        if case.experts:
            expert = np.searchsorted(cuts, row, "right") - 1
            alone["offsets"] = (np.arange(case.offsets) > expert).astype(np.int32)
        np.testing.assert_array_equal(bits(call(case, layer, alone, 1)),
                                      bits(whole[row:row + 1]))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["size_f32_33x100", "size_bf16_64x129t", "long_f32_4099x17t",
                                  "long_bf16_4099x65", "size_f16_33x100"])
def test_sums_are_those_of_f32(name, path):
    """Any numbers: each sum of K products is within K roundings of f32."""
    case, rows = BY_NAME[name], 20
    weights = case.weights(normal)
    arrays = weights | case.inputs(rows, (0, 9, 20), draw=normal)
    y = call(case, bind(case, path, weights), arrays, rows).astype(np.float64)
    x, w = arrays["x"].astype(np.float64), arrays["w0"].astype(np.float64)
    w = w.transpose(0, 2, 1) if case.transposed else w
    for expert, part in ((0, slice(0, 9)), (1, slice(9, 20))):
        exact, size = x[part] @ w[expert], np.abs(x[part]) @ np.abs(w[expert])
        unit = {"f32": 0, "bf16": 2.0**-8, "f16": 2.0**-11}[case.out]
        assert (np.abs(y[part] - exact) <= case.k * 2.0**-24 * size + unit * np.abs(exact)
                + 2.0**-24).all()


@pytest.mark.parametrize("path", PATHS)
def test_sums_run_over_ascending_k(path):
    """2^24 + 1 is 2^24 in f32, so that only this order loses all of the ones."""
    case = BY_NAME["size_f32_64x129"]
    weights = {"w0": np.ones(case.weight_shape, np.float32)}
    arrays = weights | case.inputs(9, (0, 4, 9))
    arrays["x"][:] = 1
    arrays["x"][:, 0], arrays["x"][:, -1] = 2.0**24, -(2.0**24)
    assert (call(case, bind(case, path, weights), arrays, 9) == 0).all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["size_f32_33x100", "size_bf16_33x100t", "size_f16_5x17",
                                  "long_bf16_4099x65", "gather"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_broken_row_stays_alone(name, value, path):
    case, rows = BY_NAME[name], 23
    weights = case.weights()
    layer = bind(case, path, weights)
    arrays = weights | case.inputs(rows)
    if case.experts:
        arrays["offsets"][:] = np.linspace(0, rows, case.offsets)
    before = call(case, layer, arrays, rows).copy()
    arrays["x"][4, case.k - 1] = value
    after = call(case, layer, arrays, rows)
    source = np.clip(arrays["gather"], 0, LHS_ROWS - 1) if case.gather else np.arange(rows)
    np.testing.assert_array_equal(bits(after[source != 4]), bits(before[source != 4]))
    with np.errstate(invalid="ignore"):
        expected, _ = case.expected(arrays, rows)
    np.testing.assert_array_equal(after.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["epilogue_swiglu_f32_40", "epilogue_gelu_f32_40",
                                  "epilogue_tanh_f32_40", "epilogue_select_f32_40",
                                  "epilogue_relu2_f32_40"])
def test_epilogues_of_extreme_sums(name, path):
    """Sums of any magnitude, infinities and NaN: what the scalar functions give."""
    case = BY_NAME[name]
    weights = {key: np.zeros_like(w) for key, w in case.weights().items()}
    values = np.array([0.0, -0.0, 1e-30, -1e-30, 1e-4, 0.3, -0.7, 1, -1, 3, -5, 10, -20, 80, -80,
                       88.5, -88.5, 100, -100, 1e4, -1e4, 1e30, -1e30, np.inf, -np.inf, np.nan],
                      np.float32)
    for key, w in weights.items():
        w[:, 0] = 1 if key == "w0" else 0
    if "w1" in weights:
        weights["w1"][:, 1] = 1
    rows = len(values)
    arrays = weights | case.inputs(rows, (0, 9, 20, rows))
    arrays["x"][:] = 0
    arrays["x"][:, 0] = values
    arrays["x"][:, 1] = 2
    y = call(case, bind(case, path, weights), arrays, rows)
    with np.errstate(all="ignore"):
        sums = [values.astype(np.float64)]
        # 0 times infinity is NaN, here as there.
        sums += [2 + 0 * sums[0]] * (EPILOGUES[case.epilogue].sums - 1)
        expected = EPILOGUES[case.epilogue].run(*sums).astype(np.float32)
    compare(case, y, np.broadcast_to(expected[:, None], y.shape))


# -- what an embedding compiler may write besides --------------------------------

# Each function has its own text and its own answer in numpy.
OTHERS = """
// What is read is written as well: the destination needs a copy.
func.func @in_place(%x: tensor<?x8xf32>,
    %w: tensor<1x8x8xf32> {moe.role = "weight", moe.name = "w"})
    -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %one = arith.constant 1.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %h = linalg.add ins(%x, %x : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>)
    -> tensor<?x8xf32>
  %y = moe.grouped_matmul %h weights(%w : tensor<1x8x8xf32>)
      operands(%h : tensor<?x8xf32>) maps([affine_map<(e, r, n) -> (r, n)>])
      outs(%h : tensor<?x8xf32>) {
  ^bb0(%s: f32, %o: f32):
    %r = arith.addf %s, %o : f32
    moe.yield %r : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// A scalar from outside of the epilogue, one from a tensor of rank 0, and no sum at all.
func.func @captured(%x: tensor<?x8xf32>,
    %w: tensor<1x8x8xf32> {moe.role = "weight", moe.name = "w"},
                    %v: tensor<3xf32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %c2 = arith.constant 2 : index
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %scale = tensor.extract %v[%c2] : tensor<3xf32>
  %first = tensor.extract %v[%c0] : tensor<3xf32>
  %scalar = tensor.from_elements %first : tensor<f32>
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x8x8xf32>)
      operands(%scalar : tensor<f32>) maps([affine_map<(e, r, n) -> ()>])
      outs(%e : tensor<?x8xf32>) {
  ^bb0(%s: f32, %o: f32):
    %m = arith.mulf %s, %scale : f32
    %r = arith.addf %m, %o : f32
    moe.yield %r : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Bits beside the sums, which are bytes in memory.
func.func @mask(%x: tensor<?x8xf32>, %w: tensor<1x8x21xf32> {moe.role = "weight", moe.name = "w"},
                %m: tensor<?x21xf32>) -> tensor<?x21xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %b = tensor.empty(%t) : tensor<?x21xi1>
  %mask = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>,
                                           affine_map<(i, j) -> (i, j)>],
                          iterator_types = ["parallel", "parallel"]}
      ins(%m : tensor<?x21xf32>) outs(%b : tensor<?x21xi1>) {
  ^bb0(%v: f32, %o: i1):
    %c = arith.cmpf ogt, %v, %zero : f32
    linalg.yield %c : i1
  } -> tensor<?x21xi1>
  %e = tensor.empty(%t) : tensor<?x21xf32>
  %y = moe.grouped_matmul %x weights(%w : tensor<1x8x21xf32>)
      operands(%mask : tensor<?x21xi1>) maps([affine_map<(e, r, n) -> (r, n)>])
      outs(%e : tensor<?x21xf32>) {
  ^bb0(%s: f32, %c: i1):
    %r = arith.select %c, %s, %zero : f32
    moe.yield %r : f32
  } : tensor<?x8xf32> -> tensor<?x21xf32>
  return %y : tensor<?x21xf32>
}

// Some columns of rows that are longer, of rows and of weights.
func.func @slices(%x: tensor<?x24xbf16>,
    %w: tensor<2x20x44xbf16> {moe.role = "weight", moe.name = "w"},
                  %o: tensor<3xi32>) -> tensor<?x20xf32> {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x24xbf16>
  %p = tensor.extract_slice %x[0, 3] [%t, 20] [1, 1] : tensor<?x24xbf16> to tensor<?x20xbf16>
  %g = tensor.extract_slice %w[0, 0, 1] [2, 20, 20] [1, 1, 2]
      : tensor<2x20x44xbf16> to tensor<2x20x20xbf16>
  %u = tensor.extract_slice %w[0, 0, 24] [2, 20, 20] [1, 1, 1]
      : tensor<2x20x44xbf16> to tensor<2x20x20xbf16>
  %z = arith.constant 0.0 : f32
  %e = tensor.empty(%t) : tensor<?x20xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x20xf32>) -> tensor<?x20xf32>
  %y = moe.grouped_matmul %p offsets(%o : tensor<3xi32>)
      weights(%g, %u : tensor<2x20x20xbf16>, tensor<2x20x20xbf16>) outs(%f : tensor<?x20xf32>) {
  ^bb0(%a: f32, %b: f32):
    %r = arith.subf %a, %b : f32
    moe.yield %r : f32
  } : tensor<?x20xbf16> -> tensor<?x20xf32>
  return %y : tensor<?x20xf32>
}

// Weights of some of the experts, and weights that two products share.
func.func @shared(%x: tensor<?x8xf32>, %w: tensor<6x8x8xf32> {moe.role = "weight", moe.name = "w"},
                  %o: tensor<4xi32>) -> (tensor<?x8xf32>, tensor<?x8xf32>) {
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x8xf32>
  %z = arith.constant 0.0 : f32
  %e = tensor.empty(%t) : tensor<?x8xf32>
  %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
  %p = tensor.extract_slice %w[1, 0, 0] [3, 8, 8] [2, 1, 1] : tensor<6x8x8xf32> to tensor<3x8x8xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<4xi32>) weights(%p : tensor<3x8x8xf32>)
      outs(%f : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  %h = moe.grouped_matmul %y offsets(%o : tensor<4xi32>) weights(%p : tensor<3x8x8xf32>) transposed
      outs(%f : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x8xf32> -> tensor<?x8xf32>
  return %y, %h : tensor<?x8xf32>, tensor<?x8xf32>
}

// No rows to gather from: the destination stays as it is.
func.func @nothing(%x: tensor<?x8xf32>, %w: tensor<2x8x8xf32> {moe.role = "weight", moe.name = "w"},
                   %o: tensor<3xi32>, %g: tensor<?xi32>) -> tensor<?x8xf32> {
  %none = tensor.extract_slice %x[0, 0] [0, 8] [1, 1] : tensor<?x8xf32> to tensor<0x8xf32>
  %y = moe.grouped_matmul %none gather(%g : tensor<?xi32>) offsets(%o : tensor<3xi32>)
      weights(%w : tensor<2x8x8xf32>) outs(%x : tensor<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<0x8xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
"""


@functools.cache
def others(path: str):
    return compiled_for(OTHERS, path)


def random_f32(name: str, *shape: int) -> np.ndarray:
    return grid(data.rng(name, shape), shape, "f32")


def in_place(layer, x):
    w = random_f32("w", 1, 8, 8)
    np.testing.assert_array_equal(layer({"w": w})(x), 2 * x @ w[0] + 2 * x)


def captured(layer, x):
    w, v = random_f32("w", 1, 8, 8), np.float32([0.25, 9, -0.5])
    np.testing.assert_array_equal(layer({"w": w})(x, v), x @ w[0] * v[2] + v[0])


def mask(layer, x):
    w, m = random_f32("w", 1, 8, 21), random_f32("m", len(x), 21)
    np.testing.assert_array_equal(layer({"w": w})(x, m), np.where(m > 0, x @ w[0], 0))


def slices(layer, x):
    w, offsets = random_f32("w", 2, 20, 44), np.int32([0, len(x) // 3, len(x) - len(x) // 4])
    bf16, x = data.numpy_type("bf16"), random_f32("x", len(x), 24)
    y = layer({"w": w.astype(bf16)})(x.astype(bf16), offsets)
    expected = np.zeros_like(y)
    for e in range(2):
        part = slice(*offsets[e:e + 2])
        expected[part] = x[part, 3:23] @ (w[e, :, 1:41:2] - w[e, :, 24:])
    np.testing.assert_array_equal(y, expected)


def shared(layer, x):
    w, offsets = random_f32("w", 6, 8, 8), np.int32([0, len(x) // 3, len(x) // 2, len(x)])
    y, h = layer({"w": w})(x, offsets)
    for e in range(3):
        part = slice(*offsets[e:e + 2])
        np.testing.assert_array_equal(y[part], x[part] @ w[1 + 2 * e])
        np.testing.assert_array_equal(h[part], y[part] @ w[1 + 2 * e].T)


def nothing(layer, x):
    offsets, numbers = np.int32([0, len(x) // 2, len(x)]), np.zeros(len(x), np.int32)
    w = random_f32("w", 2, 8, 8)
    np.testing.assert_array_equal(layer({"w": w})(x, offsets, numbers), x)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rows", [0, 1, 33])
@pytest.mark.parametrize("check", [in_place, captured, mask, slices, shared, nothing],
                         ids=lambda check: check.__name__)
def test_other_products(check, rows, path):
    made = others(path)
    check(functools.partial(made.layer, function=check.__name__), random_f32("x", rows, 8))


@pytest.mark.parametrize("path", ["host", "x86-64-v4", "x86-64-v3", "x86-64"])
@pytest.mark.parametrize("element", ["bf16", "f16"])
def test_rows_in_16_bits_that_are_widened(compiled, element, path):
    """Tasks of many rows widen them in blocks of k; the bits are those of one row. The last block
    is partial, and so is the last vector of a row."""
    data.skip_unless_runs(path)
    k, n, experts = 2 * 256 + 61, 150, 2
    text = f"""func.func @layer(%x: tensor<?x{k}x{element}> {{moe.name = "x"}},
    %w: tensor<{experts}x{n}x{k}x{element}> {{moe.name = "w", moe.role = "weight"}},
    %offsets: tensor<{experts + 1}xi32> {{moe.name = "offsets"}}) -> tensor<?x{n}xf32> {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %x, %c0 : tensor<?x{k}x{element}>
  %init = tensor.empty(%t) : tensor<?x{n}xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<{experts + 1}xi32>)
      weights(%w : tensor<{experts}x{n}x{k}x{element}>) transposed
      outs(%init : tensor<?x{n}xf32>) {{
  ^bb0(%s: f32):
    moe.yield %s : f32
  }} : tensor<?x{k}x{element}> -> tensor<?x{n}xf32>
  return %y : tensor<?x{n}xf32>
}}
"""
    r, kind = data.rng("widened", element), data.numpy_type(element)
    w = r.standard_normal((experts, n, k)).astype(kind)
    x = r.standard_normal((420, k)).astype(kind)
    layer = compiled.compile(text, target=path).layer({"w": w})
    one = np.concatenate([layer(x[i:i + 1], np.array([0, 1, 1], np.int32)) for i in range(420)])
    expected = x.astype(np.float64) @ w[0].astype(np.float64).T
    assert data.relative_error(one, expected) < 2e-6
    for rows in (6, 7, 11, 12, 13, 39, 40, 191, 192, 200, 420):
        many = layer(x[:rows], np.array([0, rows, rows], np.int32))
        np.testing.assert_array_equal(bits(many), bits(one[:rows]))
