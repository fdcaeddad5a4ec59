"""Where records go."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, NOT_FOUND, MoEError
from ._records import StepRecord

__all__ = ["JSONLines", "Prometheus", "Sink", "TensorBoard", "sinks_of"]

Sink = Callable[[StepRecord], Any]


def missing(package: str, what: str) -> MoEError:
    """Return the error of what needs a package that is not installed."""
    return MoEError(FAILED_PRECONDITION, f"{what} needs the package '{package}', which is not "
                    f"installed: pip install {package}")


class JSONLines:
    """Writes each record as a line of JSON to a file, which ``python -m moe.monitor plot`` reads.

        sink = moe.monitor.JSONLines("load.jsonl", append=True)

    Numbers that are not finite are strings: ``"nan"``. What a source does not know is absent.
    """

    path: Path

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False):
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self._file = open(self.path, "ab" if append else "wb")
        except OSError as error:
            raise MoEError(NOT_FOUND, f"cannot write '{self.path}': {error.strerror}") from error

    def __call__(self, record: StepRecord) -> None:
        line = json.dumps(record.to_json(), allow_nan=False, separators=(",", ":")).encode()
        with self._lock:
            if self._file.closed:
                raise MoEError(FAILED_PRECONDITION, f"'{self.path}' is closed")
            self._file.write(line + b"\n")
            self._file.flush()  # so that a run that is killed leaves whole lines

    def close(self) -> None:
        """Close the file; a later record is an error."""
        with self._lock:
            self._file.close()


class TensorBoard:
    """Writes each record to a folder of TensorBoard, with ``torch.utils.tensorboard``.

        sink = moe.monitor.TensorBoard("runs/first")

    Scalars are ``moe/NAME`` for the step and ``LAYER/NAME`` for a layer. The histogram
    ``LAYER/load`` has a bin for each expert, as high as its rows.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            package = "torch" if (error.name or "").partition(".")[0] == "torch" else "tensorboard"
            raise missing(package, "moe.monitor.TensorBoard") from error
        self._lock = threading.Lock()
        self._writer: Any = SummaryWriter(os.fspath(folder))

    def __call__(self, record: StepRecord) -> None:
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        # One event with all numbers takes less time than one for each.
        summary = Summary()
        for name, value in record.scalars().items():
            summary.value.add(tag=f"moe/{name}", simple_value=value)
        for layer in record.layers.values():
            for name, value in layer.scalars().items():
                summary.value.add(tag=f"{layer.name}/{name}", simple_value=value)
            if layer.load.any():
                load, ids = layer.load.astype(np.float64), np.arange(len(layer.load))
                summary.value.add(tag=f"{layer.name}/load", histo=HistogramProto(
                    min=-0.5, max=len(load) - 0.5, num=load.sum(), sum=load @ ids,
                    sum_squares=load @ ids ** 2, bucket_limit=ids + 0.5, bucket=load))
        with self._lock:
            if self._writer is None:
                raise MoEError(FAILED_PRECONDITION, "the writer of TensorBoard is closed")
            self._writer.file_writer.add_summary(summary, record.step)

    def close(self) -> None:
        """Write what is left and close the files; a later record is an error."""
        with self._lock:
            if self._writer is not None:
                self._writer.close()
            self._writer = None


