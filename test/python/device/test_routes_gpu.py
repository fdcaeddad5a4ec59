"""Recorded and given routes on a GPU, or on the double of its driver."""

from __future__ import annotations

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.data import bits
from moe_testing.device import arrays as gpu

import moe

pytestmark = pytest.mark.usefixtures("device")


def run(name, target, inputs, routes, weights):
    """Return the outputs by name."""
    module = moe.compile(layers.text(name, "bf16"), routes=routes, target=target, device="cuda")
    layer = module.layer({key: gpu.upload(array) for key, array in weights.items()})
    out = [gpu.empty(o.dtype, [len(inputs["x"]) if d < 0 else d for d in o.shape])
           for o in layer.signature.outputs]
    layer(out=out, **{key: gpu.upload(array) for key, array in inputs.items()})
    return {o.name: gpu.download(each) for o, each in zip(layer.signature.outputs, out)}


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "deepspeed_topk", "phimoe"])
def test_routes(name, target):
    """The recorded run has the bits of the layer, and so have the replayed ones."""
    inputs, weights = data.inputs_of(name, 33, "bf16"), data.weights_of(name, "bf16")
    y = run(name, target, inputs, None, weights)["y"]
    route = run(name, target, inputs, "record", weights)
    assert np.array_equal(bits(route.pop("y")), bits(y))
    assert route["route_ids"].shape == route["route_weights"].shape
    ids = {"route_ids": route["route_ids"]}
    replayed = run(name, target, inputs | ids, "replay-ids", weights)
    assert np.array_equal(bits(replayed["y"]), bits(y))
    weights["router"] = weights["router"][::-1].copy()
    replayed = run(name, target, inputs | route, "replay", weights)
    assert np.array_equal(bits(replayed["y"]), bits(y))
