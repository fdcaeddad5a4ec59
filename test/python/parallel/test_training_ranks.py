"""Gradients of layers over several ranks."""

from __future__ import annotations

import functools

import moe
import moe.parallel
import numpy as np
import pytest
from moe_testing import data, layers, processes, ranks
from moe_testing.layers import E

# One or more of each kind of router, capacity and expert.
FAMILIES = ("deepseek_v2", "deepspeed_top2", "expert_choice", "gemma4", "given_route", "gpt_oss",
            "llama4", "mesh_ntlb", "noisy_topk", "phimoe", "remoe", "switch_passthrough")


@functools.cache
def compiled(name: str, dtype: str, *options: str) -> moe.Module:
    return moe.compile(layers.text(name, dtype), options=["--backward=all", *options])


def named(signature, values) -> dict[str, np.ndarray]:
    values = values if isinstance(values, tuple) else (values,)
    return dict(zip([info.name for info in signature.outputs], values, strict=True))


def weights_of(signature, weights) -> dict[str, np.ndarray]:
    return {info.name: weights[info.name] for info in signature.weights}


def gradients_of_results(name: str, dtype: str, tokens: int) -> dict[str, np.ndarray]:
    random = data.rng("gradients", name, tokens)
    return {info.name: random.standard_normal(
                [tokens if size < 0 else size for size in info.shape]).astype(
                    data.numpy_type(info.dtype))
            for info in compiled(name, dtype).signature("layer_backward").inputs
            if info.name.endswith("_gradient")}


def one_rank(name: str, dtype: str, inputs, gradients, *options: str):
    """The results of the layer and its gradients."""
    module, weights = compiled(name, dtype, *options), data.weights_of(name, dtype)
    forward, backward = (module.signature(n) for n in ("layer", "layer_backward"))
    results = named(forward, module.layer(weights_of(forward, weights), function="layer")(**inputs))
    known = {**inputs, **results, **gradients}
    found = module.layer(weights_of(backward, weights), function="layer_backward")(
        **{info.name: known[info.name] for info in backward.inputs})
    return ([value for key, value in results.items() if not key.startswith("saved")],
            named(backward, found))


def train(communicator, path, weights, inputs, gradients, counts, table=None):
    """The results of a rank, and its gradients."""
    group = moe.parallel.Group(communicator, deadline=60, num_threads=1)
    module = moe.load(path, group=group)
    layer, backward = (
        module.layer(weights_of(module.signature(n), weights), function=n, table=table)
        for n in ("layer", "layer_backward"))
    own = ranks.split(inputs, counts)[group.rank]
    known = {**own, **ranks.split(gradients, counts)[group.rank]}
    result, saved = layer.forward(**own)
    sent = layer.exchange.rows_sent
    found = backward.backward(saved, **{info.name: known[info.name]
                                        for info in backward.signature.inputs})
    # Gradients of tokens travel as the tokens did.
    assert backward.exchange.rows_sent == sent
    assert saved.nbytes > 0
    return (result if isinstance(result, tuple) else (result,),
            named(backward.signature, found))


def over_ranks(name: str, dtype: str, inputs, gradients, counts, parallel: str, *options: str,
               table=None):
    path = str(compiled(name, dtype, f"--parallel={parallel}", *options).path)
    return ranks.run(len(counts), lambda communicator: train(
        communicator, path, data.weights_of(name, dtype), inputs, gradients, counts, table))


def check(name: str, dtype: str, counts, parallel: str, *options: str, table=None) -> None:
    inputs = data.inputs_of(name, sum(counts), dtype)
    gradients = gradients_of_results(name, dtype, sum(counts))
    results, expected = one_rank(name, dtype, inputs, gradients, *options)
    found = over_ranks(name, dtype, inputs, gradients, counts, parallel, *options, table=table)
    compare(found, results, expected, dtype, data.weights_of(name, dtype), table)


