"""Whole models of transformers on compiled experts, against their own eager experts."""

from __future__ import annotations

import copy
import importlib
import pickle
import re
import threading
import timeit
import types
from pathlib import Path

import pytest

import moe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
ce = pytest.importorskip("moe.integrations.transformers")

from hf_models import MODELS  # noqa: E402
from moe import _call  # noqa: E402
from moe.integrations._experts import describe  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "test" / "data" / "tiny-mixtral"
README = ROOT / "README.md"
FAMILIES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "glm4_moe",
            "gpt_oss", "granitemoe", "phimoe", "jamba"]
# One rounding of f32 a product and a sum, some tens of them.
F32 = 2e-6

pytestmark = pytest.mark.usefixtures("compiled")
H, I, E, K, T = 12, 10, 5, 3, 17


@pytest.fixture(autouse=True, scope="module")
def registered():
    ce.register()


@pytest.fixture(autouse=True)
def inference():
    with torch.no_grad():
        yield


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# -- every class of experts ---------------------------------------------------

CONFIG = dict(
    hidden_size=H, moe_hidden_size=H, intermediate_size=I, moe_intermediate_size=I, num_experts=E,
    num_local_experts=E, n_routed_experts=E, moe_num_experts=E, num_experts_per_tok=K,
    hidden_act="silu", hidden_activation="gelu_pytorch_tanh", mlp_hidden_act="relu2",
    # Small enough that many values are beyond it.
    swiglu_limit=0.7, swiglu_alpha=1.702, mlp_gate_softcap=3.0, mlp_up_softcap=2.0,
    moe_latent_size=None, post_norm_eps=1e-6)


def experts_classes() -> list[tuple[str, str]]:
    """(module, class) of everything in transformers that is decorated for the interface."""
    found = []
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        found += [(f"transformers.models.{path.parent.name}.{path.stem}", name)
                  for name in re.findall(r"^@use_experts_implementation.*\nclass (\w+)",
                                         path.read_text(), re.MULTILINE)]
    return found


def make(module: str, name: str, dtype: torch.dtype = torch.float32, **more) -> torch.nn.Module:
    cls = getattr(importlib.import_module(module), name)
    experts = cls(types.SimpleNamespace(**dict(CONFIG, **more)))
    generator = torch.Generator().manual_seed(1)
    for parameter in experts.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(draw / (parameter.shape[-1] ** 0.5 if draw.ndim > 1 else 1))
    experts.config._experts_implementation = ce.NAME
    return experts.to(dtype)


def mixtral(dtype: torch.dtype = torch.float32, **more) -> torch.nn.Module:
    return make("transformers.models.mixtral.modeling_mixtral", "MixtralExperts", dtype, **more)


def route(tokens: int, dtype: torch.dtype = torch.float32, top_k: int = K, seed: int = 2):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(tokens, H, generator=generator).to(dtype),
            torch.randint(0, E, (tokens, top_k), generator=generator),
            torch.rand(tokens, top_k, generator=generator).to(dtype))


def run(experts: torch.nn.Module, implementation: str, *arguments) -> torch.Tensor:
    before = experts.config._experts_implementation
    experts.config._experts_implementation = implementation
    try:
        return experts(*arguments)
    finally:
        experts.config._experts_implementation = before


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


