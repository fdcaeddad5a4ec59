"""The trained model with compiled layers in place of its own, on text it has not seen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

import moe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CHECKPOINT = Path(__file__).resolve().parents[2] / "data" / "tiny-mixtral"
pytestmark = pytest.mark.usefixtures("compiled")
METRICS = json.loads((CHECKPOINT / "metrics.json").read_text())["heldout"]


class CompiledBlock(torch.nn.Module):
    """Stands where a layer's mixture of experts stood."""

    def __init__(self, number: int, **options):
        super().__init__()
        self.layer = moe.compile(CHECKPOINT, layer=number, **options).layer(CHECKPOINT)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1]).contiguous()
        return self.layer(rows).reshape(hidden_states.shape)


def heldout_loss(model: torch.nn.Module, windows: int) -> float:
    """Mean cross entropy in nats over the first windows; metrics.json says how."""
    text = np.frombuffer((CHECKPOINT / METRICS["file"]).read_bytes(), np.uint8)
    tokens = torch.from_numpy(text.astype(np.int64)).reshape(-1, METRICS["window"])[:windows]
    with torch.no_grad():
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
    return torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten()).item()


@pytest.fixture(scope="module")
def models():
    original = transformers.MixtralForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    compiled = transformers.MixtralForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    for number, block in enumerate(compiled.model.layers):
        block.mlp = CompiledBlock(number)
    return original.eval(), compiled.eval()


def test_heldout_perplexity(models):
    """On all of the held-out text, against what was recorded after training."""
    _, compiled = models
    loss = heldout_loss(compiled, METRICS["bytes"] // METRICS["window"])
    assert math.exp(loss) == pytest.approx(METRICS["perplexity"], rel=1e-5)
    for block, expected in zip(compiled.model.layers, METRICS["tokens_per_expert"]):
        counts = block.mlp.layer.statistics()[0].tokens_per_expert
        # The last bit of a logit may send a token elsewhere: few, if any.
        assert np.abs(counts - np.array(expected)).sum() <= 8


@pytest.mark.parametrize("options, allowed", [
    ({"quantize": "int8"}, 1e-2), ({"quantize": "int4:32"}, 3e-2), ({"quantize": "mxfp4"}, 3e-2),
    ({"quantize": "fp8:128x128"}, 1e-2),
    ({"quantize": "int4:32", "options": ["--activations=int8"]}, 3e-2)], ids=str)
def test_heldout_perplexity_of_rounded_experts(models, record, options, allowed):
    """On all of the held-out text, against what was recorded after training."""
    original, _ = models
    blocks = [block.mlp for block in original.model.layers]
    try:
        for number, block in enumerate(original.model.layers):
            block.mlp = CompiledBlock(number, **options)
            assert len(block.mlp.layer.quantization_errors) == 3
        loss = heldout_loss(original, METRICS["bytes"] // METRICS["window"])
    finally:
        for block, mlp in zip(original.model.layers, blocks):
            block.mlp = mlp
    change = math.exp(loss) / METRICS["perplexity"] - 1
    record(str(options), change)
    assert 0 < abs(change) < allowed


def test_loss_against_the_model_itself(models):
    """Window by window in this process, where only the layers differ."""
    original, compiled = models
    assert heldout_loss(compiled, 8) == pytest.approx(heldout_loss(original, 8), rel=1e-6)


def test_same_text_is_generated(models):
    prompt = torch.tensor([list(b"And I saw a new heaven and a new ")])
    texts = [model.generate(prompt, max_new_tokens=24, do_sample=False, pad_token_id=0)
             for model in models]
    assert torch.equal(*texts)