def compare(found, results, expected, dtype, weights, table=None) -> None:
    """What the ranks have, against one rank."""
    for i, result in enumerate(results):
        got = np.concatenate([each[0][i] for each in found])
        assert (data.bits(got) == data.bits(result)).all()
    for key, whole in expected.items():
        parts = [each[1][key] for each in found]
        if key.removesuffix("_gradient") not in weights:  # of an input
            got = np.concatenate(parts)
        elif len(parts) == 1:
            got, = parts
        elif parts[0].shape != whole.shape:
            got = of_all_experts(parts, whole, table)
        else:  # of what all ranks have: a sum over the tokens, in another order
            total = sum(part.astype(np.float64) for part in parts)
            expected_total = whole.astype(np.float64)
            bound = {"f32": 1e-6, "bf16": 1e-2}[dtype] * np.abs(expected_total).max()
            assert np.abs(total - expected_total).max() <= bound, key
            continue
        assert (data.bits(got) == data.bits(whole)).all(), key


def of_all_experts(parts, whole, table) -> np.ndarray:
    """Gradients of experts from those of the slots of each rank."""
    table = moe.parallel.placement(E, len(parts)) if table is None else table
    got = np.full(whole.shape, np.nan, whole.dtype)
    for row, part in zip(table, parts):
        row = [*row, *[-1] * (len(part) - len(row))]
        for expert, gradient in zip(row, part, strict=True):
            if expert >= 0:
                got[expert] = gradient
            else:
                assert not gradient.any()
    return got


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    """The bits of one rank."""
    check(name, "f32", ranks.shares(data.rng("training", name), 37, 3), "ranks=3")


@pytest.mark.parametrize("size", (1, 2, 5))
def test_sizes(size):
    check("mixtral", "f32", ranks.shares(data.rng("sizes", size), 29, size), f"ranks={size}")
    check("deepseek_v3", "f32", [0] * (size - 1) + [13], f"ranks={size}")


def test_without_tokens():
    check("switch", "f32", [0, 0], "4")


def test_placement():
    """Experts in any order, with empty slots."""
    table = np.full((3, 4), -1, np.int32)
    table[0, [0, 3]], table[1, 1:], table[2, :3] = [6, 1], [0, 7, 3], [5, 2, 4]
    check("mixtral", "f32", [11, 7, 5], "4", table=table)


def test_types_and_products_computed_again():
    check("mixtral", "bf16", [9, 0, 12], "3")
    check("mixtral", "f32", [9, 12], "4", "--save=routes")
    check("deepseek_v3", "f32", [9, 12], "4", "--backward=x,gate_proj")


def test_replicas():
    """A copy of an expert has the gradient of the tokens that came to it."""
    table = np.array([[0, 1, 2, 3, 4], [5, 6, 7, 0, 1]], np.int32)
    counts = [15, 18]
    inputs = data.inputs_of("mixtral", 33)
    gradients = gradients_of_results("mixtral", "f32", 33)
    _, expected = one_rank("mixtral", "f32", inputs, gradients)
    found, again = (over_ranks("mixtral", "f32", inputs, gradients, counts, "5:2", table=table)
                    for _ in range(2))
    got = np.concatenate([each[1]["x_gradient"] for each in found])
    assert (data.bits(got) == data.bits(expected["x_gradient"])).all()
    for key, whole in expected.items():
        assert all((data.bits(a[1][key]) == data.bits(b[1][key])).all()
                   for a, b in zip(found, again))
        if found[0][1][key].shape[0] != 5:
            continue
        total = np.zeros(whole.shape)
        for row, each in zip(table, found):
            total[row] += each[1][key]
        assert np.abs(total - whole).max() <= 1e-6 * np.abs(whole).max()


def test_process_group():
    """Over processes with gloo."""
    pytest.importorskip("torch")
    path, counts = str(compiled("deepseek_v3", "f32", "--parallel=4").path), [21, 14]
    inputs, weights = data.inputs_of("deepseek_v3", 35), data.weights_of("deepseek_v3")
    gradients = gradients_of_results("deepseek_v3", "f32", 35)
    results, expected = one_rank("deepseek_v3", "f32", inputs, gradients)
    found = processes.run(2, train, path, weights, inputs, gradients, counts)
    compare(found, results, expected, "f32", weights)


