"""Layers of quantised checkpoints on a GPU, or on the double of its driver."""

from __future__ import annotations

import warnings

import pytest
from moe_testing import data
from moe_testing.data import TOLERANCE
from moe_testing.device import arrays as gpu

pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing.models.hf import MODELS
from moe_testing.models.quantized import (
    TORCH, fp8, load_decoded, mxfp4, numpy_of, save_both)

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
