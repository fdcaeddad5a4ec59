"""Whole layers through moe-compile and the runtime, on the CPU.

Every family runs against the same oracles as the reference: transformers' blocks
and the papers' formulas (oracles/hf.py, oracles/papers.py), in f32, bf16 and f16.
"""

from __future__ import annotations

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.compiled_layers import ALL, PER_TOKEN, ROUTED, layer, module
from moe_testing.data import TOLERANCE, bits
from moe_testing.oracles import numpy_layers


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


@pytest.mark.parametrize("tokens", data.T_SIZES)
@pytest.mark.parametrize("name", ALL)
def test_f32(name, tokens, record):
    inputs = data.inputs_of(name, tokens)
    y = layer(name)(**inputs)
    assert y.shape == (tokens, layers.H) and y.dtype == np.float32
    if tokens:
        error = data.relative_error(y, data.oracle(name, inputs, data.weights_of(name)))
        record(f"{name} f32", error)
        assert error < TOLERANCE["f32"]


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("name", ALL)
def test_half(name, dtype, record):
    for tokens in (1, 33):
        inputs, weights = data.inputs_of(name, tokens, dtype), data.weights_of(name, dtype)
        y = layer(name, dtype)(**inputs)
        assert y.dtype == data.numpy_type(dtype)
        error = data.relative_error(y, data.oracle(name, inputs, weights))
        record(f"{name} {dtype}", error)
        assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("name", [n for n in ROUTED if n != "hierarchical"])
def test_all_tokens_on_one_expert(name):
    inputs, weights = data.skewed(name, 33, expert=6)
    y = module(name).layer(weights)(**inputs)
    assert data.relative_error(y, data.oracle(name, inputs, weights)) < TOLERANCE["f32"]


