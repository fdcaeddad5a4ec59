"""moe.dequantize against moe.formats, and moe.formats against the libraries of the formats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from moe.formats import GGUF, Bits, Field, Format
from moe_testing import data


def mlir_type(array: np.ndarray) -> str:
    names = {"uint8": "i8", "int8": "i8", "int16": "i16", "uint16": "i16", "int32": "i32",
             "uint32": "i32", "float16": "f16", "float32": "f32", "bfloat16": "bf16",
             "float8_e4m3fn": "f8E4M3FN", "float8_e5m2": "f8E5M2",
             "float8_e8m0fnu": "f8E8M0FNU"}
    return names[array.dtype.name]


def tensor(shape, element: str) -> str:
    return "tensor<" + "".join(f"{n}x" for n in shape) + element + ">"


def decode(moe, form: Format, arrays: list[np.ndarray], rows: int, columns: int,
           element: str = "f32") -> np.ndarray:
    """What the compiled operation makes of the tensors; they may have a leading dimension."""
    leading = arrays[0].shape[:1] if arrays[0].ndim > 2 else ()
    types = [tensor(array.shape, mlir_type(array)) for array in arrays]
    names = [f"%f{i}" for i in range(len(arrays))]
    declared = ", ".join(f'{n}: {t} {{moe.role = "input", moe.name = "f{i}"}}'
                         for i, (n, t) in enumerate(zip(names, types)))
    result = tensor((*leading, rows, columns), element)
    text = f"""func.func @layer({declared}) -> ({result} {{moe.name = "w"}}) {{
  %w = moe.dequantize {', '.join(names)} format({str(form).removeprefix('#moe.format')})
    : {', '.join(types)} -> {result}
  return %w : {result}
}}
"""
    signed = {1: np.int8, 2: np.int16, 4: np.int32}
    given = [a.view(signed[a.itemsize]) if a.dtype.kind == "u" else a for a in arrays]
    out = np.zeros((*leading, rows, columns), data.numpy_type(element))
    moe.compile(text).layer({})(*given, out=out)
    return out


def same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equal bit for bit, but for the bits of a NaN."""
    a, b = ours.astype(np.float32), theirs.astype(np.float32)
    np.testing.assert_array_equal(np.where(np.isnan(a), 0, a.view(np.int32)),
                                  np.where(np.isnan(b), 0, b.view(np.int32)))


# --------------------------------------------------------------------------
# GGUF
# --------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(GGUF))
def test_gguf(compiled, name):
    """Random bytes: scales are NaN, infinite and subnormal, too."""
    gguf = pytest.importorskip("gguf")
    kind = getattr(gguf.GGMLQuantizationType, name.upper())
    form, columns = GGUF[name], 3 * GGUF[name].record[0]
    raw = data.rng(name).integers(0, 256, (2, 9, form.row_bytes(columns)), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = gguf.quants.dequantize(raw, kind)
    if name == "mxfp4":  # an exponent of 255 is NaN by the specification of OCP; gguf goes on
        exponents = raw.reshape(2, 9, -1, 17)[..., :1]
        theirs = np.where(np.repeat(exponents, 32, -1).reshape(theirs.shape) == 255, np.nan,
                          theirs)
    # Adding 0 makes -0 +0: the codes of gguf's MXFP4 are integers.
    theirs = theirs + np.float32(0)
    same(form.decode([raw], (2, 9, columns)) + np.float32(0), theirs)
    same(decode(compiled, form, [raw], 9, columns) + np.float32(0), theirs)


@pytest.mark.parametrize("name", list(GGUF))
def test_gguf_rounds_to_16_bits(compiled, name):
    form, columns = GGUF[name], GGUF[name].record[0]
    r = data.rng(name, "rounds")
    raw = r.integers(0, 256, (5, form.row_bytes(columns)), dtype=np.uint8)
    for element in ("bf16", "f16"):
        with np.errstate(all="ignore"):
            expected = form.decode([raw], (5, columns)).astype(data.numpy_type(element))
        same(decode(compiled, form, [raw], 5, columns, element), expected)


# --------------------------------------------------------------------------
# All codes
# --------------------------------------------------------------------------


@pytest.mark.parametrize("element", ["f8E4M3FN", "f8E5M2", "f8E8M0FNU", "si8", "ui8"])
def test_all_codes_of_8_bits(compiled, element):
    import ml_dtypes

    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    form = Format(Field(element))
    meaning = {"f8E4M3FN": ml_dtypes.float8_e4m3fn, "f8E5M2": ml_dtypes.float8_e5m2,
               "f8E8M0FNU": ml_dtypes.float8_e8m0fnu, "si8": np.int8, "ui8": np.uint8}[element]
    expected = codes.view(meaning).astype(np.float32)
    same(form.decode([codes], (16, 16)), expected)
    same(decode(compiled, form, [codes], 16, 16), expected)
    if element.startswith("f8"):
        same(decode(compiled, form, [codes.view(meaning)], 16, 16), expected)


def test_all_codes_of_f4(compiled):
    import ml_dtypes

    codes = np.arange(16, dtype=np.uint8)
    expected = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32).reshape(1, 16)
    form = Format(Field("f4E2M1FN", bits=(Bits(4),)))
    packed = (codes[0::2] | codes[1::2] << 4).reshape(1, 8)
    same(form.decode([packed], (1, 16)), expected)
    same(decode(compiled, form, [packed], 1, 16), expected)


