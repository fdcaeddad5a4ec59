"""Every gate and family as a whole layer, in MLIR text.

    text("mixtral", "bf16")     the module, with one function @layer
    python -m moe_testing.layers (re)writes test/Integration/CPU/<family>.mlir

Sizes are small and no multiple of anything.  Weights keep the layout that the
model's checkpoint has: ``[out, in]`` where it uses ``nn.Linear``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from .mlir_bodies import CLAMPED_SWIGLU, GEGLU_TANH, RELU, SWIGLU
from .mlir_builder import Block, Layer, Value

H, I, E, SHARED = 24, 40, 8, 28
FILES = Path(__file__).resolve().parents[2] / "test" / "Integration" / "CPU"

FAMILIES: dict[str, tuple[str, Callable[[Layer], None]]] = {}
# Those whose routing depends on all tokens: experts have capacities, or choose tokens.
WHOLE = ("switch", "switch_passthrough", "expert_choice", "mesh_expert_selection",
         "deepspeed_top1", "deepspeed_top2", "deepspeed_topk", "mesh_top2", "mesh_ntlb")


def family(build: Callable[[Layer], None]) -> Callable[[Layer], None]:
    FAMILIES[build.__name__] = (build.__doc__ or "", build)
    return build


def build(name: str, dtype: str = "f32") -> Layer:
    layer = Layer(dtype)
    FAMILIES[name][1](layer)
    return layer


def text(name: str, dtype: str = "f32") -> str:
    comment = " ".join(line.strip() for line in FAMILIES[name][0].strip().splitlines())
    words, lines = comment.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 76:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return build(name, dtype).text("\n".join(lines))


# --------------------------------------------------------------------------
# Experts
# --------------------------------------------------------------------------

def swiglu_mlp(b: Block, rows: Value, gate: Value, up: Value, down: Value) -> Value:
    """down(silu(gate(x)) * up(x)), all ``[out, in]``."""
    g = b.linear("g", rows, gate)
    u = b.linear("u", rows, up)
    h = b.round("h_rounded", b.map("h", [g, u], SWIGLU))
    return b.round("rows_out", b.linear("d", h, down))


def swiglu(layer: Layer, experts: int = E) -> tuple[list[Value], Callable[..., Value]]:
    return [layer.weight("gate_proj", experts, I, H), layer.weight("up_proj", experts, I, H),
            layer.weight("down_proj", experts, H, I)], swiglu_mlp


def relu_mlp(b: Block, rows: Value, wi: Value, wo: Value) -> Value:
    h = b.round("h_rounded", b.map("h", [b.linear("u", rows, wi)], RELU))
    return b.round("rows_out", b.linear("d", h, wo))


def relu_experts(layer: Layer, experts: int = E) -> tuple[list[Value], Callable[..., Value]]:
    return [layer.weight("wi", experts, I, H), layer.weight("wo", experts, H, I)], relu_mlp


def routed(layer: Layer, x: Value, weights: Value | None, ids: Value, experts: int = E,
           dispatch: str = "", combine: str = "",
           mlp: Callable[..., tuple[list[Value], Callable[..., Value]]] = swiglu) -> Value:
    """dispatch, experts, combine."""
    b = layer.body
    parameters, body = mlp(layer, experts)
    grouped, offsets, positions = b.dispatch(x, ids, experts, dispatch)
    rows = b.expert("expert_rows", grouped, offsets, parameters, body)
    return b.combine("y", rows, positions, weights, combine)


def start(layer: Layer, experts: int = E) -> tuple[Value, Value]:
    """The input and the logits of a router without bias."""
    x = layer.input("x", -1, H)
    return x, layer.body.linear("logits", x, layer.weight("router", experts, H))


def add(layer: Layer, y: Value, other: Value) -> Value:
    """The sum of two results, in f32, rounded."""
    b = layer.body
    total = b.map("sum", [b.extend("y_f32", y), b.extend("other_f32", other)],
                  "%r = arith.addf %a, %b : f32")
    return b.round("y_out", total)


def shared_expert(layer: Layer, x: Value, y: Value) -> Value:
    """``y`` plus a SwiGLU MLP that every token passes."""
    parameters = [layer.weight("shared_gate_proj", SHARED, H),
                  layer.weight("shared_up_proj", SHARED, H),
                  layer.weight("shared_down_proj", H, SHARED)]
    return add(layer, y, swiglu_mlp(layer.body, x, *parameters))


# --------------------------------------------------------------------------
# Models of today
# --------------------------------------------------------------------------


@family
def mixtral(layer: Layer) -> None:
    """Mixtral 8x7B: softmax, the best two, renormalised; SwiGLU experts."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 2, "normalize(<sum>)")
    layer.results = [routed(layer, x, weights, ids)]


