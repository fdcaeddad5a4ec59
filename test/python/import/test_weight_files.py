"""Weights from files, as Python reaches the runtime's reader: bound, and damaged."""

from __future__ import annotations

import json
import os

import moe
import numpy as np
import pytest
from moe import _dlpack
from moe_testing.python_module import EXPERTS, HIDDEN, PythonModule, check, copies, first_bytes

pytestmark = pytest.mark.usefixtures("runtime")

GATES = [f"experts.{e}.gate" for e in range(EXPERTS)]


def file(entries, data, pad=8):
    """The bytes of a .safetensors file; ``entries`` is a dictionary or the text of one."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    text += b" " * (-len(text) % 8 + pad % 8)
    return len(text).to_bytes(8, "little") + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


WEIGHTS = {"gate": np.arange(1, 1 + EXPERTS * HIDDEN, dtype=np.float32).reshape(EXPERTS, HIDDEN),
           "bias": np.array([-1, 0.5, 7], np.float32)}
ROW = HIDDEN * 4
DATA = WEIGHTS["gate"].tobytes() + WEIGHTS["bias"].tobytes()
END = len(DATA)
BIAS = entry([HIDDEN], END - ROW, END)
ENTRIES = {name: entry([HIDDEN], e * ROW, (e + 1) * ROW) for e, name in enumerate(GATES)}
ENTRIES["norm.bias"] = BIAS
GOOD = file(ENTRIES, DATA)


# -- what is bound ---------------------------------------------------------------


def test_expert_by_expert_and_in_place(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(GOOD)
    prepared = EXPERTS * 2 * ROW
    for threads in (0, 1, 3):
        layer = PythonModule(threads).layer(tmp_path)
        assert layer.weight_bytes == prepared  # the bias stays in the file
        check(layer, WEIGHTS)
    # At an odd address a copy has to be.
    path.write_bytes(file(ENTRIES, DATA, pad=1))
    layer = PythonModule().layer(path)
    assert layer.weight_bytes == prepared + ROW
    check(layer, WEIGHTS)


def test_a_checkpoint_serves_several_layers(tmp_path):
    (tmp_path / "one.safetensors").write_bytes(
        file({name: ENTRIES[name] for name in GATES}, DATA[:-ROW]))
    (tmp_path / "two.safetensors").write_bytes(file({"norm.bias": entry([HIDDEN], 0, ROW)},
                                                    DATA[-ROW:]))
    index = {name: "one.safetensors" for name in GATES} | {"norm.bias": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    checkpoint = moe.Checkpoint(tmp_path)
    assert checkpoint.names == tuple(sorted(index))
    module = PythonModule()
    layers = [module.layer(checkpoint), module.layer(checkpoint)]
    del checkpoint
    for layer in layers:
        check(layer, WEIGHTS)


def test_tensors_of_a_checkpoint(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    w = (torch.arange(12, dtype=torch.float32) % 8).reshape(3, 4)
    save_file({"f32": w, "bf16": w.bfloat16(), "f8": w.to(torch.float8_e4m3fn),
               "none": w[:0], "e5": w.to(torch.float8_e5m2), "c": w.to(torch.complex64)},
              tmp_path / "a.safetensors")
    checkpoint = moe.Checkpoint(tmp_path / "a.safetensors")
    tensors = {name: checkpoint[name] for name in ("f32", "bf16", "f8", "e5")}
    assert checkpoint["none"].shape == (0, 4)
    with pytest.raises(moe.MoEError, match="tensor 'c' is complex64"):
        checkpoint["c"]
    for name in ("f", "f32\0", "\ud800"):
        assert name not in checkpoint
        with pytest.raises(moe.MoEError, match="there is no tensor"):
            checkpoint[name]
    del checkpoint  # the tensors keep the file
    for raw in tensors.values():
        array = raw.data.view(_dlpack.numpy_dtype(raw.dtype)).reshape(raw.shape)
        np.testing.assert_array_equal(array.astype(np.float32), w.numpy())
        assert not raw.data.flags.writeable
        assert _dlpack.as_tensor(raw).dl.data == raw.data.ctypes.data


# -- types ---------------------------------------------------------------------


def test_unsigned_weights():
    data = np.random.default_rng(2).integers(0, 256, 64, np.uint8)
    for bits in (8, 16, 32, 64):
        array = data.view(f"u{bits // 8}")
        for weight in (array, array.view(f"i{bits // 8}")):
            assert first_bytes(f"i{bits}", weight.shape, [weight], 64) == data.tobytes()
        with pytest.raises(moe.MoEError, match=f"type u{bits}, expected f32"):
            first_bytes("f32", array.shape, [array], 1)
    with pytest.raises(moe.MoEError, match="weight 'w' has type u8, expected i16 or u16"):
        first_bytes("i16", (64,), [data], 1)
    with pytest.raises(moe.MoEError, match="input 'x' has type u8, expected i8"):
        PythonModule(1, copies("i8", 64)).layer([data])(np.zeros(3, np.uint8))


def test_small_floats():
    torch = pytest.importorskip("torch")
    data = np.random.default_rng(3).integers(0, 256, 8, np.uint8)
    for dtype, name in (("f8E4M3FN", "float8_e4m3fn"), ("f8E5M2", "float8_e5m2"),
                        ("f8E8M0FNU", "float8_e8m0fnu")):
        arrays = [data.view(_dlpack.numpy_dtype(dtype))]
        if hasattr(torch, name):
            arrays.append(torch.from_numpy(data).view(getattr(torch, name)))
        for array in arrays:
            assert _dlpack.as_tensor(array).dtype == dtype
            assert first_bytes(dtype, (8,), [array], 8) == data.tobytes()
    for bits in (8, 16, 32, 64):
        array = torch.from_numpy(data.copy()).view(getattr(torch, f"uint{bits}"))
        assert first_bytes(f"i{bits}", (64 // bits,), [array], 8) == data.tobytes()


# -- what is not -----------------------------------------------------------------

CODES = {"damaged": moe.DATA_LOSS, "wrong": moe.INVALID_ARGUMENT, "absent": moe.NOT_FOUND}


def replaced(**changes):
    return {name: changes.get(name.replace(".", "_"), given) for name, given in ENTRIES.items()}


def gate(shape, dtype="F32"):
    """The gate as one tensor of its own name."""
    return file({"gate": entry(shape, 0, END - ROW, dtype), "norm.bias": BIAS}, DATA)


def text(entries):
    return b"{" + b",".join(json.dumps(name).encode() + b":" + json.dumps(given).encode()
                            for name, given in entries) + b"}"


FILES = {
    "empty": (b"", "damaged", "truncated: 0 bytes"),
    "seven bytes": (GOOD[:7], "damaged", "truncated: 7 bytes"),
    "within the header": (GOOD[:70], "damaged", "truncated: header of"),
    "a byte less": (GOOD[:-1], "damaged", "expected a range within"),
    "a byte more": (GOOD + b"x", "damaged", f"cover {END} bytes of data, expected {END + 1}"),
    "huge header": (b"\xff" * 8 + GOOD[8:], "damaged", "header has 18446744073709551615 bytes"),
    "header of 2^63": (b"\0" * 7 + b"\x80" + GOOD[8:], "damaged", "its header has"),
    "no JSON": (file(b"{[(", b""), "damaged", "invalid header"),
    "two values": (file(b"{}{}", b""), "damaged", "invalid header"),
    "an array": (file(b"[]", b""), "damaged", "does not start with"),
    "not UTF-8": (file(b'{"\xff":{}}', b""), "damaged", "invalid header"),
    "deep nesting": (file(b'{"a":' + b"[" * 100000, b""), "damaged", "nested deeper"),
    "NaN": (file(b'{"a":NaN}', b""), "damaged", "invalid header"),
    "bad metadata": (file({"__metadata__": 1}, b""), "damaged", "__metadata__ is a number"),
    "a number as an entry": (file({"norm.bias": 1}, b""), "damaged", "has no type"),
    "no dtype": (file(replaced(norm_bias={"shape": [3], "data_offsets": [60, 72]}), DATA),
                 "damaged", "has no type"),
    "no shape": (file(replaced(norm_bias={"dtype": "F32", "data_offsets": [60, 72]}), DATA),
                 "damaged", "has no shape"),
    "no offsets": (file(replaced(norm_bias={"dtype": "F32", "shape": [3]}), DATA),
                   "damaged", "has no two data_offsets"),
    "three offsets": (file(replaced(norm_bias={**BIAS, "data_offsets": [60, 72, 72]}), DATA),
                      "damaged", "has no two data_offsets"),
    "offsets that are text": (file(replaced(norm_bias={**BIAS, "data_offsets": ["60", "72"]}),
                                   DATA), "damaged", "has no two data_offsets"),
    "offsets reversed": (file(replaced(norm_bias={**BIAS, "data_offsets": [72, 60]}), DATA),
                         "damaged", "expected a range within"),
    "negative offsets": (file(replaced(norm_bias={**BIAS, "data_offsets": [-12, 0]}), DATA),
                         "damaged", "expected a range within"),
    "beyond the end": (file(replaced(norm_bias=entry([HIDDEN], END, END + ROW)), DATA),
                       "damaged", "expected a range within"),
    "unknown dtype": (file(replaced(norm_bias={**BIAS, "dtype": "F33"}), DATA),
                      "damaged", "unknown type 'F33'"),
    "a dtype that is a number": (file(replaced(norm_bias={**BIAS, "dtype": 5}), DATA),
                                 "damaged", "has no type"),
    "negative extents": (file(replaced(norm_bias=entry([-1, -3], 60, 72)), DATA),
                         "damaged", "extent that is no integer"),
    "extents with a point": (file(replaced(norm_bias=entry([3.0], 60, 72)), DATA),
                             "damaged", "extent that is no integer"),
    "true as an extent": (file(replaced(norm_bias=entry([True, 3], 60, 72)), DATA),
                          "damaged", "extent that is no integer"),
    "extents that overflow": (file(replaced(norm_bias=entry([1 << 62, 4], 60, 72)), DATA),
                              "damaged", "impossible size"),
    "too few bytes": (file(replaced(norm_bias=entry([4], 60, 72)), DATA),
                      "damaged", "has 12 bytes, expected 16"),
    "duplicate key": (file(text([*ENTRIES.items(), ("norm.bias", ENTRIES[GATES[0]])]), DATA),
                      "damaged", "repeated key 'norm.bias'"),
    "overlap": (file(replaced(norm_bias=ENTRIES[GATES[0]]), DATA[:-ROW]),
                "damaged", "starts at byte 0 of the data"),
    "hole": (file(replaced(norm_bias=entry([2], END - 8, END)), DATA),
             "damaged", f"starts at byte {END - 8} of the data, expected {END - ROW}"),
    "NUL in a name": (file({**ENTRIES, "x\0": entry([0], END, END)}, DATA),
                      "damaged", "NUL character"),
    # All right as files, but not for this layer.
    "transposed": (gate([HIDDEN, EXPERTS]), "wrong", "has type f32[3, 5], expected f32[5, 3]"),
    "flat": (gate([HIDDEN * EXPERTS]), "wrong", "has type f32[15], expected f32[5, 3]"),
    "an expert of another rank": (file(replaced(experts_3_gate=entry([1, 3], 36, 48)), DATA),
                                  "wrong", "has type f32[1, 3], expected f32[3]"),
    "another type": (gate([EXPERTS, HIDDEN], "I32"), "wrong", "has type i32[5, 3], expected f32"),
    "an expert less": (file({n: g for n, g in ENTRIES.items() if n != GATES[4]} | {
        "x": ENTRIES[GATES[4]]}, DATA), "absent", "there is no tensor 'experts.4.gate'"),
    "none of them": (file({}, b""), "absent", "has no tensor 'experts.0.gate' and no 'gate'"),
}


def refused(path, kind, message):
    with pytest.raises(moe.MoEError) as caught:
        PythonModule(1).layer(path)
    assert message in caught.value.message
    assert caught.value.code == CODES[kind]


@pytest.mark.parametrize("name", FILES)
def test_damaged_file(name, tmp_path):
    content, kind, message = FILES[name]
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path, kind, message)


PLAIN = "expected the name of a file in the same directory"
INDICES = {
    "parent": ({"weight_map": dict.fromkeys(ENTRIES, "../a.safetensors")}, "damaged", PLAIN),
    "absolute": ({"weight_map": dict.fromkeys(ENTRIES, "/tmp/a.safetensors")}, "damaged", PLAIN),
    "folder": ({"weight_map": dict.fromkeys(ENTRIES, "d/a.safetensors")}, "damaged", PLAIN),
    "empty name": ({"weight_map": dict.fromkeys(ENTRIES, "")}, "damaged", PLAIN),
    "NUL": ({"weight_map": dict.fromkeys(ENTRIES, "a\0b")}, "damaged", PLAIN),
    "absent file": ({"weight_map": dict.fromkeys(ENTRIES, "b.safetensors")}, "absent",
                    "b.safetensors: cannot open"),
    "absent tensor": ({"weight_map": {"gate": "a.safetensors"}}, "damaged",
                      "which the index says is here"),
    "a number": ({"weight_map": {"gate": 1}}, "damaged", "is in a number"),
    "a list": ({"weight_map": ["gate"]}, "damaged", "'weight_map' is an array"),
    "no map": ({}, "damaged", "'weight_map' is nothing"),
    "no object": ([], "damaged", "'weight_map' is nothing"),
    "no JSON": ("{'weight_map'", "damaged", "invalid JSON"),
    "duplicate key": ('{"weight_map": {"a": "a", "a": "b"}}', "damaged", "repeated key 'a'"),
}


@pytest.mark.parametrize("name", INDICES)
def test_hostile_index(name, tmp_path):
    content, kind, message = INDICES[name]
    inside = tmp_path / "model"
    inside.mkdir()
    for directory in (tmp_path, inside):
        (directory / "a.safetensors").write_bytes(GOOD)
    (inside / "model.safetensors.index.json").write_text(
        content if isinstance(content, str) else json.dumps(content))
    refused(inside, kind, message)


def test_what_is_no_file(tmp_path):
    refused(tmp_path, "absent", "neither model.safetensors nor")
    refused(tmp_path / "none", "absent", "cannot open")
    refused(f"{tmp_path}/a\0b", "wrong", "has a NUL character")
    refused("\ud800", "wrong", "is no path")
    for name in ("a.safetensors", "b.safetensors"):
        (tmp_path / name).write_bytes(GOOD)
    refused(tmp_path, "damaged", "is in 'a.safetensors' and in 'b.safetensors'")
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path, "wrong", "not a regular file")
    os.mkfifo(tmp_path / "pipe.safetensors")  # which nobody writes to
    refused(tmp_path / "pipe.safetensors", "wrong", "not a regular file")


def test_random_bytes_crash_nothing(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "w.safetensors"
    module = PythonModule(1)
    for _ in range(300):
        content = bytearray(GOOD)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(8, len(content) - END)] = rng.integers(32, 127)
        path.write_bytes(content)
        try:
            layer = module.layer(path)
        except moe.MoEError:
            continue
        check(layer, WEIGHTS)
