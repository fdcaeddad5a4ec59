"""``./dev demo --hf DIR --layer N``, on a checkpoint of each data type."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

DEMO = Path(__file__).resolve().parents[3] / "python" / "examples" / "demo.py"
CONFIG = {"model_type": "mixtral", "hidden_act": "silu", "hidden_size": 16,
          "intermediate_size": 8, "num_hidden_layers": 2, "num_local_experts": 3,
          "num_experts_per_tok": 2}


def write_checkpoint(directory: Path, dtype: torch.dtype) -> None:
    """The tensors of layer 1 alone, which is all that is read."""
    prefix = "model.layers.1.block_sparse_moe."
    tensors = {f"{prefix}gate.weight": torch.randn(3, 16)}
    for expert in range(3):
        for name, shape in (("w1", (8, 16)), ("w2", (16, 8)), ("w3", (8, 16))):
            tensors[f"{prefix}experts.{expert}.{name}.weight"] = torch.randn(shape)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()},
              directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG))


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(DEMO), *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_of_a_checkpoint(compiled, tmp_path, dtype):
    write_checkpoint(tmp_path, dtype)
    done = demo(f"--hf={tmp_path}", "--layer=1", "--tokens=0,3")
    assert done.returncode == 0, done.stderr
    assert "moe.gate" in done.stdout and "moe.combine" in done.stdout
    assert "tokens per expert at T = 3" in done.stdout
    assert "T =    0:" in done.stdout and "T =    3:" in done.stdout
    # Nothing was compared, so nothing is said of it.
    assert "as expected" not in done.stdout


def test_ranks(compiled):
    done = demo("--ep=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("    the bits of one rank on all") == 2
    assert demo("--ep=0").returncode == 2


def test_what_is_wrong_is_said(compiled, tmp_path):
    write_checkpoint(tmp_path, torch.float32)
    done = demo(f"--hf={tmp_path}", "--layer=2")
    assert done.returncode == 1 and "layer 2 is out of range" in done.stderr
    assert "Traceback" not in done.stderr
    for wrong in (["--layer=1"], [f"--hf={tmp_path}", "--tokens=1,x"]):
        assert demo(*wrong).returncode == 2
