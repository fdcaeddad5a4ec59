"""What the compiler's model of GPUs predicts of a layer (moe/Analysis/KernelModel.h)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from .shapes import GpuShape, write_checkpoint

# GPUs by moe-compile's name: the target, and the driver's name of the device.
GPUS = {"h100-sxm": ("sm_90a", r"H100.*HBM3"), "h200": ("sm_90a", r"H200")}

# Seconds by GPU and T.
Predictions = dict[str, dict[str, float]]


def find_gpu(device: str) -> str | None:
    """Return moe-compile's name of a device, if there are predictions for it."""
    return next((name for name, (_, pattern) in GPUS.items() if re.search(pattern, device)), None)


def predict(compiler: Path, shape: GpuShape, scratch: Path) -> Predictions:
    """Return the predicted seconds of the launches whose work the model knows."""
    write_checkpoint(scratch, shape)
    return {gpu: _predict(compiler, scratch, gpu, target, max(shape.tokens))
            for gpu, (target, _) in GPUS.items()}


def _predict(compiler: Path, checkpoint: Path, gpu: str, target: str,
             tokens: int) -> dict[str, float]:
    done = subprocess.run(
        [str(compiler), f"--hf={checkpoint}", "--layer=0", "--dtype=bf16", f"--target={target}",
         f"--gpu={gpu}", "--emit=plan-json", f"--tokens=1:{tokens}"],
        text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"pack: {gpu}: moe-compile failed\n{done.stderr[-2000:]}")
    return {str(point["tokens"]): sum(each["predicted_seconds"] for each in point["launches"])
            for point in json.loads(done.stdout)["functions"][0]["at"]}
