"""Grouped matmuls of weights that stay quantised in panels, against float64 products of the
weights that moe.formats decodes; for every level of x86-64 that runs here."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from moe.formats import GGUF, Bits, Field, Format
from moe_testing import data

pytestmark = pytest.mark.usefixtures("compiled")

LEVELS = ["x86-64-v2", "x86-64-v3", "x86-64-v4", "host"]
# Products of K terms in f32; in bf16 and f16 the result is rounded once.
TOLERANCE = {"f32": 2e-6, "bf16": 2.0**-8, "f16": 2.0**-11}

MXFP4 = Format(Field("f4E2M1FN", bits=(Bits(4),)),
               scales=(Field("f8E8M0FNU", operand=1, block=(1, 32)),))
INT4 = Format(Field("ui4", bits=(Bits(4),)), offset=8,
              scales=(Field("bf16", operand=1, block=(1, 32)),))
SIGNED = Format(Field("si4", bits=(Bits(4, run=4),)),
                scales=(Field("f32", operand=1, block=(1, 64)),))
NF4 = Format(Field("ui4", bits=(Bits(4),)),
             table=(-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796,
                    0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1.0),
             scales=(Field("f16", operand=1, block=(1, 128)),))
ZERO = Format(Field("ui4", bits=(Bits(4),)),
              scales=(Field("bf16", operand=1, block=(1, 32)),),
              zero=Field("ui4", operand=2, block=(1, 32), bits=(Bits(4),)))
ZERO_OF_ROWS = Format(Field("ui8"), scales=(Field("f16", operand=1, block=(1, 32)),),
                      zero=Field("ui4", operand=2, block=(1, 32), bits=(Bits(4),), axis=0))
OF_ROWS = Format(Field("si8"), scales=(Field("f32", operand=1, block=(1, 1 << 20)),))
BYTES = Format(Field("ui8"), offset=128, scales=(Field("f16", operand=1, block=(1, 64)),))
F4_MIN = Format(Field("f4E2M1FN", bits=(Bits(4),)),
                scales=(Field("f16", operand=1, block=(1, 32)),),
                mins=(Field("f16", operand=2, block=(1, 32)),))
FP8_MIN = Format(Field("f8E4M3FN"), scales=(Field("f32", operand=1, block=(1, 32)),),
                 mins=(Field("f32", operand=2, block=(1, 64)),))
FP8_ALL = Format(Field("f8E4M3FN"), scales=(Field("f32", operand=1, block=(1 << 20, 1 << 20)),))
FP8 = Format(Field("f8E4M3FN"), scales=(Field("f32", operand=1, block=(128, 128)),))
OFFSET = Format(Field("ui8"), offset=100, scales=(Field("f32", operand=1, block=(1, 32)),))


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    form: Format
    k: int
    n: int
    rows: str = "f32"
    matmuls: int = 1
    interleaved: bool = False
    experts: int = 3
    packs: bool = True  # the weights stay quantised
    dots: bool = True  # also where there are dot products of bf16, but no tables of bytes

    @property
    def int8(self) -> bool:
        """Rows can be integers: they have whole groups, and codes are small integers."""
        return (self.packs and self.k % 32 == 0 and self.form.table is None
                and self.form.codes.element != "f8E4M3FN"
                and (self.form.codes.element != "ui8" or self.form.offset == 128))

    def is_packed(self, level: str, activations: str) -> bool:
        """The weights stay quantised; otherwise they are rounded where they are decoded."""
        if level == "x86-64-v2" or not self.packs:
            return False
        flags = data.processor_flags() if level == "host" else ()
        has_dots = "avx512_bf16" in flags and "avx512vbmi" not in flags
        return self.dots or not has_dots or activations == "int8" and self.int8

    def fields(self, r: np.random.Generator) -> list[np.ndarray]:
        """Random tensors of one operand of weights."""
        n = 2 * self.n if self.interleaved else self.n
        leading = (self.experts, n)
        if self.form.record is not None:
            raw = r.integers(0, 256, (*leading, self.form.row_bytes(self.k)), np.uint8)
            records = raw.reshape(*leading, -1, self.form.record[1])
            for field in (*self.form.scales, *self.form.mins):
                if field.element == "f16":
                    byte = field.bits[0].byte
                    scale = (0.01 + 0.02 * r.random(records.shape[:3])).astype(np.float16)
                    records[..., byte:byte + 2] = scale[..., None].view(np.uint8)
            return [raw]
        columns = self.k if not self.form.codes.bits else self.code_bytes
        operands = {0: r.integers(0, 256, (*leading, columns), np.uint8)}
        if self.form.codes.element == "f8E4M3FN":
            operands[0][operands[0] & 127 == 127] = 0  # no NaN
        others = [f for f in (*self.form.scales, *self.form.mins, self.form.zero) if f]
        for field in others:
            rows, columns = (-(-extent // block) for extent, block in zip((n, self.k), field.block))
            if field.bits:
                rows, columns = ((rows, -(-columns // 2)) if field.axis else
                                 (-(-rows // 2), columns))
            shape = (self.experts, rows, columns)
            if field.element == "f8E8M0FNU":
                operands[field.operand] = r.integers(118, 124, shape, np.uint8)
            elif field.element[:2] in ("ui", "si"):
                operands[field.operand] = r.integers(0, 256, shape, np.uint8)
            else:
                operands[field.operand] = (0.01 + 0.02 * r.random(shape)).astype(
                    data.numpy_type(field.element))
        return [operands[i] for i in sorted(operands)]

    @property
    def code_bytes(self) -> int:
        bits = self.form.codes.bits[0]
        per = 2 * bits.run
        return (self.k - 1) // per * bits.run + min((self.k - 1) % per + 1, bits.run)

    def text(self, activations: str = "exact") -> str:
        lists = [self.fields(np.random.default_rng(0))
                 for _ in range(1 if self.interleaved else self.matmuls)]
        stored = 2 * self.n if self.interleaved else self.n
        decoded = f"tensor<{self.experts}x{stored}x{self.k}x{self.rows}>"
        of_one = f"tensor<{self.experts}x{self.n}x{self.k}x{self.rows}>"
        declared, body, weights = [], [], []
        for i, fields in enumerate(lists):
            names = [f"%w{i}_{j}" for j in range(len(fields))]
            types = ["tensor<" + "x".join(map(str, f.shape)) + "x"
                     + {"uint8": "i8", "float16": "f16", "float32": "f32",
                        "bfloat16": "bf16"}[f.dtype.name] + ">" for f in fields]
            declared += [f'{n}: {t} {{moe.role = "weight", moe.name = "{n[1:]}"}}'
                         for n, t in zip(names, types)]
            body.append(f"  %d{i} = moe.dequantize {', '.join(names)} "
                        f"format({str(self.form).removeprefix('#moe.format')}) : "
                        f"{', '.join(types)} -> {decoded}")
            weights.append(f"%d{i}")
        if self.interleaved:
            for i in range(2):
                body.append(f"  %s{i} = tensor.extract_slice %d0[0, {i}, 0] "
                            f"[{self.experts}, {self.n}, {self.k}] [1, 2, 1] : {decoded} to "
                            f"{of_one}")
            weights = ["%s0", "%s1"]
        accumulators = ", ".join(f"%a{i}: f32" for i in range(len(weights)))
        value = "%a0"
        epilogue = []
        if len(weights) == 2:
            epilogue.append("    %p = arith.mulf %a0, %a1 : f32")
            value = "%p"
        if self.rows != "f32":
            epilogue.append(f"    %r = arith.truncf {value} : f32 to {self.rows}")
            value = "%r"
        out = f"tensor<?x{self.n}x{self.rows}>"
        return "\n".join([
            f"func.func @layer(%x: tensor<?x{self.k}x{self.rows}> "
            '{moe.role = "input", moe.name = "x"},',
            f"    %o: tensor<{self.experts + 1}xi32> "
            '{moe.role = "input", moe.name = "o"},',
            "    " + ",\n    ".join(declared) + f') -> ({out} {{moe.name = "y"}}) '
            f'attributes {{moe.activations = "{activations}"}} {{',
            "  %c0 = arith.constant 0 : index",
            f"  %t = tensor.dim %x, %c0 : tensor<?x{self.k}x{self.rows}>",
            f"  %init = tensor.empty(%t) : {out}", *body,
            f"  %y = moe.grouped_matmul %x offsets(%o : tensor<{self.experts + 1}xi32>) "
            f"weights({', '.join(weights)} : {', '.join([of_one] * len(weights))}) transposed "
            f"outs(%init : {out}) {{", f"  ^bb0({accumulators}):", *epilogue,
            f"    moe.yield {value} : {self.rows}",
            f"  }} : tensor<?x{self.k}x{self.rows}> -> {out}", f"  return %y : {out}", "}"])

    def decoded(self, lists: list[list[np.ndarray]], level: str,
                activations: str = "exact") -> list[np.ndarray]:
        """The weights of each matmul."""
        stored = 2 * self.n if self.interleaved else self.n
        made = [self.form.decode(fields, (self.experts, stored, self.k)) for fields in lists]
        if not self.is_packed(level, activations):
            made = [w.astype(data.numpy_type(self.rows)) for w in made]
        made = [w.astype(np.float64) for w in made]
        return [made[0][:, 0::2], made[0][:, 1::2]] if self.interleaved else made


CASES = [
    Case("mxfp4", MXFP4, 64, 96), Case("mxfp4_bf16", MXFP4, 160, 72, "bf16"),
    Case("mxfp4_interleaved", MXFP4, 96, 40, "bf16", 2, interleaved=True),
    Case("int4", INT4, 128, 33), Case("int4_two", INT4, 96, 130, "bf16", 2),
    Case("int4_f16", INT4, 64, 17, "f16"),
    # The last group has 8, 16 and 40 elements of 32 and 64.
    Case("partial_groups", INT4, 40, 24), Case("partial_bf16", INT4, 80, 24, "bf16"),
    Case("signed_groups_of_64", SIGNED, 104, 50), Case("signed_bf16", SIGNED, 192, 64, "bf16"),
    Case("table", NF4, 256, 48), Case("table_one_group", NF4, 96, 20),
    # Values that bf16 has not, so no dot products of bf16.
    Case("table_bf16", NF4, 128, 40, "bf16"),
    Case("q4_0", GGUF["q4_0"], 256, 100), Case("q4_0_two", GGUF["q4_0"], 64, 30, "f32", 2),
    Case("one_column", MXFP4, 32, 1, "bf16"),
    Case("zero_points", ZERO, 96, 40), Case("zero_points_bf16", ZERO, 128, 70, "bf16", 2),
    Case("zero_points_of_rows", ZERO_OF_ROWS, 96, 21),
    Case("q8_0", GGUF["q8_0"], 128, 50), Case("q8_0_bf16", GGUF["q8_0"], 96, 33, "bf16", 2,
                                              dots=False),
    Case("int8_of_rows", OF_ROWS, 160, 40), Case("int8_of_rows_bf16", OF_ROWS, 64, 40, "bf16",
                                                 dots=False),
    Case("unsigned_bytes", BYTES, 192, 24), Case("unsigned_bytes_f16", BYTES, 104, 24, "f16"),
    Case("q4_K", GGUF["q4_K"], 256, 70), Case("q4_K_bf16", GGUF["q4_K"], 512, 40, "bf16", 2),
    Case("q6_K", GGUF["q6_K"], 512, 70), Case("q6_K_bf16", GGUF["q6_K"], 256, 40, "bf16", 2),
    Case("q6_K_f16", GGUF["q6_K"], 256, 20, "f16"),
    Case("fp8_blocks", FP8, 320, 200), Case("fp8_bf16", FP8, 160, 40, "bf16", 2, dots=False),
    Case("fp8_f16", FP8, 128, 140, "f16"),
    Case("fp8_one_column", FP8, 128, 1, "bf16", dots=False),
    Case("bytes_bf16", BYTES, 128, 72, "bf16", 2, dots=False),
    Case("offset", OFFSET, 96, 40), Case("offset_bf16", OFFSET, 64, 40, "bf16", dots=False),
    Case("f4_minima", F4_MIN, 96, 40), Case("f4_minima_bf16", F4_MIN, 64, 40, "bf16"),
    Case("fp8_minima", FP8_MIN, 128, 40),
    Case("fp8_of_tensors", FP8_ALL, 96, 36, "f32", 2, interleaved=True),
    # Decoded first: no whole steps.
    Case("odd_k", INT4, 44, 16, packs=False), Case("odd_k_of_bytes", OF_ROWS, 44, 16, packs=False),
]


@functools.cache
def module(case: Case, level: str, activations: str = "exact"):
    import moe

    return moe.compile(case.text(activations), target=level)


def tensors(case: Case) -> list[list[np.ndarray]]:
    r = data.rng(case.name)
    return [case.fields(r) for _ in range(1 if case.interleaved else case.matmuls)]


def run(case: Case, level: str, x: np.ndarray, offsets: np.ndarray, lists,
        activations: str = "exact") -> np.ndarray:
    signed = {f"w{i}_{j}": f.view(np.int8) if f.dtype == np.uint8 else f
              for i, fields in enumerate(lists) for j, f in enumerate(fields)}
    y = np.zeros((len(x), case.n), x.dtype)
    module(case, level, activations).layer(signed)(x, offsets, out=y)
    return y


def rows_of(case: Case, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Random rows, and offsets with an empty expert and one with most of the rows."""
    x = data.rng(case.name, count).standard_normal((count, case.k)).astype(np.float32)
    first = min(count, 1 + count // 8)
    return (x.astype(data.numpy_type(case.rows)),
            np.array([0, first, first, count][:case.experts + 1], np.int32))


def rounded(x: np.ndarray) -> np.ndarray:
    """The rows that moe.quantize_rows stands for, as its documentation defines them."""
    groups = x.astype(np.float32).reshape(len(x), -1, 32)
    most = np.abs(groups).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.where(most < 2.0**-119, np.float32(0), np.float32(127) / most)
    scale = np.where(most < 2.0**-119, np.float32(0), most / np.float32(127))
    integers = np.rint(groups.astype(np.float64) * factor)
    return (integers * scale.astype(np.float64)).reshape(x.shape)


def products(case: Case, x: np.ndarray, offsets: np.ndarray, decoded) -> np.ndarray:
    """The layer in float64."""
    y = np.zeros((len(x), case.n))
    for e in range(case.experts):
        part = x[offsets[e]:offsets[e + 1]].astype(np.float64)
        y[offsets[e]:offsets[e + 1]] = np.prod([part @ w[e].T for w in decoded], axis=0)
    return y


def relative(y: np.ndarray, expected: np.ndarray) -> float:
    return np.abs(y.astype(np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_numbers(case, level, record):
    data.skip_unless_runs(level)
    lists = tensors(case)
    decoded = case.decoded(lists, level)
    for count in (0, 1, 2, 3, 4, 5, 9, 40):
        x, offsets = rows_of(case, count)
        y = run(case, level, x, offsets, lists)
        if count:
            error = relative(y, products(case, x, offsets, decoded))
            record(f"{case.name} {level}", error)
            assert error < TOLERANCE[case.rows]


INTEGER_LEVELS = ["x86-64-v3", "x86-64-v4", "host"]
INTEGER_CASES = [case for case in CASES if case.int8]


@pytest.mark.parametrize("level", INTEGER_LEVELS)
@pytest.mark.parametrize("case", INTEGER_CASES, ids=lambda case: case.name)
def test_rows_of_integers(case, level, record):
    """The integers of a row times exact weights; all levels compute the same bits."""
    data.skip_unless_runs(level)
    lists = tensors(case)
    decoded = case.decoded(lists, level, "int8")
    for count in (0, 1, 2, 3, 4, 5, 9, 40):
        x, offsets = rows_of(case, count)
        y = run(case, level, x, offsets, lists, "int8")
        assert y.tobytes() == run(case, INTEGER_LEVELS[0], x, offsets, lists, "int8").tobytes()
        if count:
            error = relative(y, products(case, rounded(x), offsets, decoded))
            record(f"{case.name} {level}", error)
            assert error < TOLERANCE[case.rows]
            if y.size > 100:
                assert relative(y, products(case, x, offsets, decoded)) < 0.02


@pytest.mark.parametrize("level", INTEGER_LEVELS)
def test_rows_that_round_badly(level):
    """Zeros, the largest and the smallest numbers; integers of 127 in every position."""
    data.skip_unless_runs(level)
    for case in INTEGER_CASES:
        lists = tensors(case)
        kind = data.numpy_type(case.rows)
        largest = np.float32(6e4 if case.rows == "f16" else 1e30)
        x = np.stack([np.zeros(case.k), np.full(case.k, largest), np.full(case.k, -largest),
                      np.full(case.k, 1e-40), np.full(case.k, 1e-6),
                      np.where(np.arange(case.k) % 32 == 5, 1.0, 1e-9)]).astype(kind)
        offsets = np.array([0, 2, 4, 6], np.int32)
        with np.errstate(over="ignore"):
            given = case.decoded(lists, level, "int8")
            expected = products(case, rounded(x), offsets, given).astype(
                kind).astype(np.float64)
        y = run(case, level, x, offsets, lists, "int8").astype(np.float64)
        for row in range(len(x)):
            if np.isfinite(expected[row]).all():
                limit = 2 * TOLERANCE[case.rows] * np.abs(expected[row]).max() + 1e-30
                np.testing.assert_allclose(y[row], expected[row], rtol=0, atol=limit)


@pytest.mark.parametrize("level", INTEGER_LEVELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_no_numbers(level, bad):
    """No result of such a row is finite, and the other rows do not change."""
    data.skip_unless_runs(level)
    case = INTEGER_CASES[0]
    lists = tensors(case)
    x, offsets = rows_of(case, 9)
    good = run(case, level, x, offsets, lists, "int8")
    x[4, 40] = bad
    y = run(case, level, x, offsets, lists, "int8")
    assert not np.isfinite(y[4]).any()
    assert np.delete(y, 4, 0).tobytes() == np.delete(good, 4, 0).tobytes()


LONG = [Case("long_int4", INT4, 544, 40, "bf16"), Case("long_q4_K", GGUF["q4_K"], 768, 40),
        Case("long_fp8", FP8, 648, 40, "bf16"), Case("long_rows", OF_ROWS, 600, 40, "f16"),
        Case("long_bytes", BYTES, 584, 40, "bf16"),
        Case("long_q6_K", GGUF["q6_K"], 512, 40, "bf16")]


SUBTRACTED = [(case, level) for case in [*CASES, *LONG] for name, *levels in (
    ("zero_points_bf16", "x86-64-v3", "host"), ("q4_K", "x86-64-v4"), ("f4_minima", "x86-64-v3"),
    ("long_q4_K", "x86-64-v3", "host"), ("fp8_minima", "host"), ("q6_K_bf16", "host"),
    ("bytes_bf16", "host")) for level in levels if case.name == name]


@pytest.mark.parametrize("case, level", SUBTRACTED,
                         ids=lambda value: getattr(value, "name", value))
def test_infinities_in_rows(case, level):
    """What is subtracted from a weight does not make the product with an infinity NaN."""
    data.skip_unless_runs(level)
    lists = tensors(case)
    decoded = case.decoded(lists, level)
    for count in (9, 60):
        x, offsets = rows_of(case, count)
        good = run(case, level, x, offsets, lists)
        x[3, 5], x[4, case.k - 1], x[7, [0, 40]] = np.inf, -np.inf, np.inf
        x[8, 9] = np.nan
        with np.errstate(invalid="ignore"):
            expected = products(case, x, offsets, decoded)
        y = run(case, level, x, offsets, lists)
        assert np.isinf(expected[[3, 4, 7]]).any() and np.isnan(expected[8]).all()
        bad = [3, 4, 7, 8]
        np.testing.assert_array_equal(y[bad].astype(np.float64), expected[bad])
        assert np.delete(y, bad, 0).tobytes() == np.delete(good, bad, 0).tobytes()


@pytest.mark.parametrize("case, level", [
    *((case, "x86-64-v3") for case in [*CASES, *LONG]),
    *((case, "host") for case in [*CASES[:5], *LONG])],
    ids=lambda value: getattr(value, "name", value))
def test_bits_do_not_depend_on_the_rows(case, level):
    """Tasks of many rows decode weights in blocks of k, others where they are multiplied."""
    data.skip_unless_runs(level)
    lists = tensors(case)
    x, offsets = rows_of(case, 240)
    whole = run(case, level, x, offsets, lists)
    for row in (0, 30, 31, 77, 239):
        e = int(np.searchsorted(offsets, row, side="right")) - 1
        for count in (1, 15, 16):
            some = np.zeros(case.experts + 1, np.int32)
            some[e + 1:] = min(count, offsets[e + 1] - row)
            part = run(case, level, x[row:row + some[-1]], some, lists)
            assert part.tobytes() == whole[row:row + some[-1]].tobytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_kept(case):
    """Packed weights take hardly more than those of the file where kernels read them."""
    data.skip_unless_runs("x86-64-v3")
    signature = module(case, "x86-64-v3").metadata["variants"][0]["functions"][0]["arguments"]
    prepared = next(a for a in signature if a["role"] == "prepared")
    assert (prepared["dtype"] == "i8") == case.packs


@pytest.mark.parametrize("form", [MXFP4, INT4, SIGNED, BYTES, FP8, *GGUF.values()], ids=str)
def test_bytes_of_packed_weights(form):
    """At most 5 % more than those of the file, where columns fill panels."""
    data.skip_unless_runs("x86-64-v3")
    case = Case("bytes", form, 512, 128)
    signature = module(case, "x86-64-v3").metadata["variants"][0]["functions"][0]["arguments"]
    prepared = next(a for a in signature if a["role"] == "prepared")
    stored = sum(field.nbytes for field in tensors(case)[0])
    assert prepared["dtype"] == "i8" and np.prod(prepared["shape"]) <= 1.05 * stored


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rows", ["f32", "bf16"])
@pytest.mark.parametrize("form", [FP8, OF_ROWS, BYTES, OFFSET], ids=str)
def test_every_code_of_8_bits(form, rows, level):
    """In each position of a step; NaN stays in its column."""
    data.skip_unless_runs(level)
    case = Case("codes", form, 32, 256, rows, experts=1)
    codes = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 32, axis=2)
    scales = case.fields(data.rng("codes"))[1]
    scales[:] = 1
    x = np.eye(32, dtype=np.float32)[:8].astype(data.numpy_type(rows))
    y = run(case, level, x, np.array([0, 8], np.int32), [[codes, scales]])
    expected = form.decode([codes, scales], (1, 256, 32))[0, :, :8].T
    np.testing.assert_array_equal(y.astype(np.float32), expected)


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_scales_that_are_no_numbers(level):
    """An exponent of 255 is NaN, one of 0 the smallest power of two."""
    data.skip_unless_runs(level)
    case = CASES[0]
    lists = tensors(case)
    lists[0][1][:] = 0
    lists[0][1][1, 5, 1] = 255
    x, _ = rows_of(case, 2)
    y = run(case, level, x, np.array([0, 1, 2, 2], np.int32), lists)
    assert np.isnan(y[1, 5]) and np.isnan(y).sum() == 1
    expected = x[0].astype(np.float64) @ case.decoded(lists, level)[0][0].T
    np.testing.assert_allclose(y[0], expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("level", ["x86-64-v3", "host"])
def test_scales_near_the_largest_number(level):
    """Zeros times a scale of 2^122 stay zeros for any number of rows."""
    data.skip_unless_runs(level)
    case = Case("largest_scales", FP8, 128, 16, "bf16", experts=1)
    codes, scales = case.fields(data.rng("largest"))
    codes[:] = 0
    scales[:] = 2.0**122
    for count in (1, 40, 60):
        x, _ = rows_of(case, count)
        assert not run(case, level, x, np.array([0, count], np.int32), [[codes, scales]]).any()
