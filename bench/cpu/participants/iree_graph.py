"""IREE: the StableHLO that JAX traces, compiled for this processor.

Compiled for each T, as its ragged dots do not support dynamic shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import iree.compiler
import iree.runtime
import jax
import numpy as np

from . import Case, Unavailable, select
from .jax_ragged import layer, make_arrays


class Modules:
    def __init__(self, case: Case):
        iree.runtime.flags.parse_flags(f"--task_topology_group_count={case.threads}")
        self.config = iree.runtime.Config("local-task")
        self.shape = case.shape
        # Arguments in the order in which JAX flattens the dictionary.
        self.layers = []
        for weights in case.layers:
            arrays = make_arrays(weights)
            self.layers.append([self._device_array(np.asarray(arrays[k])) for k in sorted(arrays)])
        self.functions: dict[int, Callable[..., iree.runtime.DeviceArray]] = {}
        self.example = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in arrays.items()}

    def _device_array(self, array: np.ndarray) -> iree.runtime.DeviceArray:
        return iree.runtime.asdevicearray(self.config.device, array)

    def _function(self, tokens: int) -> Callable[..., iree.runtime.DeviceArray]:
        if tokens not in self.functions:
            context = iree.runtime.SystemContext(config=self.config)
            module = iree.runtime.VmModule.copy_buffer(context.instance, self._compile(tokens))
            context.add_vm_module(module)
            self.functions[tokens] = context.modules[module.name]["main"]
        return self.functions[tokens]

    def _compile(self, tokens: int) -> bytes:
        x = jax.ShapeDtypeStruct((tokens, self.shape.hidden), self.example["router"].dtype)
        text = str(jax.jit(layer(self.shape)).lower(self.example, x).compiler_ir("stablehlo"))
        try:
            return iree.compiler.compile_str(
                text, input_type="auto", target_backends=["llvm-cpu"],
                extra_args=["--iree-llvmcpu-target-cpu=host"])
        except iree.compiler.CompilerToolError as error:
            reason = next((line for line in str(error).splitlines() if "error:" in line),
                          str(error))
            raise Unavailable(f"iree-compile failed: {reason.strip()}") from error

    def scratch(self, tokens: int) -> int:
        # The masked rows of all experts, as in JAX on the CPU.
        shape = self.shape
        return 4 * tokens * shape.top_k * shape.experts * max(shape.hidden, shape.intermediate)

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.main = self._function(len(inputs[0]))
        self.inputs = [self._device_array(x) for x in inputs]

    def step(self, number: int) -> None:
        index, x = select(number, len(self.layers), len(self.inputs))
        self.result = self.main(*self.layers[index], self.inputs[x]).to_host()

    def output(self) -> np.ndarray:
        return self.result.astype(np.float32)


def open(case: Case) -> Modules:
    return Modules(case)
