"""Gradients of compiled layers, against PyTorch's in float64."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moe  # noqa: E402
from moe_testing.models.gradients import expected_gradient, gradients_of  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiled")

# Of the largest gradient: sums in f32 and in another order, a chain of five products.
F32 = 3e-6
BF16 = 2e-2

# A gate each: softmax with and without normalisation, sigmoid with groups and a bias, softmax of
# the chosen, scores by SparseMixer (not raised), one choice, scaled rows, biases, shared experts.
FAMILIES = ["mixtral", "qwen2_moe", "deepseek_v3", "gpt_oss", "granitemoe", "phimoe", "llama4_text",
            "switch_transformers", "dbrx", "deepseek_v2"]


def block_of(model):
    return model.block(model.model).eval()


def backward(imported, x, dy, save="accumulators"):
    """The result of the compiled layer, and its gradients by name."""
    module = imported.compile(options=["--backward=all", f"--save={save}"])
    name, = (n for n in module.functions if not n.endswith("_backward"))
    arrays = imported.arrays()

    def call(function, *inputs):
        weights = {w.name: arrays[w.name] for w in module.signature(function).weights}
        results = module.layer(weights, function=function)(*inputs)
        return results if isinstance(results, tuple) else (results,)

    y, *saved = call(name, x)
    signature = module.signature(name + "_backward")
    rows = module.signature(name).inputs[0].name
    inputs = [x if info.name == rows else saved[int(info.name[5:])]
              if info.name.startswith("saved") else dy for info in signature.inputs]
    found = call(name + "_backward", *inputs)
    names = [info.name.removesuffix("_gradient") for info in signature.outputs]
    return y, {"rows" if n == rows else n: g for n, g in zip(names, found)}


def check(family, dtype, count, bound, record):
    model = MODELS[family]()
    block = block_of(model)
    imported = moe.from_torch(block.to(dtype))
    x = model.rows_away_from_ties(count, dtype)
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(dtype)
    _, found = backward(imported, x, dy)
    gradients = gradients_of(block, x, dy)
    assert set(found) >= {"rows", *(n for n in gradients if n in imported.weights)}
    for name, gradient in found.items():
        if name.endswith("e_score_correction_bias"):
            assert not gradient.any()  # it takes part in the choice alone
            continue
        known = expected_gradient(gradients, name)
        known = known.reshape(gradient.shape)
        error = float((gradient.double() - known).abs().max() / known.abs().max())
        record(f"{family} {dtype} {name}", error)
        assert error < bound, name


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, record):
    check(family, torch.float32, 33, F32, record)


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss"])
def test_bf16(family, record):
    check(family, torch.bfloat16, 33, BF16, record)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_products_computed_again(family, dtype):
    """What is not saved has the same bits, and so have the gradients."""
    model = MODELS[family]()
    imported = moe.from_torch(block_of(model).to(dtype))
    x = model.rows_away_from_ties(33, dtype)
    _, known = backward(imported, x, x)
    _, found = backward(imported, x, x, save="routes")
    assert all(torch.equal(found[name], known[name]) for name in known)


@pytest.mark.parametrize("count", [1, 257])
def test_tokens(count, record):
    check("qwen3_moe", torch.float32, count, F32, record)


def test_experts_without_tokens():
    """Their weights have a gradient of zeros, and not of what was in memory."""
    model = MODELS["mixtral"]()
    block = block_of(model)
    imported = moe.from_torch(block)
    x = model.rows_away_from_ties(2, torch.float32)
    chosen = model.logits(x).topk(2).indices.unique()
    _, found = backward(imported, x, torch.ones_like(x))
    left = [e for e in range(8) if e not in chosen]
    assert left
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        assert not found[name][left].any() and found[name][chosen].any()


def test_no_tokens():
    imported = moe.from_torch(block_of(MODELS["mixtral"]()))
    x = torch.empty(0, H)
    _, found = backward(imported, x, x)
    assert found["rows"].shape == (0, H)
    assert not any(g.any() for g in found.values())


def test_nan_stays_in_its_rows():
    model = MODELS["mixtral"]()
    imported = moe.from_torch(block_of(model))
    x = model.rows_away_from_ties(9, torch.float32)
    dy = torch.ones_like(x)
    dy[4, 3] = float("nan")
    _, found = backward(imported, x, dy)
    isnan = found["rows"].isnan().any(-1)
    assert isnan[4] and int(isnan.sum()) == 1


def test_same_bits(monkeypatch):
    model = MODELS["deepseek_v3"]()
    imported = moe.from_torch(block_of(model))
    x = model.rows_away_from_ties(65, torch.float32)
    first = backward(imported, x, x)[1]
    again = backward(imported, x, x)[1]
    assert all(torch.equal(first[name], again[name]) for name in first)


# -- the layer as a module ----------------------------------------------------------


def losses(module, x, target, steps=4):
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.5)
    found = []
    for _ in range(steps):
        y = module(x)
        y = y[0] if isinstance(y, tuple) else y
        loss = ((y - target) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_training():
    """Steps of an optimizer: weights change, and a call has the present ones."""
    model = MODELS["mixtral"]()
    block = block_of(model)
    for parameter in block.parameters():
        parameter.requires_grad_(True)
    x = model.rows_away_from_ties(24, torch.float32)[None]
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    trainable = moe.from_torch(copy.deepcopy(block)).trainable()
    ours, theirs = losses(trainable, x, target), losses(block, x, target)
    assert theirs[-1] < 0.9 * theirs[0]
    np.testing.assert_allclose(ours, theirs, rtol=2e-5)


def test_only_what_needs_a_gradient():
    model = MODELS["mixtral"]()
    layer = moe.from_torch(block_of(model)).trainable()
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    x = model.rows_away_from_ties(5, torch.float32).requires_grad_(True)
    layer(x).sum().backward()
    assert x.grad is not None and all(p.grad is None for p in layer.parameters())
    with torch.no_grad():
        assert not layer(x).requires_grad


def test_double_backward_is_an_error():
    model = MODELS["mixtral"]()
    layer = moe.from_torch(block_of(model)).trainable()
    x = model.rows_away_from_ties(5, torch.float32).requires_grad_(True)
    gradient, = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    with pytest.raises(moe.MoEError, match="gradients of a compiled layer have no gradients"):
        gradient.sum().backward()


def test_weights_changed_before_backward():
    model = MODELS["mixtral"]()
    layer = moe.from_torch(block_of(model)).trainable()
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    y = layer(model.rows_away_from_ties(5, torch.float32))
    with torch.no_grad():
        layer.get_parameter("experts.down_proj").add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_page():
    """The program of the documentation."""
    page = Path(__file__).resolve().parents[3] / "docs/training.md"
    program = page.read_text().split("```python\n")[1].split("```")[0]
    model = MODELS["mixtral"]()
    block = block_of(model)
    for parameter in block.parameters():
        parameter.requires_grad_(True)
    x = model.rows_away_from_ties(6, torch.float32)
    values = {"moe": moe, "torch": torch, "block": block, "x": x, "target": -x}
    exec(program, values)
    assert values["loss"].grad_fn is not None
