"""Checkpoints that transformers saves, compiled from their directory and bound to
their files: the layer against the module of the model that was saved."""

from __future__ import annotations

import pytest
import torch
import transformers as hf
from moe_testing import data

COMMON = dict(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
              num_key_value_heads=2)
# family: (configuration, where the block is in the last layer)
MODELS = {
    "mixtral": (lambda: hf.MixtralConfig(**COMMON, intermediate_size=40, num_local_experts=6),
                "mlp"),
    "qwen3_moe": (lambda: hf.Qwen3MoeConfig(
        **COMMON, intermediate_size=64, moe_intermediate_size=40, num_experts=6,
        num_experts_per_tok=3, norm_topk_prob=True, head_dim=16), "mlp"),
    "olmoe": (lambda: hf.OlmoeConfig(**COMMON, intermediate_size=40, num_experts=6,
                                     num_experts_per_tok=3), "mlp"),
    "deepseek_v2": (lambda: hf.DeepseekV2Config(
        **COMMON, intermediate_size=64, moe_intermediate_size=40, n_routed_experts=8,
        num_experts_per_tok=3, n_shared_experts=2, n_group=4, topk_group=2,
        topk_method="group_limited_greedy", routed_scaling_factor=16.0, first_k_dense_replace=1,
        kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16),
        "mlp"),
    "deepseek_v3": (lambda: hf.DeepseekV3Config(
        **COMMON, intermediate_size=64, moe_intermediate_size=40, n_routed_experts=8,
        num_experts_per_tok=3, n_shared_experts=1, n_group=4, topk_group=2,
        first_k_dense_replace=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8,
        qk_nope_head_dim=8, v_head_dim=16), "mlp"),
    "glm4_moe": (lambda: hf.Glm4MoeConfig(
        **COMMON, intermediate_size=64, moe_intermediate_size=40, n_routed_experts=8,
        num_experts_per_tok=3, n_shared_experts=1, first_k_dense_replace=1, head_dim=16), "mlp"),
    "gpt_oss": (lambda: hf.GptOssConfig(**COMMON, intermediate_size=40, num_local_experts=6,
                                        num_experts_per_tok=3, head_dim=16), "mlp"),
    "granitemoe": (lambda: hf.GraniteMoeConfig(**COMMON, intermediate_size=40, num_local_experts=6,
                                               num_experts_per_tok=3), "block_sparse_moe"),
    "llama4": (lambda: hf.Llama4TextConfig(
        **COMMON, intermediate_size=40, intermediate_size_mlp=64, num_local_experts=6,
        num_experts_per_tok=1, interleave_moe_layer_step=1, head_dim=16), "feed_forward"),
    "phimoe": (lambda: hf.PhimoeConfig(**COMMON, intermediate_size=40, num_local_experts=6), "mlp"),
    "jamba": (lambda: hf.JambaConfig(
        **COMMON, intermediate_size=40, num_experts=4, num_experts_per_tok=2, expert_layer_period=2,
        expert_layer_offset=1, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False),
        "feed_forward"),
    "dbrx": (lambda: hf.DbrxConfig(
        vocab_size=50, d_model=32, n_heads=2, n_layers=2, max_seq_len=64,
        attn_config=dict(kv_n_heads=2, clip_qkv=8, rope_theta=10000.0),
        ffn_config=dict(hidden_size=32, ffn_hidden_size=40, moe_num_experts=6, moe_top_k=3)),
        "ffn"),
}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


def saved_model(family, directory, dtype):
    torch.manual_seed(0)
    config = MODELS[family][0]()
    config.dtype = dtype
    config._experts_implementation = "eager"
    model = hf.AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in list(model.named_parameters()) + list(model.named_buffers()):
            if any(part in name for part in ("mlp", "ffn", "moe", "feed_forward")):
                parameter.copy_(torch.randn(parameter.shape) / parameter.shape[-1] ** 0.5)
    model.save_pretrained(directory, max_shard_size="60KB")
    return model


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("family", MODELS)
def test_checkpoint(family, dtype, tmp_path, record):
    import moe

    kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    model = saved_model(family, tmp_path, kind)
    layer = moe.compile(tmp_path, layer=1).layer(tmp_path)

    block = next(m for n, m in model.named_modules()
                 if n.endswith("layers.1." + MODELS[family][1])
                 or n.endswith("blocks.1." + MODELS[family][1])).float()
    x = torch.randn(21, 32).to(kind)
    with torch.no_grad():
        expected = block(x.float()[None])
    expected = (expected[0] if isinstance(expected, tuple) else expected).reshape(21, 32)
    y = layer(x)
    assert y.dtype == kind
    error = data.relative_error(y.float().numpy(), expected.numpy())
    record(f"checkpoint {family} {dtype}", error)
    # bf16: as in test_layers_cpu, and the router's logits may be rounded too.
    assert error < (1e-5 if dtype == "f32" else 2.5e-2)


def test_all_layers(tmp_path, record):
    """One artifact with a function for each layer with experts; one code a shape."""
    import moe
    from moe_testing.models.hf import MODELS as MODELS_OF_HF

    model = MODELS_OF_HF["qwen3_moe"](num_hidden_layers=5, mlp_only_layers=[1])
    model.save(tmp_path)
    module = moe.compile(tmp_path, layer="all")
    assert sorted(module.functions) == ["layer_0", "layer_2", "layer_3", "layer_4"]
    entries = {f["entry"] for f in module.metadata["variants"][0]["functions"]
               if "prepares" not in f}
    assert len(entries) == 1
    x = model.rows_away_from_ties(7, torch.float32)
    for index in (0, 2, 3, 4):
        y = module.layer(tmp_path, function=f"layer_{index}")(x)
        with torch.no_grad():
            expected = model.model.model.layers[index].mlp(x[None])
        expected = expected[0] if isinstance(expected, tuple) else expected
        error = data.relative_error(y.numpy(), expected.reshape(7, -1).numpy())
        record(f"layer {index} of all", error)
        assert error < 2e-6
    with pytest.raises(moe.MoEError, match="expected the name of a function, one of"):
        module.layer(tmp_path)
