"""Normalizations of rows that ATen has as one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .function import Function, IntegerBody, Tensor, extents_of
from .scalars import DTYPES, Scalar

__all__ = ["NORMALIZATIONS"]

aten = torch.ops.aten


def _scaled(f: Function, value: torch.Tensor, x: Tensor, factors: Sequence[Tensor],
            weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Multiply by ``factors`` and the weight, and add the bias; computes in f32 and rounds."""
    given = [t for t in (weight, bias) if t is not None]

    def write(b: IntegerBody, v: list[Scalar]) -> Scalar:
        y = v[0]
        for factor in v[1:len(factors) + 1 + (weight is not None)]:
            y = b.op("arith.mulf", y, factor)
        return y if bias is None else b.op("arith.addf", y, v[-1])

    return f.elementwise([x, *factors, *given], extents_of(value), DTYPES[value.dtype], write)


def _layer_norm(f: Function, value: Sequence[torch.Tensor], x: Tensor, shape: Sequence[int],
                weight: Tensor | None, bias: Tensor | None, eps: float) -> list[Tensor]:
    if len(shape) != 1 or not isinstance(shape[0], int):
        raise f.error("normalizes several dimensions, which has no translation to MLIR")
    count, last = shape[0], len(x.shape) - 1

    def mean_of(tensor: Tensor) -> Tensor:
        total = f.reduce(tensor, (last,), "arith.addf", 0.0)
        return f.elementwise([total], total.shape, "f32",
                             lambda b, v: b.op("arith.mulf", v[0], 1.0 / count))

    mean = mean_of(x)
    centered = f.elementwise([x, mean], x.shape, "f32", lambda b, v: b.op("arith.subf", *v))
    variance = mean_of(f.elementwise([centered], x.shape, "f32",
                                     lambda b, v: b.op("arith.mulf", v[0], v[0])))
    root = f.elementwise([variance], variance.shape, "f32", lambda b, v: b.op(
        "math.rsqrt", b.op("arith.addf", v[0], eps)))
    return [_scaled(f, value[0], centered, [root], weight, bias), mean, root]


def _batch_norm(f: Function, value: Sequence[torch.Tensor], x: Tensor, weight: Tensor | None,
                bias: Tensor | None, mean: Tensor, variance: Tensor, _: float,
                eps: float) -> list[Tensor]:
    """Normalize by the statistics of training."""
    if len(x.shape) != 2:
        raise f.error("normalizes batches of more than columns, which has no translation to MLIR")
    centered = f.elementwise([x, mean], x.shape, "f32", lambda b, v: b.op("arith.subf", *v))
    root = f.elementwise([variance], variance.shape, "f32", lambda b, v: b.op(
        "math.rsqrt", b.op("arith.addf", v[0], eps)))
    return [_scaled(f, value[0], centered, [root], weight, bias), mean, root]


NORMALIZATIONS: dict[Any, Any] = {
    aten.native_layer_norm: _layer_norm,
    aten._native_batch_norm_legit_no_training: _batch_norm,
}
