"""Several ranks as processes with a gloo process group of PyTorch."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

_context = multiprocessing.get_context("forkserver")
# Processes are copies of one that has imported these, where they are installed.
_context.set_forkserver_preload([
    "moe.integrations.process_group", "moe_testing.ranks", "moe_testing.data",
    "moe.integrations.transformers", "transformers.distributed.expert_parallel",
    "transformers.models.mixtral.modeling_mixtral",
    "transformers.models.qwen3_moe.modeling_qwen3_moe"])


class Died:
    """What a rank returns that ended without a result."""

    def __init__(self, exit_code: int | None):
        self.exit_code = exit_code

    def __repr__(self) -> str:
        return f"Died({self.exit_code})"


def run(size: int, body: Callable[..., Any], *arguments: Any, limit: float = 60) -> list[Any]:
    """Call ``body(group, *arguments)`` with the process group of each of ``size`` ranks, all at
    once, and return the results. Results that are exceptions are raised.

    ``body`` is a function of a module; arguments and results are pickled. Nobody waits for the
    other ranks at the end.
    """
    with tempfile.TemporaryDirectory(prefix="moe-ranks-") as folder:
        ends, processes = [], []
        for rank in range(size):
            ours, theirs = _context.Pipe(duplex=False)
            process = _context.Process(target=_rank, args=(
                theirs, f"file://{folder}/store", rank, size, body, arguments), daemon=True)
            process.start()
            theirs.close()
            ends.append(ours)
            processes.append(process)
        results: list[Any] = [None] * size
        pending = {end: rank for rank, end in enumerate(ends)}
        stop = time.monotonic() + limit
        while pending:
            ready = multiprocessing.connection.wait(list(pending), stop - time.monotonic())
            if not ready:
                for process in processes:
                    process.kill()
                raise TimeoutError(f"ranks {sorted(pending.values())} of {size} have not ended "
                                   f"after {limit} s")
            for end in ready:
                rank = pending.pop(end)
                try:
                    results[rank] = end.recv()
                except EOFError:
                    processes[rank].join()
                    results[rank] = Died(processes[rank].exitcode)
        for process in processes:
            process.join(10)
            if process.exitcode is None:
                process.kill()
                raise TimeoutError("a rank has returned and does not exit")
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results


def _rank(end: Any, store: str, rank: int, size: int, body: Callable[..., Any],
          arguments: tuple[Any, ...]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    try:
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
        result = body(dist.group.WORLD, *arguments)
    except BaseException as error:  # noqa: BLE001 raised in the process that waits
        import traceback

        result = RuntimeError(f"rank {rank}: " + "".join(traceback.format_exception(error)))
    end.send(result)
    end.close()