@family
def qwen3_moe(layer: Layer) -> None:
    """Qwen3-30B-A3B: as Mixtral, with more choices."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 4, "normalize(<sum>)")
    layer.results = [routed(layer, x, weights, ids)]


@family
def olmoe(layer: Layer) -> None:
    """OLMoE: softmax, the best K, not renormalised."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 4)
    layer.results = [routed(layer, x, weights, ids)]


@family
def jamba(layer: Layer) -> None:
    """Jamba v0.1: softmax, the best two, not renormalised."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 2)
    layer.results = [routed(layer, x, weights, ids)]


@family
def dbrx(layer: Layer) -> None:
    """DBRX: softmax, the best four, divided by their 1-norm; the second product takes its
    weights as [in, out]."""

    def mlp(b: Block, rows: Value, w1: Value, v1: Value, w2: Value) -> Value:
        h = b.map("h", [b.linear("g", rows, w1), b.linear("u", rows, v1)], SWIGLU)
        return b.round("rows_out", b.matmul("d", b.round("h_rounded", h), w2))

    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 4, "normalize(<norm, p = 1.0>)")
    layer.results = [routed(layer, x, weights, ids, mlp=lambda f, e: (
        [f.weight(n, e, I, H) for n in ("w1", "v1", "w2")], mlp))]


@family
def deepseek_v2_lite(layer: Layer) -> None:
    """DeepSeek-V2-Lite: softmax, greedy, not renormalised, and a shared expert."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 3, "scale(1.0)")
    layer.results = [shared_expert(layer, x, routed(layer, x, weights, ids))]


@family
def deepseek_v2(layer: Layer) -> None:
    """DeepSeek-V2: softmax, the best groups by their best expert, scaled; a shared expert."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(
        logits, 3, "groups(<count = 4, keep = 2, score = max, fill = zero>) scale(16.0)")
    layer.results = [shared_expert(layer, x, routed(layer, x, weights, ids))]


@family
def deepseek_v3(layer: Layer) -> None:
    """DeepSeek-V3: sigmoid, a bias for the selection only, the best groups by the sum of their
    best two experts, renormalised, scaled; a shared expert."""
    x, logits = start(layer)
    bias = layer.weight("e_score_correction_bias", E, element="f32")
    weights, ids = layer.body.gate(
        logits, 3, f"bias({bias} : {bias.type}) | score(sigmoid) groups(<count = 4, keep = 2, "
        "score = top2_sum>) normalize(<sum, epsilon = 1.0e-20>) scale(2.5)")
    layer.results = [shared_expert(layer, x, routed(layer, x, weights, ids))]


@family
def glm4_moe(layer: Layer) -> None:
    """GLM-4.5-Air and Kimi K2: as DeepSeek-V3 with a single group."""
    x, logits = start(layer)
    bias = layer.weight("e_score_correction_bias", E, element="f32")
    weights, ids = layer.body.gate(
        logits, 3, f"bias({bias} : {bias.type}) | score(sigmoid) "
        "normalize(<sum, epsilon = 1.0e-20>) scale(2.827)")
    layer.results = [shared_expert(layer, x, routed(layer, x, weights, ids))]


@family
def gpt_oss(layer: Layer) -> None:
    """gpt-oss: router with bias, the best of the logits, then softmax over them. Experts with
    biases, gate and up interleaved, weights [in, out], clamped SwiGLU."""

    def mlp(b: Block, rows: Value, gate_up: Value, gate_up_bias: Value, down: Value,
            down_bias: Value) -> Value:
        both = b.add_row("gate_up_biased", b.matmul("gate_up", rows, gate_up), gate_up_bias)
        parts = [b.slice("gate_part", both, 0, I, 2), b.slice("up_part", both, 1, I, 2)]
        h = b.map("h", parts, CLAMPED_SWIGLU)
        d = b.add_row("d_biased", b.matmul("d", b.round("h_rounded", h), down), down_bias)
        return b.round("rows_out", d)

    x, logits = start(layer)
    logits = layer.body.add_row("logits_biased", logits, layer.weight("router_bias", E))
    weights, ids = layer.body.gate(logits, 4, "order(select_then_score)")
    layer.results = [routed(layer, x, weights, ids, mlp=lambda f, e: (
        [f.weight("gate_up_proj", e, H, 2 * I), f.weight("gate_up_proj_bias", e, 2 * I),
         f.weight("down_proj", e, I, H), f.weight("down_proj_bias", e, H)], mlp))]


@family
def granitemoe(layer: Layer) -> None:
    """Granite 3.0: the best of the logits, then softmax over them."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 4, "order(select_then_score)")
    layer.results = [routed(layer, x, weights, ids)]


