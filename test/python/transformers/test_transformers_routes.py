"""Recorded and replayed routes of transformers' models."""

from __future__ import annotations

import numpy as np
import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe_testing.models.experts import F32, expect, relative  # noqa: E402
from moe_testing.models.hf import generating, prompt  # noqa: E402

FAMILIES = ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "granitemoe"]
NAME = "model.layers.0.mlp.experts"

pytestmark = pytest.mark.usefixtures("inference")


def model_of(family="mixtral", implementation=ce.NAME):
    return generating(family, implementation)


def experts_of(model):
    return {n: m for n, m in model.named_modules() if hasattr(m, "is_concatenated")}


def logits(model, tokens):
    return model(tokens, use_cache=False).logits


def routes_of(model, tokens):
    with ce.record(model) as routes:
        model(tokens, use_cache=False)
    return routes


def perturb(model):
    """Change all routers."""
    generator = torch.Generator().manual_seed(5)
    for name in experts_of(model):
        block = model.get_submodule(name.rpartition(".")[0])
        for parameter in (p for n, p in block.named_parameters() if "expert" not in n):
            parameter += torch.randn(parameter.shape, generator=generator) * parameter.std()


# -- record -------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", ce.NAME])
@pytest.mark.parametrize("family", FAMILIES)
def test_record(family, implementation):
    """What is recorded is what the experts' forward gets."""
    model, tokens = model_of(family, implementation), prompt()
    seen = {}
    handles = [m.register_forward_hook(lambda m, i, o, n=n: seen.setdefault(n, []).append(i))
               for n, m in experts_of(model).items()]
    routes = routes_of(model, tokens)
    model(tokens)  # no longer recorded
    for handle in handles:
        handle.remove()
    assert list(routes) == list(seen) and len(routes) == model.config.num_hidden_layers - (
        getattr(model.config, "first_k_dense_replace", 0))
    for name, calls in routes.items():
        route, = calls
        _, ids, weights = seen[name][0]
        assert route.ids.dtype == np.int64 and route.weights.dtype == np.float32
        assert np.array_equal(route.ids, ids.numpy())
        assert np.array_equal(route.weights, weights.numpy())


def test_record_of_bf16():
    """Every weight in bf16 is one in f32."""
    model, tokens = model_of().to(torch.bfloat16), prompt()
    routes = routes_of(model, tokens)
    expected = logits(model, tokens)
    with ce.replay(model, routes):
        assert torch.equal(logits(model, tokens), expected)


def test_programs():
    """What torch.export made of a model records and replays as the model does."""
    model, tokens = model_of("mixtral"), prompt(1)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens):
            return logits(self.model, tokens)

    program = torch.export.export(Logits(), (tokens,), strict=False).module()
    expected, routes = program(tokens), routes_of(model, tokens)
    with ce.record(program) as recorded:
        program(tokens)
    assert set(recorded) == {f"model.{name}" for name in routes}
    for name, calls in routes.items():
        assert np.array_equal(recorded[f"model.{name}"][0].ids, calls[0].ids)
        assert np.array_equal(recorded[f"model.{name}"][0].weights, calls[0].weights)
    flipped = {n: [ce.Route(c.ids[:, ::-1].copy(), c.weights) for c in calls]
               for n, calls in recorded.items()}
    with ce.replay(program, recorded):
        assert torch.equal(program(tokens), expected)
    with ce.replay(program, flipped):
        assert not torch.equal(program(tokens), expected)
    with pytest.raises(moe.MoEError, match="the routers of a program of torch.export cannot"):
        with ce.replay(program, recorded, weights="router"):
            pass


