"""Clusters of two blocks that load an operand for each other (moe.multicast), on the double of
the driver."""

from __future__ import annotations

import numpy as np
import pytest
from moe_testing import compiled_layers, data
from moe_testing.cases.grouped import Case
from moe_testing.cases.multicast import CASES, OFFSETS
from moe_testing.device import arrays as gpu

pytestmark = pytest.mark.usefixtures("device")


@pytest.mark.parametrize("name", CASES)
def test_numbers(name):
    import moe

    case = CASES[name]
    module = moe.compile(case.text(), target="sm_90a", device="cuda")
    weights, layer = case.weights(), module.layer({})
    # Of the last pair of row tiles of an expert, one block may have no rows.
    for offsets in (OFFSETS, tuple(sorted(OFFSETS[-1] - x for x in OFFSETS)),
                    (0,) * 8 + (700,)):
        rows = offsets[-1]
        arrays = weights | case.inputs(rows, offsets)
        expected, written = case.expected(arrays, rows)
        out = gpu.upload(np.full((rows, case.n), 0x7F, data.numpy_type(case.out)))
        layer(out=out, **{key: gpu.upload(array) for key, array in arrays.items()})
        assert (written == 1).all()
        np.testing.assert_array_equal(gpu.download(out).astype(np.float32),
                                      expected.astype(np.float32))
    # One operand is loaded once for both blocks, the other for each; gathered rows not by TMA.
    body = compiled_layers.ptx_of(module).split(".entry grouped_matmul_wgmma")[1]
    body = body.split(".visible .entry")[0]
    loads = [line for line in body.splitlines()
             if "cp.async.bulk.tensor" in line and "prefetch" not in line]
    shared = [line for line in loads if ".multicast::cluster" in line]
    assert shared and (len(shared) < len(loads)) == (not case.gather)


def test_groups_of_row_tiles():
    """So long rows that a group has four row tiles, and their expert a fifth with one row."""
    import moe

    rows = 4 * 128 + 1
    case = Case("groups", k=12288, n=264, element="bf16", experts=0, transposed=True, role="input",
                multicast="none")
    arrays = case.weights() | case.inputs(rows)
    expected, _ = case.expected(arrays, rows)
    layer = moe.compile(case.text(), target="sm_90a", device="cuda").layer({})
    out = gpu.upload(np.full((rows, case.n), 0x7F, data.numpy_type(case.out)))
    layer(out=out, **{key: gpu.upload(array) for key, array in arrays.items()})
    np.testing.assert_array_equal(gpu.download(out).astype(np.float32),
                                  expected.astype(np.float32))
