"""The monitor: takes what sources have counted, and hands records to sinks."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, MoEError
from ._counts import Counts
from ._records import LayerRecord, StepRecord
from ._routes import RouteCounter
from ._sinks import sinks_of
from ._sources import Source, sources_of
from ._work import Work

__all__ = ["Monitor", "watch"]


class Monitor:
    """Watches layers; see ``watch``. It may be used from several threads.

    ``last`` is the last record, None before the first one.
    """

    last: StepRecord | None

    def __init__(self, sources: Iterable[Source], to: Any, every: int, dead_after: int,
                 price_per_hour: float | None, watts: float | None):
        for what, number in (("every", every), ("dead_after", dead_after)):
            if not isinstance(number, int) or number < 1:
                raise MoEError(INVALID_ARGUMENT, f"{what} is {number!r}, expected an integer of at "
                               "least 1")
        for what, rate in (("price_per_hour", price_per_hour), ("watts", watts)):
            if rate is not None and not (isinstance(rate, (int, float)) and 0 <= rate < math.inf):
                raise MoEError(INVALID_ARGUMENT, f"{what} is {rate!r}, expected a number of at "
                               "least 0")
        self._every, self._dead_after = every, dead_after
        self._price, self._watts = price_per_hour, watts
        self._lock = threading.RLock()  # a sink may call the monitor
        self._closing = ExitStack()
        self._routes, self._experts = RouteCounter(), dict[str, int]()
        self._idle: dict[str, np.ndarray] = {}  # steps since each expert had a row
        self._steps = self._pending = self._tokens = 0
        self._tokens_known = True
        self._open = True
        self.last = None
        self._sinks, opened = sinks_of(to)
        for sink in opened:
            self._closing.callback(sink.close)
        self._sources: list[Source] = []
        try:
            for source in sources:
                self._closing.callback(source.close)
                self._sources.append(source)
        except BaseException:
            self._closing.close()
            raise
        self._since = time.perf_counter()

    def step(self, *, tokens: int | None = None) -> StepRecord | None:
        """Tell that a step has ended, and hand its record to the sinks.

        Args:
          tokens: tokens of the step, where layers cannot know them or padding is not to count.

        Returns:
          The record, or None if only every n-th step is recorded.
        """
        if tokens is not None and (not isinstance(tokens, int) or tokens < 0):
            raise MoEError(INVALID_ARGUMENT, f"tokens is {tokens!r}, expected an integer of at "
                           "least 0")
        with self._lock:
            if not self._open:
                raise MoEError(FAILED_PRECONDITION, "the monitor is closed")
            self._steps += 1
            self._pending += 1
            self._tokens_known &= tokens is not None
            self._tokens += tokens or 0
            return None if self._steps % self._every else self._record()

    def step_after(self, model: Any) -> None:
        """Have each call of a module of PyTorch be a step, until the monitor is closed.

        That suits inference: each token that is generated is a step.
        """
        def step(*_: Any) -> None:
            self.step()

        self._closing.callback(model.register_forward_hook(step).remove)

    def add(self, name: str, ids: Any, weights: Any = None, *, num_experts: int) -> None:
        """Count a call of experts that something else runs, such as a layer whose routes are
        outputs (``moe.compile(..., routes="record")``).

        Args:
          name: the name of the layer.
          ids: the experts of each token, ``[tokens, choices]``, of numpy or torch. Those outside
            ``[0, num_experts)`` are no choice.
          weights: the weights of the choices, of the shape of ``ids``.
          num_experts: the number of experts; always the same for one name.
        """
        if not isinstance(num_experts, int) or num_experts < 1:
            raise MoEError(INVALID_ARGUMENT, f"num_experts is {num_experts!r}, expected an integer "
                           "of at least 1")
        taken = [_copy(array, what) for array, what in ((ids, "ids"), (weights, "weights"))
                 if array is not None]
        if len({tuple(array.shape) for array in taken}) != 1 or taken[0].ndim != 2:
            raise MoEError(INVALID_ARGUMENT, f"{name}: expected ids and weights [tokens, choices], "
                           f"got {' and '.join(str(list(array.shape)) for array in taken)}")
        with self._lock:
            if not self._open:
                raise MoEError(FAILED_PRECONDITION, "the monitor is closed")
            if self._experts.setdefault(name, num_experts) != num_experts:
                raise MoEError(INVALID_ARGUMENT, f"{name}: num_experts is {num_experts}, before it "
                               f"was {self._experts[name]}")
        self._routes.add(name, num_experts, taken[0], taken[1] if weights is not None else None)

    def close(self) -> None:
        """Record what is left of the last steps, stop watching, and close what was opened here."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            with self._closing:
                if self._pending:
                    self._record()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _record(self) -> StepRecord:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        layers = {}
        for source in self._sources:
            for name, counts in source.take().items():
                layers[name] = self._layer(name, counts, source.work(name, counts))
        for name, counts in self._routes.take().items():
            layers[name] = self._layer(name, counts, None)
        tokens: int | None = self._tokens
        if not self._tokens_known:
            known = {layer.tokens for layer in layers.values() if layer.calls}
            tokens = known.pop() if len(known) == 1 else None
        record = StepRecord(self._steps, self._pending, seconds, tokens, layers, self._price,
                            self._watts)
        self.last, self._pending, self._tokens, self._tokens_known = record, 0, 0, True
        with ExitStack() as each:  # all sinks get the record, even if one of them fails
            for sink in reversed(self._sinks):
                each.callback(sink, record)
        return record

    def _layer(self, name: str, counts: Counts, work: Work | None) -> LayerRecord:
        idle = self._idle.get(name)
        if idle is None:
            idle = self._idle[name] = np.zeros(len(counts.load), np.int64)
        if counts.calls:
            idle += self._pending
            idle[counts.load > 0] = 0
        rows = int(counts.load.sum())
        return LayerRecord(
            name, counts.load, counts.calls, counts.top_k, counts.tokens, counts.choices,
            counts.dropped, tuple(np.flatnonzero(idle >= self._dead_after).tolist()),
            _mean(counts.confidence), _mean(counts.margin),
            None if work is None else work.flops(counts.calls, counts.tokens, rows),
            None if work is None else work.bytes(counts.calls, counts.tokens, rows, counts.active))