# -- replay -------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", ce.NAME])
@pytest.mark.parametrize("family", FAMILIES)
def test_replay(family, implementation):
    """The bits of the recorded run, whatever the routers are."""
    model, tokens = model_of(family, implementation), prompt()
    expected, routes = logits(model, tokens), routes_of(model, tokens)
    perturb(model)
    assert not torch.equal(logits(model, tokens), expected)
    with ce.replay(model, routes), ce.record(model) as again:
        assert torch.equal(logits(model, tokens), expected)
    for name, calls in routes.items():
        assert np.array_equal(again[name][0].ids, calls[0].ids)
        assert np.array_equal(again[name][0].weights, calls[0].weights)
    assert not torch.equal(logits(model, tokens), expected)


def test_replay_of_a_generation():
    """Call by call, with the cache."""
    model, tokens = model_of(), prompt()
    options = dict(max_new_tokens=8, do_sample=False, pad_token_id=0)
    with ce.record(model) as routes:
        expected = model.generate(tokens, **options)
    assert [c.ids.shape[0] for c in routes[NAME]] == [38] + 7 * [2]
    perturb(model)
    with ce.replay(model, routes):
        assert torch.equal(model.generate(tokens, **options), expected)


def test_replay_of_a_sequence(tmp_path):
    """Prompt and steps in one call, by eager experts, from a file."""
    model, tokens = model_of(), prompt(batch=1)
    with ce.record(model) as routes:
        text = model.generate(tokens, max_new_tokens=8, do_sample=False, pad_token_id=0,
                              return_dict_in_generate=True, output_logits=True)
    routes.merged().save(tmp_path / "routes.npz")
    merged = ce.Routes.load(tmp_path / "routes.npz")
    perturb(model)
    model.set_experts_implementation("eager")
    with ce.replay(model, merged):
        actual = logits(model, text.sequences[:, :-1])[0, tokens.shape[1] - 1:]
    assert relative(actual, torch.cat(text.logits)) <= 20 * F32


def test_replay_in_compiled_code():
    """Code that torch.compile made before records and replays, too."""
    torch._dynamo.reset()
    model, tokens = model_of(), prompt()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected = logits(compiled, tokens)
    with ce.record(model) as routes:
        logits(compiled, tokens)
    assert all(len(calls) == 1 for calls in routes.values())
    perturb(model)
    with ce.replay(model, routes):
        assert torch.equal(logits(compiled, tokens), expected)
    torch._dynamo.reset()


# -- weights of the router ----------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_replay_of_ids(family):
    """The router that recorded them weighs the recorded experts as it did."""
    model, tokens = model_of(family), prompt()
    expected, routes = logits(model, tokens), routes_of(model, tokens)
    with ce.replay(model, routes, weights="router"):
        assert torch.equal(logits(model, tokens), expected)


def test_weights_of_another_router():
    """Mixtral's, in numpy, with gradients through eager experts."""
    model, tokens = model_of(implementation="eager"), prompt()
    routes = routes_of(model, tokens)
    perturb(model)
    seen = []
    gate = model.model.layers[0].mlp.gate
    handle = gate.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    with ce.replay(model, routes, weights="router"), ce.record(model) as again:
        with torch.enable_grad():
            logits(model, tokens).square().sum().backward()
    handle.remove()
    hidden = seen[0].detach().reshape(38, -1).double().numpy()
    scores = hidden @ gate.weight.detach().double().numpy().T
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    chosen = np.take_along_axis(scores, routes[NAME][0].ids, -1)
    expected = chosen / chosen.sum(-1, keepdims=True)
    assert np.array_equal(again[NAME][0].ids, routes[NAME][0].ids)
    assert np.abs(again[NAME][0].weights - expected).max() <= F32
    assert np.abs(routes[NAME][0].weights - expected).max() > 0.01
    assert gate.weight.grad.abs().max() > 0


def test_router_without_topk(monkeypatch):
    model, tokens = model_of(), prompt()
    routes = routes_of(model, tokens)
    gate = model.model.layers[0].mlp.gate
    first = torch.arange(2).expand(38, 2)
    monkeypatch.setattr(gate, "forward", lambda x: (None, torch.ones(38, 2), first))
    with expect(f"{NAME}: the router does not choose with torch.topk"):
        with ce.replay(model, routes, weights="router"):
            logits(model, tokens)


