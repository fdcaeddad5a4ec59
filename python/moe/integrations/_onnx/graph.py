"""A graph of an ONNX model as a module of PyTorch, which ``moe.from_torch`` imports.

Exporters write a block of experts in operators of ONNX: ``TopK``, ``GatherND`` of the weights by
ids, ``MatMul``, or each expert for every token. What of it is experts, ``from_torch`` finds in the
program that torch.export makes of this module. Shapes are computed when that traces.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from ..._error import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, MoEError
from . import written
from .arrays import array_of

functional = torch.nn.functional

DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16,
          TensorProto.BFLOAT16: torch.bfloat16, TensorProto.DOUBLE: torch.float64,
          TensorProto.INT32: torch.int32, TensorProto.INT64: torch.int64,
          TensorProto.BOOL: torch.bool, TensorProto.INT8: torch.int8,
          TensorProto.UINT8: torch.uint8}


class Extents(list):
    """A vector of integers that are shapes, or parts of one; ``scalar`` if it has no dimension."""

    scalar = False


def _extents(values: Sequence[Any], scalar: bool = False) -> Extents:
    result = Extents(values)
    result.scalar = scalar
    return result


class Graph(torch.nn.Module):
    """Computes outputs of a graph from one of its values, rows of tokens."""

    def __init__(self, graph: onnx.GraphProto, source: str, result: str, directory: str):
        super().__init__()
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
        # Ids that a TopK or ArgMax gives are not negative.
        self.chosen: set[str] = set()
        self.numbers: dict[str, float] = {}  # of one float
        for node in self.nodes:
            if node.op_type in ("TopK", "ArgMax"):
                self.chosen.add(node.output[-1])
            elif node.op_type in SAME_ELEMENTS and node.input[0] in self.chosen:
                self.chosen.add(node.output[0])
        used = {name for node in self.nodes for name in node.input}
        for name in sorted(used & initializers.keys()):
            array = array_of(initializers[name], directory, "")
            if array.dtype == "int64" and array.ndim <= 1:
                self.constants[name] = _extents(array.reshape(-1).tolist(), array.ndim == 0)
                continue
            own = self.names[name] = re.sub(r"\W", "_", name)
            tensor = _tensor(array)
            if tensor.is_floating_point() and tensor.dim() == 0:
                self.numbers[name] = tensor.item()
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
            if node.op_type == "Expand" and node.input[0] in self.numbers:
                attributes["number"] = self.numbers[node.input[0]]
            results = function(attributes, *(values[name] for name in node.input))
            if node.op_type not in SEVERAL:
                results = (results,)
            values.update(zip(node.output, results))
        return values[self.result]


def make(graph: onnx.GraphProto, inputs: Sequence[str] | None, outputs: Sequence[str] | None,
         directory: str) -> tuple[Graph, torch.Tensor]:
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
    module = Graph(graph, sources[0], results[0], directory).eval()
    return module, torch.zeros(shape, dtype=dtype)


# -- operators ------------------------------------------------------------------


def _tensor(array: Any) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def _as_tensor(value: Any) -> Any:
    if not isinstance(value, Extents):
        return value
    # The number of each expert, which a constant would hide.
    if len(value) > 1 and all(isinstance(v, int) for v in value) and value == list(
            range(len(value))):
        return torch.arange(len(value))
    return torch.tensor(value[0] if value.scalar else list(value))


def _on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attributes, *values: function(*map(_as_tensor, values))


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operation of two tensors, or of two parts of shapes."""

    def apply(_: Any, a: Any, b: Any) -> Any:
        if isinstance(a, Extents) and isinstance(b, Extents):
            size = max(len(a), len(b))
            wide = [list(v) * size if len(v) == 1 else list(v) for v in (a, b)]
            return _extents([function(x, y) for x, y in zip(*wide)], a.scalar and b.scalar)
        return function(_as_tensor(a), _as_tensor(b))

    return apply


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, torch.Tensor) and a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc") if isinstance(a, torch.Tensor) else a // b


def _axes(attributes: dict[str, Any], given: Any) -> list[int] | None:
    axes = attributes.get("axes") if given is None else given
    return None if axes is None else [int(axis) for axis in axes]


