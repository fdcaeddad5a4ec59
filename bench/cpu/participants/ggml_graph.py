"""ggml, the library of llama.cpp: the layer as llama.cpp builds it, on ggml's CPU backend.

Activations and the router are f32 whatever the type of the experts, as in llama.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from .. import ggml
from ...common.data import Weights, empty
from . import Case, Unavailable, select


class Network:
    def __init__(self, case: Case):
        self.library = ggml.load()
        self.shape = shape = case.shape
        description = ggml.Shape(
            hidden=shape.hidden, intermediate=shape.intermediate, experts=shape.experts,
            top_k=shape.top_k, shared=shape.shared, renormalise=shape.renormalise,
            type=ggml.type_of(case.dtype))
        self.handle = self.library.moe_bench_open(description, case.threads)
        self.kept = []
        for weights in case.layers:
            self._add(weights)

    def _add(self, weights: Weights) -> None:
        router = empty(weights.router.shape, np.float32)
        router[...] = weights.router
        arrays = weights.named() | {"router": router}
        self.kept.append(arrays)
        pointers = ggml.Pointers(**{name: a.ctypes.data for name, a in arrays.items()})
        reordered = self.library.moe_bench_add_layer(self.handle, ctypes.byref(pointers))
        if reordered < 0:
            raise Unavailable("ggml has no memory for its weights")
        self.reordered = reordered

    def __del__(self):
        if handle := getattr(self, "handle", None):
            self.library.moe_bench_close(handle)

    def scratch(self, tokens: int) -> int:
        # Of each choice gate and up, their product, and the row of the expert before and after
        # its weight; the work buffer has the rows in another type.
        shape = self.shape
        return 4 * tokens * shape.top_k * (4 * shape.intermediate + 2 * shape.hidden)

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs = []
        for x in inputs:
            self.inputs.append(empty(x.shape, np.float32))
            self.inputs[-1][...] = x
        if self.library.moe_bench_load(self.handle, len(inputs[0])) < 0:
            raise Unavailable("ggml has no memory for its activations")

    def step(self, number: int) -> None:
        self.layer, x = select(number, len(self.kept), len(self.inputs))
        status = self.library.moe_bench_run(self.handle, self.layer, self.inputs[x].ctypes.data)
        if status:
            raise RuntimeError(f"ggml_graph_compute returned {status}")

    def output(self) -> np.ndarray:
        result = empty(self.inputs[0].shape, np.float32)
        self.library.moe_bench_output(self.handle, self.layer, result.ctypes.data)
        return result


def open(case: Case) -> Network:
    return Network(case)
