"""Experts modules of transformers on compiled layers, against their own eager code."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import time
import timeit
import weakref

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe.integrations._experts.description import describe  # noqa: E402
from moe_testing.models.experts import (  # noqa: E402
    E, F32, H, K, T, Shift, Softmax, expect, experts_classes, make, mixtral, relative, route, run)

pytestmark = pytest.mark.usefixtures("inference")


# -- every class of experts ---------------------------------------------------


@pytest.mark.parametrize(("module", "name"), experts_classes())
def test_every_class_of_experts(module, name, record):
    if name == "MuseSparkExperts":
        with pytest.raises(moe.MoEError, match="MuseSparkExperts: the norm after the experts, "
                                               "MuseSparkTextInputScaledRMSNorm, has no trans"):
            make(module, name)(*route(T))
        return
    experts, arguments = make(module, name), route(T)
    error = relative(experts(*arguments), run(experts, "eager", *arguments))
    record("experts f32", error)
    assert error <= F32

    for dtype, epsilon in ((torch.bfloat16, 2.0 ** -8), (torch.float16, 2.0 ** -11)):
        half = make(module, name, dtype)
        x, ids, weights = route(T, dtype)
        actual, eager = half(x, ids, weights), run(half, "eager", x, ids, weights)
        assert actual.dtype is dtype
        exact = run(half.float(), "eager", x.float(), ids, weights.float())
        # Two products, the gate between them and the weight, each rounded once.
        error = relative(actual, exact)
        record(f"experts {dtype} against f32", error)
        assert error <= 4 * epsilon
        assert relative(actual, eager) <= 4 * epsilon


def test_the_sweep_is_not_empty():
    assert len(experts_classes()) > 40


@pytest.mark.parametrize("act", ["silu", "gelu", "gelu_new", "gelu_fast", "gelu_10", "quick_gelu",
                                 "relu", "relu6", "relu2", "sigmoid", "tanh", "mish", "hardswish",
                                 "laplace", "leaky_relu", "linear", "sqrtsoftplus"])
def test_activations(act):
    for dtype, tolerance in ((torch.float32, F32), (torch.bfloat16, 4 * 2.0 ** -8)):
        experts, arguments = mixtral(dtype, hidden_act=act), route(T, dtype)
        assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= tolerance


# -- calls --------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, 1, 2, 1000])
def test_token_counts(tokens):
    experts, arguments = mixtral(), route(tokens)
    actual = experts(*arguments)
    assert actual.shape == (tokens, H)
    if tokens:
        assert relative(actual, run(experts, "eager", *arguments)) <= F32


def test_top_k_may_change():
    experts = mixtral()
    for top_k in (1, K, E):
        arguments = route(T, top_k=top_k)
        assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32


def test_layouts_and_types_of_inputs():
    experts, (x, ids, weights) = mixtral(), route(T)
    expected = experts(x, ids, weights)
    strided = x.T.contiguous().T
    assert not strided.is_contiguous()
    assert torch.equal(experts(strided, ids.T.contiguous().T, weights), expected)
    assert torch.equal(experts(x, ids.int(), weights.double()), expected)
    assert torch.equal(experts(torch.cat([x, x])[T:], ids, weights), expected)
    with torch.inference_mode():
        assert torch.equal(experts(x.clone(), ids, weights), expected)


def test_router_weights_in_f32_beside_bf16():
    experts, (x, ids, weights) = mixtral(torch.bfloat16), route(T)
    x = x.to(torch.bfloat16)
    assert relative(experts(x, ids, weights), run(experts, "eager", x, ids, weights)) <= 2 ** -6


def test_sentinel_ids():
    """Choices of other ranks' experts add nothing, as in transformers."""
    experts, (x, ids, weights) = mixtral(), route(T)
    ids[::2, 1] = E
    ids[3] = E
    actual = experts(x, ids, weights)
    assert relative(actual, run(experts, "eager", x, ids, weights)) <= F32
    assert not actual[3].any()
    statistics = ce.layer_of(experts).statistics()[0]
    assert statistics.choices == (ids < E).sum()
    without = ids.where(ids < E, -1)
    assert torch.equal(experts(x, without, weights), actual)


def test_expert_parallelism():
    """Two ranks with half of the experts each, their ids as AllReduceEP makes them."""
    whole, (x, ids, weights) = mixtral(num_local_experts=6), route(T)
    total = torch.zeros(T, H)
    for rank in range(2):
        part = mixtral(num_local_experts=3)
        part._is_expert_parallel = True
        for name, parameter in part.named_parameters():
            parameter.copy_(getattr(whole, name)[3 * rank:3 * rank + 3])
        away = ids // 3 != rank
        total += part(x, torch.where(away, 3, ids % 3), weights.masked_fill(away, 0.0))
    assert relative(total, run(whole, "eager", x, ids, weights)) <= F32


