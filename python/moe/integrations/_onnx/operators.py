"""What operators of ONNX compute, by functions of PyTorch: ``OPERATORS`` has the table."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from onnx import TensorProto, helper, numpy_helper
from torch.fx.experimental.symbolic_shapes import statically_known_true as is_known

from ..._error import UNIMPLEMENTED, MoEError
from . import places, written
from .values import DTYPES, END, Extents, Number, as_tensor, constant_of, extents, tensor_of

__all__ = ["OF_NUMBERS", "OPERATORS", "PARTS", "SAME_ELEMENTS", "SEVERAL"]

functional = torch.nn.functional


def _on_tensors(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda attributes, *values: function(*map(as_tensor, values))


def _operand(value: Any, *others: Any) -> Any:
    """Return a number of Python beside a tensor of at least its rank; a tensor otherwise."""
    ranks = [other.dim() for other in others if isinstance(other, torch.Tensor)]
    if isinstance(value, Number) and ranks and max(ranks) >= value.rank:
        return float(value)
    if isinstance(value, Extents) and len(value) == 1 and ranks and max(ranks) >= (
            not value.scalar):
        return value[0]
    return as_tensor(value)


def _with_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operation of tensors, or of tensors and numbers."""

    def apply(_: Any, *values: Any) -> Any:
        return function(*(_operand(v, *values[:i], *values[i + 1:])
                          for i, v in enumerate(values)))

    return apply


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """An operation of two tensors or numbers, or of two parts of shapes."""

    def apply(attributes: Any, a: Any, b: Any) -> Any:
        if isinstance(a, Extents) and isinstance(b, Extents):
            size = max(len(a), len(b))
            wide = [list(v) * size if len(v) == 1 else list(v) for v in (a, b)]
            return extents([function(x, y) for x, y in zip(*wide)], a.scalar and b.scalar)
        return _with_numbers(function)(attributes, a, b)

    return apply


