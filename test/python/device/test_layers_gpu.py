"""Whole layers on a GPU, or on the double of its driver, which runs the same PTX.

The same families, oracles and tolerances as on the CPU (test_layers_cpu).
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.compiled_layers import ALL, PER_TOKEN, ROUTED
from moe_testing.data import TOLERANCE, bits
from moe_testing.device import arrays as gpu
from moe_testing.device import double

TARGETS = ["sm_80", "sm_90a"]
# With weights along k and along n, interleaved, gathered rows, biases and a clamp, shared experts;
# with capacities in order of tokens, of choices and of probabilities; experts that choose tokens.
SHAPES = ["mixtral", "qwen3_moe", "deepseek_v3", "gemma4", "switch", "dbrx", "gpt_oss",
          "deepspeed_top1", "deepspeed_top2", "mesh_top2", "deepspeed_topk", "mesh_ntlb",
          "expert_choice", "mesh_expert_selection"]


@functools.cache
def module(name, dtype, target="sm_80"):
    import moe

    return moe.compile(layers.text(name, dtype), target=target, device="cuda")


def layer_with(name, dtype, weights, target="sm_80"):
    arrays = {key: gpu.upload(array) for key, array in weights.items()}
    return module(name, dtype, target).layer(arrays)


@functools.cache
def layer(name, dtype, target="sm_80"):
    return layer_with(name, dtype, data.weights_of(name, dtype), target)

pytestmark = pytest.mark.usefixtures("device")


def check(name, dtype, target, tokens, record):
    inputs, weights = data.inputs_of(name, tokens, dtype), data.weights_of(name, dtype)
    y = gpu.run(layer(name, dtype, target), inputs, tokens)
    assert y.shape == (tokens, layers.H) and y.dtype == data.numpy_type(dtype)
    error = data.relative_error(y, data.oracle(name, inputs, weights))
    record(f"{name} {dtype} {target}", error)
    assert error < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("name", ALL)
def test_numbers(name, dtype, record):
    for tokens in (1, 33):
        check(name, dtype, "sm_80", tokens, record)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SHAPES)
def test_many_rows(name, target, dtype, record):
    """More than 64 rows an expert, so that the largest tiles run, and some that are not full."""
    for tokens in (67, 300, 601):
        check(name, dtype, target, tokens, record)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name,tokens", [("mixtral", 1100), ("deepseek_v3", 333)])
def test_many_rows_of_one_expert(name, tokens, target):
    """Also so many that its tiles take two passes."""
    inputs, weights = data.skewed(name, tokens, expert=6, dtype="bf16")
    y = gpu.run(layer_with(name, "bf16", weights, target), inputs, tokens)
    assert data.relative_error(y, data.oracle(name, inputs, weights)) < TOLERANCE["bf16"]


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize("target", TARGETS)
def test_bits_do_not_depend_on_time(target, seed):
    """Whenever copies and products land, and whichever block comes first: the same bits."""
    found = double.in_new_process(__file__, "digests", target, MOE_CUDA_DOUBLE_SEED=seed)
    assert found.split() == digests(target)


def digests(target):
    """Of results with one token, few and many."""
    found = []
    for tokens in (1, 5, 300):
        inputs = data.inputs_of("qwen3_moe", tokens, "bf16")
        y = gpu.run(layer("qwen3_moe", "bf16", target), inputs, tokens)
        found.append(hashlib.sha256(bits(y)).hexdigest())
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_launches_of_a_layer(target, tmp_path):
    """Up to 64 tokens the router, and two products of which the second one adds up the choices;
    beyond another one, which groups them."""
    log = tmp_path / "log"
    double.in_new_process(__file__, "few_and_more", target, MOE_CUDA_DOUBLE_LOG=str(log))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    kernels = [e["kernel"] for e in events if e["event"] == "launch"]
    starts = [i for i, kernel in enumerate(kernels) if kernel.startswith("router")]
    calls = [kernels[a:b] for a, b in zip(starts, [*starts[1:], None])]
    assert [len(call) for call in calls[:3]] == [3, 3, 3]
    assert [call[1] for call in calls[3:]] == ["route_place"] * 3
    assert [len(call) for call in calls[3:]] == [4, 4, 4]
    assert "gather_sum" not in sum(calls, [])


def test_launches_overlap(tmp_path):
    """All but the first of a call may begin under the one before; none is profiled so."""
    log = tmp_path / "log"
    double.in_new_process(__file__, "few_and_more", "sm_90a", MOE_CUDA_DOUBLE_LOG=str(log))
    events = [json.loads(line) for line in log.read_text().splitlines()]
    launches = [e for e in events if e["event"] == "launch" and not e["kernel"].startswith("moe_")]
    assert len(launches) > 20
    assert [e["programmatic"] for e in launches] == [
        not e["kernel"].startswith("router") for e in launches]


def few_and_more(target):
    bound = layer("qwen3_moe", "bf16", target)
    bound.enable_statistics(False)
    for tokens in (1, 32, 64, 65, 333, 601):
        gpu.run(bound, data.inputs_of("qwen3_moe", tokens, "bf16"), tokens)
    return []


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"])
def test_no_tokens(name):
    assert gpu.run(layer(name, "bf16"), data.inputs_of(name, 0, "bf16"), 0).shape[0] == 0


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "granitemoe"])
def test_all_tokens_on_one_expert(name):
    inputs, weights = data.skewed(name, 33, expert=6, dtype="bf16")
    y = gpu.run(layer_with(name, "bf16", weights), inputs, 33)
    assert data.relative_error(y, data.oracle(name, inputs, weights)) < TOLERANCE["bf16"]


@pytest.mark.parametrize("name", [n for n in PER_TOKEN if n in ROUTED])
def test_bits_do_not_depend_on_t(name):
    """Tokens in two parts and all at once: the same bits."""
    inputs = data.inputs_of(name, 33, "bf16")
    whole = gpu.run(layer(name, "bf16"), inputs, 33)
    parts = [gpu.run(layer(name, "bf16"), {k: v[a:b] for k, v in inputs.items()}, b - a)
             for a, b in ((0, 1), (1, 20), (20, 33))]
    np.testing.assert_array_equal(bits(np.concatenate(parts)), bits(whole))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["qwen3_moe", "gpt_oss"])
def test_sums_of_many_tokens_have_the_bits_of_few(name, target):
    """Whichever warp has the last row of a token; with few tokens one sums those of all."""
    inputs = data.inputs_of(name, 330, "bf16")
    whole = gpu.run(layer(name, "bf16", target), inputs, 330)
    for a, b in ((0, 50), (50, 120), (266, 330)):
        part = gpu.run(layer(name, "bf16", target), {k: v[a:b] for k, v in inputs.items()}, b - a)
        np.testing.assert_array_equal(bits(part), bits(whole[a:b]))


@pytest.mark.parametrize("most", [8, 70])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss", "noisy_topk"])
def test_a_graph_is_replayed_for_fewer_tokens(name, target, most):
    """Captured once with the most tokens; how many there are is a number on the device."""
    bound, driver = layer(name, "bf16", target), gpu.driver()
    inputs = data.inputs_of(name, most, "bf16")
    expected = gpu.run(bound, inputs, most)
    given = {key: gpu.upload(array) for key, array in inputs.items()}
    out = gpu.empty("bf16", expected.shape)
    workspace = gpu.empty("ui8", [bound.workspace_bytes(most)])
    live = gpu.upload(np.array([most], np.int32))
    stream = driver.stream(blocking=False)
    graph = driver.capture(stream, lambda: bound(
        out=out, workspace=workspace, stream=stream, live_tokens=live, **given), relaxed=False)
    for tokens in (most, 1, 0, 7, 16, 33, most, 1000, -3):
        driver.upload(live.dl.data, np.array([tokens], np.int32))
        tokens = min(max(tokens, 0), most)
        for key, array in inputs.items():
            array = array.copy()
            array[tokens:] = np.nan  # matters to nobody
            driver.upload(given[key].dl.data, array)
        graph.launch(stream)
        driver.wait(stream)
        bound.poll()
        np.testing.assert_array_equal(bits(gpu.download(out)[:tokens]), bits(expected[:tokens]))


def test_only_live_tokens_are_counted():
    bound, driver = layer("mixtral", "bf16"), gpu.driver()
    bound.reset_statistics()
    stream = driver.stream(blocking=False)
    given = {k: gpu.upload(v) for k, v in data.inputs_of("mixtral", 33, "bf16").items()}
    live = gpu.upload(np.array([5], np.int32))
    bound(out=gpu.empty("bf16", [33, layers.H]), stream=stream, live_tokens=live, **given)
    driver.wait(stream)
    found, = bound.statistics()
    assert (found.choices, found.dropped, found.tokens_per_expert.sum()) == (10, 0, 10)


@pytest.mark.parametrize("name", ["switch", "expert_choice", "mesh_ntlb"])
def test_tokens_that_depend_on_each_other_are_not_left_out(name):
    import moe

    given = {k: gpu.upload(v) for k, v in data.inputs_of(name, 7, "bf16").items()}
    live = gpu.upload(np.array([5], np.int32))
    with pytest.raises(moe.MoEError, match="'layer' cannot leave out tokens") as caught:
        layer(name, "bf16")(out=gpu.empty("bf16", [7, layers.H]), live_tokens=live,
                            stream=gpu.driver().stream(blocking=False), **given)
    assert caught.value.code == moe.INVALID_ARGUMENT


def test_where_the_number_of_live_tokens_is():
    import moe

    given = {k: gpu.upload(v) for k, v in data.inputs_of("mixtral", 7, "bf16").items()}
    out, stream = gpu.empty("bf16", [7, layers.H]), gpu.driver().stream(blocking=False)
    for live, message in ((np.array([5], np.int32), "live_tokens"),
                          (gpu.upload(np.array([5, 6], np.int32)), "expected one i32"),
                          (gpu.upload(np.array([5], np.float32)), "expected one i32")):
        with pytest.raises(moe.MoEError, match=message) as caught:
            layer("mixtral", "bf16")(out=out, stream=stream, live_tokens=live, **given)
        assert caught.value.code == moe.INVALID_ARGUMENT


def test_statistics():
    bound = layer("mixtral", "bf16")
    bound.reset_statistics()
    gpu.run(bound, data.inputs_of("mixtral", 33, "bf16"), 33)
    found, = bound.statistics()
    assert (found.calls, found.choices, found.dropped) == (1, 66, 0)
    assert found.tokens_per_expert.sum() == 66


@pytest.mark.parametrize("name,choices", [("switch", 1), ("mesh_top2", 2), ("mesh_ntlb", 1)])
def test_statistics_count_drops(name, choices):
    """What finds no room on the expert that all tokens want."""
    inputs, weights = data.skewed(name, 33, expert=6, dtype="bf16")
    bound = layer_with(name, "bf16", weights)
    gpu.run(bound, inputs, 33)
    found, = bound.statistics()
    assert found.choices == 33 * choices
    assert found.dropped == found.choices - found.tokens_per_expert.sum() > 0
    assert found.tokens_per_expert[6] == found.tokens_per_expert.max() == 5


def test_ids_out_of_range_are_an_error():
    import moe

    inputs = data.inputs_of("given_route", 7, "bf16")
    inputs["ids"][3, 0] = 8
    with pytest.raises(moe.MoEError) as caught:
        gpu.run(layer("given_route", "bf16"), inputs, 7)
    assert caught.value.code == moe.INVALID_ARGUMENT
    inputs["ids"][3, 0] = -1
    gpu.run(layer("given_route", "bf16"), inputs, 7)


if __name__ == "__main__":
    print(*globals()[sys.argv[1]](sys.argv[2]))
