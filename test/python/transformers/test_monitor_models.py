"""What a monitor counts of models, against their recorded routes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import moe

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import moe.integrations.transformers as ce  # noqa: E402
from moe_testing.models.hf import MODELS, E, H, I, generating, prompt  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
CHECKPOINT = ROOT / "test" / "data" / "tiny-mixtral"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAME = "model.layers.0.mlp.experts"

pytestmark = pytest.mark.usefixtures("inference")


def model_of(family="mixtral", implementation=ce.NAME):
    return generating(family, implementation)


def expect(its, calls, experts=E):
    """A record of a layer has what its recorded calls have."""
    ids = np.concatenate([c.ids for c in calls])
    weights = np.sort(np.concatenate([c.weights for c in calls]).astype(np.float64), axis=1)
    np.testing.assert_array_equal(its.load, np.bincount(ids.ravel(), minlength=experts))
    assert (its.calls, its.tokens, its.top_k) == (len(calls), *ids.shape)
    assert (its.choices, its.dropped) == (ids.size, 0)
    assert its.confidence == pytest.approx(weights[:, -1].mean(), rel=1e-12)
    assert its.margin == pytest.approx((weights[:, -1] - weights[:, -2]).mean(), rel=1e-9)


# -- experts behind transformers' interface -------------------------------------


@pytest.mark.parametrize("implementation", ["eager", ce.NAME])
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_models(family, implementation):
    model, seen = model_of(family, implementation), []
    with moe.monitor.watch(model, to=seen.append) as monitor, ce.record(model) as routes:
        model(prompt())
        model(prompt(1, 7), use_cache=False)
        monitor.step()
        model(prompt(3, 5))
        monitor.step()
    first, second = seen
    assert list(first.layers) == list(second.layers) == list(routes)
    for name, calls in routes.items():
        expect(first.layers[name], calls[:2])
        expect(second.layers[name], calls[2:])
    assert (first.tokens, second.tokens) == (2 * 19 + 7, 15)
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_generation():
    """A step for each token that is generated."""
    model, seen = model_of(), []
    with moe.monitor.watch({"chat": model}, to=seen.append) as monitor:
        monitor.step_after(model)
        model.generate(prompt(), max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert not model._forward_hooks
    assert [record.tokens for record in seen] == [38, 2, 2, 2]
    assert all(name.startswith("chat.model.layers.") for name in seen[0].layers)


def test_bf16_and_ids_that_are_no_expert():
    model = model_of().to(torch.bfloat16)
    experts = model.get_submodule(NAME)
    x = torch.randn(3, H).to(torch.bfloat16)
    ids = torch.tensor([[0, E], [2, 0], [E, E]])
    weights = torch.tensor([[0.5, 0.25], [0.125, 0.5], [1, 1]], dtype=torch.bfloat16)
    with moe.monitor.watch(experts) as monitor:
        experts(x, ids, weights)
        its, = monitor.step().layers.values()
    assert its.name == type(experts).__name__
    assert its.load.tolist() == [2, 0, 1] + [0] * (E - 3)
    assert (its.tokens, its.choices) == (3, 3)
    assert (its.confidence, its.margin) == (0.5, 0.375)


def test_calls_that_experts_refuse():
    model = model_of()
    experts = model.get_submodule(NAME)
    x, ids = torch.randn(3, H), torch.zeros(3, 2, dtype=torch.int64)
    with moe.monitor.watch(model) as monitor:
        for wrong, weights in ((ids[0], torch.ones(2)), (ids, torch.ones(3, 1)),
                               (torch.tensor(0), torch.tensor(1.0))):
            with pytest.raises(moe.MoEError, match="top_k_(index|weights) is"):
                experts(x, wrong, weights)
        experts(x, ids, torch.ones(3, 2))
        assert monitor.step().layers[NAME].calls == 1


def test_work_of_experts():
    """What the shapes say is what the plan of the compiled experts has."""
    model = model_of()
    with moe.monitor.watch(model) as monitor:
        model(prompt())
        record = monitor.step()
    its = record.layers[NAME]
    assert its.flops == 2 * 38 * 2 * 3 * H * I
    work = moe.monitor.Work.of(ce.layer_of(model.get_submodule(NAME)))
    assert work.flops(1, 38, int(its.load.sum())) == its.flops
    assert work.bytes(1, 38, int(its.load.sum()), np.count_nonzero(its.load)) == its.bytes
    assert record.flops == 2 * its.flops and record.bytes > its.bytes


@pytest.mark.parametrize("implementation", ["eager", ce.NAME])
@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_training(implementation, checkpointing):
    """Each forward pass counts once, also where a backward pass computes it again."""
    model, seen = model_of("mixtral", implementation).train(), []
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
    with torch.enable_grad(), moe.monitor.watch(model, to=seen.append) as monitor:
        model.requires_grad_(True)
        for seed in (1, 2):
            tokens = prompt(seed=seed)
            model(tokens, labels=tokens).loss.backward()
            monitor.step()
    for record in seen:
        assert record.tokens == 38
        for its in record.layers.values():
            assert its.calls == 1 and its.load.sum() == 2 * 38
    assert model.get_submodule(NAME).gate_up_proj.grad is not None


@pytest.mark.parametrize("implementation, before", [(ce.NAME, True), (ce.NAME, False),
                                                    ("eager", False)])
def test_torch_compile(implementation, before):
    """Also code of compiled experts that was compiled before it is watched."""
    torch._dynamo.reset()
    model, x = model_of("mixtral", implementation), torch.randn(1, 9, H)
    compiled = torch.compile(model.get_submodule("model.layers.0.mlp"), backend="eager")
    if before:
        compiled(x)
    with moe.monitor.watch(model) as monitor:
        for _ in range(2):
            compiled(x)
            its = monitor.step().layers[NAME]
            assert (its.calls, its.tokens, its.load.sum()) == (1, 9, 18)


def test_threads():
    model, seen = model_of(), []
    with moe.monitor.watch(model, to=seen.append) as monitor:
        def work(_):
            with torch.no_grad():
                for _ in range(5):
                    model(prompt(1, 6), use_cache=False)
                    monitor.step()

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
    assert [record.step for record in seen] == list(range(1, 16))
    for name in seen[0].layers:
        assert sum(record.layers[name].calls for record in seen) == 15
        assert sum(record.layers[name].load.sum() for record in seen) == 15 * 6 * 2


def test_a_monitor_that_is_not_closed():
    """The end of the process has nothing to say about it."""
    code = ("import moe\n"
            "from moe_testing.models.hf import generating, prompt\n"
            "model = generating('mixtral', 'eager')\n"
            "monitor = moe.monitor.watch(model)\n"
            "model(prompt(1, 5))\n"
            "assert monitor.step().tokens == 5\n")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    assert (done.returncode, done.stderr) == (0, "")


def test_what_has_no_experts():
    with pytest.raises(moe.MoEError, match="Linear has no experts that can be watched"):
        moe.monitor.watch(torch.nn.Linear(2, 2))


# -- layers of moe.from_torch ---------------------------------------------------


def block_of(seed=1):
    return MODELS["mixtral"](seed).model.model.layers[0].mlp


def load_of(block, x):
    """The load by the router of the block itself."""
    _, _, ids = block.gate(x)
    return np.bincount(ids.numpy().ravel(), minlength=E)


def test_modules():
    block = block_of()
    layer, x = moe.from_torch(block).module(), torch.randn(33, H)
    with moe.monitor.watch({"early": layer}) as monitor:
        assert monitor.step().layers == {}  # it is compiled when it first runs
        layer(x)
        its = monitor.step().layers["early"]
        np.testing.assert_array_equal(its.load, load_of(block, x))
        assert (its.calls, its.tokens, its.dropped, its.confidence) == (1, 33, 0, None)
        assert its.flops == 33 * (2 * 2 * 3 * H * I + 2 * H * E)
        block.gate.weight.copy_(block.gate.weight.flip(0))  # the module has its parameters
        layer(x)
        its = monitor.step().layers["early"]
        assert its.calls == 1
        np.testing.assert_array_equal(its.load, load_of(block, x))
    with moe.monitor.watch(layer) as monitor:  # it has run before
        layer(x[:5])
        its, = monitor.step().layers.values()
        assert (its.name, its.calls, its.tokens) == ("CompiledLayer", 1, 5)


@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_trainable_layers(checkpointing):
    """Weights change in each step, and a backward pass may compute the layer again."""
    block = block_of()
    layer = moe.from_torch(block).trainable()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    loads, seen = [], []
    with torch.enable_grad(), moe.monitor.watch(layer, to=seen.append, every=2) as monitor:
        for step in range(6):
            x = torch.randn(9, H, generator=torch.Generator().manual_seed(step))
            with torch.no_grad():
                loads.append(load_of(block, x))
            y = layer(x) if checkpointing is None else torch.utils.checkpoint.checkpoint(
                layer, x.requires_grad_(True), use_reentrant=checkpointing)
            optimizer.zero_grad()
            y.square().mean().backward()
            optimizer.step()
            monitor.step()
    for i, record in enumerate(seen):
        its, = record.layers.values()
        assert (its.calls, its.tokens) == (2, 18)
        assert its.flops == 18 * (2 * 2 * 3 * H * I + 2 * H * E)
        np.testing.assert_array_equal(its.load, loads[2 * i] + loads[2 * i + 1])
    assert len({tuple(load) for load in loads}) > 1


def test_replaced_blocks():
    from moe.integrations.torch import replace

    model, other = model_of("mixtral", "eager"), model_of("mixtral", "eager")
    names = replace(model)
    with moe.monitor.watch(model) as monitor, ce.record(other) as routes:
        model(prompt())
        other(prompt())
        found = monitor.step().layers
    assert list(found) == names
    for name in names:
        ids = routes[f"{name}.experts"][0].ids
        np.testing.assert_array_equal(found[name].load, np.bincount(ids.ravel(), minlength=E))


def test_programs():
    """What torch.export made of a model has its layers, too, and no router that is seen."""
    model, tokens = model_of(), prompt(1)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, tokens):
            return self.model(tokens, use_cache=False).logits

    program = torch.export.export(Logits(), (tokens,), strict=False).module()
    with moe.monitor.watch(program) as monitor, ce.record(program) as routes:
        program(tokens)
        found = monitor.step().layers
    assert set(found) == set(routes)
    for name, (route,) in routes.items():
        np.testing.assert_array_equal(found[name].load, np.bincount(route.ids.ravel(),
                                                                    minlength=E))
        assert found[name].tokens is None and found[name].confidence is None


def test_layers_in_python():
    class Block(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.qr(x)[0] if x.shape[0] > 3 else x

    with pytest.warns(UserWarning, match="runs in Python"):
        layer = moe.from_torch(Block().eval(), example=torch.randn(5, H)).layer()
    with pytest.raises(moe.MoEError, match="cannot watch a PythonLayer"):
        moe.monitor.watch(layer)


# -- the page -------------------------------------------------------------------


def test_every_block_runs(tmp_path, monkeypatch):
    pytest.importorskip("prometheus_client")
    monkeypatch.chdir(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        CHECKPOINT, dtype=torch.float32, experts_implementation=ce.NAME).eval()
    names = {"moe": moe, "model": model,
             "batches": [torch.tensor([list(b"In the beginning ")]) for _ in range(3)]}
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        exec(compile(block, "docs/monitoring.md", "exec"), names)
    assert names["its"].load.sum() == 2 * 17
    assert 'moe_expert_rows_total{expert="0",layer="model.layers.0.mlp.experts"}' in names["page"]
    assert names["record"].cost_per_million_tokens > 0 and len(names["seen"]) == 1
    assert len((tmp_path / "load.jsonl").read_text().splitlines()) == 1
