"""Compiled layers as modules: in place of blocks, and in saved programs."""

from __future__ import annotations

import copy
import gc
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import moe

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from moe_testing import data  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

F32 = 2e-6


@pytest.fixture(autouse=True)
def no_gradients():
    torch._dynamo.reset()
    with torch.no_grad():
        yield


def block_of(family: str) -> torch.nn.Module:
    made = MODELS[family]()
    return made.block(made.model).eval()


# -- in place of blocks -------------------------------------------------------


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "qwen2_moe", "granitemoe", "dbrx"])
def test_replace(family, record):
    from moe.integrations.torch import CompiledLayer, replace

    made = MODELS[family]()
    model = made.model.eval()
    names = set(model.state_dict())
    ids = torch.randint(64, (1, 9))
    expected = model(ids)[0]
    replaced = replace(model)
    assert len(replaced) == 2
    assert all(isinstance(model.get_submodule(name), CompiledLayer) for name in replaced)
    assert set(model.state_dict()) == names
    error = data.relative_error(model(ids)[0].numpy(), expected.numpy())
    record(f"{family} f32", error)
    assert error < F32
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(ids)[0], model(ids)[0])


def test_replace_with_a_capacity():
    """Of Switch Transformers: what does not fit is counted in each sequence of a batch."""
    from moe.integrations.torch import replace

    model = MODELS["switch_transformers"]().model.eval()
    ids = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[:, 2:] = ids[:, :1]
    expected = model(ids, decoder_input_ids=ids)[0]
    assert len(replace(model)) == 3
    error = data.relative_error(model(ids, decoder_input_ids=ids)[0].numpy(), expected.numpy())
    assert error < F32


def test_loaded_weights_are_noticed():
    block = block_of("mixtral")
    compiled = moe.from_torch(block).module()
    x = torch.randn(3, 7, H)
    compiled(x)
    other = block_of("mixtral")
    other.experts.gate_up_proj.mul_(-2.0)
    compiled.load_state_dict(other.state_dict())
    assert data.relative_error(compiled(x).numpy(), other(x).numpy()) < F32


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe", "deepseek_v3"])
def test_logits_that_transformers_records(family, first):
    """By hooks on the router, which are there before the blocks are replaced, or after."""
    from moe.integrations.torch import replace

    model = MODELS[family]().model.eval()
    ids = torch.randint(64, (2, 9))
    if (expected := model(ids, output_router_logits=True).get("router_logits")) is None:
        pytest.skip("records none")
    if not first:
        model = MODELS[family]().model.eval()
    assert len(replace(model)) > 0
    found = model(ids, output_router_logits=True).router_logits
    assert len(found) == len(expected) > 0
    for actual, logits in zip(found, expected):
        assert data.relative_error(actual.numpy(), logits.numpy()) < F32
    assert model(ids).get("router_logits") is None
    compiled = torch.compile(model, backend="eager")
    found = compiled(ids, output_router_logits=True).router_logits
    assert len(found) == len(expected)
    assert data.relative_error(found[0].numpy(), expected[0].numpy()) < F32


def test_experts_that_are_modules():
    """Their parameters stay, and changes of them are noticed."""
    from moe.integrations.torch import replace
    from moe_testing.models.blocks import BLOCKS

    model, x = torch.nn.ModuleDict({"mlp": BLOCKS["nllb_moe"]()}), torch.randn(1, 19, H)
    block, names = model["mlp"], set(model.state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning)
        assert replace(model) == ["mlp"]
    assert set(model.state_dict()) == names
    for change in (lambda p: p, lambda p: p.mul_(-2.0), lambda p: p.copy_(p.roll(1, 0))):
        change(block.experts["expert_1"].fc1.weight)
        assert data.relative_error(model["mlp"](x).numpy(), block(x).numpy()) < F32
    compiled = torch.compile(model["mlp"], fullgraph=True)
    assert torch.equal(compiled(x), model["mlp"](x))


def test_weights_in_another_order():
    """The transpose of a square matrix is no view that keeps its elements' order."""
    from moe.integrations.torch import parts_of

    linear = torch.nn.Linear(4, 4, bias=False)
    assert parts_of(linear, {"weight": linear.weight}) == [["weight"]]
    assert parts_of(linear, {"weight": linear.weight.view(2, 2, 4)}) == [["weight"]]
    assert parts_of(linear, {"weight": linear.weight.t()}) is None
    assert parts_of(linear, {"weight": linear.weight.clone()}) is None
    assert parts_of(linear, {"other": linear.weight}) is None


