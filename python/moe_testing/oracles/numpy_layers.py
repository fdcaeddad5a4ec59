"""Every family of layers.py in numpy, out of the four operations of moe.reference.

``run(family, x, weights, **inputs)``: f32 arrays in, ``[T, H]`` f32 out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from moe.reference import Capacity, Groups, Normalize, combine, dispatch, expert, gate

from ..layers import E, I

Weights = dict[str, np.ndarray]


def silu(v: np.ndarray) -> np.ndarray:
    return v / (1 + np.exp(-v))


def swiglu_mlp(x, gate_proj, up_proj, down_proj):
    return (silu(x @ gate_proj.T) * (x @ up_proj.T)) @ down_proj.T


def dbrx_mlp(x, w1, v1, w2):
    return (silu(x @ w1.T) * (x @ v1.T)) @ w2


def relu_mlp(x, wi, wo):
    return np.maximum(x @ wi.T, 0) @ wo.T


def gpt_oss_mlp(x, gate_up, gate_up_bias, down, down_bias):
    both = x @ gate_up + gate_up_bias
    g, u = np.minimum(both[:, ::2], 7), np.clip(both[:, 1::2], -7, 7)
    return ((u + 1) * g / (1 + np.exp(-1.702 * g))) @ down + down_bias


def llama4_mlp(x, gate_up, down):
    both = x @ gate_up
    return (silu(both[:, :I]) * both[:, I:]) @ down


SWIGLU = (swiglu_mlp, ("gate_proj", "up_proj", "down_proj"))
RELU = (relu_mlp, ("wi", "wo"))
AFTER_DROPS = Normalize("sum", epsilon=1.1920929e-07, guard="clamp")
MESH = Capacity(factor=1.25, rounding="floor", minimum=4, at_most_tokens=True)

# family: (gate attributes, dispatch attributes, combine attributes, experts).
# In the attributes, a string stands for an input or weight of that name, and
# "weights" in those of dispatch for the weights of the gate.
PLAIN: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple]] = {
    "mixtral": (dict(top_k=2, normalize=Normalize("sum")), {}, {}, SWIGLU),
    "qwen3_moe": (dict(top_k=4, normalize=Normalize("sum")), {}, {}, SWIGLU),
    "olmoe": (dict(top_k=4), {}, {}, SWIGLU),
    "jamba": (dict(top_k=2), {}, {}, SWIGLU),
    "dbrx": (dict(top_k=4, normalize=Normalize("norm", p=1.0)), {}, {},
             (dbrx_mlp, ("w1", "v1", "w2"))),
    "deepseek_v2_lite": (dict(top_k=3, scale=1.0), {}, {}, SWIGLU),
    "deepseek_v2": (dict(top_k=3, groups=Groups(4, 2, "max", "zero"), scale=16.0), {}, {}, SWIGLU),
    "deepseek_v3": (dict(top_k=3, bias="e_score_correction_bias", score="sigmoid",
                         groups=Groups(4, 2, "top2_sum"),
                         normalize=Normalize("sum", epsilon=1e-20), scale=2.5), {}, {}, SWIGLU),
    "glm4_moe": (dict(top_k=3, bias="e_score_correction_bias", score="sigmoid",
                      normalize=Normalize("sum", epsilon=1e-20), scale=2.827), {}, {}, SWIGLU),
    "gpt_oss": (dict(top_k=4, order="select_then_score"), {}, {},
                (gpt_oss_mlp, ("gate_up_proj", "gate_up_proj_bias", "down_proj",
                               "down_proj_bias"))),
    "granitemoe": (dict(top_k=4, order="select_then_score"), {}, {}, SWIGLU),
    "llama4": (dict(top_k=1, score="sigmoid", order="select_then_score"),
               dict(weights="weights", scale_rows=True), dict(weights=None),
               (llama4_mlp, ("gate_up_proj", "down_proj"))),
    "phimoe": (dict(top_k=2, order="score_each_choice", margin=0.02), {}, {}, SWIGLU),
    "switch": (dict(top_k=1), dict(capacity=Capacity(fixed=5)), {}, RELU),
    "switch_passthrough": (dict(top_k=1), dict(capacity=Capacity(
        factor=1.0, rounding="floor", minimum=1)), dict(dropped="x"), RELU),
    "expert_choice": (dict(top_k=E, select="expert_choice",
                           capacity=Capacity(factor=2.0, rounding="floor")), {}, {}, RELU),
    "mesh_expert_selection": (dict(top_k=E, score_axis="tokens", select="expert_choice",
                                   capacity=MESH), {}, {}, RELU),
    "given_route": (dict(top_k=2, ids="ids", normalize=Normalize("sum")), {}, {}, SWIGLU),
    "dense_mixture": (dict(top_k=E), {}, {}, RELU),
    "deepspeed_top1": (dict(top_k=1), dict(capacity=Capacity(factor=1.25, minimum=2)), {}, RELU),
    "deepspeed_top2": (dict(top_k=2), dict(capacity=Capacity(factor=2.0, minimum=2),
                                           priority="choice"),
                       dict(normalize=AFTER_DROPS), RELU),
    "deepspeed_topk": (dict(top_k=3), dict(weights="weights", priority="probability",
                                           capacity=Capacity(factor=3.0, minimum=2)),
                       dict(normalize=AFTER_DROPS), RELU),
    "mesh_top2": (dict(top_k=2, normalize=Normalize("sum", epsilon=1e-9)),
                  dict(capacity=MESH, priority="choice"), {}, RELU),
    "mesh_ntlb": (dict(top_k=3), dict(
        capacity=Capacity(factor=1.25, rounding="floor", minimum=2), priority="choice",
        overflow="next_choice", choices=1), {}, RELU),
    "residual_moe": (dict(top_k=1), {}, {}, RELU),
    "remoe": (dict(top_k=E, score="relu", threshold=0.0), {}, {}, RELU),
}


def run(family: str, x: np.ndarray, w: Weights, **inputs: np.ndarray) -> np.ndarray:
    if family in SPECIAL:
        return SPECIAL[family](x, w, **inputs)
    logits = x @ w["router"].T
    if "router_bias" in w:
        logits = logits + w["router_bias"]
    y = plain(family, logits, x, w, **inputs)
    if "shared_gate_proj" in w:
        y = y + swiglu_mlp(x, *(w[f"shared_{n}"] for n in SWIGLU[1]))
    if family == "residual_moe":
        c = np.exp(x @ w["coefficient"].T)
        c = c / c.sum(1, keepdims=True)
        y = c[:, :1] * y + c[:, 1:] * relu_mlp(x, w["mlp_wi"], w["mlp_wo"])
    return y


def plain(family: str, logits: np.ndarray, x: np.ndarray, w: Weights,
          **inputs: np.ndarray) -> np.ndarray:
    gate_args, dispatch_args, combine_args, (mlp, names) = PLAIN[family]
    known = {**w, **inputs, "x": x}

    def bound(arguments: dict[str, Any]) -> dict[str, Any]:
        return {k: known[v] if isinstance(v, str) and k in ("bias", "ids", "dropped", "weights")
                else v for k, v in arguments.items()}

    weights, ids = gate(logits, **bound(gate_args))
    known["weights"] = weights
    grouped, offsets, positions = dispatch(x, ids, num_experts=logits.shape[1],
                                           **bound(dispatch_args))
    rows = expert(grouped, offsets, [w[n] for n in names], mlp)
    return combine(rows, positions, **{"weights": weights, **bound(combine_args)})


def noisy_topk(x, w, normal):
    sigma = np.logaddexp(x @ w["noise_router"].T, 0) + 0.01
    weights, ids = gate(x @ w["router"].T, top_k=2, noise=normal * sigma,
                        order="select_then_score")
    grouped, offsets, positions = dispatch(x, ids, num_experts=E)
    return combine(expert(grouped, offsets, [w["wi"], w["wo"]], relu_mlp), positions,
                   weights=weights)


def hash_layer(x, w, ids):
    grouped, offsets, positions = dispatch(x, ids, num_experts=E)
    return combine(expert(grouped, offsets, [w["wi"], w["wo"]], relu_mlp), positions)


def hierarchical(x, w):
    weights, ids = gate(x @ w["router"].T, top_k=2, order="select_then_score")
    grouped, offsets, positions = dispatch(x, ids, num_experts=4)
    logits = expert(grouped, offsets, [w["secondary_router"]], lambda rows, s: rows @ s.T)
    weights2, local = gate(logits.reshape(-1, 4), top_k=2, order="select_then_score")
    group = np.searchsorted(offsets[1:], np.arange(len(grouped)), side="right")
    rows, offsets, inner = dispatch(grouped, group[:, None] * 4 + local, num_experts=16)
    out = combine(expert(rows, offsets, [w["wi"], w["wo"]], relu_mlp), inner, weights=weights2)
    return combine(out, positions, weights=weights)


def moe_plus_plus(x, w):
    weights, ids = gate(x @ w["router"].T, top_k=2)
    grouped, offsets, positions = dispatch(x, ids, num_experts=E)

    def constant(rows, vector, router):
        c = np.exp(rows @ router.T)
        c = c / c.sum(1, keepdims=True)
        return c[:, :1] * rows + c[:, 1:] * vector

    out = expert(grouped, offsets, [w[n] for n in SWIGLU[1]], swiglu_mlp, count=5,
                 uncovered="zero")
    out = expert(grouped, offsets, [], lambda rows: rows, first=6, count=1, init=out)
    out = expert(grouped, offsets, [w["constant_vector"], w["constant_router"]], constant,
                 first=7, count=1, init=out)
    return combine(out, positions, weights=weights)


def gemma4(x, w):
    normed = x / np.sqrt((x * x).mean(1, keepdims=True) + 1e-6) * w["router_scale"]
    weights, ids = gate(normed * x.shape[1] ** -0.5 @ w["router"].T, top_k=3,
                        normalize=Normalize("sum"))
    grouped, offsets, positions = dispatch(x, ids, num_experts=E)

    def mlp(rows, gate_up, down):
        g, u = np.split(rows @ gate_up.T, 2, axis=1)
        return (0.5 * g * (1 + np.tanh(0.7978845608028654 * (g + 0.044715 * g**3))) * u) @ down.T

    rows = expert(grouped, offsets, [w["gate_up_proj"], w["down_proj"]], mlp)
    return combine(rows, positions, weights=weights * w["per_expert_scale"][ids])


SPECIAL = {"gemma4": gemma4, "noisy_topk": noisy_topk, "hash_layer": hash_layer,
           "hierarchical": hierarchical, "moe_plus_plus": moe_plus_plus}
