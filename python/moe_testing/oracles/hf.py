"""Oracles that we did not write: the MoE blocks of transformers, tiny.

``BLOCKS[family](weights)`` is a function of ``x [T, H]`` (f32) that runs the
model's own code with the weights of the layer in layers.py.  ``router(family,
...)`` gives the model's own router as a function of logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import nn

from ..layers import E, H, I, SHARED

Tensor = torch.Tensor
Weights = dict[str, Tensor]
BLOCKS: dict[str, Callable[[Weights], Callable[[Tensor], Tensor]]] = {}


def block(make: Callable[[Weights], Callable[[Tensor], Tensor]]):
    BLOCKS[make.__name__] = make
    return make


def put(parameter: Tensor, value: Tensor) -> None:
    """Set a parameter or buffer; its shape must be that of ``value``."""
    assert parameter.shape == value.shape, (parameter.shape, value.shape)
    with torch.no_grad():
        parameter.copy_(value)


def put_experts(experts: nn.Module, w: Weights) -> None:
    """Gate and up side by side, as transformers 5 holds them."""
    put(experts.gate_up_proj, torch.cat([w["gate_proj"], w["up_proj"]], dim=1))
    put(experts.down_proj, w["down_proj"])


def put_shared(mlp: nn.Module, w: Weights) -> None:
    for name in ("gate_proj", "up_proj", "down_proj"):
        put(getattr(mlp, name).weight, w[f"shared_{name}"])


def runner(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """``x [T, H]`` through a block that wants ``[batch, T, H]``."""
    module.eval()

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = module(x[None].clone())
        y = y[0] if isinstance(y, tuple) else y
        return y.reshape(x.shape[0], H)

    return run


def eager(config):
    """Use the plain loop over experts, the code of the model's file."""
    config._experts_implementation = "eager"
    return config


def mixtral_config(top_k: int = 2):
    from transformers import MixtralConfig
    return eager(MixtralConfig(hidden_size=H, intermediate_size=I, num_local_experts=E,
                               num_experts_per_tok=top_k, num_attention_heads=2,
                               num_key_value_heads=2))


