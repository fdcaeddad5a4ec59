"""Kernels in Triton on the double of the CUDA driver, against numpy: such code runs on hardware.
With what makes it right taken out, the double has to say so.

`./dev check triton` runs this in an environment with Triton, which needs no GPU to compile.
"""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

from moe_testing.device import double, programs

HAS_TRITON = importlib.util.find_spec("triton") is not None
pytestmark = pytest.mark.skipif(not HAS_TRITON,
                                reason="triton is not installed; ./dev check triton installs it")

if HAS_TRITON:
    from moe_testing.device import triton_kernels as kernels

    CASES = {f"{make.func.__name__}{make.args}" if hasattr(make, "func") else make.__name__: make
             for make in kernels.cases()}
else:
    CASES = {}

LONG = os.environ.get("MOE_TEST_LONG") == "1"
SEEDS = (0, 1, 5, 6) if LONG else (0, 5)
# One of each kind, in seconds.
SAMPLE = {"product(90, 'bf16', 'k', 'n', 64, 64, 64)", "product(90, 'fp16', 'm', 'k', 64, 64, 32)",
          "product(80, 'bf16', 'k', 'k', 64, 64, 32)",
          "product(90, 'fp8e4nv', 'k', 'k', 64, 64, 64)",
          "mapped_product('bf16', 104, 72, 200, 64, 64, 64, 4)", "softmax(90, 300, 4)",
          "rows(90, 'scan', 256, 4)", "rows(80, 'histogram', 256, 4)", "rows(90, 'topk', 256, 1)",
          "column_sums(90,)", "last_block(80,)", "dependent"}


@pytest.fixture(autouse=True)
def needs_double():
    double.needs_double()
    double.use()


@pytest.mark.parametrize("name", list(CASES) if LONG else sorted(SAMPLE & set(CASES)))
def test_numbers(name):
    for seed in SEEDS:
        CASES[name]().run(seed)


def test_the_sample_is_of_them():
    assert set(CASES) >= SAMPLE


# -- mutants --------------------------------------------------------------------


def wrong(case, says: str | None) -> None:
    """The double refuses it in every schedule; without words, or its numbers are wrong."""
    for seed in SEEDS:
        if says:
            with pytest.raises(programs.Refused, match=says):
                case().run(seed)
        else:
            with pytest.raises((programs.Refused, AssertionError)):
                case().run(seed)


def gathered(arch=90):
    return kernels.product(arch, "bf16", "k", "n", 64, 64, 64)


def mapped():
    return kernels.mapped_product("bf16", 128, 128, 128, 64, 64, 64)


# A case, what is replaced in its code by what, all of it or from an occurrence on, and what the
# double says; None where another number is as good.
MUTANTS = {
    "product_without_fence": (gathered, r"wgmma\.fence[^;]*;", "", {"count": 0}, "wgmma.fence"),
    "product_without_wait": (gathered, r"wgmma\.wait_group[^;]*;", "", {"count": 0},
                             "touches a register|data race|under way"),
    # K = 64 of bf16 takes four steps along k, each 32 bytes further.
    "product_of_another_chunk": (gathered, r"(add\.s32[^;]*), 2;", r"\1, 3;", {}, None),
    "product_of_another_row": (gathered, r"(add\.s32[^;]*), 2;", r"\1, 8;", {},
                               "in row 1 of a swizzle"),
    "product_of_another_swizzle": (gathered, r"4611686293305294848", "-9223371899415822336",
                                   {"count": 0}, None),
    "product_before_its_copies": (gathered, r"cp\.async\.wait_group\s+\w+;",
                                  "cp.async.wait_group 7;", {"count": 0}, "under way|nobody wrote"),
    "product_without_barriers": (gathered, r"bar\.sync\s+0;", "", {"count": 0},
                                 "data race|under way|nobody wrote|is under way"),
    "mma_before_its_copies": (lambda: gathered(80), r"cp\.async\.wait_group\s+\w+;",
                              "cp.async.wait_group 7;", {"count": 0}, "under way|nobody wrote"),
    "mma_without_barriers": (lambda: gathered(80), r"bar\.sync\s+0;", "", {"count": 0},
                             "data race|under way|nobody wrote"),
    "maps_of_fewer_bytes": (mapped, r"(mbarrier\.arrive\.expect_tx[^;]*), 16384;", r"\1, 8192;",
                            {"count": 0}, None),
    "maps_without_wait": (mapped, r"@!complete bra\.uni waitLoop;", "", {"count": 0},
                          "under way|nobody wrote|data race"),
    "maps_with_two_arrivals": (mapped, r"(mbarrier\.init[^;]*), 1;", r"\1, 2;", {"count": 0},
                               "deadlock"),
    "store_without_proxy_fence": (mapped, r"fence\.proxy\.async[^;]*;", "", {"count": 0},
                                  "asynchronous proxy"),
    "store_without_wait": (mapped, r"cp\.async\.bulk\.wait_group[^;]*;", "", {"count": 0},
                           "wait_group.read is missing"),
    "scan_without_barriers": (lambda: kernels.rows(90, "scan"), r"bar\.sync\s+0;", "",
                              {"count": 0}, "data race|nobody wrote"),
    "softmax_without_barriers": (lambda: kernels.softmax(90), r"bar\.sync\s+0;", "", {"count": 0},
                                 "data race|nobody wrote"),
    "last_block_without_order": (lambda: kernels.last_block(90), r"atom\.global\.gpu\.acq_rel",
                                 "atom.global.gpu.relaxed", {"count": 0}, "data race"),
    "last_block_of_a_scope": (lambda: kernels.last_block(90), r"atom\.global\.gpu\.acq_rel",
                              "atom.global.cta.acq_rel", {"count": 0}, "data race"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants(mutant):
    build, pattern, by, more, says = MUTANTS[mutant]
    wrong(lambda: build().mutated(pattern, by, **more), says)


def test_sums_without_atomics():
    """Plain additions of several blocks to the same words."""
    def case():
        return kernels.column_sums(90).mutated(
            r"(?:red|atom)\.global\.gpu(?:\.relaxed)?\.add\.f32\s+(?:%\w+, )?(\[[^;]*;)",
            r"st.global.f32 \1", count=0)

    wrong(case, "data race")


def test_reads_before_the_wait():
    wrong(lambda: kernels.dependent(waits=False), "griddepcontrol.wait has to come before")


def test_a_serial_launch_needs_no_wait():
    case = kernels.dependent(waits=False)
    for launch in case.launches:
        programs.run(launch)
    np.testing.assert_array_equal(case.launches[0].arguments[1], np.arange(512) + 1)
