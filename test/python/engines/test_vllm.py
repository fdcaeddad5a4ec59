"""Compiled experts in vLLM: one layer, and a whole engine.

`./dev check vllm` runs this in an environment of its own, since vLLM pins its dependencies.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None,
                                reason="vllm is not installed; ./dev check vllm installs it")

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "test/data/tiny-mixtral"
EXPERTS, HIDDEN, INNER, TOP_K = 8, 64, 96, 3


@pytest.fixture(scope="module")
def vllm_layers(compiled, tmp_path_factory):
    """One rank without a model, in which layers can be created."""
    import moe.integrations.vllm as compiled_experts
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel

    compiled_experts.register()
    compiled_experts.register()  # in each process, by a plugin and by hand
    store = tmp_path_factory.mktemp("vllm") / "store"
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
        initialize_model_parallel(1, 1)
    yield
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def create(asked, dtype="float32", *, weights=None, **options):
    """A layer of vLLM with ``weights``, by our method if ``asked``."""
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.fused_moe import FusedMoEFactory

    config = VllmConfig(additional_config={"moe_mlir": asked} if asked is not None else {})
    settings = dict(num_experts=EXPERTS, top_k=TOP_K, hidden_size=HIDDEN,
                    intermediate_size=INNER, params_dtype=getattr(torch, dtype), prefix="layer")
    with set_current_vllm_config(config):
        runner = FusedMoEFactory(**settings | options)
    layer = runner.routed_experts
    if weights is not None:
        load(layer, weights)
    return layer


def load(layer, weights):
    import torch

    with torch.no_grad():
        for name, weight in weights.items():
            getattr(layer, name).copy_(torch.from_numpy(weight))
    layer.quant_method.process_weights_after_loading(layer)


def draw(seed, *shape, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def rounded(array, dtype):
    import torch

    return torch.from_numpy(np.asarray(array)).to(getattr(torch, dtype)).float().numpy()


def draw_weights(dtype, bias=False):
    weights = {"w13_weight": draw(1, EXPERTS, 2 * INNER, HIDDEN, scale=HIDDEN ** -0.5),
               "w2_weight": draw(2, EXPERTS, HIDDEN, INNER, scale=INNER ** -0.5)}
    if bias:
        weights |= {"w13_bias": draw(3, EXPERTS, 2 * INNER), "w2_bias": draw(4, EXPERTS, HIDDEN)}
    return {name: rounded(weight, dtype) for name, weight in weights.items()}


def routes(kind, tokens):
    """Weights and ids: ordinary, or such as a bad router makes."""
    rng = np.random.default_rng(tokens)
    ids = rng.permuted(np.tile(np.arange(EXPERTS), (tokens, 1)), axis=1)[:, :TOP_K]
    weights = rng.random((tokens, TOP_K)).astype(np.float32)
    if kind == "one expert":
        ids[:] = EXPERTS - 1  # each of them three times, too
    elif kind == "first and last":
        ids[:] = np.array([0, EXPERTS - 1, 0])
    elif kind == "extreme weights":
        weights[:, 0], weights[:, 1] = 0.0, -3e4
    return weights, ids.astype(np.int32)


def call(layer, x, weights, ids):
    import torch

    dtype = layer.params_dtype
    with torch.inference_mode():
        y = layer.forward_modular(torch.from_numpy(x).to(dtype), torch.from_numpy(weights),
                                  torch.from_numpy(ids))
    assert y.dtype == dtype
    return y.float().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    import torch

    return torch.erf(torch.from_numpy(x)).numpy()


def activate(name, h, limit=None, alpha=1.0, beta=0.0):
    gate, up = h[..., :INNER], h[..., INNER:]
    if name == "swigluoai":
        gate, up, limit, alpha, beta = h[..., ::2], h[..., 1::2], 7.0, 1.702, 1.0
    if name == "swiglustep":
        return np.minimum(gate * sigmoid(gate), 7.0) * np.clip(up, -7.0, 7.0)
    if name == "gelu":
        return 0.5 * gate * (1 + erf(gate / np.sqrt(2))) * up
    if name == "gelu_tanh":
        inner = np.sqrt(2 / np.pi) * (gate + 0.044715 * gate ** 3)
        return 0.5 * gate * (1 + np.tanh(inner)) * up
    if name == "situ":
        return 4.0 * np.tanh(gate / 4.0) * sigmoid(gate) * 6.0 * np.tanh(up / 6.0)
    if limit is not None:
        gate, up = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return gate * sigmoid(alpha * gate) * (up + beta)


def oracle(x, weights, scales, ids, name="silu", **settings):
    """The layer in float64, choice by choice."""
    w = {key: value.astype(np.float64) for key, value in weights.items()}
    y = np.zeros((len(x), HIDDEN))
    for t in range(len(x)):
        for scale, e in zip(scales[t].astype(np.float64), ids[t]):
            if e < 0:
                continue
            h = w["w13_weight"][e] @ x[t].astype(np.float64)
            h = activate(name, h + w["w13_bias"][e] if "w13_bias" in w else h, **settings)
            out = w["w2_weight"][e] @ h
            y[t] += scale * (out + w["w2_bias"][e] if "w2_bias" in w else out)
    return y


def error(actual, expected):
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-30)


# Of the largest element: f32 sums, or four roundings to 8 or 11 bits.
TOLERANCE = {"float32": 2e-6, "bfloat16": 8e-3, "float16": 1e-3}


@pytest.mark.parametrize("tokens", [0, 1, 2, 17, 130])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_layer(vllm_layers, record, dtype, tokens):
    """It computes what float64 and vLLM's own kernel do."""
    weights = draw_weights(dtype)
    x = rounded(draw(5, tokens, HIDDEN), dtype)
    ours, own = create(True, dtype, weights=weights), create(None, dtype, weights=weights)
    assert type(own.quant_method).__name__ == "UnquantizedFusedMoEMethod"
    chosen = routes("ordinary", tokens)
    actual = call(ours, x, *chosen)
    assert actual.shape == (tokens, HIDDEN)
    if tokens == 0:
        return
    expected, theirs = oracle(x, weights, *chosen), call(own, x, *chosen)
    record(f"vllm {dtype}, compiled", error(actual, expected))
    record(f"vllm {dtype}, vLLM's own", error(theirs, expected))
    assert error(actual, expected) < TOLERANCE[dtype]
    # Both are that near to the same.
    assert error(actual, theirs) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("kind", ["one expert", "first and last", "extreme weights"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_hostile_routing(vllm_layers, dtype, kind):
    weights = draw_weights(dtype)
    layer, own = create(True, dtype, weights=weights), create(None, dtype, weights=weights)
    for tokens in (130, 1, 17):
        x = rounded(draw(6, tokens, HIDDEN), dtype)
        chosen = routes(kind, tokens)
        actual = call(layer, x, *chosen)
        assert error(actual, oracle(x, weights, *chosen)) < TOLERANCE[dtype]
        assert error(actual, call(own, x, *chosen)) < 2 * TOLERANCE[dtype]


def test_ids(vllm_layers):
    """-1 adds nothing, as vLLM marks a dropped choice; other ids are errors."""
    import moe

    weights = draw_weights("float32")
    layer = create(True, weights=weights)
    x, (scales, ids) = draw(7, 5, HIDDEN), routes("ordinary", 5)
    ids[1], ids[3, 2] = -1, -1
    assert error(call(layer, x, scales, ids), oracle(x, weights, scales, ids)) < 2e-6
    for wrong in (EXPERTS + 1, -2, 2 ** 31 - 1):
        ids[0, 0] = wrong
        with pytest.raises(moe.MoEError):
            call(layer, x, scales, ids)
    with pytest.raises(moe.MoEError, match=r"layer: topk_ids has shape \(5, 2\), expected "
                                           r"\(5, 3\)"):
        call(layer, x, scales, ids[:, :2])


def test_rows_do_not_depend_on_others(vllm_layers):
    """A batch gives each token the bits that it has alone; vLLM mixes requests in one."""
    weights = draw_weights("bfloat16")
    layer = create(True, "bfloat16", weights=weights)
    x, (scales, ids) = draw(8, 33, HIDDEN), routes("ordinary", 33)
    whole = call(layer, x, scales, ids)
    for t in range(33):
        alone = call(layer, x[t:t + 1], scales[t:t + 1], ids[t:t + 1])
        assert np.array_equal(alone, whole[t:t + 1])


ACTIVATIONS = [("silu", {}), ("silu", {"swiglu_limit": 0.5}), ("gelu", {}), ("gelu_tanh", {}),
               ("swigluoai", {}), ("swiglustep", {}),
               ("swigluoai_uninterleave", {"swiglu_limit": 1.5, "swiglu_alpha": 1.702,
                                           "swiglu_beta": 1.0}),
               ("situ", {"activation_situ_beta": 4.0, "activation_situ_linear_beta": 6.0})]


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("name, settings", ACTIVATIONS,
                         ids=["-".join([name, *settings]) for name, settings in ACTIVATIONS])
def test_activations(vllm_layers, name, settings, bias):
    weights = draw_weights("float32", bias)
    for key in ("w13_weight", "w13_bias"):
        if key in weights:
            weights[key] = 4 * weights[key]  # limits and tails are reached
    chosen, x = routes("ordinary", 17), draw(9, 17, HIDDEN)
    layer = create(True, weights=weights, activation=name, has_bias=bias, **settings)
    limits = {key.removeprefix("swiglu_"): value for key, value in settings.items()
              if key.startswith("swiglu_")}
    expected = oracle(x, weights, *chosen, name=name, **limits)
    actual = call(layer, x, *chosen)
    assert error(actual, expected) < 5e-6
    if name in ("silu", "gelu", "gelu_tanh", "swigluoai") and not settings:
        own = create(None, weights=weights, activation=name, has_bias=bias)
        assert error(actual, call(own, x, *chosen)) < 5e-6


def test_weights_on_the_input(vllm_layers):
    weights = draw_weights("float32")
    x, (scales, ids) = draw(10, 17, HIDDEN), routes("ordinary", 17)
    options = dict(weights=weights, top_k=1, apply_router_weight_on_input=True)
    scales, ids = scales[:, :1].copy(), ids[:, :1].copy()
    actual = call(create(True, **options), x, scales, ids)
    assert error(actual, oracle(x * scales, weights, np.ones_like(scales), ids)) < 2e-6
    assert error(actual, call(create(None, **options), x, scales, ids)) < 2e-6


def test_custom_operation(vllm_layers):
    """Under torch.compile a layer is one operation, and code is shared by layers."""
    import torch

    layers = [create(True, weights={key: (1 + i) * w for key, w in draw_weights("float32").items()},
                     prefix=f"layer{i}") for i in range(2)]
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    @torch.compile(backend=backend, fullgraph=True, dynamic=True)
    def run(x, scales, ids, layer):
        return layer.forward_modular(x, scales, ids) + 1

    for layer in layers:
        for tokens in (4, 9):
            x, chosen = draw(11, tokens, HIDDEN), routes("ordinary", tokens)
            with torch.inference_mode():
                y = run(torch.from_numpy(x), *map(torch.from_numpy, chosen), layer)
            assert np.array_equal(y.numpy(), call(layer, x, *chosen) + 1)
    operations = [node.target for graph in graphs for node in graph.graph.nodes
                  if "moe_mlir" in str(node.target)]
    assert len(operations) == len(graphs) > 0
    # Nothing in the code names a layer, so that vLLM may keep it for another process.
    assert len({graph.code for graph in graphs}) == 1
    x = torch.zeros(3, HIDDEN)
    ids, scales = torch.zeros(3, TOP_K, dtype=torch.int32), torch.zeros(3, TOP_K)
    torch.library.opcheck(torch.ops.moe_mlir.vllm_experts,
                          (x, scales, ids, layers[0].quant_method.key))


def test_weights_are_freed_and_loaded_again(vllm_layers):
    import moe
    import torch

    first = draw_weights("float32")
    layer = create(True, weights=first)
    assert layer.w13_weight.numel() == layer.w2_weight.numel() == 0
    with pytest.raises(moe.MoEError, match="layer: the weights were freed"):
        layer.quant_method.process_weights_after_loading(layer)

    second = {name: -2 * weight for name, weight in first.items()}
    for name, weight in second.items():
        setattr(layer, name, torch.nn.Parameter(torch.empty(weight.shape), requires_grad=False))
    load(layer, second)
    x, chosen = draw(12, 17, HIDDEN), routes("ordinary", 17)
    assert error(call(layer, x, *chosen), oracle(x, second, *chosen)) < 2e-6


def test_before_loading(vllm_layers):
    import moe

    layer = create(True)
    with pytest.raises(moe.MoEError, match="layer: the weights are not loaded"):
        call(layer, draw(13, 2, HIDDEN), *routes("ordinary", 2))


def test_only_when_asked(vllm_layers):
    from vllm.model_executor.layers.fused_moe import UnquantizedFusedMoEMethod

    for asked in (None, False):
        assert type(create(asked).quant_method) is UnquantizedFusedMoEMethod


@pytest.mark.parametrize("asked", ["yes", 1, {"targets": "host"}])
def test_wrong_option(vllm_layers, asked):
    import moe

    with pytest.raises(moe.MoEError, match="additional_config: moe_mlir is .*, expected a boolean"):
        create(asked)


def test_options(vllm_layers):
    """They reach the compiler."""
    import moe

    with pytest.raises(moe.MoEError, match="no-such-target"):
        create({"target": "no-such-target"}, weights=draw_weights("float32"))
    layer = create({"target": "x86-64-v3"}, weights=draw_weights("float32"))
    x, chosen = draw(14, 3, HIDDEN), routes("ordinary", 3)
    assert error(call(layer, x, *chosen), oracle(x, draw_weights("float32"), *chosen)) < 2e-6


@pytest.mark.parametrize("change, message", [
    (dict(use_ep=True), "expert parallelism"), (dict(enable_eplb=True), "expert parallelism"),
    (dict(dp_size=2), r"data parallelism \(2 ranks\)"),
    (dict(pcp_size=2), r"context parallelism \(2 ranks\)")])
def test_refused_parallelism(vllm_layers, change, message):
    import moe
    import torch

    layer = create(True)
    for name, value in change.items():
        setattr(layer.moe_config.moe_parallel_config, name, value)
    with pytest.raises(moe.MoEError, match=f"layer: moe_mlir does not support {message}"):
        layer.quant_method.create_weights(layer, EXPERTS, HIDDEN, INNER, torch.float32)


def test_refused_layers(vllm_layers):
    import moe

    with pytest.raises(moe.MoEError, match="layer: the activation is 'relu2', expected one of"):
        create(True, activation="relu2")
    with pytest.raises(moe.MoEError, match="layer: the activation is 'situ' without its limit or"):
        create(True, activation="situ")
    with pytest.raises(moe.MoEError, match="layer: the weights are torch.float64, expected f32"):
        create(True, "float64")
    with pytest.raises(moe.MoEError, match="apply_router_weight_on_input with 3 experts per token"):
        create(True, apply_router_weight_on_input=True)


def test_quantised_layers_warn(vllm_layers, caplog_vllm):
    """They run as they would without us, and the log names them."""
    from vllm.model_executor.layers.fused_moe import FusedMoEMethodBase, RoutedExperts
    from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

    class Method(FusedMoEMethodBase):
        def create_weights(self, layer, **_):
            pass

        def get_fused_moe_quant_config(self, layer):
            return None

    class Config(QuantizationConfig):
        get_name = get_supported_act_dtypes = get_min_capability = None
        get_config_filenames = from_config = None

        def get_quant_method(self, layer, prefix):
            return Method(layer.moe_config) if isinstance(layer, RoutedExperts) else None

    Config.__abstractmethods__ = frozenset()
    create(None, quant_config=Config())
    assert not caplog_vllm.records
    layer = create(True, quant_config=Config())
    assert type(layer.quant_method) is Method
    assert "layer: the experts are quantised (Method)" in caplog_vllm.text


def test_missing_plugin_warns(vllm_layers, caplog_vllm, monkeypatch):
    """Else an engine would run vLLM's own experts in its other processes, in silence."""
    import moe.integrations.vllm as compiled_experts

    for processes, plugins, warns in ((True, [], True), (True, [1], False), (False, [], False)):
        monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", str(int(processes)))
        monkeypatch.setattr(compiled_experts, "entry_points", lambda plugins=plugins, **_: plugins)
        caplog_vllm.clear()
        compiled_experts.register()
        assert ("the plugin moe_mlir is not installed" in caplog_vllm.text) == warns


def test_other_plugin_warns(vllm_layers, caplog_vllm, monkeypatch):
    import moe.integrations.vllm as compiled_experts
    from vllm.model_executor.custom_op import op_registry_oot

    monkeypatch.setitem(op_registry_oot, "RoutedExperts", dict)
    compiled_experts.register()
    assert "another plugin replaces RoutedExperts by builtins.dict" in caplog_vllm.text


@pytest.fixture
def caplog_vllm(caplog):
    """vLLM's logger does not propagate."""
    logger = logging.getLogger("vllm.moe.integrations.vllm")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


# -- whole engines -------------------------------------------------------------

ENGINE = """
import json, sys
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    options, prompts = json.load(sys.stdin)
    llm = LLM(skip_tokenizer_init=True, max_model_len=256, max_num_seqs=8, seed=0, **options)
    sampling = SamplingParams(temperature=0, max_tokens=24, logprobs=2, prompt_logprobs=0,
                              ignore_eos=True, detokenize=False)
    done = llm.generate([{"prompt_token_ids": p} for p in prompts], sampling)
    print("RESULT" + json.dumps([
        {"tokens": list(o.outputs[0].token_ids),
         "best": [sorted((v.logprob for v in choices.values()), reverse=True)[:2]
                  for choices in o.outputs[0].logprobs],
         "prompt": [choices[t].logprob for t, choices in zip(p[1:], o.prompt_logprobs[1:])]}
        for p, o in zip(prompts, done)]))
"""


@pytest.fixture(scope="module")
def engine(compiled, tmp_path_factory):
    """Runs an engine in processes of its own; returns what it generates, and its log."""
    folder = tmp_path_factory.mktemp("engine")
    # The entry point of the wheel, without a wheel.
    project = tomllib.loads((ROOT / "python/pyproject.toml").read_text())["project"]
    plugins = project["entry-points"]["vllm.general_plugins"]
    info = folder / "site" / "moe_compiler-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moe-compiler\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\n" + "".join(
        f"{name} = {value}\n" for name, value in plugins.items()))
    script = folder / "engine.py"
    script.write_text(ENGINE)
    text = (MODEL / "heldout.txt").read_bytes()
    prompts = [list(text[500 * i:500 * i + n]) for i, n in enumerate((1, 2, 17, 130, 60))]
    done = {}

    def run(dtype, asked, eager=True):
        key = dtype, asked, eager
        if key in done:
            return done[key]
        variables = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", folder / "site"))),
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(folder / "cache")}
        for name in ("MOE_OPENMP", "OMP_NUM_THREADS"):
            variables.pop(name, None)  # as users run it
        options = {"model": str(MODEL), "dtype": dtype, "enforce_eager": eager,
                   "additional_config": {"moe_mlir": True} if asked else {}}
        process = subprocess.run([sys.executable, script], input=json.dumps([options, prompts]),
                                 env=variables, text=True, capture_output=True, cwd=folder)
        log = process.stdout + process.stderr
        assert process.returncode == 0, log[-4000:]
        assert ("Using moe_mlir experts: 8 of 128 x 192" in log) == asked
        assert ("CPUUnquantizedExperts" in log) == (not asked)
        line = next(line for line in log.splitlines() if line.startswith("RESULT"))
        done[key] = json.loads(line.removeprefix("RESULT"))
        return done[key]

    return run


def prompt_logprobs(results):
    return np.concatenate([result["prompt"] for result in results])


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "compiled"])
def test_engine_f32(engine, eager):
    """Both engines generate the same text."""
    own, ours = engine("float32", False), engine("float32", True, eager)
    assert [r["tokens"] for r in ours] == [r["tokens"] for r in own]
    assert np.abs(prompt_logprobs(ours) - prompt_logprobs(own)).max() < 1e-4


def test_engine_bf16(engine):
    """Texts part only at ties, and logits are as near to those of f32 as vLLM's own."""
    own, ours = engine("bfloat16", False), engine("bfloat16", True)
    for a, b in zip(own, ours):
        parted = next((i for i, (s, t) in enumerate(zip(a["tokens"], b["tokens"])) if s != t), None)
        if parted is not None:
            for result in (a, b):  # a step of bf16 logits in [8, 16)
                first, second = result["best"][parted]
                assert first - second <= 0.0625
    exact = prompt_logprobs(engine("float32", False))
    distance = [np.abs(prompt_logprobs(results) - exact).mean() for results in (own, ours)]
    assert distance[1] < 1.25 * distance[0]
