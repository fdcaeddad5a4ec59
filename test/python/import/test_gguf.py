"""Layers of GGUF files that the gguf package writes, against float64.

The weights of the oracle are what gguf decodes; its gate and experts follow llama.cpp's
``build_moe_ffn``.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from moe_testing import data

gguf = pytest.importorskip("gguf")

from gguf import GGMLQuantizationType as Type

E, K, H, I = 8, 3, 256, 256
# Rows that are rounded to 8 bits before each of two matmuls.
INTEGER_TOLERANCE = 2e-2
# Products of H and I terms in f32, decoded weights being equal bit for bit.
TOLERANCE = {"f32": 1e-5, "bf16": 8 * 2.0**-9}


@dataclasses.dataclass
class File:
    """A file with one layer, number 1, and what is in it."""

    path: Path
    architecture: str
    keys: dict
    weights: dict[str, np.ndarray]  # as decoded, in float64


def quantize(values: np.ndarray, kind: Type, r: np.random.Generator) -> np.ndarray:
    """The bytes of a tensor; K-quants, which gguf does not write, of random bytes."""
    if kind in (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.MXFP4):
        return gguf.quants.quantize(values, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = r.integers(0, 256, (*values.shape[:-1], values.shape[-1] // block, size),
                     dtype=np.uint8)
    # Scales of f16 that give values of about 1/16.
    scale = np.frombuffer(np.float16([2.0**-12, 2.0**-8]).tobytes(), np.uint8)
    if kind == Type.Q4_K:
        raw[..., 0:2], raw[..., 2:4] = scale[0:2], scale[2:4]
    else:
        raw[..., 208:210] = scale[0:2]
    return raw.reshape(*values.shape[:-1], -1)


def write(path: Path, architecture: str, kinds, keys=None, shared: int = 0,
          merged: bool = False, biases: bool = False, selection: bool = False,
          shared_gate: bool = False, experts: int = E, hidden: int = H, width: int = I,
          left_out=()) -> File:
    """``kinds`` are the types of gate, up and down."""
    r = data.rng(architecture, str(kinds), str(keys), merged)
    keys = {"expert_used_count": K, "expert_count": experts, "embedding_length": hidden,
            "block_count": 2} | (keys or {})
    weights: dict[str, np.ndarray] = {}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        if key in left_out:
            continue
        name = f"{architecture}.{key}"
        if isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        else:
            writer.add_uint32(name, value)

    def add(name: str, shape: tuple[int, ...], kind: Type = Type.F32, scale: float | None = None):
        values = r.standard_normal(shape).astype(np.float32)
        values *= shape[-1] ** -0.5 if scale is None else scale
        raw = quantize(values, kind, r)
        plain = kind in (Type.F32, Type.F16)
        writer.add_tensor(f"blk.1.{name}", raw, raw_dtype=None if plain else kind)
        weights[name] = gguf.quants.dequantize(raw, kind).astype(np.float64)

    def mlp(kind: str, leading: tuple[int, ...], columns: int):
        if merged:
            add(f"ffn_gate_up_{kind}.weight", (*leading, 2 * columns, hidden), kinds[0])
        else:
            add(f"ffn_gate_{kind}.weight", (*leading, columns, hidden), kinds[0])
            add(f"ffn_up_{kind}.weight", (*leading, columns, hidden), kinds[1])
        add(f"ffn_down_{kind}.weight", (*leading, hidden, columns), kinds[2])
        if biases:
            for name, extent in (("gate", columns), ("up", columns), ("down", hidden)):
                add(f"ffn_{name}_{kind}.bias", (*leading, extent), scale=1.0)

    add("ffn_gate_inp.weight", (experts, hidden), scale=2 * hidden**-0.5)
    mlp("exps", (experts,), width)
    if biases:
        add("ffn_gate_inp.bias", (experts,), scale=1.0)
    if selection:
        add("exp_probs_b.bias", (experts,), scale=0.5)
    if shared:
        mlp("shexp", (), shared)
    if shared_gate:
        add("ffn_gate_inp_shexp.weight", (hidden,))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return File(path, architecture, keys, weights)


# --------------------------------------------------------------------------
# llama.cpp's build_moe_ffn in float64
# --------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SCORES = {1: softmax, 2: sigmoid, 3: lambda x: x, 4: lambda x: np.sqrt(np.logaddexp(x, 0))}


def run_mlp(file: File, x: np.ndarray, kind: str, of=()) -> np.ndarray:
    w = file.weights

    def bias(name):
        return w[f"ffn_{name}_{kind}.bias"][of] if f"ffn_{name}_{kind}.bias" in w else 0

    if f"ffn_gate_up_{kind}.weight" in w:
        gate, up = np.split(x @ w[f"ffn_gate_up_{kind}.weight"][of].T, 2, axis=-1)
    else:
        gate = x @ w[f"ffn_gate_{kind}.weight"][of].T + bias("gate")
        up = x @ w[f"ffn_up_{kind}.weight"][of].T + bias("up")
    if file.architecture == "gpt-oss":
        gate, up = np.minimum(gate, 7), np.clip(up, -7, 7)
        hidden = gate * sigmoid(1.702 * gate) * (up + 1)
    else:
        hidden = gate * sigmoid(gate) * up
    return hidden @ w[f"ffn_down_{kind}.weight"][of].T + bias("down")


def oracle(file: File, x: np.ndarray, gating: int, normalizes: bool) -> np.ndarray:
    w, keys = file.weights, file.keys
    x = x.astype(np.float64)
    logits = x @ w["ffn_gate_inp.weight"].T + w.get("ffn_gate_inp.bias", 0)
    probabilities = SCORES[gating](logits)
    selection = probabilities + w.get("exp_probs_b.bias", 0)
    before = file.architecture == "llama4"
    if before:
        selection = logits
    if keys.get("expert_group_count", 1) > 1:
        groups = selection.reshape(len(x), keys["expert_group_count"], -1)
        best = np.argsort(-np.sort(groups, -1)[..., -2:].sum(-1), -1, kind="stable")
        for row, order in zip(groups, best):
            row[order[keys["expert_group_used_count"]:]] = -np.inf
        selection = groups.reshape(len(x), -1)
    ids = np.argsort(-selection, -1, kind="stable")[:, :K]
    weights = np.take_along_axis(probabilities, ids, 1)
    if gating == 3:
        weights = softmax(weights)
    if normalizes:
        weights = weights / np.maximum(weights.sum(-1, keepdims=True), 6.103515625e-5)
    weights = weights * (keys.get("expert_weights_scale", 1.0) or 1.0)
    y = np.zeros_like(x)
    for t in range(len(x)):
        for k in range(K):
            if before:
                y[t] += run_mlp(file, weights[t, k] * x[t], "exps", ids[t, k])
            else:
                y[t] += weights[t, k] * run_mlp(file, x[t], "exps", ids[t, k])
    if "ffn_down_shexp.weight" in w:
        shared = run_mlp(file, x, "shexp")
        if "ffn_gate_inp_shexp.weight" in w:
            shared *= sigmoid(x @ w["ffn_gate_inp_shexp.weight"])[:, None]
        y += shared
    return y


def check(moe, file: File, gating: int, normalizes: bool, tokens: int = 17,
          dtype: str = "f32", options=("--activations=exact",)) -> float:
    x = data.rng("rows").standard_normal((tokens, file.keys["embedding_length"]))
    x = x.astype(data.numpy_type(dtype))
    typed = {} if dtype == "f32" else {"dtype": dtype}
    y = moe.compile(file.path, layer=1, options=options, **typed).layer(file.path)(x)
    expected = oracle(file, x.astype(np.float64), gating, normalizes)
    assert np.abs(expected).max() > 0.05
    error = data.relative_error(y, expected)
    assert error < (TOLERANCE[dtype] if options else INTEGER_TOLERANCE)
    return error


# --------------------------------------------------------------------------
# Formats
# --------------------------------------------------------------------------

FORMATS = {"q8_0": Type.Q8_0, "q4_0": Type.Q4_0, "mxfp4": Type.MXFP4, "q4_K": Type.Q4_K,
           "q6_K": Type.Q6_K, "f32": Type.F32, "f16": Type.F16, "bf16": Type.BF16}


@pytest.mark.parametrize("name", list(FORMATS))
def test_formats(compiled, tmp_path, record, name):
    file = write(tmp_path / "model.gguf", "qwen3moe", [FORMATS[name]] * 3)
    record(f"GGUF {name}", check(compiled, file, 1, True))


# Formats whose rows are integers by default. In the others all rows are exact.
INTEGERS = {"q8_0", "q4_0", "mxfp4", "q4_K", "q6_K"}


@pytest.mark.parametrize("name", list(FORMATS))
def test_rows_are_integers_by_default(compiled, tmp_path, record, name):
    data.skip_unless_runs("x86-64-v3")
    file = write(tmp_path / "model.gguf", "qwen3moe", [FORMATS[name]] * 3)
    error = check(compiled, file, 1, True, options=())
    record(f"GGUF {name}, rows of integers", error)
    assert (error > 1e-4) == (name in INTEGERS)


def test_formats_of_one_layer_differ(compiled, tmp_path):
    """As in files that are called Q4_K_M."""
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q4_K, Type.Q4_0, Type.Q6_K])
    check(compiled, file, 1, True)


def test_all_layers(compiled, tmp_path):
    """The only block with experts of the file, as a function of its own name."""
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q8_0] * 3)
    module = compiled.compile(file.path, layer="all", options=("--activations=exact",))
    assert module.functions == ("layer_1",)
    x = data.rng("rows").standard_normal((9, file.keys["embedding_length"])).astype(np.float32)
    y = module.layer(file.path, function="layer_1")(x)
    assert data.relative_error(y, oracle(file, x, 1, True)) < TOLERANCE["f32"]


def test_the_code_is_for_one_format(compiled, tmp_path):
    """Blocks of q4_0 and iq4_nl have as many bytes and other values."""
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q4_0] * 3)
    module = compiled.compile(file.path, layer=1)
    module.layer(file.path)
    for tensor in gguf.GGUFReader(file.path, "r+").tensors:
        if tensor.tensor_type == Type.Q4_0:
            tensor.field.parts[-2][0] = Type.IQ4_NL
    with pytest.raises(compiled.MoEError,
                       match="of iq4_nl blocks, expected .* of q4_0 blocks"):
        module.layer(file.path)


def test_rows_without_blocks(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q4_0] * 3)
    for tensor in gguf.GGUFReader(file.path, "r+").tensors:
        if tensor.tensor_type == Type.Q4_0:
            tensor.field.parts[-3][0] = 0
    with pytest.raises(compiled.MoEError, match=r"expected tensor 'blk.1.ffn_\w+_exps.weight' to "
                       r"be q4_0\[8, 256, 144\] with rows in bytes, got q4_0\[8, 256, 0\]"):
        compiled.compile(file.path, layer=1)


def test_rows_in_bf16(compiled, tmp_path, record):
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q8_0] * 3)
    record("GGUF q8_0 bf16", check(compiled, file, 1, True, dtype="bf16"))


def test_rows_of_other_extents(compiled, tmp_path):
    """No multiples of a panel, but of 32."""
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.Q4_0, Type.MXFP4, Type.Q8_0],
                 hidden=160, width=96, experts=5)
    check(compiled, file, 1, True)


# --------------------------------------------------------------------------
# Gates
# --------------------------------------------------------------------------

Q = [Type.Q8_0] * 3
GATES = {
    "softmax": ("olmoe", {}, 1, False, {}),
    "normalised": ("llama", {}, 1, True, {}),
    "shared expert with a gate": ("qwen2moe", {}, 1, False, dict(shared=64, shared_gate=True)),
    "sigmoid, groups, bias, scale": (
        "deepseek2", {"expert_gating_func": 2, "expert_weights_norm": True,
                      "expert_weights_scale": 2.5, "expert_group_count": 4,
                      "expert_group_used_count": 2}, 2, True, dict(shared=128, selection=True)),
    "softmax of deepseek2": ("deepseek2", {"expert_weights_scale": 16.0}, 1, False,
                             dict(shared=64)),
    "sigmoid by default": ("glm4moe", {"expert_weights_norm": True}, 2, True,
                           dict(selection=True, shared=32)),
    "softmax of the chosen, biases": ("gpt-oss", {}, 3, False, dict(biases=True)),
    "square root of softplus": ("bailingmoe2", {"expert_gating_func": 4}, 4, False, {}),
    "before the experts": ("llama4", {}, 2, False, dict(shared=96)),
    "merged gate and up": ("deepseek2", {"expert_weights_norm": True}, 1, True,
                           dict(merged=True)),
}


@pytest.mark.parametrize("name", list(GATES))
def test_gates(compiled, tmp_path, record, name):
    architecture, keys, gating, normalizes, more = GATES[name]
    file = write(tmp_path / "model.gguf", architecture, Q, keys, **more)
    record(f"GGUF {name}", check(compiled, file, gating, normalizes))


# --------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------

LOAD = """
import resource, sys
import moe