def _mean(sum_and_count: tuple[float, int] | None) -> float | None:
    if sum_and_count is None or sum_and_count[1] == 0:
        return None
    return sum_and_count[0] / sum_and_count[1]


def _copy(array: Any, what: str) -> Any:
    """Return a copy of an array of numpy or torch, or an array of what numpy can read."""
    if hasattr(array, "detach"):
        return array.detach().clone()
    copy = np.array(array)
    if copy.dtype.kind not in "iu" and (what == "ids" or copy.dtype.kind not in "fV"):
        raise MoEError(INVALID_ARGUMENT, f"{what} are {copy.dtype}, expected "
                       f"{'integers' if what == 'ids' else 'floats'}")
    return copy


def watch(target: Any, to: Any = (), *, every: int = 1, dead_after: int = 100,
          price_per_hour: float | None = None, watts: float | None = None) -> Monitor:
    """Watch the experts of a model or a layer.

        with moe.monitor.watch(model, to="load.jsonl") as monitor:
            for batch in batches:
                train(batch)
                monitor.step()

    Args:
      target: a ``moe.Layer``; a module of PyTorch with experts inside, which are those that go
        through transformers' experts interface, by whatever implementation they run, the layers of
        ``moe.from_torch``, and programs of ``torch.export`` that have them; or a mapping from
        names to several of these.
      to: where records go: a function, a path that ends in ``.jsonl``, a sink (``JSONLines``,
        ``TensorBoard``, ``Prometheus``), or several of them. ``Monitor.last`` has the last record
        in any case.
      every: record every n-th step; a record has what happened since the one before.
      dead_after: an expert is dead that had no row for so many steps.
      price_per_hour: the price of an hour of the machine, for ``cost_per_million_tokens``.
      watts: the power that the machine takes, for ``joules_per_million_tokens``.

    Raises:
      MoEError: if there is nothing to watch, the statistics of a layer are disabled, or ``to`` is
        no sink.
    """
    return Monitor(sources_of(target), to, every, dead_after, price_per_hour, watts)