def test_router_in_compiled_code():
    torch._dynamo.reset()
    model, tokens = model_of(), prompt()
    routes = routes_of(model, tokens)
    with pytest.raises(Exception, match="runs in code of torch.compile"):
        with ce.replay(model, routes, weights="router"):
            logits(torch.compile(model, backend="eager"), tokens)
    torch._dynamo.reset()
    assert logits(model, tokens).isfinite().all()


# -- errors -------------------------------------------------------------------


def test_other_shapes():
    model, tokens = model_of(), prompt()
    routes = routes_of(model, tokens)
    with expect(f"{NAME}: call 0 has ids [36, 2], recorded were [38, 2]"):
        with ce.replay(model, routes):
            logits(model, tokens[:, 1:])
    with expect(f"{NAME}: call 1 has no route, 1 were recorded"):
        with ce.replay(model, routes):
            logits(model, tokens)
            logits(model, tokens)
    with expect(f"{NAME}: no call was replayed, 1 were recorded"):
        with ce.replay(model, routes):
            pass
    # Nothing is left of a failed replay.
    assert logits(model, tokens).isfinite().all()


def test_other_models():
    model, tokens = model_of(), prompt()
    routes = routes_of(model, tokens)
    with expect("weights is 'none', expected 'recorded' or 'router'"):
        with ce.replay(model, routes, weights="none"):
            pass
    with expect("the routes have those of 'h.0', which are no experts of the model"):
        with ce.replay(model, {**routes, "h.0": []}):
            pass
    del routes[NAME]
    with expect(f"the routes lack those of '{NAME}'"):
        with ce.replay(model, routes):
            pass
    with expect("Linear has no experts that go through transformers' experts interface"):
        with ce.record(torch.nn.Linear(2, 2)):
            pass


def test_routes_by_hand():
    """Routes need not be recorded; what is no route is refused."""
    ids, weights = [[0, 1]], np.ones((1, 2), np.float64)
    assert ce.Route(ids, weights).ids.dtype == np.int64
    with expect("ids are float64 [1, 2], expected int64 [tokens, choices]"):
        ce.Route(weights, weights)
    with expect("weights are int64 [1, 2], expected float32 [tokens, choices]"):
        ce.Route(ids, ids)
    with expect("ids are int64 [2], expected int64 [tokens, choices]"):
        ce.Route([0, 1], weights)
    with expect("ids are [1, 2] and weights [1, 3], expected one shape"):
        ce.Route(ids, np.ones((1, 3)))
    model, tokens = model_of(), prompt()
    routes = routes_of(model, tokens)
    ids = routes[NAME][0].ids.copy()
    ids[0, 0] = 8 + 5
    routes[NAME] = [ce.Route(ids, routes[NAME][0].weights)]
    with expect("1 expert ids outside [0, 8)"):
        with ce.replay(model, routes):
            logits(model, tokens)
    with expect(f"{NAME}: call 0 has ids outside [0, 8), which the router cannot weigh"):
        with ce.replay(model, routes, weights="router"):
            logits(model, tokens)


@pytest.mark.parametrize("content", [
    b"", b"routes", None, {"a/0/ids": [[0]]}, {"a/1/ids": [[0]], "a/1/weights": [[0.5]]},
    {"a": [0]}, {"a/x/ids": [[0]]}, {"a/0/ids": [0], "a/0/weights": [0.5]},
    {"a/0/ids": np.array([[{}]])}])
def test_damaged_files(content, tmp_path):
    path = tmp_path / "routes.npz"
    if content is None:
        with expect(f"no such file: '{path}'"):
            ce.Routes.load(path)
        return
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(moe.MoEError, match="is no file of routes: ") as error:
        ce.Routes.load(path)
    assert error.value.code == moe.DATA_LOSS
