"""Profiles of layers."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.compiled_layers import layer

import moe

pytestmark = pytest.mark.usefixtures("compiled")


def test_profile():
    mixtral, x = layer("mixtral"), data.inputs_of("mixtral", 33)["x"]
    expected = mixtral(x)
    with mixtral.profile() as profile:
        for _ in range(7):
            assert np.array_equal(mixtral(x), expected)
    mixtral(x)  # no longer measured
    assert profile.target == mixtral.module.target and profile.call.calls == 7
    stages = {stage.name: stage for stage in profile.stages}
    assert {"route", "grouped_matmul0", "grouped_matmul1", "gather_sum"} <= stages.keys()
    assert any("gate" in name for name in stages)
    for stage in profile.stages:
        assert stage.calls == stage.runs == 7 and 0 <= stage.median <= stage.total
    assert all(kernel.startswith("f32_") for kernel in stages["grouped_matmul0"].kernels)
    assert stages["grouped_matmul0"].kernels and not stages["route"].kernels
    # Stages are parts of the calls, one after the other.
    assert 0 <= profile.other <= profile.call.total
    assert sum(stage.total for stage in profile.stages) <= profile.call.total
    counts, = profile.dispatches
    assert counts.calls == 7 and counts.choices == counts.tokens_per_expert.sum() == 7 * 33 * 2
    text = str(profile)
    assert text.startswith(f"{profile.target}: 7 calls, median ")
    assert "dispatch 0: 66.0 rows a call, 8.2 an expert, at most " in text


def test_chunks():
    """A stage runs once in each chunk."""
    small = moe.compile(layers.text("mixtral"), options=["--tokens=1:64", "--memory-limit=8KiB"])
    small, x = small.layer(data.weights_of("mixtral")), data.inputs_of("mixtral", 33)["x"]
    with small.profile() as profile:
        small(x)
    stage, = (s for s in profile.stages if s.name == "grouped_matmul0")
    assert stage.calls == 1 and stage.runs > 1


def test_without_calls():
    with layer("mixtral").profile() as profile:
        pass
    assert profile.call.calls == 0 and profile.stages == () and profile.other == 0
    assert "0 calls" in str(profile)


def test_calls_that_fail():
    mixtral = layer("mixtral")
    with pytest.raises(moe.MoEError, match="input 'x'"):
        with mixtral.profile() as profile:
            mixtral(np.zeros((3, 5), np.float32))
    assert profile.call.calls == 0
    with mixtral.profile() as profile:
        mixtral(data.inputs_of("mixtral", 3)["x"])
    assert profile.call.calls == 1


def test_one_at_a_time():
    mixtral = layer("mixtral")
    with mixtral.profile():
        with pytest.raises(moe.MoEError, match="the layer is profiled already"):
            with mixtral.profile():
                pass


def test_threads_and_updates():
    mine = moe.compile(layers.text("mixtral")).layer(data.weights_of("mixtral"))
    x = data.inputs_of("mixtral", 9)["x"]
    with mine.profile() as profile:
        threads = [threading.Thread(target=lambda: [mine(x) for _ in range(20)])
                   for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert profile.call.calls == 60 and profile.dispatches[0].calls == 60
    with mine.profile() as profile:
        mine(x)
        mine.update(data.weights_of("mixtral"))
        mine(x)
        mine(x)
    assert profile.call.calls == 2 and profile.dispatches[0].calls == 3
