"""ggml's CPU backend, built once from the source that a package holds, and a layer in it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...common import machine
from ...common.participants import Unavailable

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
BUILDS = machine.ROOT / "build" / "bench" / "ggml"
NAME = "libmoe_bench_ggml.so"
# A first build downloads 76 MB and compiles for minutes.
DOWNLOAD_SECONDS, BUILD_SECONDS = 600, 3600


def version() -> str:
    """Return the package and the version that the source is from."""
    found = re.search(r"^(\S+)==(\S+)", REQUIREMENTS.read_text(), re.MULTILINE)
    return f"{found[1]} {found[2]}"


def library_path() -> Path:
    """Return where the library is, or will be: another place for another source or processor."""
    key = hashlib.sha256(machine.flags().encode())
    for path in (REQUIREMENTS, HERE / "CMakeLists.txt", HERE / "layer.cpp"):
        key.update(path.read_bytes())
    return BUILDS / key.hexdigest()[:16] / NAME


def build() -> Path:
    """Download, verify and compile the library, unless that was done before."""
    library = library_path()
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as directory:
        folder = Path(directory)
        source = _source(folder)
        log = library.with_name("build.log")
        _run(["cmake", "-S", HERE, "-B", folder / "build", "-G", "Ninja",
              "-DCMAKE_BUILD_TYPE=Release", f"-DGGML_SOURCE={source}"], log, BUILD_SECONDS)
        jobs = [f"-j{os.environ['JOBS']}"] if os.environ.get("JOBS") else []
        _run(["ninja", "-C", folder / "build", *jobs, "moe_bench_ggml"], log, BUILD_SECONDS)
        (folder / "build" / NAME).replace(library)
    return library


def _source(folder: Path) -> Path:
    """Download the package, whose hash pip verifies, and return the folder `ggml` in it."""
    log = folder / "pip.log"
    name = version().split()[0]
    _run([sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
          "--no-binary", name, "--require-hashes", "-r", REQUIREMENTS, "-d", folder], log,
         DOWNLOAD_SECONDS)
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as file:
        members = [m for m in file.getmembers() if "/vendor/llama.cpp/ggml/" in m.name]
        file.extractall(folder, members, filter="data")
    return next(folder.glob("*/vendor/llama.cpp/ggml"))


def _run(command: Sequence[str | Path], log: Path, seconds: float) -> None:
    try:
        with log.open("a") as output:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output,
                           stderr=subprocess.STDOUT, check=True, timeout=seconds)
    except (OSError, subprocess.SubprocessError) as error:
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        reasons = [line for line in lines if "error" in line.lower()] or lines[-1:] or [""]
        raise Unavailable(f"{Path(command[0]).name} failed: {reasons[0].strip()[:300]}"
                          if isinstance(error, subprocess.CalledProcessError) else
                          f"not built: {error}") from error


class Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in (
        "hidden", "intermediate", "experts", "top_k", "shared")] + [
        (name, ctypes.c_int32) for name in ("renormalise", "type")]


class Pointers(ctypes.Structure):
    """Weights, in the order of data.Weights."""

    _fields_ = [(name, ctypes.c_void_p) for name in (
        "router", "gate_up_proj", "down_proj", "shared_gate_proj", "shared_up_proj",
        "shared_down_proj")]


@functools.cache
def load() -> ctypes.CDLL:
    """Return the library that ``build`` made."""
    path = library_path()
    if not path.exists():
        raise Unavailable("ggml is not built")
    library = ctypes.CDLL(str(path))
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
            ("type", ctypes.c_int, [ctypes.c_char_p]),
            ("quantise", ctypes.c_size_t, [ctypes.c_int, pointer, pointer, integer, integer]),
            ("decode", None, [ctypes.c_int, pointer, pointer, integer]),
            ("open", pointer, [ctypes.POINTER(Shape), ctypes.c_int]),
            ("close", None, [pointer]),
            ("add_layer", ctypes.c_int, [pointer, ctypes.POINTER(Pointers)]),
            ("load", integer, [pointer, integer]),
            ("run", ctypes.c_int, [pointer, ctypes.c_int, pointer]),
            ("output", None, [pointer, ctypes.c_int, pointer])):
        function = getattr(library, f"moe_bench_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def type_of(name: str) -> int:
    """Return the ggml_type of a type or format."""
    found = load().moe_bench_type(name.encode())
    if found < 0:
        raise Unavailable(f"this ggml has no type {name}")
    return found


def quantise(name: str, rows: np.ndarray) -> np.ndarray:
    """Return the bytes ``[N, row bytes]`` of ``rows`` ``[N, columns]`` in f32."""
    rows = np.ascontiguousarray(rows, np.float32)
    # No format has more bytes than f32.
    result = np.empty(rows.nbytes, np.uint8)
    size = load().moe_bench_quantise(type_of(name), rows.ctypes.data, result.ctypes.data,
                                     *rows.shape)
    return result[:size].reshape(len(rows), -1)


def decode(name: str, blocks: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` numbers of contiguous bytes, as ggml decodes them."""
    result = np.empty(count, np.float32)
    load().moe_bench_decode(type_of(name), blocks.ctypes.data, result.ctypes.data, count)
    return result
