"""Nodes of experts of ONNX models, compiled, against ONNX Runtime and numpy in f64.

`./dev check onnx` runs this in an environment with both packages.
"""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys

import moe
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in ("onnx", "onnxruntime")),
                       reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime"):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

H, I, E, K = 32, 48, 8, 2
F32 = 2e-6


def draw(*shape, seed=0, dtype=np.float32):
    """Random numbers whose last rows differ in size, so that a mistake in one shows."""
    rng = np.random.default_rng([seed, *shape])
    sizes = rng.uniform(0.3, 2.0, (shape[-2] if len(shape) > 1 else 1, 1)) / shape[-1] ** 0.5
    return (rng.standard_normal(shape) * (sizes if len(shape) > 1 else 1)).astype(dtype)


def make_model(op, arrays, inputs, attributes, before=(), names=("x", "router_probs")):
    """A model of one node of experts; ``before`` are nodes that make its logits."""
    element = helper.np_dtype_to_tensor_dtype(
        arrays["fc1_scales" if op == "QMoE" else "fc1"].dtype)
    nodes = [*before, helper.make_node(op, inputs, ["y"], name="experts",
                                       domain="com.microsoft", **attributes)]
    infos = [helper.make_tensor_value_info(n, element, None) for n in (*names, "y")]
    graph = helper.make_graph(nodes, "g", infos[:-1], infos[-1:],
                              [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    model = helper.make_model(graph, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    return model


def run_theirs(model, **feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_experts(x, logits, w, activation, fusion=0, normalize=True, alpha=1.0, beta=0.0,
                  limit=None, late=False):
    """The definition of the operator, in f64."""
    w = {name: array.astype(np.float64) for name, array in w.items()}
    p = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    p /= p.sum(-1, keepdims=True)
    y = np.zeros((len(x), w["fc2"].shape[1]))
    for row, probabilities in enumerate(p):
        ids = np.argsort(-probabilities, kind="stable")[:K]
        weights = probabilities[ids] / (probabilities[ids].sum() if normalize else 1)
        for e, weight in zip(ids, weights):
            def product(name, value):
                return w[name][e] @ value + (w[name + "_bias"][e] if name + "_bias" in w else 0)

            h = product("fc1", x[row].astype(np.float64))
            if activation == "geglu":
                gate, up = (h[0::2], h[1::2]) if fusion == 1 else np.split(h, 2)
                h = gelu(gate) * up
            elif activation == "swiglu" or "fc3" in w:
                gate, up = {0: (h, product("fc3", x[row]) if "fc3" in w else None),
                            1: (h[0::2], h[1::2]), 2: np.split(h, 2)}[fusion]
                if limit is not None:
                    up = np.clip(up, -limit, limit)
                    gate = gate if late else np.minimum(gate, limit)
                gate = gate * sigmoid(alpha * gate)
                h = (np.minimum(gate, limit) if late else gate) * (up + beta)
            else:
                h = {"relu": lambda v: np.maximum(v, 0),
                     "relu2": lambda v: np.maximum(v, 0) ** 2, "gelu": gelu,
                     "identity": lambda v: v, "silu": lambda v: v * sigmoid(v)}[activation](h)
            y[row] += weight * product("fc2", h)
    return y


def close(ours, expected, tolerance=F32):
    assert np.abs(expected).max() > 0.05
    error = np.abs(np.asarray(ours, np.float64) - expected).max() / np.abs(expected).max()
    assert error < tolerance, error


def make_arrays(fusion, has_fc3, has_biases, dtype=np.float32):
    rows = 2 * I if fusion else I
    shapes = {"fc1": (E, rows, H), "fc2": (E, H, I)} | ({"fc3": (E, I, H)} if has_fc3 else {})
    arrays = {name: draw(*shape, dtype=dtype) for name, shape in shapes.items()}
    if has_biases:
        arrays |= {name + "_bias": draw(E, shape[1], dtype=dtype)
                   for name, shape in shapes.items()}
    return arrays


def inputs_of(arrays, order=("fc1", "fc1_bias", "fc2", "fc2_bias", "fc3", "fc3_bias")):
    return ["x", "router_probs", *(n if n in arrays else "" for n in order)]


CASES = [("relu", 0, False), ("relu2", 0, False), ("geglu", 1, False), ("geglu", 2, False),
         ("gelu", 0, False), ("silu", 0, False), ("identity", 0, False),
         ("silu", 0, True), ("swiglu", 1, False), ("swiglu", 2, False), ("swiglu", 0, True)]
# What ONNX Runtime's CPU code computes; numpy alone has the others.
THEIRS = [("relu", 0, False), ("gelu", 0, False), ("silu", 0, False), ("identity", 0, False),
          ("swiglu", 1, False)]


@pytest.mark.parametrize("has_biases", [False, True])
@pytest.mark.parametrize("activation, fusion, has_fc3", CASES)
def test_moe(activation, fusion, has_fc3, has_biases):
    arrays = make_arrays(fusion, has_fc3, has_biases)
    normalize = has_biases
    attributes = dict(k=K, activation_type=activation, normalize_routing_weights=int(normalize))
    if activation in ("swiglu", "geglu"):
        attributes["swiglu_fusion"] = fusion
    model = make_model("MoE", arrays, inputs_of(arrays), attributes)
    layer = moe.from_onnx(model).layer()
    for tokens in (0, 1, 17):
        x, logits = draw(tokens, H, seed=1), 3 * draw(tokens, E, seed=2)
        ours = layer(x, logits)
        assert ours.shape == (tokens, H)
        if tokens:
            close(ours, numpy_experts(x, logits, arrays, activation, fusion, normalize))
            if (activation, fusion, has_fc3) in THEIRS:
                close(ours, run_theirs(model, x=x, router_probs=logits))


@pytest.mark.parametrize("late", [0, 1])
def test_limits_of_swiglu(late):
    arrays = make_arrays(1, False, True)
    numbers = dict(activation_alpha=1.702, activation_beta=1.0, swiglu_limit=0.3)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(
        k=K, activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1,
        **numbers, **({"swiglu_limit_after_activation": 1} if late else {})))
    x, logits = draw(9, H, seed=1), draw(9, E, seed=2)
    ours = moe.from_onnx(model).layer()(x, logits)
    close(ours, numpy_experts(x, logits, arrays, "swiglu", 1, True, 1.702, 1.0, 0.3, bool(late)))
    if not late:
        close(ours, run_theirs(model, x=x, router_probs=logits))


def test_f16():
    arrays = make_arrays(1, False, True, np.float16)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(
        k=K, activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1))
    x, logits = draw(9, H, seed=1, dtype=np.float16), draw(9, E, seed=2, dtype=np.float16)
    ours = moe.from_onnx(model).layer()(x, logits)
    assert ours.dtype == np.float16
    close(ours, numpy_experts(x, logits.astype(np.float32), arrays, "swiglu", 1), 4 * 2.0**-11)


@pytest.mark.parametrize("form", ["matmul", "matmul add", "add matmul", "gemm", "gemm bias",
                                  "matmul reshape", "matmul add reshape", "matmul cast"])
def test_routers(form):
    """A product of the node's own input is part of the layer."""
    arrays = make_arrays(0, False, False)
    router, bias = draw(H, E, seed=5), draw(E, seed=6)
    arrays["router"] = np.ascontiguousarray(router.T) if "gemm" in form else router
    has_bias = "add" in form or "bias" in form
    if has_bias:
        arrays["bias"] = bias
    node = helper.make_node
    before = [node("MatMul", ["x", "router"], ["product"])]
    if "gemm" in form:
        before = [node("Gemm", ["x", "router"] + ["bias"] * has_bias, ["router_probs"], transB=1)]
    elif has_bias:
        order = ["bias", "product"] if form.startswith("add") else ["product", "bias"]
        before.append(node("Add", order, ["router_probs"]))
    else:
        before[0].output[0] = "router_probs"
    if "reshape" in form or "cast" in form:  # as the model builder of onnxruntime-genai writes it
        arrays["shape"] = np.array([-1, E], np.int64)
        before[-1].output[0] = "logits"
        before.append(node("Reshape", ["logits", "shape"], ["router_probs"]) if "reshape" in form
                      else node("Cast", ["logits"], ["router_probs"], to=TensorProto.FLOAT))
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K, activation_type="gelu"),
                       before, names=("x",))
    layer = moe.from_onnx(model).layer()
    assert [info.name for info in layer.signature.inputs] == ["x"]
    x = draw(17, H, seed=1)
    logits = x @ router + (bias if has_bias else 0)
    close(layer(x), numpy_experts(x, logits, arrays, "gelu", normalize=False))


