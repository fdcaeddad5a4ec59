"""Weights from .gguf files, written by the package ``gguf``: listed, bound, split, damaged."""

from __future__ import annotations

import struct

import gguf
import moe
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from moe import _dlpack
from moe_testing.python_module import EXPERTS, HIDDEN, PythonModule, check, first_bytes

pytestmark = pytest.mark.usefixtures("runtime")

PLAIN = {Type.F32: "f32", Type.F16: "f16", Type.BF16: "bf16", Type.F64: "f64", Type.I8: "i8",
         Type.I16: "i16", Type.I32: "i32", Type.I64: "i64"}
# ggml computes with q8_1 and q8_K and stores neither; the package has an old size of the first.
BLOCKS = [t for t in Type if t not in PLAIN and t is not Type.Q8_1]
ROWS = 3

WEIGHTS = {"gate": np.arange(1, 1 + EXPERTS * HIDDEN, dtype=np.float32).reshape(EXPERTS, HIDDEN),
           "bias": np.array([-1, 0.5, 7], np.float32)}


def name_of(kind):
    """As ggml writes it: q8_0, q4_K."""
    return kind.name.lower().replace("_k", "_K")


def write(path, tensors, keys=None, alignment=None, **options):
    """``tensors`` is a dictionary of arrays, or of pairs of an array of bytes and its type."""
    writer = gguf.GGUFWriter(path, "test", **options)
    if alignment:
        writer.add_custom_alignment(alignment)
    for kind, (key, value) in (keys or {}).items():
        getattr(writer, f"add_{kind}")(key, value)
    for name, given in tensors.items():
        data, kind = given if isinstance(given, tuple) else (given, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def bytes_of(kind, rng, *shape):
    """Random bytes of a tensor of blocks; its columns are two blocks."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    return rng.integers(0, 256, (*shape, 2 * size), np.uint8), 2 * elements


def test_every_type(tmp_path):
    rng = np.random.default_rng(0)
    tensors, columns = {}, {}
    for kind, name in PLAIN.items():
        size = gguf.GGML_QUANT_SIZES[kind][1]
        data = rng.integers(0, 256, (2, ROWS, 5 * size), np.uint8)
        # The writer wants the types that numpy has as themselves.
        tensors[name] = ((data, kind) if kind is Type.BF16 else
                         data.view(_dlpack.numpy_dtype(name)))
    for kind in BLOCKS:
        data, columns[kind] = bytes_of(kind, rng, 2, ROWS)
        tensors[name_of(kind)] = (data, kind)
    path = write(tmp_path / "a.gguf", tensors)
    checkpoint = moe.Checkpoint(path)
    assert checkpoint.names == tuple(sorted(tensors))
    read = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for name, theirs in read.items():
        ours = checkpoint[name]
        assert ours.data.tobytes() == theirs.data.tobytes(), name
        if name in PLAIN.values():
            assert (ours.dtype, ours.shape, ours.format) == (name, (2, ROWS, 5), None)
            continue
        kind = theirs.tensor_type
        assert (ours.dtype, ours.format) == ("ui8", name)
        assert ours.shape == tensors[name][0].shape == theirs.data.shape
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        assert ours.shape[-1] // size * elements == columns[kind]
        if kind in (Type.Q8_K, Type.Q1_0):
            continue  # which the package cannot decode
        with np.errstate(all="ignore"):
            array = gguf.quants.dequantize(ours.data.reshape(ours.shape), kind)
            expected = gguf.quants.dequantize(theirs.data, kind)
        assert array.shape == (2, ROWS, columns[kind])
        np.testing.assert_array_equal(array, expected)


def test_ranks_and_alignment(tmp_path):
    tensors = {f"r{rank}": np.arange(2**rank, dtype=np.float32).reshape((2,) * rank)
               for rank in range(1, 5)}
    for alignment in (8, 32, 4096):
        checkpoint = moe.Checkpoint(write(tmp_path / "a.gguf", tensors, alignment=alignment))
        for name, array in tensors.items():
            raw = checkpoint[name]
            assert raw.shape == array.shape
            assert raw.data.ctypes.data % alignment == 0
            np.testing.assert_array_equal(raw.data.view(np.float32), array.ravel())
        del checkpoint, raw


def test_a_layer_by_magic(tmp_path):
    gates = {f"experts.{e}.gate": WEIGHTS["gate"][e] for e in range(EXPERTS)}
    for name in ("w.gguf", "weights"):  # the second one has no extension
        path = write(tmp_path / name, gates | {"norm.bias": WEIGHTS["bias"]})
        layer = PythonModule(1).layer(path)
        check(layer, WEIGHTS)
        assert layer.weight_bytes == EXPERTS * 2 * HIDDEN * 4  # the bias stays in the file
    assert path.exists()


def test_split_files(tmp_path):
    gates = {f"experts.{e}.gate": WEIGHTS["gate"][e] for e in range(EXPERTS)}
    write(tmp_path / "w.gguf", gates | {"norm.bias": WEIGHTS["bias"]}, split_max_tensors=2)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert [p.name for p in parts] == [f"w-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    for part in parts:  # any of them
        checkpoint = moe.Checkpoint(part)
        assert checkpoint.names == (*sorted(gates), "norm.bias")
        check(PythonModule(1).layer(checkpoint), WEIGHTS)
        del checkpoint
    contents = [p.read_bytes() for p in parts]

    def refused(message, code=moe.DATA_LOSS, path=parts[0]):
        with pytest.raises(moe.MoEError) as caught:
            moe.Checkpoint(path)
        assert message in caught.value.message
        assert caught.value.code == code

    parts[1].unlink()
    refused("w-00002-of-00003.gguf: cannot open", moe.NOT_FOUND)
    parts[1].write_bytes(contents[2])
    refused("w-00002-of-00003.gguf: key 'split.no' is 2, expected 1")
    write(parts[1], {"x": WEIGHTS["bias"]})
    refused("w-00002-of-00003.gguf: there is no key 'split.count'")
    parts[1].write_bytes(contents[1][:-21])
    refused("w-00002-of-00003.gguf: tensor 'experts.3.gate' of type f32[3] has 12 bytes at byte 32 "
            "of the data, expected a range within")
    renamed = parts[0].rename(tmp_path / "other.gguf")
    refused("is part 1 of 3, expected a name that ends in '-00001-of-00003.gguf'", path=renamed)
    # The number of all tensors is in every part.
    for part, content in zip(parts, contents):
        part.write_bytes(content.replace(struct.pack("<Ii", 5, 6), struct.pack("<Ii", 5, 7)))
    refused("key 'split.tensors.count' is 7, expected 6")


def test_blocks_are_a_weight_of_bytes(tmp_path):
    rng, name = np.random.default_rng(1), "blk.0.ffn_up_exps.weight"
    for kind in (Type.Q8_0, Type.Q4_K, Type.MXFP4):
        data, _ = bytes_of(kind, rng, 2, ROWS)
        path = write(tmp_path / "w.gguf", {name: (data, kind)})
        assert first_bytes("i8", data.shape, path, 90, name) == data.tobytes()[:90]
        with pytest.raises(moe.MoEError, match=rf"has type u8\[2, 3, {data.shape[-1]}\] of "
                                               rf"{name_of(kind)} blocks, expected f16\[2, 3, 7\]"):
            first_bytes("f16", (2, ROWS, 7), path, 1, name)


def test_blocks_of_another_format_with_as_many_bytes(tmp_path):
    name = "blk.0.ffn_up_exps.weight"
    data, _ = bytes_of(Type.Q4_0, np.random.default_rng(1), 2, ROWS)
    for kind in (Type.Q4_0, Type.IQ4_NL):
        path = write(tmp_path / f"{name_of(kind)}.gguf", {name: (data, kind)})
        arguments = "i8", data.shape, path, 90, name
        assert first_bytes(*arguments, source_format=name_of(kind)) == data.tobytes()[:90]
    extents = rf"\[2, 3, {data.shape[-1]}\]"
    with pytest.raises(moe.MoEError, match=rf"has type u8{extents} of iq4_nl blocks, expected "
                                           rf"i8{extents} of q4_0 blocks"):
        first_bytes(*arguments, source_format="q4_0")
    with pytest.raises(moe.MoEError, match="source_format is a number, expected a string"):
        first_bytes(*arguments, source_format=4)


# -- what is damaged -------------------------------------------------------------


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


def entry(name, extents, kind, offset):
    """Of a tensor; the extents are as in the file, columns first."""
    return (text(name) + struct.pack(f"<I{len(extents)}Q", len(extents), *extents)
            + struct.pack("<IQ", kind, offset))


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def file(entries=(), pairs=(), data=b"", version=3, magic=b"GGUF", alignment=32):
    content = magic + struct.pack("<IQQ", version, len(entries), len(pairs))
    content += b"".join((*pairs, *entries))
    return content + bytes(-len(content) % alignment) + data


W = entry("w", [32, 2], Type.Q8_0, 0)
GOOD = file([W], [pair("a.b", 4, struct.pack("<I", 7))], bytes(68))
LONG = file([W], data=b"\xff" * 68, alignment=1)
DEEP = struct.pack("<IQ", 9, 1) * 9 + struct.pack("<IQ", 0, 0)

FILES = {
    "empty": (b"", "truncated: 0 bytes, expected at least 24"),
    "half of the magic": (b"GG", "truncated: 2 bytes"),
    "a header less a byte": (GOOD[:23], "truncated: 23 bytes"),
    "another magic": (b"GGML" + GOOD[4:], "not a GGUF file: it does not start with 'GGUF'"),
    "big-endian": (GOOD[:4] + struct.pack(">I", 3) + GOOD[8:], "a big-endian GGUF file"),
    "version 1": (file([W], version=1), "has GGUF version 1, expected 2 or 3"),
    "version 4": (file([W], version=4), "has GGUF version 4, expected 2 or 3"),
    "version 0": (file([W], version=0), "has GGUF version 0"),
    "many tensors": (GOOD[:8] + b"\xff" * 8 + GOOD[16:], "has 18446744073709551615 tensors and 1 "
                     "keys, expected at most"),
    "many keys": (GOOD[:16] + b"\xff" * 8 + GOOD[24:], "1 tensors and 18446744073709551615 keys"),
    "a tensor more": (LONG[:8] + b"\x02" + LONG[9:], "truncated: tensor 1 has"),
    "a key more": (GOOD[:16] + b"\x02" + GOOD[17:], "truncated: tensor 0 has"),
    # Key-values.
    "a long key": (file([], [struct.pack("<Q", 1 << 63) + bytes(9)]),
                   "truncated: key 0 has 9223372036854775808 more bytes at byte 32"),
    "a key of 64 KiB": (file([], [pair("k" * 65536, 0, b"\1")]),
                        "key 0 has a name of 65536 bytes, expected at most 65535"),
    "an empty key": (file([], [pair("", 0, b"\1")]), "key 0 is empty"),
    "NUL in a key": (file([], [pair("a\0b", 0, b"\1")]), "has a NUL character in its name"),
    "a key in Latin-1": (file([], [pair(b"\xe9", 0, b"\1")]), "has a name that is not UTF-8"),
    "repeated key": (file([], [pair("a", 0, b"\1")] * 2), "repeated key 'a'"),
    "type 13": (file([], [pair("a", 13, b"\1")]), "key 'a' has a value of unknown type 13"),
    "elements of type 13": (file([], [pair("a", 9, struct.pack("<IQ", 13, 0))]),
                            "key 'a' has a value of unknown type 13"),
    "a bool of 2": (file([], [pair("a", 7, b"\2")]), "key 'a' has a bool of 2, expected 0 or 1"),
    "a bool of 2 among others": (file([], [pair("a", 9, struct.pack("<IQ", 7, 3) + b"\0\1\2")]),
                                 "key 'a' has a bool of 2"),
    "a long string": (file([], [pair("a", 8, struct.pack("<Q", 1 << 40))]),
                      "truncated: key 'a' has 1099511627776 more bytes"),
    "a long array": (file([], [pair("a", 9, struct.pack("<IQ", 4, 1 << 62))]),
                     "key 'a' has an array of 4611686018427387904 elements, expected at most"),
    "a long array of strings": (file([], [pair("a", 9, struct.pack("<IQ", 8, 1 << 62))]),
                                "key 'a' has an array of 4611686018427387904 elements"),
    "arrays of arrays": (file([], [pair("a", 9, DEEP)]), "key 'a' has arrays nested deeper than 8"),
    "half a number": (file([], [pair("a", 12, b"1234")], alignment=1),
                      "truncated: key 'a' has 8 more bytes"),
    "an alignment of 0": (file([], [pair("general.alignment", 4, bytes(4))]),
                          "key 'general.alignment' is 0, expected a power of two"),
    "an alignment of 24": (file([], [pair("general.alignment", 4, struct.pack("<I", 24))]),
                           "key 'general.alignment' is 24, expected a power of two"),
    "an alignment of 2^63": (file([], [pair("general.alignment", 10, struct.pack("<Q", 1 << 63))]),
                             "'general.alignment' has an integer that exceeds 2^63-1"),
    "an alignment that is text": (file([], [pair("general.alignment", 8, text("32"))]),
                                  "key 'general.alignment' is string, expected an integer"),
    # Tensors.
    "rank 5": (file([entry("w", [1] * 5, 0, 0)], data=bytes(4)),
               "tensor 'w' has rank 5, expected at most 4"),
    "an extent of 2^63": (file([entry("w", [1 << 63], 0, 0)]),
                          "tensor 'w' has an extent of 9223372036854775808, expected at most"),
    "extents that overflow": (file([entry("w", [1 << 62, 4], 0, 0)]), "of type f32[4, "
                              "4611686018427387904] has an impossible size"),
    "blocks that overflow": (file([entry("w", [1 << 62], Type.Q8_0, 0)]),
                             "of type q8_0[4611686018427387904] has an impossible size"),
    "half a block": (file([entry("w", [48, 2], Type.Q8_0, 0)], data=bytes(999)),
                     "tensor 'w' of type q8_0[2, 48] has 48 elements a row, expected a multiple of "
                     "32"),
    "an eighth of a block": (file([entry("w", [32, 2], Type.Q4_K, 0)], data=bytes(999)),
                             "of type q4_K[2, 32] has 32 elements a row, expected a multiple of "
                             "256"),
    "a scalar of blocks": (file([entry("w", [], Type.Q4_0, 0)], data=bytes(999)),
                           "of type q4_0[] has 1 elements a row"),
    "an old type": (file([entry("w", [32], 4, 0)], data=bytes(99)),
                    "tensor 'w' has type q4_2 (4), which is not supported"),
    "a packed type": (file([entry("w", [32], 31, 0)], data=bytes(99)),
                      "tensor 'w' has type q4_0_4_4 (31), which is not supported"),
    "type 77": (file([entry("w", [32], 77, 0)], data=bytes(99)),
                "tensor 'w' has unknown type 77"),
    "beyond the end": (file([W], data=bytes(67)),
                       "tensor 'w' of type q8_0[2, 32] has 68 bytes at byte 0 of the data, "
                       "expected a range within 67 bytes"),
    "far beyond the end": (file([entry("w", [1], 0, (1 << 64) - 32)], data=bytes(4)),
                           "at byte 18446744073709551584 of the data"),
    "between the places": (file([entry("w", [1], 0, 4)], data=bytes(99)),
                           "tensor 'w' starts at byte 4 of the data, expected a multiple of 32"),
    "no data": (file([W]), "expected a range within 0 bytes"),
    "overlap": (file([W, entry("v", [9], 0, 64)], data=bytes(200)),
                "tensor 'v' starts at byte 64 of the data, expected no less than 68, where 'w' "
                "ends"),
    "repeated tensor": (file([W, W], data=bytes(68)), "repeated tensor 'w'"),
    "NUL in a name": (file([entry("w\0", [1], 0, 0)], data=bytes(4)),
                      "tensor 0, 'w?', has a NUL character in its name"),
    "a name in Latin-1": (file([entry(b"\xe9", [1], 0, 0)], data=bytes(4)),
                          "has a name that is not UTF-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_file(name, tmp_path):
    content, message = FILES[name]
    (tmp_path / "w.gguf").write_bytes(content)
    with pytest.raises(moe.MoEError) as caught:
        moe.Checkpoint(tmp_path / "w.gguf")
    assert message in caught.value.message
    assert caught.value.code == moe.DATA_LOSS


def test_what_is_not_damaged(tmp_path):
    path = tmp_path / "w.gguf"
    for content, names in [
            (GOOD, ("w",)), (file(version=2), ()), (file([W], data=bytes(99), version=2), ("w",)),
            # Nothing in it needs no place, and a file may have gaps.
            (file([entry("none", [0, 5], 0, 0)])[:-9], ("none",)),
            (file([W, entry("v", [9], 0, 4096)], data=bytes(4132)), ("v", "w")),
            (file([], [pair("a", 9, struct.pack("<IQ", 9, 2) + 2 * struct.pack("<IQ", 1, 0))]), ()),
    ]:
        path.write_bytes(content)
        checkpoint = moe.Checkpoint(path)
        assert checkpoint.names == names
        for name in names:
            assert len(checkpoint[name].data.tobytes()) == checkpoint[name].data.size
        del checkpoint


def test_every_truncation(tmp_path):
    path = tmp_path / "w.gguf"
    for size in range(len(GOOD)):
        path.write_bytes(GOOD[:size])
        with pytest.raises(moe.MoEError):
            moe.Checkpoint(path)


def test_random_bytes_crash_nothing(tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "good.gguf", {
        "w": (np.zeros((2, 3, 34), np.uint8), Type.Q8_0), "v": np.ones((3, 5), np.float32)},
        {"string": ("s", "text"), "array": ("a", [1, 2, 3]), "bool": ("b", True)})
    good = path.read_bytes()
    header = good.index(b"\0" * 40)
    opened = 0
    for _ in range(600):
        content = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(4, header)] = rng.integers(0, 256)
        path.write_bytes(content[:rng.integers(0, len(good))] if rng.random() < 0.2 else content)
        try:
            checkpoint = moe.Checkpoint(path)
        except moe.MoEError as error:
            assert error.code == moe.DATA_LOSS
            continue
        opened += 1
        for name in checkpoint.names:
            checkpoint[name].data.sum()
        del checkpoint
    assert opened
