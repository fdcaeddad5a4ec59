"""This project: a layer compiled by ``moe.compile``, called through the runtime."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import moe
import numpy as np

from ...common import gguf_file, machine, tensors
from ...common.data import NUMPY_DTYPES, Weights, batches, empty, make_weights, weight_shapes
from ...common.formats import FORMATS
from ...common.shapes import DTYPE_BYTES, SHAPES, Shape
from ...common.tensors import tensor_names
from ..peaks import copy_to_new_pages
from . import Case, Unavailable, select


def write_checkpoint(directory: Path, shape: Shape, dtype: str,
                     weights: Weights | None = None) -> None:
    """Write a checkpoint of the shape; without weights it suffices to compile."""
    names = tensor_names(shape)
    tensors.write_checkpoint(
        directory, shape,
        {names[name]: (dtype, dims) for name, dims in weight_shapes(shape).items()},
        weights.named().values() if weights else ())


def compile_layer(shape: Shape, dtype: str, threads: int, cache: bool = True,
                  output: Path | None = None) -> moe.Module:
    """Compile the layer of the shape's published configuration; in a format, with rows in f32."""
    with tempfile.TemporaryDirectory(prefix="moe-bench-") as directory:
        if dtype in FORMATS:
            file = Path(directory) / "layer.gguf"
            gguf_file.write_header(file, shape, dtype)
            return moe.compile(file, layer=0, cache=False, output=output, num_threads=threads)
        write_checkpoint(Path(directory), shape, dtype)
        return moe.compile(directory, layer=0, dtype=dtype, cache=cache, output=output,
                           num_threads=threads)


def bind(module: moe.Module, weights: Mapping[str, np.ndarray]) -> moe.Layer:
    """Create a layer and pack its weights."""
    needed = [info.name for info in module.signature().weights]
    if missing := [name for name in needed if name not in weights]:
        raise Unavailable(f"the compiled layer has weights {missing} that the benchmark lacks")
    return module.layer({name: weights[name] for name in needed})


class Compiled:
    def __init__(self, case: Case):
        try:
            module = compile_layer(case.shape, case.dtype, case.threads)
            self.layers = [bind(module, w.named()) for w in case.layers]
        except moe.MoEError as error:
            raise Unavailable(str(error)) from error

    def scratch(self, tokens: int) -> int:
        return self.layers[0].workspace_bytes(tokens)

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs = inputs
        self.result = empty(inputs[0].shape, inputs[0].dtype)
        self.workspace = empty((max(self.scratch(len(inputs[0])), 1),), np.uint8)

    def step(self, number: int) -> None:
        layer, x = select(number, len(self.layers), len(self.inputs))
        self.layers[layer](self.inputs[x], out=self.result, workspace=self.workspace)

    def output(self) -> np.ndarray:
        return self.result.astype(np.float32)


def open(case: Case) -> Compiled:
    return Compiled(case)


def costs(case: Case) -> dict[str, float]:
    """Measure the seconds to compile a layer, to pack its weights, first and again, to copy them
    as often, and from an artifact in a file to the first result for one token."""
    weights = case.layers[0]
    arrays = list(weights.named().values())
    x = next(batches(case.shape, weights.router, case.dtype, 1, "uniform", seed=1)).x
    artifact = Path(case.cache) / f"{case.shape.key}-{case.dtype}.moe"
    begin = time.perf_counter()
    compile_layer(case.shape, case.dtype, case.threads, cache=False, output=artifact)
    compiled = time.perf_counter()
    # A virtual machine may lack the memory until it is touched, which costs many times a copy:
    # touch as much before, for both packing and copying.
    copy_to_new_pages(arrays, case.threads)
    start = time.perf_counter()
    module = moe.load(artifact, num_threads=case.threads)
    loaded = time.perf_counter()
    layer = bind(module, weights.named())
    prepared = time.perf_counter()
    layer(x)
    end = time.perf_counter()
    # The runtime gives memory back, so that each packing is to new pages. The median is of less
    # other load.
    again, copies = [], []
    for _ in range(5):
        del layer
        copies.append(copy_to_new_pages(arrays, case.threads))
        begin_again = time.perf_counter()
        layer = bind(module, weights.named())
        again.append(time.perf_counter() - begin_again)
    return {"compile_s": compiled - begin, "prepare_s": prepared - loaded,
            "prepare_again_s": statistics.median(again), "copy_s": statistics.median(copies),
            "first_result_s": end - start, "weight_bytes": weights.nbytes}


def peak_memory(shape: Shape, dtype: str, threads: int, tokens: int) -> dict[str, Any]:
    """Return the peak resident memory of a process that only runs one layer of a checkpoint."""
    with tempfile.TemporaryDirectory(prefix="moe-bench-") as directory:
        write_checkpoint(Path(directory), shape, dtype, make_weights(shape, dtype, seed=1))
        command = [sys.executable, "-m", __name__, directory, shape.key, dtype, str(threads),
                   str(tokens)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"error": last}
    return json.loads(done.stdout.splitlines()[-1])


def _status(key: str) -> int:
    """Return a memory figure of this process in bytes, from /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/self/status has no {key}")


def _run_once(directory: str, key: str, dtype: str, threads: int, tokens: int) -> dict[str, Any]:
    os.sched_setaffinity(0, machine.cpus(threads))
    module = moe.compile(directory, layer=0, dtype=dtype, num_threads=threads)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((tokens, SHAPES[key].hidden)).astype(NUMPY_DTYPES[dtype])
    result = np.empty_like(x)
    before = _status("VmRSS")
    layer = module.layer(directory)
    layer(x, out=result)
    return {"weight_bytes": SHAPES[key].parameters * DTYPE_BYTES[dtype],
            "workspace_bytes": layer.workspace_bytes(tokens), "tokens": tokens,
            "before_bytes": before, "peak_bytes": _status("VmHWM"),
            "private_bytes": _status("RssAnon")}


if __name__ == "__main__":
    print(json.dumps(_run_once(*sys.argv[1:4], *map(int, sys.argv[4:6]))))
