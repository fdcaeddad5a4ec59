"""Tiny models of transformers, one for each family that the importer knows.

``MODELS[family]`` makes the model with random weights; ``Model.block`` is what
the importer makes a function of, in transformers' own code.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from torch import nn

H, I, E, SHARED = 32, 24, 8, 40
Tensor = torch.Tensor
# From a model and the logits of its router: what the router compares, if not the logits.
Choice = Callable[[nn.Module, Tensor], list[Tensor]]

# Attention of the smallest size; it never runs.
COMMON = dict(hidden_size=H, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
              vocab_size=64)
LATENT = dict(q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8,
              v_head_dim=16)


@dataclasses.dataclass
class Model:
    model: nn.Module
    layer: int  # the number for --layer
    block: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    router: Callable[[nn.Module], nn.Module]  # whose parameters make the logits
    choice: Choice | None = None

    def run(self, x: Tensor) -> Tensor:
        """``x [T, H]`` through the block."""
        with torch.no_grad():
            y = self.block(self.model)(x[None].clone())
        y = y[0] if isinstance(y, tuple) else y
        return y.reshape(x.shape)

    def logits(self, x: Tensor) -> Tensor:
        """The logits of the router in f32."""
        router = self.router(self.model)
        logits = x.float() @ router.weight.detach().float().T
        bias = getattr(router, "bias", None)
        return logits if bias is None else logits + bias.detach().float()

    def rows_away_from_ties(self, count: int, dtype: torch.dtype, seed: int = 3) -> Tensor:
        """Random rows for which rounding the logits to bf16 changes no choice."""
        x = torch.randn((40 * count, H), generator=torch.Generator().manual_seed(seed)).to(dtype)
        if dtype == torch.float32:
            return x[:count]
        # Neighbours in order differ by some units in the last place.
        logits = self.logits(x)
        safe = torch.ones(len(x), dtype=torch.bool)
        for values in [logits] if self.choice is None else self.choice(self.model, logits):
            ordered = values.sort(dim=-1, descending=True).values
            gaps = (ordered[:, :-1] - ordered[:, 1:]) / ordered.abs().amax(-1, keepdim=True)
            safe &= gaps.amin(-1) > 4 * 2.0**-9
        ordered = logits.sort(dim=-1, descending=True).values
        # And, for SparseMixer, from its margin of 0.2.
        for best in (ordered[:, :1], ordered[:, 1:2]):
            ratio = (best - ordered) / torch.maximum(ordered.abs(), best)
            safe &= ((ratio - 0.2).abs() > 8 * 2.0**-9).all(-1)
        assert safe.sum() >= count
        return x[safe][:count]

    def save(self, directory: Path, **options) -> Path:
        self.model.save_pretrained(directory, **options)
        return directory


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Weights whose products have a standard deviation of about 1, from a seed;
    the logits of routers spread more, and biases are about as large. Biases of the
    selection are as large as scores differ."""
    generator = torch.Generator().manual_seed(seed)
    selection = ("e_score_correction_bias", "expert_bias")
    with torch.no_grad():
        tensors = list(model.named_parameters()) + [
            (n, b) for n, b in model.named_buffers() if n.endswith(selection)]
        for name, tensor in tensors:
            draw = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim >= 2 and "bias" not in name:
                draw /= tensor.shape[-1] ** 0.5
            if "router" in name or name.endswith(("gate.weight", "gate.wg.weight")):
                draw *= 2
            if name.endswith(selection):
                draw *= 0.3
            tensor.copy_(draw)
    return model.eval()


MODELS: dict[str, Callable[..., Model]] = {}


def decoder(model) -> nn.ModuleList:
    """The layers of a model, with a head or without."""
    return getattr(model, "model", model).layers


def mlp(model):
    return decoder(model)[1].mlp


def family(name: str, cls: str, config: str, block=mlp, gate="gate", choice: Choice | None = None,
           router=None, change=None, **settings):
    """A decoder; layer 1 is tested. Its router is at `gate` of the block, or what `router`
    returns; `change` edits the model with random weights."""
    find_router = router or (lambda m: block(m).get_submodule(gate))

    def make(seed: int = 1, **more) -> Model:
        options = dict(COMMON, **settings)
        options.update(more)
        configuration = getattr(transformers, config)(**options)
        configuration._experts_implementation = "eager"
        model = randomize(getattr(transformers, cls)(configuration), seed)
        if change:
            change(model)
        return Model(model, 1, block, find_router, choice)

    MODELS[name] = make


family("mixtral", "MixtralForCausalLM", "MixtralConfig", intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=2)
family("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig", moe_intermediate_size=I,
       num_experts=E, num_experts_per_tok=4, norm_topk_prob=True, head_dim=16)
family("qwen2_moe", "Qwen2MoeForCausalLM", "Qwen2MoeConfig", moe_intermediate_size=I,
       num_experts=E, num_experts_per_tok=4, shared_expert_intermediate_size=SHARED)
family("olmoe", "OlmoeForCausalLM", "OlmoeConfig", intermediate_size=I, num_experts=E,
       num_experts_per_tok=4)
family("deepseek_v2", "DeepseekV2ForCausalLM", "DeepseekV2Config", moe_intermediate_size=I,
       intermediate_size=SHARED, n_routed_experts=E, num_experts_per_tok=3,
       first_k_dense_replace=1, n_group=4, topk_group=2, topk_method="group_limited_greedy",
       routed_scaling_factor=16.0, **LATENT)
