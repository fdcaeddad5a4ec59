"""ONNX Runtime: its com.microsoft.MoE operator, after a matmul for the router."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from ...common.data import Weights, empty
from ...common.shapes import Shape
from . import Case, Unavailable, select

# The operator clamps gate and up to this; the largest f32 disables it.
NO_LIMIT = float(np.finfo(np.float32).max)
ELEMENTS = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def interleaved(gate_up: np.ndarray) -> np.ndarray:
    """Interleave the rows of gate and up in ``[E, 2 I, H]``: the only layout that the operator
    supports on the CPU."""
    experts, rows, hidden = gate_up.shape
    result = empty(gate_up.shape, gate_up.dtype)
    result.reshape(experts, rows // 2, 2, hidden)[...] = gate_up.reshape(
        experts, 2, rows // 2, hidden).swapaxes(1, 2)
    return result


def make_arrays(weights: Weights) -> dict[str, np.ndarray]:
    arrays = {"router": np.ascontiguousarray(weights.router.T),
              "fc1": interleaved(weights.gate_up_proj), "fc2": weights.down_proj}
    if weights.shared_gate_proj is not None:
        for name in ("shared_gate_proj", "shared_up_proj", "shared_down_proj"):
            arrays[name] = np.ascontiguousarray(getattr(weights, name).T)
    return arrays


def routed_node(shape: Shape) -> onnx.NodeProto:
    return helper.make_node(
        "MoE", ["x", "logits", "fc1", "", "fc2"], ["routed"], domain="com.microsoft",
        k=shape.top_k, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0,
        activation_beta=0.0, swiglu_limit=NO_LIMIT,
        normalize_routing_weights=int(shape.renormalise))


def shared_nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [node("MatMul", ["x", "shared_gate_proj"], ["gate"]),
            node("MatMul", ["x", "shared_up_proj"], ["up"]),
            node("Sigmoid", ["gate"], ["sigmoid"]),
            node("Mul", ["gate", "sigmoid"], ["silu"]),
            node("Mul", ["silu", "up"], ["hidden"]),
            node("MatMul", ["hidden", "shared_down_proj"], ["shared"]),
            node("Add", ["routed", "shared"], ["y"])]


def make_model(shape: Shape, arrays: dict[str, np.ndarray], element: int) -> bytes:
    """Build the layer; its weights are separate, as they exceed the limit of 2 GiB of a model
    file."""
    nodes = [helper.make_node("MatMul", ["x", "router"], ["logits"]), routed_node(shape)]
    nodes += shared_nodes() if shape.shared else [
        helper.make_node("Identity", ["routed"], ["y"])]
    initializers = [onnx.TensorProto(name=name, data_type=element, dims=array.shape,
                                     data_location=TensorProto.EXTERNAL)
                    for name, array in arrays.items()]
    for tensor in initializers:
        tensor.external_data.add(key="location", value="given-apart")
    return _serialize(nodes, {"x": element}, {"y": element}, initializers)


def _serialize(nodes: list[onnx.NodeProto], inputs: dict[str, int], outputs: dict[str, int],
               initializers: list[onnx.TensorProto]) -> bytes:
    def describe(values: dict[str, int]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, element, None)
                for name, element in values.items()]

    model = helper.make_model(
        helper.make_graph(nodes, "layer", describe(inputs), describe(outputs), initializers),
        opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    return model.SerializeToString()


def _session(model: bytes, threads: int,
             initializers: dict[str, onnxruntime.OrtValue]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Its threads may spin within a call, but not while other participants are measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if initializers:
        options.add_external_initializers(list(initializers), list(initializers.values()))
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise Unavailable(" ".join(str(error).split())) from error


class Sessions:
    def __init__(self, case: Case):
        element = ELEMENTS[case.dtype]
        if case.dtype == "bf16":
            # Raises if there is no kernel; numpy's bf16 cannot become an OrtValue.
            values = dict.fromkeys(("x", "logits", "fc1", "fc2"), element)
            _session(_serialize([routed_node(case.shape)], values, {"routed": element}, []),
                     case.threads, {})
            raise Unavailable("OrtValue takes no bf16 array of numpy")
        self.sessions, self.kept = [], []
        for weights in case.layers:
            arrays = make_arrays(weights)
            values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array)
                      for name, array in arrays.items()}
            self.kept.append((arrays, values))
            self.sessions.append(
                _session(make_model(case.shape, arrays, element), case.threads, values))

    def scratch(self, tokens: int) -> int:
        return 0

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.bindings = []
        self.result = empty(inputs[0].shape, inputs[0].dtype)
        for session in self.sessions:
            for x in inputs:
                binding = session.io_binding()
                binding.bind_cpu_input("x", x)
                binding.bind_output("y", "cpu", 0, self.result.dtype, self.result.shape,
                                    self.result.ctypes.data)
                self.bindings.append(binding)
        self.inputs = inputs

    def step(self, number: int) -> None:
        layer, x = select(number, len(self.sessions), len(self.inputs))
        self.sessions[layer].run_with_iobinding(self.bindings[layer * len(self.inputs) + x])

    def output(self) -> np.ndarray:
        return self.result.astype(np.float32)


def open(case: Case) -> Sessions:
    return Sessions(case)
