"""Functions of one moe.grouped_matmul each, as an embedding compiler writes them: their MLIR
text, inputs for them and what numpy computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import data

PATHS = ["host", "x86-64-v4", "x86-64-v3", "x86-64", "reference"]
LHS_ROWS = 37  # where rows are gathered
erf = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True)
class Epilogue:
    """MLIR from the sums %s0, %s1, ... and the extras %x0, ... in f32 to %r, and the same in
    numpy (f64).  Functions of vectors may be off by `close` relative to the result, and by
    `of_largest` relative to the largest result where terms cancel."""

    sums: int
    text: str
    run: Callable[..., np.ndarray]
    close: float = 0.0
    of_largest: float = 0.0


def swiglu(g, u):
    with np.errstate(over="ignore"):
        return g / (1 + np.exp(-g)) * u


EPILOGUES = {
    "sum": Epilogue(1, "%r = arith.addf %s0, %zero : f32", lambda s: s),
    "product": Epilogue(2, "%r = arith.mulf %s0, %s1 : f32", lambda a, b: a * b),
    "gated": Epilogue(2, "%p = arith.mulf %s0, %s1 : f32\n    %r = arith.subf %p, %s0 : f32",
                      lambda a, b: a * b - a),
    "gated_biases": Epilogue(2, "%a = arith.addf %s0, %x0 : f32\n"
                                "    %b = arith.addf %s1, %x1 : f32\n"
                                "    %p = arith.mulf %a, %b : f32\n"
                                "    %r = arith.subf %p, %a : f32",
                             lambda a, b, x, y: (a + x) * (b + y) - (a + x)),
    "three": Epilogue(3, "%p = arith.mulf %s0, %s1 : f32\n    %r = arith.addf %p, %s2 : f32",
                      lambda a, b, c: a * b + c),
    "select": Epilogue(1, "%c = arith.cmpf ogt, %s0, %half : f32\n"
                          "    %m = arith.mulf %s0, %half : f32\n"
                          "    %r = arith.select %c, %s0, %m : f32",
                       lambda s: np.where(s > 0.5, s, s * 0.5)),
    "relu2": Epilogue(1, "%m = arith.maximumf %s0, %zero : f32\n    %r = arith.mulf %m, %m : f32",
                      lambda s: np.maximum(s, 0) ** 2),
    "swiglu": Epilogue(2, "%n = arith.negf %s0 : f32\n    %e = math.exp %n : f32\n"
                          "    %d = arith.addf %e, %one : f32\n    %q = arith.divf %s0, %d : f32\n"
                          "    %r = arith.mulf %q, %s1 : f32", swiglu, 4e-6),
    "gelu": Epilogue(1, "%a = arith.mulf %s0, %rsqrt2 : f32\n    %e = math.erf %a : f32\n"
                        "    %b = arith.addf %e, %one : f32\n    %h = arith.mulf %s0, %half : f32\n"
                        "    %r = arith.mulf %h, %b : f32",
                     lambda s: 0.5 * s * (1 + erf(s * math.sqrt(0.5))), 4e-6, 2e-6),
    "tanh": Epilogue(1, "%r = math.tanh %s0 : f32", np.tanh, 4e-6),
    "bias": Epilogue(1, "%r = arith.addf %s0, %x0 : f32", lambda s, x: s + x),
    "scale_and_bias": Epilogue(1, "%p = arith.mulf %s0, %x0 : f32\n"
                                  "    %r = arith.addf %p, %x1 : f32",
                               lambda s, x, y: s * x + y),
}

# From (e, r, n) to the dimensions of an operand, by the letters of its shape.
DIMS = {"e": "d0", "r": "d1", "n": "d2"}


@dataclass(frozen=True)
class Extra:
    """An operand: `dims` says what its dimensions are; "strided" slices every other column,
    from `first` on, from one that has twice as many."""

    dims: str
    element: str = "f32"
    strided: bool = False
    first: int = 1
    role: str = "input"

    def shape(self, case: Case, rows: int) -> tuple[int, ...]:
        extents = {"e": case.experts, "r": rows, "n": case.n}
        shape = [extents[d] for d in self.dims]
        if self.strided:
            shape[-1] *= 2
        return tuple(shape)

    def widen(self, source: str, target: str) -> str:
        if self.element == "f32":
            return f"{target} = arith.addf {source}, %zero : f32"
        op = {"bf16": "arith.extf", "f16": "arith.extf", "f64": "arith.truncf"}.get(
            self.element, "arith.sitofp")
        return f"{target} = {op} {source} : {self.element} to f32"


@dataclass(frozen=True)
class Case:
    name: str
    k: int
    n: int
    element: str = "f32"
    result: str = ""  # as element unless given
    experts: int = 3  # that there are weights for; 0 without offsets
    groups: int = 0  # of the offsets; as experts unless given
    first: int = 0
    gather: bool = False
    transposed: bool = False
    # Of one tensor of weights, the first column of each product, which has every other one.
    interleaved: tuple[int, ...] = ()
    role: str = "weight"
    init: str = "empty"  # or input
    epilogue: str = "sum"
    extras: tuple[Extra, ...] = field(default=())
    multicast: str = ""  # moe.multicast; that of the model unless given

    @property
    def out(self) -> str:
        return self.result or self.element

    @property
    def number(self) -> int:
        """Experts, or the one that all rows belong to."""
        return self.experts or 1

    @property
    def offsets(self) -> int:
        return (self.groups or self.experts) + 1 if self.experts else 0

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        return self._shape(2 * (self.n + min(self.interleaved)) if self.interleaved else self.n)

    def _shape(self, columns: int) -> tuple[int, int, int]:
        return (self.number, *((columns, self.k) if self.transposed else (self.k, columns)))

    @property
    def weight_names(self) -> list[str]:
        sums = range(EPILOGUES[self.epilogue].sums)
        return ["w"] if self.interleaved else [f"w{i}" for i in sums]

    def text(self) -> str:
        e, out = EPILOGUES[self.epilogue], tensor((-1, self.n), self.out)
        lhs = tensor((LHS_ROWS if self.gather else -1, self.k), self.element)
        declared = [("x", lhs, "input")]
        words = ["%x"]
        if self.gather:
            declared.append(("gather", "tensor<?xi32>", "input"))
            words.append("gather(%gather : tensor<?xi32>)")
        if self.experts:
            offsets = tensor((self.offsets,), "i32")
            declared.append(("offsets", offsets, "input"))
            words.append(f"offsets(%offsets : {offsets})")
        weights = [f"w{i}" for i in range(e.sums)]
        kind = tensor(self.weight_shape, self.element)
        declared += [(w, kind, self.role) for w in self.weight_names]
        before, extras, kinds, maps, arguments, body = [], [], [], [], [], []
        for w, first in zip(weights, self.interleaved):
            shape = self._shape(self.n)
            offset, step = (f"0, {first}, 0", "1, 2, 1") if self.transposed else (
                f"0, 0, {first}", "1, 1, 2")
            before.append(f"  %{w} = tensor.extract_slice %w[{offset}] {list(shape)} [{step}] : "
                          f"{kind} to {tensor(shape, self.element)}")
        kind = tensor(self._shape(self.n), self.element)
        words.append(f"weights({', '.join('%' + w for w in weights)} : "
                     f"{', '.join([kind] * e.sums)})" + " transposed" * self.transposed)
        if self.first or self.groups:
            words.append(f"first({self.first})")
        for i, extra in enumerate(self.extras):
            shape = extra.shape(self, -1)
            kind, name = tensor(shape, extra.element), f"extra{i}"
            declared.append((name, kind, extra.role))
            if extra.strided:
                shape = shape[:-1] + (self.n,)
                sizes = ", ".join("%t" if d < 0 else str(d) for d in shape)
                zeros, ones = "0, " * (len(shape) - 1), "1, " * (len(shape) - 1)
                before.append(f"  %slice{i} = tensor.extract_slice "
                              f"%{name}[{zeros}{extra.first}] [{sizes}] "
                              f"[{ones}2] : {kind} to {tensor(shape, extra.element)}")
                name, kind = f"slice{i}", tensor(shape, extra.element)
            extras.append(f"%{name}")
            kinds.append(kind)
            maps.append(f"affine_map<(d0, d1, d2) -> ({', '.join(DIMS[d] for d in extra.dims)})>")
            arguments.append(f"%v{i}: {extra.element}")
            body.append("    " + extra.widen(f"%v{i}", f"%x{i}"))
        if extras:
            words.append(f"operands({', '.join(extras)} : {', '.join(kinds)}) "
                         f"maps([{', '.join(maps)}])")
        if self.init == "input":
            declared.append(("init", out, "input"))
        else:
            before.append(f"  %init = tensor.empty(%t) : {out}")
        yielded = "%r"
        if self.out != "f32":
            yielded = "%rounded"
        sums = [f"%s{i}: f32" for i in range(e.sums)]
        rounding = ("" if self.out == "f32" else
                    f"\n    %rounded = arith.truncf %r : f32 to {self.out}")
        signature = ",\n    ".join(f'%{n}: {t} {{moe.name = "{n}", moe.role = "{r}"}}'
                                   for n, t, r in declared)
        attributes = f' {{moe.multicast = "{self.multicast}"}}' if self.multicast else ""
        source = "%gather : tensor<?xi32>" if self.gather else f"%x : {lhs}"
        value = source.split(" ")[0]
        extra_lines = "".join(line + "\n" for line in body)
        return f"""func.func @{self.name}(
    {signature}) -> {out} {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant -0.0 : f32
  %half = arith.constant 0.5 : f32
  %one = arith.constant 1.0 : f32
  %rsqrt2 = arith.constant 0.707106769 : f32
  %t = tensor.dim {value}, %c0 : {source.split(" : ")[1]}
{"".join(line + chr(10) for line in before)}  %y = moe.grouped_matmul {' '.join(words)}
      outs(%init : {out}) {{
  ^bb0({', '.join(sums + arguments)}):
{extra_lines}    {e.text}{rounding}
    moe.yield {yielded} : {self.out}
  }}{attributes} : {lhs} -> {out}
  return %y : {out}
}}
"""

    # -- arrays ----------------------------------------------------------------

    def weights(self, draw: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        draw = draw or grid
        r = data.rng("weights", self.name)
        made = {w: draw(r, self.weight_shape, self.element) for w in self.weight_names}
        for i, extra in enumerate(self.extras):
            if extra.role == "weight":
                made[f"extra{i}"] = grid(r, extra.shape(self, 0), extra.element)
        return made

    def inputs(self, rows: int, offsets: Any = None,
               draw: Callable[..., np.ndarray] | None = None) -> dict[str, np.ndarray]:
        draw = draw or grid
        r = data.rng("inputs", self.name, rows)
        made = {"x": draw(r, (LHS_ROWS if self.gather else rows, self.k), self.element)}
        if self.gather:  # a third of them are no rows
            made["gather"] = r.integers(-LHS_ROWS // 4, LHS_ROWS + LHS_ROWS // 4,
                                        rows).astype(np.int32)
        if self.experts:
            cuts = (np.sort(r.integers(0, rows + 1, self.offsets)) if offsets is None
                    else np.asarray(offsets))
            made["offsets"] = cuts.astype(np.int32)
        for i, extra in enumerate(self.extras):
            if extra.role == "input":
                made[f"extra{i}"] = grid(r, extra.shape(self, rows), extra.element)
        if self.init == "input":
            made["init"] = grid(r, (rows, self.n), self.out)
        return made

    def split(self, arrays: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
        """What is a weight of the function, and what an input."""
        roles = {w: self.role for w in self.weight_names}
        roles |= {f"extra{i}": extra.role for i, extra in enumerate(self.extras)}
        kept = {k: v for k, v in arrays.items() if roles.get(k) == "weight"}
        return kept, {k: v for k, v in arrays.items() if k not in kept}

    def expected(self, arrays: dict[str, np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
        """The result, rounded once, and how often each row is written: where that is 0
        the result has `init`, or nothing that is defined."""
        result = np.array(arrays["init"]) if self.init == "input" else np.zeros(
            (rows, self.n), data.numpy_type(self.out))
        written = np.zeros(rows, int)
        e = EPILOGUES[self.epilogue]
        for expert in range(self.number):
            bounds = (0, rows)
            if self.experts:
                place = self.first + expert
                bounds = np.clip(arrays["offsets"][place:place + 2], 0, rows)
            which = np.arange(*bounds)
            if not which.size:
                continue
            source = np.clip(arrays["gather"][which], 0, LHS_ROWS - 1) if self.gather else which
            x = arrays["x"][source].astype(np.float64)
            sums = []
            for i in range(e.sums):
                w = arrays["w" if self.interleaved else f"w{i}"][expert].astype(np.float64)
                w = w.T if self.transposed else w
                if self.interleaved:
                    first = self.interleaved[i]
                    w = w[:, first:first + 2 * self.n:2]
                sums.append(x @ w)
            values = [self.broadcast(extra, arrays[f"extra{i}"], expert, which)
                      for i, extra in enumerate(self.extras)]
            made = e.run(*sums, *values).astype(np.float32)
            result[which] = made.astype(result.dtype)
            written[which] += 1
        return result, written

    def broadcast(self, extra: Extra, value: np.ndarray, expert: int,
                  which: np.ndarray) -> np.ndarray:
        value = value.astype(np.float64)
        if extra.strided:
            value = value[..., extra.first::2]
        order = sorted(range(value.ndim), key=lambda i: "ern".index(extra.dims[i]))
        value = value.transpose(order)
        if "e" in extra.dims:
            value = value[expert]
        if "r" in extra.dims:
            value = value[which]
            if "n" not in extra.dims:
                value = value[:, None]
        return value


def tensor(shape, element):
    return "tensor<" + "".join("?x" if d < 0 else f"{d}x" for d in shape) + element + ">"


def grid(r: np.random.Generator, shape, element: str) -> np.ndarray:
    """Eighths between -1 and 1: every sum of products of them is exact in f32, whatever the
    order, and so results are equal or wrong."""
    values = r.integers(-8, 9, shape)
    if element.startswith("i"):
        return values.astype({"i8": np.int8, "i32": np.int32, "i64": np.int64}[element])
    kind = np.float64 if element == "f64" else data.numpy_type(element)
    return (values / 8).astype(np.float32).astype(kind)


def normal(r: np.random.Generator, shape, element: str) -> np.ndarray:
    return r.standard_normal(shape).astype(np.float32).astype(data.numpy_type(element))


def _sizes() -> list[Case]:
    """Columns and steps around vectors, panels and blocks."""
    made = []
    for element in ("f32", "bf16", "f16"):
        for k, n in ((1, 1), (2, 3), (3, 16), (5, 17), (16, 64), (33, 100), (64, 129), (7, 31)):
            for transposed in (False, True):
                suffix = "t" if transposed else ""
                made.append(Case(f"size_{element}_{k}x{n}{suffix}", k, n, element,
                                 transposed=transposed, experts=2))
    return made


def _long() -> list[Case]:
    """More steps than a block of the kernel has, with a rest."""
    return [Case(f"long_{element}_{k}x{n}{'t' * transposed}", k, n, element, experts=2,
                 transposed=transposed, role=role)
            for element, k, n, transposed, role in (
                ("f32", 2051, 65, False, "weight"), ("f32", 4099, 17, True, "weight"),
                ("bf16", 4099, 65, False, "weight"), ("bf16", 8195, 33, True, "input"),
                ("f16", 4101, 20, False, "input"), ("f32", 33001, 3, False, "weight"))]


CASES = [
    *_sizes(),
    *_long(),
    # without offsets
    Case("dense", 24, 40, experts=0), Case("dense_t", 24, 40, "bf16", experts=0, transposed=True),
    Case("dense_gather", 24, 40, "f16", experts=0, gather=True),
    # gathered, some experts, what is there already
    Case("gather", 24, 40, gather=True), Case("gather_bf16", 25, 40, "bf16", gather=True),
    Case("init", 24, 40, init="input"), Case("init_bf16", 9, 7, "bf16", init="input"),
    Case("part", 24, 40, groups=7, first=3, init="input"),
    Case("first_part", 24, 40, "bf16", groups=7, init="input"),
    Case("last_part", 24, 40, groups=7, first=4, gather=True, init="input"),
    Case("one_expert", 24, 40, experts=1), Case("many_experts", 5, 6, experts=100),
    # weights that are inputs
    Case("in_call", 24, 40, role="input"), Case("in_call_t", 31, 33, role="input", transposed=True),
    Case("in_call_bf16", 31, 70, "bf16", role="input"),
    Case("in_call_bf16_t", 31, 70, "bf16", role="input", transposed=True),
    Case("in_call_f16", 32, 64, "f16", role="input"),
    Case("in_call_two", 31, 33, role="input", epilogue="product", transposed=True),
    # other results than rows
    Case("widen", 24, 40, "bf16", "f32"), Case("narrow", 24, 40, "f32", "bf16"),
    Case("cross", 24, 40, "f16", "bf16"),
    # epilogues
    *[Case(f"epilogue_{name}_{element}_{n}{'t' * transposed}", 24, n, element, epilogue=name,
           transposed=transposed)
      for name in ("product", "three", "select", "relu2", "swiglu", "gelu", "tanh")
      for element, n, transposed in (("f32", 40, False), ("bf16", 33, True))],
    # operands
    *[Case(f"extra_{dims}_{n}", 24, n, epilogue="bias", extras=(Extra(dims),))
      for dims in ("en", "n", "r", "rn", "e", "nr", "ne", "ern", "rne", "er") for n in (32, 37)],
    *[Case(f"strided_{dims}_{n}", 24, n, epilogue="bias", extras=(Extra(dims, strided=True),))
      for dims in ("en", "n", "rn") for n in (32, 37)],
    *[Case(f"element_{element}_{n}", 24, n, epilogue="scale_and_bias",
           extras=(Extra("rn", element), Extra("en", element)))
      for element in ("bf16", "f16", "f64", "i8", "i32", "i64") for n in (32, 37)],
    Case("extra_weights", 24, 37, "bf16", epilogue="scale_and_bias",
         extras=(Extra("en", "bf16", role="weight"), Extra("e", role="weight"))),
    Case("extra_part", 24, 37, epilogue="bias", groups=5, first=2, gather=True,
         extras=(Extra("en"),), init="input"),
]


# -- what the tests share ---------------------------------------------------------


def compare(case: Case, actual, expected):
    """Equal, or as close as the epilogue allows."""
    epilogue = EPILOGUES[case.epilogue]
    if not epilogue.close:
        np.testing.assert_array_equal(actual, expected)
        return
    # exp, tanh and erf may be off in their last bits, and then in one rounding more.
    unit = {"f32": 0, "bf16": 2.0**-7, "f16": 2.0**-10}[case.out]
    data.assert_close(actual, expected, epilogue.close + unit, epilogue.of_largest)


def compiled_for(text: str, path: str, threads: int = 0):
    import moe

    if path == "reference":
        return moe.compile(text, options=["--pipeline=moe-reference"], num_threads=threads)
    data.skip_unless_runs(path)
    return moe.compile(text, target=None if path == "host" else path, num_threads=threads)


def guarded(rows: int, columns: int, element: str):
    """An array of a few rows more, all of one pattern, and the part to be written."""
    whole = np.full((rows + 16, columns), 0xA5, np.uint8).repeat(
        data.numpy_type(element).itemsize, 1).view(data.numpy_type(element))
    return whole, whole[8:8 + rows]
