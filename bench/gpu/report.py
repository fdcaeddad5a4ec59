"""Summary, tables and files of the results of ``./dev bench gpu``."""

from __future__ import annotations

import json
from pathlib import Path

from ..common import machine
from ..common.comparison import OURS, Result, best_of, time_of
from ..common.markdown import summary_table, table
from ..device.bundle import CONSUMER_FENCE
from ..device.shapes import ALL
from .metrics import (FEW_ROWS, MANY_ROWS, PEERS, of_bandwidth, of_fences, rate, ratio,
                      rows_per_expert, summarise)

SUMMARY = {
    "ratio": ("speedup over the best peer", "x"),
    "dense_many_rows": (f"fraction of dense FLOP/s, at least {MANY_ROWS} rows per expert", "%"),
    "bandwidth_few_rows": (f"fraction of the copy bandwidth, at most {FEW_ROWS} rows per expert",
                           "%"),
    "bandwidth_one_token": ("fraction of the copy bandwidth, T = 1", "%"),
    "zipf_over_uniform": ("time with Zipf routing over time with uniform routing", "x"),
    "kernels": ("kernels per call", "x"),
    "consumer_over_producer": ("time with the consumer's proxy fence over the producer's", "x"),
}


def _microseconds(found: Result) -> str:
    """Format the median and the MAD, or the status if there is none."""
    if found.get("status") != "ok":
        return found.get("status", "-")
    by = "" if found["by"] == "graph" else f" ({found['by']})"
    return f"{1e6 * found['median']:.4g} ± {1e6 * found['mad']:.1g}{by}"


def _in(value: float | None, unit: float, digits: str) -> str:
    return "-" if value is None else format(value / unit, digits)


def _device(result: Result) -> list[str]:
    device, gib, peaks = result["device"], 2**30, result["peaks"]
    clocks = [f"{c['clocks.sm']} (memory {c['clocks.mem']}, {c['power.draw']}, "
              f"{c['temperature.gpu']} C)" for c in result["clocks"] if c]
    lines = [
        f"{result['date']}, commit {result['commit']}. {device['name']}, compute capability "
        f"{device['capability']}, {device['multiprocessors']} multiprocessors, "
        f"{device['memory'] / gib:.0f} GiB, {device['l2'] / 2**20:.0f} MiB L2, {device['driver']}"
        + (f" (driver {result['clocks'][0]['driver_version']})" if result["clocks"][0] else "")
        + ". " + ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + "."]
    if device["double"]:
        lines.append("**Measured on the CUDA double, which emulates kernels on the CPU: the times "
                     "are meaningless.**")
    if clocks:
        lines.append(f"SM clock before the run: {clocks[0]}; after it: {clocks[-1]}.")
    if peaks:
        lines.append(f"Copy bandwidth: {peaks['copy'] / 1e12:.2f} TB/s, bytes read and written; "
                     f"dense bf16 matmul of 8192³: "
                     f"{peaks['dense_bf16'] / 1e12:.0f} TFLOP/s.")
    return [*lines, ""]


def _cells(result: Result) -> list[str]:
    rows = []
    for cell in result["cells"]:
        peer, faster = best_of(cell, PEERS), ratio(cell)
        ours = cell["participants"].get(OURS, {})
        rows.append((
            cell["shape"], cell["tokens"], cell["routing"], f"{cell['active_experts']:.0f}",
            f"{rows_per_expert(cell):.3g}", _microseconds(ours),
            f"{1e6 * peer[1]:.4g} ({peer[0]})" if peer else "-",
            f"{faster:.2f}" if faster else "-", _in(rate(cell), 1e12, ".0f"),
            _in(rate(cell, "dense"), 1e12, ".0f"),
            _in(of_bandwidth(cell, result["peaks"]), 0.01, ".0f"), ours.get("kernels") or "-"))
    return table(("shape", "T", "routing", "active experts", "rows per expert", "ours, µs",
                  "best peer, µs", "speedup", "ours, TFLOP/s", "dense, TFLOP/s",
                  "ours, % of copy bandwidth", "kernels"), rows)


def _participants(result: Result) -> list[str]:
    names = result["options"]["participants"]
    return table(("shape", "T", "routing", *names), [
        (c["shape"], c["tokens"], c["routing"],
         *(_microseconds(c["participants"].get(n, {})) for n in names))
        for c in result["cells"]])


def _fences(result: Result) -> list[str]:
    rows = [(cell["shape"], cell["tokens"], cell["routing"], f"{1e6 * found['beside']:.4g}",
             f"{1e6 * found['median']:.4g}", f"{ratio:.3f}")
            for cell in result["cells"] if (ratio := of_fences(cell))
            for found in [cell["participants"][CONSUMER_FENCE]]]
    return table(("shape", "T", "routing", "producer's fence, µs", "consumer's fence, µs", "ratio"),
                 rows)


def _graph_and_stream(result: Result) -> list[str]:
    """Compare CUDA graphs with stream launches, for participants that have both."""
    rows = [(c["shape"], c["tokens"], name, f"{1e6 * found['graph']['median']:.4g}",
             f"{1e6 * found['stream']['median']:.4g}")
            for c in result["cells"] if c["routing"] != "zipf"
            for name, found in c["participants"].items() if "graph" in found]
    return table(("shape", "T", "participant", "graph, µs", "stream, µs"), rows)


