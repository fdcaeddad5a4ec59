"""Gradients of compiled experts in models of transformers, against PyTorch's in float64."""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.util
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import moe  # noqa: E402
import moe.integrations.transformers as ce  # noqa: E402
from moe.integrations._transformers import state  # noqa: E402
from moe.integrations._transformers.experts import differentiable  # noqa: E402
from moe_testing.models.experts import (  # noqa: E402
    E, H, T, expect, make, relative, route, run)
from moe_testing.models.hf import MODELS  # noqa: E402

pytestmark = pytest.mark.usefixtures("training")

# Of the largest gradient: sums in f32 and in another order, a chain of five products.
F32 = 3e-6
BF16 = 2e-2
TOKENS = torch.randint(1, 64, (2, 19), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def training(compiled):
    """Compiled experts are registered with transformers."""
    ce.register()


def experts_of(module: str, name: str, dtype: torch.dtype = torch.float32,
               **more) -> torch.nn.Module:
    with torch.no_grad():
        return make(module, name, dtype, **more).requires_grad_()


def mixtral_experts(**more) -> torch.nn.Module:
    return experts_of("transformers.models.mixtral.modeling_mixtral", "MixtralExperts", **more)


def gradients(experts, x, ids, weights, dy, implementation=ce.NAME):
    """The gradients by the rows, by the weights of the choices, and by the parameters."""
    x, weights = (t.detach().clone().requires_grad_() for t in (x, weights))
    y = run(experts, implementation, x, ids, weights)
    named = {"x": x, "weights": weights, **dict(experts.named_parameters())}
    return dict(zip(named, torch.autograd.grad(y, list(named.values()), dy)))


def check(experts, arguments, bound, record, name):
    x, ids, weights = arguments
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).to(x.dtype)
    actual = gradients(experts, x, ids, weights, dy)
    expected = gradients(copy.deepcopy(experts).double(), x.double(), ids, weights.double(),
                         dy.double(), "eager")
    for each, gradient in actual.items():
        error = relative(gradient, expected[each])
        record(f"{name} {x.dtype} {each}", error)
        assert gradient.dtype == x.dtype and error <= bound, each


# Gate and up projection; biases, transposed weights and limits; one projection.
CLASSES = [("mixtral.modeling_mixtral", "MixtralExperts"),
           ("gpt_oss.modeling_gpt_oss", "GptOssExperts"),
           ("nemotron_h.modeling_nemotron_h", "NemotronHExperts")]


@pytest.mark.parametrize("module, name", CLASSES)
def test_experts(module, name, record):
    experts = experts_of(f"transformers.models.{module}", name)
    check(experts, route(T), F32, record, name)


@pytest.mark.parametrize("module, name", CLASSES[:2])
def test_experts_in_bf16(module, name, record):
    experts = experts_of(f"transformers.models.{module}", name, torch.bfloat16)
    check(experts, route(T, torch.bfloat16), BF16, record, name)


def test_choices_of_nobody():
    """Experts of another rank have no part in any gradient, and those without tokens zeros."""
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    ids[ids == 2] = E
    ids[3] = E
    actual = gradients(experts, x, ids, weights, torch.ones_like(x))
    expected = gradients(copy.deepcopy(experts).double(), x.double(), ids, weights.double(),
                         torch.ones_like(x).double(), "eager")
    assert all(relative(actual[n], expected[n]) <= F32 for n in actual)
    assert not actual["weights"][ids == E].any() and not actual["x"][3].any()
    assert not actual["gate_up_proj"][2].any() and not actual["down_proj"][2].any()
    with expect("51 expert ids outside [0, 5)"):
        experts(x, torch.full_like(ids, E + 1), weights)


def test_no_tokens():
    experts, (x, ids, weights) = mixtral_experts(), route(0)
    found = gradients(experts, x, ids, weights, torch.empty_like(x))
    assert found["x"].shape == (0, H) and not found["down_proj"].any()


def test_nan_stays_in_its_rows():
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    dy = torch.ones_like(x)
    dy[4, 1] = float("nan")
    found = gradients(experts, x, ids, weights, dy)
    for name in ("x", "weights"):
        isnan = found[name].isnan().any(-1)
        assert isnan[4] and int(isnan.sum()) == 1


