"""moe.quantize against numpy, with the roundings of ml_dtypes, and layers of rounded weights."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from moe.formats import Bits, Field, Format
from moe_testing import data
from safetensors.numpy import load_file

NIBBLES = (Bits(4),)
FORMATS = {
    "int4:32": Format(Field("ui4", bits=NIBBLES), offset=8,
                      scales=(Field("f16", operand=1, block=(1, 32)),)),
    "int4 signed, bf16 scales": Format(Field("si4", bits=NIBBLES),
                                       scales=(Field("bf16", operand=1, block=(1, 16)),)),
    "int8": Format(Field("si8"), scales=(Field("f32", operand=1, block=(1, 1024)),)),
    "unsigned 8": Format(Field("ui8"), offset=100,
                         scales=(Field("f32", operand=1, block=(3, 10)),)),
    "mxfp4": Format(Field("f4E2M1FN", bits=NIBBLES),
                    scales=(Field("f8E8M0FNU", operand=1, block=(1, 32)),)),
    "fp8:128x128": Format(Field("f8E4M3FN"),
                          scales=(Field("f32", operand=1, block=(128, 128)),)),
    "fp8:5x7": Format(Field("f8E4M3FN"), scales=(Field("f16", operand=1, block=(5, 7)),)),
}
STORED = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16,
          "f8E8M0FNU": ml_dtypes.float8_e8m0fnu, "f8E4M3FN": ml_dtypes.float8_e4m3fn}


def blocks_of(w: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """[..., N, K] as [..., rows, columns, elements of a block], filled up with zeros."""
    n, k = (-w.shape[-2] % block[0], -w.shape[-1] % block[1])
    w = np.pad(w, [(0, 0)] * (w.ndim - 2) + [(0, n), (0, k)])
    w = w.reshape(*w.shape[:-2], w.shape[-2] // block[0], block[0], -1, block[1])
    return np.moveaxis(w, -3, -2).reshape(*w.shape[:-3], w.shape[-2], -1)


def round_scale(extreme: np.ndarray, largest: float, element: str) -> np.ndarray:
    scale = (extreme / np.float32(largest)).astype(np.float32)
    if element == "f8E8M0FNU":
        # A power of two that is not smaller, and normal unless it is for zeros.
        up = 2.0 ** np.ceil(np.log2(np.maximum(scale.astype(np.float64), 2.0**-126)))
        up[scale == 0] = 2.0**-127
        up[~np.isfinite(extreme)] = np.nan
        return up.astype(STORED[element])
    if element == "f32":
        return scale
    limit = float(ml_dtypes.finfo(STORED[element]).max)
    scale = np.clip(scale, -limit, limit)
    scale[~np.isfinite(extreme)] = np.nan
    return scale.astype(STORED[element])


def encode(form: Format, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes, one each, and scales of f32 [..., N, K]."""
    (scale,), element = form.scales, form.codes.element
    blocks = blocks_of(w, scale.block)
    if element[1] == "i":
        count = 2 ** int(element[2:])
        low = (-(count // 2) if element[0] == "s" else 0) - form.offset
        high = low + count - 1
        largest = low if -low > high else high
        # The first of equal ones; a NaN before all others.
        where = np.abs(np.where(np.isnan(blocks), np.inf, blocks)).argmax(-1)
        extreme = np.take_along_axis(blocks, where[..., None], -1)[..., 0]
        extreme[np.isnan(blocks).any(-1)] = np.nan
    else:
        high = 448.0 if element == "f8E4M3FN" else 6.0
        low, largest = -high, high
        extreme = np.abs(blocks).max(-1)
    scales = round_scale(extreme, largest, scale.element)
    of_element = np.repeat(np.repeat(scales.astype(np.float32), scale.block[0], -2),
                           scale.block[1], -1)[..., :w.shape[-2], :w.shape[-1]]
    x = np.clip(w / np.where(of_element == 0, np.float32(1), of_element), low, high)
    if element[1] == "i":
        codes = np.where(np.isnan(x), 0, np.rint(x)).astype(np.int64) + form.offset
        return (codes & (count - 1)).astype(np.uint8), scales
    kind = ml_dtypes.float8_e4m3fn if element == "f8E4M3FN" else ml_dtypes.float4_e2m1fn
    return x.astype(kind).view(np.uint8), scales


def compile_quantize(moe, form: Format, shape, element: str, transposed: bool):
    source = "x".join(map(str, shape))
    n, k = shape[-2:][::-1] if transposed else shape[-2:]
    lead = [*shape[:-2]]
    packed = form.codes.bits
    codes = [*lead, n, -(-k // 2) if packed else k]
    block = form.scales[0].block
    scales = [*lead, -(-n // block[0]), -(-k // block[1])]
    code_type = form.codes.element if form.codes.element == "f8E4M3FN" else "i8"
    types = ["tensor<" + "".join(f"{d}x" for d in dims) + kind + ">"
             for dims, kind in ((codes, code_type), (scales, form.scales[0].element))]
    text = f"""func.func @layer(%w: tensor<{source}x{element}> {{moe.name = "w"}})
    -> ({types[0]} {{moe.name = "codes"}}, {types[1]} {{moe.name = "scales"}}) {{
  %codes, %scales = moe.quantize %w {'transposed ' if transposed else ''}format({
      str(form).removeprefix('#moe.format')})
    : tensor<{source}x{element}> -> {types[0]}, {types[1]}
  return %codes, %scales : {types[0]}, {types[1]}
}}
"""
    layer = moe.compile(text).layer({})
    out = (np.zeros(codes, STORED.get(code_type, np.int8)),
           np.zeros(scales, STORED[form.scales[0].element]))

    def run(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        layer(w, out=list(out))
        return out[0].view(np.uint8).copy(), out[1].copy()

    return run


def pack(codes: np.ndarray) -> np.ndarray:
    """Two codes of 4 bits a byte, the first in the low bits."""
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return codes[..., ::2] | codes[..., 1::2] << 4


def hostile(shape, element: str, seed) -> np.ndarray:
    """Rows of zeros, ties, tiny, large and invalid numbers among ordinary ones."""
    r = data.rng("quantize", *seed)
    w = r.standard_normal(shape).astype(np.float32)
    flat = w.reshape(-1, shape[-1])
    flat[0] = 0
    flat[1] *= 1e-38  # some of the scales are subnormal, or zero
    flat[2] *= 1e4 if element == "f16" else 3e37
    flat[3] = np.round(flat[3] * 4) / 2  # many ties, in magnitude and in rounding
    flat[4, ::5] = np.nan
    flat[5, 3] = np.inf
    flat[6, -1] = -np.inf
    flat[7] = -1.0
    flat[7, 1::2] = 1.0
    return w.astype(data.numpy_type(element))


@pytest.mark.parametrize("element, transposed", [("f32", False), ("bf16", True), ("f16", False)])
@pytest.mark.parametrize("name", list(FORMATS))
def test_codes_and_scales(compiled, name, element, transposed):
    """Bit for bit, with partial blocks in both directions and an odd number of columns."""
    form, (n, k) = FORMATS[name], (131, 139)
    w = hostile((2, n, k), element, (name,))
    given = np.ascontiguousarray(w.swapaxes(1, 2)) if transposed else w
    run = compile_quantize(compiled, form, given.shape, element, transposed)
    codes, scales = run(given)
    with np.errstate(all="ignore"):
        expected_codes, expected_scales = encode(form, w.astype(np.float32))
    np.testing.assert_array_equal(scales.astype(np.float32), expected_scales.astype(np.float32))
    if form.codes.bits:
        codes = np.stack([codes & 15, codes >> 4], -1).reshape(2, n, -1)
        assert not codes[..., k:].any()  # nothing after the last column
        codes = codes[..., :k]
    # Codes of blocks that decode to NaN are not defined.
    block = form.scales[0].block
    is_nan = np.repeat(np.repeat(np.isnan(scales.astype(np.float32)), block[0], -2), block[1],
                       -1)[..., :n, :k]
    if form.codes.element != "f8E4M3FN":
        np.testing.assert_array_equal(codes[~is_nan], expected_codes[~is_nan])
    else:
        finite = np.isfinite(expected_codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
        np.testing.assert_array_equal(codes[finite], expected_codes[finite])
    # What is decoded is NaN exactly in the blocks that have a number that is not finite.
    with np.errstate(all="ignore"):
        stored = pack(codes) if form.codes.bits else codes
        decoded = form.decode([stored, scales], (2, n, k))
        bad = ~np.isfinite(blocks_of(w.astype(np.float32), block)).all(-1)
    bad = np.repeat(np.repeat(bad, block[0], -2), block[1], -1)[..., :n, :k]
    np.testing.assert_array_equal(np.isnan(decoded), bad)


@pytest.mark.parametrize("name", ["int4:32", "fp8:128x128"])
def test_against_libraries(compiled, name):
    """gguf's q4_0 has the same scales, and codes that differ by rounding alone; torch the same
    codes in 8 bits."""
    w = data.rng("libraries", name).standard_normal((64, 256)).astype(np.float32)
    codes, scales = compile_quantize(compiled, FORMATS[name], w.shape, "f32", False)(w)
    if name == "int4:32":
        gguf = pytest.importorskip("gguf")
        theirs = gguf.quants.quantize(w, gguf.GGMLQuantizationType.Q4_0).reshape(64, 8, 18)
        np.testing.assert_array_equal(scales.view(np.uint8).reshape(64, 8, 2), theirs[..., :2])
        ours = np.stack([codes & 15, codes >> 4], -1).reshape(64, 8, 32)
        packed = theirs[..., 2:]
        difference = ours.astype(int) - np.concatenate([packed & 15, packed >> 4], -1)
        # gguf divides by the scale before it is rounded to f16.
        assert np.abs(difference).max() <= 1
        assert (difference != 0).mean() < 5e-3
        return
    torch = pytest.importorskip("torch")
    parts = torch.from_numpy(w)[:, :].reshape(1, 64, 2, 128)
    scale = parts.abs().amax((1, 3)) / 448
    q = (parts / scale[:, None, :, None]).to(torch.float8_e4m3fn).view(torch.uint8)
    np.testing.assert_array_equal(codes, q.reshape(64, 256).numpy())
    np.testing.assert_array_equal(scales, scale.numpy())


# --------------------------------------------------------------------------
# Layers
# --------------------------------------------------------------------------

CHECKPOINT = Path(__file__).resolve().parents[2] / "data" / "tiny-mixtral"
NAMED = ("int4:32", "int8", "mxfp4", "fp8:128x128")


def rounded(form: Format, w: np.ndarray) -> np.ndarray:
    """What the weights [..., N, K] are after rounding; blocks are cut to the matrices."""
    (scale,), (n, k) = form.scales, w.shape[-2:]
    block = (min(scale.block[0], n), min(scale.block[1], k))
    form = dataclasses.replace(form, scales=(dataclasses.replace(scale, block=block),))
    codes, scales = encode(form, w)
    return form.decode([pack(codes) if form.codes.bits else codes, scales], w.shape)


@pytest.mark.parametrize("target", ["host", "x86-64-v3"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", NAMED)
def test_layer(compiled, tmp_path, name, dtype, target):
    """Equal to the layer of weights that numpy rounded; errors and bytes are what they say."""
    shutil.copy(CHECKPOINT / "config.json", tmp_path)  # without weights, of any type
    plain = compiled.compile(tmp_path, layer=0, dtype=dtype, target=target)
    module = compiled.compile(tmp_path, layer=0, dtype=dtype, target=target, quantize=name)
    stored = load_file(CHECKPOINT / "model.safetensors")
    block = "model.layers.0.block_sparse_moe."
    given = {"router": stored[block + "gate.weight"].astype(data.numpy_type(dtype))}
    exact, errors = dict(given), {}
    for weight, part in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
        w = np.stack([stored[f"{block}experts.{e}.{part}.weight"] for e in range(8)])
        exact[weight] = w.astype(data.numpy_type(dtype))
        w = exact[weight].astype(np.float32)
        decoded = rounded(FORMATS[name], w)
        given[weight] = np.ascontiguousarray(decoded.astype(data.numpy_type(dtype)))
        errors[weight] = np.sqrt(((decoded - w).astype(np.float64)**2).sum((1, 2))
                                 / (w.astype(np.float64)**2).sum((1, 2)))
    layer = module.layer(exact)
    assert layer.quantization_errors.keys() == errors.keys()
    for weight, error in errors.items():
        np.testing.assert_allclose(layer.quantization_errors[weight], error, rtol=1e-5)
    x = data.rng("layer", name).standard_normal((37, 128)).astype(data.numpy_type(dtype))
    # In bf16 numpy's weights are rounded once more, which kernels need not do.
    tolerance = {"f32": 2e-6, "bf16": 8 * 2.0**-9}[dtype]
    assert data.relative_error(layer(x), plain.layer(given)(x)) < tolerance


def test_weights_that_are_not_transposed(compiled):
    """Groups are along the sum whatever the layout of the weights."""
    text = """func.func @layer(%x: tensor<?x64xf32> {moe.name = "x"},
    %w: tensor<2x64x48xf32> {moe.name = "w", moe.role = "weight"},
    %offsets: tensor<3xi32> {moe.name = "offsets"}) -> tensor<?x48xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x64xf32>
  %init = tensor.empty(%n) : tensor<?x48xf32>
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<3xi32>)
      weights(%w : tensor<2x64x48xf32>) outs(%init : tensor<?x48xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}
"""
    r = data.rng("not transposed")
    x, w = r.standard_normal((9, 64)), r.standard_normal((2, 64, 48)).astype(np.float32)
    offsets = np.array([0, 4, 9], np.int32)
    layer = compiled.compile(text, quantize="int4:32").layer({"w": w})
    decoded = rounded(FORMATS["int4:32"], w.swapaxes(1, 2).copy()).swapaxes(1, 2)
    expected = np.concatenate([x[:4] @ decoded[0], x[4:] @ decoded[1]])
    assert data.relative_error(layer(x.astype(np.float32), offsets), expected) < 2e-6
    assert layer.weight_bytes < w.nbytes / 6


@pytest.mark.parametrize("value", ["int3", "int4:0", "int4:x", "mxfp4:32", "fp8:128", "fp8:1x",
                                   "fp8:128x128x1", "int8:1048577"])
def test_formats_that_are_refused(compiled, value):
    with pytest.raises(compiled.MoEError) as error:
        compiled.compile(CHECKPOINT, layer=0, quantize=value)
    assert f"--quantize: expected int4[:GROUP], int8[:GROUP], mxfp4 or fp8[:ROWSxCOLUMNS], such " \
           f"as int4:32 or fp8:128x128, got '{value}'" in str(error.value)
