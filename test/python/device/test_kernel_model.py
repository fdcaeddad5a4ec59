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
from moe_testing.cases.grouped_contract import Case as Contract
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


# Whole tiles, and whole steps of each expert.
CONTRACTS = {"plain": Contract("plain", 128, 256, "bf16", "bf16", experts=3),
             "gathers": Contract("gathers", 256, 256, "bf16", "f32", experts=2,
                                 gathers=("lhs", "rhs")),
             "adds": Contract("adds", 128, 256, "bf16", "f32", experts=3, accumulate=True)}
STEPS = (2, 1, 3)  # of 64 rows, of each expert


def rows_of(case: Contract) -> list[int]:
    return [64 * steps for steps in STEPS[:case.experts]]


def run_contract(name: str, target: str) -> None:
    import moe

    case = CONTRACTS[name]
    counts = rows_of(case)
    arrays = case.inputs(sum(counts), np.concatenate([[0], np.cumsum(counts)]))
    layer = moe.compile(case.text(), target=target, device="cuda").layer({})
    layer(out=gpu.empty(case.result, (case.experts, case.k, case.n)),
          **{n: gpu.upload(array) for n, array in arrays.items()})


# A number for each row, and the largest number of each row.
LOOP = """
#id = affine_map<(t, n) -> (t, n)>
#row = affine_map<(t, n) -> (t)>
func.func @loop(%x: tensor<?x48xf32> {moe.role = "input", moe.name = "x"},
                %s: tensor<?xf32> {moe.role = "input", moe.name = "s"})
    -> (tensor<?x48xf32> {moe.name = "y"}, tensor<?xf32> {moe.name = "z"}) {
  %c0 = arith.constant 0 : index
  %low = arith.constant 0xFF800000 : f32
  %t = tensor.dim %x, %c0 : tensor<?x48xf32>
  %e = tensor.empty(%t) : tensor<?x48xf32>
  %y = linalg.generic {indexing_maps = [#id, #row, #id], iterator_types = ["parallel", "parallel"]}
      ins(%x, %s : tensor<?x48xf32>, tensor<?xf32>) outs(%e : tensor<?x48xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %p = arith.mulf %a, %b : f32
    linalg.yield %p : f32
  } -> tensor<?x48xf32>
  %f = tensor.empty(%t) : tensor<?xf32>
  %z0 = linalg.fill ins(%low : f32) outs(%f : tensor<?xf32>) -> tensor<?xf32>
  %z = linalg.generic {indexing_maps = [#id, #row], iterator_types = ["parallel", "reduction"]}
      ins(%y : tensor<?x48xf32>) outs(%z0 : tensor<?xf32>) {
  ^bb0(%a: f32, %o: f32):
    %p = arith.maximumf %o, %a : f32
    linalg.yield %p : f32
  } -> tensor<?xf32>
  return %y, %z : tensor<?x48xf32>, tensor<?xf32>
}
"""
LOOP_TOKENS = 500


def run_loop(target: str) -> None:
    import moe

    layer = moe.compile(LOOP, target=target, device="cuda").layer({})
    outs = tuple(gpu.empty("f32", shape) for shape in ((LOOP_TOKENS, 48), (LOOP_TOKENS,)))
    layer(out=outs, x=gpu.upload(np.ones((LOOP_TOKENS, 48), np.float32)),
          s=gpu.upload(np.ones(LOOP_TOKENS, np.float32)))


def ends_of(log) -> list[dict]:
    return [event for event in map(json.loads, log.read_text().splitlines())
            if event["event"] == "end"]


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


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_bytes_of_a_contraction(name, target, tmp_path):
    """Both sides of each step are copied, the numbers of gathered rows and offsets read."""
    double.needs_double()
    log = tmp_path / "log"
    double.in_new_process(__file__, "contract", name, target, MOE_CUDA_DOUBLE_LOG=str(log))
    case = CONTRACTS[name]
    rows = sum(rows_of(case))
    # What is added to is copied to the result first.
    found, = (e for e in ends_of(log) if e["kernel"].startswith("grouped_contract"))
    model, = (m for m in predicted(case.text(), target, rows, tmp_path)
              if m["kernel"].startswith("grouped_contract"))
    assert model["kernel"] == found["kernel"]
    # The model has as many steps as independent tokens have on average: exact with whole ones.
    matrices = case.experts * case.k * case.n * np.dtype(data.numpy_type(case.result)).itemsize
    assert found["bytes_written"] == matrices
    assert model["memory_bytes"] == pytest.approx(
        2 * rows * (case.k + case.n) + matrices * (1 + case.accumulate))
    # Steps that are not whole are padded: at most one for each expert, half of one on average.
    padded = rows + 64 * case.experts / 2
    assert found["bytes_copied"] == pytest.approx(model["cache_bytes"] * rows / padded, rel=0.05)


def test_bytes_of_loops(tmp_path):
    double.needs_double()
    log = tmp_path / "log"
    double.in_new_process(__file__, "loop", "sm_80", MOE_CUDA_DOUBLE_LOG=str(log))
    models = predicted(LOOP, "sm_80", LOOP_TOKENS, tmp_path)
    found = ends_of(log)
    assert [m["kernel"] for m in models] == [f["kernel"] for f in found]
    for model, its in zip(models, found, strict=True):
        accessed = its["bytes_read"] + its["bytes_written"]
        assert accessed == pytest.approx(model["cache_bytes"], rel=0.05)
    # A product of a matrix and a vector: what is read again is not memory traffic.
    assert models[0]["memory_bytes"] == 4 * LOOP_TOKENS * (48 + 1 + 48)


if __name__ == "__main__":
    if sys.argv[1] == "contract":
        run_contract(*sys.argv[2:])
    elif sys.argv[1] == "loop":
        run_loop(sys.argv[2])
    elif sys.argv[2:]:
        run(*sys.argv[1:])
    else:
        run_router(sys.argv[1])