@block
def mixtral(w: Weights):
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
    m = MixtralSparseMoeBlock(mixtral_config())
    put(m.gate.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


def qwen3_config(top_k: int = 4):
    from transformers import Qwen3MoeConfig
    return eager(Qwen3MoeConfig(hidden_size=H, moe_intermediate_size=I, num_experts=E,
                                num_experts_per_tok=top_k, norm_topk_prob=True,
                                num_attention_heads=2, num_key_value_heads=2))


@block
def qwen3_moe(w: Weights):
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
    m = Qwen3MoeSparseMoeBlock(qwen3_config())
    put(m.gate.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


def olmoe_config(top_k: int = 4):
    from transformers import OlmoeConfig
    return eager(OlmoeConfig(hidden_size=H, intermediate_size=I, num_experts=E,
                             num_experts_per_tok=top_k, norm_topk_prob=False,
                             num_attention_heads=2, num_key_value_heads=2))


@block
def olmoe(w: Weights):
    from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
    m = OlmoeSparseMoeBlock(olmoe_config())
    put(m.gate.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


def jamba_config(top_k: int = 2):
    from transformers import JambaConfig
    return eager(JambaConfig(hidden_size=H, intermediate_size=I, num_experts=E,
                             num_experts_per_tok=top_k, num_attention_heads=2,
                             num_key_value_heads=2, use_mamba_kernels=False))


@block
def jamba(w: Weights):
    from transformers.models.jamba.modeling_jamba import JambaSparseMoeBlock
    m = JambaSparseMoeBlock(jamba_config())
    put(m.router.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


def dbrx_config(top_k: int = 4, p: float = 1.0):
    from transformers import DbrxConfig
    ffn = dict(hidden_size=H, ffn_hidden_size=I, moe_num_experts=E, moe_top_k=top_k,
               moe_normalize_expert_weights=p, ffn_act_fn={"name": "silu"})
    return eager(DbrxConfig(d_model=H, n_heads=2, ffn_config=ffn))


@block
def dbrx(w: Weights):
    from transformers.models.dbrx.modeling_dbrx import DbrxFFN
    m = DbrxFFN(dbrx_config())
    put(m.router.layer.weight, w["router"])
    for name in ("w1", "v1", "w2"):
        put(getattr(m.experts.mlp, name), w[name].reshape(E * I, H))
    return runner(m)


def deepseek_v2_config(grouped: bool, top_k: int = 3):
    from transformers import DeepseekV2Config
    return eager(DeepseekV2Config(
        hidden_size=H, moe_intermediate_size=I, n_routed_experts=E,
        num_experts_per_tok=top_k, n_shared_experts=1, intermediate_size=SHARED,
        n_group=4 if grouped else 1, topk_group=2 if grouped else 1,
        topk_method="group_limited_greedy" if grouped else "greedy",
        routed_scaling_factor=16.0 if grouped else 1.0, num_attention_heads=2,
        num_key_value_heads=2, mlp_bias=False))


def _deepseek(module_class, mlp_class, config, w: Weights):
    m = module_class(config)
    # The shared expert has a width of its own here.
    m.shared_experts = mlp_class(config, intermediate_size=SHARED)
    put(m.gate.weight, w["router"])
    if "e_score_correction_bias" in w:
        put(m.gate.e_score_correction_bias, w["e_score_correction_bias"])
    put_experts(m.experts, w)
    put_shared(m.shared_experts, w)
    return runner(m)


@block
def deepseek_v2_lite(w: Weights):
    from transformers.models.deepseek_v2 import modeling_deepseek_v2 as hf
    return _deepseek(hf.DeepseekV2Moe, hf.DeepseekV2MLP, deepseek_v2_config(False), w)


@block
def deepseek_v2(w: Weights):
    from transformers.models.deepseek_v2 import modeling_deepseek_v2 as hf
    return _deepseek(hf.DeepseekV2Moe, hf.DeepseekV2MLP, deepseek_v2_config(True), w)


def deepseek_v3_config(groups: int = 4, keep: int = 2, top_k: int = 3):
    from transformers import DeepseekV3Config
    return eager(DeepseekV3Config(
        hidden_size=H, moe_intermediate_size=I, n_routed_experts=E, num_experts_per_tok=top_k,
        n_shared_experts=1, n_group=groups, topk_group=keep, norm_topk_prob=True,
        routed_scaling_factor=2.5, num_attention_heads=2, num_key_value_heads=2))


@block
def deepseek_v3(w: Weights):
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as hf
    return _deepseek(hf.DeepseekV3MoE, hf.DeepseekV3MLP, deepseek_v3_config(), w)


def glm4_config(top_k: int = 3):
    from transformers import Glm4MoeConfig
    return eager(Glm4MoeConfig(
        hidden_size=H, moe_intermediate_size=I, n_routed_experts=E, num_experts_per_tok=top_k,
        n_shared_experts=1, n_group=1, topk_group=1, norm_topk_prob=True,
        routed_scaling_factor=2.827, num_attention_heads=2, num_key_value_heads=2))


@block
def glm4_moe(w: Weights):
    from transformers.models.glm4_moe import modeling_glm4_moe as hf
    return _deepseek(hf.Glm4MoeMoE, hf.Glm4MoeMLP, glm4_config(), w)


def gpt_oss_config(top_k: int = 4):
    from transformers import GptOssConfig
    return eager(GptOssConfig(hidden_size=H, intermediate_size=I, num_local_experts=E,
                              num_experts_per_tok=top_k, num_attention_heads=2,
                              num_key_value_heads=2))


@block
def gpt_oss(w: Weights):
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssMLP
    m = GptOssMLP(gpt_oss_config())
    put(m.router.weight, w["router"])
    put(m.router.bias, w["router_bias"])
    for name in ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias"):
        put(getattr(m.experts, name), w[name])
    return runner(m)


def granite_config(top_k: int = 4):
    from transformers import GraniteMoeConfig
    return eager(GraniteMoeConfig(hidden_size=H, intermediate_size=I, num_local_experts=E,
                                  num_experts_per_tok=top_k, num_attention_heads=2,
                                  num_key_value_heads=2))


@block
def granitemoe(w: Weights):
    from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeMoE
    m = GraniteMoeMoE(granite_config())
    put(m.router.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


def llama4_config(top_k: int = 1):
    from transformers import Llama4TextConfig
    return eager(Llama4TextConfig(hidden_size=H, intermediate_size=I, num_local_experts=E,
                                  num_experts_per_tok=top_k, num_attention_heads=2,
                                  num_key_value_heads=2))


@block
def llama4(w: Weights):
    from transformers.models.llama4 import modeling_llama4 as hf
    m = hf.Llama4TextMoe(llama4_config())
    m.shared_expert = hf.Llama4TextMLP(llama4_config(), intermediate_size=SHARED)
    put(m.router.weight, w["router"])
    put(m.experts.gate_up_proj, w["gate_up_proj"])
    put(m.experts.down_proj, w["down_proj"])
    put_shared(m.shared_expert, w)
    return runner(m)


def phimoe_config():
    from transformers import PhimoeConfig
    return eager(PhimoeConfig(hidden_size=H, intermediate_size=I, num_local_experts=E,
                              num_experts_per_tok=2, router_jitter_noise=0.01,
                              num_attention_heads=2, num_key_value_heads=2))


@block
def phimoe(w: Weights):
    from transformers.models.phimoe.modeling_phimoe import PhimoeSparseMoeBlock
    m = PhimoeSparseMoeBlock(phimoe_config())
    put(m.router.weight, w["router"])
    put_experts(m.experts, w)
    return runner(m)


@block
def gemma4(w: Weights):
    from transformers import Gemma4TextConfig
    from transformers.models.gemma4 import modeling_gemma4 as hf
    config = eager(Gemma4TextConfig(hidden_size=H, moe_intermediate_size=I, num_experts=E,
                                    top_k_experts=3, hidden_activation="gelu_pytorch_tanh",
                                    rms_norm_eps=1e-6))
    router, experts = hf.Gemma4TextRouter(config), hf.Gemma4TextExperts(config)
    put(router.proj.weight, w["router"])
    put(router.scale, w["router_scale"])
    put(router.per_expert_scale, w["per_expert_scale"])
    put(experts.gate_up_proj, w["gate_up_proj"])
    put(experts.down_proj, w["down_proj"])

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            _, weights, ids = router(x)
            return experts(x, ids, weights)

    return run


def switch_config(capacity: int = 5):
    from transformers import SwitchTransformersConfig
    return SwitchTransformersConfig(d_model=H, d_ff=I, num_experts=E, expert_capacity=capacity,
                                    num_heads=2, d_kv=H // 2)


@block
def switch(w: Weights):
    from transformers.models.switch_transformers.modeling_switch_transformers import (
        SwitchTransformersSparseMLP)
    m = SwitchTransformersSparseMLP(switch_config())
    put(m.router.classifier.weight, w["router"])
    for e in range(E):
        put(m.experts[f"expert_{e}"].wi.weight, w["wi"][e])
        put(m.experts[f"expert_{e}"].wo.weight, w["wo"][e])
    return runner(m)


# --------------------------------------------------------------------------
# Routers alone: logits [T, E] in, weights [T, K] and ids [T, K] out
# --------------------------------------------------------------------------


def router(family: str, experts: int, top_k: int, **options) -> Callable:
    """The router of ``family`` with ``experts`` experts, as a function of logits."""
    import importlib

    configs = {
        "mixtral": ("mixtral", "MixtralTopKRouter", mixtral_config, "num_local_experts"),
        "qwen3_moe": ("qwen3_moe", "Qwen3MoeTopKRouter", qwen3_config, "num_experts"),
        "olmoe": ("olmoe", "OlmoeTopKRouter", olmoe_config, "num_experts"),
        "jamba": ("jamba", "JambaTopKRouter", jamba_config, "num_experts"),
        "deepseek_v2": ("deepseek_v2", "DeepseekV2TopkRouter", deepseek_v2_config, "num_experts"),
        "deepseek_v3": ("deepseek_v3", "DeepseekV3TopkRouter", deepseek_v3_config,
                        "num_local_experts"),
        "glm4_moe": ("glm4_moe", "Glm4MoeTopkRouter", glm4_config, "num_local_experts"),
        "gpt_oss": ("gpt_oss", "GptOssTopKRouter", gpt_oss_config, "num_local_experts"),
        "granitemoe": ("granitemoe", "GraniteMoeTopKRouter", granite_config,
                       "num_local_experts"),
    }
    package, name, make_config, field = configs[family]
    hf = importlib.import_module(f"transformers.models.{package}.modeling_{package}")
    config = make_config(top_k=top_k, **options)
    config.hidden_size = experts
    setattr(config, field, experts)
    module = getattr(hf, name)(config).eval()

    def run(logits: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if bias is not None:
            put(module.e_score_correction_bias, bias)
        # The product is left out: the logits are given (and may be infinite).
        with torch.no_grad(), mock.patch("torch.nn.functional.linear", lambda x, *_: x):
            _, weights, ids = module(logits)
        return weights, ids

    return run
