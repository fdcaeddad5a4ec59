"""Recorded and given routes of compiled layers."""

from __future__ import annotations

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.data import TOLERANCE, bits
from moe_testing.oracles import numpy_layers

import moe

# One of each kind of gate, dispatch and weights.
NAMES = ["mixtral", "deepseek_v3", "gpt_oss", "llama4", "phimoe", "switch_passthrough", "gemma4",
         "noisy_topk", "expert_choice", "deepspeed_topk", "mesh_ntlb", "moe_plus_plus", "remoe"]


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


def layer(name, routes=None, weights=None, dtype="f32"):
    module = moe.compile(layers.text(name, dtype), routes=routes)
    return module.layer(data.weights_of(name, dtype) if weights is None else weights)


def named(outputs, layer):
    return dict(zip((o.name for o in layer.signature.outputs), outputs))


def other_router(name):
    """Weights with another router."""
    weights = data.weights_of(name)
    for key in weights:
        if key in ("router", "noise_router", "router_bias", "e_score_correction_bias"):
            weights[key] = weights[key][::-1].copy() * 0.5
    return weights


def spy(monkeypatch, operation, see):
    """Show the arguments of an operation of the reference to ``see``."""
    original = getattr(numpy_layers, operation)
    monkeypatch.setattr(numpy_layers, operation, lambda *args, **options:
                        (see(*args, **options), original(*args, **options))[1])


@pytest.mark.parametrize("tokens", [0, 33])
@pytest.mark.parametrize("name", NAMES)
def test_record(name, tokens, monkeypatch):
    """The bits of the layer, and what the reference hands to its dispatch and combine."""
    inputs = data.inputs_of(name, tokens)
    recording = layer(name, "record")
    found = named(recording(**inputs), recording)
    assert np.array_equal(bits(found.pop("y")), bits(layer(name)(**inputs)))
    expected = {}
    spy(monkeypatch, "dispatch", lambda rows, ids, weights=None, **_: expected.update(
        route_ids=ids, route_weights=weights))
    spy(monkeypatch, "combine", lambda rows, positions, weights=None, **_: weights is None
        or expected.update(route_weights=weights))
    numpy_layers.run(name, inputs.pop("x"), data.weights_of(name), **inputs)
    assert np.array_equal(found["route_ids"], expected["route_ids"])
    assert found["route_weights"].shape == expected["route_weights"].shape
    if tokens:
        assert data.relative_error(found["route_weights"], expected["route_weights"]) \
            < TOLERANCE["f32"]


@pytest.mark.parametrize("name", NAMES)
def test_replay(name):
    """The recorded run has the bits of the replayed one, whatever the router is."""
    inputs = data.inputs_of(name, 33)
    recording = layer(name, "record")
    route = named(recording(**inputs), recording)
    expected = route.pop("y")
    replaying = layer(name, "replay", other_router(name))
    assert np.array_equal(bits(replaying(**inputs, **route)), bits(expected))


@pytest.mark.parametrize("name", NAMES)
def test_replay_of_ids(name):
    """With its own router, the bits of the recorded run."""
    inputs = data.inputs_of(name, 33)
    recording = layer(name, "record")
    route = named(recording(**inputs), recording)
    replaying = layer(name, "replay-ids")
    assert np.array_equal(bits(replaying(**inputs, route_ids=route["route_ids"])),
                          bits(route["y"]))


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss", "phimoe"])
def test_weights_of_another_router(name, monkeypatch):
    """The reference with the recorded ids as given ones."""
    inputs, weights = data.inputs_of(name, 33), other_router(name)
    recording = layer(name, "record")
    ids = named(recording(**inputs), recording)["route_ids"]
    actual = layer(name, "replay-ids", weights)(**inputs, route_ids=ids)
    monkeypatch.setattr(numpy_layers, "gate", lambda logits, gate=numpy_layers.gate, bias=None,
                        groups=None, **options: gate(logits, ids=ids, **options))
    expected = numpy_layers.run(name, inputs["x"], weights)
    assert data.relative_error(actual, expected) < TOLERANCE["f32"]
    monkeypatch.undo()
    assert data.relative_error(actual, numpy_layers.run(name, inputs["x"], weights)) > 0.01


def test_hierarchical(monkeypatch):
    """The second route is that of grouped rows; callers see it by token."""
    inputs = data.inputs_of("hierarchical", 33)
    recording = layer("hierarchical", "record")
    route = named(recording(**inputs), recording)
    expected = route.pop("y")
    assert np.array_equal(bits(expected), bits(layer("hierarchical")(**inputs)))
    few = named(recording(inputs["x"][:9]), recording)
    assert all(np.array_equal(few[key], route[key][:9]) for key in route)

    calls = []
    original = numpy_layers.dispatch
    monkeypatch.setattr(numpy_layers, "dispatch", lambda rows, ids, **options: (
        calls.append((ids, (made := original(rows, ids, **options))[2])), made)[1])
    numpy_layers.run("hierarchical", inputs["x"], data.weights_of("hierarchical"))
    (first, positions), (second, _) = calls
    assert np.array_equal(route["route_ids0"], first)
    assert np.array_equal(route["route_ids1"], second[positions].reshape(33, -1))

    weights = data.weights_of("hierarchical")
    for key in ("router", "secondary_router"):
        weights[key] = weights[key][::-1].copy() * 0.5
    replaying = layer("hierarchical", "replay", weights)
    assert np.array_equal(bits(replaying(**inputs, **route)), bits(expected))
    with pytest.raises(moe.MoEError, match="expected a moe.gate, which can weigh given ids"):
        layer("hierarchical", "replay-ids")


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_half(dtype):
    inputs = data.inputs_of("mixtral", 33, dtype)
    recording = layer("mixtral", "record", dtype=dtype)
    y, ids, weights = recording(**inputs)
    assert np.array_equal(bits(y), bits(layer("mixtral", dtype=dtype)(**inputs)))
    replayed = layer("mixtral", "replay", dtype=dtype)(inputs["x"], ids, weights)
    assert np.array_equal(bits(replayed), bits(y))


def test_options():
    """Routes of a layer that runs in chunks and keeps its weights in 4 bits."""
    text = layers.text("mixtral")
    options = dict(quantize="int4:8", options=["--tokens=1:4096", "--memory-limit=8KiB"])
    x = data.inputs_of("mixtral", 33)["x"]
    weights = data.weights_of("mixtral")
    plain = moe.compile(text, **options).layer(weights)
    y, ids, scales = moe.compile(text, routes="record", **options).layer(weights)(x)
    assert np.array_equal(bits(y), bits(plain(x)))
    replaying = moe.compile(text, routes="replay", **options).layer(weights)
    assert np.array_equal(bits(replaying(x, ids, scales)), bits(y))


def test_errors():
    text = layers.text("mixtral")
    with pytest.raises(moe.MoEError, match="--routes: expected record, replay or replay-ids, got "
                       "'both'"):
        moe.compile(text, routes="both")
    with pytest.raises(moe.MoEError, match="routes is 1, expected a string"):
        moe.compile(text, routes=1)
    x, replaying = data.inputs_of("mixtral", 3)["x"], layer("mixtral", "replay")
    ids, weights = np.zeros((3, 2), np.int32), np.zeros((3, 2), np.float32)
    ids[1, 1] = layers.E
    with pytest.raises(moe.MoEError, match="input 'route_ids'"):
        replaying(x, ids, weights)
    with pytest.raises(moe.MoEError, match="input 'route_ids'"):
        replaying(x, ids[:2], weights)
