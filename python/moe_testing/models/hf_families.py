"""Tiny models of the families of transformers 5 that `hf` does not have.

Sizes and settings differ from each other and from their defaults wherever the
configuration allows it: what the importer reads wrongly changes the result.
"""

from __future__ import annotations

from operator import attrgetter

import torch
import transformers

from .hf import (COMMON, LATENT, SHARED, Choice, E, H, I, Model, Tensor, decoder, family, mlp,
                 randomize)

# Attention of the smallest size for the layers that are not the usual ones.
INDEXER = dict(LATENT, index_n_heads=2, index_head_dim=16, index_topk=4)
LINEAR = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
              linear_num_value_heads=2)
DELTA = dict(linear_head_dim=8, linear_num_heads=2)
HEAD = dict(head_dim=16)
PAD = dict(pad_token_id=0)

ROUTED = dict(moe_intermediate_size=I, n_routed_experts=E, num_experts_per_tok=3)
EXPERTS = dict(moe_intermediate_size=I, num_experts=E, num_experts_per_tok=3)
DENSE = dict(intermediate_size=SHARED)
GROUPS = dict(n_group=4, topk_group=2)
SPARSE = dict(mlp_layer_types=["dense", "sparse"])


def block_of(name: str):
    return lambda model: getattr(decoder(model)[1], name)


def sum_of_shared(routed: str, shared: str):
    """Two modules of a layer whose results its forward adds."""

    def block(model):
        layer = decoder(model)[1]
        return lambda x: getattr(layer, routed)(x) + getattr(layer, shared)(x)

    return block


def choice(score=torch.sigmoid, bias: str | None = None, block="mlp", groups: int = 1) -> Choice:
    """What the router compares: scores, with the bias at `bias` of the block, and their
    groups."""

    def values(model, logits: Tensor) -> list[Tensor]:
        scores = score(logits)
        if bias is not None:
            scores = scores + attrgetter(bias)(block_of(block)(model)).detach().float()
        if groups == 1:
            return [scores]
        best = scores.unflatten(-1, (groups, -1)).topk(2).values.sum(-1)
        return [scores, best]

    return values


def positive_bias(model):
    """Dropped groups score 0 there: below all kept ones then, so that no ties are chosen."""
    mlp(model).gate.e_score_correction_bias.abs_()


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(-1)


# --------------------------------------------------------------------------
# Those like DeepSeek-V2 and V3
# --------------------------------------------------------------------------

DEEPSEEK_OCR = dict(ROUTED, **DENSE, **SPARSE, **GROUPS, topk_method="group_limited_greedy",
                    routed_scaling_factor=1.5, n_shared_experts=2, mlp_bias=True)
family("deepseek_ocr2_text", "DeepseekOcr2TextModel", "DeepseekOcr2TextConfig", **DEEPSEEK_OCR)
family("unlimited_ocr_text", "UnlimitedOcrTextModel", "UnlimitedOcrTextConfig", **ROUTED, **DENSE,
       **GROUPS, topk_method="group_limited_greedy", routed_scaling_factor=1.5,
       n_shared_experts=1)
family("mistral4", "Mistral4ForCausalLM", "Mistral4Config", choice=choice(softmax, groups=4),
       **ROUTED, **DENSE, **GROUPS, **LATENT, routed_scaling_factor=1.5, n_shared_experts=2)
family("mistral_large4_text", "MistralLarge4TextModel", "MistralLarge4TextConfig", **ROUTED,
       **DENSE, **GROUPS, **INDEXER, routed_scaling_factor=1.5, n_shared_experts=2)
family("deepseek_v32", "DeepseekV32ForCausalLM", "DeepseekV32Config", **ROUTED, **DENSE, **GROUPS,
       **INDEXER, first_k_dense_replace=1, n_shared_experts=2)
family("deepseek_v4", "DeepseekV4ForCausalLM", "DeepseekV4Config",
       choice=choice(lambda x: torch.nn.functional.softplus(x).sqrt(),
                     "gate.e_score_correction_bias"),
       **ROUTED, mlp_layer_types=["hash_moe", "moe"], mlp_bias=True, swiglu_limit=0.7,
       num_key_value_heads=1, head_dim=16, q_lora_rank=8, o_groups=2, o_lora_rank=8,
       index_n_heads=2, index_head_dim=16)
family("glm4_moe_lite", "Glm4MoeLiteForCausalLM", "Glm4MoeLiteConfig", **ROUTED, **DENSE,
       **GROUPS, **LATENT, n_shared_experts=2)
