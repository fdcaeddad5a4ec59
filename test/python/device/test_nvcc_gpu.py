"""CUDA kernels as nvcc compiles them, on the double of the CUDA driver, against numpy: clusters,
bulk copies, barriers, order between blocks. Such code runs on hardware; with what makes it right
taken out, the double has to say so."""

from __future__ import annotations

import functools
import math as exact_math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from moe_testing.device import double, programs
from moe_testing.device.programs import Launch, Program

SOURCE = Path(programs.__file__).with_name("foreign_kernels.cu")
LONG = os.environ.get("MOE_TEST_LONG") == "1"
SEEDS = range(8) if LONG else (0, 1, 5)


@functools.cache
def compiled() -> str:
    """The PTX; "" where no nvcc with the headers of CCCL is installed."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        return ""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernels.ptx"
        done = subprocess.run([nvcc, "-std=c++17", "-O2", "-arch=sm_90a", "-ptx", str(SOURCE),
                               "-o", str(out)], capture_output=True, text=True)
        return out.read_text() if done.returncode == 0 else ""


@pytest.fixture(autouse=True)
def needs_both():
    double.needs_double()
    double.use()
    if not compiled():
        pytest.skip("there is no nvcc with the headers of CCCL in PATH")


Built = tuple[Launch, Callable[[], None]]


def draw(shape, most=1000) -> np.ndarray:
    return np.random.default_rng(9).integers(-most, most, shape).astype(np.int32)


def equal(found: np.ndarray, expected: np.ndarray) -> Callable[[], None]:
    return lambda: np.testing.assert_array_equal(found, expected)


def launch(name: str, grid: int, threads: int, arguments, **more) -> Launch:
    return Launch(Program(compiled(), name, threads), (grid,), arguments, **more)


def cluster_histogram() -> Built:
    values, bins = np.abs(draw(700)), np.zeros(128, np.int32)
    return (launch("cluster_histogram", 4, 64, [values, 700, bins]),
            equal(bins, np.bincount(values & 127, minlength=128)))


def cluster_exchange() -> Built:
    values, out = draw(512), np.zeros(512, np.int32)
    swapped = values.reshape(2, 2, 128)[:, ::-1, ::-1].reshape(-1)
    return launch("cluster_exchange", 4, 128, [values, out]), equal(out, swapped)


def bulk_copies() -> Built:
    values, out = draw((2, 5, 256)), np.zeros((2, 256), np.int32)
    at = np.arange(256) * 5
    expected = sum(values[:, t, (at + t) % 256] for t in range(5))
    return launch("bulk_copies", 2, 256, [values, out, 5]), equal(out, expected)


def last_block() -> Built:
    values = draw((6, 128), 8).astype(np.float32)
    partial, out = np.zeros(6, np.float32), np.zeros(1, np.float32)
    return launch("last_block", 6, 128, [values, partial, out]), equal(out, values.sum())


def hand_over() -> Built:
    data, flag, out = np.zeros(64, np.int32), np.zeros(1, np.int32), np.zeros(64, np.int32)
    return (launch("hand_over", 2, 64, [data, flag, out], cooperative=True),
            equal(out, 3 * np.arange(64) + 1))


def grid_barrier() -> Built:
    values, out = np.zeros(192, np.int32), np.zeros(192, np.int32)
    arrived = np.zeros(1, np.int32)
    return (launch("grid_barrier", 3, 64, [values, arrived, out], cooperative=True),
            equal(out, np.arange(192)[::-1] ** 2))


def multicast() -> Built:
    values, out = draw((4, 256)), np.zeros((2, 128), np.int32)
    sums = np.concatenate([values.sum(0)] * 2)
    return (launch("multicast", 2, 128, [values, out]),
            equal(out, np.stack([sums[:128], sums[1:129]])))


def math() -> Built:
    erf = np.vectorize(exact_math.erf)
    x = np.concatenate([np.random.default_rng(10).standard_normal(60) * 4,
                        [0.5, -0.25, 8.0, -9.5]]).astype(np.float32)
    y, exact = np.zeros((8, 64), np.float32), x.astype(np.float64)
    expected = [np.exp(exact), np.log(np.abs(exact)), np.tanh(exact), erf(exact),
                np.sqrt(np.abs(exact)) / (1 + exact**2),
                x.astype(ml_dtypes.float8_e4m3fn), x.astype(ml_dtypes.bfloat16), np.sin(exact)]

    def check() -> None:
        for row, (found, right) in enumerate(zip(y, expected, strict=True)):
            # Of libm: the CUDA C++ Programming Guide says at most 2 units of the last place.
            np.testing.assert_allclose(found, right.astype(np.float64), 3e-7, 3e-7,
                                       err_msg=str(row))

    return launch("math", 1, 64, [x, y, 64]), check


def integers() -> Built:
    rng = np.random.default_rng(11)
    a, b = (rng.integers(-2**62, 2**62, 64) >> rng.integers(0, 60, 64) for _ in range(2))
    b[b == 0] = 3
    out = np.zeros((5, 64), np.int64)
    rows = []
    for left, right in zip(map(int, a), map(int, b), strict=True):
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        rows.append([quotient, left - quotient * right, left * right, left * right >> 64,
                     (64 - (left % 2**64).bit_length()) * 256 + (right % 2**64).bit_count()])
    expected = (np.array(rows, object).T % 2**64).astype(np.uint64).view(np.int64)
    return launch("integers", 1, 64, [a, b, out, 64]), equal(out, expected)


KERNELS = (cluster_histogram, cluster_exchange, bulk_copies, last_block, hand_over, grid_barrier,
           multicast, math, integers)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("build", KERNELS, ids=lambda build: build.__name__)
def test_numbers(build, seed):
    one, check = build()
    programs.run(one, seed=seed)
    check()


CLUSTER_BARRIER = r"barrier\.cluster\.(arrive|wait)[^;]*;"
# A kernel, what is replaced in it and by what, all of it or a slice, and what the double says.
MUTANTS = {
    "histogram_without_barriers": (
        cluster_histogram, CLUSTER_BARRIER, "", slice(None),
        "nobody wrote|has ended|nothing orders"),
    "exchange_without_the_first_barrier": (
        cluster_exchange, CLUSTER_BARRIER, "", slice(2), "nobody wrote|data race"),
    "exchange_without_the_last_barrier": (
        cluster_exchange, CLUSTER_BARRIER, "", slice(-2, None),
        "has ended|nothing orders that behind an access"),
    "copies_of_fewer_bytes": (
        bulk_copies, r"(mbarrier\.arrive\.expect_tx[^;]*), %\w+;", r"\1, 512;", slice(None),
        "deadlock|under way|becomes|ends"),
    "store_without_proxy_fence": (
        bulk_copies, r"fence\.proxy\.async[^;]*;", "", slice(-1, None), "asynchronous proxy"),
    "store_without_wait": (
        bulk_copies, r"cp\.async\.bulk\.wait_group[^;]*;", "", slice(None),
        "wait_group.read is missing"),
    "tiles_without_barriers": (
        bulk_copies, r"bar\.sync\s+0;", "", slice(1, None), "data race|nobody wrote|under way"),
    "last_block_without_fences": (last_block, r"membar\.gl;", "", slice(None), "data race"),
    "last_block_with_one_fence": (last_block, r"membar\.gl;", "", slice(1), "data race"),
    "last_block_with_narrow_fences": (
        last_block, r"membar\.gl;", "membar.cta;", slice(None), "data race"),
    "flag_without_release": (hand_over, r"st\.release", "st.relaxed", slice(None), "data race"),
    "flag_without_acquire": (hand_over, r"ld\.acquire", "ld.relaxed", slice(None), "data race"),
    "flag_of_the_block": (
        hand_over, r"st\.release\.gpu", "st.release.cta", slice(None), "data race"),
    "flag_without_barrier": (hand_over, r"bar\.sync\s+0;", "", slice(None), "data race"),
    "meeting_without_release": (
        grid_barrier, r"atom\.add\.release", "atom.add.relaxed", slice(None), "data race"),
    "meeting_without_acquire": (
        grid_barrier, r"ld\.acquire", "ld.relaxed", slice(None), "data race"),
    "multicast_that_one_releases": (
        multicast, r"(mbarrier\.init[^;]*), %\w+;", r"\1, 1;", slice(None),
        "more arrivals|data race|under way|deadlock"),
    "multicast_without_the_last_barrier": (
        multicast, CLUSTER_BARRIER, "", slice(-2, None), "has ended|nothing orders that behind"),
}


def mutated(name: str, pattern: str, by: str, which: slice) -> str:
    """The PTX with a change in one kernel."""
    head, rest = compiled().split(f".entry {name}(")
    body, mark, tail = rest.partition(".visible .entry")
    found = list(re.finditer(pattern, body))[which]
    assert found, f"{name} has no '{pattern}'"
    for match in reversed(found):
        body = body[:match.start()] + match.expand(by) + body[match.end():]
    return f"{head}.entry {name}({body}{mark}{tail}"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants(mutant):
    build, pattern, by, which, says = MUTANTS[mutant]
    for seed in SEEDS:
        one, _ = build()
        program = replace(one.program, ptx=mutated(one.program.entry, pattern, by, which))
        with pytest.raises(programs.Refused, match=says):
            programs.run(replace(one, program=program), seed=seed)


def test_blocks_that_need_not_be_resident():
    one, _ = grid_barrier()
    with pytest.raises(programs.Refused, match="2 of 3 clusters have not begun"):
        programs.run(replace(one, cooperative=False))