@pytest.mark.parametrize("form", ["other rows", "scaled", "other matrix", "softmax", "rounded"])
def test_what_is_no_router_stays_an_input(form):
    arrays = make_arrays(0, False, False) | {"router": draw(H, E)}
    node = helper.make_node
    before = {"other rows": [node("MatMul", ["z", "router"], ["router_probs"])],
              "scaled": [node("Gemm", ["x", "router"], ["router_probs"], alpha=2.0)],
              "other matrix": [node("MatMul", ["x", "z"], ["router_probs"])],
              "rounded": [node("MatMul", ["x", "router"], ["product"]),
                          node("Cast", ["product"], ["half"], to=TensorProto.FLOAT16),
                          node("Cast", ["half"], ["router_probs"], to=TensorProto.FLOAT)],
              "softmax": [node("MatMul", ["x", "router"], ["product"]),
                          node("Softmax", ["product"], ["router_probs"])]}[form]
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K), before, names=("x", "z"))
    imported = moe.from_onnx(model)
    assert "router" not in imported.weights
    x, logits = draw(5, H, seed=1), draw(5, E, seed=2)
    close(imported.layer()(x, logits), numpy_experts(x, logits, arrays, "relu", normalize=False))


# --------------------------------------------------------------------------
# QMoE
# --------------------------------------------------------------------------