@family
def llama4(layer: Layer) -> None:
    """Llama 4: one expert, the sigmoid of its logit multiplies the expert's input; a shared
    expert; gate and up side by side, weights [in, out]."""

    def mlp(b: Block, rows: Value, gate_up: Value, down: Value) -> Value:
        both = b.matmul("gate_up", rows, gate_up)
        h = b.map("h", [b.slice("gate_part", both, 0, I), b.slice("up_part", both, I, I)], SWIGLU)
        return b.round("rows_out", b.matmul("d", b.round("h_rounded", h), down))

    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 1, "score(sigmoid) order(select_then_score)")
    y = routed(layer, x, None, ids, dispatch=f"weights({weights} : {weights.type}) | scale_rows",
               mlp=lambda f, e: ([f.weight("gate_up_proj", e, H, 2 * I),
                                  f.weight("down_proj", e, I, H)], mlp))
    layer.results = [shared_expert(layer, x, y)]


@family
def phimoe(layer: Layer) -> None:
    """Phi-3.5-MoE: SparseMixer, every choice scored anew over the experts that are near the
    best of those left."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 2, "order(score_each_choice) margin(0.02)")
    layer.results = [routed(layer, x, weights, ids)]


@family
def switch(layer: Layer) -> None:
    """Switch Transformer: one expert, a fixed capacity in token order; what overflows is
    dropped (the residual outside passes it on)."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 1)
    layer.results = [routed(layer, x, weights, ids, dispatch="| capacity(<fixed = 5>)",
                            mlp=relu_experts)]


@family
def switch_passthrough(layer: Layer) -> None:
    """Switch as in Mesh-TensorFlow's evaluation: an overflowing token passes by, scaled like the
    expert would have been."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 1)
    layer.results = [routed(
        layer, x, weights, ids,
        dispatch="| capacity(<factor = 1.0, rounding = floor, minimum = 1>)",
        combine=f"dropped({x} : {x.type})", mlp=relu_experts)]


@family
def gemma4(layer: Layer) -> None:
    """Gemma 4: the router reads the RMS-normed input times a scale; softmax, the best K,
    renormalised, times a scale per expert; GeGLU experts with the tanh form."""

    def mlp(b: Block, rows: Value, gate_up: Value, down: Value) -> Value:
        both = b.linear("gate_up", rows, gate_up)
        h = b.map("h", [b.slice("gate_part", both, 0, I), b.slice("up_part", both, I, I)],
                  GEGLU_TANH)
        return b.round("rows_out", b.linear("d", b.round("h_rounded", h), down))

    b = layer.body
    x = layer.input("x", -1, H)
    wide = b.extend("x_f32", x)
    b.line(f"%squares_empty = tensor.empty(%t) : tensor<?xf32>\n"
           f"%squares_zero = linalg.fill ins(%zero : f32) outs(%squares_empty : tensor<?xf32>) "
           f"-> tensor<?xf32>")
    squares = b.let("squares", (-1,), "f32", f"""\
