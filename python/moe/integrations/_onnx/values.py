"""Values of a model: tensors of PyTorch, and numbers that it has or computes of shapes.

A shape, or a part of one, is a list of integers and symbols, ``Extents``; a float that the model
has is a ``Number``. So operations on them are none of the program that is traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnx import TensorProto

__all__ = ["DTYPES", "END", "Extents", "Number", "as_tensor", "constant_of", "extents",
           "tensor_of"]

DTYPES = {TensorProto.FLOAT: torch.float32, TensorProto.FLOAT16: torch.float16,
          TensorProto.BFLOAT16: torch.bfloat16, TensorProto.DOUBLE: torch.float64,
          TensorProto.INT32: torch.int32, TensorProto.INT64: torch.int64,
          TensorProto.BOOL: torch.bool, TensorProto.INT8: torch.int8,
          TensorProto.UINT8: torch.uint8}


# Beyond the end of every dimension.
END = (1 << 63) - 1


class Extents(list):
    """A vector of integers that are shapes, or parts of one; ``scalar`` if it has no dimension."""

    scalar = False


def extents(values: Sequence[Any], scalar: bool = False) -> Extents:
    result = Extents(values)
    result.scalar = scalar
    return result


class Number(float):
    """A float of a model: ``rank`` is 0 or 1, ``dtype`` its type in PyTorch."""

    rank = 0
    dtype = torch.float32


def constant_of(array: Any) -> Extents | Number | None:
    """Return integers or a float that an array has; None for another one."""
    if array.dtype.name == "int64" and array.ndim <= 1:
        return extents(array.reshape(-1).tolist(), array.ndim == 0)
    if array.size == 1 and array.ndim <= 1 and (tensor := tensor_of(array)).is_floating_point():
        number = Number(tensor.item())
        number.rank, number.dtype = array.ndim, tensor.dtype
        return number
    return None


def tensor_of(array: Any) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view("int16").copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def as_tensor(value: Any) -> Any:
    if isinstance(value, Number):
        tensor = torch.tensor(float(value), dtype=value.dtype)
        return tensor.reshape(1) if value.rank else tensor
    if not isinstance(value, Extents):
        return value
    # The number of each expert, which a constant would hide.
    if len(value) > 1 and all(isinstance(v, int) for v in value) and value == list(
            range(len(value))):
        return torch.arange(len(value))
    return torch.tensor(value[0] if value.scalar else list(value))
