"""Layers of quantised checkpoints, against transformers with the weights that the libraries of
the formats decode.

moe_testing.models.quantized saves both.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")

import torch
from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from moe_testing.models.checkpoints import TORCH, numpy_of
from moe_testing.models.hf import MODELS, E, H, Model
from moe_testing.models.quantized import (
    Quantizer, Tensors, fp8, is_expert, load_decoded, mxfp4, save_both, to_mxfp4)
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

# As for checkpoints without quantisation: decoded weights are equal bit for bit.
TOLERANCE = {"f32": 2e-6, "bf16": 8 * 2.0**-9, "f16": 8 * 2.0**-12}


def check(moe, model: Model, quantized: Path, decoded: Path, dtype: str, tokens: int = 33
          ) -> float:
    theirs = load_decoded(model, decoded)
    x = model.rows_away_from_ties(tokens, TORCH[dtype])
    y = moe.compile(quantized, layer=model.layer).layer(quantized)(numpy_of(x))
    expected = theirs.run(x.float()).numpy()
    assert np.abs(expected).max() > 0.1
    error = data.relative_error(y, expected)
    assert error < TOLERANCE[dtype]
    return error


def refused(moe, directory: Path) -> str:
    done = subprocess.run([moe.find_compiler(), "--hf", directory, "--layer=1", "--emit=mlir",
                           "-o", "-"], text=True, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


# --------------------------------------------------------------------------
# MXFP4
# --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bf16", "f32"])
def test_mxfp4_of_gpt_oss(compiled, tmp_path, record, dtype):
    model = MODELS["gpt_oss"](intermediate_size=64)
    model.model.to(TORCH[dtype])
    both = save_both(model, tmp_path, mxfp4(dtype), {"quant_method": "mxfp4"})
    record(f"MXFP4 {dtype}", check(compiled, model, *both, dtype))


def mxfp4_per_expert(name: str, w: torch.Tensor):
    blocks, scales = to_mxfp4(w)
    decoded = convert_moe_packed_tensors(blocks[None], scales[None], dtype=w.dtype)[0].T
    base = name.removesuffix(".weight")
    return {base + ".weight_packed": blocks.flatten(-2), base + ".weight_scale": scales}, (
        decoded.contiguous())


def test_mxfp4_given_per_expert(compiled, tmp_path, record):
    model = MODELS["qwen3_moe"](moe_intermediate_size=32)
    both = save_both(model, tmp_path, mxfp4_per_expert, {"quant_method": "compressed-tensors"})
    record("MXFP4 per expert f32", check(compiled, model, *both, "f32"))


# --------------------------------------------------------------------------
# fp8
# --------------------------------------------------------------------------


@pytest.mark.parametrize("block, scale_type", [
    ((128, 128), torch.float32), ((16, 16), torch.float32), ((8, 16), torch.bfloat16),
    ((16, 8), torch.float8_e8m0fnu)], ids=str)
@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe", "qwen3_moe"])
def test_fp8_blocks(compiled, tmp_path, record, family, block, scale_type):
    """Blocks at the edges are partial: I is 24, the shared expert's 24 or 48."""
    model = MODELS[family]()
    both = save_both(model, tmp_path, fp8(block, scale_type),
                     {"quant_method": "fp8", "weight_block_size": list(block)})
    record(f"fp8 {family} {block}", check(compiled, model, *both, "f32"))


def test_fp8_blocks_in_bf16(compiled, tmp_path, record):
    model = MODELS["deepseek_v3"](moe_intermediate_size=144, hidden_size=H)
    model.model.to(torch.bfloat16)
    both = save_both(model, tmp_path, fp8((128, 128)),
                     {"quant_method": "fp8", "weight_block_size": [128, 128]})
    record("fp8 deepseek_v3 bf16", check(compiled, model, *both, "bf16"))


# --------------------------------------------------------------------------
# Families whose publishers quantise in a way of their own
# --------------------------------------------------------------------------


