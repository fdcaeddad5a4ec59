"""Backward passes on a GPU, or on the double of its driver: whole layers against PyTorch's autograd
in float64, and moe.grouped_contract by itself, with results that are exact (cases/grouped.py)."""

from __future__ import annotations

import dataclasses
import functools
import hashlib

import numpy as np
import pytest
from moe_testing import data
from moe_testing.cases import auxiliary_loss, gate_gradient
from moe_testing.cases.grouped import grid
from moe_testing.cases.grouped_contract import Case
from moe_testing.device import arrays as gpu
from moe_testing.device import double

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moe  # noqa: E402
from moe_testing.models.gradients import expected_gradient, gradients_of  # noqa: E402
from moe_testing.models.hf import MODELS, H  # noqa: E402

TARGETS = ["sm_80", "sm_90a"]
# Of the largest gradient, as on the CPU (from_torch/test_training.py).
BOUND = {"f32": 3e-6, "bf16": 2e-2}
TORCH = {"f32": torch.float32, "bf16": torch.bfloat16}

pytestmark = pytest.mark.usefixtures("device")


def array_of(tensor) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(data.numpy_type("bf16"))
    return tensor.numpy()


@functools.cache
def trained(family: str, dtype: str, target: str):
    """A block of a model, and a layer with its backward function."""
    model = MODELS[family]()
    block = model.block(model.model).eval()
    imported = moe.from_torch(block.to(TORCH[dtype]))
    module = imported.compile(options=["--backward=all"], target=target, device="cuda")
    weights = {name: gpu.upload(array_of(t)) for name, t in imported.arrays().items()}
    return model, block, module, weights


def call(module, weights, function, tokens, inputs):
    """The results of a function, by name."""
    signature = module.signature(function)
    outs = [gpu.empty(info.dtype, [tokens if d < 0 else d for d in info.shape])
            for info in signature.outputs]
    used = {info.name: weights[info.name] for info in signature.weights}
    module.layer(used, function=function)(out=tuple(outs) if len(outs) > 1 else outs[0], **{
        info.name: inputs[info.name] for info in signature.inputs})
    return {info.name: out for info, out in zip(signature.outputs, outs)}


def gradients(family, dtype, target, x, dy):
    """The gradients of a layer as arrays, by name; that of the rows is "rows"."""
    _, _, module, weights = trained(family, dtype, target)
    name, = (n for n in module.functions if not n.endswith("_backward"))
    rows = module.signature(name).inputs[0].name
    inputs = {rows: gpu.upload(array_of(x))}
    results = call(module, weights, name, len(x), inputs)
    inputs |= {n: t for n, t in results.items() if n.startswith("saved")}
    inputs["result0_gradient"] = gpu.upload(array_of(dy))
    found = call(module, weights, name + "_backward", len(x), inputs)
    names = {n: n.removesuffix("_gradient") for n in found}
    return {"rows" if names[n] == rows else names[n]: gpu.download(t) for n, t in found.items()}


def inputs_of(model, dtype, tokens):
    x = model.rows_away_from_ties(tokens, TORCH[dtype]) if tokens else torch.empty(
        0, H, dtype=TORCH[dtype])
    dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(7)).to(x.dtype)
    return x, dy


def check(family, dtype, target, tokens, record):
    model, block, _, _ = trained(family, dtype, target)
    x, dy = inputs_of(model, dtype, tokens)
    known = gradients_of(block, x, dy)
    for name, gradient in gradients(family, dtype, target, x, dy).items():
        expected = expected_gradient(known, name).reshape(gradient.shape).numpy()
        error = np.abs(gradient.astype(np.float64) - expected).max() / np.abs(expected).max()
        record(f"{family} {dtype} {target} {name}", error)
        assert error < BOUND[dtype], name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "switch_transformers"])
def test_layer(family, target, record):
    """Experts with few rows and with more than a step of a contraction. (The modules of Switch give
    experts without tokens no gradient.)"""
    for tokens in (201,) if family == "switch_transformers" else (5, 201):
        check(family, "bf16", target, tokens, record)


@pytest.mark.parametrize("family", ["mixtral"])
def test_layer_in_f32(family, record):
    check(family, "f32", "sm_80", 33, record)


@pytest.mark.parametrize("target", TARGETS)
def test_no_tokens(target):
    """Gradients of weights are zeros."""
    x, dy = inputs_of(None, "bf16", 0)
    for name, gradient in gradients("mixtral", "bf16", target, x, dy).items():
        assert gradient.shape[0] == 0 if name == "rows" else not gradient.any(), name


@pytest.mark.parametrize("target", TARGETS)
def test_rows_that_are_no_numbers(target):
    """They are in the gradients of the experts that had them, and of no other."""
    model, _, _, _ = trained("mixtral", "bf16", target)
    x, dy = inputs_of(model, "bf16", 60)
    dy[7] = float("nan")
    found = gradients("mixtral", "bf16", target, x, dy)
    chosen = set(model.logits(x[7:8]).topk(2).indices[0].tolist())
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        bad = {e for e in range(8) if np.isnan(found[name][e].astype(np.float32)).any()}
        assert bad == chosen, name
    rows = np.isnan(found["rows"].astype(np.float32)).any(1)
    assert rows[7] and rows.sum() == 1