family("deepseek_v2_lite", "DeepseekV2ForCausalLM", "DeepseekV2Config",
       moe_intermediate_size=I, intermediate_size=SHARED, n_routed_experts=E,
       num_experts_per_tok=3, first_k_dense_replace=1, topk_method="greedy", **LATENT)
family("deepseek_v3", "DeepseekV3ForCausalLM", "DeepseekV3Config", moe_intermediate_size=I,
       intermediate_size=SHARED, n_routed_experts=E, num_experts_per_tok=3,
       first_k_dense_replace=1, n_group=4, topk_group=2, **LATENT)
family("glm4_moe", "Glm4MoeForCausalLM", "Glm4MoeConfig", moe_intermediate_size=I,
       intermediate_size=SHARED, n_routed_experts=E, num_experts_per_tok=3,
       routed_scaling_factor=2.827, n_shared_experts=2)
family("gpt_oss", "GptOssForCausalLM", "GptOssConfig", gate="router", intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=4, head_dim=16)
family("granitemoe", "GraniteMoeForCausalLM", "GraniteMoeConfig", gate="router",
       block=lambda m: m.model.layers[1].block_sparse_moe, intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=4)
family("llama4_text", "Llama4ForCausalLM", "Llama4TextConfig", gate="router",
       block=lambda m: m.model.layers[1].feed_forward, intermediate_size=I,
       intermediate_size_mlp=SHARED, num_local_experts=E, head_dim=16,
       interleave_moe_layer_step=2)
family("phimoe", "PhimoeForCausalLM", "PhimoeConfig", gate="router", intermediate_size=I,
       num_local_experts=E, router_jitter_noise=0.1)
family("jamba", "JambaForCausalLM", "JambaConfig", gate="router",
       block=lambda m: m.model.layers[1].feed_forward, intermediate_size=I, num_experts=E,
       use_mamba_kernels=False, attn_layer_period=1, attn_layer_offset=0)


def _granite_shared(model):
    block = model.model.layers[1]
    return lambda x: block.block_sparse_moe(x) + block.shared_mlp(x)


def _make(name: str):
    def add(make):
        MODELS[name] = make
        return make
    return add


@_make("granitemoeshared")
def _(seed: int = 1) -> Model:
    config = transformers.GraniteMoeSharedConfig(
        **COMMON, intermediate_size=I, num_local_experts=E, num_experts_per_tok=4,
        shared_intermediate_size=SHARED)
    config._experts_implementation = "eager"
    return Model(randomize(transformers.GraniteMoeSharedForCausalLM(config), seed), 1,
                 _granite_shared, lambda m: m.model.layers[1].block_sparse_moe.router)


@_make("llama4")
def _(seed: int = 1) -> Model:
    """With images: the language model is a part of it."""
    text = dict(COMMON, intermediate_size=I, intermediate_size_mlp=SHARED, num_local_experts=E,
                head_dim=16, num_experts_per_tok=2, moe_layers=[1])
    vision = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                  intermediate_size=16, image_size=28, patch_size=14, vision_output_dim=16,
                  projector_input_dim=16, projector_output_dim=16)
    config = transformers.Llama4Config(text_config=text, vision_config=vision)
    model = transformers.Llama4ForConditionalGeneration(config)
    return Model(randomize(model, seed), 1,
                 lambda m: m.language_model.model.layers[1].feed_forward,
                 lambda m: m.language_model.model.layers[1].feed_forward.router)


@_make("dbrx")
def _(seed: int = 1, p: float | None = 1.0) -> Model:
    ffn = dict(hidden_size=H, ffn_hidden_size=I, moe_num_experts=E, moe_top_k=4,
               moe_normalize_expert_weights=p, ffn_act_fn={"name": "silu"})
    config = transformers.DbrxConfig(
        d_model=H, n_heads=2, n_layers=2, vocab_size=64, ffn_config=ffn,
        attn_config=dict(kv_n_heads=2, clip_qkv=8, rope_theta=10000.0))
    return Model(randomize(transformers.DbrxForCausalLM(config), seed), 1,
                 lambda m: m.transformer.blocks[1].ffn,
                 lambda m: m.transformer.blocks[1].ffn.router.layer)


def switch(decoder: bool, seed: int = 1, **more) -> Model:
    config = transformers.SwitchTransformersConfig(
        vocab_size=64, d_model=H, d_kv=H // 2, d_ff=I, num_layers=4, num_decoder_layers=2,
        num_sparse_encoder_layers=2, num_sparse_decoder_layers=1, num_heads=2, num_experts=E,
        **dict(dict(expert_capacity=5), **more))
    model = transformers.SwitchTransformersForConditionalGeneration(config)

    def block(m):
        return m.decoder.block[1].layer[2].mlp if decoder else m.encoder.block[3].layer[1].mlp

    # The blocks of the decoder follow the four of the encoder.
    return Model(randomize(model, seed), 5 if decoder else 3, block,
                 lambda m: block(m).router.classifier)


MODELS["switch_transformers"] = lambda seed=1, **more: switch(False, seed, **more)
MODELS["switch_decoder"] = lambda seed=1, **more: switch(True, seed, **more)


def generating(family: str, experts_implementation: str) -> nn.Module:
    """A model that generates as many tokens as it is asked for."""
    model = MODELS[family]().model
    model.generation_config.eos_token_id = None
    model.set_experts_implementation(experts_implementation)
    return model


def prompt(batch: int = 2, length: int = 19, seed: int = 3) -> Tensor:
    """Random tokens for models of these families."""
    return torch.randint(1, 64, (batch, length), generator=torch.Generator().manual_seed(seed))


BASE = list(MODELS)  # the families of this file

from . import hf_families  # noqa: E402, F401
