"""Which driver tests open: the double (test/cuda_double) of the build tree, unless
``MOE_CUDA_LIBRARY`` names another one.

The double runs kernels on the CPU, strictly: what hardware leaves undefined is an error there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def find_driver() -> str | None:
    """The library that the runtime is to open as the driver."""
    if named := os.environ.get("MOE_CUDA_LIBRARY"):
        return named
    build = Path(os.environ.get("MOE_BUILD_DIR", Path(__file__).resolve().parents[3] / "build"))
    double = build / "lib" / "cuda_double" / "libcuda.so.1"
    return str(double.absolute()) if double.exists() else None


def use() -> None:
    """From now on this process, and those that it starts, open that library."""
    if path := find_driver():
        os.environ["MOE_CUDA_LIBRARY"] = path


def needs_device() -> None:
    """Skips a test where there is no driver."""
    import pytest

    if find_driver() is None:
        pytest.skip("there is no driver of a GPU and no double of it in the build tree")


def needs_double() -> None:
    """Skips a test of what only the double does: it draws schedules, and logs what is called."""
    import pytest

    needs_device()
    if "cuda_double" not in find_driver():
        pytest.skip("only the double of the driver does that when asked to")


@contextlib.contextmanager
def racing() -> Iterator[None]:
    """Kernels may race: wrong input may have several blocks write the same rows, which does no
    harm."""
    detect = getattr(ctypes.CDLL(find_driver()), "moe_cuda_double_detect_races", lambda on: None)
    detect(0)
    try:
        yield
    finally:
        detect(1)


def run_file(file: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python file with the paths of this process, and more environment."""
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, file, *arguments], env=environment, text=True,
                          capture_output=True)


def in_new_process(file: str, *arguments: str, **environment: str) -> str:
    """What a Python file prints, where the double is asked for more."""
    needs_double()
    done = run_file(file, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
