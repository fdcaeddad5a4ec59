"""Peak throughput of the device: copy bandwidth and dense matmuls, in its own process."""

from __future__ import annotations

from typing import Any

import torch
from moe_testing.device.cuda_driver import Memory, driver

from ..device import supervise
from . import clock

COPY_BYTES = 2 << 30
SIDE = 8192
ROUNDS = 10


def copy_bandwidth(device: clock.Device, size: int) -> float:
    """Return bytes read and written per second."""
    source, target = Memory(size), Memory(size)
    driver().fill(source.address, 1, size)

    def copy(_: int) -> None:
        driver()("cuMemcpyDtoDAsync_v2", target.address, source.address, size, device.stream())

    sample = clock.on_stream(copy, 4, device.stream)
    return 2 * size / min(sample() for _ in range(ROUNDS))


def dense_products(device: clock.Device, side: int) -> float:
    """Return bf16 FLOP/s of a square matmul of random values in cuBLAS."""
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device.device)
            for _ in range(2))
    device.wait()

    def product(_: int) -> None:
        torch.mm(a, b, out=out)

    out = torch.empty_like(a)
    sample = clock.on_stream(product, 5, device.stream)
    return 2 * side**3 / sorted(sample() for _ in range(ROUNDS))[ROUNDS // 2]


def work(task: dict[str, Any], emit: supervise.Emit) -> None:
    device = clock.Device()
    real = device.device.type == "cuda"
    emit("peaks", copy=copy_bandwidth(device, COPY_BYTES if real else 1 << 16),
         dense_bf16=dense_products(device, SIDE if real else 64))


if __name__ == "__main__":
    supervise.serve(work)