linalg.generic {{indexing_maps = [#id, #column], iterator_types = ["parallel", "reduction"]}}
    ins({wide} : {wide.type}) outs(%squares_zero : tensor<?xf32>) {{
^bb0(%a: f32, %sum: f32):
  %square = arith.mulf %a, %a : f32
  %r = arith.addf %sum, %square : f32
  linalg.yield %r : f32
}} -> {{type}}""")
    scale = layer.weight("router_scale", H, element="f32")
    normed = b.map("normed", [wide, squares, scale], f"""
%size = arith.constant {H}.0 : f32
%eps = arith.constant 1.0e-06 : f32
%root = arith.constant {H ** -0.5!r} : f32
%mean = arith.divf %b, %size : f32
%safe = arith.addf %mean, %eps : f32
%inverse = math.rsqrt %safe : f32
%unit = arith.mulf %a, %inverse : f32
%s = arith.mulf %unit, %c : f32
%r = arith.mulf %s, %root : f32""", maps=["#id", "#column", "#row"])
    logits = b.linear("logits", normed, layer.weight("router", E, H, element="f32"))
    weights, ids = b.gate(logits, 3, "normalize(<sum>)")
    per_expert = layer.weight("per_expert_scale", E, element="f32")
    weights = b.map("weights_scaled", [weights, ids], f"""
%e = arith.index_cast %b : i32 to index
%s = tensor.extract {per_expert}[%e] : {per_expert.type}
%r = arith.mulf %a, %s : f32""")
    layer.results = [routed(layer, x, weights, ids, mlp=lambda f, e: (
        [f.weight("gate_up_proj", e, 2 * I, H), f.weight("down_proj", e, H, I)], mlp))]


# --------------------------------------------------------------------------
# The systems the field grew from
# --------------------------------------------------------------------------


@family
def noisy_topk(layer: Layer) -> None:
    """Tensor2Tensor's noisy top-k: logits + normal * (softplus(x Wn) + 0.01), softmax over the
    best two. The normal noise is an input."""
    x, logits = start(layer)
    b = layer.body
    normal = layer.input("normal", -1, E, element="f32")
    raw = b.linear("noise_logits", x, layer.weight("noise_router", E, H))
    noise = b.map("noise", [raw, normal], """
%z = arith.constant 0.0 : f32
%floor = arith.constant 0.01 : f32
%abs = math.absf %a : f32
%neg = arith.negf %abs : f32
%exp = math.exp %neg : f32
%log = math.log1p %exp : f32
%max = arith.maximumf %a, %z : f32
%softplus = arith.addf %max, %log : f32
%sigma = arith.addf %softplus, %floor : f32
%r = arith.mulf %sigma, %b : f32""")
    weights, ids = b.gate(logits, 2, f"noise({noise} : {noise.type}) | order(select_then_score)")
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts)]


@family
def expert_choice(layer: Layer) -> None:
    """Expert choice: softmax over the experts, every expert takes its best 2 T / E tokens."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(
        logits, E, "select(expert_choice) capacity(<factor = 2.0, rounding = floor>)")
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts)]


@family
def mesh_expert_selection(layer: Layer) -> None:
    """Mesh-TensorFlow's expert_selection: softmax over the tokens, every expert takes its top
    C."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(
        logits, E, "score_axis(tokens) select(expert_choice) capacity(<factor = 1.25, "
        "rounding = floor, minimum = 4, at_most_tokens>)")
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts)]


@family
def hash_layer(layer: Layer) -> None:
    """Hash layers: the expert comes from the token id, with weight 1."""
    x = layer.input("x", -1, H)
    ids = layer.input("ids", -1, 1, element="i32")
    layer.results = [routed(layer, x, None, ids, mlp=relu_experts)]


@family
def given_route(layer: Layer) -> None:
    """A recorded route is played back: ids are an input, weights their renormalised softmax."""
    x, logits = start(layer)
    ids = layer.input("ids", -1, 2, element="i32")
    weights, ids = layer.body.gate(logits, 2, f"ids({ids} : {ids.type}) | normalize(<sum>)")
    layer.results = [routed(layer, x, weights, ids)]


@family
def dense_mixture(layer: Layer) -> None:
    """A dense mixture: every expert on every token, weighted by the softmax."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, E)
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts)]


