"""moe.auxiliary_loss and its gradient against the papers' formulas in float64, by PyTorch's
autograd, and against the functions of transformers; moe.update_bias against its formula."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from moe_testing import data
from moe_testing.cases.auxiliary_loss import (BIAS, CASES, E, K, S, TOLERANCE, Case,
                                              balance, balance_inputs, balance_text, expected,
                                              inputs_of, of_largest, updated)


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@functools.cache
def module(pipeline: str):
    import moe

    texts = [c.text(n) for n, c in CASES.items()] + [balance_text(e) for e in BIAS]
    return moe.compile("\n".join(texts), options=[f"--pipeline={pipeline}"])


@functools.cache
def layer(name: str, pipeline: str = "moe-cpu"):
    return module(pipeline).layer([], function=name)


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


@pytest.mark.parametrize("choices", [1, 2, K])
def test_deepspeed(choices):
    """Its l_aux, which counts choices before any is dropped: the first one, but of top-k all."""
    sharded = pytest.importorskip("deepspeed.moe.sharded_moe")
    name = {1: "first_choices", 2: "first_choices", K: "deepspeed_topk"}[choices]
    inputs = inputs_of(name, 60)
    logits = torch.from_numpy(inputs["values"]).requires_grad_()  # its code needs f32
    inputs["ids"] = logits.softmax(1).topk(K)[1].numpy().astype(np.int32)
    if "mask" in inputs:
        inputs["mask"][:] = 1
    if choices == 2:
        exact = sharded.top2gating(logits, 1.0, 4, top2_2nd_expert_sampling=False)[0]
    elif choices == 1:
        exact = sharded.top1gating(logits, 1.0, 4, use_rts=False)[0]
    else:
        exact = sharded.topkgating(logits, choices, 1.0, 4)[0]
    exact.backward(torch.tensor(1.5))
    loss, d = layer(name)(**inputs)
    assert loss == pytest.approx(exact.item(), rel=2e-6)
    assert of_largest(d, logits.grad.numpy()) <= TOLERANCE["f32"]


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if not c.sequences])
def test_micro_batches(name):
    """A mean, not a sum: a coefficient stays the same when a batch is cut into equal parts."""
    part = inputs_of(name, 32)
    whole = {n: v if n == "upstream" else np.concatenate([v] * 4) for n, v in part.items()}
    (loss, d), (its, gradient) = layer(name)(**whole), layer(name)(**part)
    assert loss == pytest.approx(its, rel=TOLERANCE["f32"]) and its
    wanted = np.concatenate([gradient.astype(np.float64) / 4] * 4)
    assert of_largest(d, wanted) <= 2 * TOLERANCE[CASES[name].element]


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
    """Auxiliary-loss-free balancing."""
    for tokens in (0, 1, 64):
        inputs = balance_inputs(element, tokens)
        load, new = layer(f"update_{element}")(**inputs)
        exact, moved = updated(**inputs)
        assert np.array_equal(load, exact)
        assert np.array_equal(data.bits(new), data.bits(moved))


@pytest.mark.parametrize("pipeline", ["moe-cpu", "moe-reference"])
@pytest.mark.parametrize("element", BIAS)
def test_update_bias_in_place(element, pipeline):
    """The bias is state in the memory of the caller, with which the next step starts."""
    import moe

    bias = BIAS[element]
    text = balance_text(element).replace('"bias"}', '"bias", moe.accumulates = "new"}').replace(
        f"(tensor<6xi32>, {bias}) {{", f'(tensor<6xi32>, {bias} {{moe.name = "new"}}) {{')
    update = moe.compile(text, options=[f"--pipeline={pipeline}"]).layer([])
    assert [info.accumulates for info in update.signature.outputs] == [False, True]
    assert [info.name for info in update.signature.inputs] == ["ids", "mask"]
    inputs = balance_inputs(element, 64)
    state, exact = inputs["bias"].copy(), inputs["bias"]
    for _ in range(3):
        exact = updated(**{**inputs, "bias": exact})[1]
        update(ids=inputs["ids"], mask=inputs["mask"], out=(np.empty(6, np.int32), state))
        assert np.array_equal(data.bits(state), data.bits(exact))
    assert not np.array_equal(data.bits(state), data.bits(inputs["bias"]))


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


H, I = 8, 5
# The second result is the loss of the load of this layer.
LAYER = f"""
func.func @layer(%x: tensor<?x{H}xf32> {{moe.role = "input", moe.name = "x"}},
    %router: tensor<{H}x{E}xf32> {{moe.role = "weight", moe.name = "router"}},
    %w1: tensor<{E}x{H}x{I}xf32> {{moe.role = "weight", moe.name = "w1"}},
    %w2: tensor<{E}x{I}x{H}xf32> {{moe.role = "weight", moe.name = "w2"}})
    -> (tensor<?x{H}xf32>, tensor<f32>) {{
  %c0 = arith.constant 0 : index
  %k = arith.constant {K} : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x{H}xf32>
  %r = arith.muli %t, %k : index
  %none = tensor.empty(%t) : tensor<?x{E}xf32>
  %zeros = linalg.fill ins(%zero : f32) outs(%none : tensor<?x{E}xf32>) -> tensor<?x{E}xf32>
  %logits = linalg.matmul ins(%x, %router : tensor<?x{H}xf32>, tensor<{H}x{E}xf32>)
      outs(%zeros : tensor<?x{E}xf32>) -> tensor<?x{E}xf32>
  %w, %ids = moe.gate %logits top_k({K}) normalize(<sum>) : tensor<?x{E}xf32>
  %loss = moe.auxiliary_loss load_balance %logits ids(%ids : tensor<?x{K}xi32>)
      coefficient(0.5) : tensor<?x{E}xf32>
  %tokens, %offsets, %positions = moe.route %ids experts({E}) : tensor<?x{K}xi32>
  %i = tensor.empty(%r) : tensor<?x{I}xf32>
  %a = moe.grouped_matmul %x gather(%tokens : tensor<?xi32>) offsets(%offsets : tensor<{E + 1}xi32>)
      weights(%w1 : tensor<{E}x{H}x{I}xf32>) outs(%i : tensor<?x{I}xf32>) {{
  ^bb0(%s: f32):
    %p = math.tanh %s : f32
    moe.yield %p : f32
  }} : tensor<?x{H}xf32> -> tensor<?x{I}xf32>
  %o = tensor.empty(%r) : tensor<?x{H}xf32>
  %y = moe.grouped_matmul %a offsets(%offsets : tensor<{E + 1}xi32>)
      weights(%w2 : tensor<{E}x{I}x{H}xf32>) outs(%o : tensor<?x{H}xf32>) {{
  ^bb0(%s: f32):
    moe.yield %s : f32
  }} : tensor<?x{I}xf32> -> tensor<?x{H}xf32>
  %n = tensor.empty(%t) : tensor<?x{H}xf32>
  %z = moe.gather_sum %y, %positions weights(%w : tensor<?x{K}xf32>) outs(%n : tensor<?x{H}xf32>)
      : tensor<?x{H}xf32>, tensor<?x{K}xi32> -> tensor<?x{H}xf32>
  return %z, %loss : tensor<?x{H}xf32>, tensor<f32>
}}
"""


def test_computed_again():
    """Products that the backward pass computes again do not count a loss again."""
    import moe

    r = data.rng("loss computed again")
    weights = {"router": (H, E), "w1": (E, H, I), "w2": (E, I, H)}
    weights = {n: r.standard_normal(s).astype(np.float32) for n, s in weights.items()}
    x = r.standard_normal((33, H)).astype(np.float32)
    exact = {n: torch.from_numpy(v).double().requires_grad_()
             for n, v in {"x": x, **weights}.items()}
    logits = exact["x"] @ exact["router"]
    p, ids = logits.softmax(1).topk(K)
    act = torch.einsum("th,tkhi->tki", exact["x"], exact["w1"][ids]).tanh()
    y = (torch.einsum("tki,tkih->tkh", act, exact["w2"][ids])
         * (p / p.sum(1, keepdim=True))[..., None]).sum(1)
    dy = r.standard_normal(x.shape).astype(np.float32)
    (y * torch.from_numpy(dy)).sum().add(1.5 * 0.5 * balance(Case(), logits, ids)).backward()
    found = []
    for options in ([], ["--save=routes"]):
        module = moe.compile(LAYER, options=["--backward=all", *options])
        forward, backward = (module.layer(
            {i.name: weights[i.name] for i in module.signature(n).weights}, function=n)
            for n in ("layer", "layer_backward"))
        _, _, *saved = forward(x)
        given = {"x": x, "result0_gradient": dy, "result1_gradient": np.array(1.5, np.float32),
                 **{f"saved{i}": s for i, s in enumerate(saved)}}
        results = backward(**{i.name: given[i.name] for i in backward.signature.inputs})
        found.append(dict(zip((i.name for i in backward.signature.outputs), results)))
        found[-1]["saved"] = len(saved)
    assert found[1].pop("saved") < found[0].pop("saved")
    for name, tensor in exact.items():
        first, again = (f[f"{name}_gradient"] for f in found)
        assert np.array_equal(data.bits(first), data.bits(again))
        assert of_largest(first, tensor.grad.numpy()) <= 2 * TOLERANCE["f32"], name


def test_wrong_backward_calls():
    """Gradients and saved tensors of another shape or type, or none, as without a forward call."""
    import moe

    weights = {"router": np.ones((H, E)), "w1": np.ones((E, H, I)), "w2": np.ones((E, I, H))}
    weights = {n: w.astype(np.float32) for n, w in weights.items()}
    module = moe.compile(LAYER, options=["--backward=all"])
    forward, backward = (module.layer(
        {i.name: weights[i.name] for i in module.signature(n).weights}, function=n)
        for n in ("layer", "layer_backward"))
    x = np.ones((5, H), np.float32)
    _, _, *saved = forward(x)
    given = {"x": x, "result0_gradient": x, "result1_gradient": np.array(1, np.float32),
             **{f"saved{i}": s for i, s in enumerate(saved)}}
    given = {i.name: given[i.name] for i in backward.signature.inputs}
    backward(**given)
    for wrong, message in [
            ({"result0_gradient": x[:, 1:].copy()},
             f"input 'result0_gradient': extent 1 is {H - 1}, expected {H}"),
            ({"result0_gradient": x[1:]},
             "input 'result0_gradient': extent 0 is 4, expected T = 5 as in 'x'"),
            ({"result0_gradient": x.astype(np.float64)},
             "input 'result0_gradient' has type f64, expected f32"),
            ({"saved0": saved[0][1:]}, "input 'saved0': extent 0 is 4, expected T = 5 as in 'x'"),
            ({"result0_gradient": None}, "missing inputs: result0_gradient"),
            ({"saved0": None}, "missing inputs: saved0")]:
        call = {n: a for n, a in {**given, **wrong}.items() if a is not None}
        with pytest.raises(moe.MoEError, match=re.escape(message)):
            backward(**call)
