"""The capacity plan: its numbers against numpy and the runtime, and calls in chunks."""

from __future__ import annotations

import json
import math
import subprocess

import numpy as np
import pytest
from moe import _dlpack
from moe.formats import GGUF, Field, Format
from moe_testing import data, layers
from moe_testing.compiled_layers import ALL, PER_TOKEN, layer, module
from moe_testing.data import bits
from moe_testing.device import arrays as gpu
from moe_testing.device import double
from moe_testing.layers import E, H, I

# Its second router reads rows that were grouped by the first.
CHUNKED = [n for n in PER_TOKEN if n != "hierarchical"]
LARGEST = 300


@pytest.fixture(autouse=True)
def needs_compiler(compiled):
    pass


def plan(name: str, *options: str, dtype: str = "f32") -> dict:
    import moe

    done = subprocess.run([moe.find_compiler(), "-", "--emit=plan-json", *options],
                          input=layers.text(name, dtype), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["format"] == 1
    (function,) = report["functions"]
    return function


def in_chunks(name: str, limit: int, dtype: str = "f32"):
    import moe

    compiled = moe.compile(layers.text(name, dtype),
                           options=[f"--tokens=0:{LARGEST}", f"--memory-limit={limit}"])
    return compiled.layer(data.weights_of(name, dtype))


@pytest.mark.parametrize("name", ALL)
def test_workspace_is_that_of_the_runtime(name):
    import moe

    options = [f"--tokens=0:{LARGEST}"]
    compiled = moe.compile(layers.text(name), options=options).layer(data.weights_of(name))
    for point in plan(name, *options)["at"]:
        assert point["workspace_bytes"] == compiled.workspace_bytes(point["tokens"])


QUANTISED = {
    "q4_K": GGUF["q4_K"], "q6_K": GGUF["q6_K"], "q8_0": GGUF["q8_0"],
    "fp8 blocks": Format(Field("f8E4M3FN"),
                         scales=(Field("f32", operand=1, block=(128, 128)),)),
    "int8 of rows": Format(Field("si8"), scales=(Field("f32", operand=1, block=(1, 1 << 20)),)),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_bytes_of_quantised_weights(name):
    """Those that calls read: packed numbers are whole bytes, of each column."""
    import moe

    data.skip_unless_runs("x86-64-v3")
    form, (experts, n, k) = QUANTISED[name], (4, 128, 512)
    if form.record is not None:
        fields = [np.zeros((experts, n, form.row_bytes(k)), np.int8)]
    else:
        rows, columns = form.scales[0].block
        fields = [np.zeros((experts, n, k), np.int8),
                  np.zeros((experts, -(-n // rows), -(-k // columns)), np.float32)]
    types = [f"tensor<{'x'.join(map(str, f.shape))}x{'i8' if f.dtype == np.int8 else 'f32'}>"
             for f in fields]
    declared = ", ".join(f'%w{i}: {t} {{moe.role = "weight", moe.name = "w{i}"}}'
                         for i, t in enumerate(types))
    text = f"""func.func @layer(%x: tensor<?x{k}xf32>, %ids: tensor<?x1xi32>, {declared})
    -> tensor<?x{n}xf32> {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts({experts})
    : tensor<?x{k}xf32>, tensor<?x1xi32>
  %d = moe.dequantize {", ".join(f"%w{i}" for i in range(len(types)))}
    format({str(form).removeprefix("#moe.format")})
    : {", ".join(types)} -> tensor<{experts}x{n}x{k}xf32>
  %rows = moe.expert %grouped, %offsets params(%d : tensor<{experts}x{n}x{k}xf32>) {{
  ^bb0(%xe: tensor<?x{k}xf32>, %we: tensor<{n}x{k}xf32>):
    %n = tensor.dim %xe, %c0 : tensor<?x{k}xf32>
    %e = tensor.empty(%n) : tensor<?x{n}xf32>
    %z = linalg.fill ins(%zero : f32) outs(%e : tensor<?x{n}xf32>) -> tensor<?x{n}xf32>
    %h = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (m, k)>,
        affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>]
      ins(%xe, %we : tensor<?x{k}xf32>, tensor<{n}x{k}xf32>)
      outs(%z : tensor<?x{n}xf32>) -> tensor<?x{n}xf32>
    moe.yield %h : tensor<?x{n}xf32>
  }} : tensor<?x{k}xf32>, tensor<{experts + 1}xi32> -> tensor<?x{n}xf32>
  %y = moe.combine %rows, %positions : tensor<?x{n}xf32>, tensor<?x1xi32>
  return %y : tensor<?x{n}xf32>
}}
"""
    done = subprocess.run([moe.find_compiler(), "-", "--emit=plan-json"], input=text,
                          text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    (dispatch,) = json.loads(done.stdout)["functions"][0]["dispatches"]
    layer = moe.compile(text, target="x86-64-v3").layer(
        {f"w{i}": f for i, f in enumerate(fields)})
    assert dispatch["weight_bytes"] == layer.weight_bytes


@pytest.mark.parametrize("limit", [[], ["--memory-limit=64KiB"]])
@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3"])
def test_workspace_of_a_device(name, limit):
    """As many bytes as the plan says are asked for, are enough, and no other is written."""
    import moe

    double.needs_device()
    options = ["--target=sm_80", f"--tokens=0:{LARGEST}", *limit]
    compiled = moe.compile(layers.text(name, "bf16"), target="sm_80", device="cuda",
                           options=options[1:])
    weights = data.weights_of(name, "bf16")
    layer = compiled.layer({key: gpu.upload(array) for key, array in weights.items()})
    inputs = data.inputs_of(name, LARGEST, "bf16")
    for point in plan(name, *options, dtype="bf16")["at"]:
        tokens, size = point["tokens"], point["workspace_bytes"]
        assert size == layer.workspace_bytes(tokens)
        around = gpu.upload(np.full(size + 512, 0xA5, np.uint8))
        workspace = _dlpack.Tensor(around.dl.data + 256, _dlpack.DTYPES["ui8"], [size], None,
                                   around,
                                   (_dlpack.CUDA, 0))
        out = gpu.empty("bf16", [tokens, H])
        some = {key: gpu.upload(array[:tokens]) for key, array in inputs.items()}
        layer(out=out, workspace=workspace, **some)
        left = gpu.download(around)
        assert (left[:256] == 0xA5).all() and (left[256 + size:] == 0xA5).all()


@pytest.mark.parametrize("name, dtype", [(name, "f32") for name in CHUNKED] + [
    ("mixtral", "bf16"), ("gpt_oss", "bf16"), ("deepseek_v3", "f16")])
def test_chunks_have_the_same_bits(name, dtype):
    whole = layer(name, dtype)
    # About nine tokens at once.
    limit = whole.workspace_bytes(9)
    parts = in_chunks(name, limit, dtype)
    assert parts.workspace_bytes(LARGEST) <= limit < whole.workspace_bytes(LARGEST)
    inputs = data.inputs_of(name, LARGEST, dtype)
    for tokens in [*range(41), LARGEST]:
        some = {k: v[:tokens] for k, v in inputs.items()}
        size = parts.workspace_bytes(tokens)
        memory = np.full(size + 192, 0xA5, np.uint8)
        start = -memory.ctypes.data % 64 + 64
        y = parts(**some, workspace=memory[start:start + size])
        np.testing.assert_array_equal(bits(y), bits(whole(**some)), str(tokens))
        assert (memory[:start] == 0xA5).all() and (memory[start + size:] == 0xA5).all()


def test_chunks_count_like_the_whole():
    inputs = data.inputs_of("mixtral", 33)
    whole = module("mixtral").layer(data.weights_of("mixtral"))
    parts = in_chunks("mixtral", whole.workspace_bytes(9))
    for _ in range(2):
        whole(**inputs)
        parts(**inputs)
    (expected,), (found,) = whole.statistics(), parts.statistics()
    np.testing.assert_array_equal(found.tokens_per_expert, expected.tokens_per_expert)
    assert (found.calls, found.choices, found.dropped) == (2, 132, 0)


def test_chunks_are_the_largest_that_fit():
    one = plan("mixtral", f"--tokens=0:{LARGEST}", "--memory-limit=20kB")
    assert 1 < one["chunk"] < LARGEST and one["workspace_bytes"] <= 20000
    # One token more takes at least a row of each buffer more.
    more = plan("mixtral", f"--tokens=0:{one['chunk'] + 1}")
    assert more["workspace_bytes"] > 20000


@pytest.mark.parametrize("name, reason", [
    ("switch", "which choices exceed the capacity depends on all tokens of a call"),
    ("expert_choice", "experts choose among all tokens of a call"),
    ("mesh_expert_selection", "the softmax runs over all tokens|experts choose"),
    ("hierarchical", "is not known to treat every token alone|rows of several tokens")])
def test_tokens_that_depend_on_one_another(name, reason):
    import moe

    with pytest.raises(moe.MoEError, match=reason):
        in_chunks(name, 1000)


def test_least_limit_works():
    """What a refusal says is enough is enough, and a byte less is not."""
    import re

    import moe

    with pytest.raises(moe.MoEError, match="a memory limit of at least") as refused:
        in_chunks("mixtral", 100)
    least = int(re.search(r"at least (\d+) bytes", str(refused.value))[1])
    assert in_chunks("mixtral", least).workspace_bytes(LARGEST) == least
    with pytest.raises(moe.MoEError, match=f"at least {least} bytes"):
        in_chunks("mixtral", least - 1)


@pytest.mark.parametrize("name, k", [("mixtral", 2), ("granitemoe", 4)])
def test_cost(name, k):
    """Router, three products for each row; every weight once."""
    report = plan(name, "--tokens=1:4096", "--flops=1e9", "--bandwidth=1e8")
    assert report["weights"] == E * H + 3 * E * H * I
    assert report["activated_weights"] == E * H + 3 * k * H * I
    for point in report["at"]:
        tokens = point["tokens"]
        assert point["flops"] == 2 * tokens * H * E + 6 * tokens * k * H * I
        active = E * (1 - (1 - k / E) ** tokens)
        expected = 4 * (2 * tokens * H + E * H + active * 3 * H * I + 2 * tokens * k * H)
        assert point["bytes"] == pytest.approx(expected, rel=1e-9)
        assert point["seconds"] == pytest.approx(
            max(point["flops"] / 1e9, point["bytes"] / 1e8), rel=1e-9)


def test_bounds_hold_for_random_routings():
    report = plan("mixtral", "--tokens=0:4096")["dispatches"][0]
    random = np.random.default_rng(0)
    for tokens in [*range(41), 700, 4096]:
        (its,) = [r for r in report["ranges"] if r["min"] <= tokens <= r["max"]]
        tile = its["rows"]
        for skew in (0, 1, 3):
            weights = np.arange(1, E + 1.0) ** -skew
            ids = np.argsort(random.gumbel(size=(tokens, E)) + np.log(weights))[:, -2:]
            counts = np.bincount(ids.ravel(), minlength=E)
            tiles = -(-counts // tile)
            scope = {"d0": tokens}
            bound = {key: min(eval(part.replace("floordiv", "//"), scope) for part in split(text))
                     for key, text in (("tiles", its["tiles"]), ("padding", its["padding"]),
                                       ("rows", report["rows"]), ("one", report["fullest"]))}
            assert tiles.sum() <= bound["tiles"]
            padding = 0 if its["ragged"] else (tiles * tile - counts).sum()
            assert padding <= bound["padding"]
            assert counts.sum() <= bound["rows"] and counts.max(initial=0) <= bound["one"]


def split(text: str) -> list[str]:
    """The results of `(d0) -> (a, b)`."""
    return text.removeprefix("(d0) -> (")[:-1].split(", ")


def test_variants_follow_the_rows():
    """Few rows for an expert, small tiles. A call of many tokens runs in chunks, the last of which
    may be of any size."""
    report = plan("mixtral", "--tokens=1:65536", "--flops=1e12", "--bandwidth=1e11")
    ranges = report["dispatches"][0]["ranges"]
    assert ranges[0]["variant"] == "rows1" and ranges[0]["min"] == 0
    assert [r["rows"] for r in ranges] == sorted(r["rows"] for r in ranges)
    assert ranges[-1]["rows"] == 6 and ranges[-1]["max"] == report["chunk"] < 65536


def test_chunks_by_default():
    """A call of many tokens takes the memory of one chunk: 80 rows for each of 8 experts and 2
    choices, or 30 MiB if that is more. Tokens that depend on one another run whole."""
    report = plan("mixtral", "--tokens=1:65536")
    assert report["chunk"] % 16 == 0 and report["chunk"] >= 80 * 8 / 2
    assert report["workspace_bytes"] < 35 << 20
    few = plan("mixtral", f"--tokens=1:{report['chunk']}")
    assert few["chunk"] == 0
    assert plan("switch", "--tokens=1:65536")["chunk"] == 0


def test_histogram(tmp_path):
    histogram = tmp_path / "routing.json"
    record = {"num_experts": 8, "top_k": 2, "calls": 1, "choices": 100, "dropped": 0,
              "tokens_per_expert": [0, 50, 0, 0, 0, 50, 0, 0]}
    histogram.write_text(json.dumps({"format": 1, "dispatches": [record]}))
    for point in plan("mixtral", "--tokens=1:4096", f"--imbalance=histogram:{histogram}")["at"]:
        (dispatch,) = point["dispatches"]
        assert dispatch["expected_active_experts"] == pytest.approx(2)
        assert dispatch["expected_fullest"] == pytest.approx(point["tokens"])


def test_overflow_of_a_capacity():
    report = plan("switch", "--tokens=1:16", "--imbalance=uniform:1e-3")
    (dispatch,) = report["dispatches"]
    assert dispatch["overflow"] == "drop"
    last = report["at"][-1]
    assert last["tokens"] == 16
    capacity = 5
    # The sum of the binomial tails of eight experts, each with p = 1/8.
    tail = sum(math.comb(16, n) * (1 / E) ** n * (1 - 1 / E) ** (16 - n)
               for n in range(capacity + 1, 17))
    assert last["dispatches"][0]["overflow_probability"] == pytest.approx(min(1, E * tail))