@family
def deepspeed_top1(layer: Layer) -> None:
    """DeepSpeed top-1: capacity max(ceil(T / E * 1.25), 2), in token order."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 1)
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts,
                            dispatch="| capacity(<factor = 1.25, minimum = 2>)")]


@family
def deepspeed_top2(layer: Layer) -> None:
    """DeepSpeed top-2: capacity max(ceil(T / E * 2), 2), first choices before second ones,
    renormalised after drops."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 2)
    layer.results = [routed(
        layer, x, weights, ids, mlp=relu_experts,
        dispatch="| capacity(<factor = 2.0, minimum = 2>) priority(choice)",
        combine="normalize(<sum, epsilon = 1.1920929e-07, guard = clamp>)")]


@family
def deepspeed_topk(layer: Layer) -> None:
    """DeepSpeed top-k: a full expert keeps the largest probabilities; renormalised after
    drops."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 3)
    layer.results = [routed(
        layer, x, weights, ids, mlp=relu_experts,
        dispatch=f"weights({weights} : {weights.type}) | capacity(<factor = 3.0, minimum = 2>) "
        "priority(probability)",
        combine="normalize(<sum, epsilon = 1.1920929e-07, guard = clamp>)")]


@family
def mesh_top2(layer: Layer) -> None:
    """Mesh-TensorFlow and GShard top-2: renormalised before drops, all first choices placed
    before second ones, C = max(min(T, floor(1.25 T / E)), 4)."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 2, "normalize(<sum, epsilon = 1.0e-9>)")
    layer.results = [routed(
        layer, x, weights, ids, mlp=relu_experts,
        dispatch="| capacity(<factor = 1.25, rounding = floor, minimum = 4, at_most_tokens>) "
        "priority(choice)")]


@family
def mesh_ntlb(layer: Layer) -> None:
    """Mesh-TensorFlow, no token left behind: a token whose expert is full retries with its next
    choice."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, 3)
    layer.results = [routed(
        layer, x, weights, ids, mlp=relu_experts,
        dispatch="| capacity(<factor = 1.25, rounding = floor, minimum = 2>) priority(choice) "
        "overflow(next_choice) choices(1)")]


@family
def hierarchical(layer: Layer) -> None:
    """Two-level mixture (Tensor2Tensor): two of four groups, then two of the group's four
    experts; the gates multiply."""
    groups, inner, k = 4, 4, 2
    b = layer.body
    x, logits = start(layer, groups)
    weights, ids = b.gate(logits, k, "order(select_then_score)")
    grouped, offsets, positions = b.dispatch(x, ids, groups)
    secondary = layer.weight("secondary_router", groups, inner, H)
    logits2 = b.expert("secondary_logits", grouped, offsets, [secondary],
                       lambda nested, rows, w: nested.linear("s", rows, w),
                       columns=inner, element="f32")
    b.line(f"%rows_total = tensor.dim {grouped}, %c0 : {grouped.type}")
    b.rows = "%rows_total"
    weights2, local = b.gate(logits2, k, "order(select_then_score)")
    # The group of a row is the number of groups that end at or before it.
    terms = "\n".join(
        f"%c{g} = arith.constant {g} : index\n"
        f"%o{g} = tensor.extract {offsets}[%c{g}] : {offsets.type}\n"
        f"%p{g} = arith.cmpi sge, %row, %o{g} : i32\n"
        f"%q{g} = arith.extui %p{g} : i1 to i32" for g in range(1, groups))
    ids2 = b.map("ids_global", [local], f"""