def test_blocks_that_stay():
    from moe.integrations.torch import replace

    made = MODELS["mixtral"]()
    model = made.model.eval()
    router = model.model.layers[1].mlp.gate
    router.forward = lambda x: tuple(torch.erfinv(t) if t.is_floating_point() else t
                                     for t in type(router).forward(router, x))
    with warnings.catch_warnings(record=True) as messages:
        warnings.simplefilter("always")
        assert replace(model) == ["model.layers.0.mlp"]
    assert any("model.layers.1.mlp stays as it is: UNIMPLEMENTED: MixtralSparseMoeBlock uses "
               "aten.erfinv" in str(m.message) for m in messages)
    with pytest.raises(moe.MoEError, match="Linear has no block with experts inside"):
        replace(torch.nn.Linear(2, 2))


def test_arguments_besides_rows():
    compiled = moe.from_torch(block_of("mixtral")).module()
    x = torch.randn(1, 7, H)
    assert torch.equal(compiled(x, None), compiled(x))
    program = torch.export.export(torch.nn.Linear(H, H).eval(), (x[0],), dynamic_shapes=(
        {0: torch.export.Dim("n", min=2)},))
    compiled = moe.from_torch(program).module()
    with pytest.raises(moe.MoEError, match="was also given input_ids"):
        compiled(x, input_ids=torch.zeros(1, 7))


class Masking(torch.nn.Module):
    """Rows that a mask leaves out are 0."""

    def __init__(self):
        super().__init__()
        self.block = block_of("mixtral")
        self.experts, self.gate = self.block.experts, self.block.gate

    def forward(self, x, mask=None):
        y = self.block(x) * (2.0 if self.training else 1.0)
        return y if mask is None else y * mask.unsqueeze(-1)


