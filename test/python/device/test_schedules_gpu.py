"""Kernels under many schedules of the double of the driver, on one to four multiprocessors.

With MOE_CUDA_DOUBLE_SEED above 1 the double draws the order of threads, warps and blocks, and
when copies and products land; every launch draws anew. So a kernel that is called again and
again in a process runs under one schedule after another: whatever it is, no thread may wait for
ever, nothing may be undefined, and the numbers are what numpy says. Each kind of kernel is here
with the smallest operands that make it run.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
import pytest
from moe_testing import data, layers
from moe_testing.cases import routing
from moe_testing.cases import scaled as scaled_cases
from moe_testing.cases.grouped import Case
from moe_testing.device import arrays as gpu
from moe_testing.device import double

HOPPER, AMPERE = "sm_90a", "sm_80"
CONSUMER = "--pipeline=moe-gpu{arch=sm_90a gather-fence=consumer}"
Call = Callable[[], None]


# -- kernels ------------------------------------------------------------------


def product(name: str, target: str, rows: int, offsets=None, options=(), **case) -> Call:
    """One moe.grouped_matmul, whose results are exact."""
    import moe

    case = Case(name, element="bf16", role="input", **case)
    arrays = case.weights() | case.inputs(rows, offsets)
    expected, written = case.expected(arrays, rows)
    layer = moe.compile(case.text(), target=target, device="cuda", options=options).layer({})
    inputs = {key: gpu.upload(array) for key, array in arrays.items()}

    def call() -> None:
        out = gpu.empty("bf16", expected.shape)
        layer(out=out, **inputs)
        found = gpu.download(out)[written == 1].astype(np.float32)
        np.testing.assert_array_equal(found, expected[written == 1].astype(np.float32))

    return call


def scaled(name: str, target: str, rows: int) -> Call:
    """One of 8-bit weights with scales: the bits of the first call, which numpy agrees with."""
    import moe

    case = next(case for case in scaled_cases.CASES if case.name == name)
    arrays = case.weights() | case.inputs(rows)
    expected, written = case.expected(arrays, rows)
    module = moe.compile(case.text(), target=target, device="cuda")
    weights = {info.name for info in module.signature().weights}
    layer = module.layer({key: gpu.upload(arrays[key]) for key in weights})
    inputs = {key: array for key, array in arrays.items() if key not in weights}

    def call() -> None:
        found = gpu.run(layer, inputs, rows)[written == 1].astype(np.float64)
        scale = np.abs(expected[written == 1]).max()
        assert np.abs(found - expected[written == 1]).max() < 1e-2 * scale

    return call


def whole(name: str, target: str, tokens: int, options=()) -> Call:
    import moe

    inputs, weights = data.inputs_of(name, tokens, "bf16"), data.weights_of(name, "bf16")
    expected = data.oracle(name, inputs, weights)
    module = moe.compile(layers.text(name, "bf16"), target=target, device="cuda",
                         options=options)
    layer = module.layer({key: gpu.upload(array) for key, array in weights.items()})

    def call() -> None:
        y = gpu.run(layer, inputs, tokens)
        assert data.relative_error(y, expected) < data.TOLERANCE["bf16"]

    return call


def quantize(rows: int) -> Call:
    x = data.rng("schedules").standard_normal((rows, 320)).astype(data.numpy_type("bf16"))
    expected = scaled_cases.quantized_by_torch(x, 128)

    def call() -> None:
        q, scales = scaled_cases.quantize(x, 128, "bf16", AMPERE)
        np.testing.assert_array_equal(q.view(np.uint8), expected[0])
        np.testing.assert_array_equal(scales, expected[1])

    return call


def router(name: str, target: str, tokens: int) -> Call:
    return lambda: routing.check(name, target, tokens)


def route(name: str, tokens: int) -> Call:
    return lambda: routing.check_route(name, "skewed", tokens)


# More rows than 64 an expert take the largest tile, of which each block has several; two
# products of weights along n are of the cooperative kernel, others of few steps of ping-pong.
MANY = {"rows": 300, "offsets": (0, 140, 300)}
ONE_STEP = dict(k=64, n=200, experts=2, transposed=True)
KERNELS: dict[str, Callable[[], Call]] = {
    "ping_pong_one_step": lambda: product("p1", HOPPER, **MANY, **ONE_STEP),
    "ping_pong_two_steps": lambda: product("p2", HOPPER, **MANY, **ONE_STEP | {"k": 72}),
    "ping_pong_gathered": lambda: product("pg", HOPPER, **MANY, **ONE_STEP, gather=True),
    "ping_pong_consumer_fence": lambda: product(
        "pc", HOPPER, **MANY, **ONE_STEP, gather=True, options=[CONSUMER]),
    "cooperative": lambda: product("c", HOPPER, **MANY, k=72, n=136, experts=2,
                                   epilogue="product"),
    "cooperative_gathered": lambda: product("cg", HOPPER, **MANY, k=136, n=72, experts=2,
                                            epilogue="product", gather=True),
    "cooperative_consumer_fence": lambda: product(
        "cc", HOPPER, **MANY, k=136, n=72, experts=2, epilogue="product", gather=True,
        options=[CONSUMER]),
    # An expert has a pair of row tiles of which one has no rows.
    "multicast_weights": lambda: product("mw", HOPPER, **MANY, **ONE_STEP, multicast="weights"),
    "multicast_weights_gathered": lambda: product(
        "mv", HOPPER, **MANY, k=136, n=72, experts=2, epilogue="product", gather=True,
        multicast="weights"),
    # Of an even number of column tiles.
    "multicast_rows": lambda: product("mr", HOPPER, **MANY, **ONE_STEP | {"n": 264},
                                      multicast="rows"),
    "swapped": lambda: product("s", HOPPER, 20, k=72, n=264, experts=3, transposed=True),
    "swapped_gathered": lambda: product("sg", HOPPER, 20, k=520, n=200, experts=3, gather=True),
    "swapped_consumer_fence": lambda: product("sc", HOPPER, 20, k=520, n=200, experts=3,
                                              gather=True, options=[CONSUMER]),
    # Of one tile: a cluster has to fit on the multiprocessors.
    "split_by_two": lambda: product("s2", HOPPER, 5, k=512, n=72, experts=1, transposed=True),
    "split_by_four": lambda: product("s4", HOPPER, 5, k=1024, n=72, experts=1, transposed=True,
                                     gather=True),
    "mma_sync": lambda: product("m", AMPERE, 90, k=136, n=264, experts=2),
    "mma_sync_gathered": lambda: product("mg", AMPERE, 20, k=136, n=40, experts=2, gather=True,
                                         epilogue="product", transposed=True),
    "scaled_wgmma": lambda: scaled("gathered_two", HOPPER, 300),
    "scaled_mma_sync": lambda: scaled("two", AMPERE, 60),
    "router_of_a_cluster": lambda: router("eight", HOPPER, 9),
    "router_of_blocks": lambda: router("mesh", AMPERE, 70),
    "route": lambda: route("ceil", 70),
    "route_by_choice": lambda: route("next_of_many", 70),
    "route_by_weight": lambda: route("ceil_by_weight", 70),
    "expert_choice": lambda: functools.partial(
        routing.check_choice, "softmax", AMPERE, 70, False),
    # Sums in the last product, and behind it.
    "layer_few": lambda: whole("qwen3_moe", HOPPER, 5),
    "layer_many": lambda: whole("qwen3_moe", HOPPER, 40),
    "layer_consumer_fence": lambda: whole("qwen3_moe", HOPPER, 300, [CONSUMER]),
    "layer_few_mma_sync": lambda: whole("qwen3_moe", AMPERE, 5),
    "quantize": lambda: quantize(20),
}


# -- processes ------------------------------------------------------------------


def work(names: list[str], seconds: float, calls: int) -> None:
    """Call each kernel, with lines of JSON for what begins and ends: some may be missing."""
    for name in names:
        print(json.dumps({"begin": name}), flush=True)
        call, end = KERNELS[name](), time.monotonic() + seconds
        done = 0
        while done < calls and time.monotonic() < end:
            done += 1
            print(json.dumps({"call": done}), flush=True)
            call()
        print(json.dumps({"end": name, "calls": done}), flush=True)


def sweep(names: list[str], multiprocessors: int, seed: int, seconds: float, calls: int
          ) -> dict[str, int]:
    """How many calls of each kernel were right; fails with what the first wrong one said."""
    done = double.run_file(__file__, json.dumps([names, seconds, calls]),
                           MOE_CUDA_DOUBLE_SMS=str(multiprocessors),
                           MOE_CUDA_DOUBLE_SEED=str(seed))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (
        f"{[e['begin'] for e in events if 'begin' in e][-1:]} with {multiprocessors} "
        f"multiprocessors and seed {seed}, in {events[-1:]}:\n{done.stderr[-6000:]}")
    return {event["end"]: event["calls"] for event in events if "end" in event}


@pytest.fixture(autouse=True)
def needs_double(compiled):
    double.needs_double()


def on(multiprocessors: int) -> list[str]:
    """Clusters need as many multiprocessors as they have blocks."""
    return [name for name in KERNELS
            if not name.startswith(("split", "multicast")) or multiprocessors > 1]


@pytest.mark.parametrize("multiprocessors", [1, 2, 3, 4])
def test_some_schedules(multiprocessors):
    names = on(multiprocessors)[multiprocessors % 2::2]
    found = sweep(names, multiprocessors, 1000 * multiprocessors, 600.0, 4)
    assert found == dict.fromkeys(names, 4)


def test_turns_of_one_step():
    """Nothing but the barriers of their turns keeps the threads of a warpgroup together."""
    for multiprocessors in (1, 2):
        found = sweep(["ping_pong_one_step"], multiprocessors, 4000, 600.0, 36)
        assert found == {"ping_pong_one_step": 36}


@pytest.mark.skipif(os.environ.get("MOE_TEST_LONG") != "1",
                    reason="runs with ./dev test --long")
def test_many_schedules():
    """About half as many minutes as there are kernels, on two cores."""
    jobs = [(name, multiprocessors) for name in KERNELS for multiprocessors in (1, 2, 3, 4)
            if name in on(multiprocessors)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(sweep, [name], number, 100_000 * number, 15.0, 400): (name, number)
                   for name, number in jobs}
        try:
            for job in as_completed(running):
                name, number = running[job]
                print(f"{name} on {number}: {job.result()[name]} schedules", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    work(*json.loads(sys.argv[1]))
