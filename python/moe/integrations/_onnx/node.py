"""One node of experts of an ONNX model, as a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from ... import ir
from ..._error import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, MoEError
from .._imported import Imported
from . import quantized as quantized
from .arrays import array_of
from .grouped import is_grouped_matmul
from .quantized import FLOATS

DOMAIN = "com.microsoft"
# The positions of the inputs of a node. Those of fc3 may be absent.
INPUTS = {
    "MoE": {"fc1": 2, "fc1_bias": 3, "fc2": 4, "fc2_bias": 5, "fc3": 6, "fc3_bias": 7},
    "QMoE": {"fc1": 2, "fc1_scales": 3, "fc1_bias": 4, "fc2": 5, "fc2_scales": 6, "fc2_bias": 7,
             "fc3": 8, "fc3_scales": 9, "fc3_bias": 10, "fc1_zero_points": 11,
             "fc2_zero_points": 12, "fc3_zero_points": 13, "router_weights": 14,
             "fc1_global_scale": 15, "fc2_global_scale": 16}}
GATED = "swiglu", "silu"
FUSED = "swiglu", "geglu"


def is_layer(node: onnx.NodeProto) -> bool:
    return node.domain == DOMAIN and node.op_type in INPUTS or is_grouped_matmul(node)


def find(graph: onnx.GraphProto, name: str | None) -> onnx.NodeProto:
    known = [n for n in graph.node if is_layer(n)]
    found = [n for n in known if name is None or n.name == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(n.name) for n in known[:8]) + (", ..." if len(known) > 8 else "")
    if not known:
        raise MoEError(NOT_FOUND, "the model has no node MoE or QMoE of com.microsoft, and no "
                       "GroupedMatMul")
    if name is None:
        raise MoEError(INVALID_ARGUMENT, f"expected the name of a node, one of {names}")
    raise MoEError(NOT_FOUND, f"expected one node '{name}' of experts, got {len(found)}; there are "
                   f"{names}")


class Node:
    """Writes one node as a function."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto, directory: str):
        self.graph, self.node, self.directory = graph, node, directory
        self.initializers = {t.name: t for t in graph.initializer}
        self.attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self.given: dict[str, np.ndarray] = {}  # what was read, which may be large
        self.arrays: dict[str, np.ndarray] = {}
        self.function = ir.Function("layer")

    def fail(self, message: str, code: int = INVALID_ARGUMENT) -> MoEError:
        return MoEError(code, f"node '{self.node.name}': {message}")

    # -- what the node has ----------------------------------------------------

    def name_of(self, position: int) -> str:
        return self.node.input[position] if position < len(self.node.input) else ""

    def array(self, name: str) -> np.ndarray:
        return array_of(self.initializers[name], self.directory, f"node '{self.node.name}': ")

    def read(self, what: str) -> np.ndarray | None:
        """Return an input that is a weight, if the node has it."""
        name = self.name_of(INPUTS[self.node.op_type].get(what, len(self.node.input)))
        if not name:
            return None
        if name not in self.initializers:
            raise self.fail(f"expected {what} '{name}' to be an initializer")
        if what not in self.given:
            self.given[what] = self.array(name)
        return self.given[what]

    def expect(self, what: str, array: np.ndarray, *shapes: Sequence[int]) -> np.ndarray:
        if array.shape not in [tuple(shape) for shape in shapes]:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise self.fail(f"expected {what} of shape {wanted}, got {list(array.shape)}")
        return array

    def number(self, name: str, absent: Any) -> Any:
        return self.attributes.get(name, absent)

    # -- the function ---------------------------------------------------------

    def weight(self, name: str, array: np.ndarray, element: str) -> ir.Value:
        self.arrays[name] = array
        return self.function.weight(name, array.shape, element)

    def build(self) -> Imported:
        node, f = self.node, self.function
        if self.number("use_sparse_mixer", 0):
            raise self.fail("use_sparse_mixer is not supported", UNIMPLEMENTED)
        if node.op_type == "QMoE":
            quantized.check(self)
            if extra := [n for n in node.input[17:] if n]:
                raise self.fail(f"the inputs {', '.join(extra)} are not supported", UNIMPLEMENTED)
        self.activation = self.number("activation_type", b"relu").decode()
        if self.activation not in (*_activations, *FUSED):
            raise self.fail(f"expected activation_type {', '.join((*_activations, *FUSED))}, got "
                            f"'{self.activation}'", UNIMPLEMENTED)
        self.fusion = self.number("swiglu_fusion", 0) if self.activation in FUSED else 0
        if self.fusion not in (0, 1, 2):
            raise self.fail(f"expected swiglu_fusion 0, 1 or 2, got {self.fusion}")
        if self.activation == "geglu" and not self.fusion:
            raise self.fail("expected swiglu_fusion 1 or 2 with activation_type geglu")
        shapes = self.extents()
        x = f.input("x", (None, self.hidden), self.element)
        logits = self.logits(x)
        k = self.number("k", 1)
        if not 1 <= k <= self.experts:
            raise self.fail(f"expected k between 1 and {self.experts}, got {k}")
        normalize = "sum" if self.number("normalize_routing_weights", 0) else None
        if self.name_of(INPUTS[node.op_type].get("router_weights", len(node.input))):
            # The weights of the choices are those of another matrix, as they are.
            _, ids = f.gate(logits, top_k=k)
            given = f.input("router_weights", (None, self.experts), self.element)
            weights = self.weights_of(ids, given, k, normalize)
        else:
            weights, ids = f.gate(logits, top_k=k, normalize=normalize)
        grouped, offsets, positions = f.dispatch(x, ids, experts=self.experts)
        params = {name: self.matrix(name, shape) for name, shape in shapes.items()}
        for name, shape in shapes.items():
            if (bias := self.bias(name, shape[1])) is not None:
                params[name + "_bias"] = bias
        y = f.expert(grouped, offsets, list(params.values()),
                     lambda rows, *given: self.mlp(rows, dict(zip(params, given))))
        f.output("y", f.combine(y, positions, weights))
        return Imported(str(f), self.arrays)

    def weights_of(self, ids: ir.Value, given: ir.Value, k: int,
                   normalize: str | None) -> ir.Value:
        properties = {"top_k": k, "score": ir.Attribute("#moe<score none>"),
                      "operandSegmentSizes": ir.Attribute("array<i32: 1, 0, 0, 1>")}
        if normalize:
            properties["normalize"] = ir.Attribute(f"#moe.normalize<{normalize}>")
        return self.function.create("moe.gate", [given, ids], [
            ir.TensorType((None, k), "f32"), ir.TensorType((None, k), "i32")], properties)[0]

    def extents(self) -> dict[str, tuple[int, int, int]]:
        """Find the extents of the experts; returns the shapes of the decoded matrices."""
        first, second = self.read("fc1"), self.read("fc2")
        if first is None or second is None or first.ndim != 3 or second.ndim != 3:
            raise self.fail("expected fc1 and fc2 of shape [experts, rows, columns]")
        self.element = self.type_of_rows(first)
        if self.node.op_type == "QMoE":
            self.experts, self.hidden, width = quantized.extents(
                self, first, second, 2 if self.fusion else 1)
        else:
            self.experts, self.hidden, width = first.shape[0], first.shape[2], second.shape[2]
        shapes = {"fc1": (self.experts, 2 * width if self.fusion else width, self.hidden),
                  "fc2": (self.experts, self.hidden, width)}
        if self.name_of(INPUTS[self.node.op_type]["fc3"]):
            if self.fusion or self.activation not in GATED:
                raise self.fail(f"expected no fc3 with activation_type {self.activation} and "
                                f"swiglu_fusion {self.fusion}")
            shapes["fc3"] = (self.experts, width, self.hidden)
        elif self.activation == "swiglu" and not self.fusion:
            raise self.fail("expected fc3 with activation_type swiglu and swiglu_fusion 0")
        return shapes

    def type_of_rows(self, first: np.ndarray) -> str:
        """Return the type of the tokens: that of weights or scales, or what the graph says."""
        dtype = first.dtype
        if self.node.op_type == "QMoE":
            for value in (*self.graph.input, *self.graph.value_info):
                if value.name == self.node.input[0] and value.type.tensor_type.elem_type:
                    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
                    break
            else:
                given = [self.read(name) for name in ("fc1_bias", "fc2_bias", "fc1_scales")]
                dtype = next((a.dtype for a in given if a is not None), dtype)
        if dtype not in FLOATS:
            raise self.fail(f"expected tokens in f32, f16 or bf16, got {dtype}", UNIMPLEMENTED)
        return FLOATS[dtype]

    def logits(self, x: ir.Value) -> ir.Value:
        """The router, if it is a product of the input of the node; else an input."""
        f, name = self.function, self.node.input[1]
        producers = {out: n for n in self.graph.node for out in n.output}
        bias, router = None, self.made_by(producers, name)
        if router is not None and router.op_type == "Add":
            for value, other in (router.input, router.input[::-1]):
                if other in self.initializers and value in producers:
                    bias, router = self.array(other), self.made_by(producers, value)
                    break
        if (router is None or router.op_type not in ("MatMul", "Gemm") or router.domain
                or self.rows_of(producers, router.input[0]) != self.rows_of(
                    producers, self.node.input[0])
                or router.input[1] not in self.initializers
                or FLOATS.get(self.array(router.input[1]).dtype) != self.element):
            return f.input("router_probs", (None, self.experts), self.element)
        given = {a.name: onnx.helper.get_attribute_value(a) for a in router.attribute}
        if any(given.get(n, v) != v for n, v in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            return f.input("router_probs", (None, self.experts), self.element)
        matrix, transposed = self.array(router.input[1]), bool(given.get("transB", 0))
        shape = (self.experts, self.hidden) if transposed else (self.hidden, self.experts)
        logits = f.matmul(x, self.weight("router", self.expect("the router", matrix, shape),
                                         self.element), transposed=transposed)
        if len(router.input) > 2 and router.input[2]:
            bias = self.array(router.input[2])
        if bias is not None:
            vector = self.expect("the bias of the router", bias, (self.experts,))
            logits = f.elementwise(lambda a, b: a + b, logits,
                                   self.weight("router_bias", vector, self.element))
        return f.convert(logits, self.element) if self.element != "f32" else logits

    def made_by(self, producers: dict[str, onnx.NodeProto], name: str) -> onnx.NodeProto | None:
        """Return what makes the logits, in another shape or type of floats."""
        return producers.get(self.rows_of(producers, name, self.experts))

    def rows_of(self, producers: dict[str, onnx.NodeProto], name: str,
                columns: int | None = None) -> str:
        """Return what a value has the same rows of, in another shape or in a wider type."""
        own = next(d for d, e in FLOATS.items() if e == self.element)
        # Logits in a wider type are as they were rounded; rows in one are multiplied in it.
        types = [onnx.helper.np_dtype_to_tensor_dtype(np.dtype(own)),
                 *([onnx.TensorProto.FLOAT] if columns else [])]
        columns = columns or self.hidden
        while (node := producers.get(name)) is not None and not node.domain:
            if node.op_type == "Reshape":
                shape = self.initializers.get(node.input[1])
                maker = producers.get(node.input[1])
                if shape is None and maker is not None and maker.op_type == "Constant":
                    shape = maker.attribute[0].t
                if shape is None or onnx.numpy_helper.to_array(shape).reshape(-1)[-1] != columns:
                    break
            elif node.op_type == "Cast":
                if onnx.helper.get_attribute_value(node.attribute[0]) not in types:
                    break
            elif node.op_type != "Identity":
                break
            name = node.input[0]
        return name

    def bias(self, name: str, rows: int) -> ir.Value | None:
        array = self.read(name + "_bias")
        if array is None:
            return None
        return self.weight(name + "_bias", self.expect(name + "_bias", array, (self.experts, rows)),
                           self.element)

    def matrix(self, name: str, shape: tuple[int, int, int]) -> ir.Value:
        array = self.read(name)
        assert array is not None
        if self.node.op_type == "MoE":
            return self.weight(name, self.expect(name, array, shape), self.element)
        return quantized.dequantized(self, name, array, shape)

    # -- one expert -----------------------------------------------------------

    def mlp(self, rows: ir.Value, given: dict[str, ir.Value]) -> ir.Value:
        f = self.function

        def product(value: ir.Value, name: str) -> ir.Value:
            result = f.matmul(value, given[name], transposed=True)
            if (bias := given.get(name + "_bias")) is not None:
                result = f.elementwise(lambda a, b: a + b, result, bias)
            return result

        first = product(rows, "fc1")
        if self.fusion:
            width = first.shape[1] // 2
            gate, up = ((self.columns(first, 0, 2), self.columns(first, 1, 2)) if self.fusion == 1
                        else (self.columns(first, 0, 1), self.columns(first, width, 1)))
            hidden = f.elementwise(self.swiglu if self.activation == "swiglu" else _geglu,
                                   gate, up, element=self.element)
        elif "fc3" in given:
            apply = self.swiglu if self.activation == "swiglu" else lambda a, b: ir.silu(a) * b
            hidden = f.elementwise(apply, first, product(rows, "fc3"), element=self.element)
        else:
            hidden = f.elementwise(_activations[self.activation], first, element=self.element)
        return f.convert(product(hidden, "fc2"), self.element)

    def columns(self, value: ir.Value, first: int, stride: int) -> ir.Value:
        f, width = self.function, value.shape[1] // 2
        rows = f.create("tensor.dim", [value, f.index(0)], ["index"])
        dynamic = -(1 << 63)
        return f.create("tensor.extract_slice", [value, *rows],
                        [ir.TensorType((None, width), value.element)], {
            "static_offsets": ir.Attribute(f"array<i64: 0, {first}>"),
            "static_sizes": ir.Attribute(f"array<i64: {dynamic}, {width}>"),
            "static_strides": ir.Attribute(f"array<i64: 1, {stride}>"),
            "operandSegmentSizes": ir.Attribute("array<i32: 1, 0, 1, 0>")})[0]

    def swiglu(self, gate: ir.Scalar, up: ir.Scalar) -> ir.Scalar:
        alpha = float(self.number("activation_alpha", 1.0))
        beta = float(self.number("activation_beta", 0.0))
        limit = self.number("swiglu_limit", None)
        late = bool(self.number("swiglu_limit_after_activation", 0))
        if limit is not None:
            up = ir.maximum(ir.minimum(up, float(limit)), -float(limit))
            if not late:
                gate = ir.minimum(gate, float(limit))
        activated = gate * ir.sigmoid(gate * alpha)
        if limit is not None and late:
            activated = ir.minimum(activated, float(limit))
        return activated * (up + beta)


def _gelu(x: ir.Scalar) -> ir.Scalar:
    return x * 0.5 * (ir.tanh((x + x * x * x * 0.044715) * 0.7978845608028654) + 1.0)


def _geglu(gate: ir.Scalar, up: ir.Scalar) -> ir.Scalar:
    return _gelu(gate) * up


def _relu2(x: ir.Scalar) -> ir.Scalar:
    positive = ir.maximum(x, 0.0)
    return positive * positive


_activations = {"relu": lambda x: ir.maximum(x, 0.0), "relu2": _relu2, "gelu": _gelu,
                "silu": ir.silu, "identity": lambda x: x}
