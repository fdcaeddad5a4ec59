"""Kernels in Triton, whose code runs on hardware: they judge the double of the CUDA driver.

Triton compiles them without a GPU. Their numbers are exact where the comment does not say
otherwise: small integers as operands of products.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from . import programs
from .programs import Launch, Program, TensorMap

NUMPY = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp8e4nv": ml_dtypes.float8_e4m3fn,
         "fp32": np.float32, "i32": np.int32}


@functools.cache
def _compiled(kernel: Any, signature: tuple, constants: tuple, arch: int, options: tuple):
    types = {name: kind for name, kind in signature} | {name: "constexpr" for name, _ in constants}
    types = {name: types[name] for name in kernel.arg_names}
    # As the launcher sees it: pointers and these numbers are multiples of 16.
    divisible = {(k,): [["tt.divisibility", 16]] for k, kind in enumerate(types.values())
                 if kind == "i32" or kind.startswith("*")}
    source = ASTSource(fn=kernel, signature=types, constexprs=dict(constants), attrs=divisible)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32),
                          options={"ptx_version": 86, "enable_fp_fusion": True} | dict(options))


def build(kernel: Any, signature: dict[str, str], constants: dict[str, Any], arch: int,
          **options: Any) -> tuple[Program, list[dict[str, Any]]]:
    """The program, and what Triton wants of each tensor map."""
    made = _compiled(kernel, tuple(signature.items()), tuple(constants.items()), arch,
                     tuple(options.items()))
    program = Program(made.asm["ptx"], made.metadata.name, 32 * made.metadata.num_warps,
                      made.metadata.shared)
    return program, made.metadata.tensordesc_meta


@dataclass(frozen=True)
class Case:
    """What is launched; `check` raises where the results are wrong."""

    name: str
    launches: tuple[Launch, ...]
    check: Callable[[], None]

    def run(self, seed: int = 0, **settings: str) -> None:
        programs.run(*self.launches, seed=seed, **settings)
        self.check()

    def mutated(self, *arguments: Any, **more: Any) -> Case:
        changed = tuple(Launch(launch.program.mutated(*arguments, **more), launch.grid,
                               launch.arguments, launch.cluster, launch.cooperative,
                               launch.programmatic) for launch in self.launches)
        return Case(self.name, changed, self.check)


# Triton adds two pointers to scratch memory behind the arguments.
SCRATCH = (0, 0)


def integers(shape: tuple[int, ...], dtype: str, seed: int, most: int = 4) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-most, most + 1, shape)
    return values.astype(NUMPY[dtype])


def same(found: np.ndarray, expected: np.ndarray) -> Callable[[], None]:
    return lambda: np.testing.assert_array_equal(found.astype(np.float64), expected)


def near(found: np.ndarray, expected: np.ndarray, relative: float) -> Callable[[], None]:
    def check() -> None:
        error = np.abs(found.astype(np.float64) - expected).max()
        assert error <= relative * np.abs(expected).max(), error

    return check


# -- products -------------------------------------------------------------------


@triton.jit
def product_kernel(a, b, c, k_size, stride_am, stride_ak, stride_bk, stride_bn,
                   n: tl.constexpr, bm: tl.constexpr, bn: tl.constexpr, bk: tl.constexpr):
    rows = tl.program_id(0) * bm + tl.arange(0, bm)
    columns = tl.program_id(1) * bn + tl.arange(0, bn)
    along = tl.arange(0, bk)
    sums = tl.zeros((bm, bn), tl.float32)
    for k in range(0, k_size, bk):
        x = tl.load(a + rows[:, None] * stride_am + (k + along)[None, :] * stride_ak)
        y = tl.load(b + (k + along)[:, None] * stride_bk + columns[None, :] * stride_bn)
        sums = tl.dot(x, y, sums)
    tl.store(c + rows[:, None] * n + columns[None, :], sums)


def product(arch: int, dtype: str, major_a: str, major_b: str, bm: int, bn: int, bk: int,
            warps: int = 4, stages: int = 3) -> Case:
    m, n, k = 2 * bm, bn, 3 * bk
    a, b = integers((m, k), dtype, 1), integers((k, n), dtype, 2)
    c = np.zeros((m, n), np.float32)
    expected = a.astype(np.float64) @ b.astype(np.float64)
    held_a = np.ascontiguousarray(a if major_a == "k" else a.T)
    held_b = np.ascontiguousarray(b if major_b == "n" else b.T)
    strides = {"stride_am": k if major_a == "k" else 1, "stride_ak": 1 if major_a == "k" else m,
               "stride_bk": n if major_b == "n" else 1, "stride_bn": 1 if major_b == "n" else k}
    ones = {name: 1 for name, stride in strides.items() if stride == 1}
    signature = {"a": f"*{dtype}", "b": f"*{dtype}", "c": "*fp32", "k_size": "i32"}
    signature |= {name: "i32" for name in strides if name not in ones}
    program, _ = build(product_kernel, signature,
                       ones | {"n": n, "bm": bm, "bn": bn, "bk": bk}, arch,
                       num_warps=warps, num_stages=stages)
    arguments = [held_a, held_b, c, k]
    arguments += [stride for name, stride in strides.items() if name not in ones]
    name = f"product-{arch}-{dtype}-{major_a}{major_b}-{bm}x{bn}x{bk}-{warps}-{stages}"
    return Case(name, (Launch(program, (m // bm, n // bn), [*arguments, *SCRATCH]),),
                same(c, expected))


# -- tensor maps ------------------------------------------------------------------


@triton.jit
def mapped_product_kernel(a, b, c, k_size, bm: tl.constexpr, bn: tl.constexpr,
                          bk: tl.constexpr):
    row, column = tl.program_id(0) * bm, tl.program_id(1) * bn
    sums = tl.zeros((bm, bn), tl.float32)
    for k in range(0, k_size, bk):
        sums = tl.dot(a.load([row, k]), b.load([k, column]), sums)
    c.store([row, column], sums.to(c.dtype))


def mapped(arrays: list[np.ndarray], boxes: list[tuple[int, int]], wanted) -> list[Any]:
    """The arguments of tensor maps: each with its shape and strides."""
    arguments: list[Any] = []
    for array, box, meta in zip(arrays, boxes, wanted, strict=True):
        size = array.dtype.itemsize
        arguments += [TensorMap(array, tuple(meta["block_size"]), meta["swizzle"]), *array.shape,
                      *(stride // size for stride in array.strides)]
        assert math.prod(meta["block_size"]) <= math.prod(box)
    return arguments


def mapped_product(dtype: str, m: int, n: int, k: int, bm: int, bn: int, bk: int,
                   warps: int = 4) -> Case:
    a, b = integers((m, k), dtype, 3), integers((k, n), dtype, 4)
    # What is beyond the edges stays.
    c = np.full((m, n), 7, NUMPY[dtype])
    boxes = [(bm, bk), (bk, bn), (bm, bn)]
    signature = {name: f"tensordesc<{dtype}[{box[0]},{box[1]}]>"
                 for name, box in zip("abc", boxes, strict=True)} | {"k_size": "i32"}
    program, wanted = build(mapped_product_kernel, signature, {"bm": bm, "bn": bn, "bk": bk}, 90,
                            num_warps=warps, num_stages=3)
    arguments = [*mapped([a, b, c], boxes, wanted), k]
    exact = (a.astype(np.float64) @ b.astype(np.float64)).astype(NUMPY[dtype])
    grid = (-(-m // bm), -(-n // bn))
    return Case(f"mapped-{dtype}-{m}x{n}x{k}-{bm}x{bn}x{bk}-{warps}",
                (Launch(program, grid, [*arguments, *SCRATCH]),),
                same(c, exact.astype(np.float64)))


# -- rows and reductions ----------------------------------------------------------


@triton.jit
def softmax_kernel(x, y, columns, width: tl.constexpr):
    at = tl.arange(0, width)
    row = tl.program_id(0)
    values = tl.load(x + row * columns + at, mask=at < columns, other=-float("inf"))
    values = tl.exp(values - tl.max(values, 0))
    tl.store(y + row * columns + at, values / tl.sum(values, 0), mask=at < columns)


@triton.jit
def rows_kernel(x, y, columns, kind: tl.constexpr, width: tl.constexpr, k: tl.constexpr):
    at = tl.arange(0, width)
    values = tl.load(x + tl.program_id(0) * columns + at)
    if kind == "scan":
        values = tl.cumsum(values, 0)
    elif kind == "sort":
        values = tl.sort(values)
    elif kind == "histogram":
        values = tl.histogram(values, width)
    if kind == "topk":
        tl.store(y + tl.program_id(0) * k + tl.arange(0, k), tl.topk(values, k))
    else:
        tl.store(y + tl.program_id(0) * columns + at, values)


@triton.jit
def column_sums_kernel(x, sums, columns: tl.constexpr, rows: tl.constexpr):
    at = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, columns)
    values = tl.load(x + at[:, None] * columns + column[None, :])
    tl.atomic_add(sums + column, tl.sum(values, 0), sem="relaxed")


@triton.jit
def last_block_kernel(x, partial, arrived, out, blocks: tl.constexpr, width: tl.constexpr):
    block, at = tl.program_id(0), tl.arange(0, width)
    total = tl.sum(tl.load(x + block * width + at), 0)
    tl.store(partial + block, total)
    tl.debug_barrier()
    if tl.atomic_add(arrived, 1, sem="acq_rel") == blocks - 1:
        tl.store(out, tl.sum(tl.load(partial + tl.arange(0, blocks)), 0))


def softmax(arch: int, columns: int = 300, warps: int = 4) -> Case:
    x = np.random.default_rng(5).standard_normal((6, columns)).astype(np.float32)
    y = np.zeros_like(x)
    exact = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    program, _ = build(softmax_kernel, {"x": "*fp32", "y": "*fp32", "columns": "i32"},
                       {"width": 512}, arch, num_warps=warps)
    # ex2.approx and div.full are within some units of the last place.
    return Case(f"softmax-{arch}-{columns}-{warps}",
                (Launch(program, (6,), [x, y, columns, *SCRATCH]),),
                near(y, exact / exact.sum(1, keepdims=True), 1e-6))


def rows(arch: int, kind: str, width: int = 256, warps: int = 4) -> Case:
    k = 8
    x = np.random.default_rng(6).integers(0, width, (3, width)).astype(np.int32)
    if kind == "scan":
        expected = x.cumsum(1)
    elif kind == "histogram":
        expected = np.stack([np.bincount(row, minlength=width) for row in x])
    else:
        expected = np.sort(x, 1)
    if kind == "topk":
        expected = expected[:, :-k - 1:-1]
    y = np.zeros(expected.shape, np.int32)
    program, _ = build(rows_kernel, {"x": "*i32", "y": "*i32", "columns": "i32"},
                       {"kind": kind, "width": width, "k": k}, arch, num_warps=warps)
    return Case(f"{kind}-{arch}-{width}-{warps}",
                (Launch(program, (3,), [x, y, width, *SCRATCH]),), same(y, expected))


def column_sums(arch: int) -> Case:
    x, sums = integers((5 * 16, 64), "fp32", 7), np.zeros(64, np.float32)
    program, _ = build(column_sums_kernel, {"x": "*fp32", "sums": "*fp32"},
                       {"columns": 64, "rows": 16}, arch)
    return Case(f"column_sums-{arch}", (Launch(program, (5,), [x, sums, *SCRATCH]),),
                same(sums, x.astype(np.float64).sum(0)))


def last_block(arch: int) -> Case:
    x = integers((8, 128), "fp32", 8)
    partial, arrived = np.zeros(8, np.float32), np.zeros(1, np.int32)
    out = np.zeros(1, np.float32)
    program, _ = build(last_block_kernel, {"x": "*fp32", "partial": "*fp32", "arrived": "*i32",
                                           "out": "*fp32"}, {"blocks": 8, "width": 128}, arch)
    return Case(f"last_block-{arch}",
                (Launch(program, (8,), [x, partial, arrived, out, *SCRATCH]),),
                same(out, np.array([x.astype(np.float64).sum()])))


# -- dependent launches -------------------------------------------------------------


@triton.jit
def increment_kernel(x, y, width: tl.constexpr, waits: tl.constexpr):
    at = tl.program_id(0) * width + tl.arange(0, width)
    gdc_launch_dependents()
    if waits:
        gdc_wait()
    tl.store(y + at, tl.load(x + at) + 1)


def dependent(waits: bool = True) -> Case:
    """Three launches, each of which may begin under the one before."""
    values = [np.arange(512, dtype=np.int32), *(np.zeros(512, np.int32) for _ in range(3))]
    program, _ = build(increment_kernel, {"x": "*i32", "y": "*i32"},
                       {"width": 128, "waits": waits}, 90, launch_pdl=True)
    launches = tuple(Launch(program, (4,), [values[k], values[k + 1], *SCRATCH],
                            programmatic=k > 0) for k in range(3))
    return Case("dependent", launches, same(values[3], np.arange(512) + 3.0))


# -- all of them -----------------------------------------------------------------


def cases() -> Iterator[Callable[[], Case]]:
    """Each compiles when it is called."""
    for arch, dtype in itertools.product((90, 80), ("bf16", "fp16")):
        # 32, 64 and 128 bytes along the contiguous dimension, of each operand.
        for major_a, major_b, bk in itertools.product("km", "nk", (16, 32, 64)):
            yield functools.partial(product, arch, dtype, major_a, major_b, 64, 64, bk)
    for bk in (32, 64, 128):
        yield functools.partial(product, 90, "fp8e4nv", "k", "k", 64, 64, bk)
    for bm, bn, warps in ((128, 128, 4), (128, 256, 8), (64, 16, 4), (64, 32, 4)):
        yield functools.partial(product, 90, "bf16", "k", "n", bm, bn, 64, warps)
        yield functools.partial(product, 80, "bf16", "k", "n", bm, bn, 32, warps)
    for arch in (90, 80):
        yield functools.partial(product, arch, "fp32", "k", "k", 64, 64, 32)
    for dtype, warps in itertools.product(("bf16", "fp16"), (4, 8)):
        yield functools.partial(mapped_product, dtype, 128, 128, 128, 64, 64, 64, warps)
        yield functools.partial(mapped_product, dtype, 104, 72, 200, 64, 64, 64, warps)
        yield functools.partial(mapped_product, dtype, 130, 136, 96, 128, 128, 32, warps)
        yield functools.partial(mapped_product, dtype, 64, 24, 40, 64, 32, 16, warps)
    for arch, warps in itertools.product((90, 80), (1, 4)):
        yield functools.partial(softmax, arch, 300, warps)
        for kind in ("scan", "sort", "topk", "histogram"):
            yield functools.partial(rows, arch, kind, 256, warps)
    for arch in (90, 80):
        yield functools.partial(column_sums, arch)
        yield functools.partial(last_block, arch)
    yield dependent