# -- moe.grouped_contract ------------------------------------------------------

CONTRACTS = [
    Case("bf16_136x264", 136, 264, "bf16", "bf16"),
    Case("bf16_gathers", 72, 136, "bf16", "f32", gathers=("lhs", "rhs")),
    Case("f16_gather_lhs", 264, 72, "f16", "f16", gathers=("lhs",)),
    Case("bf16_gather_rhs", 64, 320, "bf16", "f32", gathers=("rhs",)),
    Case("bf16_add", 40, 72, "bf16", "bf16", gathers=("rhs",), accumulate=True),
    Case("bf16_add_f32", 200, 24, "bf16", "f32", accumulate=True),
    Case("bf16_part", 24, 40, "bf16", "f32", experts=3, groups=7, first=2),
    Case("bf16_dense", 128, 64, "bf16", "f32", experts=1, offsets=False),
    Case("bf16_odd", 33, 20, "bf16", "f32"),
    Case("f32_33x20", 33, 20, "f32", "f32", gathers=("rhs",)),
    Case("f32_add", 20, 33, "f32", "bf16", accumulate=True),
]
BY_NAME = {case.name: case for case in CONTRACTS}
# Rows of each expert around steps of 64: none, a part, whole steps, more than there are stages.
COUNTS = {"ragged": [63, 0, 65, 128, 1], "all_of_one": [0, 0, 0, 400, 0], "none": [0] * 5,
          "first_and_last": [300, 0, 0, 0, 130]}


@functools.cache
def contract(target: str):
    return moe.compile("\n".join(case.text() for case in CONTRACTS), target=target, device="cuda")


def run(case: Case, target: str, arrays) -> np.ndarray:
    out = gpu.empty(case.result, (case.experts, case.k, case.n), guarded=True)
    inputs = {name: gpu.upload(array) for name, array in arrays.items()}
    contract(target).layer({}, function=case.name)(out=out, **inputs)
    return gpu.download(out)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("name", BY_NAME)
def test_contract(name, counts, target):
    """Sums of eighths are exact in f32, whatever the order; those of experts without rows are 0."""
    case = BY_NAME[name]
    counts = (COUNTS[counts] * 2)[:case.offset_count - 1]
    arrays = case.inputs(sum(counts), np.concatenate([[0], np.cumsum(counts)]), draw=grid)
    sums, _ = case.expected(arrays)
    expected = sums.astype(np.float32).astype(data.numpy_type(case.result))
    np.testing.assert_array_equal(run(case, target, arrays), expected)


@pytest.mark.parametrize("target", TARGETS)
def test_contract_of_no_numbers(target):
    """A row of another expert counts for nothing, whatever is in it, on either side."""
    case = dataclasses.replace(BY_NAME["bf16_136x264"])
    for side in ("lhs", "rhs"):
        arrays = case.inputs(193, [0, 63, 63, 128, 192, 193], draw=grid)
        arrays[side][63] = np.nan
        y = run(case, target, arrays).astype(np.float32)
        assert [bool(np.isnan(y[e]).any()) for e in range(5)] == [False, False, True, False, False]


@pytest.mark.parametrize("offsets", [(-5, 4, 190, 60, 3, 500), (2**31 - 1, -(2**31), 9, 70, 70, 0)],
                         ids=range(2))
@pytest.mark.parametrize("target", TARGETS)
def test_contract_of_offsets_that_lie(target, offsets):
    case = BY_NAME["bf16_gathers"]
    arrays = case.inputs(193, offsets, draw=grid)
    np.testing.assert_array_equal(run(case, target, arrays), case.expected(arrays)[0])


# -- moe.gate_gradient --------------------------------------------------------

# All that a warp computes, and one that it leaves to loops.
GATES = [name for name, case in gate_gradient.CASES.items()
         if case.axis == "experts" and case.order != "score_each_choice"] + ["each_bf16"]


@functools.cache
def gates(target: str):
    text = "\n".join(gate_gradient.CASES[name].text(name, with_gate=False) for name in GATES)
    return moe.compile(text, target=target, device="cuda")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", GATES)
def test_gate_gradient(name, target, record):
    """Against autograd in float64; a choice that is none, and a NaN, in the last token."""
    case = gate_gradient.CASES[name]
    inputs = gate_gradient.logits_of(name, 33)
    ids = gate_gradient.choices_of(name, inputs).copy()
    ids[3, 0] = -1
    whole = gate_gradient.expected(case, ids, **inputs)
    inputs["gradient"][-1, 0] = np.nan
    out = gpu.empty(case.element, inputs["logits"].shape, guarded=True)
    arrays = {n: gpu.upload(a) for n, a in (inputs | {"ids": ids.astype(np.int32)}).items()}
    gates(target).layer({}, function=name)(out=out, **arrays)
    found = gpu.download(out)
    error = data.relative_error(found[:-1], whole[:-1])
    record(f"gate_gradient {case.element} {target}", error)
    assert error <= gate_gradient.TOLERANCE[case.element]
    if ids[-1, 0] >= 0 and (case.score != "relu" or case.normalize):
        assert np.isnan(found[-1].astype(np.float32)).any()


