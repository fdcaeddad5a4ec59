"""What the model of GPUs goes by (moe/Analysis/KernelModel.h), against what the double of the
driver counts: the bytes that kernels copy from the L2 cache and write to memory."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from moe import _tools
from moe_testing import data
from moe_testing.cases.grouped import Case
from moe_testing.cases.routing import Router
from moe_testing.device import arrays as gpu
from moe_testing.device import double

pytestmark = pytest.mark.usefixtures("device")

# Of whole tiles, of which the model knows the number.
ROWS = (8, 64, 256)
SHAPES = {"along_k": dict(k=512, n=384, transposed=True), "along_n": dict(k=256, n=768)}


def case_of(shape: str) -> Case:
    return Case("model", element="bf16", experts=0, role="input", **SHAPES[shape])


def run(shape: str, target: str) -> None:
    import moe

    case = case_of(shape)
    layer = moe.compile(case.text(), target=target, device="cuda").layer({})
    for rows in ROWS:
        arrays = case.weights() | case.inputs(rows)
        out = gpu.upload(np.zeros((rows, case.n), data.numpy_type(case.out)))
        layer(out=out, **{name: gpu.upload(array) for name, array in arrays.items()})


# More than a wave of the H100's tiles: blocks have 64 tokens each.
ROUTER, TOKENS, MULTIPROCESSORS = Router(64, 64, 2), 4300, 132


def run_router(target: str) -> None:
    import moe

    layer = moe.compile(ROUTER.text(), target=target, device="cuda").layer(
        {"w": gpu.upload(np.ones((1, ROUTER.experts, ROUTER.columns), data.numpy_type("bf16")))})
    outputs = [gpu.empty(info.dtype, [TOKENS if d < 0 else d for d in info.shape])
               for info in layer.signature.outputs]
    layer(out=outputs, x=gpu.upload(np.ones((TOKENS, ROUTER.columns), data.numpy_type("bf16"))))


def predicted(text: str, target: str, rows: int, scratch) -> list[dict]:
    source = scratch / "case.mlir"
    source.write_text(text)
    done = subprocess.run(
        [_tools.find_tool("moe-compile"), source, f"--target={target}", "--emit=plan-json",
         f"--tokens={rows}:{rows}"], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["functions"][0]["at"][-1]["launches"]


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes(shape, target, tmp_path):
    double.needs_double()
    log = tmp_path / "log"
    double.in_new_process(__file__, shape, target, MOE_CUDA_DOUBLE_LOG=str(log))
    ends = [event for event in map(json.loads, log.read_text().splitlines())
            if event["event"] == "end"]
    case = case_of(shape)
    for rows, found in zip(ROWS, ends, strict=True):
        model, = predicted(case.text(), target, rows, tmp_path)
        assert model["kernel"] == found["kernel"]
        copied = found["bytes_copied"] + found["bytes_read"]
        assert copied == pytest.approx(model["cache_bytes"], rel=0.05)
        written = 2 * rows * case.n
        assert found["bytes_written"] == written
        # Weights and rows once, and the result.
        assert model["memory_bytes"] == 2 * case.k * (rows + case.n) + written


def test_bytes_of_a_router(tmp_path):
    """Tokens and weights pass through shared memory, the weights once for each block."""
    double.needs_double()
    log = tmp_path / "log"
    double.in_new_process(__file__, "sm_90a", MOE_CUDA_DOUBLE_LOG=str(log),
                          MOE_CUDA_DOUBLE_SMS=str(MULTIPROCESSORS))
    found = next(event for event in map(json.loads, log.read_text().splitlines())
                 if event["event"] == "end" and event["kernel"].startswith("router"))
    model, *_ = predicted(ROUTER.text(), "sm_90a", TOKENS, tmp_path)
    assert model["kernel"] == found["kernel"]
    assert found["bytes_copied"] == pytest.approx(model["cache_bytes"], rel=0.05)


if __name__ == "__main__":
    if sys.argv[2:]:
        run(*sys.argv[1:])
    else:
        run_router(sys.argv[1])