def _gemm(attributes: dict[str, Any], a: Any, b: Any, c: Any = None) -> Any:
    a = a.t() if attributes.get("transA") else a
    if attributes.get("transB") and attributes.get("alpha", 1.0) == 1.0:
        y = functional.linear(a, b)
    else:
        y = (a @ (b.t() if attributes.get("transB") else b)) * attributes.get("alpha", 1.0)
    return y if c is None else y + c * attributes.get("beta", 1.0)


def _gelu(attributes: dict[str, Any], x: Any) -> Any:
    return functional.gelu(x, approximate=attributes.get("approximate", b"none").decode())


def _argmax(attributes: dict[str, Any], x: Any) -> Any:
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    if attributes.get("select_last_index"):
        return x.shape[axis] - 1 - torch.argmax(x.flip(axis), axis, keep)
    return torch.argmax(x, axis, keep)


def _top_k(attributes: dict[str, Any], x: Any, k: Any) -> Any:
    # All of a vector, the smallest first and equal ones in their order.
    if x.dim() == 1 and not x.is_floating_point() and not attributes.get("largest", 1) and (
            k[0] == x.shape[0]):
        return torch.sort(x, stable=True)
    return torch.topk(x, int(k[0]), attributes.get("axis", -1),
                      bool(attributes.get("largest", 1)), bool(attributes.get("sorted", 1)))


def _reshape(attributes: dict[str, Any], x: Any, shape: Any) -> Any:
    if isinstance(x, Extents):
        return _extents(x, scalar=not shape)
    if x.dim() == 1 and shape == [-1]:
        return x
    sizes = [x.shape[i] if size == 0 and not attributes.get("allowzero") else size
             for i, size in enumerate(shape)]
    return x.reshape(sizes)


def _squeeze(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, Extents):
        return _extents(x, scalar=True)
    axes = _axes(attributes, axes)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, Extents) and x.scalar:
        return _extents(x)
    x, axes = _as_tensor(x), _axes(attributes, axes)
    rank, before = x.dim() + len(axes), x
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    if len(axes) == 1 and axes[0] in (-1, rank - 1):
        x.columns = (before,)
    return x


def _expand(attributes: dict[str, Any], x: Any, shape: Any) -> Any:
    if isinstance(x, Extents):
        return torch.full(tuple(shape), x[0], dtype=torch.int64)
    if "number" in attributes:  # of which more is known than of a parameter
        return x.new_full(tuple(shape), attributes["number"])
    missing = [1] * (len(shape) - x.dim()) + list(x.shape)
    return x.expand([own if size == 1 else size for own, size in zip(missing, shape)])


def _gather(attributes: dict[str, Any], x: Any, at: Any) -> Any:
    axis = attributes.get("axis", 0)
    if isinstance(x, Extents) and isinstance(at, Extents):
        return _extents([x[i] for i in at], at.scalar)
    if axis == 0 and (places := getattr(x, "transposed_of", None)) is not None and (
            isinstance(at, Extents) and len(at) == 1):
        return places.select(1, at[0]) if at.scalar else places[:, at[0]:at[0] + 1].t()
    x = _as_tensor(x)
    if isinstance(at, Extents) and at.scalar:
        return x.select(axis, at[0])
    at = _as_tensor(at)
    return x[(slice(None),) * (axis % x.dim()) + (at,)]


def _gather_nd(attributes: dict[str, Any], x: Any, at: Any) -> Any:
    if attributes.get("batch_dims", 0):
        raise MoEError(UNIMPLEMENTED, "GatherND with batch_dims is not supported")
    return x[_places(_as_tensor(at))]


def _places(at: Any) -> tuple[Any, ...]:
    """Return what indexes each dimension, of indices in the last one."""
    if (parts := getattr(at, "columns", None)) is not None:
        return parts
    return (at.squeeze(-1),) if at.shape[-1] == 1 else at.unbind(-1)


def _scatter_elements(attributes: dict[str, Any], x: Any, at: Any, updates: Any) -> Any:
    axis, reduction = attributes.get("axis", 0), attributes.get("reduction", b"none").decode()
    if reduction == "none":
        return x.scatter(axis, at, updates)
    if reduction == "add":
        return x.scatter_add(axis, at, updates)
    raise MoEError(UNIMPLEMENTED, f"ScatterElements with reduction {reduction} is not supported")


def _scatter_nd(attributes: dict[str, Any], x: Any, at: Any, updates: Any) -> Any:
    reduction = attributes.get("reduction", b"none").decode()
    if reduction not in ("none", "add"):
        raise MoEError(UNIMPLEMENTED, f"ScatterND with reduction {reduction} is not supported")
    return x.index_put(_places(_as_tensor(at)), updates, accumulate=reduction == "add")


