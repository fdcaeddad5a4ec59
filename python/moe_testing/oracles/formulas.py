"""The layers of today's models in torch, in any precision: what their papers print.

``LAYERS[family](x, weights)`` as in papers.py, for the families that
hf.py has.  In f64 they are references where transformers, whose routers compute in f32,
cannot be; test_reference_layers compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from ..layers import E, I

Tensor = torch.Tensor
Weights = dict[str, Tensor]
Mlp = Callable[[Tensor, int], Tensor]


# -- experts ----------------------------------------------------------------


def swiglu(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def swiglu_experts(w: Weights) -> Mlp:
    return lambda x, e: swiglu(x, w["gate_proj"][e], w["up_proj"][e], w["down_proj"][e])


def dbrx_experts(w: Weights) -> Mlp:
    return lambda x, e: swiglu(x, w["w1"][e], w["v1"][e], w["w2"][e].T)


def gpt_oss_experts(w: Weights) -> Mlp:
    """Gate and up interleaved; ``(u + 1) g sigmoid(1.702 g)`` of clamped g and u."""
    def run(x: Tensor, e: int) -> Tensor:
        both = x @ w["gate_up_proj"][e] + w["gate_up_proj_bias"][e]
        g, u = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
        h = (u + 1) * g * torch.sigmoid(1.702 * g)
        return h @ w["down_proj"][e] + w["down_proj_bias"][e]
    return run


def llama4_experts(w: Weights) -> Mlp:
    def run(x: Tensor, e: int) -> Tensor:
        gate, up = w["gate_up_proj"][e][:, :I], w["gate_up_proj"][e][:, I:]
        return swiglu(x, gate.T, up.T, w["down_proj"][e].T)
    return run


def gemma4_experts(w: Weights) -> Mlp:
    def run(x: Tensor, e: int) -> Tensor:
        g, u = x @ w["gate_up_proj"][e][:I].T, x @ w["gate_up_proj"][e][I:].T
        inner = math.sqrt(2 / math.pi) * (g + 0.044715 * g**3)
        return (0.5 * g * (1 + torch.tanh(inner)) * u) @ w["down_proj"][e].T
    return run


def relu_experts(w: Weights) -> Mlp:
    return lambda x, e: torch.relu(x @ w["wi"][e].T) @ w["wo"][e].T


# -- gates: logits [T, E] to gates [T, E], 0 where an expert is not chosen --------


def best(values: Tensor, k: int) -> Tensor:
    """A mask of the largest k of each row; the lowest id wins ties."""
    order = values.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(values).scatter(1, order, 1.0) > 0


def softmax_gate(logits: Tensor, k: int, normalise: bool) -> Tensor:
    p = logits.softmax(1)
    gates = p.where(best(p, k), 0.0)
    return gates / gates.sum(1, keepdim=True) if normalise else gates


def grouped(scores: Tensor, groups: int, keep: int, top: int, fill: float) -> Tensor:
    """The scores of the groups with the best sum of their ``top`` best; elsewhere ``fill``."""
    parts = scores.unflatten(1, (groups, -1))
    kept = best(parts.topk(top, dim=2).values.sum(2), keep)
    return parts.where(kept[:, :, None], fill).flatten(1)


def sigmoid_gate(logits: Tensor, bias: Tensor, k: int, scale: float, groups: int = 1) -> Tensor:
    s = logits.sigmoid()
    chosen = s + bias
    if groups > 1:
        chosen = grouped(chosen, groups, 2, 2, -math.inf)
    gates = s.where(best(chosen, k), 0.0)
    return gates / (gates.sum(1, keepdim=True) + 1e-20) * scale


def sparse_mixer(logits: Tensor) -> Tensor:
    """Phi-3.5: each of two choices has its softmax over the experts near the best of those
    left."""
    gates, left = torch.zeros_like(logits), logits
    for _ in range(2):
        top = left.max(1, keepdim=True).values
        far = (top - logits) / torch.maximum(logits.abs(), top) > 0.02
        chosen = best(left, 1)
        gates += left.masked_fill(far, -math.inf).softmax(1).where(chosen, 0.0)
        left = left.masked_fill(chosen, -math.inf)
    return gates


# -- layers -------------------------------------------------------------------


def mixture(x: Tensor, gates: Tensor, mlp: Mlp) -> Tensor:
    y = torch.zeros_like(x)
    for e in range(gates.shape[1]):
        rows = gates[:, e].nonzero()[:, 0]
        y[rows] += gates[rows, e, None] * mlp(x[rows], e)
    return y


def shared(x: Tensor, w: Weights) -> Tensor:
    return swiglu(x, w["shared_gate_proj"], w["shared_up_proj"], w["shared_down_proj"])


def softmax_layer(x: Tensor, w: Weights, k: int, normalise: bool,
                  experts: Callable[[Weights], Mlp] = swiglu_experts) -> Tensor:
    return mixture(x, softmax_gate(x @ w["router"].T, k, normalise), experts(w))


def deepseek_v2(x: Tensor, w: Weights, scale: float, groups: int) -> Tensor:
    p = (x @ w["router"].T).softmax(1)
    chosen = grouped(p, groups, 2, 1, 0.0) if groups > 1 else p
    return mixture(x, scale * p.where(best(chosen, 3), 0.0), swiglu_experts(w)) + shared(x, w)


def deepseek_v3(x: Tensor, w: Weights, scale: float, groups: int) -> Tensor:
    gates = sigmoid_gate(x @ w["router"].T, w["e_score_correction_bias"], 3, scale, groups)
    return mixture(x, gates, swiglu_experts(w)) + shared(x, w)


def gpt_oss(x: Tensor, w: Weights) -> Tensor:
    logits = x @ w["router"].T + w["router_bias"]
    gates = logits.where(best(logits, 4), -math.inf).softmax(1)
    return mixture(x, gates, gpt_oss_experts(w))


def llama4(x: Tensor, w: Weights) -> Tensor:
    """The sigmoid multiplies what goes into the expert."""
    logits = x @ w["router"].T
    gates, mlp = logits.sigmoid().where(best(logits, 1), 0.0), llama4_experts(w)
    y = shared(x, w)
    for e in range(E):
        rows = gates[:, e].nonzero()[:, 0]
        y[rows] += mlp(gates[rows, e, None] * x[rows], e)
    return y


def gemma4(x: Tensor, w: Weights) -> Tensor:
    normed = x / ((x * x).mean(1, keepdim=True) + 1e-6).sqrt()
    logits = normed * w["router_scale"] * x.shape[1] ** -0.5 @ w["router"].T
    return mixture(x, softmax_gate(logits, 3, True) * w["per_expert_scale"], gemma4_experts(w))


def switch(x: Tensor, w: Weights) -> Tensor:
    """The first five tokens of an expert; the others are dropped."""
    gates = softmax_gate(x @ w["router"].T, 1, False)
    place = (gates > 0).cumsum(0)
    return mixture(x, gates.where(place <= 5, 0.0), relu_experts(w))


LAYERS: dict[str, Callable[..., Tensor]] = {
    "mixtral": partial(softmax_layer, k=2, normalise=True),
    "qwen3_moe": partial(softmax_layer, k=4, normalise=True),
    "olmoe": partial(softmax_layer, k=4, normalise=False),
    "jamba": partial(softmax_layer, k=2, normalise=False),
    "dbrx": partial(softmax_layer, k=4, normalise=True, experts=dbrx_experts),
    "deepseek_v2_lite": partial(deepseek_v2, scale=1.0, groups=1),
    "deepseek_v2": partial(deepseek_v2, scale=16.0, groups=4),
    "deepseek_v3": partial(deepseek_v3, scale=2.5, groups=4),
    "glm4_moe": partial(deepseek_v3, scale=2.827, groups=1),
    "gpt_oss": gpt_oss,
    # The softmax over the chosen logits is the renormalised softmax over all.
    "granitemoe": partial(softmax_layer, k=4, normalise=True),
    "llama4": llama4,
    "phimoe": lambda x, w: mixture(x, sparse_mixer(x @ w["router"].T), swiglu_experts(w)),
    "gemma4": gemma4,
    "switch": switch,
}
