"""Peak arithmetic and memory throughput of the machine, measured in the same run."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..common import machine

SOURCE = Path(__file__).with_name("peaks.c")
REPEATS = 7
CALL_SECONDS = 0.03
# Several times the last-level cache, per thread.
READ_CACHES = 8
# Bytes that a thread copies at a time to new pages: several huge pages.
COPY_PART = 16 << 20


def build(directory: Path) -> ctypes.CDLL:
    """Compile peaks.c for this machine."""
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "libpeaks.so"
    command = [os.environ.get("CC", "cc"), "-O3", "-march=native", "-ffp-contract=fast", "-shared",
               "-fPIC", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, arguments in (("fma_f32", [ctypes.c_int64]), ("dot_bf16", [ctypes.c_int64]),
                            ("read_bytes", [pointer, size]),
                            ("read_bytes_in_order", [pointer, size]),
                            ("copy_bytes", [pointer, pointer, size])):
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, ctypes.c_float
    for name in ("fma_f32_flops", "dot_bf16_flops"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded


def _fastest(calls: list[Callable[[], object]]) -> float:
    """Return the minimum seconds, after a warm-up, in which all calls, each in a thread on its own
    core, complete."""
    cores = machine.cpus(len(calls))
    barrier = threading.Barrier(len(calls))
    begins = np.zeros((len(calls), REPEATS + 1))
    ends = np.zeros_like(begins)

    def work(index: int) -> None:
        os.sched_setaffinity(threading.get_native_id(), {cores[index]})
        for repeat in range(REPEATS + 1):
            barrier.wait()
            begins[index, repeat] = time.perf_counter()
            calls[index]()
            ends[index, repeat] = time.perf_counter()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return float((ends.max(0) - begins.min(0))[1:].min())


def _arithmetic(function: Callable[[int], float], flops: int, threads: int) -> float:
    count = 10_000
    while True:
        begin = time.perf_counter()
        function(count)
        if time.perf_counter() - begin > CALL_SECONDS:
            break
        count *= 2
    return threads * count * flops / _fastest([lambda: function(count)] * threads)


def copy_to_new_pages(arrays: Sequence[np.ndarray], threads: int) -> float:
    """Return the seconds in which threads copy arrays to memory that has no pages yet.

    It is in huge pages where the system has them, as packed weights are; the kernel clears each
    page, which takes longer than the copy itself.
    """
    size = sum(array.nbytes for array in arrays)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    target, jobs = np.frombuffer(memory, np.uint8), []
    for array in arrays:
        source = array.reshape(-1).view(np.uint8)
        place, target = target[:len(source)], target[len(source):]
        # Small parts, so that the threads end together.
        for begin in range(0, len(source), COPY_PART):
            part = slice(begin, begin + COPY_PART)
            jobs.append((place[part], source[part]))
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        for done in [pool.submit(np.copyto, *job) for job in jobs]:
            done.result()
        return time.perf_counter() - begin


def measure(library: ctypes.CDLL, threads: int) -> dict[str, float]:
    """Measure FLOP/s and bytes/s with ``threads`` threads.

    ``copy`` counts each byte once. ``dot_bf16`` is 0 without such an instruction.
    """
    size = READ_CACHES * machine.last_level_cache()
    # A first write maps the pages.
    sources = [np.ones(size // 4, np.float32) for _ in range(threads)]
    targets = [np.ones(size // 4, np.float32) for _ in range(threads)]
    aligned = [a.ctypes.data + -a.ctypes.data % 64 for a in sources]
    read = min(_fastest([lambda p=p: function(p, size - 64) for p in aligned])
               for function in (library.read_bytes, library.read_bytes_in_order))
    copy = _fastest([lambda t=t, s=s: library.copy_bytes(t.ctypes.data, s.ctypes.data, size)
                     for t, s in zip(targets, sources)])
    bf16 = library.dot_bf16_flops()
    return {
        "threads": threads,
        "fma_f32": _arithmetic(library.fma_f32, library.fma_f32_flops(), threads),
        "dot_bf16": _arithmetic(library.dot_bf16, bf16, threads) if bf16 else 0.0,
        "read": threads * (size - 64) / read,
        "copy": threads * size / copy,
    }
