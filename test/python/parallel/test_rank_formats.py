"""Weights of all formats over ranks: quantised when they are loaded, and as files have them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import moe
import numpy as np
import pytest
from moe_testing import data, layers, processes, ranks
from moe_testing.layers import E

CHECKPOINT = Path(__file__).resolve().parents[2] / "data" / "tiny-mixtral"
LAYER, EXPERTS = 1, 8
# Experts in another order, and one on two ranks.
TABLE = np.array([[7, 0, 2, -1], [1, 3, 4, 5], [6, 0, -1, -1]], np.int32)


def over_ranks(source, layer: int, weights, x: np.ndarray, counts: list[int], table=None,
               **options) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one rank, and those of several."""
    one = moe.compile(source, layer=layer, **options).layer(weights)(x)
    spread = moe.compile(source, layer=layer, **options | {
        "options": ["--parallel=4:2", *options.get("options", ())]}).path.read_bytes()
    got = ranks.call(lambda group: moe.load(spread, group=group), weights, {"x": x}, counts, table)
    return one, got[0]


@pytest.mark.parametrize("table", (None, TABLE), ids=("neighbours", "table"))
@pytest.mark.parametrize("quantize", ("int4:32", "int8:64", "mxfp4", "fp8:128x64"))
def test_quantized_when_loaded(quantize, table):
    """Each rank rounds the weights of its own experts, as one rank does."""
    x = np.load(CHECKPOINT / f"layer{LAYER}.input.npy").reshape(-1, 128)[:40]
    exact = np.load(CHECKPOINT / f"layer{LAYER}.output.npy").reshape(-1, 128)[:40]
    one, got = over_ranks(CHECKPOINT, LAYER, CHECKPOINT, x, [25, 0, 15], table,
                          quantize=quantize)
    assert (data.bits(got) == data.bits(one)).all()
    assert not np.allclose(one, exact, rtol=1e-4, atol=1e-5), "weights are not rounded"


@pytest.mark.parametrize("table", (None, TABLE), ids=("neighbours", "table"))
@pytest.mark.parametrize("kind", ("F32", "F16", "BF16", "Q8_0", "Q4_0", "MXFP4"))
def test_gguf(tmp_path, kind, table):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[kind]
    random, path = data.rng("gguf", int(kind)), tmp_path / "w.gguf"
    writer = gguf.GGUFWriter(path, "qwen3moe")
    for key, value in {"expert_used_count": 3, "expert_count": EXPERTS, "embedding_length": 256,
                       "block_count": 2}.items():
        writer.add_uint32(f"qwen3moe.{key}", value)
    for name, shape, its in (("gate_inp", (EXPERTS, 256), gguf.GGMLQuantizationType.F32),
                             ("gate_exps", (EXPERTS, 192, 256), kind),
                             ("up_exps", (EXPERTS, 192, 256), kind),
                             ("down_exps", (EXPERTS, 256, 192), kind)):
        values = (random.standard_normal(shape) / 16).astype(np.float32)
        writer.add_tensor(f"blk.1.ffn_{name}.weight", gguf.quants.quantize(values, its),
                          raw_dtype=its)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    x = random.standard_normal((37, 256)).astype(np.float32)
    one, got = over_ranks(path, 1, path, x, [20, 0, 17], table)
    assert np.isfinite(one).all() and one.any()
    assert (data.bits(got) == data.bits(one)).all()


def test_a_layer_created_twice():
    """A second layer of a group is another one, with other weights."""
    weights, inputs = data.weights_of("mixtral"), data.inputs_of("mixtral", 30)
    halves = weights | {"down_proj": weights["down_proj"] / 2}
    path = moe.compile(layers.text("mixtral", "f32"), options=["--parallel=ranks=2"]
                       ).path.read_bytes()
    one = moe.compile(layers.text("mixtral", "f32"))
    parts = ranks.split(inputs, [18, 12])

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1)
        module = moe.load(path, group=group)
        first, second = module.layer(weights), module.layer(halves)
        own = parts[group.rank]
        return first(**own), second(**own), first(**own)

    got = [np.concatenate(each) for each in zip(*ranks.run(2, on_rank))]
    for ours, given in zip(got, (weights, halves, weights)):
        assert (data.bits(ours) == data.bits(one.layer(given)(**inputs))).all()
    assert not np.array_equal(got[0], got[1])


def test_a_function_that_is_missing():
    """On one rank alone; the others are told, and the group goes on."""
    path = moe.compile(layers.text("mixtral", "f32"), options=[f"--parallel={E}"]
                       ).path.read_bytes()

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1)
        module = moe.load(path, group=group)
        with pytest.raises(moe.MoEError) as caught:
            module.layer(data.weights_of("mixtral"), function="other")
        return caught.value.code, str(caught.value), module.functions

    for code, message, _ in ranks.run(2, on_rank):
        assert code == moe.NOT_FOUND and "other" in message, message


def test_more_ranks_than_slots_allow():
    path = moe.compile(layers.text("mixtral", "f32"), options=["--parallel=2"]).path.read_bytes()

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1)
        with pytest.raises(moe.MoEError, match="8 experts and was compiled for 2 on a rank, "
                                               "which are 6 on 3 ranks"):
            moe.load(path, group=group).layer(data.weights_of("mixtral"))
        return True

    assert all(ranks.run(3, on_rank))


def test_the_runtime_links_no_engine(tmp_path):
    """Neither MPI nor NCCL nor torch; without symbols for debuggers it stays below 1 MB."""
    from moe._library import library

    if shutil.which("readelf") is None or shutil.which("strip") is None:
        pytest.skip("needs readelf and strip")
    path = Path(library()._name)
    found = subprocess.run(["readelf", "-d", path], capture_output=True, text=True,
                           check=True).stdout
    needed = {line.split("[")[1].split(".so")[0] for line in found.splitlines()
              if "(NEEDED)" in line}
    if needed & {"libasan", "libtsan", "libubsan"}:
        pytest.skip("built with a sanitizer")
    assert needed <= {"libc", "libm", "libstdc++", "libgcc_s", "libpthread", "libdl", "librt",
                      "ld-linux-x86-64"}, needed
    subprocess.run(["strip", "-o", tmp_path / "stripped", path], check=True)
    assert (tmp_path / "stripped").stat().st_size < 1e6


def die(group, path, x):
    """Rank 1 ends between two calls; the others get an error, and end on their own."""
    import os
    import time

    layer = moe.load(path, group=moe.parallel.Group(group, num_threads=1, deadline=20)).layer(
        data.weights_of("mixtral"))
    layer(x)
    if group.rank() == 1:
        os._exit(17)
    began = time.monotonic()
    errors = []
    for _ in range(2):
        with pytest.raises(moe.MoEError) as caught:
            layer(x)
        errors.append((caught.value.code, str(caught.value)))
    return errors, time.monotonic() - began


def test_a_rank_that_ends_between_calls():
    pytest.importorskip("torch")
    path = str(moe.compile(layers.text("mixtral", "f32"), options=["--parallel=ranks=3"]).path)
    results = processes.run(3, die, path, data.inputs_of("mixtral", 5)["x"])
    assert results[1].exit_code == 17
    for errors, seconds in (results[0], results[2]):
        assert seconds < 5 and errors[0][0] == moe.UNAVAILABLE, errors
        assert "UNAVAILABLE: the group is dead: rank " in errors[1][1], errors