def decode(codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """As transformers' loader, which takes every form of codes and scales, in f32."""
    return Fp8Dequantize(None)._dequantize_one(codes, scale, torch.float32)


def deepseek_v4(name: str, w: torch.Tensor):
    """Routed experts in 4 bits, two codes a byte; shared ones in fp8. Scales are exponents."""
    base = name.removesuffix("weight")
    if "shared" in name:
        made, _ = fp8((128, 128), torch.float8_e8m0fnu)(name, w)
        codes, scale = made[name], made[name + "_scale_inv"]
    else:
        blocks, exponents = to_mxfp4(w)
        codes = blocks.reshape(w.shape[0], -1).view(torch.int8)
        scale = exponents.view(torch.float8_e8m0fnu)
    return {name: codes, base + "scale": scale}, decode(codes, scale)


def mistral_large4(name: str, w: torch.Tensor):
    """fp8 with one scale a tensor, and one of the activations, which is not read."""
    scale = (w.float().abs().max() / 448).reshape(())
    codes = (w.float() / scale).to(torch.float8_e4m3fn)
    base = name.removesuffix("weight")
    return ({name: codes, base + "qscale_weight": scale, base + "qscale_act": scale.clone()},
            decode(codes, scale.reshape(1, 1)))


def inkling2(name: str, w: torch.Tensor):
    """fp8 with exponents, in bytes, for 8 columns (32 in the published files)."""
    largest = w.float().reshape(*w.shape[:-1], -1, 8).abs().amax(-1)
    exponents = (torch.ceil(torch.log2(largest / 448)) + 127).to(torch.uint8)
    spread = torch.exp2(exponents.float() - 127).repeat_interleave(8, -1)
    codes = (w.float() / spread).to(torch.float8_e4m3fn)
    decoded = [decode(*pair) for pair in zip(codes, exponents)]
    return {name: codes, name + "_scale": exponents}, torch.stack(decoded)


PUBLISHED = {"deepseek_v4": (deepseek_v4, dict(moe_intermediate_size=64)),
             "mistral_large4_text": (mistral_large4, {}), "inkling2_text": (inkling2, {})}


def weights_of_experts(name: str) -> bool:
    return "layers.1." in name and "expert" in name and not name.endswith("bias")


@pytest.mark.parametrize("family", list(PUBLISHED))
def test_formats_of_single_families(compiled, tmp_path, record, family):
    quantizer, options = PUBLISHED[family]
    model = MODELS[family](**options)
    both = save_both(model, tmp_path, quantizer, {"quant_method": "fp8"}, weights_of_experts)
    record(f"{family} f32", check(compiled, model, *both, "f32"))


def test_codes_of_four_bits_have_half_as_many_columns(compiled, tmp_path):
    quantizer, options = PUBLISHED["deepseek_v4"]
    model = MODELS["deepseek_v4"](**options)
    quantized, _ = save_both(model, tmp_path, quantizer, {"quant_method": "fp8"},
                             weights_of_experts)
    change(quantized, lambda tensors: tensors.update(
        {name: t.repeat(1, 2) for name, t in tensors.items() if t.dtype == torch.int8}))
    assert re.search(r"expected tensor '.*experts\.0\.w1\.weight' to be i8\[64, 16\], got "
                     r"i8\[64, 32\]", refused(compiled, quantized))


# --------------------------------------------------------------------------
# compressed-tensors
# --------------------------------------------------------------------------


def compressed(compressor, **arguments) -> tuple[Quantizer, dict]:
    """Quantise with compressed-tensors; also its entry in a config.json."""
    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)

    def quantize(name: str, w: torch.Tensor):
        n, k = w.shape
        if args.strategy == "tensor":
            groups = w.float().reshape(1, 1, -1)
        else:
            groups = w.float().reshape(n, -1, args.group_size or k)
        low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
        if args.type == "float":
            scale, zero = torch.maximum(-low, high) / 448, None
        elif args.symmetric:
            scale, zero = torch.maximum(-low, high) / (2 ** (args.num_bits - 1) - 0.5), None
        else:
            scale = (high - low) / (2**args.num_bits - 1)
            zero = (-(2 ** (args.num_bits - 1)) - low / scale).round().to(torch.int8)
        scale = scale.clamp(min=2.0**-40).to(w.dtype)
        if args.strategy == "tensor":
            scale = scale.reshape(1)
        state = {"weight": w, "weight_scale": scale}
        if zero is not None:
            state["weight_zero_point"] = zero
        state = compressor.compress(state, scheme)
        # In f32, as kernels compute: the library rounds the product to the type of the scale.
        exact = state | {"weight_scale": state["weight_scale"].float()}
        decoded = compressor.decompress(exact, scheme)["weight"]
        base = name.removesuffix("weight")
        made = {base + key: value.contiguous() for key, value in state.items()
                if value is not None}
        return made, decoded.float()

    weights = {"num_bits": args.num_bits, "type": arguments.get("type", "int"),
               "symmetric": args.symmetric, "group_size": args.group_size,
               "strategy": arguments["strategy"]}
    return quantize, {"quant_method": "compressed-tensors",
                      "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


COMPRESSED = {
    "int4": (PackedQuantizationCompressor, dict(num_bits=4, strategy="group", group_size=4)),
    "int4 zero points": (PackedQuantizationCompressor,
                         dict(num_bits=4, strategy="group", group_size=4, symmetric=False)),
    "int8 packed": (PackedQuantizationCompressor, dict(num_bits=8, strategy="channel")),
    "int8 packed zero points": (PackedQuantizationCompressor,
                                dict(num_bits=8, strategy="channel", symmetric=False)),
    "w8a8": (NaiveQuantizationCompressor, dict(num_bits=8, strategy="channel")),
    "w8a8 zero points": (NaiveQuantizationCompressor,
                         dict(num_bits=8, strategy="channel", symmetric=False)),
    "int8 tensor": (NaiveQuantizationCompressor, dict(num_bits=8, strategy="tensor")),
    "fp8 channel": (NaiveQuantizationCompressor,
                    dict(num_bits=8, type="float", strategy="channel")),
    "fp8 tensor": (NaiveQuantizationCompressor,
                   dict(num_bits=8, type="float", strategy="tensor")),
}


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", list(COMPRESSED))
def test_compressed_tensors(compiled, tmp_path, record, name, dtype):
    """I is 20: zero points of 8 rows share a word, the last only of four."""
    compressor, arguments = COMPRESSED[name]
    quantizer, config = compressed(compressor, **arguments)
    model = MODELS["deepseek_v3"](moe_intermediate_size=20)
    model.model.to(TORCH[dtype])
    both = save_both(model, tmp_path, quantizer, config)
    record(f"{name} {dtype}", check(compiled, model, *both, dtype))


# --------------------------------------------------------------------------
# Refusals
# --------------------------------------------------------------------------

EXPERT = "model.layers.1.mlp.experts.{}.{}.weight"


@pytest.fixture
def fp8_copy(tmp_path):
    model = MODELS["qwen3_moe"]()
    return save_both(model, tmp_path, fp8((16, 16)),
                     {"quant_method": "fp8", "weight_block_size": [16, 16]})[0]


def change(directory: Path, how: Callable[[Tensors], object]) -> None:
    tensors = load_file(directory / "model.safetensors")
    how(tensors)
    save_file(tensors, directory / "model.safetensors")


def test_scales_are_missing(compiled, fp8_copy):
    name = EXPERT.format(5, "up_proj") + "_scale_inv"
    change(fp8_copy, lambda t: t.pop(name))
    assert f"has no tensor '{name}', expected f32 or bf16 or f16 or f8E8M0FNU or u8[" in refused(
        compiled, fp8_copy)


def test_scales_have_another_shape_or_type(compiled, fp8_copy):
    name = EXPERT.format(0, "gate_proj") + "_scale_inv"
    change(fp8_copy, lambda t: t.update({name: torch.ones(7, 2)}))
    assert (f"expected tensor '{name}' to have a scale for each block of [24, 32], got f32[7, 2]"
            in refused(compiled, fp8_copy))
    change(fp8_copy, lambda t: t.update({name: torch.ones(2, 2, dtype=torch.int32)}))
    assert (f"'{name}' to be f32 or bf16 or f16 or f8E8M0FNU or u8[2, 2], got i32[2, 2]"
            in refused(compiled, fp8_copy))


def test_experts_differ(compiled, fp8_copy):
    name = EXPERT.format(3, "up_proj") + "_scale_inv"
    change(fp8_copy, lambda t: t.update({name: torch.ones(24, 1)}))
    assert "expected all experts in one format" in refused(compiled, fp8_copy)


def test_codes_without_scales(compiled, tmp_path):
    model = MODELS["qwen3_moe"]()
    model.save(tmp_path)
    change(tmp_path, lambda t: t.update(
        {n: w.to(torch.float8_e4m3fn) for n, w in t.items() if is_expert(n)}))
    assert "has no tensor" in (message := refused(compiled, tmp_path))
    assert "scale_inv', expected f32 or bf16" in message


def test_stacked_experts_in_bf16_with_scales(compiled, tmp_path):
    """Scales beside weights that are not quantised are never ignored."""
    model = MODELS["granitemoe"]()
    model.save(tmp_path)
    name = "model.layers.1.block_sparse_moe.input_linear.weight_scale"
    change(tmp_path, lambda t: t.update({name: torch.ones(E, 1)}))
    assert f"there is a tensor '{name}'" in refused(compiled, tmp_path)


@pytest.mark.parametrize("bits", [3, 6])
def test_other_numbers_of_bits(compiled, tmp_path, bits):
    quantizer, config = compressed(PackedQuantizationCompressor, num_bits=bits, strategy="group",
                                   group_size=4)
    quantized, _ = save_both(MODELS["qwen3_moe"](), tmp_path, quantizer, config)
    assert f"in 4 or 8 bits, got {bits}" in refused(compiled, quantized)


def test_columns_in_another_order(compiled, tmp_path):
    quantizer, config = compressed(PackedQuantizationCompressor, num_bits=4, strategy="group",
                                   group_size=4)
    quantized, _ = save_both(MODELS["qwen3_moe"](), tmp_path, quantizer, config)
    name = EXPERT.format(0, "gate_proj") + "_g_idx"
    change(quantized, lambda t: t.update({name: torch.zeros(H, dtype=torch.int32)}))
    assert f"there is a tensor '{name}'" in refused(compiled, quantized)


@pytest.mark.parametrize("suffix, kind", [("qweight", "AWQ or GPTQ"), ("weight.absmax", "bitsandb"),
                                          ("weight_global_scale", "NVFP4")])
def test_formats_that_are_not_imported(compiled, tmp_path, suffix, kind):
    MODELS["qwen3_moe"]().save(tmp_path)
    name = EXPERT.format(0, "gate_proj")
    change(tmp_path, lambda t: t.update(
        {name.removesuffix("weight") + suffix: torch.ones(4, dtype=torch.uint8)}))
    assert kind in refused(compiled, tmp_path)
