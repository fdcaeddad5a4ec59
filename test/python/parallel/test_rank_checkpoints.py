"""Layers of a checkpoint over ranks, which read their own experts only."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import moe
import numpy as np
import pytest
from moe_testing import processes

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / "test" / "data" / "tiny-mixtral"
LAYER, EXPERTS = 1, 8
# Of layer 1: the router, and a matrix of an expert, of which each has three.
ROUTER, MATRIX = 8 * 128 * 4, 192 * 128 * 4


def forbid(checkpoint, own) -> int:
    """Make every access to pages of experts of other ranks and layers end this process; return
    how many bytes that are."""
    page, total = mmap.PAGESIZE, 0
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for name in checkpoint.names:
        found = re.search(r"layers\.(\d+)\..*experts\.(\d+)\.", name)
        if found is None or (int(found[1]) == LAYER and int(found[2]) in own):
            continue
        data = checkpoint[name].data
        begin = -(-data.ctypes.data // page) * page
        end = (data.ctypes.data + data.nbytes) // page * page
        assert protect(begin, end - begin, 0) == 0
        total += end - begin
    return total


def call(group, path, x, table, allowed):
    """The rows of this rank, and the bytes that its layer keeps; only experts of ``allowed`` may
    be read."""
    group = moe.parallel.Group(group, num_threads=1, deadline=20)
    module = moe.load(path, group=group)
    checkpoint = moe.Checkpoint(CHECKPOINT)
    own = allowed[group.rank]
    # All but a page of each matrix.
    assert forbid(checkpoint, own) >= (2 * EXPERTS - len(own)) * 3 * (MATRIX - 2 * mmap.PAGESIZE)
    layer = module.layer(checkpoint, table=table)
    rows = np.array_split(x, group.size)[group.rank]
    return layer(rows), layer.weight_bytes


@pytest.mark.parametrize(("size", "table"), [
    (2, None), (3, None), (2, [[7, 0, 2, -1, -1, -1], [1, 3, 4, 5, 6, -1]])])
def test_layer_of_a_checkpoint(size, table):
    x = np.load(CHECKPOINT / f"layer{LAYER}.input.npy").reshape(-1, 128)
    one = moe.compile(CHECKPOINT, layer=LAYER).layer(CHECKPOINT)
    slots = f"ranks={size}" if table is None else str(len(table[0]))
    path = str(moe.compile(CHECKPOINT, layer=LAYER, options=[f"--parallel={slots}"]).path)
    placed = moe.parallel.placement(EXPERTS, size) if table is None else np.array(table)
    own = [[int(expert) for expert in row if expert >= 0] for row in placed]
    results = processes.run(size, call, path, x, table, own)
    assert (np.concatenate([y for y, _ in results]) == one(x)).all()
    for _, kept in results:
        # A slot without an expert has memory, too.
        assert kept <= 1.05 * (ROUTER + 3 * placed.shape[1] * MATRIX)


def test_the_pages_of_other_experts_are_forbidden():
    """What the test above forbids is read by a layer that has those experts."""
    x = np.zeros((1, 128), np.float32)
    path = str(moe.compile(CHECKPOINT, layer=LAYER, options=["--parallel=ranks=1"]).path)
    died, = processes.run(1, call, path, x, None, [[0, 1, 2]])
    assert died.exit_code == -signal.SIGSEGV


def test_example(tmp_path):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "python"), OMP_NUM_THREADS="1")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         ROOT / "python" / "examples" / "expert_parallel.py", "--output", tmp_path],
        env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for rank, tokens in enumerate((0, 100)):
        assert f"rank {rank} of 2: " in done.stdout and f" {tokens} tokens, " in done.stdout
    parts = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(2)]
    one = moe.compile(CHECKPOINT, layer=LAYER).layer(CHECKPOINT)
    x, y = (np.concatenate([part[name] for part in parts]) for name in "xy")
    assert len(x) == 100 and (y == one(x)).all()
