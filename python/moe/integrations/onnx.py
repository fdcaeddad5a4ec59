"""Experts of ONNX models, compiled: ``moe.from_onnx``, and ``replace`` for sessions.

    imported = moe.from_onnx("model.onnx", node="/model/layers.3/moe/MoE")
    layer = imported.layer()
    y = layer(x)                                 # [T, H], any T

A node is ``com.microsoft.MoE`` or ``com.microsoft.QMoE`` of ONNX Runtime's contrib operators,
with the weights and the attributes that they define. If its ``router_probs``, which are
logits, come from a product of its own input, perhaps with a bias, in another shape or in a wider
type, the router is part of the layer; otherwise they are the second input, ``router_probs
[T, E]``. A node ``GroupedMatMul`` is a layer, too. Of a model without such nodes the graph is
imported, or what is between two of its values:

    imported = moe.from_onnx("block.onnx", inputs=["hidden"], outputs=["experts_out"])

This needs PyTorch, and finds experts as ``moe.from_torch`` does.

    model = moe.integrations.onnx.replace("model.onnx")      # compiled layers for these nodes
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(moe.integrations.onnx.library_path())
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from .._compile import compile as compile_module
from .._dlpack import numpy_dtype
from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, MoEError
from .._runtime import Module
from .._tools import build_tree
from ._imported import Imported
from ._onnx import grouped
from ._onnx.node import Node, find, is_layer

__all__ = ["Imported", "from_onnx", "library_path", "make_layer", "replace"]

# The operator of the library: `Layer` of this domain, in its version 1.
LAYERS = "moe.mlir"
LIBRARY = "libmoe_onnxruntime.so"


def from_onnx(model: onnx.ModelProto | str | os.PathLike[str] | bytes, *,
              node: str | None = None, inputs: Sequence[str] | None = None,
              outputs: Sequence[str] | None = None) -> Any:
    """Import a node of experts, or a graph.

    Args:
      model: a model, the path of one, with its external data beside it, or its bytes.
      node: the name of a node of experts; needed where the model has several.
      inputs, outputs: names of values, one each: what is computed of rows ``[T, H]`` or
        ``[1, T, H]`` between them is imported. Without them, and in a model without nodes of
        experts, those of the graph.

    Raises:
      MoEError: if there is no such node or value, or it has weights, attributes or operators that
        are not supported; the message names the node and what was expected.
    """
    model, directory = _load(model)
    graph = model.graph
    named = inputs is not None or outputs is not None
    if node is not None and named:
        raise MoEError(INVALID_ARGUMENT, "expected a node, or inputs and outputs, got both")
    if named or (node is None and graph.node and not any(map(is_layer, graph.node))):
        opset = next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 1)
        return _from_graph(graph, inputs, outputs, directory, opset)
    return _of_node(graph, find(graph, node), directory)


def _of_node(graph: onnx.GraphProto, node: onnx.NodeProto, directory: str) -> Imported:
    if grouped.is_grouped_matmul(node):
        return grouped.build(graph, node, directory)
    return Node(graph, node, directory).build()


def _from_graph(graph: onnx.GraphProto, inputs: Sequence[str] | None,
                outputs: Sequence[str] | None, directory: str, opset: int) -> Any:
    try:
        from ._onnx.graph import make
        from .torch import from_torch
    except ImportError as error:
        raise MoEError(FAILED_PRECONDITION, "the model has no node MoE, QMoE or GroupedMatMul, and "
                       f"graphs are imported with PyTorch: {error}") from error
    module, example = make(graph, inputs, outputs, directory, opset)
    return from_torch(module, example=example)


def _load(model: onnx.ModelProto | str | os.PathLike[str] | bytes) -> tuple[onnx.ModelProto, str]:
    """Return a model, without external data, and the directory of that."""
    directory = ""
    try:
        if isinstance(model, bytes):
            model = onnx.load_model_from_string(model)
        elif not isinstance(model, onnx.ModelProto):
            directory = str(Path(model).parent)
            model = onnx.load(model, load_external_data=False)
    except OSError as error:
        raise MoEError(NOT_FOUND, f"{model!s}: {error.strerror}") from error
    except DecodeError as error:
        what = "the bytes" if isinstance(model, bytes) else f"{model!s}"
        raise MoEError(INVALID_ARGUMENT, f"{what} cannot be read as an ONNX model: {error}") from (
            error)
    return model, directory


# -- out: layers in models ------------------------------------------------------


def library_path() -> str:
    """Return the path of the library for ``SessionOptions.register_custom_ops_library``.

    Raises:
      MoEError: if it is neither in the package nor in a build tree.
    """
    package = Path(__file__).resolve().parent.parent
    for path in (package / "lib" / LIBRARY, build_tree() / "lib" / LIBRARY):
        if path.exists():
            return str(path)
    raise MoEError(NOT_FOUND, f"{LIBRARY} was not found beside the package or in a build tree")


def make_layer(module: Module, weights: Any, inputs: Sequence[str], outputs: Sequence[str], *,
               name: str, function: str | None = None, num_threads: int = 0
               ) -> tuple[onnx.NodeProto, list[onnx.TensorProto], list[onnx.ValueInfoProto]]:
    """Make a node of a model that runs a compiled layer.

    Args:
      module: the artifact, which becomes an attribute of the node.
      weights: arrays by name, or in signature order; they become initializers.
      inputs, outputs: the names of the values that the node takes and gives, in signature order.
      name: that of the node, and the prefix of the names of its weights.
      function: which one, if the artifact has several.
      num_threads: as for ``moe.load``.

    Returns:
      The node, its initializers, and the types of its outputs, which ONNX Runtime needs: they
      belong to ``graph.value_info``, unless an output is one of the graph. The model has to
      import version 1 of the domain ``moe.mlir``.
    """
    if module.path is None:
        raise MoEError(INVALID_ARGUMENT, "expected a module that was loaded from a file")
    signature = module.signature(function)
    for what, given, infos in (("inputs", inputs, signature.inputs),
                               ("outputs", outputs, signature.outputs)):
        if len(given) != len(infos):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(infos)} {what}, got {len(given)}")
    arrays = weights if isinstance(weights, Sequence) else [
        weights[info.name] for info in signature.weights if _has(weights, info.name)]
    if len(arrays) != len(signature.weights):
        raise MoEError(INVALID_ARGUMENT, f"expected {len(signature.weights)} weights, got "
                       f"{len(arrays)}")
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), f"{name}.{info.name}")
               for info, array in zip(signature.weights, arrays)]
    attributes: dict[str, Any] = {"artifact": module.path.read_bytes()}
    if function is not None:
        attributes["function"] = function
    if num_threads:
        attributes["num_threads"] = num_threads
    node = helper.make_node("Layer", [*inputs, *(t.name for t in tensors)], list(outputs),
                            name=name, domain=LAYERS, **attributes)
    types = [helper.make_tensor_value_info(
        output, helper.np_dtype_to_tensor_dtype(numpy_dtype(info.dtype)),
        [None if extent < 0 else extent for extent in info.shape])
        for output, info in zip(outputs, signature.outputs)]
    return node, tensors, types


def _has(weights: Any, name: str) -> bool:
    if name not in weights:
        raise MoEError(INVALID_ARGUMENT, f"expected a weight '{name}'")
    return True


def replace(model: onnx.ModelProto | str | os.PathLike[str] | bytes, *, node: str | None = None,
            **options: Any) -> onnx.ModelProto:
    """Return a model in which nodes of experts are compiled layers.

    Args:
      model: as for ``from_onnx``; it is not changed.
      node: the name of the one to replace; all nodes of experts without it.
      options: of ``moe.compile``.

    The routers of these nodes and weights that nothing else needs go. A session of ONNX Runtime
    1.16 or later runs the model on the CPU once it has registered the library ``library_path()``;
    layers run on threads of their own.

    Raises:
      MoEError: as ``from_onnx``; if one node cannot be compiled, none is replaced.
    """
    given, directory = _load(model)
    result = onnx.ModelProto()
    result.CopyFrom(given)
    if directory:
        onnx.load_external_data_for_model(result, directory)
    graph = result.graph
    names = [find(given.graph, node).name] if node is not None else [
        each.name for each in graph.node if is_layer(each)]
    if not names:
        find(given.graph, node)  # raises
    for name in names:
        _replace(graph, name, options)
    _drop_unused(graph)
    if all(each.domain != LAYERS for each in result.opset_import):
        result.opset_import.append(helper.make_opsetid(LAYERS, 1))
    return result


def _replace(graph: onnx.GraphProto, name: str, options: dict[str, Any]) -> None:
    old = find(graph, name)
    if grouped.is_grouped_matmul(old):
        imported, before, after = grouped.build(graph, old, ""), [], []
        values, result = {"input": old.input[0], "group_indices": old.input[2]}, old.output[0]
    else:
        experts = Node(graph, old, "")
        imported = experts.build()
        # The rows of a batch, and its shape again: the operator takes both.
        before = [helper.make_node("Reshape", [old.input[0], f"{name}.rows_shape"],
                                   [f"{name}.rows"]),
                  helper.make_node("Shape", [old.input[0]], [f"{name}.shape"])]
        result = f"{name}.result"
        after = [helper.make_node("Reshape", [result, f"{name}.shape"], [old.output[0]])]
        values = {"x": f"{name}.rows", "router_probs": old.input[1],
                  "router_weights": experts.name_of(14)}
        graph.initializer.append(numpy_helper.from_array(
            np.array([-1, experts.hidden], np.int64), f"{name}.rows_shape"))
    module = compile_module(imported.mlir, **options)
    inputs = [values[info.name] for info in module.signature().inputs]
    new, tensors, types = make_layer(module, imported.weights, inputs, [result], name=name)
    graph.initializer.extend(tensors)
    known = {value.name for value in (*graph.value_info, *graph.output)}
    graph.value_info.extend(type_ for type_ in types if type_.name not in known)
    at = list(graph.node).index(old)
    nodes = [*graph.node[:at], *before, new, *after, *graph.node[at + 1:]]
    del graph.node[:]
    graph.node.extend(nodes)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers whose results nothing uses."""
    while True:
        used = {output.name for output in graph.output}
        for each in graph.node:
            used.update(each.input)
            # Of what is outside of the graphs of its attributes.
            for attribute in each.attribute:
                for inner in (attribute.g, *attribute.graphs):
                    used.update(n for body in inner.node for n in body.input)
                    used.update(output.name for output in inner.output)
        unused = [each for each in graph.node if not used.intersection(each.output)]
        for each in unused:
            graph.node.remove(each)
        if not unused:
            break
    for each in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(each)
