"""Gradients of gates: cases of moe.gate_gradient, and what they should be, by PyTorch's autograd of
the gate's formula in float64."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from moe.reference import Capacity, Normalize, gate
from torch import Tensor

from .. import data

E, K = 6, 3
# Of the largest gradient of a token.  In f32 what differs are the last bits of exp and pow, in
# differences that may cancel; bf16 and f16 round the result once.
TOLERANCE = {"f32": 4e-6, "bf16": 2.0**-8 + 4e-6, "f16": 2.0**-11 + 4e-6}


@dataclass(frozen=True)
class Case:
    score: str = "softmax"
    order: str = "score_then_select"
    axis: str = "experts"
    normalize: Normalize | None = None
    scale: float | None = None
    margin: float | None = None
    element: str = "f32"
    noise: str | None = None
    top_k: int = K
    experts: int = E
    expert_choice: bool = False

    def weights_text(self) -> str:
        """The attributes that the gate and its gradient share."""
        parts = [f"score({self.score}) score_axis({self.axis}) order({self.order})"]
        if self.margin is not None:
            parts.append(f"margin({self.margin:e})")
        if self.normalize:
            n = self.normalize
            p = f", p = {n.p:e}" if n.kind == "norm" else ""
            rest = "" if n.kind == "softmax" else f", epsilon = {n.epsilon:e}, guard = {n.guard}"
            parts.append(f"normalize(<{n.kind}{p}{rest}>)")
        if self.scale is not None:
            parts.append(f"scale({self.scale:e})")
        return " ".join(parts)

    def text(self, name: str, with_gate: bool) -> str:
        """The gradient for given ids, and on request a gate with its gradient."""
        e, k = self.experts, self.top_k
        logits = f"tensor<?x{e}x{self.element}>"
        weights, ids = f"tensor<?x{k}xf32>", f"tensor<?x{k}xi32>"

        def arguments(**types: str) -> str:
            return ", ".join(f'%{n}: {t} {{moe.role = "input", moe.name = "{n}"}}'
                             for n, t in types.items())

        noisy = {"noise": f"tensor<?x{e}x{self.noise}>"} if self.noise else {}
        noise = f"noise(%noise : {noisy['noise']})" if noisy else ""
        shared = self.weights_text()
        given = arguments(logits=logits, ids=ids, gradient=weights, **noisy)
        gradient = (f"moe.gate_gradient %logits, %ids, %gradient {noise} {shared}\n"
                    f"    : {logits}, {ids}, {weights}")
        text = f"""
func.func @{name}({given}) -> {logits} {{
  %d = {gradient}
  return %d : {logits}
}}
"""
        if not with_gate:
            return text
        # The clauses of a gate have an order.
        select = "select(expert_choice) capacity(<fixed = 4>)" if self.expert_choice else ""
        gate = shared.replace(f"order({self.order})", f"order({self.order}) {select}")
        first = arguments(logits=logits, gradient=weights, **noisy)
        return text + f"""