def _is_integer(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.int64


def _multiply(attributes: dict[str, Any], a: Any, b: Any) -> Any:
    result = _arithmetic(lambda x, y: x * y)(attributes, a, b)
    for index, factor in ((a, b), (b, a)):
        if _is_integer(index) and isinstance(factor, Extents) and len(factor) == 1:
            result.scaled = index, factor[0]
    return result


def _add(attributes: dict[str, Any], a: Any, b: Any) -> Any:
    """The place in two dimensions that were merged is that in the first one times the extent of
    the second, and the place there."""
    result = _arithmetic(lambda x, y: x + y)(attributes, a, b)
    for inner, outer in ((a, b), (b, a)):
        if _is_integer(inner) and (scaled := getattr(outer, "scaled", None)) is not None and (
                scaled[0].shape == inner.shape):
            result.merged = scaled[0], inner, scaled[1]
    return result


def _truncated(a: Any, b: Any) -> Any:
    """A quotient of integers or symbols, rounded towards 0."""
    if is_known(b < 0):
        a, b = -a, -b
    if is_known(a >= 0):
        return a // b
    if is_known(a <= 0):
        return -(-a // b)
    return torch.sym_max(a, 0) // b - torch.sym_max(-a, 0) // b


def _divide(a: Any, b: Any) -> Any:
    if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor):
        return _truncated(a, b)
    if not isinstance(a, torch.Tensor):
        a = torch.full((), a, dtype=b.dtype)
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


def _power(x: Any, exponent: Any) -> Any:
    """The result has the type of the base."""
    y = torch.pow(x, exponent)
    return y.to(x.dtype) if isinstance(x, torch.Tensor) else y


def _equal(attributes: Any, a: Any, b: Any) -> Any:
    if isinstance(a, Extents) and isinstance(b, Extents):
        known = _arithmetic(lambda x, y: True if is_known(x == y) else (
            False if is_known(x != y) else None))(attributes, a, b)
        if None not in known:
            return known
    return _with_numbers(operator.eq)(attributes, a, b)


def _where(_: Any, condition: Any, a: Any, b: Any) -> Any:
    if all(isinstance(v, Extents) and len(v) == len(condition) for v in (condition, a, b)):
        return extents([x if c else y for c, x, y in zip(condition, a, b)])
    # Two numbers of Python would be of 32 bits.
    if isinstance(a, Number) and isinstance(b, Number) and a.dtype != torch.float32:
        b = as_tensor(b)
    return _with_numbers(torch.where)(_, condition, a, b)


def _modulo(attributes: dict[str, Any], a: Any, b: Any) -> Any:
    if attributes.get("fmod"):
        return torch.fmod(as_tensor(a), as_tensor(b))
    return _arithmetic(lambda x, y: torch.remainder(x, y) if isinstance(
        x, torch.Tensor) or isinstance(y, torch.Tensor) else x % y)({}, a, b)


def _bound(of_numbers: Callable[..., Any], of_one: Callable[..., Any],
           of_tensors: Callable[..., Any]) -> Callable[..., Any]:
    """The least or largest of numbers, a tensor and a number, or two tensors."""

    def bound(a: Any, b: Any) -> Any:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return of_tensors(a, b)
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return of_one(a, b) if isinstance(a, torch.Tensor) else of_one(b, a)
        return of_numbers(a, b)

    def apply(attributes: Any, *values: Any) -> Any:
        return functools.reduce(functools.partial(_arithmetic(bound), attributes), values)

    return apply


_least = _bound(torch.sym_min, torch.clamp_max, torch.minimum)
_largest = _bound(torch.sym_max, torch.clamp_min, torch.maximum)


def _axes(attributes: dict[str, Any], given: Any) -> list[int] | None:
    axes = attributes.get("axes") if given is None else given
    return None if axes is None else [int(axis) for axis in axes]


def _gemm(attributes: dict[str, Any], a: Any, b: Any, c: Any = None) -> Any:
    a = a.t() if attributes.get("transA") else a
    if attributes.get("transB") and attributes.get("alpha", 1.0) == 1.0:
        y = functional.linear(a, b)
    else:
        y = (a @ (b.t() if attributes.get("transB") else b)) * attributes.get("alpha", 1.0)
    if c is None:
        return y
    return y + (c if attributes.get("beta", 1.0) == 1.0 else c * attributes["beta"])


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
    if isinstance(x, Extents) and len(shape) < 2:
        return extents(x, scalar=not shape)
    x = as_tensor(x)
    if x.dim() == 1 and shape == [-1]:
        return x
    sizes = [x.shape[i] if size == 0 and not attributes.get("allowzero") else size
             for i, size in enumerate(shape)]
    result = x.reshape(sizes)
    if shape == [-1] and x.dim() == 2:
        result.rows = x
    return result


def _flatten(attributes: dict[str, Any], x: Any) -> Any:
    axis = attributes.get("axis", 1)
    result = x.reshape(-1, functools.reduce(lambda a, b: a * b, x.shape[axis:], 1))
    if axis == 2:
        result.merged_of = x
    return result


def _squeeze(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, Extents):
        return extents(x, scalar=True)
    axes = _axes(attributes, axes)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, Extents) and x.scalar:
        return extents(x)
    x, axes = as_tensor(x), _axes(attributes, axes)
    rank, before = x.dim() + len(axes), x
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    if len(axes) == 1 and axes[0] in (-1, rank - 1):
        x.columns = (before,)
    return x


def _expand(attributes: dict[str, Any], x: Any, shape: Any) -> Any:
    if isinstance(x, Extents) and len(x) == 1:
        return torch.full(tuple(shape), x[0], dtype=torch.int64)
    if isinstance(x, Number):  # of which more is known than of a tensor
        return torch.full(tuple(shape), float(x), dtype=x.dtype)
    x = as_tensor(x)
    shape = [1] * (x.dim() - len(shape)) + list(shape)
    missing = [1] * (len(shape) - x.dim()) + list(x.shape)
    result = x.expand([own if size == 1 else size for own, size in zip(missing, shape)])
    if x.dtype == torch.bool and result.dim() == 2 and (of := getattr(x, "columns", None)):
        result.rows_of = of[0]
    return result


