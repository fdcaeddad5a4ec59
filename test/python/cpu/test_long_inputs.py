"""More than 2^31 elements: offsets into rows are 64-bit.

Needs about 10 GiB of memory and a minute, so it runs only with `./dev test --long`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import moe

pytestmark = [
    pytest.mark.usefixtures("compiled"),
    pytest.mark.skipif(os.environ.get("MOE_TEST_LONG") != "1",
                       reason="runs with ./dev test --long"),
]

HIDDEN = 64
TOKENS = 2**31 // HIDDEN + 1000  # the last rows start beyond 2^31 elements


def test_dispatch_beyond_32_bits():
    module = moe.compile("""
        func.func @group(%x: tensor<?x64xf16> {moe.name = "x"},
                         %ids: tensor<?x1xi32> {moe.name = "ids"})
            -> (tensor<?x64xf16> {moe.name = "grouped"}, tensor<3xi32> {moe.name = "offsets"}) {
          %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(2)
            : tensor<?x64xf16>, tensor<?x1xi32>
          return %grouped, %offsets : tensor<?x64xf16>, tensor<3xi32>
        }""")
    x = np.zeros((TOKENS, HIDDEN), np.float16)
    marked = np.array([0, 1, TOKENS // 2, TOKENS - 2, TOKENS - 1])
    x[marked] = np.arange(1, 6, dtype=np.float16)[:, None]
    ids = np.zeros((TOKENS, 1), np.int32)
    ids[:1000] = 1  # the first tokens become the last rows
    grouped, offsets = module.layer()(x, ids)
    assert offsets.tolist() == [0, TOKENS - 1000, TOKENS]
    rows = np.where(marked < 1000, marked + TOKENS - 1000, marked - 1000)
    np.testing.assert_array_equal(grouped[rows, 0], x[marked, 0])
    np.testing.assert_array_equal(grouped[rows, HIDDEN - 1], x[marked, HIDDEN - 1])
    assert np.count_nonzero(grouped[:, 0]) == len(marked)