def quantize(w, bits, size, asymmetric):
    """Codes, scales and zero points as the operator stores them, and what they decode to."""
    experts, rows, columns = w.shape
    groups = w.astype(np.float64).reshape(experts, rows, -1, size or columns)
    if asymmetric:
        low, high = groups.min(-1).clip(max=0), groups.max(-1).clip(min=0)
        scale = ((high - low) / (2**bits - 1)).astype(np.float32)
        zero = np.round(-low / scale).clip(0, 2**bits - 1)
    else:
        scale = (np.abs(groups).max(-1) / (2 ** (bits - 1) - 0.5)).astype(np.float32)
        zero = np.full(scale.shape, 2.0 ** (bits - 1))
    codes = np.round(groups / scale[..., None] + zero[..., None]).clip(0, 2**bits - 1)
    decoded = ((codes - zero[..., None]) * scale[..., None]).reshape(w.shape)

    def pack(values):
        values = values.astype(np.uint8)
        if bits == 8:
            return values
        if values.shape[-1] % 2:
            values = np.concatenate([values, np.zeros_like(values[..., :1])], -1)
        return values[..., 0::2] | values[..., 1::2] << 4

    zeros = pack(zero if size else zero[..., 0])  # of a row: packed along the rows
    return pack(codes.reshape(w.shape)), scale if size else scale[..., 0], zeros, decoded


@pytest.mark.parametrize("bits, size, asymmetric", list(itertools.product(
    (4, 8), (None, 16, 32), (False, True))))
def test_qmoe(bits, size, asymmetric):
    inner = 32
    plain = {"fc1": draw(E, 2 * inner, H), "fc2": draw(E, H, inner)}
    arrays, decoded = {}, {}
    for name, w in plain.items():
        codes, scales, zeros, decoded[name] = quantize(w, bits, size, asymmetric)
        arrays |= {name: codes, name + "_scales": scales}
        if asymmetric:
            arrays[name + "_zero_points"] = zeros
        arrays[name + "_bias"] = decoded[name + "_bias"] = draw(E, w.shape[1])
    order = ("fc1", "fc1_scales", "fc1_bias", "fc2", "fc2_scales", "fc2_bias", "", "", "",
             "fc1_zero_points", "fc2_zero_points")
    attributes = dict(k=K, activation_type="swiglu", swiglu_fusion=1, expert_weight_bits=bits,
                      normalize_routing_weights=1)
    model = make_model("QMoE", arrays, inputs_of(arrays, order),
                       attributes | ({"block_size": size} if size else {}))
    x, logits = draw(17, H, seed=1), draw(17, E, seed=2)
    ours = moe.from_onnx(model).layer()(x, logits)
    close(ours, numpy_experts(x, logits, decoded, "swiglu", 1))
    # Its kernels for blocks of 8 bits round the rows, too.
    close(ours, run_theirs(model, x=x, router_probs=logits), 0.03 if bits == 8 else F32)


# --------------------------------------------------------------------------
# Errors and the command
# --------------------------------------------------------------------------


