"""Blocks of transformers that are tested without the model around them.

``BLOCKS[family]()`` makes one with random weights; it takes rows ``[1, T, H]``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .hf import E, I, H, SHARED

DECODER = dict(hidden_size=H, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
               head_dim=16)


class FeedForward(nn.Module):
    """The part of a layer of Gemma 4 after the attention: two networks and their norms."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        dense = layer.mlp(layer.pre_feedforward_layernorm(rows))
        flat = rows.reshape(-1, rows.shape[-1])
        _, weights, ids = layer.router(flat)
        routed = layer.experts(layer.pre_feedforward_layernorm_2(flat), ids, weights)
        both = layer.post_feedforward_layernorm_1(dense) + layer.post_feedforward_layernorm_2(
            routed.reshape(rows.shape))
        return layer.post_feedforward_layernorm(both)


def randomize(block: nn.Module, seed: int = 1) -> nn.Module:
    """Weights whose products have a standard deviation of about 1."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*block.named_parameters(), *block.named_buffers()]:
            value = torch.randn(tensor.shape, generator=draw)
            if tensor.ndim >= 2:
                value /= tensor.shape[-1] ** 0.5
            tensor.copy_(0.3 * value if "bias" in name else value)
    return block.eval()


def block(folder: str, config: str, cls: str, *arguments: Any,
          wrap: Callable[[nn.Module], nn.Module] = lambda b: b, **settings: Any) -> Callable[
              [], nn.Module]:
    def make() -> nn.Module:
        parts = [importlib.import_module(f"transformers.models.{folder}.{kind}_{folder}")
                 for kind in ("configuration", "modeling")]
        configuration = getattr(parts[0], config)(**settings)
        configuration._experts_implementation = "eager"
        return randomize(wrap(getattr(parts[1], cls)(configuration, *arguments)))

    return make


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "gemma4": block(
        "gemma4", "Gemma4TextConfig", "Gemma4TextDecoderLayer", 0, wrap=FeedForward, **DECODER,
        global_head_dim=16, intermediate_size=SHARED, moe_intermediate_size=I, num_experts=E,
        top_k_experts=3, enable_moe_block=True, hidden_size_per_layer_input=0, vocab_size=64,
        vocab_size_per_layer_input=64),
    "diffusion_gemma": block(
        "diffusion_gemma", "DiffusionGemmaTextConfig", "DiffusionGemmaDecoderTextLayer", 0,
        wrap=FeedForward, **DECODER, intermediate_size=SHARED, moe_intermediate_size=I,
        num_experts=E, top_k_experts=3, vocab_size=64),
    "ernie4_5_vl_moe": block(
        "ernie4_5_vl_moe", "Ernie4_5_VLMoeTextConfig", "Ernie4_5_VLMoeMoeBlock", hidden_size=H,
        moe_intermediate_size=[I, 16], moe_num_experts=E, moe_k=3, num_hidden_layers=2),
    "inkling": block(
        "inkling", "InklingTextConfig", "InklingMoE", hidden_size=H, moe_intermediate_size=I,
        n_routed_experts=E, num_experts_per_tok=3, n_shared_experts=2, num_hidden_layers=2),
    "muse_spark": block(
        "muse_spark", "MuseSparkTextConfig", "MuseSparkMoE", **DECODER, moe_hidden_size=16,
        moe_intermediate_size=I, num_local_experts=E, num_experts_per_tok=3),
    "zaya": block(
        "zaya", "ZayaConfig", "ZayaSparseMoeBlock", 1, hidden_size=H, moe_intermediate_size=I,
        num_experts=E, router_hidden_size=12, num_hidden_layers=2),
    # Loops over the experts instead of transformers' interface, the second with
    # choices that keep the row.
    "step3p7": block(
        "step3p7", "Step3p7TextConfig", "Step3p7SparseMoeBlock", 1, hidden_size=H,
        intermediate_size=SHARED, moe_intermediate_size=I, n_routed_experts=E, num_experts=E,
        num_local_experts=E, num_experts_per_tok=3, num_hidden_layers=2),
    "longcat_flash": block(
        "longcat_flash", "LongcatFlashConfig", "LongcatFlashMoE", hidden_size=H,
        expert_ffn_hidden_size=I, n_routed_experts=E, zero_expert_num=3, moe_topk=3,
        num_layers=2),
    # A mask of zeros and ones in place of ids, and a capacity that is a part of the tokens.
    "nllb_moe": block(
        "nllb_moe", "NllbMoeConfig", "NllbMoeSparseMLP", I, d_model=H, encoder_ffn_dim=I,
        decoder_ffn_dim=I, num_experts=E, moe_eval_capacity_token_fraction=0.2,
        moe_token_dropout=0.3),
    # Experts that are rows of two tables.
    "doge": block(
        "doge", "DogeConfig", "DogeCDMoE", hidden_size=H, intermediate_size=SHARED,
        num_experts=16, num_experts_per_tok=3, is_moe=True, norm_topk_prob=True),
}