family("glm4v_moe_text", "Glm4vMoeTextModel", "Glm4vMoeTextConfig", **ROUTED, **DENSE, **GROUPS,
       routed_scaling_factor=1.5, n_shared_experts=2)
family("glm_moe_dsa", "GlmMoeDsaForCausalLM", "GlmMoeDsaConfig", **ROUTED, **DENSE, **GROUPS,
       **INDEXER, first_k_dense_replace=1, norm_topk_prob=False)
family("glm5_next_text", "Glm5NextTextModel", "Glm5NextTextConfig", **ROUTED, **DENSE, **SPARSE,
       **GROUPS, **dict(INDEXER, qk_rope_head_dim=0), **DELTA, **PAD, index_kpool=2,
       swiglu_limit=0.7, n_shared_experts=2)
family("hy_v4", "HYV4ForCausalLM", "HYV4Config", **ROUTED, **DENSE, **GROUPS, **INDEXER,
       **PAD, swiglu_limit=0.7, n_shared_experts=2)
family("hy_v4_vl_text", "HYV4VLTextModel", "HYV4VLTextConfig", **ROUTED, **DENSE, **GROUPS,
       **INDEXER, rope_parameters=dict(rope_theta=10000.0, rope_type="default",
                                       mrope_section=[2, 1, 1]),
       **PAD, swiglu_limit=0.7, n_shared_experts=2)
family("dots1", "Dots1ForCausalLM", "Dots1Config", **ROUTED, **DENSE, **GROUPS,
       first_k_dense_replace=1, routed_scaling_factor=1.5, n_shared_experts=2)
family("dots3_note_text", "Dots3NoteForCausalLM", "Dots3NoteTextConfig", **ROUTED, **DENSE,
       **GROUPS, **INDEXER, **PAD, routed_scaling_factor=1.5, n_shared_experts=2,
       shared_experts_intermediate_size=SHARED)
family("axk1", "AXK1ForCausalLM", "AXK1Config", **ROUTED, **DENSE, **GROUPS, **LATENT)
family("axk2", "AXK2ForCausalLM", "AXK2Config", **ROUTED, **DENSE, **GROUPS, **INDEXER,
       change=positive_bias)
family("beam", "BeamForCausalLM", "BeamConfig", **EXPERTS, **DENSE, **SPARSE, **GROUPS, **HEAD)
family("exaone_moe", "ExaoneMoeForCausalLM", "ExaoneMoeConfig", **EXPERTS, **DENSE, **GROUPS,
       num_shared_experts=2)
family("mimo_v2_flash", "MiMoV2FlashForCausalLM", "MiMoV2FlashConfig", **ROUTED, **DENSE,
       **GROUPS, **HEAD, routed_scaling_factor=1.5)
family("solar_open", "SolarOpenForCausalLM", "SolarOpenConfig", **ROUTED, **GROUPS, **HEAD,
       routed_scaling_factor=1.5, n_shared_experts=2)
family("kimi_linear", "KimiLinearForCausalLM", "KimiLinearConfig", moe_intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=3, **DENSE, **GROUPS, **LATENT, **DELTA,
       **PAD, n_shared_experts=2)
family("bailing_hybrid", "BailingHybridForCausalLM", "BailingHybridConfig",
       moe_intermediate_size=I, num_local_experts=E, num_experts_per_tok=3, **DENSE, **GROUPS,
       **LATENT, **HEAD, **PAD, first_k_dense_replace=1, n_shared_experts=2)
family("nemotron_h", "NemotronHForCausalLM", "NemotronHConfig", block=block_of("mixer"), **ROUTED,
       **GROUPS, **HEAD, layers_block_type=["full_attention", "moe"], routed_scaling_factor=1.5,
       moe_shared_expert_intermediate_size=SHARED, moe_latent_size=16, mlp_bias=True)

# --------------------------------------------------------------------------
# Softmax before the choice
# --------------------------------------------------------------------------

WITH_SHARED = dict(EXPERTS, shared_expert_intermediate_size=SHARED)

family("flex_olmo", "FlexOlmoForCausalLM", "FlexOlmoConfig", **PAD, intermediate_size=I,
       num_experts=E, num_experts_per_tok=3, norm_topk_prob=True)
family("qwen3_next", "Qwen3NextForCausalLM", "Qwen3NextConfig", **WITH_SHARED, **LINEAR, **HEAD)
family("qwen3_5_moe_text", "Qwen3_5MoeForCausalLM", "Qwen3_5MoeTextConfig", **WITH_SHARED,
       **LINEAR, **HEAD)
family("qwen4_exp_text", "Qwen4ExpForCausalLM", "Qwen4ExpTextConfig", **WITH_SHARED, **LINEAR,
       **HEAD)