# -- Losses and balance --------------------------------------------------------


@functools.cache
def losses(target: str):
    texts = [case.text(name) for name, case in auxiliary_loss.CASES.items()]
    texts += [auxiliary_loss.balance_text(element) for element in auxiliary_loss.BIAS]
    return moe.compile("\n".join(texts), target=target, device="cuda")


def call_loss(target, name, inputs):
    module = losses(target)
    tokens = len(inputs["ids"] if "ids" in inputs else inputs["values"])
    outs = tuple(gpu.empty(info.dtype, [tokens if d < 0 else d for d in info.shape], guarded=True)
                 for info in module.signature(name).outputs)
    module.layer({}, function=name)(
        out=outs, **{n: gpu.upload(array) for n, array in inputs.items()})
    return tuple(gpu.download(out) for out in outs)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", auxiliary_loss.CASES)
def test_loss(name, target, record):
    case = auxiliary_loss.CASES[name]
    for tokens in (1, 65):
        inputs = auxiliary_loss.inputs_of(name, tokens)
        loss, d = call_loss(target, name, inputs)
        exact, gradient = auxiliary_loss.expected(name, inputs)
        assert abs(loss - exact) <= auxiliary_loss.TOLERANCE["f32"] * max(abs(exact), 1e-30)
        error = auxiliary_loss.of_largest(d, gradient)
        record(f"auxiliary_loss {case.element} {target}", error)
        assert error <= auxiliary_loss.TOLERANCE[case.element], tokens


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("element", auxiliary_loss.BIAS)
def test_update_bias(element, target):
    for tokens in (1, 64):
        inputs = auxiliary_loss.balance_inputs(element, tokens)
        load, new = call_loss(target, f"update_{element}", inputs)
        exact, moved = auxiliary_loss.updated(**inputs)
        assert np.array_equal(load, exact)
        assert np.array_equal(data.bits(new), data.bits(moved))


# -- Gradients of weights in f32, added to what is there -----------------------


@pytest.mark.parametrize("target", TARGETS)
def test_sums_in_f32(target, record):
    """--f32-gradients and --accumulate: two backward passes add up in the memory of the caller,
    without a rounding to bf16."""
    model, block, _, weights = trained("mixtral", "bf16", target)
    module = moe.from_torch(block).compile(
        options=["--backward=all", "--f32-gradients=all", "--accumulate=all"], target=target,
        device="cuda")
    name, = (n for n in module.functions if not n.endswith("_backward"))
    signature = module.signature(name + "_backward")
    sums = {info.name: gpu.upload(np.full(info.shape, 0.25, data.numpy_type(info.dtype)))
            for info in signature.outputs if info.accumulates}
    assert len(sums) == len(weights)
    rows = module.signature(name).inputs[0].name
    exact = {n: 0.0 for n in sums}
    for seed in (7, 8):
        x = model.rows_away_from_ties(70, torch.bfloat16)
        dy = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.dtype)
        known = gradients_of(block, x, dy)
        for n in exact:
            exact[n] += expected_gradient(known, n.removesuffix("_gradient")).numpy()
        inputs = {rows: gpu.upload(array_of(x))}
        results = call(module, weights, name, len(x), inputs)
        inputs |= {n: t for n, t in results.items() if n.startswith("saved")}
        inputs["result0_gradient"] = gpu.upload(array_of(dy))
        outs = tuple(sums[info.name] if info.name in sums else gpu.empty(
            info.dtype, [len(x) if d < 0 else d for d in info.shape])
            for info in signature.outputs)
        used = {info.name: weights[info.name] for info in signature.weights}
        module.layer(used, function=name + "_backward")(
            out=outs, **{info.name: inputs[info.name] for info in signature.inputs})
    for n, gradient in exact.items():
        found = gpu.download(sums[n])
        assert found.dtype == np.float32
        found = found.astype(np.float64) - 0.25
        error = np.abs(found - gradient.reshape(found.shape)).max() / np.abs(gradient).max()
        record(f"sums {n} {target}", error)
        assert error < BOUND["bf16"], n


def digests(target):
    x, dy = inputs_of(trained("mixtral", "bf16", target)[0], "bf16", 90)
    found = gradients("mixtral", "bf16", target, x, dy)
    return [hashlib.sha256(data.bits(g)).hexdigest() for _, g in sorted(found.items())]


@pytest.mark.parametrize("target", TARGETS)
def test_bits_do_not_depend_on_time(target):
    """Whenever copies and products land, and whichever block comes first: the same bits."""
    found = double.in_new_process(__file__, target, MOE_CUDA_DOUBLE_SEED="3")
    assert found.split() == digests(target)


if __name__ == "__main__":
    import sys
    print("\n".join(digests(sys.argv[1])))
