"""Compiled layers as modules: in place of blocks, and in saved programs."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "qwen2_moe", "granitemoe"])
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


def test_loaded_weights_are_noticed():
    block = block_of("mixtral")
    compiled = moe.from_torch(block).module()
    x = torch.randn(3, 7, H)
    compiled(x)
    other = block_of("mixtral")
    other.experts.gate_up_proj.mul_(-2.0)
    compiled.load_state_dict(other.state_dict())
    assert data.relative_error(compiled(x).numpy(), other(x).numpy()) < F32


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
    with pytest.raises(moe.MoEError, match="takes rows, and was also given input_ids"):
        compiled(x, input_ids=torch.zeros(1, 7))


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

    with pytest.raises(moe.MoEError, match="Counts writes to module.rows, expected a function of "
                                           "its rows"):
        moe.from_torch(Counts().eval())


@pytest.mark.parametrize("inputs, message", [
    (lambda x: [x[..., :-1]], r"x is torch.float32 \[1, 7, 31\], expected torch.float32 \[T, 32\]"),
    (lambda x: [x.long()], r"x is torch.int64 \[1, 7, 32\], expected torch.float32 \[T, 32\]"),
    (lambda x: [x, x], "expected 1 inputs, got 2"),
])
def test_operands_of_the_operation(inputs, message):
    compiled = moe.from_torch(block_of("mixtral")).module()
    weights = [compiled.weight(name) for name in compiled.names]
    x = torch.randn(1, 7, H)
    with pytest.raises(moe.MoEError, match=message):
        torch.ops.moe_mlir.layer(inputs(x), weights, compiled.mlir, H, [], [])


def test_gradients_are_refused():
    compiled = moe.from_torch(block_of("mixtral")).module()
    with torch.enable_grad():
        y = compiled(torch.randn(1, 7, H))
        with pytest.raises(moe.MoEError, match="compiled layers are for inference"):
            y.sum().backward()


def test_freed_weights_free_their_layers():
    from moe.integrations import _operation

    x = torch.randn(1, 7, H)
    for _ in range(3):
        compiled = moe.from_torch(block_of("mixtral")).module()
        compiled(x)
        kept = len(_operation._bound)
    assert len(_operation._bound) == kept


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
    from moe.integrations import _operation

    compiled = moe.from_torch(block_of("qwen2_moe")).module()
    x = torch.randn(1, 7, H)
    program = torch.export.export(compiled, (x,),
                                  dynamic_shapes={"rows": {1: torch.export.Dim("tokens")}})
    path = torch._inductor.aoti_compile_and_package(program, package_path=tmp_path / "layer.pt2")
    package = torch._inductor.aoti_load_package(path)
    assert torch.equal(package(x), compiled(x))
    bound = dict(_operation._bound)
    assert torch.equal(package(x), compiled(x))
    assert _operation._bound == bound
