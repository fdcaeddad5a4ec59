"""Oracles for what transformers does not have: the published formulas in torch.

They are written as the papers and systems write them, with masks ``[T, E, C]``
and einsum over all experts at once, and share nothing with moe.reference.
``LAYERS[family](x, weights, **inputs)`` takes f32 or f64 tensors and returns ``[T, H]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..layers import E

Tensor = torch.Tensor
Weights = dict[str, Tensor]
LAYERS: dict[str, Callable[..., Tensor]] = {}


def formula(function):
    LAYERS[function.__name__] = function
    return function


def relu_all(rows: Tensor, wi: Tensor, wo: Tensor) -> Tensor:
    """Every expert on its rows: ``[E, n, H]`` to ``[E, n, H]``."""
    return torch.bmm(torch.relu(torch.bmm(rows, wi.mT)), wo.mT)


def every_expert(x: Tensor, w: Weights) -> Tensor:
    """Every expert on every token: ``[T, E, H]``."""
    experts = w["wi"].shape[0]
    return relu_all(x[None].expand(experts, -1, -1), w["wi"], w["wo"]).transpose(0, 1)


def mixture(gates: Tensor, outputs: Tensor) -> Tensor:
    """``sum_e gates[t, e] * outputs[t, e]``."""
    return torch.einsum("te,teh->th", gates, outputs)


def slots(x: Tensor, w: Weights, combine: Tensor, dispatch: Tensor) -> Tensor:
    """GShard's two einsums around experts with ``C`` slots each."""
    rows = torch.einsum("sec,sm->ecm", dispatch, x)
    return torch.einsum("sec,ecm->sm", combine, relu_all(rows, w["wi"], w["wo"]))


def top_k_mask(values: Tensor, k: int) -> Tensor:
    return torch.zeros_like(values).scatter(1, values.topk(k, dim=1).indices, 1.0)


def one_hot_slots(position: Tensor, mask: Tensor, capacity: int) -> Tensor:
    """``[T, E, C]``: token t sits in slot ``position[t, e]`` of expert e."""
    slot = F.one_hot(position.long().clamp(0, capacity - 1), capacity).to(mask.dtype)
    return slot * mask[:, :, None]


@formula
def noisy_topk(x, w, normal):
    """Shazeer et al. 2017, equations 3 to 5."""
    sigma = F.softplus(x @ w["noise_router"].T) + 1e-2
    h = x @ w["router"].T + normal * sigma
    kept = torch.where(top_k_mask(h, 2) > 0, h, -torch.inf)
    return mixture(kept.softmax(-1), every_expert(x, w))


@formula
def dense_mixture(x, w):
    return mixture((x @ w["router"].T).softmax(-1), every_expert(x, w))


@formula
def remoe(x, w):
    """Wang et al. 2024: the router is ReLU(x Wr), nothing else."""
    return mixture(torch.relu(x @ w["router"].T), every_expert(x, w))


def _experts_take(scores: Tensor, x: Tensor, w: Weights, k: int) -> Tensor:
    """Zhou et al. 2022: G, I = TopK(S^T, k), P = onehot(I)."""
    g, i = scores.T.topk(min(k, x.shape[0]), dim=1)
    p = F.one_hot(i, x.shape[0]).to(x.dtype)
    rows = torch.einsum("ect,th->ech", p, x)
    return torch.einsum("ect,ec,ech->th", p, g, relu_all(rows, w["wi"], w["wo"]))


@formula
def expert_choice(x, w):
    k = math.floor(2.0 * x.shape[0] / E)
    return _experts_take((x @ w["router"].T).softmax(-1), x, w, k)


@formula
def mesh_expert_selection(x, w):
    capacity = max(min(x.shape[0], int(x.shape[0] * 1.25 / E)), 4)
    return _experts_take((x @ w["router"].T).softmax(0), x, w, capacity)


