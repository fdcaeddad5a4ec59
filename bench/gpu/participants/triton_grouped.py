"""A grouped matmul in Triton, written for this benchmark: a short kernel without further tuning.
The first matmul gathers rows and has SwiGLU as epilogue; the second one scales its rows and writes
each to the position of its choice; a reduction over the choices follows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ...device.shapes import GpuShape
from ..layer import Tensor, Weights, add_shared, route
from . import Case, Unavailable
from .eager import Eager

# Columns, depth, warps, stages; the rows of a tile depend on the mean rows per expert.
TILES = ((64, 64, 4, 4), (128, 64, 4, 4), (128, 64, 8, 3), (256, 64, 8, 3))
# The largest number of experts for a scan.
MOST_EXPERTS = 512
CONFIGS = [triton.Config({"COLUMNS": columns, "DEPTH": depth}, num_warps=warps,
                         num_stages=stages) for columns, depth, warps, stages in TILES]


def tuned(kernel):
    """Autotune over ``CONFIGS``. Sizes are runtime arguments, so that layers share the code."""
    return triton.autotune(
        CONFIGS, key=["hidden", "inner", "ROWS"],
        do_bench=lambda call, quantiles: triton.testing.do_bench(
            call, warmup=5, rep=20, quantiles=quantiles))(triton.jit(kernel))


@triton.jit
def _tile(order, ends, tiles, tile, experts, ROWS: tl.constexpr, MOST: tl.constexpr):
    """Return the expert of a tile, its positions among the sorted choices, and the mask of valid
    ones."""
    each = tl.arange(0, MOST)
    last = tl.load(tiles + each, mask=each < experts, other=2147483647)
    expert = tl.sum((last <= tile).to(tl.int32))
    clamped = tl.minimum(expert, experts - 1)
    first_tile = tl.load(tiles + clamped - 1, mask=clamped > 0, other=0)
    start = tl.load(ends + clamped - 1, mask=clamped > 0, other=0)
    end = tl.load(ends + clamped)
    positions = start + (tile - first_tile) * ROWS + tl.arange(0, ROWS)
    valid = (positions < end) & (expert < experts)
    choices = tl.load(order + positions, mask=valid, other=0)
    return clamped, positions, valid, choices


@tuned
def up_kernel(x, weights, out, order, ends, tiles, hidden, inner, experts, top_k,
              ROWS: tl.constexpr, MOST: tl.constexpr, COLUMNS: tl.constexpr,
              DEPTH: tl.constexpr):
    """``out[row] = silu(x W_gate) * (x W_up)`` for the sorted choices."""
    column_tiles = tl.cdiv(inner, COLUMNS)
    tile, column = tl.program_id(0) // column_tiles, tl.program_id(0) % column_tiles
    if tile >= tl.load(tiles + experts - 1):
        return
    expert, positions, valid, choices = _tile(order, ends, tiles, tile, experts, ROWS, MOST)
    columns = column * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    inside = columns < inner
    rows = x + (choices // top_k).to(tl.int64)[:, None] * hidden + depth[None, :]
    gates = (weights + expert.to(tl.int64) * (2 * inner * hidden)
             + columns[None, :] * hidden + depth[:, None])
    gate = tl.zeros((ROWS, COLUMNS), tl.float32)
    up = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, hidden, DEPTH):
        within = depth + k < hidden
        a = tl.load(rows + k, mask=valid[:, None] & within[None, :], other=0.0)
        mask = inside[None, :] & within[:, None]
        gate = tl.dot(a, tl.load(gates + k, mask=mask, other=0.0), gate)
        up = tl.dot(a, tl.load(gates + inner * hidden + k, mask=mask, other=0.0), up)
    result = gate * tl.sigmoid(gate) * up
    tl.store(out + positions.to(tl.int64)[:, None] * inner + columns[None, :],
             result.to(out.dtype.element_ty), mask=valid[:, None] & inside[None, :])


@tuned
def down_kernel(rows_in, weights, scores, out, order, ends, tiles, hidden, inner, experts,
                ROWS: tl.constexpr, MOST: tl.constexpr, COLUMNS: tl.constexpr,
                DEPTH: tl.constexpr):
    """``out[choice] = score * (row W_down)``."""
    column_tiles = tl.cdiv(hidden, COLUMNS)
    tile, column = tl.program_id(0) // column_tiles, tl.program_id(0) % column_tiles
    if tile >= tl.load(tiles + experts - 1):
        return
    expert, positions, valid, choices = _tile(order, ends, tiles, tile, experts, ROWS, MOST)
    columns = column * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    inside = columns < hidden
    rows = rows_in + positions.to(tl.int64)[:, None] * inner + depth[None, :]
    downs = (weights + expert.to(tl.int64) * (hidden * inner)
             + columns[None, :] * inner + depth[:, None])
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(0, inner, DEPTH):
        within = depth + k < inner
        a = tl.load(rows + k, mask=valid[:, None] & within[None, :], other=0.0)
        b = tl.load(downs + k, mask=inside[None, :] & within[:, None], other=0.0)
        total = tl.dot(a, b, total)
    total *= tl.load(scores + choices, mask=valid, other=0.0)[:, None]
    tl.store(out + choices.to(tl.int64)[:, None] * hidden + columns[None, :],
             total.to(out.dtype.element_ty), mask=valid[:, None] & inside[None, :])


def rows_of_a_tile(shape: GpuShape, tokens: int) -> int:
    """Return the power of two that covers the mean rows of an expert: 16 to 128."""
    average = max(int(tokens * shape.top_k / shape.experts), 1)
    return min(max(triton.next_power_of_2(average), 16), 128)


def layer(shape: GpuShape, w: Weights, x: Tensor) -> Tensor:
    tokens, experts = len(x), shape.experts
    scores, ids = route(shape, w, x)
    sorted_ids, order = ids.flatten().sort()
    order = order.int()
    counted = sorted_ids.int() if x.is_cuda else sorted_ids.float()
    sizes = torch.histc(counted, bins=experts, min=0, max=experts - 1)
    ends = sizes.cumsum(0, dtype=torch.int32)
    rows = rows_of_a_tile(shape, tokens)
    tiles = ((sizes.int() + rows - 1) // rows).cumsum(0, dtype=torch.int32)
    # An upper bound on the number of tiles for any routing.
    most = len(order) // rows + min(experts, len(order))
    inner = x.new_empty(len(order), shape.intermediate)
    up_kernel[lambda meta: (most * triton.cdiv(shape.intermediate, meta["COLUMNS"]),)](
        x, w["gate_up_proj"], inner, order, ends, tiles, shape.hidden, shape.intermediate,
        experts, shape.top_k, rows, MOST_EXPERTS)
    outer = x.new_empty(len(order), shape.hidden)
    down_kernel[lambda meta: (most * triton.cdiv(shape.hidden, meta["COLUMNS"]),)](
        inner, w["down_proj"], scores.flatten(), outer, order, ends, tiles, shape.hidden,
        shape.intermediate, experts, rows, MOST_EXPERTS)
    y = outer.view(tokens, shape.top_k, -1).sum(1)
    return add_shared(shape, w, x, y)


def open(case: Case) -> Eager:
    if not case.layers[0]["router"].is_cuda:
        raise Unavailable("Triton needs a GPU")
    if case.shape.clamped:
        raise Unavailable("the experts of gpt-oss are not implemented")
    if case.shape.experts > MOST_EXPERTS:
        raise Unavailable(f"it supports at most {MOST_EXPERTS} experts")
    return Eager(case, layer)
