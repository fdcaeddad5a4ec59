"""Whole models of transformers on compiled experts, against their own eager experts."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

import moe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe.integrations._transformers import state  # noqa: E402
from moe_testing.models.experts import (  # noqa: E402
    F32, H, T, Softmax, expect, mixtral, relative, route)
from moe_testing.models.hf import MODELS  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / "test" / "data" / "tiny-mixtral"
README = ROOT / "README.md"
FAMILIES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3", "glm4_moe",
            "gpt_oss", "granitemoe", "phimoe", "jamba"]

pytestmark = pytest.mark.usefixtures("inference")


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


# -- weights ------------------------------------------------------------------


def test_layers_share_a_module(monkeypatch):
    compiled = []
    original = state.compile_for
    monkeypatch.setattr(state, "_modules", {})
    monkeypatch.setattr(state, "compile_for",
                        lambda text, *a, **o: compiled.append(text) or original(text, *a, **o))
    model = MODELS["qwen3_moe"]().model
    ce.prepare(model, progress=False)
    assert len(compiled) == 1
    layers = [ce.layer_of(m) for m in model.modules() if hasattr(m, "is_concatenated")]
    assert len(layers) == 2 and layers[0].module is layers[1].module


def test_state_dict_is_untouched():
    model = MODELS["mixtral"]().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ce.prepare(model, progress=False)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


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


def test_failure_leaves_the_model_as_it_was():
    model = MODELS["mixtral"]().model
    model.model.layers[1].mlp.experts.act_fn = Softmax()
    with expect("model.layers.1.mlp.experts: the activation 'Softmax'"):
        ce.prepare(model, progress=False)
    assert model.config._experts_implementation == "eager"


def test_models_without_experts():
    with expect("Llama4ForCausalLM has no experts that go through transformers' experts interface"):
        ce.prepare(MODELS["llama4_text"]().model)
    with expect("Linear has no experts"):
        ce.prepare(torch.nn.Linear(2, 2))


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