def _one_hot(attributes: dict[str, Any], at: Any, depth: Any, values: Any) -> Any:
    at, axis = as_tensor(at), attributes.get("axis", -1)
    if (known := attributes["depth"] or (isinstance(depth, Extents) and depth)):
        depth = known[0]
    depth = int(depth)
    if not attributes["chosen"]:
        at = torch.where(at < 0, at + depth, at)
    marks = at.long().unsqueeze(-1) == torch.arange(depth)
    if attributes["values"] is None:
        off, on = as_tensor(values).unbind()
        hot = torch.where(marks, on, off)
    else:
        (off, on), dtype = attributes["values"], as_tensor(values).dtype
        hot = marks.to(dtype)
        if (off, on) != (0, 1):  # not of a product: −inf · 0 is no number
            hot = torch.where(marks, *(torch.full((), v, dtype=dtype) for v in (on, off)))
    return hot if axis in (-1, hot.dim() - 1) else hot.movedim(-1, axis)


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
        return extents(list(x)[starts[0]:ends[0]:steps[0]])
    for start, end, axis, step in zip(starts, ends, axes, steps):
        if step < 0:
            if step != -1 or start != -1 or end > -(1 << 60):
                raise MoEError(UNIMPLEMENTED, "Slice backwards is not supported")
            x = x.flip(axis)
            continue
        if start == 0 and step == 1 and (end >= END or is_known(end == x.shape[axis])):
            continue
        place = [slice(None)] * x.dim()
        place[axis] = slice(start, None if end > 1 << 60 else end, step)
        x = x[tuple(place)]
    return x


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(attributes: dict[str, Any], x: Any, axes: Any = None) -> Any:
        x, axes = as_tensor(x), _axes(attributes, axes)
        if not axes and attributes.get("noop_with_empty_axes"):
            return function(x.unsqueeze(-1), [-1], False)  # of each element by itself
        return function(x, axes or list(range(x.dim())), bool(attributes.get("keepdims", 1)))

    return apply


def _cast(attributes: dict[str, Any], x: Any) -> Any:
    if isinstance(x, Extents) and attributes["to"] in (TensorProto.INT64, TensorProto.INT32):
        return x
    if attributes["to"] not in DTYPES:
        raise MoEError(UNIMPLEMENTED, f"Cast to the type {attributes['to']} is not supported")
    return as_tensor(x).to(DTYPES[attributes["to"]])


def _constant(attributes: dict[str, Any]) -> Any:
    name, value = next(iter(attributes.items()))
    if name == "value":
        array = numpy_helper.to_array(value)
        found = constant_of(array)
        return tensor_of(array) if found is None else found
    if name in ("value_int", "value_ints"):
        return extents([value] if name == "value_int" else value, scalar=name == "value_int")
    if name == "value_float":
        return Number(value)
    return torch.tensor(value)


def _constant_of_shape(attributes: dict[str, Any], shape: Any) -> Any:
    value = (numpy_helper.to_array(attributes["value"]) if "value" in attributes
             else numpy_helper.to_array(helper.make_tensor("z", TensorProto.FLOAT, [1], [0.0])))
    filled = tensor_of(value)
    # A shape has so many dimensions at most.
    if filled.dtype == torch.int64 and len(shape) == 1 and isinstance(shape[0], int) and (
            shape[0] <= 8):
        return extents([filled.item()] * shape[0])
    return torch.full(tuple(shape), filled.item(), dtype=filled.dtype)


def _concat(attributes: dict[str, Any], *values: Any) -> Any:
    if all(isinstance(value, Extents) for value in values):
        return extents([extent for value in values for extent in value])
    values = [as_tensor(value) for value in values]
    result = torch.cat(values, attributes["axis"])
    # Indices of several dimensions are used one by one.
    if attributes["axis"] in (-1, result.dim() - 1) and all(v.shape[-1] == 1 for v in values):
        result.columns = tuple(value.squeeze(-1) for value in values)
    return result