def test_a_table(compiled):
    r = data.rng("table")
    form = Format(Field("ui4", bits=(Bits(4, run=4),)),
                  table=tuple(map(float, r.integers(-99, 99, 16))),
                  scales=(Field("f32", operand=1, block=(2, 3)),))
    arrays = [r.integers(0, 256, (5, 8), dtype=np.uint8),
              r.standard_normal((3, 6)).astype(np.float32)]
    expected = form.decode(arrays, (5, 16))
    assert np.unique(expected).size > 40
    same(decode(compiled, form, arrays, 5, 16), expected)


# --------------------------------------------------------------------------
# Random formats
# --------------------------------------------------------------------------


def random_field(r, element: str, width: int, rows: int, columns: int, operand: int,
                 leading: int) -> tuple[Field, np.ndarray]:
    """A field of its own tensor, packed or not, and random contents for it."""
    block = (int(r.choice([1, 1, 2, 5, rows])), int(r.choice([1, 3, 8, columns])))
    if operand == 0:
        block = (1, 1)
    count = -(-rows // block[0]), -(-columns // block[1])
    unpacked = np.dtype({8: np.uint8, 16: np.uint16, 32: np.int32}.get(width, np.uint8))
    if width in (8, 16, 32) and r.random() < 0.5:
        shape = (leading, *count)
        return Field(element, operand, block), r.integers(
            0, 256, (*shape, unpacked.itemsize), dtype=np.uint8).view(unpacked)[..., 0]
    if width == 6:
        bits = (Bits(4, byte=int(r.integers(3)), run=int(r.choice([1, 2, 16]))),
                Bits(2, byte=40, run=int(r.choice([1, 4])), shift=4))
    elif width < 8:
        bits = (Bits(width, byte=int(r.integers(3)), run=int(r.choice([1, 2, 8, 32]))),)
    else:
        bits = (Bits(width, byte=int(r.integers(3))),)
    axis = 0 if operand and r.random() < 0.3 else 1
    packed, others = (count[0], count[1]) if axis == 0 else (count[1], count[0])

    def end(b: Bits) -> int:
        if b.width >= 8:
            return b.byte + packed * b.width // 8
        per = 8 // b.width * b.run
        return b.byte + (packed - 1) // per * b.run + min((packed - 1) % per + 1, b.run)

    word = np.dtype(r.choice(["u1", "u2", "i4"]))
    words = -(-max(map(end, bits)) // word.itemsize)
    shape = (leading, words, others) if axis == 0 else (leading, others, words)
    contents = r.integers(0, 256, (*shape, word.itemsize), dtype=np.uint8).view(word)[..., 0]
    return Field(element, operand, block, bits, axis), contents


WIDTHS = {"ui2": 2, "ui4": 4, "si4": 4, "ui6": 6, "si8": 8, "ui8": 8, "f8E4M3FN": 8,
          "f8E8M0FNU": 8, "f16": 16, "bf16": 16, "f32": 32}


@pytest.mark.parametrize("seed", range(12))
def test_random_formats(compiled, seed):
    r = data.rng("formats", seed)
    rows, columns, leading = int(r.integers(1, 12)), int(r.integers(1, 40)), 2
    integers = [e for e in WIDTHS if e[1] == "i"]
    code = str(r.choice(integers if seed % 2 else list(WIDTHS)))
    field, contents = random_field(r, code, WIDTHS[code], rows, columns, 0, leading)
    arrays, lists = [contents], {"scales": [], "mins": []}
    for which in lists:
        for _ in range(int(r.integers(3))):
            element = str(r.choice(list(WIDTHS)))
            made, contents = random_field(r, element, WIDTHS[element], rows, columns, len(arrays),
                                          leading)
            lists[which].append(dataclasses.replace(made, divide=bool(r.random() < 0.3)))
            arrays.append(contents)
    form = Format(field, scales=tuple(lists["scales"]), mins=tuple(lists["mins"]))
    if code in integers:
        zero = str(r.choice(integers))
        made, contents = random_field(r, zero, WIDTHS[zero], rows, columns, len(arrays), leading)
        arrays.append(contents)
        form = dataclasses.replace(form, zero=made, offset=int(r.integers(-9, 9)))
    same(decode(compiled, form, arrays, rows, columns),
         form.decode(arrays, (leading, rows, columns)))