@pytest.mark.parametrize("wrong", [E + 1, -2, 2 ** 32 + 1, 2 ** 63 - 1, -2 ** 63])
def test_ids_of_no_expert(wrong):
    experts, (x, ids, weights) = mixtral(), route(T)
    ids[5, 1] = wrong
    with pytest.raises(moe.MoEError, match="no expert|expert id"):
        experts(x, ids, weights)


def test_several_writers_of_the_cache(monkeypatch, tmp_path):
    """Each finds a whole artifact, whoever was first, and leaves nothing else behind."""
    monkeypatch.setenv("MOE_CACHE_DIR", str(tmp_path / "cache"))
    text = describe(mixtral(), "experts").mlir(K)
    modules: list[moe.Module] = []
    threads = [threading.Thread(target=lambda: modules.append(moe.compile(text)))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [m.functions for m in modules] == [("experts",)] * 4
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".moe"]


def test_threads():
    """Calls at once, half of them with another top k, for which each binds anew."""
    experts = mixtral()
    arguments = [route(t + 1, seed=t, top_k=2 + t % 2) for t in range(8)]
    expected = [run(experts, "eager", *a) for a in arguments]
    errors: list[float] = []

    def work(i):
        with torch.no_grad():  # of each thread
            errors.extend(relative(experts(*arguments[i]), expected[i]) for _ in range(20))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 160 and max(errors) <= F32


def test_cost_of_a_call():
    """Python's share of a call with one token, measured on a layer with little to do."""
    experts, arguments = mixtral(), route(1)
    experts(*arguments)
    # Of this thread, so that others at work count less.
    best = min(timeit.repeat(lambda: experts(*arguments), timer=time.thread_time, number=100,
                             repeat=50)) / 100
    assert best < 50e-6


# -- weights ------------------------------------------------------------------


def changes(experts):
    """Each way to change a weight that must be noticed."""
    other = mixtral().state_dict()
    twice = {name: 2 * tensor for name, tensor in other.items()}
    yield "in place", lambda: experts.down_proj.mul_(2)
    yield "one element", lambda: experts.gate_up_proj[1, 2, 3].fill_(9)
    yield "load_state_dict", lambda: experts.load_state_dict(twice)
    yield "assign", lambda: experts.load_state_dict(twice, assign=True)
    yield "data", lambda: setattr(experts.down_proj, "data", -experts.down_proj.data)
    yield "parameter", lambda: setattr(experts, "down_proj",
                                       torch.nn.Parameter(3 * experts.down_proj))
    yield "type", lambda: experts.double().float()


def test_changed_weights_are_noticed():
    experts, arguments = mixtral(), route(T)
    for name, change in changes(experts):
        experts(*arguments)
        change()
        assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32, name


def test_prepare_after_a_change_without_a_trace():
    experts, arguments = mixtral(), route(T)
    experts(*arguments)
    experts.down_proj.data.mul_(2)
    ce.prepare(experts, progress=False)
    assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32


def test_weights_of_inference_mode():
    with torch.inference_mode():
        experts, arguments = mixtral(), route(T)
        assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32
    assert experts.down_proj.is_inference()


def test_strided_weights():
    experts, arguments = mixtral(), route(T)
    experts.down_proj = torch.nn.Parameter(
        experts.down_proj.transpose(1, 2).contiguous().transpose(1, 2))
    assert not experts.down_proj.is_contiguous()
    for _ in range(2):
        assert relative(experts(*arguments), run(experts, "eager", *arguments)) <= F32
        experts.down_proj.mul_(2)


def test_freed_weights_are_gone():
    """Where calls read prepared copies alone, nothing keeps the originals."""
    experts, arguments = mixtral(), route(T)
    expected = experts(*arguments)
    array = experts.down_proj.numpy().copy()
    experts.down_proj = torch.nn.Parameter(torch.from_numpy(array))
    original = weakref.ref(array)
    del array
    ce.prepare(experts, free_weights=True, progress=False)
    gc.collect()
    retained = [i.retained for i in ce.layer_of(experts).signature.weights if i.name == "down_proj"]
    assert retained == [original() is not None]
    assert torch.equal(experts(*arguments), expected)


