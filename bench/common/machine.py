"""Properties of the machine: processor, caches, free memory, versions."""

from __future__ import annotations

import ctypes
import datetime
import importlib.metadata
import os
import platform
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy", "torch", "transformers", "jax", "jaxlib", "onnxruntime")
_CPUS = Path("/sys/devices/system/cpu")


def cpus(count: int) -> list[int]:
    """Return ``count`` processors that this process may use, on different cores if possible."""
    allowed = sorted(os.sched_getaffinity(0))
    first: dict[str, int] = {}
    for cpu in allowed:
        siblings = _CPUS / f"cpu{cpu}/topology/thread_siblings_list"
        first.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    cores = list(first.values())
    chosen = (cores + [cpu for cpu in allowed if cpu not in cores])[:count]
    if len(chosen) < count:
        raise ValueError(f"expected at least {count} processors, got {len(chosen)}")
    return chosen


def end_with_parent() -> None:
    """Make Linux end this process when its parent ends."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def last_level_cache() -> int:
    """Return the bytes of the largest cache; 32 MiB if unknown."""
    sizes = [_bytes(path.read_text()) for path in _CPUS.glob("cpu0/cache/index*/size")]
    return max(sizes, default=32 << 20)


def _bytes(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    text = text.strip()
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def available_memory() -> int:
    """Return the bytes that can be allocated without swapping, within the control group's limit."""
    available = _meminfo("MemAvailable")
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            used = int((group / "memory.current").read_text())
            available = min(available, int(limit) - used)
    except OSError:
        pass
    return max(available, 0)


def total_memory() -> int:
    return _meminfo("MemTotal")


def _meminfo(key: str) -> int:
    for line in open("/proc/meminfo"):
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise OSError(f"/proc/meminfo has no {key}")


def _cpuinfo(*keys: str) -> str:
    for line in open("/proc/cpuinfo"):
        name, _, value = line.partition(":")
        if name.strip() in keys:
            return value.strip()
    return ""


def flags() -> str:
    """Return what the processor can do, as the kernel lists it."""
    return _cpuinfo("flags", "Features")


def describe() -> dict[str, object]:
    found = set(flags().split())
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
    return {
        "processor": _cpuinfo("model name", "CPU implementer") or platform.processor(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "vectors": [flag for flag in known if flag in found],
        "last_level_cache": last_level_cache(),
        "memory": total_memory(),
        "system": f"{platform.system()} {platform.release()}",
        # Load of other processes at the start of the run, which widens the spread of times.
        "load_average": os.getloadavg()[0],
    }


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str:
    """Return the commit of the working tree, with a plus if it is modified."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True,
                              text=True, check=True).stdout.strip()
    try:
        differs = "+" if git("status", "--porcelain", "-uno") else ""
        return git("rev-parse", "--short=12", "HEAD") + differs
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(path: Path, text: str) -> None:
    """Write a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