def test_what_a_compiled_layer_leaves_to_python():
    """Another argument, training mode: the module that was replaced, with the weights of now."""
    from moe.integrations.torch import replace

    model = torch.nn.ModuleDict({"a": Masking().eval()})
    before, x, mask = model["a"], torch.randn(1, 7, H), torch.arange(7).remainder(2)[None]
    whole = before(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace(model) == ["a"]
        assert data.relative_error(model["a"](x).numpy(), whole.numpy()) < F32
    with pytest.warns(UserWarning, match="was also given argument 1: Masking runs in Python"):
        assert torch.equal(model["a"](x, mask), whole * mask.unsqueeze(-1))
    model["a"].experts.down_proj.neg_()
    assert torch.equal(model["a"](x, mask=mask), -whole * mask.unsqueeze(-1))
    model.train()
    with pytest.warns(UserWarning, match="is in training mode: Masking runs in Python"):
        assert torch.equal(model["a"](x), -2 * whole)
    model.eval()
    assert data.relative_error(model["a"](x).numpy(), -whole.numpy()) < F32


def test_modules_that_write():
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(8, 8)
            self.register_buffer("rows", torch.zeros(8))

        def forward(self, x):
            y = self.linear(x)
            self.rows += y.flatten(0, -2).sum(0)
            return y

    with pytest.warns(UserWarning, match="Counts runs in Python: Counts writes to module.rows, "
                                         "expected a function of its rows"):
        imported = moe.from_torch(module := Counts().eval())
    assert imported.module() is module
    with pytest.raises(moe.MoEError, match="Counts writes to module.rows"):
        imported.compile()


@pytest.mark.parametrize("inputs, message", [
    (lambda x: [x[..., :-1]], r"x is torch.float32 \[1, 7, 31\], expected torch.float32 \[T, 32\]"),
    (lambda x: [x.long()], r"x is torch.int64 \[1, 7, 32\], expected torch.float32 \[T, 32\]"),
    (lambda x: [x, x], "expected 1 inputs, got 2"),
])
def test_operands_of_the_operation(inputs, message):
    compiled = moe.from_torch(block_of("mixtral")).module()
    weights = [compiled.get_parameter(name) for name in compiled._names]
    x = torch.randn(1, 7, H)
    with pytest.raises(moe.MoEError, match=message):
        torch.ops.moe_mlir.layer(inputs(x), weights, compiled._mlir, H, True)


def test_gradients():
    """A backward pass runs the layer again, as nothing was kept."""
    block = block_of("mixtral")
    compiled, x = moe.from_torch(block).module(), torch.randn(1, 7, H)
    found = []
    for module, dtype in ((compiled, torch.float32), (copy.deepcopy(block), torch.float64)):
        tensors = {"x": x.to(dtype).requires_grad_(), **dict(module.to(dtype).named_parameters())}
        with torch.enable_grad():
            y = module(tensors["x"]).square().sum()
        found.append(dict(zip(tensors, torch.autograd.grad(y, list(tensors.values())))))
    actual, expected = found
    assert actual.keys() == expected.keys()
    for name, gradient in actual.items():
        assert data.relative_error(gradient.numpy(), expected[name].numpy()) < 2 * F32


def test_freed_weights_free_their_layers():
    from moe.integrations._layers import functions

    gc.collect()
    before = len(functions._bound)
    compiled = moe.from_torch(block_of("mixtral")).module()
    compiled(torch.randn(1, 7, H))
    assert len(functions._bound) == before + 1
    del compiled
    gc.collect()
    assert len(functions._bound) == before


def test_weights_that_a_graph_computes():
    """inductor gives the second layer the memory of the weights of the first one."""
    layers = [moe.from_torch(MODELS["mixtral"](seed).block(MODELS["mixtral"](seed).model).eval())
              .module() for seed in (1, 2)]
    halves = [[layer.get_parameter(n).half() for n in layer._names] for layer in layers]

    def function(x):
        for layer, weights in zip(layers, halves):
            x = torch.ops.moe_mlir.layer([x], [w.float() for w in weights], layer._mlir, H, False)
        return x

    x = torch.randn(1, 7, H)
    assert data.relative_error(torch.compile(function)(x).numpy(), function(x).numpy()) < F32


def test_a_parameter_of_the_same_data():
    compiled = moe.from_torch(block_of("mixtral")).module()
    experts, x = compiled.get_submodule("experts"), torch.randn(1, 7, H)
    experts.down_proj = torch.nn.Parameter(experts.down_proj.detach().clone())
    y = compiled(x)
    old = experts.down_proj
    old.mul_(2.0)
    experts.down_proj = torch.nn.Parameter(old.data)  # its writes are counted anew
    assert data.relative_error(compiled(x).numpy(), 2 * y.numpy()) < F32


def test_functional_calls():
    compiled = moe.from_torch(block_of("mixtral")).module()
    x = torch.randn(1, 7, H)
    compiled(x)
    for factor in (2.0, 3.0):
        weights = {n: p * (factor if n.endswith("down_proj") else 1.0)
                   for n, p in compiled.named_parameters()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = torch.func.functional_call(compiled, weights, (x,))
        assert data.relative_error(y.numpy(), factor * compiled(x).numpy()) < F32


def test_weights_without_elements():
    compiled = moe.from_torch(block_of("mixtral")).module()
    compiled.get_submodule("experts").to("meta")
    with pytest.raises(moe.MoEError, match="tensors on 'cpu' and 'meta', expected one device"):
        compiled(torch.randn(1, 7, H))


class Wrapped(torch.nn.Module):
    """A block with something around it."""

    def __init__(self, change):
        super().__init__()
        block = block_of("mixtral")
        self.gate, self.experts, self.change = block.gate, block.experts, change
        self.weight = torch.nn.Parameter(torch.ones(H))  # a name like those of a compiled layer
        self.register_buffer("unused", torch.ones(3), persistent=False)

    def forward(self, hidden_states):
        x = self.change(hidden_states)
        rows = x.reshape(-1, H)
        _, weights, ids = self.gate(rows)
        return self.experts(rows, ids, weights).reshape(x.shape) * self.weight


def test_names_and_arguments():
    from moe.integrations.torch import replace

    model = torch.nn.ModuleDict({"a": Wrapped(torch.tanh).eval()})
    model["b"] = torch.nn.ModuleDict({"same": model["a"]})
    names, x = set(model.state_dict()), torch.randn(2, 7, H)
    expected = model["a"](x)
    assert replace(model) == ["a", "b.same"]
    assert model["a"] is model["b"]["same"]
    assert set(model.state_dict()) == names
    assert data.relative_error(model["a"](hidden_states=x).numpy(), expected.numpy()) < F32
    with pytest.raises(moe.MoEError, match="has no block"):
        replace(model)


def test_capacity_of_each_sequence():
    """Few rows show it: those that exceed the capacity of both sequences together."""
    block = block_of("switch_transformers")
    x = torch.randn(2, 3, H, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, x[:, :1].expand(2, 64, -1)], 1)
    expected = block(x)
    assert not torch.allclose(block(x.reshape(1, -1, H)).reshape(x.shape), expected)
    compiled = moe.from_torch(block).module()
    assert data.relative_error(compiled(x).numpy(), expected.numpy()) < F32


def test_batches_that_matter():
    from moe.integrations.torch import replace

    model = torch.nn.ModuleDict({"a": Wrapped(lambda x: x - 0.5 * x.mean(0, keepdim=True)).eval()})
    with pytest.warns(UserWarning, match="computes something else for rows in a batch of two"):
        assert replace(model) == []


def test_another_thread_runs_the_module_while_it_is_traced(monkeypatch):
    from moe.integrations import torch as door

    block, x = block_of("mixtral"), torch.randn(1, 7, H)
    expected, found = block(x), []
    original = torch.export.export

    def export(*arguments, **options):
        def run():
            with torch.no_grad():
                found.append(block(x))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return original(*arguments, **options)

    monkeypatch.setattr(door.torch.export, "export", export)
    moe.from_torch(block)
    assert torch.equal(found[0], expected)


# -- saved programs -----------------------------------------------------------

LOAD = """\
import sys, torch, moe.integrations.torch
x, y = torch.load(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
with torch.no_grad():
    assert torch.equal(program(x), y), (program(x) - y).abs().max()
    print(*program(x[:, :3]).shape)
"""


def load_elsewhere(program, x, y, folder: Path) -> str:
    """Run a program in a new process; returns the shape of its result for three tokens."""
    torch.export.save(program, folder / "layer.pt2")
    torch.save((x, y), folder / "rows.pt")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder / "layer.pt2", folder / "rows.pt"], text=True,
        capture_output=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_program_of_a_layer(tmp_path):
    compiled = moe.from_torch(block_of("qwen2_moe")).module()
    x = torch.randn(1, 7, H)
    program = torch.export.export(compiled, (x,),
                                  dynamic_shapes={"rows": {1: torch.export.Dim("tokens")}})
    assert load_elsewhere(program, x, compiled(x), tmp_path) == f"1 3 {H}"


