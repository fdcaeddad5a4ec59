"""Layers imported from Hugging Face checkpoints, against transformers' own code.

Tiny models with random weights are saved as transformers saves them, with the
names of published checkpoints and with its own; then compiled and run on the
tensors that the artifact names.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from moe_testing.models.checkpoints import (
    TOLERANCE, TORCH, check, compile_layer, edit, ir_of, numpy_of, refused, relative_error,
    replace_tensors, run_compiler)
from moe_testing.models.hf import BASE, MODELS, H

GRANITE = Path(__file__).resolve().parents[2] / "data" / "granite-3.0-1b-a400m"


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("family", BASE)
def test_against_transformers(compiled, tmp_path, record, family, dtype):
    """With the tensors of published checkpoints, which transformers saves by default."""
    model = MODELS[family]()
    model.model.to(TORCH[dtype])
    model.save(tmp_path)
    record(f"{family} {dtype}", check(compiled, tmp_path, model, dtype))


@pytest.mark.parametrize("family", BASE)
def test_names_of_transformers_5(compiled, tmp_path, family):
    model = MODELS[family]()
    model.save(tmp_path, save_original_format=False)
    check(compiled, tmp_path, model, "f32")


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "qwen2_moe"])
def test_f16(compiled, tmp_path, record, family):
    model = MODELS[family]()
    model.model.to(torch.float16)
    model.save(tmp_path)
    record(f"{family} f16", check(compiled, tmp_path, model, "f16"))


def test_numbers_that_json_lacks(compiled, tmp_path):
    """As Python's json writes them, and transformers reads them."""
    model = MODELS["mixtral"]()
    model.save(tmp_path)
    expected = ir_of(compiled, tmp_path, 1)
    edit(tmp_path, time_step_limit=[0.0, float("inf")], a=float("nan"), b={"c": -float("inf")})
    assert "Infinity" in (tmp_path / "config.json").read_text()
    assert ir_of(compiled, tmp_path, 1) == expected


def test_kimi_k2(compiled, tmp_path):
    """Its configuration class is not in transformers; its code is DeepSeek-V3's."""
    model = MODELS["deepseek_v3"](n_group=1, topk_group=1, routed_scaling_factor=2.827)
    model.save(tmp_path)
    edit(tmp_path, model_type="kimi_k2", scoring_func="sigmoid", topk_method="noaux_tc",
         moe_layer_freq=1)
    check(compiled, tmp_path, model, "f32")


@pytest.mark.parametrize("name", ["gelu", "gelu_pytorch_tanh", "gelu_new", "quick_gelu", "relu",
                                  "relu2"])
def test_activations(compiled, tmp_path, record, name):
    model = MODELS["mixtral"](hidden_act=name)
    model.save(tmp_path)
    record(name, check(compiled, tmp_path, model, "f32"))


@pytest.mark.parametrize("family, options", [
    ("qwen3_moe", dict(norm_topk_prob=False)), ("qwen2_moe", dict(norm_topk_prob=True)),
    ("olmoe", dict(norm_topk_prob=True)), ("deepseek_v3", dict(norm_topk_prob=False)),
    ("deepseek_v3", dict(n_group=1, topk_group=1)), ("dbrx", dict(p=None)),
    ("dbrx", dict(p=2.0)), ("gpt_oss", dict(swiglu_alpha=1.0, swiglu_limit=0.5)),
    ("llama4_text", dict(num_experts_per_tok=3)), ("switch_transformers", dict(router_bias=True)),
    ("mixtral", dict(num_local_experts=1, num_experts_per_tok=1)),
    ("mixtral", dict(num_experts_per_tok=8))])
def test_settings(compiled, tmp_path, family, options):
    model = MODELS[family](**options)
    model.save(tmp_path)
    check(compiled, tmp_path, model, "f32")


