"""Weights of `QMoE` in all formats of the operator, against ONNX Runtime where its CPU code has
them, and numpy from the operator's definition; routers with weights of their own.

`./dev check onnx` runs this in an environment with both packages.
"""

from __future__ import annotations

import importlib.util

import moe
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(n) is None for n in ("onnx", "onnxruntime")),
                       reason="onnx is not installed; ./dev check onnx installs it"),
    pytest.mark.usefixtures("compiled")]

if importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime"):
    import ml_dtypes
    import onnx
    from engines.test_onnx import (E, H, K, close, draw, inputs_of, numpy_experts, quantize,
                                   run_theirs)
    from moe.integrations.onnx import replace
    from onnx import numpy_helper

INNER = 64
ORDER = ("fc1", "fc1_scales", "fc1_bias", "fc2", "fc2_scales", "fc2_bias", "", "", "",
         "fc1_zero_points", "fc2_zero_points", "", "router_weights", "fc1_global_scale",
         "fc2_global_scale")
FUSED = dict(k=2, activation_type="swiglu", swiglu_fusion=1, normalize_routing_weights=1)


def plain():
    return {"fc1": draw(E, 2 * INNER, H), "fc2": draw(E, H, INNER)}


def pack(codes, bits):
    """A row of codes as a stream of bits, the lowest first."""
    stream = np.unpackbits(codes[..., None].astype(np.uint8), axis=-1, bitorder="little")
    stream = stream[..., :bits].reshape(*codes.shape[:-1], -1)
    return np.packbits(stream, axis=-1, bitorder="little")


def integers(w, bits, size):
    groups = w.astype(np.float64).reshape(*w.shape[:2], -1, size)
    scale = (np.abs(groups).max(-1) / (2 ** (bits - 1) - 0.5)).astype(np.float32)
    middle = 2 ** (bits - 1)
    codes = np.round(groups / scale[..., None] + middle).clip(0, 2**bits - 1)
    decoded = ((codes - middle) * scale[..., None]).reshape(w.shape)
    return pack(codes.reshape(w.shape), bits), scale, decoded


def inputs(tokens=17, dtype=np.float32):
    return draw(tokens, H, seed=1, dtype=dtype), draw(tokens, E, seed=2, dtype=dtype)


def model_of(arrays, names=("x", "router_probs"), element=1, **attributes):
    """The node's tokens have their own type: scales may have another."""
    given = inputs_of({**arrays, **{n: None for n in names}}, ORDER)
    while not given[-1]:
        given.pop()
    nodes = [onnx.helper.make_node("QMoE", given, ["y"], name="experts", domain="com.microsoft",
                                   **(FUSED | attributes))]
    infos = [onnx.helper.make_tensor_value_info(n, element, None) for n in (*names, "y")]
    graph = onnx.helper.make_graph(nodes, "g", infos[:-1], infos[-1:],
                                   [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    return onnx.helper.make_model(graph, ir_version=10, opset_imports=[
        onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)])


@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (3, 4), (2, 8), (4, 8)])
def test_bits(bits):
    """The same for both matrices, or not."""
    # ONNX Runtime's kernels for 2 bits in larger blocks round the rows, too.
    size = 32 if 3 in bits else 16
    arrays, decoded = {}, {}
    for (name, w), width in zip(plain().items(), bits):
        arrays[name], arrays[name + "_scales"], decoded[name] = integers(w, width, size)
        arrays[name + "_bias"] = decoded[name + "_bias"] = draw(E, w.shape[1])
    attributes = dict(block_size=size, weights_prepacked=0, expert_weight_bits=bits[0])
    if bits[0] != bits[1]:
        attributes["fc2_expert_weight_bits"] = bits[1]
    model = model_of(arrays, **attributes)
    x, logits = inputs()
    ours = moe.from_onnx(model).layer()(x, logits)
    close(ours, numpy_experts(x, logits, decoded, "swiglu", 1))
    if 3 not in bits and 8 not in bits:
        close(ours, run_theirs(model, x=x, router_probs=logits))