# -- whole models -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_models(family, record):
    """Logits and generated tokens in f32."""
    model = MODELS[family]().model
    model.generation_config.eos_token_id = None
    tokens = torch.randint(1, 64, (2, 19), generator=torch.Generator().manual_seed(3))
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0)
    expected, text = model(tokens).logits, model.generate(tokens, **options)
    ce.prepare(model, progress=False)
    error = relative(model(tokens).logits, expected)
    record("models f32", error)
    assert error <= 10 * F32  # layers one after another
    assert torch.equal(model.generate(tokens, **options), text)
    layers = [ce.layer_of(m) for m in model.modules() if hasattr(m, "is_concatenated")]
    assert layers and all(layer.statistics()[0].calls > 0 for layer in layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_in_bf16(family, record):
    """Layer by layer: in bf16 one more rounding may send a token to other experts."""
    model = MODELS[family]().model.to(torch.bfloat16)
    seen = []
    handles = [m.register_forward_hook(lambda m, i, o: seen.append((m, i, o)))
               for m in model.modules() if hasattr(m, "is_concatenated")]
    model(torch.randint(1, 64, (2, 19), generator=torch.Generator().manual_seed(3)))
    for handle in handles:
        handle.remove()
    ce.prepare(model, progress=False)
    assert seen
    for experts, arguments, expected in seen:
        error = relative(experts(*arguments), expected)
        record("models bf16", error)
        assert error <= 4 * 2.0 ** -8


def test_from_pretrained():
    """A trained model generates the same text."""
    def load(implementation):
        return transformers.AutoModelForCausalLM.from_pretrained(
            CHECKPOINT, dtype=torch.float32, experts_implementation=implementation).eval()

    prompt = torch.tensor([list(b"In the beginning God created the ")])
    texts = [load(name).generate(prompt, max_new_tokens=48, do_sample=False, pad_token_id=0)
             for name in ("eager", ce.NAME)]
    assert torch.equal(*texts)


def test_readme():
    """The program in the README, on the model of the tests."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    program, = (b for b in blocks if "integrations.transformers" in b)
    names = dict(DIR=CHECKPOINT, ids=torch.tensor([list(b"In the beginning ")]))
    exec(compile(program, str(README), "exec"), names)
    assert ce.layer_of(names["model"].model.layers[0].mlp.experts).statistics()[0].calls > 0


def test_switch_back_and_forth():
    model = MODELS["mixtral"]().model
    tokens = torch.arange(1, 20)[None]
    eager = model(tokens).logits
    model.set_experts_implementation(ce.NAME)
    compiled = model(tokens).logits
    model.set_experts_implementation("eager")
    assert torch.equal(model(tokens).logits, eager)
    assert relative(compiled, eager) <= 10 * F32


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


@pytest.mark.parametrize("wrong", [E + 1, -2, 2 ** 32 + 1, 2 ** 63 - 1, -2 ** 63])
def test_ids_of_no_expert(wrong):
    experts, (x, ids, weights) = mixtral(), route(T)
    ids[5, 1] = wrong
    with pytest.raises(moe.MoEError, match="no expert|expert id"):
        experts(x, ids, weights)


def test_layers_share_a_module(monkeypatch):
    compiled = []
    original = ce.compile_module
    monkeypatch.setattr(ce, "_modules", {})
    monkeypatch.setattr(ce, "compile_module",
                        lambda text, **o: compiled.append(text) or original(text, **o))
    model = MODELS["qwen3_moe"]().model
    ce.prepare(model, progress=False)
    assert len(compiled) == 1
    layers = [ce.layer_of(m) for m in model.modules() if hasattr(m, "is_concatenated")]
    assert len(layers) == 2 and layers[0].module is layers[1].module


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


def test_large_workspaces_are_not_kept(monkeypatch):
    experts, arguments = mixtral(), route(T)
    expected = experts(*arguments)
    monkeypatch.setattr(_call._Workspace, "KEPT", 16)
    monkeypatch.setattr(_call, "_workspace", _call._Workspace())
    assert torch.equal(experts(*arguments), expected)
    assert _call._workspace.buffer is None


def test_threads():
    experts, arguments = mixtral(), [route(t + 1, seed=t) for t in range(8)]
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
    best = min(timeit.repeat(lambda: experts(*arguments), number=200, repeat=20)) / 200
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


def test_state_dict_is_untouched():
    model = MODELS["mixtral"]().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ce.prepare(model, progress=False)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_copies_have_weights_of_their_own():
    experts, arguments = mixtral(), route(T)
    expected = experts(*arguments)
    deep, pickled = copy.deepcopy(experts), pickle.loads(pickle.dumps(experts))
    deep.down_proj.zero_()
    assert not deep(*arguments).any()
    assert torch.equal(pickled(*arguments), expected)
    assert torch.equal(experts(*arguments), expected)


def test_freed_weights():
    model = MODELS["mixtral"]().model
    tokens = torch.arange(1, 20)[None]
    expected, weights = model(tokens).logits, copy.deepcopy(model.state_dict())
    ce.prepare(model, free_weights=True, progress=False)
    experts = next(m for m in model.modules() if hasattr(m, "is_concatenated"))
    assert experts.down_proj.is_meta and experts.down_proj.shape == (8, 32, 24)
    assert relative(model(tokens).logits, expected) <= 10 * F32
    with pytest.raises(moe.MoEError, match="weights were freed after they had been prepared"):
        ce.prepare(model, progress=False)
    # Weights that are loaded anew are prepared anew.
    doubled = {n: 2 * t if "experts.down_proj" in n else t for n, t in weights.items()}
    model.load_state_dict(doubled, assign=True)
    actual = model(tokens).logits
    model.set_experts_implementation("eager")
    assert relative(actual, model(tokens).logits) <= 10 * F32


# -- torch.compile ------------------------------------------------------------


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_compiled_graph_is_whole(family, dynamo):
    model = MODELS[family]().model
    tokens = torch.arange(1, 20)[None]
    expected = model(tokens).logits
    model.set_experts_implementation(ce.NAME)  # weights are prepared at the first call
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    assert relative(compiled(tokens, use_cache=False).logits, expected) <= 10 * F32
    calls = [n for g in graphs for n in g.graph.nodes
             if n.target is torch.ops.moe_mlir.experts.default
             or n.target is torch.ops.moe_mlir.experts]
    assert len(graphs) == 1 and len(calls) == model.config.num_hidden_layers
    for module in model.modules():
        if hasattr(module, "is_concatenated"):
            module.down_proj.mul_(2)
    actual = compiled(tokens, use_cache=False).logits
    assert len(graphs) == 1
    model.set_experts_implementation("eager")
    assert relative(actual, model(tokens, use_cache=False).logits) <= 10 * F32


def test_compiled_code_is_of_one_module(dynamo):
    """Code that was made for one module does not run with the weights of it for another."""
    first, second, arguments = mixtral(), mixtral(), route(T)
    second.down_proj.mul_(-3)
    expected = [m(*arguments) for m in (first, second)]

    def call(experts, *arguments):
        return experts(*arguments)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        for module, result in zip((first, second), expected):
            assert torch.equal(compiled(module, *arguments), result)
    third = copy.deepcopy(first)
    third.down_proj.zero_()
    assert not compiled(third, *arguments).any()


def test_compiled_with_any_token_count(dynamo):
    experts = mixtral()
    compiled = torch.compile(experts, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (5, 17, 33):
        arguments = route(tokens)
        assert torch.equal(compiled(*arguments), experts(*arguments))


def test_operation_is_described_to_torch():
    experts, arguments = mixtral(), route(T)
    experts(*arguments)
    torch.library.opcheck(torch.ops.moe_mlir.experts.default,
                          (*arguments, [], experts._moe_mlir.key, H),
                          test_utils=("test_schema", "test_faketensor"))


def test_operation_outlives_no_model():
    x, ids, weights = route(T)
    with pytest.raises(moe.MoEError, match="no experts 'experts-1' in this process"):
        torch.ops.moe_mlir.experts(x, ids, weights, [], "experts-1", H)


# -- errors -------------------------------------------------------------------


def test_gradients():
    experts, (x, ids, weights) = mixtral(), route(T)
    expected = experts(x, ids, weights)
    with torch.enable_grad():
        for y in (experts(x, ids, weights),  # the parameters require them
                  experts.requires_grad_(False)(x.requires_grad_(), ids, weights)):
            assert y.requires_grad and torch.equal(y, expected)
            with pytest.raises(moe.MoEError, match="compiled experts are for inference"):
                y.sum().backward()
        assert not experts(x.detach(), ids, weights).requires_grad


def expect(message: str):
    return pytest.raises(moe.MoEError, match=re.escape(message))


def test_wrong_inputs():
    experts, (x, ids, weights) = mixtral(), route(T)
    for _ in range(2):
        with expect("MixtralExperts: hidden_states is bf16 [17, 12], expected f32 [17, 12]"):
            experts(x.bfloat16(), ids, weights)
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
        with expect("MixtralExperts: an input is on 'meta', expected tensors on the CPU"):
            experts(x.to("meta"), ids, weights)


def test_weights_that_are_not_known():
    arguments = route(T)
    with expect("MixtralExperts: gate_up_proj is on 'meta', expected weights on the CPU"):
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


class Softmax(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)


class Shift(torch.nn.Module):
    def forward(self, x):
        return torch.roll(x, 1, -1)


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


def test_models_without_experts():
    with expect("Llama4ForCausalLM has no experts that go through transformers' experts interface"):
        ce.prepare(MODELS["llama4_text"]().model)
    with expect("Linear has no experts"):
        ce.prepare(torch.nn.Linear(2, 2))


def test_top_k_that_is_not_configured():
    experts = mixtral()
    del experts.config.num_experts_per_tok
    with expect("MixtralExperts: SimpleNamespace has none of num_experts_per_tok"):
        ce.prepare(experts, progress=False)
    ce.prepare(experts, top_k=K, progress=False)
    assert ce.layer_of(experts) is not None


def test_message_names_the_module():
    model = MODELS["mixtral"]().model
    model.model.layers[1].mlp.experts.act_fn = Softmax()
    with expect("model.layers.1.mlp.experts: the activation 'Softmax'"):
        ce.prepare(model, progress=False)