@pytest.mark.parametrize("family", ["deepseek_v3", "switch_transformers"])
def test_f32_router_beside_bf16_experts(compiled, tmp_path, family):
    """As DeepSeek-V3's bias and a Switch router that ran once are stored."""
    model = MODELS[family]()
    model.model.to(torch.bfloat16)
    router = model.router(model.model)
    router.to(torch.float32)
    model.save(tmp_path)
    assert "tensor<8x32xf32>" in ir_of(compiled, tmp_path, model.layer)
    check(compiled, tmp_path, model, "bf16")


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "gpt_oss"])
def test_tensors_of_f32_beside_bf16_experts(compiled, tmp_path, family):
    """A router, biases and a shared expert in f32: rounded as transformers loads them."""
    import ml_dtypes

    model = MODELS[family]()
    model.model.to(torch.bfloat16)
    model.save(tmp_path)
    draw = torch.Generator().manual_seed(5)

    def widen(tensors):
        for name, tensor in tensors.items():
            if ".experts." not in name or name.endswith("_bias"):
                noise = torch.rand(tensor.shape, generator=draw)
                tensors[name] = tensor.float() * (1 + 2.0**-8 * noise)

    replace_tensors(tmp_path, widen)
    model.model = type(model.model).from_pretrained(
        tmp_path, dtype=torch.bfloat16, experts_implementation="eager").eval()
    assert all(p.dtype == torch.bfloat16 for p in model.model.parameters())
    x = model.rows_away_from_ties(9, torch.bfloat16)
    np.save(tmp_path / "x.npy", numpy_of(x))
    assert "moe.convert" in ir_of(compiled, tmp_path, 1)
    run_compiler(compiled, "--hf", tmp_path, "--layer=1", "-o", tmp_path / "layer.moe")
    subprocess.run([compiled.find_compiler().resolve().parent / "moe-run", "layer.moe",
                    "--weights=.", "--input=x.npy", "--output=y.npy"], cwd=tmp_path, check=True)
    y = np.load(tmp_path / "y.npy").view(ml_dtypes.bfloat16)
    assert relative_error(y, model.run(x)) < TOLERANCE["bf16"]


def test_shards_and_a_model_without_its_head(compiled, tmp_path):
    model = MODELS["mixtral"]()
    whole = model.save(tmp_path / "whole")
    shards, base = tmp_path / "shards", tmp_path / "base"
    model.save(shards, max_shard_size="20KB")
    assert (shards / "model.safetensors.index.json").exists()
    model.model.model.save_pretrained(base)
    x = model.rows_away_from_ties(5, torch.float32)
    y = compile_layer(compiled, whole, 1)(x.numpy())
    np.testing.assert_array_equal(compile_layer(compiled, shards, 1)(x.numpy()), y)
    np.testing.assert_array_equal(compile_layer(compiled, base, 1)(x.numpy()), y)
    assert '"layers.1.block_sparse_moe.gate.weight"' in ir_of(compiled, base, 1)


def test_capacity_counts_over_the_whole_call(compiled, tmp_path):
    """Tokens beyond an expert's capacity yield 0, in the order of the tokens."""
    model = MODELS["switch_transformers"](expert_capacity=1)
    model.save(tmp_path)
    x = model.rows_away_from_ties(20, torch.float32)
    y = compile_layer(compiled, tmp_path, model.layer)(x.numpy())
    assert relative_error(y, model.run(x)) < TOLERANCE["f32"]
    ids = model.logits(x).argmax(-1).tolist()
    for token, expert in enumerate(ids):
        assert y[token].any() == (expert not in ids[:token])


# --------------------------------------------------------------------------
# A configuration alone
# --------------------------------------------------------------------------


def test_granite_from_its_configuration(compiled):
    text = ir_of(compiled, GRANITE, 0)
    for part in ("tensor<?x1024xbf16>", "tensor<32x1024xbf16>", "tensor<32x1024x1024xbf16>",
                 "tensor<32x1024x512xbf16>", "top_k(8)",
                 '"model.layers.0.block_sparse_moe.input_linear.weight"'):
        assert part in text
    assert "bf16" not in ir_of(compiled, GRANITE, 23, "--dtype=f32")
    message = refused(compiled, GRANITE, "--layer=24")
    assert "layer 24 is out of range: the model has 24 layers" in message
    assert "0 to 23" in message


