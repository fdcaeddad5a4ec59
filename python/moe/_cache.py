"""Artifacts on disk, under the hash of their inputs.

The cache is in ``$MOE_CACHE_DIR`` (by default ``~/.cache/moe``). Above
``$MOE_CACHE_LIMIT`` bytes, such as ``500MB`` or ``2GiB`` (the default), the least
recently used artifacts are removed.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ._error import INVALID_ARGUMENT, RESOURCE_EXHAUSTED, MoEError

_SCRATCH = ".moe-"
_UNITS = {"": 1, "B": 1, "KB": 10 ** 3, "MB": 10 ** 6, "GB": 10 ** 9, "TB": 10 ** 12,
          "KIB": 2 ** 10, "MIB": 2 ** 20, "GIB": 2 ** 30, "TIB": 2 ** 40}


def directory() -> Path:
    """Return the directory of the artifacts, which nobody else can write to."""
    named = os.environ.get("MOE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "moe"
    candidates = [Path(named)] if named else [
        base, Path(tempfile.gettempdir()) / f"moe-cache-{os.getuid()}"]
    for path in candidates:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        # An artifact is code: use no directory that others can write to.
        found = path.stat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022 and os.access(path, os.W_OK):
            return path
    raise MoEError(INVALID_ARGUMENT, "no cache directory of our own among "
                   + ", ".join(map(str, candidates)) + "; set MOE_CACHE_DIR")


def limit() -> int:
    """Return the maximum size of the cache in bytes."""
    text = os.environ.get("MOE_CACHE_LIMIT") or "2GiB"
    match = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text, re.ASCII)
    if match is None or match[2].upper() not in _UNITS:
        raise MoEError(INVALID_ARGUMENT, f"MOE_CACHE_LIMIT is '{text}', expected bytes, such as "
                       "4096, 500MB or 2GiB")
    return int(match[1]) * _UNITS[match[2].upper()]


def used(artifact: Path) -> None:
    """Record that an artifact of the cache was used now."""
    with suppress(OSError):
        os.utime(artifact)


def trim() -> None:
    """Remove the least recently used artifacts until the rest is within the limit."""
    most, entries = limit(), []
    for path in directory().iterdir():
        with suppress(OSError):  # another process may remove it, too
            info = path.lstat()
            if not stat.S_ISREG(info.st_mode):
                continue
            if path.name.startswith(_SCRATCH):
                # Left by a process that was killed: no compilation takes that long.
                if time.time() - info.st_mtime > 24 * 3600:
                    path.unlink()
            elif path.suffix == ".moe":
                entries.append((info.st_mtime_ns, info.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= most:
            break
        with suppress(OSError):
            path.unlink()
        total -= size


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Return a temporary file in the folder of ``beside`` for a rename; removed if it was not
    renamed."""
    try:
        handle, name = tempfile.mkstemp(prefix=_SCRATCH, suffix=".moe", dir=beside.parent)
    except OSError as error:
        raise MoEError(RESOURCE_EXHAUSTED, f"cannot write to '{beside.parent}': "
                       f"{error.strerror}") from error
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