@pytest.mark.parametrize("needing", [("x",), ("weights",), ("down_proj",), ("x", "gate_up_proj")])
def test_only_what_needs_a_gradient(needing):
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    everything = gradients(experts, x, ids, weights, torch.ones_like(x))
    tensors = {"x": x, "weights": weights, **dict(experts.named_parameters())}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name in needing)
    experts(x, ids, weights).sum().backward()
    for name, tensor in tensors.items():
        assert (tensor.grad is not None) == (name in needing)
        if name in needing:
            assert relative(tensor.grad, everything[name]) <= F32


def test_same_bits_with_any_number_of_threads():
    experts, arguments, threads = mixtral_experts(), route(65), torch.get_num_threads()
    dy, found = torch.ones_like(arguments[0]), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(gradients(experts, *arguments, dy))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(f[n], found[0][n]) for f in found for n in f)


def kept_bytes(experts, implementation, *arguments):
    """The bytes that a call keeps for its backward pass, without parameters and arguments."""
    known = {t.data_ptr() for t in (*experts.parameters(), *arguments)}
    kept = {}

    def pack(tensor):
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = run(experts, implementation, *arguments)
    del y
    return sum(kept.values())


def test_kept_memory():
    experts, (x, ids, weights) = mixtral_experts(intermediate_size=8), route(256)
    x.requires_grad_(), weights.requires_grad_()
    ours, theirs = (kept_bytes(experts, name, x, ids, weights)
                    for name in (ce.NAME, "grouped_mm"))
    assert 0 < ours <= 0.5 * theirs


# -- whole models -------------------------------------------------------------


def loss_of(model):
    return model(TOKENS, labels=TOKENS, use_cache=False).loss


def gradients_of(model, names=None):
    model.zero_grad()
    loss_of(model).backward()
    return {n: p.grad for n, p in model.named_parameters()
            if p.grad is not None and (names is None or n in names)}


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss", "jamba"])
def test_models(family, record):
    model = MODELS[family]().model.train()
    expected = gradients_of(copy.deepcopy(model).double())
    model.set_experts_implementation(ce.NAME)
    actual = gradients_of(model)
    assert set(actual) == set(expected)
    for name, gradient in actual.items():
        error = relative(gradient, expected[name])
        record(f"{family} f32", error)
        assert error <= 10 * F32, name  # layers one after another


