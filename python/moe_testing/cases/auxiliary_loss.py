"""Losses of the load: cases of moe.auxiliary_loss and of moe.update_bias, and the papers' formulas
in float64, with gradients by PyTorch's autograd."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import data

E, K, S = 6, 3, 4
# Sums over tokens run in f32; bf16 and f16 round the gradient once.
TOLERANCE = {"f32": 4e-6, "bf16": 2.0**-8 + 4e-6, "f16": 2.0**-11 + 4e-6}


@dataclass(frozen=True)
class Case:
    formula: str = "load_balance"
    mask: str | None = None
    sequences: bool = False
    score: str = "softmax"
    choices: int | None = None
    coefficient: float = 1.0
    element: str = "f32"

    @property
    def types(self) -> dict[str, str]:
        columns = K if self.formula == "importance" else E
        made = {"values": f"tensor<?x{columns}x{self.element}>"}
        if self.formula != "router_z":
            made["ids"] = f"tensor<?x{K}xi32>"
        if self.mask:
            made["mask"] = f"tensor<?x{self.mask}>"
        if self.sequences:
            made["sequences"] = f"tensor<{S + 1}xi32>"
        return made

    def text(self, name: str) -> str:
        types = self.types
        clauses = [f"{n}(%{n} : {types[n]})" for n in ("ids", "mask", "sequences") if n in types]
        if self.score != "softmax":
            clauses.append(f"score({self.score})")
        if self.formula == "importance":
            clauses.append(f"num_experts({E})")
        if self.choices is not None:
            clauses.append(f"choices({self.choices})")
        rest = f"{' '.join(clauses)} coefficient({self.coefficient:.17e}) : {types['values']}"
        types["upstream"] = "tensor<f32>"
        arguments = ", ".join(f'%{n}: {t} {{moe.role = "input", moe.name = "{n}"}}'
                              for n, t in types.items())
        return f"""
func.func @{name}({arguments}) -> (tensor<f32>, {types["values"]}) {{
  %loss = moe.auxiliary_loss {self.formula} %values {rest}
  %d = moe.auxiliary_loss_gradient {self.formula} %values, %upstream {rest}, tensor<f32>
  return %loss, %d : tensor<f32>, {types["values"]}
}}
"""


CASES = {
    "switch": Case(),
    "mixtral": Case(mask="i64", coefficient=0.02),
    "first_choices": Case(choices=1),
    "deepspeed_topk": Case(coefficient=1 / K, mask="i8"),
    "deepseek_v2": Case(sequences=True, coefficient=1 / K),
    "deepseek_v3": Case(sequences=True, mask="i32", score="sigmoid", coefficient=1e-4 / K),
    "sigmoid": Case(score="sigmoid", choices=2),
    "balance_bf16": Case(element="bf16", mask="i32"),
    "z": Case("router_z", coefficient=1e-3),
    "z_mask": Case("router_z", mask="i32"),
    "z_f16": Case("router_z", element="f16"),
    "importance": Case("importance"),
    "importance_mask": Case("importance", mask="i64", coefficient=0.1),
    "importance_bf16": Case("importance", element="bf16"),
}
BIAS = {"f32": "tensor<6xf32>", "bf16": "tensor<6xbf16>"}


def balance_text(element: str) -> str:
    bias = BIAS[element]
    return f"""