class Prometheus:
    """Has what was recorded as metrics of Prometheus, by ``prometheus_client``.

        sink = moe.monitor.Prometheus()
        prometheus_client.start_http_server(9100, registry=sink.registry)

    Counters have the sums of all records: ``moe_tokens_total``, ``moe_steps_total`` and
    ``moe_seconds_total``, and for each layer ``moe_calls_total``, ``moe_choices_total``,
    ``moe_dropped_choices_total``, ``moe_expert_rows_total`` (label ``expert``), ``moe_flops_total``
    and ``moe_bytes_total``. Gauges have the last record's ``moe_load_entropy``,
    ``moe_load_variation``, ``moe_dead_experts``, ``moe_router_confidence``,
    ``moe_router_margin``, and, of the step, ``moe_tokens_per_second``,
    ``moe_cost_per_million_tokens`` and ``moe_joules_per_million_tokens``. They are made when they
    are read; a record adds to arrays.
    """

    registry: Any

    def __init__(self, registry: Any = None):
        try:
            import prometheus_client
        except ImportError as error:
            raise missing("prometheus_client", "moe.monitor.Prometheus") from error
        self.registry = prometheus_client.CollectorRegistry() if registry is None else registry
        self._lock = threading.Lock()
        self._last: StepRecord | None = None
        self._sums: dict[str, float] = {}
        self._of_layers: dict[str, dict[str, Any]] = {}
        self._open = True
        self.registry.register(self)

    def __call__(self, record: StepRecord) -> None:
        with self._lock:
            if not self._open:
                raise MoEError(FAILED_PRECONDITION, "the sink for Prometheus is closed")
            self._last = record
            _add(self._sums, {"steps": record.steps, "seconds": record.seconds,
                              "tokens": record.tokens})
            for name, layer in record.layers.items():
                _add(self._of_layers.setdefault(name, {}), {
                    "calls": layer.calls, "choices": layer.choices,
                    "dropped_choices": layer.dropped, "flops": layer.flops,
                    "bytes": layer.bytes, "expert_rows": layer.load})

    def text(self) -> str:
        """Return the metrics of the registry in Prometheus' text format."""
        import prometheus_client

        return prometheus_client.generate_latest(self.registry).decode()

    def close(self) -> None:
        """Take the metrics out of the registry; a later record is an error."""
        with self._lock:
            if self._open:
                self.registry.unregister(self)
            self._open = False

    def describe(self) -> list[Any]:
        """Return nothing: the registry need not collect to know the names."""
        return []

    def collect(self) -> Iterator[Any]:
        """Return the metrics, for ``prometheus_client``."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        with self._lock:
            last, sums = self._last, dict(self._sums)
            of_layers = {name: {n: np.copy(v) for n, v in found.items()}
                         for name, found in self._of_layers.items()}
        if last is None:
            return
        for name, value in sums.items():
            yield CounterMetricFamily(f"moe_{name}", _HELP[name], value=value)
        for name in ("calls", "choices", "dropped_choices", "flops", "bytes"):
            family = CounterMetricFamily(f"moe_{name}", _HELP[name], labels=["layer"])
            for layer, found in of_layers.items():
                if name in found:
                    family.add_metric([layer], float(found[name]))
            yield family
        rows = CounterMetricFamily("moe_expert_rows", _HELP["expert_rows"],
                                   labels=["layer", "expert"])
        for layer, found in of_layers.items():
            for expert, count in enumerate(found["expert_rows"].tolist()):
                rows.add_metric([layer, str(expert)], count)
        yield rows
        for name, metric in _GAUGES.items():
            family = GaugeMetricFamily(f"moe_{metric}", _HELP[name], labels=["layer"])
            for layer, its in last.layers.items():
                if (value := its.scalars().get(name)) is not None:
                    family.add_metric([layer], value)
            yield family
        for name, value in last.scalars().items():
            if name in _HELP and name not in sums and name not in ("flops", "bytes"):
                yield GaugeMetricFamily(f"moe_{name}", _HELP[name], value=value)


_GAUGES = {"entropy": "load_entropy", "variation": "load_variation", "dead": "dead_experts",
           "confidence": "router_confidence", "margin": "router_margin"}
_HELP = {
    "steps": "Steps", "seconds": "Seconds of the steps", "tokens": "Tokens of the steps",
    "calls": "Calls of a layer", "choices": "Choices that have an expert",
    "dropped_choices": "Choices beyond the capacity of their expert",
    "flops": "Floating-point operations of forward passes",
    "bytes": "Bytes that forward passes have to move",
    "expert_rows": "Rows that an expert computed",
    "entropy": "Entropy of the load of the experts, in nats",
    "variation": "Coefficient of variation of the load of the experts",
    "dead": "Experts without rows for some steps",
    "confidence": "Mean of the largest weight of a token",
    "margin": "Mean of the largest weight of a token less the second one",
    "tokens_per_second": "Tokens a second of the last record",
    "cost_per_million_tokens": "Price of a million tokens",
    "joules_per_million_tokens": "Energy of a million tokens",
}


def _add(sums: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value is not None:
            sums[name] = sums.get(name, 0) + value


def sinks_of(to: Any) -> tuple[list[Sink], list[Any]]:
    """Return the sinks that ``to`` names, and those of them that were opened here."""
    if isinstance(to, (str, os.PathLike)):
        if not os.fspath(to).endswith(".jsonl"):
            raise MoEError(INVALID_ARGUMENT, f"to is {os.fspath(to)!r}, expected a path that ends "
                           "in .jsonl, a function, or a sink such as "
                           "moe.monitor.TensorBoard(folder)")
        opened = JSONLines(to)
        return [opened], [opened]
    if callable(to):
        return [to], []
    if not isinstance(to, Iterable):
        raise MoEError(INVALID_ARGUMENT, f"to is {to!r}, expected a path that ends in .jsonl, a "
                       "function, a sink, or several of them")
    sinks: list[Sink] = []
    mine: list[Any] = []
    try:
        for each in to:
            found, opened_here = sinks_of(each)
            sinks += found
            mine += opened_here
    except BaseException:
        for sink in mine:
            sink.close()
        raise
    return sinks, mine