def test_checkpointing():
    """The forward pass runs again, and has the same bits."""
    model = MODELS["mixtral"]().model.train()
    model.set_experts_implementation(ce.NAME)
    expected = gradients_of(model)
    for reentrant in (False, True):
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        actual = gradients_of(model)
        assert all(torch.equal(actual[n], expected[n]) for n in expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_of_the_router(checkpointing):
    """Compiled experts route as others do, and a layer that runs again does not count it twice."""
    model = MODELS["mixtral"]().model.train()
    model.config.output_router_logits = True
    expected = {}
    for coefficient in (0.5, 0.0):
        model.router_aux_loss_coef = coefficient
        expected[coefficient] = gradients_of(copy.deepcopy(model).double())
    model.router_aux_loss_coef = 0.5
    model.set_experts_implementation(ce.NAME)
    if checkpointing:
        # A reentrant one has no gradient of this loss, by any implementation.
        model.gradient_checkpointing_enable({"use_reentrant": False})
    actual = gradients_of(model)
    assert set(actual) == set(expected[0.5])
    assert all(relative(actual[n], expected[0.5][n]) <= 10 * F32 for n in actual)
    gates = [n for n in actual if n.endswith("gate.weight")]
    assert gates and all(relative(expected[0.0][n], expected[0.5][n]) > 1e-3 for n in gates)


def test_bf16_and_autocast(record):
    """Experts by themselves: in bf16 another rounding may send a token to other experts."""
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    rows = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(experts, rows, ids, weights, dy.bfloat16())
    expected = gradients(copy.deepcopy(experts).double(), rows.double(), ids, weights.double(),
                         dy.bfloat16().double(), "eager")
    assert found["x"].dtype is torch.bfloat16 and found["down_proj"].dtype is torch.float32
    for name, gradient in found.items():
        error = relative(gradient, expected[name])
        record(f"autocast {name}", error)
        assert error <= (2.0**-8 if name == "x" else F32), name
    model = MODELS["mixtral"]().model.train()
    model.set_experts_implementation(ce.NAME)
    with torch.autocast("cpu", torch.bfloat16):
        loss_of(model).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def steps(model, count=3, micro_batches=2, **options):
    """The losses of steps of an optimizer, with gradients of several batches each."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2,
                                  **options)
    losses = []
    for _ in range(count):
        for batch in TOKENS.chunk(micro_batches):
            loss = model(batch, labels=batch, use_cache=False).loss / micro_batches
            loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("fused", [False, True])  # whose writes torch does not count
def test_steps(fused):
    """Weights change, and a call has the present ones; gradients of micro-batches add up."""
    model = MODELS["qwen2_moe"]().model.train()
    eager = copy.deepcopy(model)
    model.set_experts_implementation(ce.NAME)
    ours, theirs = steps(model, fused=fused), steps(eager, fused=fused)
    assert theirs[-1] < 0.98 * theirs[0]
    assert ours == pytest.approx(theirs, rel=2e-5)
    # The layer for inference has them, too.
    model.eval(), eager.eval()
    with torch.no_grad():
        assert loss_of(model).item() == pytest.approx(loss_of(eager).item(), rel=2e-5)


def layers_of(experts):
    """The layers of the runtime that the functions of these experts have."""
    from moe.integrations._layers import functions

    addresses = {p.data_ptr() for p in experts.parameters()}
    return {key[:2]: bound.layer for key, bound in functions._bound.items()
            if addresses & set(key[2:])}


def test_changed_weights_are_packed_in_place():
    """The layers stay, and have the bits of new ones; but not those that another thread uses."""
    from moe.integrations._layers import functions

    experts, arguments = mixtral_experts(), route(T)
    dy = torch.ones_like(arguments[0])
    gradients(experts, *arguments, dy)
    first = layers_of(experts)
    assert len(first) == 2
    for step in range(3):
        with torch.no_grad():
            for parameter in experts.parameters():
                parameter.mul_(1.25)
        actual = gradients(experts, *arguments, dy)
        assert layers_of(experts) == first
        expected = gradients(copy.deepcopy(experts), *arguments, dy)
        assert all(torch.equal(actual[n], expected[n]) for n in expected)
    # As if a call ran.
    used = next(b for b in functions._bound.values() if b.layer is next(iter(first.values())))
    calls = used.layer.statistics()
    assert used.use(list(experts.parameters()))
    with torch.no_grad():
        experts.down_proj.mul_(1.25)
    actual = gradients(experts, *arguments, dy)
    changed = layers_of(experts)
    assert sum(changed[k] != first[k] for k in first) == 1
    assert used.layer.statistics()[0].calls == calls[0].calls
    expected = gradients(copy.deepcopy(experts), *arguments, dy)
    assert all(torch.equal(actual[n], expected[n]) for n in expected)
    # Nothing is left of experts that are gone.
    layers = list(map(weakref.ref, [*first.values(), *changed.values()]))
    del experts, used, first, changed
    gc.collect()
    assert not any(layer() for layer in layers)


def test_a_failed_update_is_no_layer(monkeypatch):
    """An error while weights are packed is one of the call; the next call packs them again."""
    from moe import _runtime

    experts, arguments = mixtral_experts(), route(T)
    dy = torch.ones_like(arguments[0])
    gradients(experts, *arguments, dy)
    with torch.no_grad():
        experts.down_proj.mul_(2)
    update = _runtime.Layer.update

    def fail(self, *rest, **more):
        raise moe.MoEError(8, "no memory")

    monkeypatch.setattr(_runtime.Layer, "update", fail)
    with expect("no memory"):
        gradients(experts, *arguments, dy)
    monkeypatch.setattr(_runtime.Layer, "update", update)
    actual = gradients(experts, *arguments, dy)
    expected = gradients(copy.deepcopy(experts), *arguments, dy)
    assert all(torch.equal(actual[n], expected[n]) for n in expected)


class LowRank(torch.nn.Module):
    """``w + b a`` for each expert: an adapter, as a parametrization."""

    def __init__(self, shape: torch.Size, rank: int = 2):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        count, rows, columns = shape
        self.a = torch.nn.Parameter(torch.randn(count, rank, columns, generator=generator))
        self.b = torch.nn.Parameter(torch.randn(count, rows, rank, generator=generator) / 10)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.b @ self.a


@pytest.mark.parametrize("where", ["attention", "experts"])
def test_adapters(where, recwarn):
    """Frozen weights get no gradient, and adapters that of PyTorch."""
    model = MODELS["mixtral"]().model.train().requires_grad_(False)
    for layer in model.model.layers:
        if where == "experts":
            for name in ("gate_up_proj", "down_proj"):
                weight = getattr(layer.mlp.experts, name)
                torch.nn.utils.parametrize.register_parametrization(
                    layer.mlp.experts, name, LowRank(weight.shape))
        else:
            query = layer.self_attn.q_proj
            adapter = LowRank(torch.Size((1, *query.weight.shape)))
            torch.nn.utils.parametrize.register_parametrization(query, "weight", _First(adapter))
    expected = gradients_of(copy.deepcopy(model).double())
    model.set_experts_implementation(ce.NAME)
    actual = gradients_of(model)
    assert set(actual) == set(expected) and actual
    assert all(relative(actual[n], expected[n]) <= 10 * F32 for n in actual)


class _First(torch.nn.Module):
    """An adapter of one matrix."""

    def __init__(self, adapter: LowRank):
        super().__init__()
        self.adapter = adapter

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return self.adapter(weight[None])[0]


@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs peft")
@pytest.mark.parametrize("where", [
    dict(target_modules=["q_proj", "v_proj"]),
    dict(target_modules=[], target_parameters=["experts.gate_up_proj", "experts.down_proj"])])
def test_peft(where):
    import peft

    found = []
    for name, dtype in ((ce.NAME, torch.float32), ("eager", torch.float64)):
        model = MODELS["mixtral"]().model.to(dtype)
        model.set_experts_implementation(name)
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, **where)).train()
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                draw = torch.randn(parameter.shape, generator=generator)
                parameter.data = (draw / 10).to(dtype)
        model(input_ids=TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    actual, expected = found
    assert actual.keys() == expected.keys() and actual
    assert all(relative(actual[n], expected[n]) <= 10 * F32 for n in actual)


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="needs accelerate")
def test_trainer(tmp_path):
    model = MODELS["mixtral"]().model
    eager = copy.deepcopy(model)
    model.set_experts_implementation(ce.NAME)
    losses = []
    for each in (model, eager):
        trainer = transformers.Trainer(
            model=each, train_dataset=[{"input_ids": row, "labels": row} for row in TOKENS] * 4,
            args=transformers.TrainingArguments(
                str(tmp_path), max_steps=3, per_device_train_batch_size=2, logging_steps=1,
                gradient_accumulation_steps=2, gradient_checkpointing=True, learning_rate=1e-2,
                report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True))
        trainer.train()
        losses.append([log["loss"] for log in trainer.state.log_history if "loss" in log])
    assert len(losses[0]) == 3 and losses[0] == pytest.approx(losses[1], rel=2e-3)


# -- routes ---------------------------------------------------------------------


def test_routes():
    """Routes of a training step are recorded, and replayed with gradients of the router."""
    model = MODELS["mixtral"]().model.train()
    model.set_experts_implementation(ce.NAME)
    with ce.record(model) as routes:
        expected = gradients_of(model)
    assert all(len(calls) == 1 for calls in routes.values())
    with ce.replay(model, routes, weights="router"):
        actual = gradients_of(model)
    assert all(torch.equal(actual[n], expected[n]) for n in expected)
    with ce.replay(model, routes):
        actual = gradients_of(model)
    assert not any(g.any() for n, g in actual.items() if n.endswith("gate.weight"))


# -- torch.compile ----------------------------------------------------------------


def test_compiled_model():
    torch._dynamo.reset()
    model = MODELS["mixtral"]().model.train()
    model.set_experts_implementation(ce.NAME)
    expected = gradients_of(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        model.zero_grad()
        compiled(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        actual = {n: p.grad for n, p in model.named_parameters()}
        assert all(relative(actual[n], expected[n]) <= F32 for n in expected)
        # Weights of now, not of then.
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.experts.down_proj.mul_(1.5)
        expected = gradients_of(model)
    # Code that was compiled before records its routes, too.
    with ce.record(model) as routes:
        compiled(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert all(len(calls) == 1 for calls in routes.values())
    torch._dynamo.reset()


def test_operations_are_described_to_torch():
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    x.requires_grad_()
    mlir, followed, options = differentiable(experts, ids.shape[1], (0, 3))
    torch.library.opcheck(torch.ops.moe_mlir.layer_forward.default,
                          ([x, ids, weights], list(experts.parameters()), mlir, [0, 3], followed,
                           None, options),
                          test_utils=("test_schema", "test_faketensor",
                                      "test_autograd_registration"))


# -- errors -------------------------------------------------------------------------


def test_double_backward():
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    x.requires_grad_()
    gradient, = torch.autograd.grad(experts(x, ids, weights).square().sum(), x, create_graph=True)
    with expect("gradients of a compiled layer have no gradients themselves"):
        gradient.sum().backward()


def test_weights_changed_before_backward():
    experts, arguments = mixtral_experts(), route(T)
    y = experts(*arguments)
    with torch.no_grad():
        experts.down_proj.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("which", ["x", "weights"])
def test_inputs_changed_before_backward(which):
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    x, weights = x.clone(), weights.clone()
    y = experts(x, ids, weights)
    (x if which == "x" else weights).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_wrong_gradients():
    """Of another shape an error, of another type converted, as autograd has it; a second backward
    pass has nothing left of its forward pass."""
    experts, arguments = mixtral_experts(), route(T)
    y = experts(*arguments)
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        y.backward(torch.ones(T + 1, H))
    expected = torch.autograd.grad(y, experts.down_proj, torch.ones_like(y), retain_graph=True)[0]
    found = torch.autograd.grad(y, experts.down_proj, torch.ones(y.shape, dtype=torch.float64))[0]
    assert torch.equal(found, expected)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y, experts.down_proj, torch.ones_like(y))


def test_freed_weights():
    model = MODELS["mixtral"]().model
    ce.prepare(model, free_weights=True, progress=False)
    loss = loss_of(model)
    with expect("compiled experts have no gradients here: the weights were freed"):
        loss.backward()


def test_no_backward_function(monkeypatch):
    """A forward pass works, and its backward pass says what has no gradient."""
    def refuse(*_):
        raise moe.MoEError(moe.UNIMPLEMENTED, "'math.atan' op has no gradient")

    monkeypatch.setattr(state, "differentiated", refuse)
    experts, arguments = mixtral_experts(), route(T)
    for _ in range(2):
        y = experts(*arguments)
        assert relative(y, run(experts, "eager", *arguments)) <= F32
        with expect("MixtralExperts: compiled experts have no gradients here: 'math.atan'"):
            y.sum().backward()


def test_wrong_inputs():
    experts, (x, ids, weights) = mixtral_experts(), route(T)
    with expect("hidden_states is torch.int64 [17, 12], expected torch.float32 [T, 12]"):
        experts(x.long(), ids, weights)
    with expect("hidden_states is torch.float32 [17, 11], expected torch.float32 [T, 12]"):
        experts(x[:, 1:], ids, weights)
    with expect("expected inputs of as many tokens, got 17 and 17 and 16"):
        experts(x, ids, weights[1:])
    with expect("top_k_index is torch.float32 [17, 3], expected torch.int64 [T, 3]"):
        experts(x, weights, weights)


# -- the example ----------------------------------------------------------------------


def test_example(tmp_path, monkeypatch, capsys):
    """Two steps of the program that the documentation's curves are of."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "python" / "examples")
    import train

    verses = [f"{book}1:{i} And the number of verse {i} is {i * i} and {i * i * i}.\n"
              for book in ("Ge", "Re") for i in range(1, 500)]
    (tmp_path / "text").write_text("".join(verses))
    options = argparse.Namespace(text=tmp_path / "text", seed=0, steps=2,
                                 threads=torch.get_num_threads())
    runs = [train.train("deepseek_v3", name, options) for name in (ce.NAME, "grouped_mm")]
    ours, theirs = runs
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-5)
    assert ours["heldout_perplexity"] == pytest.approx(theirs["heldout_perplexity"], rel=1e-5)
    assert ours["loads"][0] == theirs["loads"][0]
    assert all(sum(load) == 8 * 256 * 4 for load in ours["loads"][0].values())
    train.report(runs)
    assert "| deepseek_v3 | moe_mlir |" in capsys.readouterr().out
    # The bias of an expert with less than the mean load rises.
    model = train.deepseek_v3()
    name = "model.layers.1.mlp.experts"
    train.balance(model, {name: torch.tensor([0] + [32] * 15).numpy()})
    bias = model.get_submodule("model.layers.1.mlp.gate").e_score_correction_bias
    assert bias[0] > 0 and (bias[1:] < 0).all()
