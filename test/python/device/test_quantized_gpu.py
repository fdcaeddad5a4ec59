"""Layers of quantised checkpoints on a GPU, or on the double of its driver."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from moe_testing import data
from moe_testing.data import TOLERANCE
from moe_testing.device import arrays as gpu

pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing.models.checkpoints import TORCH, numpy_of
from moe_testing.models.hf import MODELS
from moe_testing.models.quantized import fp8, load_decoded, mxfp4, save_both

pytestmark = pytest.mark.usefixtures("device")


def check(moe, model, both, target: str, record, name: str) -> list[str]:
    """Compile for a GPU, run, compare with transformers; returns the warnings."""
    quantized, decoded = both
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = moe.compile(quantized, layer=model.layer, target=target, device="cuda")
    layer, reference = module.layer(quantized), load_decoded(model, decoded)
    for tokens in (1, 33):
        x = model.rows_away_from_ties(tokens, TORCH["bf16"])
        y = gpu.run(layer, {"x": numpy_of(x)}, tokens)
        error = data.relative_error(y, reference.run(x.float()).numpy())
        record(f"{name} {target}", error)
        assert error < TOLERANCE["bf16"]
    return [str(each.message) for each in caught if "moe.compile" in str(each.message)]


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_mxfp4_is_decoded_once(compiled, tmp_path, record, target):
    model = MODELS["gpt_oss"](intermediate_size=64)
    model.model.to(TORCH["bf16"])
    both = save_both(model, tmp_path, mxfp4("bf16"), {"quant_method": "mxfp4"})
    messages = check(compiled, model, both, target, record, "MXFP4")
    assert "the decoded weights take 1 MiB" in messages[0]
    assert len(messages) == 1  # nothing else is slow


@pytest.mark.parametrize("block, decodes", [((128, 128), False), ((16, 16), True)])
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_fp8(compiled, tmp_path, record, target, block, decodes):
    """Blocks that tensor cores scale stay in 8 bits."""
    model = MODELS["deepseek_v3"](moe_intermediate_size=48)
    model.model.to(TORCH["bf16"])
    both = save_both(model, tmp_path, fp8(block),
                     {"quant_method": "fp8", "weight_block_size": list(block)})
    messages = check(compiled, model, both, target, record, f"fp8 {block}")
    assert any("the decoded weights take" in message for message in messages) == decodes
    assert not any("left to loops" in message for message in messages)


@pytest.mark.parametrize("name, decodes", [("fp8:128x128", False), ("int4:32", True)])
@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
def test_weights_that_are_rounded(compiled, tmp_path, record, target, name, decodes):
    """Weights are rounded on the device, with the errors that the CPU has."""
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "qwen3_moe", "hidden_size": 128, "moe_intermediate_size": 64,
        "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1,
        "norm_topk_prob": True, "torch_dtype": "bfloat16"}))
    r = data.rng("rounded", name)
    kind = data.numpy_type("bf16")
    weights = {"router": r.standard_normal((4, 128)).astype(kind)}
    for weight, shape in (("gate_proj", (4, 64, 128)), ("up_proj", (4, 64, 128)),
                          ("down_proj", (4, 128, 64))):
        weights[weight] = (r.standard_normal(shape) / 8).astype(kind)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = compiled.compile(tmp_path, layer=0, target=target, device="cuda", quantize=name)
    messages = [str(each.message) for each in caught]
    assert any("the decoded weights take" in message for message in messages) == decodes
    layer = module.layer({name: gpu.upload(w) for name, w in weights.items()})
    on_cpu = compiled.compile(tmp_path, layer=0, quantize=name).layer(weights)
    for weight, errors in on_cpu.quantization_errors.items():
        np.testing.assert_allclose(layer.quantization_errors[weight], errors, rtol=1e-6)
    x = r.standard_normal((9, 128)).astype(kind)
    error = data.relative_error(gpu.run(layer, {"x": x}, 9), on_cpu(x))
    record(f"{name} {target}", error)
    assert error < TOLERANCE["bf16"]
