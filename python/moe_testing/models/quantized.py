"""Quantised copies of the tiny models of `hf`, and what transformers decodes them to.

A model is saved twice: quantised, which is compiled, and decoded by transformers' own code or
by the library of the format, which transformers loads and runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from .checkpoints import TORCH
from .hf import Model

Tensors = dict[str, torch.Tensor]
# From the name of a weight and the weight: the tensors that replace it, and what they decode to.
Quantizer = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]


def is_expert(name: str) -> bool:
    return ".layers.1." in name and "expert" in name and "bias" not in name and "router" not in name


def save_both(model: Model, directory: Path, quantizer: Quantizer, config: dict,
              chosen: Callable[[str], bool] = is_expert, **options) -> tuple[Path, Path]:
    quantized, decoded = directory / "quantized", directory / "decoded"
    model.save(quantized, **options)
    model.save(decoded, **options)
    tensors = load_file(quantized / "model.safetensors")
    replaced, plain = dict(tensors), dict(tensors)
    names = [name for name in tensors if chosen(name)]
    assert names
    for name in names:
        made, plain[name] = quantizer(name, tensors[name])
        del replaced[name]
        replaced |= made
    save_file(replaced, quantized / "model.safetensors")
    save_file(plain, decoded / "model.safetensors", metadata={"format": "pt"})
    path = quantized / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": config}))
    return quantized, decoded


def load_decoded(model: Model, decoded: Path) -> Model:
    """The model with the decoded weights, run by transformers in f32: in 16 bits it rounds after
    every operation."""
    reference = type(model.model).from_pretrained(decoded, dtype=torch.float32)
    reference.config._experts_implementation = "eager"
    return Model(reference.eval(), model.layer, model.block, model.router)


def to_mxfp4(w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of 32 along the last dimension; the exponent is that of the largest value."""
    groups = w.float().reshape(*w.shape[:-1], -1, 32)
    exponent = torch.floor(torch.log2(groups.abs().amax(-1).clamp(min=2.0**-100))) - 2
    scaled = groups / torch.exp2(exponent)[..., None]
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    codes = (scaled.abs()[..., None] - values).abs().argmin(-1)
    codes = (codes + 8 * (scaled < 0)).to(torch.uint8)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    return blocks.contiguous(), (exponent + 127).to(torch.uint8)


def mxfp4(dtype: str) -> Quantizer:
    def quantize(name: str, w: torch.Tensor):
        blocks, scales = to_mxfp4(w.transpose(1, 2))  # [E, in, out] in the model
        made = {name + "_blocks": blocks, name + "_scales": scales}
        return made, convert_moe_packed_tensors(blocks, scales, dtype=TORCH[dtype])
    return quantize


def fp8(block: tuple[int, int], scale_type: torch.dtype = torch.float32) -> Quantizer:
    def quantize(name: str, w: torch.Tensor):
        n, k = w.shape
        rows, columns = -(-n // block[0]), -(-k // block[1])
        wide = torch.zeros(rows * block[0], columns * block[1])
        wide[:n, :k] = w.float()
        largest = wide.reshape(rows, block[0], columns, block[1]).abs().amax((1, 3))
        scale = (largest / 448).clamp(min=2.0**-40)
        if scale_type == torch.float8_e8m0fnu:
            scale = torch.exp2(torch.ceil(torch.log2(scale)))
        scale = scale.to(scale_type)
        spread = scale.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
        codes = (w.float() / spread[:n, :k]).clamp(-448, 448).to(torch.float8_e4m3fn)
        decoded = _dequantize_fp8_weight(codes, scale.float(), list(block), torch.float32)
        return {name: codes, name + "_scale_inv": scale}, decoded.to(w.dtype)
    return quantize