@pytest.mark.parametrize("strict", [False, True])
def test_program_of_a_model_with_compiled_experts(strict, tmp_path):
    """Experts of transformers' interface are exported without a key of this process."""
    import moe.integrations.transformers as compiled_experts

    block = block_of("mixtral")
    compiled_experts.register()
    compiled_experts.prepare(block, progress=False, top_k=2)
    x = torch.randn(1, 7, H)
    program = torch.export.export(block, (x,), strict=strict, dynamic_shapes={
        "hidden_states": {1: torch.export.Dim("tokens")}})
    targets = [str(n.target) for n in program.graph.nodes]
    assert "moe_mlir.layer.default" in targets and "moe_mlir.experts.default" not in targets
    assert load_elsewhere(program, x, block(x), tmp_path) == f"1 3 {H}"


@pytest.mark.skipif("MOE_TEST_LONG" not in os.environ, reason="runs with ./dev test --long")
def test_aot_inductor(tmp_path):
    """Code in C++ makes new objects of weights in each call; they are prepared once."""
    from moe.integrations._layers import functions

    compiled = moe.from_torch(block_of("qwen2_moe")).module()
    x = torch.randn(1, 7, H)
    program = torch.export.export(compiled, (x,),
                                  dynamic_shapes={"rows": {1: torch.export.Dim("tokens")}})
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "l.pt2"))
    package = torch._inductor.aoti_load_package(path)
    assert torch.equal(package(x), compiled(x))
    bound = dict(functions._bound)
    assert torch.equal(package(x), compiled(x))
    assert functions._bound == bound
