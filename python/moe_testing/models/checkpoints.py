"""Layers of checkpoints that transformers saved: compiled, and compared with its own code."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from .. import data
from .hf import Model

# f32: sums in another order, and exp.  bf16 and f16 (units 2^-9 and 2^-12):
# transformers rounds after each operation, also the activation, each weighted row
# and each partial sum over experts; we round after linear layers and once at the
# end, and are nearer to the exact result than it is.  Relative to the largest one.
TOLERANCE = {"f32": 2e-6, "bf16": 8 * 2.0**-9, "f16": 8 * 2.0**-12}
TORCH = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def run_compiler(moe, *arguments, check=True) -> subprocess.CompletedProcess:
    done = subprocess.run([moe.find_compiler(), *map(str, arguments)], text=True,
                          capture_output=True)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def ir_of(moe, directory: Path, layer: int, *options: str) -> str:
    return run_compiler(moe, "--hf", directory, f"--layer={layer}", "--emit=mlir", *options,
                        "-o", "-").stdout


def compile_layer(moe, directory: Path, layer: int):
    return moe.compile(directory, layer=layer).layer(directory)


def refused(moe, directory: Path, *options) -> str:
    """The error for a checkpoint that cannot be imported."""
    done = run_compiler(moe, "--hf", directory, *options, "--emit=mlir", "-o", "-", check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def edit(directory: Path, **changes) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def relative_error(ours, theirs: torch.Tensor) -> float:
    assert theirs.abs().max() > 0.1
    return data.relative_error(ours, theirs.float().numpy())


def numpy_of(x: torch.Tensor) -> np.ndarray:
    if x.dtype == torch.bfloat16:
        import ml_dtypes
        return x.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def check(moe, directory: Path, model: Model, dtype: str, tokens: int = 33) -> float:
    """Compile the saved model's layer, run it, compare; yields the relative error."""
    x = model.rows_away_from_ties(tokens, TORCH[dtype])
    y = compile_layer(moe, directory, model.layer)(numpy_of(x))
    error = relative_error(y, model.run(x))
    assert error < TOLERANCE[dtype]
    return error


def replace_tensors(directory: Path, change) -> None:
    """Save the tensors of a checkpoint after `change` edited their dictionary."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