def test_options_of_the_compiler():
    experts, arguments = mixtral(), route(T)
    expected = experts(*arguments)
    layer = ce.layer_of(experts)
    ce.register(num_threads=1)
    ce.prepare(experts, progress=False)
    assert ce.layer_of(experts).module is not layer.module
    assert torch.equal(experts(*arguments), expected)


def test_copies_have_weights_of_their_own():
    experts, arguments = mixtral(), route(T)
    expected = experts(*arguments)
    deep, pickled = copy.deepcopy(experts), pickle.loads(pickle.dumps(experts))
    deep.down_proj.zero_()
    assert not deep(*arguments).any()
    assert torch.equal(pickled(*arguments), expected)
    assert torch.equal(experts(*arguments), expected)


# -- errors -------------------------------------------------------------------


def test_same_result_with_gradients():
    experts, (x, ids, weights) = mixtral(), route(T)
    expected = experts(x, ids, weights)
    with torch.enable_grad():
        for y in (experts(x, ids, weights),  # the parameters require them
                  experts.requires_grad_(False)(x.requires_grad_(), ids, weights)):
            assert y.requires_grad and relative(y, expected) <= F32
        assert not experts(x.detach(), ids, weights).requires_grad


def test_wrong_inputs():
    experts, (x, ids, weights) = mixtral(), route(T)
    for _ in range(2):
        with expect("MixtralExperts: hidden_states is torch.int64 [17, 12], expected f32 [17, 12]"):
            experts(x.long(), ids, weights)
        with expect("MixtralExperts: hidden_states is f32 [17, 11], expected f32 [17, 12]"):
            experts(x[:, 1:], ids, weights)
        with expect("MixtralExperts: hidden_states is f32 [1, 17, 12], expected f32 [17, 12]"):
            experts(x[None], ids, weights)
        with expect("MixtralExperts: top_k_weights is f32 [16, 3], expected [17, 3]"):
            experts(x, ids, weights[1:])
        with expect("MixtralExperts: top_k_index is torch.int64 [51], expected [tokens, choices]"):
            experts(x, ids.flatten(), weights)
        with expect("MixtralExperts: top_k_index is f32 [17, 3], expected integers"):
            experts(x, weights, weights)
        with expect("MixtralExperts: an input is on 'meta', expected 'cpu' as the weights"):
            experts(x.to("meta"), ids, weights)


def test_weights_that_are_not_known():
    arguments = route(T)
    with expect("MixtralExperts: gate_up_proj is on 'meta', expected the CPU or a GPU by CUDA"):
        mixtral().to("meta")(*arguments)
    with expect("MixtralExperts: gate_up_proj is torch.float64, expected f32, bf16 or f16"):
        mixtral(torch.float64)(*arguments)
    mixed = mixtral()
    mixed.down_proj.data = mixed.down_proj.data.bfloat16()
    with expect("down_proj is torch.bfloat16, expected torch.float32 as gate_up_proj"):
        mixed(*arguments)
    cut = mixtral()
    cut.down_proj.data = cut.down_proj.data[:, :, 1:]
    with expect("the gate makes 10 columns of 20, down_proj takes 9"):
        cut(*arguments)
    fewer = mixtral()
    fewer.num_experts -= 1
    with expect("num_experts is 4, the weights are of 5 experts"):
        fewer(*arguments)


@pytest.mark.parametrize(("act", "message"), [
    (Softmax(), "the activation 'Softmax' uses prims.amax.default, which has no translation"),
    (Shift(), "the activation 'Shift' "),
    (torch.nn.PReLU(), "the activation 'PReLU' uses a parameter of shape (1,)"),
    (torch.nn.GLU(), "the activation 'GLU' "),
    (lambda x: x.double(), "the activation '<lambda>' computes in torch.float64"),
    (lambda x: x.nonsense(), "the activation '<lambda>' cannot be traced"),
    (lambda x: x * torch.ones(5)[:, None], "the activation '<lambda>' "),
])
def test_activations_that_are_not_known(act, message):
    experts = mixtral()
    del experts.act_fn
    experts.act_fn = act
    with expect(f"MixtralExperts: {message}") as caught:
        experts(*route(T))
    assert caught.value.code in (moe.UNIMPLEMENTED, moe.INVALID_ARGUMENT)
    assert "\n" not in caught.value.message


def test_top_k_that_is_not_configured():
    experts = mixtral()
    del experts.config.num_experts_per_tok
    with expect("MixtralExperts: SimpleNamespace has none of num_experts_per_tok"):
        ce.prepare(experts, progress=False)
    ce.prepare(experts, top_k=K, progress=False)
    assert ce.layer_of(experts) is not None