def broken():
    relu = dict(k=K)
    yield "k", "expected k between 1 and 8, got 9", {}, dict(k=9)
    yield "mixer", "use_sparse_mixer is not supported", {}, dict(use_sparse_mixer=1)
    yield "activation", "expected activation_type relu, relu2, .* got 'tanh'", {}, dict(
        activation_type="tanh")
    yield "geglu", "expected swiglu_fusion 1 or 2 with activation_type geglu", {}, dict(
        activation_type="geglu")
    yield "fusion", "expected swiglu_fusion 0, 1 or 2, got 3", {}, dict(
        activation_type="swiglu", swiglu_fusion=3)
    yield "no fc3", "expected fc3 with activation_type swiglu", {}, dict(activation_type="swiglu")
    yield "fc3", "expected no fc3 with activation_type gelu", {"fc3": (E, I, H)}, dict(
        activation_type="gelu")
    yield "columns", r"expected fc1 of shape \[8, 96, 32\], got \[8, 48, 32\]", {}, dict(
        activation_type="swiglu", swiglu_fusion=1)
    yield "bias", r"expected fc1_bias of shape \[8, 48\], got \[8, 32\]", {"fc1_bias": (E, H)}, relu
    yield "rank", r"expected fc1 and fc2 of shape \[experts, rows, columns\]", {
        "fc1": (I, H)}, relu
    yield "fc2", r"expected fc2 of shape \[8, 32, 48\], got \[8, 31, 48\]", {
        "fc2": (E, 31, I)}, relu
    yield "experts", r"expected fc2 of shape \[8, 32, 48\], got \[7, 32, 48\]", {
        "fc2": (7, H, I)}, relu


@pytest.mark.parametrize("name", ["k", "mixer", "activation", "geglu", "fusion", "no fc3", "fc3",
                                  "columns", "bias", "rank", "fc2", "experts"])
def test_errors(name):
    message, shapes, attributes = next(rest for each, *rest in broken() if each == name)
    arrays = make_arrays(0, False, False) | {n: draw(*s) for n, s in shapes.items()}
    model = make_model("MoE", arrays, inputs_of(arrays), attributes)
    with pytest.raises(moe.MoEError, match="node 'experts': " + message):
        moe.from_onnx(model)


def test_which_node(tmp_path):
    arrays = make_arrays(0, False, False)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K))
    second = model.graph.node.add()
    second.CopyFrom(model.graph.node[0])
    second.name, second.output[0] = "others", "z"
    with pytest.raises(moe.MoEError, match="expected the name of a node, one of 'experts', 'oth"):
        moe.from_onnx(model)
    with pytest.raises(moe.MoEError, match="expected one node 'x' of experts, got 0; there are 'e"):
        moe.from_onnx(model, node="x")
    # From a file with external data, and from bytes.
    path = tmp_path / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, size_threshold=0,
                    location="weights.bin")
    x, logits = draw(5, H, seed=1), draw(5, E, seed=2)
    expected = numpy_experts(x, logits, arrays, "relu", normalize=False)
    close(moe.from_onnx(path, node="others").layer()(x, logits), expected)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(moe.MoEError, match="node 'others': cannot read 'fc1'"):
        moe.from_onnx(path, node="others")
    del model.graph.node[:]
    with pytest.raises(moe.MoEError, match="the model has no node MoE or QMoE of com.microsoft"):
        moe.from_onnx(model.SerializeToString())
    with pytest.raises(moe.MoEError, match="cannot be read as an ONNX model"):
        moe.from_onnx(b"no model")


def test_command(tmp_path):
    arrays = make_arrays(0, False, False)
    model = make_model("MoE", arrays, inputs_of(arrays), dict(k=K))
    onnx.save_model(model, tmp_path / "model.onnx")

    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "moe", "compile", *map(str, arguments)],
                              text=True, capture_output=True)

    artifact = tmp_path / "layer.moe"
    done = run(tmp_path / "model.onnx", "-o", artifact)
    assert done.returncode == 0, done.stderr
    x, logits = draw(5, H, seed=1), draw(5, E, seed=2)
    layer = moe.load(artifact).layer(moe.from_onnx(model).weights)
    close(layer(x, logits), numpy_experts(x, logits, arrays, "relu", normalize=False))
    done = run(tmp_path / "model.onnx", "--node=other", "-o", artifact)
    assert done.returncode == 1 and "expected one node 'other' of experts" in done.stderr
