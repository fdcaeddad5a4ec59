"""moe.auxiliary_loss and its gradient against the papers' formulas in float64, by PyTorch's
autograd, and against the functions of transformers; moe.update_bias against its formula."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from moe_testing import data
from torch import Tensor

E, K, S = 6, 3, 4
# Sums over tokens run in f32; bf16 and f16 round the gradient once.
TOLERANCE = {"f32": 4e-6, "bf16": 2.0**-8 + 4e-6, "f16": 2.0**-11 + 4e-6}


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


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


@functools.cache
def module(pipeline: str):
    import moe

    texts = [c.text(n) for n, c in CASES.items()] + [balance_text(e) for e in BIAS]
    return moe.compile("\n".join(texts), options=[f"--pipeline={pipeline}"])


@functools.cache
def layer(name: str, pipeline: str = "moe-cpu"):
    return module(pipeline).layer([], function=name)


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


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
@pytest.mark.parametrize("name", CASES)
def test_formula(name, pipeline, record):
    for tokens in (0, 1, 65):
        inputs = inputs_of(name, tokens)
        loss, d = layer(name, pipeline)(**inputs)
        exact, gradient = expected(name, inputs)
        assert loss.dtype == np.float32 and loss.shape == ()
        assert abs(loss - exact) <= TOLERANCE["f32"] * max(abs(exact), 1e-30), (loss, exact)
        error = of_largest(d, gradient)
        record(f"auxiliary_loss {CASES[name].element}", error)
        assert error <= TOLERANCE[CASES[name].element], (name, tokens)
        if "mask" in inputs:
            assert not d[inputs["mask"] == 0].any()


# --------------------------------------------------------------------------
# The functions of frameworks
# --------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_transformers_load_balancing(masked):
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    name = "mixtral" if masked else "switch"
    inputs = inputs_of(name, 60)
    logits = torch.from_numpy(inputs["values"]).double().requires_grad_()
    ids = logits.softmax(1).topk(K)[1]
    inputs["ids"] = ids.numpy().astype(np.int32)
    mask = torch.from_numpy(inputs["mask"]).view(3, 20) if masked else None
    exact = mixtral.load_balancing_loss_func((logits,), E, K, mask) * CASES[name].coefficient
    exact.backward(torch.tensor(1.5))
    loss, d = layer(name)(**inputs)
    assert loss == pytest.approx(exact.item(), rel=2e-6)
    assert of_largest(d, logits.grad.numpy()) <= TOLERANCE["f32"]


def test_transformers_switch():
    """A loss for each sequence of the batch, and the mean; one choice."""
    switch = pytest.importorskip("transformers.models.switch_transformers."
                                 "modeling_switch_transformers")
    inputs = inputs_of("deepseek_v2", 60)
    logits = torch.from_numpy(inputs["values"]).double().requires_grad_()
    first = logits.argmax(1)
    inputs["ids"] = np.stack([first.numpy()] + [np.full(60, -1)] * (K - 1), 1).astype(np.int32)
    inputs["sequences"] = np.arange(0, 75, 15, dtype=np.int32)
    exact = switch.load_balancing_loss_func(logits.softmax(1).view(S, 15, E), first.view(S, 15))
    (exact / K).backward(torch.tensor(1.5))
    loss, d = layer("deepseek_v2")(**inputs)
    assert loss * K == pytest.approx(exact.item(), rel=2e-6)
    assert of_largest(d, logits.grad.numpy()) <= TOLERANCE["f32"]


def test_transformers_z():
    switch = pytest.importorskip("transformers.models.switch_transformers."
                                 "modeling_switch_transformers")
    inputs = inputs_of("z", 60)
    logits = torch.from_numpy(inputs["values"]).double().requires_grad_()
    exact = switch.router_z_loss_func(logits[None]) * CASES["z"].coefficient
    exact.backward(torch.tensor(1.5))
    loss, d = layer("z")(**inputs)
    assert loss == pytest.approx(exact.item(), rel=2e-6)
    assert of_largest(d, logits.grad.numpy()) <= TOLERANCE["f32"]


# --------------------------------------------------------------------------
# What must stay finite
# --------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_masked_tokens_are_not_read(name):
    """NaN in padding changes nothing; in a token that counts, it is the loss, and stays in the
    gradient of that token."""
    case, inputs = CASES[name], inputs_of(name, 65)
    inputs["values"][3] = np.nan
    if not case.mask:
        loss, d = layer(name)(**inputs)
        if not case.sequences:
            assert np.isnan(loss)
        if case.formula != "importance":  # there the sum is of all tokens
            rest = np.arange(65) != 3
            assert not np.isnan(d[rest]).any()
        return
    inputs["mask"][3] = 0
    loss, d = layer(name)(**inputs)
    inputs["values"][3] = 1
    same, gradient = layer(name)(**inputs)
    assert np.isfinite(loss) and loss == same
    assert np.array_equal(data.bits(d), data.bits(gradient)) and not d[3].any()
    inputs["mask"][:] = 0
    loss, d = layer(name)(**inputs)
    assert loss == 0 and not d.any()


def test_importance_at_perfect_balance():
    """Zero variance: a gradient of 0, and not of 0 / 0."""
    inputs = inputs_of("importance", 60)
    inputs["ids"] = (np.arange(60)[:, None] * K + np.arange(K)).astype(np.int32) % E
    inputs["values"] = np.full((60, K), 0.25, np.float32)
    loss, d = layer("importance")(**inputs)
    assert loss == 0 and not d.any()
    inputs["values"][:] = 0
    loss, d = layer("importance")(**inputs)
    assert loss == 0 and not d.any()


def test_empty_experts_and_extreme_logits():
    inputs = inputs_of("switch", 60)
    inputs["ids"][:] = 2
    loss, d = layer("switch")(**inputs)
    assert np.isfinite(loss) and np.isfinite(d).all() and d.any()
    for value in (1e30, -1e30, 88.0, -104.0):
        inputs["values"][5] = value
        inputs["values"][6] = np.linspace(-value, value, E)
        for name in ("switch", "sigmoid"):
            loss, d = layer(name)(**inputs)
            assert np.isfinite(loss) and np.isfinite(d).all()


@pytest.mark.parametrize("element", BIAS)
def test_update_bias(element):
    """Auxiliary-loss-free balancing (arXiv:2408.15664): b += u · sign(mean − load)."""
    r = data.rng("update bias")
    for tokens in (0, 1, 64):
        ids = (r.integers(-1, E + 2, (tokens, K)) // 2).astype(np.int32)
        mask = (r.random(tokens) < 0.8).astype(np.int32)
        bias = r.standard_normal(6).astype(np.float32).astype(data.numpy_type(element))
        load, new = layer(f"update_{element}")(ids=ids, mask=mask, bias=bias)
        exact = np.array([(ids[mask != 0] == e).sum() for e in range(E)])
        assert np.array_equal(load, exact)
        step = 1e-3 * np.sign(exact.mean() - exact)
        moved = (bias.astype(np.float32) + step.astype(np.float32)).astype(bias.dtype)
        assert np.array_equal(data.bits(new), data.bits(moved))


# --------------------------------------------------------------------------
# Backward functions
# --------------------------------------------------------------------------

# Tensor2Tensor's load: the probability that a token is sent to an expert if the noise of that
# expert is drawn again. Its threshold is the noisy logit that it has to exceed, the best K
# without it. The loss is that of importance, where each token gives each expert its probability.
LOAD = f"""
#each = affine_map<(t, e) -> (t, e)>
#token = affine_map<(t, e) -> (t)>
func.func @load(%clean: tensor<?x{E}xf32> {{moe.role = "input", moe.name = "clean"}},
    %draws: tensor<?x{E}xf32> {{moe.role = "input", moe.name = "draws"}},
    %deviation: tensor<?x{E}xf32> {{moe.role = "input", moe.name = "deviation"}}) -> tensor<f32> {{
  %c0 = arith.constant 0 : index
  %t = tensor.dim %clean, %c0 : tensor<?x{E}xf32>
  %empty = tensor.empty(%t) : tensor<?x{E}xf32>
  %noisy = linalg.generic {{indexing_maps = [#each, #each, #each, #each],
      iterator_types = ["parallel", "parallel"]}}
      ins(%clean, %draws, %deviation : tensor<?x{E}xf32>, tensor<?x{E}xf32>, tensor<?x{E}xf32>)
      outs(%empty : tensor<?x{E}xf32>) {{
  ^bb0(%x: f32, %n: f32, %s: f32, %old: f32):
    %scaled = arith.mulf %n, %s : f32
    %sum = arith.addf %x, %scaled : f32
    linalg.yield %sum : f32
  }} -> tensor<?x{E}xf32>
  %best, %order = moe.gate %noisy top_k({K + 1}) score(none) : tensor<?x{E}xf32>
  %in = tensor.extract_slice %best[0, {K}] [%t, 1] [1, 1] : tensor<?x{K + 1}xf32> to tensor<?xf32>
  %out = tensor.extract_slice %best[0, {K - 1}] [%t, 1] [1, 1]
      : tensor<?x{K + 1}xf32> to tensor<?xf32>
  %p = linalg.generic {{indexing_maps = [#each, #each, #each, #token, #token, #each],
      iterator_types = ["parallel", "parallel"]}}
      ins(%clean, %deviation, %noisy, %in, %out : tensor<?x{E}xf32>, tensor<?x{E}xf32>,
          tensor<?x{E}xf32>, tensor<?xf32>, tensor<?xf32>) outs(%empty : tensor<?x{E}xf32>) {{
  ^bb0(%x: f32, %s: f32, %h: f32, %a: f32, %b: f32, %old: f32):
    %half = arith.constant 0.5 : f32
    %root = arith.constant 0.707106781186547524 : f32
    %isin = arith.cmpf ogt, %h, %a : f32
    %threshold = arith.select %isin, %a, %b : f32
    %above = arith.subf %x, %threshold : f32
    %z = arith.divf %above, %s : f32
    %y = arith.mulf %z, %root : f32
    %erf = math.erf %y : f32
    %less = arith.mulf %erf, %half : f32
    %cdf = arith.addf %less, %half : f32
    linalg.yield %cdf : f32
  }} -> tensor<?x{E}xf32>
  %none = tensor.empty(%t) : tensor<?x{E}xi32>
  %all = linalg.generic {{indexing_maps = [#each], iterator_types = ["parallel", "parallel"]}}
      outs(%none : tensor<?x{E}xi32>) {{
  ^bb0(%old: i32):
    %e = linalg.index 1 : index
    %id = arith.index_cast %e : index to i32
    linalg.yield %id : i32
  }} -> tensor<?x{E}xi32>
  %loss = moe.auxiliary_loss importance %p ids(%all : tensor<?x{E}xi32>) num_experts({E})
    coefficient(0.5) : tensor<?x{E}xf32>
  return %loss : tensor<f32>
}}
"""


def test_load_with_noise(record):
    """Shazeer et al. (arXiv:1701.06538), equations 8 to 11, with gradients of all three."""
    import moe

    compiled_loss = moe.compile(LOAD, options=["--backward=all"])
    forward = compiled_loss.layer([], function="load")
    backward = compiled_loss.layer([], function="load_backward")
    r = data.rng("load with noise")
    for tokens in (1, 65):
        inputs = {"clean": r.standard_normal((tokens, E)),
                  "draws": r.standard_normal((tokens, E)),
                  "deviation": np.log1p(np.exp(r.standard_normal((tokens, E)))) + 1e-2}
        inputs = {n: v.astype(np.float32) for n, v in inputs.items()}
        exact = {n: torch.from_numpy(v).double().requires_grad_() for n, v in inputs.items()}
        noisy = exact["clean"] + exact["draws"] * exact["deviation"]
        others = torch.stack([torch.cat([noisy[:, :e], noisy[:, e + 1:]], 1)
                              for e in range(E)], 1)
        threshold = others.sort(-1, descending=True)[0][..., K - 1]  # kth_excluding
        load = torch.special.ndtr((exact["clean"] - threshold) / exact["deviation"]).sum(0)
        loss = 0.5 * load.var(unbiased=False) / load.mean().square()
        loss.backward(torch.tensor(1.5, dtype=torch.float64))
        found, *saved = forward(**inputs)
        assert abs(found - loss.item()) <= TOLERANCE["f32"] * loss.item()
        given = {**inputs, "result0_gradient": np.array(1.5, np.float32),
                 **{f"saved{i}": s for i, s in enumerate(saved)}}
        gradients = backward(**{i.name: given[i.name] for i in backward.signature.inputs})
        for info, gradient in zip(backward.signature.outputs, gradients):
            error = of_largest(gradient, exact[info.name.removesuffix("_gradient")].grad.numpy())
            record("load with noise", error)
            assert error <= 2 * TOLERANCE["f32"], (info.name, tokens)


def test_differentiated():
    """A loss in a function that is differentiated has the gradient of the operation, and adds to
    that of the weights of the choices."""
    import moe

    names = ["switch", "mixtral", "deepseek_v3", "z_mask", "importance_mask"]
    texts = []
    for name in names:
        case = CASES[name]
        loss, _, rest = case.text(name).partition("  %d = ")
        texts.append(loss.replace(f', %upstream: tensor<f32> {{moe.role = "input", '
                                  'moe.name = "upstream"}', "")
                     .replace(f"(tensor<f32>, {case.types['values']})", "tensor<f32>")
                     + "  return %loss : tensor<f32>\n}\n")
    texts.append(f"""
func.func @router(%logits: tensor<?x{E}xf32> {{moe.role = "input", moe.name = "logits"}})
    -> (tensor<?x{K}xf32>, tensor<f32>) {{
  %w, %ids = moe.gate %logits top_k({K}) : tensor<?x{E}xf32>
  %loss = moe.auxiliary_loss load_balance %logits ids(%ids : tensor<?x{K}xi32>)
    : tensor<?x{E}xf32>
  return %w, %loss : tensor<?x{K}xf32>, tensor<f32>
}}
""")
    compiled_losses = moe.compile("\n".join(texts), options=["--backward=0"])
    for name in names:
        inputs = inputs_of(name, 65)
        loss, d = layer(name)(**inputs)
        upstream = inputs.pop("upstream")
        found = compiled_losses.layer([], function=name)(**inputs)
        backward = compiled_losses.layer([], function=f"{name}_backward")
        given = {**inputs, "result0_gradient": upstream}
        gradient = backward(**{i.name: given[i.name] for i in backward.signature.inputs})
        assert found == loss and np.array_equal(data.bits(gradient), data.bits(d))
    logits = inputs_of("switch", 65)["values"]
    w, loss, *saved = compiled_losses.layer([], function="router")(logits)
    exact = torch.from_numpy(logits).double().requires_grad_()
    p, ids = exact.softmax(1).topk(K)
    expected_loss = balance(Case(), exact, ids)
    (p.sum() + (p * p).sum() + 1.5 * expected_loss).backward()
    backward = compiled_losses.layer([], function="router_backward")
    given = {"logits": logits, "result0_gradient": 1 + 2 * w,
             "result1_gradient": np.array(1.5, np.float32),
             **{f"saved{i}": s for i, s in enumerate(saved)}}
    gradient = backward(**{i.name: given[i.name] for i in backward.signature.inputs})
    assert loss == pytest.approx(expected_loss.item(), rel=2e-6)
    assert of_largest(gradient, exact.grad.numpy()) <= TOLERANCE["f32"]