module = moe.compile(sys.argv[1], layer=3, num_threads=2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layer = module.layer(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_while_loading(compiled, tmp_path):
    """Of a file with six layers: the packed layer, as large as in the file, and the experts that
    are being read."""
    experts, hidden, width = 16, 2048, 768
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "qwen3moe")
    for key, value in {"block_count": 6, "embedding_length": hidden, "expert_count": experts,
                       "expert_used_count": 2}.items():
        writer.add_uint32(f"qwen3moe.{key}", value)
    size = 0
    for block in range(6):
        writer.add_tensor(f"blk.{block}.ffn_gate_inp.weight",
                          np.zeros((experts, hidden), np.float32))
        for name, n, k in (("gate", width, hidden), ("up", width, hidden),
                           ("down", hidden, width)):
            blocks = np.full((experts, n, k // 32 * 18), 1, np.uint8)
            size += blocks.nbytes
            writer.add_tensor(f"blk.{block}.ffn_{name}_exps.weight", blocks, raw_dtype=Type.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    done = subprocess.run([sys.executable, "-c", LOAD, path], text=True, capture_output=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    window = 24 << 20
    assert int(done.stdout) * 1024 < 1.05 * size / 6 + window


# --------------------------------------------------------------------------
# Refusals
# --------------------------------------------------------------------------


def refused(moe, path: Path, layer: int = 1) -> str:
    done = subprocess.run([moe.find_compiler(), f"--gguf={path}", f"--layer={layer}",
                           "--emit=mlir", "-o", "-"], text=True, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_an_unknown_architecture(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "mamba3", Q)
    assert "architecture 'mamba3' is not among those that can be imported: bailingmoe2," in refused(
        compiled, file.path)


def test_a_file_that_is_not_of_a_model(compiled, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "qwen3moe")
    del writer.kv_data[0]["general.architecture"]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert "expected a .gguf file of a model, with a key 'general.architecture'" in refused(
        compiled, tmp_path / "model.gguf")


def test_a_layer_without_experts(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", Q)
    assert "layer 0 of 2 has no experts; the first with experts is 1" in refused(
        compiled, file.path, 0)
    assert "layer 7 of 2 has no experts" in refused(compiled, file.path, 7)


def test_a_key_is_missing(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", Q, left_out=["expert_used_count"])
    assert "qwen3moe.expert_used_count" in refused(compiled, file.path)


def test_experts_of_another_number(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", Q, {"expert_count": 9})
    assert "[9, 256" in (message := refused(compiled, file.path))
    assert "[8, 256" in message


def test_more_experts_than_there_are(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", Q, {"expert_used_count": 9})
    assert "expected at most 8 experts per token, got 9" in refused(compiled, file.path)


def test_groups_of_experts(compiled, tmp_path):
    groups = {"expert_group_used_count": 1}
    file = write(tmp_path / "odd.gguf", "deepseek2", Q, groups | {"expert_group_count": 3})
    assert "expected 'expert_group_count' to divide 8 experts into groups of at least 2, got 3" in (
        refused(compiled, file.path))
    file = write(tmp_path / "few.gguf", "deepseek2", Q,
                 groups | {"expert_group_count": 4, "expert_used_count": 3})
    assert "as the groups that are kept have, 2, got 3" in refused(compiled, file.path)


def test_a_format_that_is_not_imported(compiled, tmp_path):
    file = write(tmp_path / "model.gguf", "qwen3moe", [Type.F32] * 3)
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "qwen3moe")
    for key, value in file.keys.items():
        writer.add_uint32(f"qwen3moe.{key}", value)
    writer.add_tensor("blk.1.ffn_gate_inp.weight", np.zeros((E, H), np.float32))
    for name in ("gate", "up", "down"):
        writer.add_tensor(f"blk.1.ffn_{name}_exps.weight", np.zeros((E, I, 84), np.uint8),
                          raw_dtype=Type.Q2_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = refused(compiled, tmp_path / "other.gguf")
    assert "in f32, f16, bf16, q8_0, q4_0, q4_K, q6_K or mxfp4, got q2_K" in message


def test_factors_of_experts(compiled, tmp_path):
    """What the importer does not know is never ignored."""
    file = write(tmp_path / "model.gguf", "qwen3moe", Q)
    reader = gguf.GGUFReader(file.path)
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "qwen3moe")
    for key, value in file.keys.items():
        writer.add_uint32(f"qwen3moe.{key}", value)
    for tensor in reader.tensors:
        plain = tensor.tensor_type == Type.F32
        writer.add_tensor(tensor.name, np.asarray(tensor.data),
                          raw_dtype=None if plain else tensor.tensor_type)
    writer.add_tensor("blk.1.ffn_up_exps.scale", np.ones(E, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "blk.1.ffn_up_exps.scale" in refused(compiled, tmp_path / "other.gguf")