%i = linalg.index 0 : index
%row = arith.index_cast %i : index to i32
%size = arith.constant {inner} : i32
{terms}
%s1 = arith.addi %q1, %q2 : i32
%g = arith.addi %s1, %q3 : i32
%base = arith.muli %g, %size : i32
%r = arith.addi %base, %a : i32""", "i32")
    rows = routed(layer, grouped, weights2, ids2, groups * inner, mlp=relu_experts)
    b.rows = "%t"
    layer.results = [b.combine("y_tokens", rows, positions, weights)]


@family
def residual_moe(layer: Layer) -> None:
    """Residual (PR-)MoE: c0 * moe + c1 * mlp with c = softmax(x Wc)."""
    x, logits = start(layer)
    b = layer.body
    weights, ids = b.gate(logits, 1)
    y = routed(layer, x, weights, ids, mlp=relu_experts)
    mlp = relu_mlp(b, x, layer.weight("mlp_wi", SHARED, H), layer.weight("mlp_wo", H, SHARED))
    c = b.linear("coefficient_logits", x, layer.weight("coefficient", 2, H))
    mixed = b.map("mixed", [b.extend("y_f32", y), b.extend("mlp_f32", mlp), c, c], """
%one = arith.constant 1.0 : f32
%gap = arith.subf %d, %c : f32
%exp = math.exp %gap : f32
%den = arith.addf %one, %exp : f32
%c0_ = arith.divf %one, %den : f32
%c1_ = arith.subf %one, %c0_ : f32
%m0 = arith.mulf %c0_, %a : f32
%m1 = arith.mulf %c1_, %b : f32
%r = arith.addf %m0, %m1 : f32""", maps=["#id", "#id", "#first", "#second"])
    layer.results = [b.round("y_out", mixed)]


@family
def moe_plus_plus(layer: Layer) -> None:
    """MoE++: five SwiGLU experts, then a zero, a copy and a constant expert; the constant one
    is a0 x + a1 v with a = softmax(x Wc)."""
    x, logits = start(layer)
    b = layer.body
    weights, ids = b.gate(logits, 2)
    grouped, offsets, positions = b.dispatch(x, ids, E)
    parameters, body = swiglu(layer, 5)
    ffn = b.expert("ffn", grouped, offsets, parameters, body,
                   "first(0) count(5) uncovered(zero)")
    copy = b.expert("copy", grouped, offsets, [], lambda _, rows: rows,
                    f"init({ffn} : {ffn.type}) first(6) count(1)")

    def constant(nested: Block, rows: Value, vector: Value, router: Value) -> Value:
        c = nested.linear("mix", rows, router)
        mixed = nested.map("mixed", [nested.extend("rows_f32", rows), vector, c, c], """
%one = arith.constant 1.0 : f32
%gap = arith.subf %d, %c : f32
%exp = math.exp %gap : f32
%den = arith.addf %one, %exp : f32
%a0 = arith.divf %one, %den : f32
%a1 = arith.subf %one, %a0 : f32
%m0 = arith.mulf %a0, %a : f32
%m1 = arith.mulf %a1, %b : f32
%r = arith.addf %m0, %m1 : f32""", maps=["#id", "#row", "#first", "#second"])
        return nested.round("rows_out", mixed)

    out = b.expert("constant", grouped, offsets,
                   [layer.weight("constant_vector", 1, H, element="f32"),
                    layer.weight("constant_router", 1, 2, H)], constant,
                   f"init({copy} : {copy.type}) first(7) count(1)")
    layer.results = [b.combine("y", out, positions, weights)]


@family
def remoe(layer: Layer) -> None:
    """ReMoE: weights are the ReLU of the logits, a token has as many experts as are positive."""
    x, logits = start(layer)
    weights, ids = layer.body.gate(logits, E, "score(relu) threshold(0.0)")
    layer.results = [routed(layer, x, weights, ids, mlp=relu_experts)]


def main() -> int:
    FILES.mkdir(parents=True, exist_ok=True)
    for name in FAMILIES:
        (FILES / f"{name}.mlir").write_text(text(name))
    print(f"wrote {len(FAMILIES)} files to {FILES}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
