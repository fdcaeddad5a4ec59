"""Weights that are prepared when a layer is made."""

from __future__ import annotations

import moe
import numpy as np
import pytest
from moe_testing.python_module import EXPERTS, HIDDEN, PythonModule, check

pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def weights():
    rng = np.random.default_rng(0)
    return {"gate": rng.standard_normal((EXPERTS, HIDDEN), np.float32),
            "bias": rng.standard_normal(HIDDEN, np.float32)}


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_from_arrays(weights, threads):
    module = PythonModule(threads)
    assert module.functions == ("layer",)
    assert [w.retained for w in module.signature().weights] == [False, True]
    given = {name: array.copy() for name, array in weights.items()}
    layer = module.layer(given)
    assert layer.weight_bytes == EXPERTS * 2 * HIDDEN * 4
    given["gate"][:] = np.nan  # read no more
    check(layer, weights)


def test_threads_are_checked():
    with pytest.raises(moe.MoEError, match="num_threads is -1, expected 0 to 4096"):
        moe.load(b"", num_threads=-1)
