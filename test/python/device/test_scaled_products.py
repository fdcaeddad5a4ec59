"""Products of 8-bit weights with block scales, and the quantization of rows, on a GPU or the
double of its driver and on the CPU, against the formula in f64 and torch's rounding."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases.scaled import (CASES, EXPERTS, F8, OTHERS, Case, extreme, quantize,
                                      quantized_by_torch)
from moe_testing.data import TOLERANCE
from moe_testing.device import arrays as gpu
from moe_testing.device import double
from moe_testing.device.cuda_driver import is_double

TARGETS = ["sm_80", "sm_90a"]
BY_NAME = {case.name: case for case in CASES + OTHERS}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@functools.cache
def module(name: str, target: str):
    import moe

    text = BY_NAME[name].text()
    if target in ("host", "reference"):
        options = ["--pipeline=moe-reference"] if target == "reference" else []
        return moe.compile(text, options=options)
    double.needs_device()
    return moe.compile(text, target=target, device="cuda")


def run(case: Case, target: str, arrays, rows: int) -> np.ndarray:
    weights = {k: v for k, v in arrays.items() if k.startswith("w")}
    inputs = {k: v for k, v in arrays.items() if k not in weights}
    if target in ("host", "reference"):
        return module(case.name, target).layer(weights)(**inputs)
    bound = module(case.name, target).layer({k: gpu.upload(v) for k, v in weights.items()})
    return gpu.run(bound, inputs, rows)


def check(case: Case, target: str, arrays, rows: int, record=None):
    y = run(case, target, arrays, rows)
    expected, written = case.expected(arrays, rows)
    once = written == 1
    error = data.relative_error(y[once], expected[once])
    if record:
        record(f"{case.name} {target}", error)
    assert error < TOLERANCE[case.out]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_products(case, target, record):
    """Few rows and many, so that tiles of each size run, and some that are not full."""
    for rows in (0, 1, 33, 150, 600):
        check(case, target, case.weights() | case.inputs(rows), rows, record)


@pytest.mark.parametrize("target", ["sm_80", "host", "reference"])
@pytest.mark.parametrize("case", OTHERS, ids=lambda case: case.name)
def test_loops(case, target, record):
    for rows in (0, 1, 33):
        # On a GPU all rows are covered: loops copy the others from a result without content, which
        # the double reports.
        offsets = (0, rows // 3, rows // 2, rows) if target == "sm_80" else None
        check(case, target, case.weights() | case.inputs(rows, offsets), rows, record)


@pytest.mark.parametrize("target", ["host", "reference"])
@pytest.mark.parametrize("name", ["ragged", "gathered_two", "bf16_rows", "unscaled"])
def test_on_a_cpu(name, target, record):
    case = BY_NAME[name]
    check(case, target, case.weights() | case.inputs(33), 33, record)


OFFSETS = [(0, 0, 0, 200), (0, 200, 200, 200), (-5, 4, 9, 300), (200, 60, 20, 0),
           (-(2**31), 2**31 - 1, -(2**31), 2**31 - 1), (5, 5, 6, 6)]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("offsets", OFFSETS, ids=str)
@pytest.mark.parametrize("name", ["ragged", "gathered", "bf16_gathered"])
def test_offsets(name, offsets, target):
    case = BY_NAME[name]
    check(case, target, case.weights() | case.inputs(200, offsets), 200)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("counts", [(32, 33, 255), (64, 65, 191), (0, 320, 0)], ids=str)
@pytest.mark.parametrize("name", ["ragged", "bf16_gathered"])
def test_tiles_by_rows(name, counts, target):
    """The device gives experts with more than 32 or 64 rows to a kernel of their own."""
    case = BY_NAME[name]
    offsets = (0, *np.cumsum(counts).tolist())
    check(case, target, case.weights() | case.inputs(sum(counts), offsets), sum(counts))


@pytest.mark.parametrize("target", [*TARGETS, "reference"])
@pytest.mark.parametrize("name", ["ragged", "gathered_two", "f16_rows"])
def test_extreme_scales(name, target):
    case = BY_NAME[name]
    if case.products == 2:  # the epilogue multiplies the sums
        def scale(r, shape):
            return np.sqrt(np.abs(extreme(r, shape)))
    else:
        scale = extreme
    check(case, target, case.weights(scale) | case.inputs(40, scale=scale), 40)


@pytest.mark.parametrize("target", [*TARGETS, "reference"])
@pytest.mark.parametrize("rows", [F8, "f16", "bf16"])
def test_every_number(rows, target):
    """Rows with a single one bring out the weights as they are, NaN of both signs too."""
    case = {F8: BY_NAME["unscaled"], "bf16": BY_NAME["unscaled_bf16"],
            "f16": BY_NAME["unscaled_f16"]}[rows]
    codes = np.resize(np.arange(256, dtype=np.uint8), (EXPERTS, case.n, case.k))
    weights = codes.view(data.numpy_type(F8))
    for count in (16, case.k):
        x = np.eye(case.k, dtype=np.float32)[:count].astype(data.numpy_type(rows))
        # A NaN spoils all rows, so the others come without any.
        for w in (np.where(np.isnan(weights.astype(np.float32)), 0, weights.astype(np.float32))
                  .astype(weights.dtype), weights):
            arrays = {"x": x, "w0": w, "offsets": np.array([0, count, count, count], np.int32)}
            y = run(case, target, arrays, count)
            with np.errstate(invalid="ignore"):
                expected = x.astype(np.float32) @ w[0].astype(np.float32).T
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["both", "gathered"])
def test_nan_of_rows_and_scales(name, target):
    case = BY_NAME[name]
    arrays = case.weights() | case.inputs(100, (0, 20, 60, 100))
    arrays["x"][3, 5] = np.nan
    arrays["x_scales"][7, 1] = np.nan
    arrays["w0_scales"][1, 0, 0] = np.nan
    check(case, target, arrays, 100)


@pytest.mark.parametrize("target", TARGETS)
def test_largest_numbers(target):
    """±448 everywhere: nothing overflows before it is scaled."""
    case = BY_NAME["both"]
    arrays = case.weights() | case.inputs(130)
    for name in ("x", "w0"):
        signs = data.rng(name).choice([-448.0, 448.0], arrays[name].shape)
        arrays[name] = signs.astype(arrays[name].dtype)
    check(case, target, arrays, 130)


# -- moe.quantize ------------------------------------------------------------------


@pytest.mark.parametrize("target", ["sm_80", "sm_90a", "host"])
@pytest.mark.parametrize("columns,block,element", [
    (256, 128, "bf16"), (320, 128, "f16"), (100, 32, "f32"), (37, 16, "bf16"), (24, 128, "f32"),
    (2100, 2048, "bf16")])
def test_quantize(columns, block, element, target):
    r = data.rng("quantize", columns, block)
    for rows in (0, 1, 57):
        x = r.standard_normal((rows, columns)) * np.exp2(r.integers(-30, 10, (rows, 1)))
        x = x.astype(np.float32).astype(data.numpy_type(element))
        if rows > 9:
            x[3] = 0
            x[4] = np.finfo(np.float16).smallest_subnormal
            x[5, :8] = [0, 448, -448, 1, 464, -1, 2**-9, 2**-10]
            x[6, 5] = np.nan
        q, s = quantize(x, block, element, target)
        expected_q, expected_s = quantized_by_torch(x, block)
        np.testing.assert_array_equal(s, expected_s)
        np.testing.assert_array_equal(q.view(np.uint8) & 0x7F == 0x7F, expected_q & 0x7F == 0x7F)
        numbers = expected_q & 0x7F != 0x7F
        np.testing.assert_array_equal(q.view(np.uint8)[numbers], expected_q[numbers])


# -- a layer -----------------------------------------------------------------------

H, I, E, K = 272, 144, 8, 2


def dequantize(name: str, quantized: str, scales: str, kinds: tuple[str, str, str], maps: str,
               extent: str = "") -> str:
    """A linalg.generic that scales."""
    rounding, result = "", "%d"
    element = kinds[2].rsplit("x", 1)[1].rstrip(">")
    if element != "f32":
        rounding, result = f"\n      %r = arith.truncf %d : f32 to {element}", "%r"
    return f"""    %{name}_i = tensor.empty({extent}) : {kinds[2]}
    %{name} = linalg.generic {{indexing_maps = [#id, {maps}, #id],
        iterator_types = ["parallel", "parallel"]}}
        ins({quantized}, {scales} : {kinds[0]}, {kinds[1]}) outs(%{name}_i : {kinds[2]}) {{
    ^bb0(%q: f8E4M3FN, %s: f32, %old: {element}):
      %f = arith.extf %q : f8E4M3FN to f32
      %d = arith.mulf %f, %s : f32{rounding}
      linalg.yield {result} : {element}
    }} -> {kinds[2]}
"""


def blocks(extent: int) -> int:
    return -(-extent // 128)


def layer_text(quantized_rows: bool) -> str:
    """A SwiGLU layer with dequantized weights in the body of its experts, and rows that are
    quantized or bf16."""
    element = "f32" if quantized_rows else "bf16"

    def product(name, rows, weights, n, k):
        lines = ""
        if quantized_rows:
            lines += (f"    %{name}_q, %{name}_s = moe.quantize {rows} format(<"
                      "codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, "
                      "operand = 1, block = [1, 128]>]>)\n"
                      f"      : tensor<?x{k}xbf16> -> tensor<?x{k}xf8E4M3FN>, "
                      f"tensor<?x{blocks(k)}xf32>\n")
            lines += dequantize(f"{name}_x", f"%{name}_q", f"%{name}_s",
                                (f"tensor<?x{k}xf8E4M3FN>", f"tensor<?x{blocks(k)}xf32>",
                                 f"tensor<?x{k}xf32>"), "#row_scales", "%n")
            rows = f"%{name}_x"
        lines += dequantize(f"{name}_w", f"%{weights}_e", f"%{weights}_scales_e",
                            (f"tensor<{n}x{k}xf8E4M3FN>",
                             f"tensor<{blocks(n)}x{blocks(k)}xf32>",
                             f"tensor<{n}x{k}x{element}>"), "#weight_scales")
        return lines + f"""    %{name}_e = tensor.empty(%n) : tensor<?x{n}xf32>
    %{name}_z = linalg.fill ins(%zero : f32) outs(%{name}_e : tensor<?x{n}xf32>)
        -> tensor<?x{n}xf32>
    %{name} = linalg.matmul indexing_maps = [#lhs, #rhs_t, #out]
        ins({rows}, %{name}_w : tensor<?x{k}x{element}>, tensor<{n}x{k}x{element}>)
        outs(%{name}_z : tensor<?x{n}xf32>) -> tensor<?x{n}xf32>
"""

    shapes = {"gate": (I, H), "up": (I, H), "down": (H, I)}
    declared, params, kinds, arguments = [], [], [], []
    for name, (n, k) in shapes.items():
        for suffix, shape, kind in (("", (n, k), F8), ("_scales", (blocks(n), blocks(k)), "f32")):
            text = "x".join(map(str, shape)) + "x" + kind
            declared.append(f'%{name}{suffix}: tensor<{E}x{text}> {{moe.role = "weight", '
                            f'moe.name = "{name}{suffix}"}}')
            params.append(f"%{name}{suffix}")
            kinds.append(f"tensor<{E}x{text}>")
            arguments.append(f"%{name}{suffix}_e: tensor<{text}>")
    return f"""#lhs = affine_map<(m, n, k) -> (m, k)>
#rhs_t = affine_map<(m, n, k) -> (n, k)>
#out = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>
#row_scales = affine_map<(i, j) -> (i, j floordiv 128)>
#weight_scales = affine_map<(i, j) -> (i floordiv 128, j floordiv 128)>
func.func @layer(%x: tensor<?x{H}xbf16> {{moe.role = "input", moe.name = "x"}},
    %ids: tensor<?x{K}xi32> {{moe.role = "input", moe.name = "ids"}},
    %weights: tensor<?x{K}xf32> {{moe.role = "input", moe.name = "weights"}},
    {", ".join(declared)}) -> tensor<?x{H}xbf16> {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts({E})
      : tensor<?x{H}xbf16>, tensor<?x{K}xi32>
  %y = moe.expert %grouped, %offsets params({", ".join(params)} : {", ".join(kinds)}) {{
  ^bb0(%rows: tensor<?x{H}xbf16>, {", ".join(arguments)}):
    %n = tensor.dim %rows, %c0 : tensor<?x{H}xbf16>
{product("g", "%rows", "gate", I, H)}{product("u", "%rows", "up", I, H)}
    %h_i = tensor.empty(%n) : tensor<?x{I}xbf16>
    %h = linalg.generic {{indexing_maps = [#id, #id, #id],
        iterator_types = ["parallel", "parallel"]}}
        ins(%g, %u : tensor<?x{I}xf32>, tensor<?x{I}xf32>) outs(%h_i : tensor<?x{I}xbf16>) {{
    ^bb0(%a: f32, %b: f32, %old: bf16):
      %neg = arith.negf %a : f32
      %exp = math.exp %neg : f32
      %one = arith.constant 1.0 : f32
      %den = arith.addf %one, %exp : f32
      %act = arith.divf %a, %den : f32
      %r = arith.mulf %act, %b : f32
      %t = arith.truncf %r : f32 to bf16
      linalg.yield %t : bf16
    }} -> tensor<?x{I}xbf16>
{product("d", "%h", "down", H, I)}
    %o_i = tensor.empty(%n) : tensor<?x{H}xbf16>
    %o = linalg.generic {{indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}}
        ins(%d : tensor<?x{H}xf32>) outs(%o_i : tensor<?x{H}xbf16>) {{
    ^bb0(%a: f32, %old: bf16):
      %t = arith.truncf %a : f32 to bf16
      linalg.yield %t : bf16
    }} -> tensor<?x{H}xbf16>
    moe.yield %o : tensor<?x{H}xbf16>
  }} : tensor<?x{H}xbf16>, tensor<{E + 1}xi32> -> tensor<?x{H}xbf16>
  %r = moe.combine %y, %positions weights(%weights : tensor<?x{K}xf32>)
      : tensor<?x{H}xbf16>, tensor<?x{K}xi32>
  return %r : tensor<?x{H}xbf16>
}}
"""


def layer_weights() -> dict[str, np.ndarray]:
    r = data.rng("quantized layer")
    made = {}
    for name, (n, k) in {"gate": (I, H), "up": (I, H), "down": (H, I)}.items():
        made[name] = (r.standard_normal((E, n, k)) * 60).astype(np.float32).astype(
            data.numpy_type(F8))
        made[name + "_scales"] = ((0.5 + r.random((E, blocks(n), blocks(k))))
                                  / (60 * np.sqrt(k))).astype(np.float32)
    return made


def layer_inputs(tokens: int, skewed: bool) -> dict[str, np.ndarray]:
    r = data.rng("quantized layer", tokens)
    ids = np.stack([r.permutation(E)[:K] for _ in range(tokens)] or [np.zeros(K)]).astype(np.int32)
    ids = ids[:tokens].reshape(tokens, K)
    if skewed:
        ids[:, 0] = 5
        ids[:, 1] = -1
    return {"x": r.standard_normal((tokens, H)).astype(np.float32).astype(data.numpy_type("bf16")),
            "ids": ids, "weights": r.random((tokens, K)).astype(np.float32)}


def layer_oracle(inputs, weights, quantized_rows: bool) -> np.ndarray:
    """The formula with torch, in f32, with its roundings to bf16 and to 8 bits."""
    import torch

    def dequantized(name):
        scales = torch.from_numpy(weights[name + "_scales"])
        w = torch.from_numpy(weights[name].astype(np.float32))
        scales = scales.repeat_interleave(128, 1).repeat_interleave(128, 2)
        return w * scales[:, :w.shape[1], :w.shape[2]]

    def rows(x):
        if not quantized_rows:
            return x.float()
        q, s = quantized_by_torch(x.float().numpy(), 128)
        q = torch.from_numpy(np.ascontiguousarray(q)).view(torch.float8_e4m3fn).float()
        return q * torch.from_numpy(s).repeat_interleave(128, 1)[:, :q.shape[1]]

    gate, up, down = (dequantized(name) for name in ("gate", "up", "down"))
    x = torch.from_numpy(inputs["x"].astype(np.float32)).bfloat16()
    y = torch.zeros(x.shape)
    for expert in range(E):
        token, choice = np.nonzero(inputs["ids"] == expert)
        part = rows(x[token])
        h = torch.nn.functional.silu(part @ gate[expert].T) * (part @ up[expert].T)
        out = (rows(h.bfloat16()) @ down[expert].T).bfloat16().float()
        y.index_add_(0, torch.from_numpy(token),
                     out * torch.from_numpy(inputs["weights"][token, choice])[:, None])
    return y.numpy()


@functools.cache
def layer(quantized_rows: bool, target: str):
    import moe

    text = layer_text(quantized_rows)
    if target == "host":
        return moe.compile(text).layer(layer_weights())
    double.needs_device()
    return moe.compile(text, target=target, device="cuda").layer(
        {k: gpu.upload(v) for k, v in layer_weights().items()})


@pytest.mark.parametrize("target", [*TARGETS, "host"])
@pytest.mark.parametrize("quantized_rows", [False, True], ids=["weights", "both"])
def test_layer(quantized_rows, target, record):
    for tokens, skewed in ((1, False), (33, False), (300, False), (150, True)):
        if target == "host" and tokens > 100:
            continue
        if skewed and quantized_rows and target != "host" and is_double():
            # Rows without a choice are quantized, too, and their memory has no content.
            error = float(double.in_new_process(__file__, target, MOE_CUDA_DOUBLE_UNINIT="allow"))
        else:
            error = layer_error(quantized_rows, target, tokens, skewed)
        record(f"quantized layer {target}", error)
        assert error < TOLERANCE["bf16"]


def layer_error(quantized_rows: bool, target: str, tokens: int, skewed: bool) -> float:
    inputs = layer_inputs(tokens, skewed)
    if target == "host":
        y = layer(quantized_rows, target)(**inputs)
    else:
        y = gpu.run(layer(quantized_rows, target), inputs, tokens)
    return data.relative_error(y, layer_oracle(inputs, layer_weights(), quantized_rows))


if __name__ == "__main__":
    print(layer_error(True, sys.argv[1], 150, True))