def _shape(attributes: dict[str, Any], x: Any) -> Any:
    if isinstance(x, places.Places):  # as many as there are
        return extents([END, 2])
    if isinstance(x, Extents):
        return extents([] if x.scalar else [len(x)])
    return extents(list(x.shape)[attributes.get("start", 0):attributes.get("end")])


def _cumulative_sum(attributes: dict[str, Any], x: Any, axis: Any) -> Any:
    if attributes.get("reverse", 0) or attributes.get("exclusive", 0):
        raise MoEError(UNIMPLEMENTED, "CumSum that is reversed or exclusive is not supported")
    return torch.cumsum(x, int(axis[0] if isinstance(axis, Extents) else axis), dtype=x.dtype)


def _range(_: Any, start: Any, limit: Any, step: Any) -> Any:
    if not all(isinstance(value, Extents) for value in (start, limit, step)):
        raise MoEError(UNIMPLEMENTED, "Range of what is computed of tensors is not supported")
    return torch.arange(start[0], limit[0], step[0])


def _transpose(attributes: dict[str, Any], x: Any) -> Any:
    if isinstance(x, places.Places):
        return x
    if (found := getattr(x, "transposed_of", None)) is not None:
        return found
    return x.permute(attributes.get("perm", list(range(x.dim()))[::-1]))


def _clip(attributes: dict[str, Any], x: Any, low: Any = None, high: Any = None) -> Any:
    # Before opset 11 the bounds are attributes.
    low, high = (Number(attributes[name]) if name in attributes else given
                 for name, given in (("min", low), ("max", high)))
    x = x if low is None else _largest({}, x, low)
    return x if high is None else _least({}, x, high)