def _one_hot(attributes: dict[str, Any], at: Any, depth: Any, values: Any) -> Any:
    off, on = _as_tensor(values).unbind()
    axis = attributes.get("axis", -1)
    depth = int(depth[0]) if isinstance(depth, Extents) else int(depth)
    hot = functional.one_hot(_as_tensor(at).long(), depth).to(on.dtype) * (on - off) + off
    return hot if axis == -1 else hot.movedim(-1, axis)


def _split(attributes: dict[str, Any], x: Any, sizes: Any = None) -> Any:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split") if sizes is None else sizes
    if sizes is not None:
        return torch.split(x, [int(size) for size in sizes], axis)
    return torch.chunk(x, attributes["num_outputs"], axis)


def _slice(_: Any, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if isinstance(x, Extents):
        return _extents(list(x)[starts[0]:ends[0]:steps[0]])
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if step < 0:
            if step != -1 or start != -1 or end > -(1 << 60):
                raise MoEError(UNIMPLEMENTED, "Slice backwards is not supported")
            x = x.flip(axis)
            continue
        place = [slice(None)] * x.dim()
        place[axis] = slice(start, None if end > 1 << 60 else end, step)
        x = x[tuple(place)]
    return x


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
        x, axes = _as_tensor(x), _axes(attributes, axes)
        if not axes and attributes.get("noop_with_empty_axes"):
            return x
        return function(x, axes or list(range(x.dim())), bool(attributes.get("keepdims", 1)))

    return apply


def _cast(attributes: dict[str, Any], x: Any) -> Any:
    if isinstance(x, Extents) and attributes["to"] in (TensorProto.INT64, TensorProto.INT32):
        return x
    if attributes["to"] not in DTYPES:
        raise MoEError(UNIMPLEMENTED, f"Cast to the type {attributes['to']} is not supported")
    return _as_tensor(x).to(DTYPES[attributes["to"]])


def _constant(attributes: dict[str, Any]) -> Any:
    if "value" in attributes:
        array = numpy_helper.to_array(attributes["value"])
        if array.dtype == "int64" and array.ndim <= 1:
            return _extents(array.reshape(-1).tolist(), array.ndim == 0)
        return _tensor(array)
    if "value_int" in attributes:
        return _extents([attributes["value_int"]], scalar=True)
    if "value_ints" in attributes:
        return _extents(attributes["value_ints"])
    return torch.tensor(attributes.get("value_float", attributes.get("value_floats")))


def _constant_of_shape(attributes: dict[str, Any], shape: Any) -> Any:
    value = (numpy_helper.to_array(attributes["value"]) if "value" in attributes
             else numpy_helper.to_array(helper.make_tensor("z", TensorProto.FLOAT, [1], [0.0])))
    filled = _tensor(value)
    return torch.full(tuple(shape), filled.item(), dtype=filled.dtype)


def _concat(attributes: dict[str, Any], *values: Any) -> Any:
    if all(isinstance(value, Extents) for value in values):
        return _extents([extent for value in values for extent in value])
    values = [_as_tensor(value) for value in values]
    result = torch.cat(values, attributes["axis"])
    # Indices of several dimensions are used one by one.
    if attributes["axis"] in (-1, result.dim() - 1) and all(v.shape[-1] == 1 for v in values):
        result.columns = tuple(value.squeeze(-1) for value in values)
    return result


def _shape(attributes: dict[str, Any], x: Any) -> Any:
    return _extents(list(x.shape)[attributes.get("start", 0):attributes.get("end")])


def _cumulative_sum(attributes: dict[str, Any], x: Any, axis: Any) -> Any:
    if attributes.get("reverse", 0) or attributes.get("exclusive", 0):
        raise MoEError(UNIMPLEMENTED, "CumSum that is reversed or exclusive is not supported")
    return torch.cumsum(x, int(axis[0] if isinstance(axis, Extents) else axis), dtype=x.dtype)


def _range(_: Any, start: Any, limit: Any, step: Any) -> Any:
    if not all(isinstance(value, Extents) for value in (start, limit, step)):
        raise MoEError(UNIMPLEMENTED, "Range of what is computed of tensors is not supported")
    return torch.arange(start[0], limit[0], step[0])


def _transpose(attributes: dict[str, Any], x: Any) -> Any:
    if (places := getattr(x, "transposed_of", None)) is not None:
        return places
    return x.permute(attributes.get("perm", list(range(x.dim()))[::-1]))


def _clip(_: Any, x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _grouped_matmul(attributes: dict[str, Any], x: Any, weights: Any, ids: Any,
                    bias: Any = None) -> Any:
    at = ids.flatten()
    if not attributes["chosen"]:
        at = torch.where(at < 0, at + weights.shape[0], at)
    rows = x if ids.shape[1] == 1 else x.repeat_interleave(ids.shape[1], 0)
    y = torch.bmm(rows.unsqueeze(1), weights[at]).squeeze(1)
    if bias is not None:
        y = y + bias[at]
    return y.reshape(-1, ids.shape[1], weights.shape[2])


def _non_zero(_: Any, x: Any) -> Any:
    """The indices of each dimension in a row; exporters transpose them at once."""
    places = torch.nonzero(x)
    rows = places.t()
    rows.transposed_of = places
    return rows


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _on_tensors(torch.abs), "Add": _arithmetic(lambda a, b: a + b),
    "And": _on_tensors(torch.logical_and), "ArgMax": _argmax, "Cast": _cast,
    "CastLike": lambda _, x, like: x.to(like.dtype), "Clip": _clip, "Concat": _concat,
    "Constant": _constant, "ConstantOfShape": _constant_of_shape, "CumSum": _cumulative_sum,
    "Div": _arithmetic(_divide),
    "Einsum": lambda attributes, *v: torch.einsum(attributes["equation"].decode(), *v),
    "Equal": _on_tensors(torch.eq), "Erf": _on_tensors(torch.erf), "Exp": _on_tensors(torch.exp),
    "Expand": _expand, "Flatten": lambda attributes, x: x.reshape(
        -1, functools.reduce(lambda a, b: a * b, x.shape[attributes.get("axis", 1):], 1)),
    "Gather": _gather, "GatherND": _gather_nd,
    "GatherElements": lambda attributes, x, at: x.gather(attributes.get("axis", 0), at),
    "Gelu": _gelu, "Gemm": _gemm, "Greater": _on_tensors(torch.gt),
    "GreaterOrEqual": _on_tensors(torch.ge), "GroupedMatMul": _grouped_matmul,
    "Identity": lambda _, x: x, "Less": _on_tensors(torch.lt),
    "LessOrEqual": _on_tensors(torch.le), "Log": _on_tensors(torch.log),
    "MatMul": _on_tensors(torch.matmul), "Max": _on_tensors(
        lambda *v: functools.reduce(torch.maximum, v)),
    "Min": _on_tensors(lambda *v: functools.reduce(torch.minimum, v)),
    "Mod": lambda attributes, a, b: (torch.fmod if attributes.get("fmod") else torch.remainder)(
        _as_tensor(a), _as_tensor(b)),
    "Mul": _arithmetic(lambda a, b: a * b), "Neg": _on_tensors(torch.neg),
    "NonZero": _non_zero, "Not": _on_tensors(torch.logical_not), "OneHot": _one_hot,
    "Or": _on_tensors(torch.logical_or),
    "Pow": _on_tensors(torch.pow), "Range": _range, "Reciprocal": _on_tensors(torch.reciprocal),
    "ReduceMax": _reduce(torch.amax), "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin), "ReduceSum": _reduce(torch.sum),
    "Relu": _on_tensors(torch.relu), "Reshape": _reshape,
    "ScatterElements": _scatter_elements, "ScatterND": _scatter_nd, "Shape": _shape,
    "Sigmoid": _on_tensors(torch.sigmoid), "Slice": _slice,
    "Softmax": lambda attributes, x: torch.softmax(x, attributes.get("axis", -1)),
    "Softplus": _on_tensors(functional.softplus), "Split": _split,
    "Sqrt": _on_tensors(torch.sqrt), "Squeeze": _squeeze, "Sub": _arithmetic(lambda a, b: a - b),
    "Swish": lambda attributes, x: x * torch.sigmoid(x * attributes.get("alpha", 1.0)),
    "Tanh": _on_tensors(torch.tanh), "Tile": lambda _, x, repeats: x.repeat(list(repeats)),
    "TopK": _top_k, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
    "Where": _on_tensors(torch.where), **written.OPERATORS,
}
# Those with a tuple of results.
SEVERAL = "Split", "TopK"
SAME_ELEMENTS = "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"