@pytest.mark.parametrize("name", ROUTED)
def test_all_logits_tie(name):
    """A router of zeros: the lowest ids win (and the first tokens, for expert choice)."""
    inputs, weights = data.inputs_of(name, 9), data.weights_of(name)
    for key in ("router", "secondary_router", "noise_router", "router_bias",
                "e_score_correction_bias"):
        if key in weights:
            weights[key] = np.zeros_like(weights[key])
    if "normal" in inputs:
        inputs["normal"] = np.zeros_like(inputs["normal"])
    y = module(name).layer(weights)(**inputs)
    extra = {k: v for k, v in inputs.items() if k != "x"}
    expected = numpy_layers.run(name, inputs["x"], weights, **extra)
    assert data.relative_error(y, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", PER_TOKEN)
def test_a_broken_token_stays_alone(name, value):
    """NaN or inf in one token: the bits of the others do not change."""
    inputs = data.inputs_of(name, 33)
    before = layer(name)(**inputs)
    inputs["x"] = inputs["x"].copy()
    inputs["x"][4, 3] = value
    after = layer(name)(**inputs)
    others = np.arange(33) != 4
    np.testing.assert_array_equal(bits(after[others]), bits(before[others]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss", "phimoe", "noisy_topk"])
def test_broken_logits(name, value):
    """Logits that are NaN or infinite for one expert, finite rows and experts."""
    inputs, weights = data.inputs_of(name, 20), data.weights_of(name)
    inputs["x"] = np.abs(inputs["x"]) + 0.1
    weights["router"] = weights["router"].copy()
    weights["router"][2] = value
    y = module(name).layer(weights)(**inputs)
    extra = {k: v for k, v in inputs.items() if k != "x"}
    with np.errstate(all="ignore"):
        expected = numpy_layers.run(name, inputs["x"], weights, **extra)
    assert np.isfinite(expected).all()
    assert data.relative_error(y, expected) < TOLERANCE["f32"]


@pytest.mark.parametrize("name", ALL)
def test_repeated_runs_are_bitwise_equal(name):
    inputs = data.inputs_of(name, 33)
    first = layer(name)(**inputs)
    for _ in range(3):
        np.testing.assert_array_equal(bits(layer(name)(**inputs)), bits(first))


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", PER_TOKEN)
def test_bits_do_not_depend_on_t(name, dtype):
    """Tokens one by one, in two parts and all at once: the same bits."""
    inputs = data.inputs_of(name, 33, dtype)
    whole = layer(name, dtype)(**inputs)
    for cuts in ([0, 16, 33], [0, 1, 33], list(range(34))):
        parts = [layer(name, dtype)(**{k: v[a:b] for k, v in inputs.items()})
                 for a, b in zip(cuts, cuts[1:])]
        np.testing.assert_array_equal(bits(np.concatenate(parts)), bits(whole))


@pytest.mark.parametrize("name", ALL)
def test_workspace_is_enough(name):
    """Exactly workspace_bytes(T), between guard bytes that must survive, whatever was in it:
    tokens spread over the experts and, where there is a router, all on one of them."""
    calls = [(layer(name), data.inputs_of(name, 257))]
    if name in ROUTED and name != "hierarchical":
        inputs, weights = data.skewed(name, 257, expert=6)
        calls.append((module(name).layer(weights), inputs))
    for tokens in [*range(41), 257]:
        for call, whole_inputs in calls:
            inputs = {k: v[:tokens] for k, v in whole_inputs.items()}
            size = call.workspace_bytes(tokens)
            results = []
            for content in (0x00, 0xFF):    # zeros; NaN and −1
                whole = np.full(size + 192, 0xA5, np.uint8)
                start = -whole.ctypes.data % 64 + 64
                whole[start:start + size] = content
                results.append(call(**inputs, workspace=whole[start:start + size]))
                assert (whole[:start] == 0xA5).all(), tokens
                assert (whole[start + size:] == 0xA5).all(), tokens
            np.testing.assert_array_equal(bits(results[0]), bits(results[1]), str(tokens))
            if tokens in (0, 1, 40, 257):
                np.testing.assert_array_equal(bits(results[0]), bits(call(**inputs)))


def test_ids_of_minus_one_add_nothing():
    inputs = data.inputs_of("hash_layer", 7)
    inputs["ids"][:] = -1
    assert (layer("hash_layer")(**inputs) == 0).all()
    inputs = data.inputs_of("given_route", 7)
    inputs["ids"][:] = -1
    assert (layer("given_route")(**inputs) == 0).all()


@pytest.mark.parametrize("name", ["hash_layer", "given_route"])
@pytest.mark.parametrize("bad", [8, -2, 2**31 - 1, -(2**31)])
def test_ids_out_of_range_are_an_error(name, bad):
    import moe

    inputs = data.inputs_of(name, 7)
    inputs["ids"][3, 0] = bad
    with pytest.raises(moe.MoEError) as caught:
        layer(name)(**inputs)
    assert caught.value.code == moe.INVALID_ARGUMENT


def test_statistics():
    bound = module("mixtral").layer(data.weights_of("mixtral"))
    inputs = data.inputs_of("mixtral", 33)
    bound(**inputs)
    bound(**inputs)
    (found,) = bound.statistics()
    from moe.reference import gate
    _, ids = gate(inputs["x"] @ data.weights_of("mixtral")["router"].T, top_k=2)
    np.testing.assert_array_equal(found.tokens_per_expert, 2 * np.bincount(ids.ravel(),
                                                                           minlength=8))
    assert (found.calls, found.choices, found.dropped) == (2, 132, 0)
    bound.reset_statistics()
    assert bound.statistics()[0].calls == 0


def test_statistics_count_drops():
    inputs, weights = data.skewed("switch", 33, expert=6)
    bound = module("switch").layer(weights)
    bound(**inputs)
    (found,) = bound.statistics()
    assert (found.choices, found.dropped) == (33, 28)
    np.testing.assert_array_equal(found.tokens_per_expert, [0, 0, 0, 0, 0, 0, 5, 0])


# -- what a caller can do ----------------------------------------------------


def test_torch_in_torch_out():
    import torch

    inputs, weights = data.inputs_of("mixtral", 7), data.weights_of("mixtral")
    bound = module("mixtral").layer({k: torch.from_numpy(v) for k, v in weights.items()})
    y = bound(torch.from_numpy(inputs["x"]))
    assert isinstance(y, torch.Tensor)
    np.testing.assert_array_equal(bits(y.numpy()), bits(layer("mixtral")(inputs["x"])))
    out = torch.empty(7, layers.H)
    assert bound(torch.from_numpy(inputs["x"]), out=out) is out
    assert torch.equal(out, y)


def test_torch_bf16():
    import torch

    inputs, weights = data.inputs_of("mixtral", 7), data.weights_of("mixtral")
    bound = module("mixtral", "bf16").layer(
        {k: torch.from_numpy(v).bfloat16() for k, v in weights.items()})
    y = bound(torch.from_numpy(inputs["x"]).bfloat16())
    assert y.dtype == torch.bfloat16
    expected = layer("mixtral", "bf16")(inputs["x"].astype(data.numpy_type("bf16")))
    np.testing.assert_array_equal(y.float().numpy(), expected.astype(np.float32))


def test_weights_as_a_list_and_the_signature():
    weights = data.weights_of("mixtral")
    signature = module("mixtral").signature()
    assert [i.name for i in signature.inputs] == ["x"]
    assert [i.name for i in signature.weights] == list(weights)
    assert signature.inputs[0].shape == (-1, layers.H)
    bound = module("mixtral").layer(list(weights.values()))
    x = data.inputs_of("mixtral", 7)["x"]
    np.testing.assert_array_equal(bits(bound(x)), bits(layer("mixtral")(x)))


def test_weights_from_a_safetensors_file(tmp_path):
    from safetensors.numpy import save_file

    weights = data.weights_of("mixtral")
    save_file(weights, tmp_path / "w.safetensors")
    bound = module("mixtral").layer(tmp_path / "w.safetensors")
    x = data.inputs_of("mixtral", 7)["x"]
    np.testing.assert_array_equal(bits(bound(x)), bits(layer("mixtral")(x)))


@pytest.mark.parametrize("make, what", [
    (lambda x: x[:, :-1], "23"), (lambda x: x[None], "rank|dimension"),
    (lambda x: x.astype(np.float64), "f64|float64|type"),
    (lambda x: np.asfortranarray(x), "stride|contiguous|compact"),
    (lambda x: x[:, ::2].repeat(2, 1)[:, ::-1], "stride|contiguous|compact")])
def test_wrong_inputs_are_refused(make, what):
    import moe

    x = data.inputs_of("mixtral", 7)["x"]
    with pytest.raises(moe.MoEError, match=f"(?i){what}") as caught:
        layer("mixtral")(make(x))
    assert caught.value.code == moe.INVALID_ARGUMENT


def test_workspaces_are_reused_and_released():
    call, x = layer("mixtral"), data.inputs_of("mixtral", 40)["x"]
    whole = call(x)
    for tokens in (3, 0, 40, 7):
        np.testing.assert_array_equal(call(x[:tokens]), whole[:tokens])
        if tokens != 3:
            module("mixtral", "f32").trim()


def test_small_workspace_and_wrong_output_are_refused():
    import moe

    x = data.inputs_of("mixtral", 7)["x"]
    size = layer("mixtral").workspace_bytes(7)
    if size:
        whole = np.zeros(size + 64, np.uint8)
        start = -whole.ctypes.data % 64
        with pytest.raises(moe.MoEError) as caught:
            layer("mixtral")(x, workspace=whole[start:start + size - 1])
        assert caught.value.code == moe.RESOURCE_EXHAUSTED
    with pytest.raises(moe.MoEError):
        layer("mixtral")(x, out=np.empty((6, layers.H), np.float32))
    with pytest.raises(moe.MoEError):
        layer("mixtral")(x, out=x)


def test_files_are_what_layers_py_writes():
    for name in ALL:
        assert (layers.FILES / f"{name}.mlir").read_text() == layers.file_text(name), (
            "run python -m moe_testing.layers")
