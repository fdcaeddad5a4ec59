"""A graph of an ONNX model as a module of PyTorch, which ``moe.from_torch`` imports.

Exporters write a block of experts in operators of ONNX: ``TopK``, ``GatherND`` of the weights by
ids, ``MatMul``, or each expert for every token. What of it is experts, ``from_torch`` finds in the
program that torch.export makes of this module. Shapes are computed when that traces.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import onnx
import torch
from onnx import helper

from ..._error import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, MoEError
from . import written
from .arrays import array_of
from .operators import OF_NUMBERS, OPERATORS, PARTS, SAME_ELEMENTS, SEVERAL
from .values import DTYPES, Number, as_tensor, constant_of, tensor_of

__all__ = ["Graph", "make"]


class Graph(torch.nn.Module):
    """Computes outputs of a graph from one of its values, rows of tokens."""

    def __init__(self, graph: onnx.GraphProto, source: str, result: str, directory: str,
                 opset: int):
        super().__init__()
        self.opset = opset
        self.source, self.result = source, result
        self.names: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        initializers = {t.name: t for t in graph.initializer}
        producers = {out: node for node in graph.node for out in node.output if out}
        self.nodes: list[onnx.NodeProto] = []
        self._collect(result, producers, initializers, set())
        producers |= {out: node for node in written.fuse(self.nodes, initializers)
                      for out in node.output if out}
        self.nodes = []
        self._collect(result, producers, initializers, set())
        # Ids that a TopK, ArgMax or NonZero gives are not negative.
        self.chosen: set[str] = set()
        self.values: dict[str, list[Any] | None] = {}  # of what OneHot writes, and its depth
        known = written.Nodes(self.nodes, initializers)
        for node in self.nodes:
            if node.op_type in ("TopK", "ArgMax", "NonZero"):
                self.chosen.add(node.output[-1])
            elif node.op_type in (*SAME_ELEMENTS, *PARTS) and node.input[0] in self.chosen:
                self.chosen.update(node.output)
            elif node.op_type == "OneHot":
                self.values.update((name, known.numbers(name)) for name in node.input[1:])
        used = {name for node in self.nodes for name in node.input}
        for name in sorted(used & initializers.keys()):
            array = array_of(initializers[name], directory, "")
            if (constant := constant_of(array)) is not None:
                self.constants[name] = constant
                continue
            own = self.names[name] = re.sub(r"\W", "_", name)
            tensor = tensor_of(array)
            if tensor.is_floating_point():
                self.register_parameter(own, torch.nn.Parameter(tensor, requires_grad=False))
            else:
                self.register_buffer(own, tensor)

    def _collect(self, result: str, producers: dict[str, onnx.NodeProto],
                 initializers: dict[str, Any], seen: set[int]) -> None:
        """List the nodes that the result needs, each after those that it needs."""
        stack: list[tuple[str, bool]] = [(result, False)]
        while stack:
            name, done = stack.pop()
            node = producers.get(name)
            if name == self.source or name in initializers or not name:
                continue
            if node is None:
                raise MoEError(INVALID_ARGUMENT, f"'{self.result}' needs '{name}', which is no "
                               f"constant, and not computed from '{self.source}'")
            if done:
                if id(node) not in seen:
                    seen.add(id(node))
                    self.nodes.append(node)
                continue
            if id(node) not in seen:
                stack.append((name, True))
                stack += [(each, False) for each in node.input]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        values: dict[str, Any] = {self.source: rows, "": None, **self.constants}
        values.update((name, getattr(self, own)) for name, own in self.names.items())
        for node in self.nodes:
            function = OPERATORS.get(node.op_type)
            if function is None or node.domain not in ("", "ai.onnx"):
                raise MoEError(UNIMPLEMENTED, f"node '{node.name}': {node.op_type} of "
                               f"'{node.domain or 'ai.onnx'}' is not supported")
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "GroupedMatMul":
                attributes["chosen"] = node.input[2] in self.chosen
            elif node.op_type in ("GatherElements", "ScatterElements"):
                attributes["chosen"] = node.input[1] in self.chosen
            elif node.op_type == "OneHot":
                attributes.update(chosen=node.input[0] in self.chosen,
                                  depth=self.values[node.input[1]],
                                  values=self.values[node.input[2]])
            elif node.op_type in ("Softmax", "LogSoftmax"):
                attributes["opset"] = self.opset
            elif node.op_type == "Split":  # in as many equal parts as there are results
                attributes.setdefault("num_outputs", len(node.output))
            # For messages of what fails.
            self.__dict__["at"] = f"node '{node.name or node.output[0]}' ({node.op_type})"
            given = [values[name] for name in node.input]
            if node.op_type not in OF_NUMBERS:
                given = [as_tensor(v) if isinstance(v, Number) else v for v in given]
            results = function(attributes, *given)
            if node.op_type not in SEVERAL:
                results = (results,)
            values.update(zip(node.output, results))
        return values[self.result]


def make(graph: onnx.GraphProto, inputs: Sequence[str] | None, outputs: Sequence[str] | None,
         directory: str, opset: int) -> tuple[Graph, torch.Tensor]:
    """Return the module of a part of a graph, or of all of it, and an example of its input."""
    initializers = {t.name for t in graph.initializer}
    known = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    sources = list(inputs or [v.name for v in graph.input if v.name not in initializers])
    results = list(outputs or [v.name for v in graph.output][:1])
    if len(sources) != 1 or len(results) != 1:
        raise MoEError(INVALID_ARGUMENT, f"expected one input and one output, got {sources} and "
                       f"{results}; name them")
    computed = {name for node in graph.node for name in node.output}
    for name in (*sources, *results):
        if name not in computed and name not in known:
            raise MoEError(NOT_FOUND, f"the model has no value '{name}'")
    type_ = known[sources[0]].type.tensor_type if sources[0] in known else None
    dims = type_.shape.dim if type_ is not None and type_.HasField("shape") else []
    if len(dims) not in (2, 3) or not dims[-1].dim_value:
        raise MoEError(INVALID_ARGUMENT, f"expected '{sources[0]}' to be rows of tokens, [T, H] or "
                       "[1, T, H], whose shape the model has; onnx.shape_inference finds it")
    dtype = DTYPES.get(type_.elem_type, torch.float32)
    shape = (7, dims[-1].dim_value) if len(dims) == 2 else (1, 7, dims[-1].dim_value)
    module = Graph(graph, sources[0], results[0], directory, opset).eval()
    return module, torch.zeros(shape, dtype=dtype)
