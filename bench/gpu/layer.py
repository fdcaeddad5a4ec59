"""A layer in torch: weights and inputs from a seed, its gate, and its results in f64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..common import routing
from ..device.shapes import GpuShape

Tensor = torch.Tensor
Weights = Mapping[str, Tensor]

# The margin of a token's last choice over the other experts from which on its result is checked:
# some participants round logits to bf16; all compute sigmoid scores in f32.
LOGIT_MARGIN, SCORE_MARGIN = 0.05, 1e-4
# The largest magnitude of a bias.
BIAS = 0.1


@dataclass(frozen=True)
class Batch:
    x: Tensor  # [T, H]
    active_experts: int


def make_weights(shape: GpuShape, device: torch.device, seed: int) -> dict[str, Tensor]:
    """Draw uniform values with variance 1 / (terms of a dot product) on the device."""
    generator = torch.Generator(device).manual_seed(seed)
    types = {"bf16": torch.bfloat16, "f32": torch.float32}
    weights = {}
    for name, info in shape.weights.items():
        bound = (3 / info.terms) ** 0.5 if info.terms else BIAS
        weights[name] = torch.empty(info.dims, dtype=types[info.dtype], device=device).uniform_(
            -bound, bound, generator=generator)
    return weights


def make_batch(shape: GpuShape, weights: Weights, tokens: int, kind: str, seed: int,
               inverse: Tensor | None) -> Batch:
    """Draw hidden states: normally distributed, except in the span of the router's rows, where they
    produce the drawn experts of each token. ``inverse`` is that of ``invert``; without it the
    routing is not controlled."""
    router = weights["router"]
    generator = torch.Generator(router.device).manual_seed(seed)
    x = torch.empty(tokens, shape.hidden, device=router.device).normal_(generator=generator)
    if inverse is None:
        x = x.to(router.dtype)
        _, ids = route(shape, weights, x)
        return Batch(x, int(ids.unique().numel()))
    rng = np.random.default_rng(seed)
    ids = routing.draw_ids(routing.popularity(kind, shape.experts, rng), tokens, shape.top_k, rng)
    wanted = torch.from_numpy(routing.logits_for(ids, shape.experts, rng)).to(x)
    x += (wanted - _logits(weights, x, torch.float32)) @ inverse
    return Batch(x.to(router.dtype), routing.active_experts(ids))


def invert(router: Tensor) -> Tensor:
    """Return the ``[E, H]`` matrix that maps logits to hidden states."""
    return torch.linalg.pinv(router.double().cpu()).T.float().to(router.device)


# -- the gate -----------------------------------------------------------------


def route(shape: GpuShape, w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights in f32 and ids, ``[T, K]``, as transformers computes them."""
    if not shape.sigmoid:
        # gpt-oss selects before the softmax, which is equivalent.
        scores = F.linear(x, w["router"], w.get("router_bias")).softmax(-1, dtype=torch.float32)
        weights, ids = scores.topk(shape.top_k, dim=-1)
        return (weights / weights.sum(-1, keepdim=True) if shape.renormalise else weights), ids
    scores = F.linear(x.float(), w["router"].float()).sigmoid()
    _, ids = _selection(shape, scores, w).topk(shape.top_k, dim=-1, sorted=False)
    weights = scores.gather(1, ids)
    return weights / (weights.sum(-1, keepdim=True) + 1e-20) * shape.scale, ids


def _selection(shape: GpuShape, scores: Tensor, w: Weights) -> Tensor:
    """Return the selection scores of a sigmoid gate: with the bias, in the best groups."""
    biased = scores + w["e_score_correction_bias"]
    if shape.groups == 1:
        return biased
    parts = biased.unflatten(1, (shape.groups, -1))
    best = parts.topk(2, dim=-1).values.sum(-1).topk(shape.kept_groups, dim=-1).indices
    kept = torch.zeros_like(parts[:, :, 0]).scatter(1, best, 1.0) > 0
    return parts.masked_fill(~kept[:, :, None], -torch.inf).flatten(1)


def _logits(w: Weights, x: Tensor, dtype: torch.dtype) -> Tensor:
    bias = w.get("router_bias")
    return F.linear(x.to(dtype), w["router"].to(dtype), None if bias is None else bias.to(dtype))


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def clamped_swiglu(both: Tensor) -> Tensor:
    """Apply gpt-oss's activation: gate and up interleaved, neither above 7, up not below -7."""
    gate, up = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate * torch.sigmoid(1.702 * gate)


def add_shared(shape: GpuShape, w: Weights, x: Tensor, y: Tensor) -> Tensor:
    if not shape.shared:
        return y
    return y + swiglu(x, w["shared_gate_proj"], w["shared_up_proj"], w["shared_down_proj"])


# -- the reference --------------------------------------------------------------


def sample(shape: GpuShape, w: Weights, x: Tensor, count: int) -> Tensor:
    """Return tokens whose choices do not depend on rounding: the first, the last and some
    between."""
    logits = _logits(w, x, torch.float64)
    if shape.sigmoid:
        chosen, margin = _selection(shape, logits.sigmoid(), w), SCORE_MARGIN
    else:
        chosen, margin = logits, LOGIT_MARGIN
    best = chosen.topk(min(shape.top_k + 1, shape.experts), dim=-1).values
    clear = (best[:, -2] - best[:, -1] > margin).nonzero()[:, 0]
    if len(clear) <= count:
        return clear
    return clear[torch.linspace(0, len(clear) - 1, count, dtype=torch.int64)]


def reference(shape: GpuShape, w: Weights, x: Tensor) -> Tensor:
    """Compute the layer in f64, token by token."""
    x = x.double()
    scores = _logits(w, x, torch.float64)
    if shape.sigmoid:
        scores = scores.sigmoid()
        ids = _selection(shape, scores, w).argsort(-1, descending=True)[:, :shape.top_k]
    else:
        scores = scores.softmax(-1)
        ids = scores.argsort(-1, descending=True)[:, :shape.top_k]
    weights = scores.gather(1, ids)
    if shape.renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    weights = weights * shape.scale
    y = torch.zeros_like(x)
    if shape.shared:
        y += swiglu(x, *(w[f"shared_{name}_proj"].double() for name in ("gate", "up", "down")))
    for expert in ids.unique().tolist():
        token, choice = (ids == expert).nonzero(as_tuple=True)
        rows = _expert(shape, {name: w[name][expert].double() for name in w if "_proj" in name
                               and not name.startswith("shared")}, x[token])
        y.index_add_(0, token, weights[token, choice, None] * rows)
    return y


def _expert(shape: GpuShape, w: Weights, rows: Tensor) -> Tensor:
    """Compute one expert with its slices of the weights."""
    if shape.clamped:
        inner = clamped_swiglu(rows @ w["gate_up_proj"] + w["gate_up_proj_bias"])
        return inner @ w["down_proj"] + w["down_proj_bias"]
    return swiglu(rows, *w["gate_up_proj"].chunk(2), w["down_proj"])
