"""Changes of clusters that load an operand for each other (moe.multicast), which the double of
the driver must notice."""

from __future__ import annotations

import functools
import re
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from moe import _tools
from moe_testing import compiled_layers, data
from moe_testing.cases.multicast import CASES, OFFSETS
from moe_testing.device import double
from moe_testing.device.programs import Launch, Program, Refused, TensorMap, run

TARGET = "sm_90a"
# With contiguous rows, and weights along k.
SHARED = ["weights", "rows"]
STRICT = {"COPIES": "", "RACES": "", "BARRIERS": "", "PLACEMENT": "", "SMS": "4", "LIMIT": "4e8"}
SEEDS = (0, 1, 7, 8, 9)
SWIZZLE_128B = 3


@pytest.fixture(autouse=True)
def needs_double(device):
    double.needs_double()


@functools.cache
def ptx_of(name: str) -> str:
    import moe

    return compiled_layers.ptx_of(moe.compile(CASES[name].text(), target=TARGET, device="cuda"))


@functools.cache
def columns_of(name: str) -> int:
    """Of the last tile, whose operands are not swapped."""
    done = subprocess.run([_tools.find_tool("moe-opt"), f"-moe-tile-for-gpu=arch={TARGET}"],
                          input=CASES[name].text(), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return int(re.findall(r"columns = (\d+)", done.stdout)[-1])


def build(name: str) -> tuple[Launch, np.ndarray]:
    """The launch of the kernel, and what it should write into its last array."""
    case, rows = CASES[name], OFFSETS[-1]
    arrays = case.weights() | case.inputs(rows, OFFSETS)
    expected, _ = case.expected(arrays, rows)
    out = np.full((rows, case.n), 0x7F, data.numpy_type(case.out))
    x, w, columns = arrays["x"], arrays["w0"], columns_of(name)
    boxes = {"weights": (128, columns // 2), "rows": (64, columns)}[case.multicast]
    entry, = re.findall(r"\.entry (grouped_matmul_wgmma\w*)\(", ptx_of(name))
    return Launch(Program(ptx_of(name), entry, 384, 227 * 1024), (4,), [
        TensorMap(x, (boxes[0], 64), SWIZZLE_128B), TensorMap(w, (1, boxes[1], 64), SWIZZLE_128B),
        x, arrays["offsets"], w, out, rows, rows], cluster=2), expected


def check(name: str, seed: int, ptx: str) -> None:
    launch, expected = build(name)
    run(replace(launch, program=replace(launch.program, ptx=ptx)), seed=seed, **STRICT)
    if not np.array_equal(launch.arguments[5].astype(np.float32), expected.astype(np.float32)):
        raise Refused("wrong numbers")


@pytest.mark.parametrize("name", SHARED)
def test_unchanged(name):
    for seed in SEEDS:
        check(name, seed, ptx_of(name))


BARRIER = r"barrier\.cluster\.arrive[^;]*;\s+barrier\.cluster\.wait[^;]*;"
CHANGES = {
    # Blocks begin before the barriers of the other exist, or end before it has arrived on theirs.
    "no_first_barrier": (BARRIER, "", slice(0, 1)),
    "no_last_barrier": (BARRIER, "", slice(-1, None)),
    # A stage is released to one block only; or empty when one block has released it.
    "releases_to_one": (r"(mapa\.shared::cluster\.u\d+\s+%\w+, %\w+, )%\w+;", r"\g<1>0;",
                        slice(None)),
    "waits_for_one": (r"(mbarrier\.init[^;]*), [^;]*;", r"\1, 1;", slice(1, 8, 2)),
    # The other block gets nothing.
    "one_destination": (r"(\.multicast::cluster[^;]*, )%rs\d+;", r"\g<1>1;", slice(None)),
}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(change, name):
    pattern, by, which = CHANGES[change]
    entry = build(name)[0].program.entry
    head, rest = ptx_of(name).split(f".entry {entry}(")
    body, mark, tail = rest.partition(".visible .entry")
    found = list(re.finditer(pattern, body))[which]
    assert found, f"the kernel has no '{pattern}'"
    for match in reversed(found):
        body = body[:match.start()] + match.expand(by) + body[match.end():]
    with pytest.raises(Refused):
        for seed in SEEDS:
            check(name, seed, f"{head}.entry {entry}({body}{mark}{tail}")