@pytest.mark.parametrize("family", BASE)
def test_configuration_alone_agrees_with_the_checkpoint(compiled, tmp_path, family):
    model = MODELS[family]()
    model.save(tmp_path)
    text = ir_of(compiled, tmp_path, model.layer)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(tmp_path / "config.json", alone)
    assert ir_of(compiled, alone, model.layer) == text


# --------------------------------------------------------------------------
# Refusals
# --------------------------------------------------------------------------


EXPERT = "model.layers.1.block_sparse_moe.experts.{}.{}.weight"


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory):
    return MODELS["mixtral"]().save(tmp_path_factory.mktemp("mixtral"))


@pytest.fixture
def copy(mixtral, tmp_path):
    shutil.copytree(mixtral, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_tensor_is_missing(compiled, copy):
    replace_tensors(copy, lambda t: t.pop(EXPERT.format(5, "w3")))
    message = refused(compiled, copy, "--layer=1")
    assert f"has no tensor '{EXPERT.format(5, 'w3')}', expected f32[24, 32]" in message
    # Another layer does not need it.
    ir_of(compiled, copy, 0)


def test_a_tensor_has_another_shape_or_type(compiled, copy):
    name = EXPERT.format(2, "w2")
    replace_tensors(copy, lambda t: t.update({name: t[name].T.contiguous()}))
    assert f"expected tensor '{name}' to be f32[32, 24], got f32[24, 32]" in refused(
        compiled, copy, "--layer=1")
    replace_tensors(copy, lambda t: t.update({name: t[name].T.contiguous().half()}))
    assert f"expected tensor '{name}' to be f32[32, 24], got f16[32, 24]" in refused(
        compiled, copy, "--layer=1")


def test_the_type_of_a_checkpoint_stays(compiled, mixtral):
    message = refused(compiled, mixtral, "--layer=1", "--dtype=bf16")
    assert "the data type of a checkpoint cannot be changed" in message


@pytest.mark.parametrize("layer", [-1, 2, 2**63 - 1, -(2**63)])
def test_layer_out_of_range(compiled, mixtral, layer):
    message = refused(compiled, mixtral, f"--layer={layer}")
    assert f"layer {layer} is out of range: the model has 2 layers" in message
    assert "0, 1" in message


def test_layer_without_experts(compiled, tmp_path):
    MODELS["deepseek_v3"](num_hidden_layers=4).save(tmp_path)
    message = refused(compiled, tmp_path, "--layer=0")
    assert "layer 0 has no experts; layers with experts: 1 to 3" in message


@pytest.mark.parametrize("changes, message", [
    (dict(model_type="llama"), "model_type 'llama' is not among the supported families (blocks "
     "of others need PyTorch: moe.from_torch(block)): afmoe"),
    (dict(model_type=...), "missing key 'model_type'"),
    (dict(hidden_size=...), "missing key 'hidden_size'"),
    (dict(hidden_size=-4), "between 1 and 1048576, got -4"),
    (dict(hidden_size="32"), "expected 'hidden_size' to be an integer"),
    (dict(num_experts_per_tok=9), "expected at most as many experts per token"),
    (dict(hidden_act="xielu"), "got 'xielu'"),
    (dict(hidden_size=float("inf")), "got a number that is not finite"),
])
def test_bad_configurations(compiled, copy, changes, message):
    edit(copy, **changes)
    assert message in refused(compiled, copy, "--layer=1")


def test_no_model(compiled, tmp_path):
    assert "config.json" in refused(compiled, tmp_path)
    assert "config.json" in refused(compiled, tmp_path / "absent")