func.func @update_{element}(%ids: tensor<?x{K}xi32> {{moe.role = "input", moe.name = "ids"}},
    %mask: tensor<?xi32> {{moe.role = "input", moe.name = "mask"}},
    %bias: {bias} {{moe.role = "input", moe.name = "bias"}}) -> (tensor<6xi32>, {bias}) {{
  %load = moe.expert_load %ids mask(%mask : tensor<?xi32>) num_experts(6) : tensor<?x{K}xi32>
  %new = moe.update_bias %load rate(1.0e-3) outs(%bias : {bias}) : tensor<6xi32>
  return %load, %new : tensor<6xi32>, {bias}
}}
"""


def inputs_of(name: str, tokens: int) -> dict[str, np.ndarray]:
    case, r = CASES[name], data.rng("loss", name, tokens)
    values = r.standard_normal((tokens, K if case.formula == "importance" else E)) * 2
    if case.formula == "importance":
        values = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    ids = np.argsort(r.standard_normal((tokens, E)) - np.arange(E) * 0.3, 1)[:, :K]
    ids[r.random(ids.shape) < 0.1] = -1
    made = {"values": values.astype(np.float32).astype(data.numpy_type(case.element)),
            "ids": ids.astype(np.int32), "mask": (r.random(tokens) < 0.7).astype(
                {"i8": np.int8, "i64": np.int64}.get(case.mask, np.int32)),
            "upstream": np.array(1.5, np.float32)}
    # One of the sequences is empty, and some tokens are of none.
    cuts = np.sort(r.integers(0, tokens + 1, S - 1))
    made["sequences"] = np.concatenate(
        [[tokens // 8], np.maximum(cuts, tokens // 8), [tokens]]).astype(np.int32)
    made["sequences"][2] = made["sequences"][1]
    return {n: made[n] for n in (*case.types, "upstream")}


# --------------------------------------------------------------------------
# The papers' formulas
# --------------------------------------------------------------------------


def one_hot(ids: Tensor) -> Tensor:
    """[T, K, E]; a choice of no expert is a row of zeros."""
    return (ids[..., None] == torch.arange(E)).double()


def balance(case: Case, logits: Tensor, ids: Tensor) -> Tensor:
    """Switch Transformer (arXiv:2101.03961), equations 4 to 6."""
    p = logits.softmax(1) if case.score == "softmax" else logits.sigmoid()
    p = p / p.sum(1, keepdim=True)
    f = one_hot(ids[:, :case.choices]).sum(1).mean(0)
    return E * (f * p.mean(0)).sum()


def formula(case: Case, values: Tensor, ids=None, mask=None, sequences=None, upstream=None):
    counts = torch.ones(len(values), dtype=torch.bool) if mask is None else mask != 0
    if not counts.any():
        return values.sum() * 0
    if case.formula == "router_z":  # ST-MoE (arXiv:2202.08906), equation 5
        return values[counts].logsumexp(1).square().mean()
    if case.formula == "importance":  # Shazeer et al. (arXiv:1701.06538), equations 6 and 7
        received = (one_hot(ids) * values[..., None])[counts].sum((0, 1))
        return received.var(unbiased=False) / (received.mean().square() + 1e-10)
    if sequences is None:
        return balance(case, values[counts], ids[counts])
    # DeepSeek-V3 (arXiv:2412.19437), equations 17 to 20, without the division by K
    losses = []
    for start, end in zip(sequences, sequences[1:]):
        part = counts[start:end]
        if part.any():
            losses.append(balance(case, values[start:end][part], ids[start:end][part]))
    return torch.stack(losses).mean() if losses else values.sum() * 0


def expected(name: str, inputs: dict[str, np.ndarray]) -> tuple[float, np.ndarray]:
    case = CASES[name]
    x = torch.from_numpy(inputs["values"].astype(np.float64)).requires_grad_()
    rest = {n: torch.from_numpy(v.astype(np.int64)) for n, v in inputs.items()
            if n in ("ids", "mask", "sequences")}
    loss = formula(case, x, **rest) * case.coefficient
    loss.backward(torch.tensor(float(inputs["upstream"]), dtype=torch.float64))
    return loss.item(), x.grad.numpy()


def of_largest(actual: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference, of the largest gradient of all: that of one token may cancel."""
    size = max(np.abs(exact).max(initial=0), 1e-30)
    return float(np.abs(actual.astype(np.float64) - exact).max(initial=0) / size)


def updated(ids: np.ndarray, mask: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The load of each expert, and b += u · sign(mean − load) (arXiv:2408.15664)."""
    load = np.array([(ids[mask != 0] == e).sum() for e in range(E)])
    step = 1e-3 * np.sign(load.mean() - load)
    return load, (bias.astype(np.float32) + step.astype(np.float32)).astype(bias.dtype)


def balance_inputs(element: str, tokens: int) -> dict[str, np.ndarray]:
    r = data.rng("update bias", element, tokens)
    bias = r.standard_normal(E).astype(np.float32).astype(data.numpy_type(element))
    return {"ids": (r.integers(-1, E + 2, (tokens, K)) // 2).astype(np.int32),
            "mask": (r.random(tokens) < 0.8).astype(np.int32), "bias": bias}
