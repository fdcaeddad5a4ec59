"""``register``, and models whose experts transformers' interface does not reach."""

from __future__ import annotations

import sys

import pytest

import moe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe.integrations._transformers.state import OPTIONS  # noqa: E402
from moe_testing.models.experts import expect  # noqa: E402
from moe_testing.models.hf import MODELS  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.fixture(autouse=True)
def registered():
    ce.register()


SIZES = dict(hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2, vocab_size=64)


def build(model: str, config: str, **settings):
    """A model as ``from_pretrained`` makes it, without elements."""
    configuration = getattr(transformers, config)(**settings)
    configuration._experts_implementation = ce.NAME
    with torch.device("meta"):
        return getattr(transformers, model)(configuration)


@pytest.mark.parametrize("model, config, settings, experts", [
    ("Llama4ForCausalLM", "Llama4TextConfig", dict(
        SIZES, intermediate_size_mlp=20, num_local_experts=4, head_dim=16,
        interleave_moe_layer_step=2), "layers.1.feed_forward.experts is a Llama4TextExperts"),
    ("DbrxForCausalLM", "DbrxConfig", dict(
        d_model=32, n_heads=2, n_layers=1, vocab_size=64,
        ffn_config=dict(hidden_size=32, ffn_hidden_size=24, moe_num_experts=4),
        attn_config=dict(kv_n_heads=2, clip_qkv=8, rope_theta=10000.0)),
     "blocks.0.ffn.experts is a DbrxExperts"),
    ("SwitchTransformersForConditionalGeneration", "SwitchTransformersConfig", dict(
        vocab_size=64, d_model=32, d_kv=16, d_ff=24, num_layers=2, num_decoder_layers=2,
        num_heads=2, num_experts=4, num_sparse_encoder_layers=1),
     "experts is a SwitchTransformersExperts"),
    ("JetMoeForCausalLM", "JetMoeConfig", dict(
        SIZES, num_local_experts=4, kv_channels=16, activation_function="silu"),
     "is a JetMoeParallelExperts"),
    ("NllbMoeModel", "NllbMoeConfig", dict(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=24,
        decoder_ffn_dim=24, encoder_attention_heads=2, decoder_attention_heads=2, num_experts=4,
        encoder_sparse_step=2, decoder_sparse_step=2), "experts is a NllbMoeExperts"),
    ("DogeForCausalLM", "DogeConfig", dict(SIZES, is_moe=True, num_experts=4),
     "mlp is a DogeCDMoE"),
    ("LongcatFlashForCausalLM", "LongcatFlashConfig", dict(
        hidden_size=32, ffn_hidden_size=24, expert_ffn_hidden_size=24, num_layers=1,
        num_attention_heads=2, vocab_size=64, n_routed_experts=4),
     "mlp.experts is a LongcatFlashExperts"),
    ("Step3p7TextModel", "Step3p7TextConfig", dict(
        SIZES, moe_intermediate_size=24, num_local_experts=4,
        mlp_layer_types=["dense", "sparse"]), "experts is a Step3p7Experts"),
])
def test_models_that_are_not_reached(model, config, settings, experts):
    with expect("which does not go through transformers' experts interface; load it with another "
                "implementation than 'moe_mlir'") as caught:
        build(model, config, **settings)
    assert experts in caught.value.message
    assert caught.value.code == moe.FAILED_PRECONDITION


def test_switching_is_refused_too():
    for name in ("llama4", "dbrx"):
        model = MODELS[name]().model
        with expect("does not go through transformers' experts interface"):
            model.set_experts_implementation(ce.NAME)
        model.set_experts_implementation("eager")


def test_dense_models_are_none_of_that():
    build("LlamaForCausalLM", "LlamaConfig", **SIZES)
    build("DogeForCausalLM", "DogeConfig", **SIZES)
    build("MixtralForCausalLM", "MixtralConfig", **SIZES, num_local_experts=4)


@pytest.mark.parametrize("arguments, what", [
    (dict(options="--tokens=1:8"), "options is '--tokens=1:8', expected a sequence"),
    (dict(options=["--no-such-option"]), "--no-such-option"),
    (dict(target="x86-64-v9"), "x86-64-v9"),
    (dict(target="sm_12"), "sm_12"),
    (dict(num_threads=-1), "num_threads is -1")])
def test_arguments_are_tried_at_once(arguments, what):
    with pytest.raises(moe.MoEError, match=what):
        ce.register(**arguments)
    assert OPTIONS["num_threads"] == 0 and OPTIONS["target"] is None


def test_arguments_that_are_not_known():
    with pytest.raises(TypeError, match="device"):
        ce.register(device="cuda")


def test_a_compiler_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(ce, "_tried", [])
    monkeypatch.setenv("MOE_COMPILE", str(tmp_path / "none"))
    with expect("$MOE_COMPILE names"):
        ce.register()


@pytest.mark.parametrize("version", ["4.57.1", "5.6.2", "5.7.0.dev0"])
def test_versions_of_transformers(monkeypatch, version):
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)
    if version == "5.7.0.dev0":
        ce.register()
        return
    with expect(f"transformers has version {version}, expected 5.7.0 or later"):
        ce.register()