def _predictions(result: Result) -> list[str]:
    """Compare measured with predicted times, in cells with uniform routing."""
    rows = []
    for cell in result["cells"]:
        predicted = result.get("predictions", {}).get(cell["shape"], {}).get(str(cell["tokens"]))
        measured = time_of(cell, OURS)
        if predicted and measured and cell["routing"] != "zipf":
            rows.append((cell["shape"], cell["tokens"], f"{1e6 * predicted:.4g}",
                         f"{1e6 * measured:.4g}", f"{measured / predicted:.2f}"))
    return table(("shape", "T", "predicted, µs", "measured, µs", "measured / predicted"), rows)


def _missing(result: Result) -> list[str]:
    """List each reason once, with its cells."""
    cells_of: dict[tuple[str, str, str], list[str]] = {}
    for cell in result["cells"]:
        for name, found in cell["participants"].items():
            where = f"{cell['shape']}, T = {cell['tokens']} {cell['routing']}"
            if found["status"] != "ok":
                key = (name, found["status"], found["reason"])
                cells_of.setdefault(key, []).append(where)
            elif "no_graph" in found:
                key = (name, "no graph", found["no_graph"])
                cells_of.setdefault(key, []).append(where)
    for found in result["refused"]:
        where = found["shape"] + (f", T = {found['tokens']} {found['routing']}"
                                  if "tokens" in found else "")
        cells_of.setdefault(("all", "not measured", found["reason"]), []).append(where)
    lines = [f"- {name}: {status}: {reason} ({where[0]}"
             + (f" and {len(where) - 1} more)" if len(where) > 1 else ")")
             for (name, status, reason), where in cells_of.items()]
    return [*(lines or ["None."]), ""]


METHOD = """\
A cell is a whole layer in bf16 for T tokens: router, gate, dispatch, experts, combine, and the
shared expert if the model has one. All participants have the same weights and hidden states; before
it is timed, each participant's result is compared with float64 for tokens throughout the batch.
Hidden states are constructed so that the router selects experts drawn uniformly or by Zipf(1.0)
("natural", for gates with a bias: normally distributed hidden states). Times are between CUDA
events on one stream, medians over rounds ± the median absolute deviation. Participants are measured
in interleaved rounds; their order changes from round to round. A sample is a CUDA graph of calls
that rotate over several inputs, and over enough copies of the layer to exceed the L2 cache four
times. Participants that cannot be captured are timed as stream launches, where the launch overhead
of the host may dominate short calls; JAX, which has its own stream, is timed by the host's clock.
FLOP/s count useful operations only. Bytes are those of active experts, router, shared expert, x
and y; the copy bandwidth counts bytes read and written. `triton_grouped` is a kernel written for
this benchmark; `dense` is one matmul with as many operations as the experts, in cuBLAS: a
yardstick, not a peer. `moe_mlir_consumer_fence` is this project with `gather_fence = consumer`:
cp.async of gathered rows arrive on the mbarrier, and the consumer warps execute the proxy fence.
Predicted times are those of the compiler's model of the GPU, for uniform routing, without the
kernels whose work it does not know (`moe-compile --emit=plan` lists them)."""


def markdown(result: Result) -> str:
    lines = ["# MoE layers on a GPU", "", *_device(result), "## Summary", "",
             *summary_table(summarise(result), SUMMARY),
             "## Layers", "", *_cells(result), "## All participants, µs", "",
             *_participants(result),
             "## Proxy fence of gathered rows: producer or consumer warps", "", *_fences(result),
             "## CUDA graph and stream launches", "", *_graph_and_stream(result),
             "## Predicted and measured", "", *_predictions(result),
             "## Missing measurements", "", *_missing(result), "## Shapes", "",
             *table(("shape", "model", "H", "I", "E", "K", "shared"),
                    [(s.key, s.title, s.hidden, s.intermediate, s.experts, s.top_k, s.shared)
                     for key in result["options"]["shapes"] for s in [ALL[key]]]),
             "## Method", "", METHOD]
    return "\n".join(lines) + "\n"


def print_cell(cell: Result) -> None:
    times = ", ".join(
        f"{name} {1e6 * found['median']:.4g} µs" if found["status"] == "ok" else
        f"{name} {found['status']}: {found['reason'][:100]}"
        for name, found in cell["participants"].items())
    speed = rate(cell)
    print(f"{cell['shape']} T = {cell['tokens']} {cell['routing']}: {times}"
          + (f"; {speed / 1e12:.3g} TFLOP/s" if speed else ""), flush=True)


def write(result: Result, path: Path, plot: bool = True) -> list[Path]:
    """Write the JSON file, the report beside it and, with matplotlib, the plot."""
    written = [path, path.with_suffix(".md")]
    machine.write(path, json.dumps(result | {"summary": summarise(result)}, indent=1) + "\n")
    written[1].write_text(markdown(result))
    if not plot or not result["cells"]:
        return written
    try:
        from . import plot as plots
    except ImportError:
        return written
    written.append(path.with_suffix(".png"))
    plots.draw(result, written[-1])
    return written
