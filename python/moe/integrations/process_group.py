"""A process group of ``torch.distributed`` as the engine of a ``moe.parallel.Group``.

gloo moves rows between CPUs. Its collectives run on threads of its own, so that a call can poll
them; a rank that dies is an error of the others at once, one that does not come after the
deadline of the group. A collective cannot be cancelled: what it reads and writes stays as long
as gloo may reach it.
"""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from .._communicator import FUNCTIONS, Communicator, RawCommunicator
from .._error import UNIMPLEMENTED, MoEError

__all__ = ["communicator"]

_ALIGNMENT = 64


def communicator(group: dist.ProcessGroup) -> Communicator:
    """Return the communicator of this rank."""
    # "gloo" is "cpu:gloo,cuda:gloo"; a group may have another backend for each device.
    backend = dist.get_backend_config(group)
    if "cpu:gloo" not in backend.split(","):
        raise MoEError(UNIMPLEMENTED, "expected a process group with the backend gloo for tensors "
                       f"on the CPU, got '{backend}'; dist.new_group(backend='gloo') makes one of "
                       "the same ranks")
    engine = _Engine(group)
    return Communicator(engine.raw, keep=engine)


class _Engine:
    """The functions of a communicator, as Python callbacks."""

    def __init__(self, group: dist.ProcessGroup):
        self._group = group
        self._size = dist.get_world_size(group)
        self._rank = dist.get_rank(group)
        self._buffers: dict[int, torch.Tensor] = {}
        self._requests: dict[int, _Request] = {}
        self._numbers = itertools.count(1)
        self._message = b""
        self.raw = RawCommunicator(struct_size=ctypes.sizeof(RawCommunicator), rank=self._rank,
                                   size=self._size, node_size=1)
        # The structure does not keep the callbacks.
        self._callbacks = {name: FUNCTIONS[name](function) for name, function in (
            ("allocate", self._allocate), ("release", self._release), ("counts", self._counts),
            ("exchange", self._exchange), ("gather", self._gather), ("test", self._test),
            ("message", self._get_message))}
        for name, callback in self._callbacks.items():
            setattr(self.raw, name, callback)

    def _allocate(self, _user: Any, size: int) -> int | None:
        try:
            memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8)
        except RuntimeError:  # no memory
            return None
        address = -(-memory.data_ptr() // _ALIGNMENT) * _ALIGNMENT
        self._buffers[address] = memory
        return address

    def _release(self, _user: Any, address: int, _size: int) -> None:
        self._buffers.pop(address, None)

    def _counts(self, _user: Any, send: int, receive: int, each: int, _stream: Any,
                request: Any) -> int:
        size = self._size * each * 8
        return self._start(request, lambda: _Request(dist.all_to_all_single(
            self._tensor(receive, size), self._tensor(send, size), group=self._group,
            async_op=True)))

    def _exchange(self, _user: Any, send: int | None, send_rows: Any, send_begins: Any,
                  receive: int | None, receive_rows: Any, receive_begins: Any, row_bytes: int,
                  _stream: Any, request: Any) -> int:
        def start() -> _Request:
            # The collective takes one tensor of the parts of all ranks, in order.
            outgoing = self._parts(send, send_rows, send_begins, row_bytes)
            incoming = self._parts(receive, receive_rows, receive_begins, row_bytes)
            source = self._whole(outgoing)
            if source is None:
                source = torch.cat([self._tensor(*part) for part in outgoing])
            target = self._whole(incoming)
            apart = target is None
            if apart:
                target = torch.empty(sum(size for _, size in incoming), dtype=torch.uint8)
            work = dist.all_to_all_single(target, source, [size for _, size in incoming],
                                          [size for _, size in outgoing], group=self._group,
                                          async_op=True)
            return _Request(work, (lambda: self._scatter(target, incoming)) if apart else None)

        return self._start(request, start)

    def _gather(self, _user: Any, send: int | None, receive: int | None, rows: Any,
                row_bytes: int, _stream: Any, request: Any) -> int:
        counts = [rows[r] * row_bytes for r in range(self._size)]

        def start() -> _Request:
            # gloo gathers equal parts alone.
            own = counts[self._rank]
            return _Request(dist.all_to_all_single(
                self._tensor(receive, sum(counts)), self._tensor(send, own).repeat(self._size),
                counts, [own] * self._size, group=self._group, async_op=True))

        return self._start(request, start)

    def _start(self, request: Any, start: Callable[[], _Request]) -> int:
        try:
            started = start()
        except Exception as error:  # noqa: BLE001 no exception leaves a callback
            return self._fail(error)
        number = next(self._numbers)
        self._requests[number] = started
        request[0] = number
        return 0

    def _test(self, _user: Any, number: int) -> int:
        request = self._requests[number]
        try:
            if not request.work.is_completed():
                return 0
            request.work.wait()  # raises the error of a work that failed
            if request.finish is not None:
                request.finish()
        except Exception as error:  # noqa: BLE001
            return self._fail(error)
        del self._requests[number]
        return 1

    def _fail(self, error: Exception) -> int:
        # gloo's begin with its source line in brackets, and go on with advice.
        message = re.sub(r"^\[[^\]]*:\d+\] ", "", str(error).partition("\n")[0])
        self._message = (message.partition(". ")[0] or type(error).__name__).encode()
        return -1

    def _get_message(self, _user: Any) -> bytes | None:
        return self._message or None

    def _tensor(self, address: int | None, size: int) -> torch.Tensor:
        """Return bytes of a buffer. The tensor is a part of it, so that a collective keeps what
        it needs when this engine is gone."""
        if not size:
            return torch.empty(0, dtype=torch.uint8)
        for memory in self._buffers.values():
            begin = address - memory.data_ptr()
            if 0 <= begin and begin + size <= len(memory):
                return memory[begin:begin + size]
        raise RuntimeError(f"{size} bytes at {address:#x} are in no buffer")

    def _parts(self, address: int | None, rows: Any, begins: Any,
               row_bytes: int) -> list[tuple[int, int]]:
        """Return where the bytes of each rank are, and how many."""
        return [((address or 0) + begins[r] * row_bytes, rows[r] * row_bytes)
                for r in range(self._size)]

    def _whole(self, parts: Sequence[tuple[int, int]]) -> torch.Tensor | None:
        """Return one tensor of all parts, if they are neighbours in order."""
        filled = [part for part in parts if part[1]]
        if any(begin + size != after for (begin, size), (after, _) in itertools.pairwise(filled)):
            return None
        return self._tensor(filled[0][0] if filled else None, sum(size for _, size in filled))

    def _scatter(self, source: torch.Tensor, parts: Sequence[tuple[int, int]]) -> None:
        for part, its in zip(parts, source.split([size for _, size in parts])):
            self._tensor(*part).copy_(its)


class _Request:
    """A collective that has started, and what is done when it ends."""

    def __init__(self, work: Any, finish: Callable[[], None] | None = None):
        self.work, self.finish = work, finish