@formula
def hash_layer(x, w, ids):
    """Roller et al. 2021; an id of -1 has no expert."""
    return mixture(F.one_hot(ids[:, 0].long() + 1, E + 1)[:, 1:].to(x.dtype), every_expert(x, w))


@formula
def given_route(x, w, ids):
    """The weights that the router gives to a recorded choice, renormalised."""
    probabilities = (x @ w["router"].T).softmax(-1)
    mask = F.one_hot(ids.long() + 1, E + 1)[:, :, 1:].to(x.dtype)  # [T, K, E]
    gates = torch.einsum("te,tke->te", probabilities, mask)
    total = gates.sum(-1, keepdim=True)
    gates = torch.where(total > 0, gates / total, 0.0)
    up = torch.einsum("th,eih->tei", x, w["up_proj"])
    hidden = F.silu(torch.einsum("th,eih->tei", x, w["gate_proj"])) * up
    return mixture(gates, torch.einsum("tei,ehi->teh", hidden, w["down_proj"]))


@formula
def switch_passthrough(x, w):
    """Fedus et al. 2021, Mesh-TensorFlow: dropped tokens pass by, scaled."""
    gates = (x @ w["router"].T).softmax(-1)
    capacity = max(int(x.shape[0] * 1.0 / E), 1)
    gate, index = gates.max(-1)
    mask = F.one_hot(index, E).to(x.dtype)
    kept = mask * ((mask.cumsum(0) - 1) < capacity)
    y = mixture(kept, every_expert(x, w))
    passed = 1 - kept.sum(-1, keepdim=True)
    return gate[:, None] * (y + passed * x)


@formula
def deepspeed_top1(x, w):
    """top1gating without random token selection."""
    gates = (x @ w["router"].T).softmax(-1)
    capacity = max(math.ceil(x.shape[0] / E * 1.25), 2)
    mask = F.one_hot(gates.argmax(-1), E).to(x.dtype)
    location = mask.cumsum(0) - 1
    mask = mask * (location < capacity)
    combine = one_hot_slots(location, gates * mask, capacity)
    return slots(x, w, combine, (combine != 0).to(x.dtype))


@formula
def deepspeed_top2(x, w):
    """top2gating without noise on the second choice."""
    logits = x @ w["router"].T
    gates = logits.softmax(-1)
    capacity = max(math.ceil(x.shape[0] / E * 2.0), 2)
    mask1 = F.one_hot(gates.argmax(-1), E).to(x.dtype)
    mask2 = F.one_hot(logits.masked_fill(mask1 > 0, -torch.inf).argmax(-1), E).to(x.dtype)
    location1 = mask1.cumsum(0) - 1
    location2 = mask2.cumsum(0) - 1 + mask1.sum(0, keepdim=True)
    mask1 = mask1 * (location1 < capacity)
    mask2 = mask2 * (location2 < capacity)
    gate1, gate2 = (gates * mask1).sum(-1), (gates * mask2).sum(-1)
    denominator = (gate1 + gate2).clamp(min=torch.finfo(torch.float32).eps)
    combine = (one_hot_slots(location1, mask1 * (gate1 / denominator)[:, None], capacity)
               + one_hot_slots(location2, mask2 * (gate2 / denominator)[:, None], capacity))
    dispatch = (one_hot_slots(location1, mask1, capacity)
                + one_hot_slots(location2, mask2, capacity))
    return slots(x, w, combine, dispatch)


@formula
def deepspeed_topk(x, w):
    """topkgating with drop_policy 'probs'."""
    gates = (x @ w["router"].T).softmax(-1)
    capacity = max(math.ceil(x.shape[0] / E * 3.0), 2)
    mask = top_k_mask(gates, 3)
    best = (gates * mask).topk(min(capacity, x.shape[0]), dim=0).indices
    mask = mask * torch.zeros_like(mask).scatter(0, best, 1.0)
    gates = gates * mask
    gates = gates / gates.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).eps)
    location = mask.cumsum(0) - 1
    return slots(x, w, one_hot_slots(location, gates, capacity),
                 one_hot_slots(location, mask, capacity))