def on_two_ranks(body):
    """The errors that ``body`` raises on each of two ranks of a layer of Mixtral."""
    path, weights = compiled("mixtral", "f32", "--parallel=4").path, data.weights_of("mixtral")
    inputs = data.inputs_of("mixtral", 6)

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, deadline=20, num_threads=1)
        module = moe.load(path, group=group)
        layer, backward = (module.layer(weights_of(module.signature(n), weights), function=n)
                           for n in ("layer", "layer_backward"))
        calls = [layer.forward(**inputs)[1] for _ in range(2)]
        x = inputs["x"]
        with pytest.raises(moe.MoEError) as error:
            body(group.rank, layer, backward, calls, x)
        # The group goes on.
        backward.backward(calls[0], x, x)
        return str(error.value)

    return ranks.run(2, on_rank)


def test_saved_values_of_another_call():
    for text in on_two_ranks(lambda rank, layer, backward, calls, x: backward.backward(
            calls[rank], x, x)):
        assert "saved values of call" in text


def test_other_tokens():
    first, second = on_two_ranks(lambda rank, layer, backward, calls, x: backward.backward(
        calls[0], x[:6 - rank], x[:6 - rank]))
    assert "rank 1 failed with code 3" in first
    assert "a call with 6 tokens has saved the values, this one has 5" in second


def test_calls_of_the_wrong_layer():
    for text in on_two_ranks(lambda rank, layer, backward, calls, x: backward(x, x)):
        assert "needs what a call of layer 'layer' has saved" in text
    for text in on_two_ranks(lambda rank, layer, backward, calls, x: layer.backward(calls[0], x)):
        assert "is no backward layer over several ranks" in text
    for text in on_two_ranks(lambda rank, layer, backward, calls, x: backward.forward(x, x)):
        assert "is no layer over several ranks that saves values" in text


def test_other_experts():
    """Experts that moved after the call."""
    def move(rank, layer, backward, calls, x):
        backward.move(np.array([[7, 6, 5, 4], [3, 2, 1, 0]], np.int32))
        try:
            backward.backward(calls[0], x, x)
        finally:
            backward.move(None)

    for text in on_two_ranks(move):
        assert "has its experts on other ranks than layer 'layer'" in text


def test_no_rounds():
    """What is saved is of all rows: a limit of memory that would need rounds is an error."""
    path, weights = compiled("mixtral", "f32", "--parallel=4").path, data.weights_of("mixtral")
    inputs = data.inputs_of("mixtral", 60)

    def on_rank(communicator):
        group = moe.parallel.Group(communicator, num_threads=1, memory_limit=60_000)
        module = moe.load(path, group=group)
        layer = module.layer(weights_of(module.signature("layer"), weights), function="layer")
        with pytest.raises(moe.MoEError, match="needs more memory than the group's limit"):
            layer.forward(**inputs)

    ranks.run(2, on_rank)


def test_against_autograd():
    """Gradients of PyTorch in float64."""
    torch = pytest.importorskip("torch")
    counts, tokens = [8, 0, 17], 25
    inputs, weights = data.inputs_of("mixtral", tokens), data.weights_of("mixtral")
    gradients = gradients_of_results("mixtral", "f32", tokens)
    x, w = (torch.tensor(inputs["x"], dtype=torch.float64, requires_grad=True),
            {key: torch.tensor(value, dtype=torch.float64, requires_grad=True)
             for key, value in weights.items()})
    values, ids = (x @ w["router"].T).softmax(-1).topk(2)
    values = values / values.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for k in range(2):
        gate = torch.einsum("th,tih->ti", x, w["gate_proj"][ids[:, k]])
        up = torch.einsum("th,tih->ti", x, w["up_proj"][ids[:, k]])
        rows = torch.nn.functional.silu(gate) * up
        y = y + values[:, k:k + 1] * torch.einsum("ti,thi->th", rows, w["down_proj"][ids[:, k]])
    (dy,) = gradients.values()
    expected = torch.autograd.grad(y, [x, *w.values()], torch.tensor(dy, dtype=torch.float64))
    found = over_ranks("mixtral", "f32", inputs, gradients, counts, "ranks=3")
    for key, known in zip(["x", *w], (each.numpy() for each in expected), strict=True):
        parts = [each[1][f"{key}_gradient"] for each in found]
        if key == "x":
            got = np.concatenate(parts)
        elif key == "router":
            got = sum(part.astype(np.float64) for part in parts)
        else:
            got = of_all_experts(parts, parts[0][:1].repeat(E, 0), None)
        assert np.abs(got - known).max() < 1e-6 * np.abs(known).max(), key