family("qwen3_vl_moe_text", "Qwen3VLMoeTextModel", "Qwen3VLMoeTextConfig", **EXPERTS, **HEAD)
family("qwen3_omni_moe_text", "Qwen3OmniMoeThinkerTextModel", "Qwen3OmniMoeTextConfig", **EXPERTS,
       **HEAD)
family("qwen3_omni_moe_talker_text", "Qwen3OmniMoeTalkerModel", "Qwen3OmniMoeTalkerTextConfig",
       **WITH_SHARED, **HEAD)
family("flint", "FlintForCausalLM", "FlintConfig", **WITH_SHARED, **HEAD, mlp_only_layers=[0])
family("lara_mini", "LaraMiniForCausalLM", "LaraMiniConfig", **WITH_SHARED, **LINEAR, **HEAD)
family("mellum", "MellumForCausalLM", "MellumConfig", **EXPERTS, **SPARSE, **HEAD)
family("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM", "HunYuanMoEV1Config", gate="gate.wg",
       intermediate_size=I, num_experts=E, moe_topk=3, head_dim=16)
family("ernie4_5_moe", "Ernie4_5_MoeForCausalLM", "Ernie4_5_MoeConfig",
       choice=choice(softmax, "gate.moe_statics.e_score_correction_bias"),
       moe_intermediate_size=I, moe_num_experts=E, moe_k=3, moe_num_shared_experts=2,
       moe_norm_min=0.6, use_bias=True, **DENSE)

# --------------------------------------------------------------------------
# Sigmoid
# --------------------------------------------------------------------------

family("afmoe", "AfmoeForCausalLM", "AfmoeConfig", gate="router.gate",
       choice=choice(bias="expert_bias"), **EXPERTS, **DENSE, **HEAD, route_scale=1.5)
family("hy_v3", "HYV3ForCausalLM", "HYV3Config", **EXPERTS, **DENSE, **HEAD,
       num_shared_experts=2, mlp_bias=True)
family("laguna", "LagunaForCausalLM", "LagunaConfig",
       choice=choice(lambda x: torch.sigmoid(torch.tanh(x / 1.5) * 1.5),
                     "gate.e_score_correction_bias"),
       **WITH_SHARED, **DENSE, **HEAD, moe_router_logit_softcapping=1.5,
       moe_routed_scaling_factor=1.7)
family("kolibri1", "Kolibri1ForCausalLM", "Kolibri1Config", **WITH_SHARED, **HEAD)
INKLING = dict(ROUTED, **HEAD, swa_num_attention_heads=2, swa_num_key_value_heads=2,
               swa_head_dim=16, mlp_gate_softcap=0.8, mlp_up_softcap=1.2, route_scale=3.0,
               unpadded_vocab_size=60)
family("inkling2_text", "Inkling2ForCausalLM", "Inkling2TextConfig", **INKLING)
family("inkling2_loop_text", "Inkling2LoopForCausalLM", "Inkling2LoopTextConfig", **INKLING,
       num_hidden_layers=3, n_layers_per_attn_res_block=1, scoring_func="sqrtsoftplus",
       loop_layer_index_start=1, loop_layer_index_end=2)
family("lfm2_moe", "Lfm2MoeForCausalLM", "Lfm2MoeConfig", block=block_of("feed_forward"),
       choice=choice(bias="expert_bias", block="feed_forward"), **EXPERTS, **DENSE,
       layer_types=["conv", "conv"], num_dense_layers=1, routed_scaling_factor=1.5)
family("minimax", "MiniMaxForCausalLM", "MiniMaxConfig", intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=3)
family("minimax_m2", "MiniMaxM2ForCausalLM", "MiniMaxM2Config",
       choice=choice(bias="e_score_correction_bias"), intermediate_size=I,
       num_local_experts=E, num_experts_per_tok=3, **HEAD)
MINIMAX_M3 = dict(SPARSE, **HEAD, intermediate_size=I, num_local_experts=E, num_experts_per_tok=3,
                  dense_intermediate_size=SHARED, shared_intermediate_size=SHARED,
                  swiglu_limit=0.7, routed_scaling_factor=1.5, rotary_dim=8, index_n_heads=2,
                  index_head_dim=16)
family("minimax_m3_vl_text", "MiniMaxM3VLForCausalLM", "MiniMaxM3VLTextConfig", **MINIMAX_M3)

# --------------------------------------------------------------------------
# Scores of the chosen logits
# --------------------------------------------------------------------------

family("openai_privacy_filter", "OpenAIPrivacyFilterForTokenClassification",
       "OpenAIPrivacyFilterConfig", gate="router", intermediate_size=I, num_local_experts=E,
       num_experts_per_tok=4, **HEAD, **PAD, swiglu_limit=0.7)