@formula
def mesh_top2(x, w):
    """_top_2_gating with second policy 'all'."""
    raw = (x @ w["router"].T).softmax(-1)
    capacity = max(min(x.shape[0], int(x.shape[0] * 1.25 / E)), 4)
    gate1, index1 = raw.max(-1)
    mask1 = F.one_hot(index1, E).to(x.dtype)
    gate2, index2 = (raw * (1 - mask1)).max(-1)
    mask2 = F.one_hot(index2, E).to(x.dtype)
    denominator = gate1 + gate2 + 1e-9
    gate1, gate2 = gate1 / denominator, gate2 / denominator
    position1 = (mask1.cumsum(0) - mask1) * mask1
    mask1 = mask1 * (position1 < capacity)
    position2 = (mask2.cumsum(0) - mask2 + mask1.sum(0, keepdim=True)) * mask2
    mask2 = mask2 * (position2 < capacity)
    combine = (one_hot_slots(position1, mask1 * gate1[:, None], capacity)
               + one_hot_slots(position2, mask2 * gate2[:, None], capacity))
    return slots(x, w, combine, (combine != 0).to(x.dtype))


@formula
def mesh_ntlb(x, w):
    """No token left behind: in each of 3 rounds the tokens not yet placed try their next
    best expert."""
    raw = (x @ w["router"].T).softmax(-1)
    capacity = max(int(x.shape[0] * 1.25 / E), 2)
    placed = torch.zeros_like(raw)
    remaining = raw.clone()
    for _ in range(3):
        tries = F.one_hot(remaining.argmax(-1), E).to(x.dtype)
        remaining = remaining.masked_fill(tries > 0, -torch.inf)
        tries = tries * (1 - placed.sum(-1, keepdim=True))
        position = tries.cumsum(0) - tries + placed.sum(0, keepdim=True)
        placed = placed + tries * (position < capacity)
    return mixture(placed * raw, every_expert(x, w))


@formula
def hierarchical(x, w):
    """Tensor2Tensor's two levels: primary gate times secondary gate."""
    primary = x @ w["router"].T
    primary = torch.where(top_k_mask(primary, 2) > 0, primary, -torch.inf).softmax(-1)
    gates = []
    for g in range(4):
        secondary = x @ w["secondary_router"][g].T
        secondary = torch.where(top_k_mask(secondary, 2) > 0, secondary, -torch.inf).softmax(-1)
        gates.append(primary[:, g, None] * secondary)
    return mixture(torch.cat(gates, dim=1), every_expert(x, w))


@formula
def residual_moe(x, w):
    """Rajbhandari et al. 2022: out = c0 * moe + c1 * mlp."""
    gates = (x @ w["router"].T).softmax(-1)
    moe = mixture(gates * top_k_mask(gates, 1), every_expert(x, w))
    mlp = torch.relu(x @ w["mlp_wi"].T) @ w["mlp_wo"].T
    c = (x @ w["coefficient"].T).softmax(-1)
    return moe * c[:, 0:1] + mlp * c[:, 1:]


@formula
def moe_plus_plus(x, w):
    """Jin et al. 2024: FFN, zero, copy and constant experts."""
    gates = (x @ w["router"].T).softmax(-1)
    gates = gates * top_k_mask(gates, 2)
    hidden = (F.silu(torch.einsum("th,eih->tei", x, w["gate_proj"]))
              * torch.einsum("th,eih->tei", x, w["up_proj"]))
    ffn = torch.einsum("tei,ehi->teh", hidden, w["down_proj"])
    a = (x @ w["constant_router"][0].T).softmax(-1)
    constant = a[:, 0:1] * x + a[:, 1:] * w["constant_vector"][0]
    return mixture(gates, torch.cat(
        [ffn, torch.zeros_like(x)[:, None], x[:, None], constant[:, None]], dim=1))