func.func @{name}_gate({first}) -> ({weights}, {ids}, {logits}) {{
  %weights, %ids = moe.gate %logits {noise} top_k({k}) {gate} : {logits}
  %d = {gradient}
  return %weights, %ids, %d : {weights}, {ids}, {logits}
}}
"""

    def gate(self, logits: np.ndarray, noise=None, ids=None) -> tuple[np.ndarray, np.ndarray]:
        """The definition of the gate, in f32."""
        choice = dict(select="expert_choice", capacity=Capacity(fixed=4))
        return gate(logits, noise=noise, ids=ids, top_k=self.top_k, score=self.score,
                    score_axis=self.axis, order=self.order, margin=self.margin,
                    normalize=self.normalize, scale=self.scale,
                    **(choice if self.expert_choice else {}))


SCORES = ("softmax", "sigmoid", "relu", "sqrt_softplus", "none")
NORMALIZE = (None, Normalize("softmax"), Normalize("sum"), Normalize("sum", epsilon=0.125),
             Normalize("sum", epsilon=0.6, guard="clamp"), Normalize("norm"),
             Normalize("norm", p=1.0, epsilon=0.125), Normalize("norm", p=0.5),
             Normalize("norm", p=3.5, epsilon=0.6, guard="clamp"))
SCORINGS = [dict(score=s, order=o) for s in SCORES
            for o in ("score_then_select", "select_then_score")]
SCORINGS += [dict(axis="tokens"), dict(order="score_each_choice"),
             dict(order="score_each_choice", margin=0.5)]
CASES = {f"g{i}": Case(**scoring, normalize=normalize, scale=(None, 2.5, -0.5)[i % 3])
         for i, (scoring, normalize) in enumerate(itertools.product(SCORINGS, NORMALIZE))}
CASES |= {
    "bf16": Case(normalize=Normalize("sum"), element="bf16", noise="f32"),
    "f16": Case(score="sigmoid", normalize=Normalize("sum"), element="f16", noise="bf16"),
    "each_bf16": Case(order="score_each_choice", element="bf16", margin=0.5, noise="f16"),
    "all": Case(top_k=E, normalize=Normalize("norm")),
    "all_each": Case(top_k=E, order="score_each_choice", margin=0.5),
    "all_selected": Case(top_k=E, order="select_then_score", normalize=Normalize("sum")),
    "one": Case(top_k=1, experts=1, score="sigmoid"),
    "one_softmax": Case(top_k=1, experts=1, normalize=Normalize("sum")),
    "experts_choose": Case(top_k=E, expert_choice=True, normalize=Normalize("sum")),
    "experts_choose_sigmoid": Case(top_k=E, expert_choice=True, score="sigmoid"),
    "experts_choose_tokens": Case(top_k=E, expert_choice=True, axis="tokens", scale=2.5),
}


# With moe.gate in the same function, and as loops: some of each kind.
SOME = [n for i, n in enumerate(CASES) if i % 16 == 0 or not n.startswith("g")]


def logits_of(name: str, tokens: int) -> dict[str, np.ndarray]:
    """Logits of a token that lie apart, and none near 0: no ties within a small step."""
    case, r = CASES[name], data.rng("gate gradient", name, tokens)
    grid = np.linspace(-1.7, 1.9, case.experts)[None] + np.zeros((tokens, 1))
    logits = r.permuted(grid, axis=1) + r.uniform(-0.15, 0.15, grid.shape)
    made = {"logits": logits, "gradient": r.standard_normal((tokens, case.top_k))}
    if case.noise:
        made["noise"] = r.standard_normal(grid.shape)
    types = {"logits": case.element, "gradient": "f32", "noise": case.noise}
    return {n: v.astype(np.float32).astype(data.numpy_type(types[n])) for n, v in made.items()}


# --------------------------------------------------------------------------
# The formula in float64
# --------------------------------------------------------------------------


def scores_of(case: Case, values: Tensor) -> Tensor:
    if case.score == "softmax":
        return values.softmax(0 if case.axis == "tokens" else 1)
    return {"sigmoid": torch.sigmoid, "relu": torch.relu, "none": lambda v: v,
            "sqrt_softplus": lambda v: torch.nn.functional.softplus(v, threshold=1e9).sqrt(),
            }[case.score](values)


def each_choice(case: Case, logits: Tensor, ids: Tensor, valid: Tensor) -> Tensor:
    """The scores of the choices; one that is none has taken the best of those that are left."""
    left, columns = torch.ones_like(logits, dtype=torch.bool), []
    for k in range(case.top_k):
        best, first = logits.detach().masked_fill(~left, -torch.inf).max(1, keepdim=True)
        chosen = torch.where(valid[:, k:k + 1], ids[:, k:k + 1], first)
        counted = left.clone()
        if case.margin is not None:
            counted &= ~((best - logits) / torch.maximum(logits.abs(), best) > case.margin)
        p = logits.masked_fill(~counted, -torch.inf).softmax(1)
        columns.append(p.gather(1, chosen))
        left = left.scatter(1, chosen, False)
    return torch.cat(columns, 1)


def weights_of(case: Case, logits: Tensor, ids: Tensor) -> Tensor:
    """The weights of the choices ``ids``; a choice without an expert has weight 0."""
    valid = (ids >= 0) & (ids < case.experts)
    ids = torch.where(valid, ids, 0)
    if case.order == "score_each_choice":
        s = each_choice(case, logits, ids, valid)
    elif case.order == "score_then_select":
        s = scores_of(case, logits).gather(1, ids)
    else:
        chosen = logits.gather(1, ids)
        if case.score == "softmax":  # of a token without a choice, nothing is kept
            chosen = chosen.masked_fill(~valid & valid.any(1, keepdim=True), -torch.inf)
        s = scores_of(case, chosen)
    s = torch.where(valid, s, 0)
    n = case.normalize
    if n and n.kind == "softmax":
        some = valid.any(1, keepdim=True)
        s = torch.where(valid, s.masked_fill(~valid & some, -torch.inf).softmax(1), 0)
    elif n:
        d = (s.sum(1, keepdim=True) if n.kind == "sum" else
             torch.linalg.vector_norm(s, n.p, dim=1, keepdim=True))
        d = d.clamp(min=n.epsilon) if n.guard == "clamp" else d + n.epsilon
        s = torch.where(d == 0, 0, s / torch.where(d == 0, 1, d))
    return s if case.scale is None else s * case.scale


def expected(case: Case, ids: np.ndarray, logits: np.ndarray, gradient: np.ndarray,
             noise: np.ndarray | None = None) -> np.ndarray:
    """The gradient by autograd.  The limit for infinities is taken at 1e30; NaN counts as
    the negative one, and has gradient 0."""
    # A sum in f32, as the gate adds its noise.
    total = logits.astype(np.float32)
    if noise is not None:
        total = total + noise.astype(np.float32)
    # There PyTorch's root has an infinite slope.
    low = -60 if case.score == "sqrt_softplus" else -1e30
    finite = np.nan_to_num(total.astype(np.float64), nan=low, posinf=1e30, neginf=low)
    x = torch.from_numpy(finite).requires_grad_()
    w = weights_of(case, x, torch.from_numpy(ids.astype(np.int64)))
    w.backward(torch.from_numpy(gradient.astype(np.float64)))
    return np.where(np.isnan(total), 0, x.grad.numpy())


def choices_of(name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return CASES[name].gate(inputs["logits"], inputs.get("noise"))[1]
