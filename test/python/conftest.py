"""Paths for the tests, and the state of the compiler they need."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

PACKAGES = str(Path(__file__).resolve().parents[2] / "python")
if PACKAGES not in sys.path:
    sys.path.insert(0, PACKAGES)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# PyTorch has one thread, and does not wait in loops; layers have theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MOE_OPENMP", "0")
os.environ.setdefault("MOE_CACHE_DIR", str(Path(tempfile.gettempdir())
                                           / f"moe-test-cache-{os.getuid()}"))

from moe_testing.device import double  # noqa: E402

double.use()

LARGEST: dict[str, float] = {}


@pytest.fixture(scope="session")
def compiled():
    """Skips where there is no moe-compile or no libmoe_rt.so."""
    import moe

    try:
        moe.find_compiler()
        moe.runtime_version()
    except moe.MoEError as error:
        pytest.skip(str(error))
    return moe


@pytest.fixture(scope="session")
def runtime():
    """Skips where there is no libmoe_rt.so."""
    import moe

    try:
        moe.runtime_version()
    except moe.MoEError as error:
        pytest.skip(str(error))


@pytest.fixture
def device(compiled):
    """Skips where there is no driver of a GPU, nor the double of it."""
    double.needs_device()


@pytest.fixture
def record(request):
    """Remembers the largest error of a test for the summary."""

    def note(name: str, error: float) -> None:
        LARGEST[name] = max(LARGEST.get(name, 0.0), error)

    return note


def pytest_terminal_summary(terminalreporter):
    if LARGEST:
        terminalreporter.section("largest relative errors")
        for name in sorted(LARGEST):
            terminalreporter.write_line(f"{name:40s} {LARGEST[name]:.2e}")
