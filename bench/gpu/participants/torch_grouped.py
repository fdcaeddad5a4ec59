"""PyTorch's grouped matmul in the steps of transformers' ``grouped_mm`` experts: sort the choices,
gather the rows, two grouped matmuls, scale, restore the order, sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...device.shapes import GpuShape
from ..layer import Tensor, Weights, add_shared, clamped_swiglu, route
from . import Case, Unavailable
from .eager import Eager


def grouped_mm(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Grouped matmul with weights ``[E, in, out]``."""
    function = getattr(F, "grouped_mm", None) or torch._grouped_mm
    return function(rows, weights, offs=ends)


def experts(shape: GpuShape, w: Weights, rows: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
    """Run the experts on rows sorted by expert."""
    if shape.clamped:
        both = grouped_mm(rows, w["gate_up_proj"], ends).add_(w["gate_up_proj_bias"][ids])
        rows = grouped_mm(clamped_swiglu(both), w["down_proj"], ends)
        return rows.add_(w["down_proj_bias"][ids])
    both = grouped_mm(rows, w["gate_up_proj"].transpose(1, 2), ends)
    gate, up = both.chunk(2, dim=-1)
    return grouped_mm(F.silu(gate) * up, w["down_proj"].transpose(1, 2), ends)


def layer(shape: GpuShape, w: Weights, x: Tensor) -> Tensor:
    scores, ids = route(shape, w, x)
    sorted_ids, order = ids.flatten().sort()
    # Not bincount, which synchronizes with the device.
    counted = sorted_ids.int() if x.is_cuda else sorted_ids.float()
    sizes = torch.histc(counted, bins=shape.experts, min=0, max=shape.experts - 1)
    ends = sizes.cumsum(0, dtype=torch.int32)
    rows = experts(shape, w, x[order // shape.top_k], sorted_ids, ends)
    rows = rows * scores.flatten()[order, None].to(x.dtype)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order), device=x.device)
    y = rows[position].view(*ids.shape, -1).sum(1).to(x.dtype)
    return add_shared(shape, w, x, y)


def open(case: Case) -> Eager:
    if not (hasattr(F, "grouped_mm") or hasattr(torch, "_grouped_mm")):
        raise Unavailable(f"torch {torch.__version__} has no grouped matmul")
    return Eager(case, layer)