family("aria_text", "AriaTextForCausalLM", "AriaTextConfig", gate="router", intermediate_size=I,
       moe_num_experts=E, moe_topk=3, mlp_bias=True, hidden_act="gelu")
GRANITE = dict(intermediate_size=I, num_local_experts=E, num_experts_per_tok=3,
               shared_intermediate_size=SHARED,
               router=lambda m: decoder(m)[1].block_sparse_moe.router)
family("granitemoe_swa", "GraniteMoeSWAForCausalLM", "GraniteMoeSWAConfig",
       block=sum_of_shared("block_sparse_moe", "shared_mlp"), **GRANITE)
family("granitemoehybrid", "GraniteMoeHybridForCausalLM", "GraniteMoeHybridConfig",
       block=sum_of_shared("block_sparse_moe", "shared_mlp"), **GRANITE,
       layer_types=["attention", "attention"], mamba_n_heads=8, mamba_d_head=8)
family("jetmoe", "JetMoeForCausalLM", "JetMoeConfig", intermediate_size=I, num_local_experts=E,
       num_experts_per_tok=3, kv_channels=16, router=lambda m: mlp(m).router.layer)
family("cohere2_moe", "Cohere2MoeForCausalLM", "Cohere2MoeConfig", intermediate_size=I,
       num_experts=E, num_experts_per_tok=3, num_shared_experts=2, **HEAD)


# --------------------------------------------------------------------------
# Models with images that have one of these inside
# --------------------------------------------------------------------------

WRAPPERS = {}


def wrapper(name: str, cls: str, config: str, layers: str, *, gate="gate", **options):
    """A model of `options`, the keys of its configuration; its decoder is at `layers`."""

    def block(model):
        return attrgetter(layers)(model)[1].mlp

    def make(seed: int = 1) -> Model:
        model = getattr(transformers, cls)(getattr(transformers, config)(**options))
        for module in model.modules():
            if hasattr(module, "config"):
                module.config._experts_implementation = "eager"
        return Model(randomize(model, seed), 1, block, lambda m: block(m).get_submodule(gate))

    WRAPPERS[name] = make


VISION = dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=H)
PIXTRAL = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
               image_size=28, patch_size=14, head_dim=8)
AUDIO = dict(encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, d_model=16,
             output_dim=H, downsample_hidden_size=8, num_mel_bins=16)

wrapper("glm4v_moe", "Glm4vMoeForConditionalGeneration", "Glm4vMoeConfig",
        "model.language_model.layers",
        text_config=dict(COMMON, **ROUTED, **DENSE, **GROUPS), vision_config=VISION)
wrapper("qwen3_omni_moe", "Qwen3OmniMoeForConditionalGeneration", "Qwen3OmniMoeConfig",
        "thinker.model.language_model.layers", enable_audio_output=False,
        thinker_config=dict(
            text_config=dict(COMMON, **EXPERTS, **HEAD), audio_config=AUDIO,
            vision_config=dict(VISION, num_position_embeddings=16, deepstack_visual_indexes=[0])))
wrapper("minimax_m3_vl", "MiniMaxM3SparseForConditionalGeneration", "MiniMaxM3VLConfig",
        "model.language_model.layers", text_config=dict(COMMON, **MINIMAX_M3),
        vision_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2))
wrapper("deepseek_ocr2", "DeepseekOcr2ForConditionalGeneration", "DeepseekOcr2Config",
        "model.language_model.layers", text_config=dict(COMMON, **DEEPSEEK_OCR),
        vision_config=dict(
            sam_config=dict(hidden_size=16, output_channels=16, num_hidden_layers=1,
                            num_attention_heads=2, image_size=32, patch_size=16, mlp_dim=16,
                            window_size=2, global_attn_indexes=[0], downsample_channels=[16, 16]),
            encoder_config=dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                num_attention_heads=2, num_key_value_heads=2, vocab_size=8)))
wrapper("mistral_large4", "MistralLarge4ForConditionalGeneration", "MistralLarge4Config",
        "model.language_model.layers",
        text_config=dict(COMMON, **ROUTED, **DENSE, **INDEXER), vision_config=PIXTRAL)
# Not in the importer's table: found by the type of its text_config.
wrapper("mistral3", "Mistral3ForConditionalGeneration", "Mistral3Config",
        "model.language_model.layers",
        text_config=dict(COMMON, model_type="mistral4", **ROUTED, **DENSE, **LATENT),
        vision_config=dict(PIXTRAL, model_type="pixtral"))
