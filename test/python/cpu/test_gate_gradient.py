"""moe.gate_gradient against PyTorch's autograd of the gate's formula in float64, and against
finite differences of moe.reference.gate."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from moe.reference import Capacity, Normalize, gate
from moe_testing import data
from torch import Tensor

E, K = 6, 3
# Of the largest gradient of a token.  In f32 what differs are the last bits of exp and pow, in
# differences that may cancel; bf16 and f16 round the result once.
TOLERANCE = {"f32": 4e-6, "bf16": 2.0**-8 + 4e-6, "f16": 2.0**-11 + 4e-6}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


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


@functools.cache
def module(pipeline: str):
    import moe

    names = CASES if pipeline == "moe-cpu" else SOME
    return moe.compile("\n".join(CASES[n].text(n, n in SOME) for n in names),
                       options=[f"--pipeline={pipeline}"])


@functools.cache
def layer(name: str, pipeline: str = "moe-cpu"):
    return module(pipeline).layer([], function=name)


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


def each_choice(case: Case, logits: Tensor, ids: Tensor) -> Tensor:
    left, columns = torch.ones_like(logits, dtype=torch.bool), []
    for k in range(case.top_k):
        chosen = ids[:, k:k + 1]
        counted = left.clone()
        if case.margin is not None:
            best = logits.gather(1, chosen).detach()
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
        s = each_choice(case, logits, ids)
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


# --------------------------------------------------------------------------
# Numbers
# --------------------------------------------------------------------------


def choices_of(name: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return CASES[name].gate(inputs["logits"], inputs.get("noise"))[1]


@pytest.mark.parametrize("name", CASES)
def test_autograd(name, record):
    case = CASES[name]
    for tokens in (0, 1, 33):
        inputs = logits_of(name, tokens)
        ids = choices_of(name, inputs)
        if case.expert_choice and tokens == 33:
            assert (ids < 0).mean() > 0.5
        d = layer(name)(ids=ids, **inputs)
        assert d.dtype == inputs["logits"].dtype
        error = data.relative_error(d, expected(case, ids, **inputs))
        record(f"gate_gradient {case.element}", error)
        assert error <= TOLERANCE[case.element], (case, tokens)


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
@pytest.mark.parametrize("name", SOME)
def test_after_gate(name, pipeline):
    """With the compiled gate before it."""
    inputs = logits_of(name, 33)
    _, ids, d = layer(f"{name}_gate", pipeline)(**inputs)
    assert np.array_equal(ids, choices_of(name, inputs))
    again = layer(name, pipeline)(ids=ids, **inputs)
    assert np.array_equal(data.bits(d), data.bits(again))
    assert data.relative_error(d, expected(CASES[name], ids, **inputs)) <= \
        TOLERANCE[CASES[name].element]


def test_runs_as_tasks():
    """Every loop over tokens is parallel; the compiler warns of none that is slow."""
    import warnings

    import moe

    case = Case(normalize=Normalize("sum"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moe.compile(case.text("f", True), cache=False)


@pytest.mark.parametrize("name", CASES)
def test_nan_gradient(name):
    """It stays in its token, or in the columns of a softmax over tokens."""
    case, tokens = CASES[name], 33
    inputs = logits_of(name, tokens)
    ids = choices_of(name, inputs)
    whole = layer(name)(ids=ids, **inputs)
    token, choice = (int(i[0]) for i in np.nonzero(ids >= 0))
    inputs["gradient"][token, choice] = np.nan
    d = layer(name)(ids=ids, **inputs)
    if case.score != "relu" or case.normalize:
        assert np.isnan(d[token]).any()
    if case.axis == "tokens":
        assert not np.isnan(d).all()
    else:
        rest = np.arange(tokens) != token
        assert np.array_equal(data.bits(d[rest]), data.bits(whole[rest]))


@pytest.mark.parametrize("name", [n for n, c in CASES.items()
                                  if c.element == "f32" and not c.expert_choice])
def test_finite_differences(name):
    """Differences of the gate's definition, of order 4; of a softmax over tokens as a whole."""
    case, tokens, h = CASES[name], 24, 2.0**-4
    inputs = logits_of(name, tokens)
    g = inputs["gradient"].astype(np.float64)
    ids = choices_of(name, inputs)
    d = layer(name)(ids=ids, **inputs)

    def loss(step: np.ndarray) -> np.ndarray:
        moved = (inputs["logits"] + step).astype(np.float32)
        fixed = None if case.order == "score_each_choice" else ids
        weights, others = case.gate(moved, ids=fixed)
        smooth[(others != ids).any(1)] = False
        return (weights * g).sum(1)

    smooth = np.ones(tokens, bool)
    direction = data.rng("direction", name).standard_normal((tokens, case.experts))
    direction = direction.astype(np.float32)
    steps = [h, h / 2, h / 4]
    slopes = [(loss(s * direction) - loss(-s * direction)) / (2 * s) for s in steps]
    coarse, fine = ((4 * b - a) / 3 for a, b in zip(slopes, slopes[1:]))
    along = (direction.astype(np.float64) * d).sum(1)
    size = np.abs(d).max() + 1e-3
    if case.axis == "tokens":
        coarse, fine, along = (v.sum(keepdims=True) for v in (coarse, fine, along))
    else:
        # A step over a kink (relu, clamp, margin) or a tie tells nothing.
        smooth &= np.abs(fine - coarse) < 0.02 * size
        assert smooth.sum() > tokens // 2, case
        coarse, fine, along = (v[smooth] for v in (coarse, fine, along))
    assert np.abs(fine - along).max() <= 5e-3 * size, case


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.expert_choice])
def test_hostile(name):
    """NaN, infinities and zeros in logits; ids that are -1 or out of range."""
    case, tokens = CASES[name], 64
    inputs, r = logits_of(name, tokens), data.rng("hostile", name)
    logits = inputs["logits"].astype(np.float32)
    hit = r.random(logits.shape)
    for low, value in ((0.0, np.nan), (0.1, -np.inf), (0.2, np.inf), (0.25, 0.0)):
        logits[(hit >= low) & (hit < low + 0.1)] = value
    logits[0], logits[1], logits[2] = np.nan, -np.inf, -5
    logits[40:, :] = np.where(np.isinf(logits[40:, :]), -90, logits[40:, :])
    inputs["logits"] = logits.astype(inputs["logits"].dtype)
    weights, ids = case.gate(inputs["logits"], inputs.get("noise"))
    d = layer(name)(ids=ids, **inputs)
    assert not np.isnan(d[np.isfinite(weights).all(1)]).any()
    usable = np.isfinite(weights).all(1)
    assert usable.sum() > 20

    def check(actual, ids, weights, usable):
        exact = expected(case, ids, **inputs)
        if case.score == "sqrt_softplus":  # the oracle's -60 is not low enough for these
            exact[(weights == 0).all(1)] = 0
        # Gradients of an infinite logit are what its formula gives: of a finite size.
        size = np.abs(exact).max(1)
        usable = usable & np.isfinite(exact).all(1) & (size < 1e6)
        assert np.isfinite(actual[usable]).all()
        error = np.abs(actual.astype(np.float64) - exact).max(1) / np.maximum(size, 1)
        assert error[usable].max() <= 2 * TOLERANCE[case.element], (case, error.argmax())

    check(d, ids, weights, usable)
    missing = ids.copy()
    odd = r.random(ids.shape)
    missing[odd < 0.3] = -1
    missing[(odd > 0.3) & (odd < 0.4)] = case.experts
    missing[(odd > 0.4) & (odd < 0.5)] = np.iinfo(np.int32).min
    missing[3] = -1
    d = layer(name)(ids=missing, **inputs)
    assert case.axis == "tokens" or not d[3].any()
    if case.order != "score_each_choice":  # it took the best that was left
        weights, _ = case.gate(inputs["logits"], inputs.get("noise"), missing)
        check(d, missing, weights, usable)