def _softmax(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(attributes: dict[str, Any], x: Any) -> Any:
        x = as_tensor(x)
        if attributes["opset"] >= 13:
            return function(x, attributes.get("axis", -1))
        # Before, it is of all dimensions from the axis on.
        axis = attributes.get("axis", 1) % x.dim()
        if axis == x.dim() - 1:
            return function(x, axis)
        return function(x.flatten(axis), axis).reshape(x.shape)

    return apply


def _layer_norm(attributes: dict[str, Any], x: Any, scale: Any, bias: Any = None) -> Any:
    shape = x.shape[attributes.get("axis", -1) % x.dim():]
    return functional.layer_norm(x, shape, scale, bias, attributes.get("epsilon", 1e-5))


def _rms_norm(attributes: dict[str, Any], x: Any, scale: Any) -> Any:
    shape = x.shape[attributes.get("axis", -1) % x.dim():]
    return functional.rms_norm(x, shape, scale, attributes.get("epsilon", 1e-5))


def _hard_sigmoid(attributes: dict[str, Any], x: Any, alpha: float = 0.2) -> Any:
    alpha, beta = attributes.get("alpha", alpha), attributes.get("beta", 0.5)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


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


OPERATORS: dict[str, Callable[..., Any]] = {
    "Abs": _on_tensors(torch.abs), "Add": _add,
    "And": _on_tensors(torch.logical_and), "ArgMax": _argmax, "Cast": _cast,
    "Ceil": _on_tensors(torch.ceil),
    "CastLike": _on_tensors(lambda x, like: x.to(like.dtype)), "Clip": _clip, "Concat": _concat,
    "Celu": lambda attributes, x: functional.celu(x, attributes.get("alpha", 1.0)),
    "Constant": _constant, "ConstantOfShape": _constant_of_shape,
    "Cos": _on_tensors(torch.cos), "CumSum": _cumulative_sum,
    "Div": _arithmetic(_divide),
    "Einsum": lambda attributes, *v: torch.einsum(attributes["equation"].decode(), *v),
    "Elu": lambda attributes, x: functional.elu(x, attributes.get("alpha", 1.0)),
    "Equal": _equal, "Erf": _on_tensors(torch.erf),
    "Exp": _on_tensors(torch.exp), "Expand": _expand, "Floor": _on_tensors(torch.floor),
    "Flatten": _flatten,
    "Gather": places.gather, "GatherND": places.gather_nd,
    "GatherElements": places.gather_elements,
    "Gelu": _gelu, "Gemm": _gemm, "Greater": _with_numbers(operator.gt),
    "GreaterOrEqual": _with_numbers(operator.ge), "GroupedMatMul": _grouped_matmul,
    "HardSigmoid": _hard_sigmoid, "HardSwish": lambda _, x: x * _hard_sigmoid({}, x, 1 / 6),
    "Identity": lambda _, x: x, "IsNaN": _on_tensors(torch.isnan),
    "LayerNormalization": _layer_norm, "LeakyRelu": lambda attributes, x: torch.where(
        x < 0, x * attributes.get("alpha", 0.01), x),
    "Less": _with_numbers(operator.lt), "LessOrEqual": _with_numbers(operator.le),
    "Log": _on_tensors(torch.log), "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": _on_tensors(torch.matmul), "Max": _largest, "Min": _least, "Mod": _modulo,
    "Mish": lambda _, x: functional.mish(x),
    "Mul": _multiply, "Neg": _on_tensors(torch.neg),
    "NonZero": places.non_zero, "Not": _on_tensors(torch.logical_not), "OneHot": _one_hot,
    "Or": _on_tensors(torch.logical_or),
    "Pow": _with_numbers(_power), "RMSNormalization": _rms_norm, "Range": _range,
    "Reciprocal": _on_tensors(torch.reciprocal),
    "ReduceL1": _reduce(lambda x, dims, keep: x.abs().sum(dims, keep)),
    "ReduceLogSum": _reduce(lambda x, dims, keep: x.sum(dims, keep).log()),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceL2": _reduce(lambda x, dims, keep: torch.linalg.vector_norm(x, 2, dims, keep)),
    "ReduceMax": _reduce(torch.amax), "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin), "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, dims, keep: (x * x).sum(dims, keep)),
    "Relu": _on_tensors(torch.relu), "Round": _on_tensors(torch.round), "Reshape": _reshape,
    "ScatterElements": places.scatter_elements, "ScatterND": places.scatter_nd, "Shape": _shape,
    "Sigmoid": _on_tensors(torch.sigmoid), "Sign": _on_tensors(torch.sign),
    "Sin": _on_tensors(torch.sin), "Slice": _slice,
    "Softmax": _softmax(torch.softmax),
    "Softplus": _on_tensors(functional.softplus), "Softsign": _on_tensors(functional.softsign),
    "Split": _split,
    "Selu": lambda attributes, x: functional.elu(
        x, attributes.get("alpha", 1.6732632)) * attributes.get("gamma", 1.0507009),
    "Sqrt": _on_tensors(torch.sqrt), "Squeeze": _squeeze, "Sub": _arithmetic(lambda a, b: a - b),
    "Swish": lambda attributes, x: x * torch.sigmoid(x * attributes.get("alpha", 1.0)),
    "Tanh": _on_tensors(torch.tanh),
    "Tile": lambda _, x, repeats: as_tensor(x).repeat(list(repeats)),
    "ThresholdedRelu": lambda attributes, x: torch.where(
        x > attributes.get("alpha", 1.0), x, 0.0),
    "TopK": _top_k, "Transpose": _transpose, "Unsqueeze": _unsqueeze,
    "Where": _where, **written.OPERATORS,
}
# Those with a tuple of results.
SEVERAL = "Split", "TopK"
PARTS = "Expand", "Gather", "GatherElements", "GatherND", "Slice", "Split", "Tile"
SAME_ELEMENTS = "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"
# Those that take numbers beside tensors.
OF_NUMBERS = {"Add", "Clip", "Div", "Equal", "Expand", "Greater", "GreaterOrEqual", "Less",
              "LessOrEqual", "Max", "Min", "Mod", "Mul", "Pow", "Sub", "Where"}