def test_zero_points_of_two_bits():
    rng = np.random.default_rng(0)
    arrays, decoded = {}, {}
    for name, w in plain().items():
        codes = rng.integers(0, 4, w.shape)
        zeros = rng.integers(0, 4, (*w.shape[:2], w.shape[2] // 16))
        scale = rng.uniform(0.05, 0.3, zeros.shape).astype(np.float32)
        arrays |= {name: pack(codes, 2), name + "_scales": scale,
                   name + "_zero_points": pack(zeros, 2)}
        repeat = lambda a: np.repeat(a, 16, -1)  # noqa: E731
        decoded[name] = (codes - repeat(zeros)) * repeat(scale).astype(np.float64)
    model = model_of(arrays, block_size=16, expert_weight_bits=2)
    x, logits = inputs()
    ours = moe.from_onnx(model).layer()(x, logits)
    close(ours, numpy_experts(x, logits, decoded, "swiglu", 1))
    close(ours, run_theirs(model, x=x, router_probs=logits))


def test_zero_points_of_three_bits():
    """They may only be 4, which they are without."""
    arrays, decoded = {}, {}
    for name, w in plain().items():
        arrays[name], arrays[name + "_scales"], decoded[name] = integers(w, 3, 32)
        arrays[name + "_zero_points"] = pack(np.full((*w.shape[:2], w.shape[2] // 32), 4), 3)
    attributes = dict(block_size=32, weights_prepacked=0, expert_weight_bits=3)
    x, logits = inputs()
    close(moe.from_onnx(model_of(arrays, **attributes)).layer()(x, logits),
          numpy_experts(x, logits, decoded, "swiglu", 1))
    arrays["fc1_zero_points"] = arrays["fc1_zero_points"] ^ 1
    with pytest.raises(moe.MoEError, match="expected fc1_zero_points of 3 bits to be 4"):
        moe.from_onnx(model_of(arrays, **attributes))


@pytest.mark.parametrize("size, dtype", [(None, "float32"), (16, "float32"), (48, "float16"),
                                         (48, "bfloat16")])
def test_fp8(size, dtype):
    """Square blocks, of which the last are partial, or one number for an expert."""
    dtype = np.dtype(dtype if dtype != "bfloat16" else ml_dtypes.bfloat16)
    arrays, decoded = {}, {}
    for name, w in plain().items():
        codes = (w * 64).astype(ml_dtypes.float8_e4m3fn)
        blocks = (E, -(-w.shape[1] // size), -(-w.shape[2] // size)) if size else (E,)
        scale = np.random.default_rng(1).uniform(0.5 / 64, 2 / 64, blocks).astype(
            dtype if size else np.float32)
        arrays |= {name: codes, name + ("_scales" if size else "_global_scale"): scale}
        full = scale.astype(np.float64)
        for axis in (1, 2):
            full = (np.repeat(full, size, axis).take(np.arange(w.shape[axis]), axis) if size
                    else full[..., None])
        decoded[name] = codes.astype(np.float64) * full
    x, logits = inputs()
    model = model_of(arrays, quant_type="fp8", **({"block_size": size} if size else {}))
    close(moe.from_onnx(model).layer()(x, logits),
          numpy_experts(x, logits, decoded, "swiglu", 1))


VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


@pytest.mark.parametrize("kind, prepacked", [("fp4", -1), ("nvfp4", -1), ("nvfp4", 0),
                                             ("nvfp4", 1)])
def test_fp4(kind, prepacked):
    """MXFP4 and NVFP4; of the latter two layouts of the same extents."""
    rng = np.random.default_rng(2)
    arrays, decoded = {}, {}
    size = 32 if kind == "fp4" else 16
    for name, w in plain().items():
        experts, rows, columns = w.shape
        codes = rng.integers(0, 16, w.shape)
        if kind == "fp4":
            scale = rng.integers(124, 130, (experts, rows, columns // size)).astype(
                np.uint8).view(ml_dtypes.float8_e8m0fnu)
        else:
            scale = rng.uniform(0.5, 4, (experts, rows, columns // size)).astype(
                ml_dtypes.float8_e4m3fn)
        weight = rng.uniform(0.02, 0.1, experts).astype(np.float32)
        decoded[name] = (VALUES[codes] * np.repeat(scale.astype(np.float64), size, -1)
                         * weight[:, None, None])
        packed = pack(codes, 4)
        if kind == "nvfp4":
            packed = (packed.reshape(experts, columns, rows // 2) if prepacked == 1 else
                      pack(np.swapaxes(codes, 1, 2), 4))
        arrays |= {name: packed, name + "_scales": scale, name + "_global_scale": weight}
    x, logits = inputs()
    model = model_of(arrays, quant_type=kind, weights_prepacked=prepacked)
    close(moe.from_onnx(model).layer()(x, logits),
          numpy_experts(x, logits, decoded, "swiglu", 1))


def integer_weights():
    arrays, decoded = {}, {}
    for name, w in plain().items():
        arrays[name], arrays[name + "_scales"], _, decoded[name] = quantize(w, 4, 16, False)
    return arrays, decoded


@pytest.mark.parametrize("normalize", [0, 1])
def test_router_weights(normalize):
    """router_probs only choose. Weights are taken as they are, negative ones too, which ONNX
    Runtime's CPU code leaves out."""
    arrays, w = integer_weights()
    x, logits = inputs()
    given = draw(17, E, seed=7) + (1 if normalize else 0)
    names = ("x", "router_probs", "router_weights")
    model = model_of(arrays, names, block_size=16, normalize_routing_weights=normalize)
    ids = np.argsort(-logits, axis=-1, kind="stable")[:, :K]
    scores = np.take_along_axis(given.astype(np.float64), ids, -1)
    if normalize:
        scores /= scores.sum(-1, keepdims=True)
    expected = np.zeros((17, H))
    for t, k in np.ndindex(ids.shape):
        first = w["fc1"][ids[t, k]] @ x[t].astype(np.float64)
        gate, up = first[0::2], first[1::2]
        expected[t] += scores[t, k] * (w["fc2"][ids[t, k]] @ (gate / (1 + np.exp(-gate)) * up))
    layer = moe.from_onnx(model).layer()
    assert [info.name for info in layer.signature.inputs] == list(names)
    close(layer(x, logits, given), expected)
    positive = np.abs(given)
    close(layer(x, logits, positive),
          run_theirs(model, x=x, router_probs=logits, router_weights=positive))
    from engines.test_onnx_sessions import run_ours

    close(run_ours(replace(model), x=x, router_probs=logits, router_weights=given), expected)


def test_bfloat16():
    """Tokens in bf16 with scales in f32: the type of the tokens is that of the graph."""
    arrays, w = integer_weights()
    x, logits = inputs(dtype=ml_dtypes.bfloat16)
    ours = moe.from_onnx(model_of(arrays, element=16, block_size=16)).layer()(x, logits)
    assert ours.dtype == ml_dtypes.bfloat16
    close(ours.astype(np.float32), numpy_experts(
        x.astype(np.float32), logits.astype(np.float32), w, "swiglu", 1), 8 * 2.0**-8)


def changed(**changes):
    arrays, _ = integer_weights()
    names = changes.pop("drop", ())
    arrays = {n: a for n, a in arrays.items() if n not in names} | changes.pop("arrays", {})
    return model_of(arrays, **({"block_size": 16} | changes))


def broken():
    yield "expected quant_type int, fp8, fp4, nvfp4, got 'wfp4afp8'", dict(quant_type="wfp4afp8")
    yield "expected expert_weight_bits 2, 3, 4 or 8, got 5", dict(expert_weight_bits=5)
    yield "expected expert_weight_bits 2, 3, 4 or 8, got 1", dict(fc2_expert_weight_bits=1)
    yield "expected weights that are not prepacked", dict(weights_prepacked=1)
    yield r"expected fc1 of shape \[8, 128, 32\], got \[8, 128, 16\]", dict(expert_weight_bits=8)
    yield "expected fc1_scales", dict(drop=("fc1_scales",))
    yield "expected a block_size that divides 32, got 24", dict(block_size=24)
    yield r"expected fc1_scales of shape \[8, 128, 1\] or \[8, 128\], got \[8, 128, 2\]", dict(
        block_size=32)
    yield "expected fc1_scales in float8_e8m0fnu, got float32", dict(quant_type="fp4")
    yield "expected fc1_scales in f32, f16 or bf16, got int32", dict(
        arrays={"fc1_scales": np.ones((E, 128, 2), np.int32)})
    yield r"expected fc1 of shape \[8, 128, 32\], got \[8, 128, 16\]", dict(quant_type="nvfp4")


def test_errors():
    for message, changes in broken():
        with pytest.raises(moe.MoEError, match="node 'experts': " + message):
            moe.from_onnx(changed(**changes))
