"""Summary, table and files of the results of ``./dev bench cpu``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..common.comparison import OURS, Result, best_of
from ..common.markdown import summary_table, table
from .metrics import MANY_ROWS, PEERS, fraction_of_limit, ratio, rows_per_expert, summarise

# Token counts of the short report.
SHORT_TOKENS = (1, 32, 512)

SUMMARY = {
    "ratio": ("speedup over the best peer, median times", "x"),
    # Other load on the machine increases medians more than minima.
    "ratio_of_minima": ("speedup over the best peer, minimum times", "x"),
    "limit_many_rows": (f"fraction of the roofline, at least {MANY_ROWS} rows per expert", "%"),
    "bandwidth_one_token": ("fraction of the read bandwidth, T = 1", "%"),
    "zipf_over_uniform": ("time with Zipf routing over time with uniform routing", "x"),
    "compile_s": ("time to compile a layer", "s"),
    "first_result_s": ("time from loading an artifact to the first result", "s"),
    "prepare_over_copy": ("throughput of packing weights over copying them to new pages", "x"),
    "prepare_again_over_copy": ("throughput of packing weights again over copying them", "x"),
    "memory": ("peak memory of a layer over its weights and workspace", "x"),
}


def _milliseconds(found: Result) -> str:
    """Format the median and the MAD, or the status if there is none."""
    if found.get("status") != "ok":
        return found.get("status", "-")
    return f"{1e3 * found['median']:.3g} ± {1e3 * found['mad']:.1g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _name(found: Result) -> str:
    threads = found["threads"]
    return f"{found['shape']} {found['dtype']}, {threads} thread{'s' if threads > 1 else ''}"


def _machine(result: Result) -> list[str]:
    machine, gib = result["machine"], 2**30
    lines = [
        f"{result['date']}, commit {result['commit']}. {machine['processor']} "
        f"({', '.join(machine['vectors'])}), {machine['cores']} cores, "
        f"{machine['last_level_cache'] / 2**20:.0f} MiB last-level cache, "
        f"{machine['memory'] / gib:.0f} GiB, {machine['system']}; load "
        f"average {machine['load_average']:.1f} at the start. "
        + ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + ".", ""]
    return lines + table(
        ("threads", "f32 FMA, GFLOP/s", "bf16 dot, GFLOP/s", "read, GB/s", "copy, GB/s"),
        [(p["threads"], *(f"{p[k] / 1e9:.1f}" for k in ("fma_f32", "dot_bf16", "read", "copy")))
         for p in result["peaks"]])


def _some(cells: Sequence[Result]) -> list[Result]:
    """Select the cells of the short report: the first and the last shape, with uniform routing."""
    shapes = list(dict.fromkeys(cell["shape"] for cell in cells))
    return [cell for cell in cells if cell["shape"] in (shapes[0], shapes[-1])
            and cell["tokens"] in SHORT_TOKENS and cell["routing"] == "uniform"]


def _cells(cells: Sequence[Result]) -> list[str]:
    rows = []
    for cell in cells:
        peer, faster = best_of(cell, PEERS), ratio(cell)
        rows.append((
            cell["shape"], cell["dtype"], cell["threads"], cell["tokens"], cell["routing"],
            f"{cell['active_experts']:.0f}", f"{rows_per_expert(cell):.3g}",
            _milliseconds(cell["participants"].get(OURS, {})),
            f"{1e3 * peer[1]:.3g} ({peer[0]})" if peer else "-",
            f"{faster:.2f}" if faster else "-", _percent(fraction_of_limit(cell)),
            _percent(peer and cell["limit"] / peer[1])))
    return table(("shape", "type", "threads", "T", "routing", "active experts",
                   "rows per expert", "ours, ms", "best peer, ms", "speedup", "ours of roofline",
                   "best peer of roofline"), rows)


def _participants(result: Result) -> list[str]:
    names = result["options"]["participants"]
    return table(("shape", "type", "threads", "T", "routing", *names), [
        (c["shape"], c["dtype"], c["threads"], c["tokens"], c["routing"],
         *(_milliseconds(c["participants"].get(n, {})) for n in names))
        for c in result["cells"]])


def _missing(result: Result) -> list[str]:
    """List each reason once, with its cells."""
    cells_of: dict[tuple[str, str, str], list[str]] = {}
    for cell in result["cells"]:
        for name, found in cell["participants"].items():
            if found["status"] != "ok":
                key = (name, found["status"], found["reason"])
                cells_of.setdefault(key, []).append(
                    f"{_name(cell)}, T = {cell['tokens']} {cell['routing']}")
    lines = [f"- {name}: {status}: {reason} ({where[0]}"
             + (f" and {len(where) - 1} more)" if len(where) > 1 else ")")
             for (name, status, reason), where in cells_of.items()]
    lines += [f"- {_name(found)}: not measured: {found['reason']}" for found in result["refused"]]
    return [*(lines or ["None."]), ""]


def _missing_in_short(result: Result) -> list[str]:
    """List how often each participant is missing, with the first reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in result["cells"]:
        for name, found in cell["participants"].items():
            if found["status"] != "ok":
                reasons.setdefault((name, found["status"]), []).append(found["reason"])
    lines = [f"- {name}: {status} in {len(its)} of {len(result['cells'])} cells, first: {its[0]}"
             for (name, status), its in reasons.items()]
    lines += [f"- {_name(found)}: not measured: {found['reason']}" for found in result["refused"]]
    return [*(lines or ["None."]), ""]


def _costs(result: Result) -> list[str]:
    rows = [(_name(c), *((f"error: {c['error']}", "", "", "", "", "") if "error" in c else (
        f"{c['compile_s']:.2f}", f"{c['first_result_s']:.3f}", f"{c['prepare_s']:.3f}",
        f"{c['prepare_again_s']:.3f}", f"{c['copy_s']:.3f}" if "copy_s" in c else "-",
        f"{c['weight_bytes'] / c['prepare_again_s'] / 1e9:.1f}"))) for c in result["costs"]]
    lines = table(("layer", "compile, s", "load to first result, s", "pack, s", "repack, s",
                   "copy, s", "GB/s"), rows)
    mib = 2**20
    rows = [(_name(m), *((f"error: {m['error']}", "", "", "", "") if "error" in m else (
        f"{m['weight_bytes'] / mib:.0f}", f"{m['workspace_bytes'] / mib:.2f}",
        f"{m['before_bytes'] / mib:.0f}", f"{m['peak_bytes'] / mib:.0f}",
        f"{m['private_bytes'] / mib:.0f}"))) for m in result["memory"]]
    return lines + table(("process with one layer", "weights, MiB", "workspace, MiB",
                           "baseline, MiB", "peak, MiB", "private at the end, MiB"), rows)


METHOD = """\
Each participant has a process of its own with as many processors as threads, which is stopped while
others are measured. The participants of a shape, type and thread count are measured in interleaved
rounds; their order changes from round to round. A participant more than ten times slower than the
fastest has one call and no rounds. Times are medians over calls ± the median absolute deviation; a
sample of short calls starts with a warm-up call. Weights are random; hidden states are constructed
so that the router selects experts drawn uniformly or by Zipf(1.0). Calls rotate over several inputs
and over enough copies of the layer to exceed the caches four times, so that weights are read from
memory as in a model of many layers. Before it is timed, each participant's result is compared with
float64. The roofline (the machine's limit in the plot) is the larger of two times: useful
operations over the arithmetic peak (of bf16 dot products for bf16; none for q8_0 and other
formats), and bytes of active experts, router, x and y over the read bandwidth. `ggml` keeps x, y
and the router in f32 and repacks weights, both as llama.cpp does; layers in a format have rows that
it quantised, and are compared with float64 of the decoded weights. `dense` is one matmul with as
many operations as the experts, in oneDNN: a yardstick, not a peer. Weights are packed to new pages,
which the kernel clears first; so they are compared with a copy of them to new pages by as many
threads, between two packings. As much memory was touched before the first one."""


def markdown(result: Result, all_rows: bool = False) -> str:
    """Return the report, either short or with all cells and participants."""
    cells = result["cells"]
    lines = ["# MoE layers on the CPU", "", *_machine(result), "## Summary", "",
             *summary_table(summarise(result), SUMMARY), "## Layers", ""]
    if all_rows:
        lines += [*_cells(cells), "## All participants, ms", "", *_participants(result),
                  "## Missing measurements", "", *_missing(result),
                  "## Compiling, packing, memory", "", *_costs(result)]
    else:
        some = _some(cells)
        lines += [f"{len(some)} of {len(cells)} cells; the JSON file of the run has all of "
                  "them: `./dev bench report FILE --all-rows`.", "",
                  *_cells(some), "## Missing measurements", "", *_missing_in_short(result)]
    return "\n".join([*lines, "## Method", "", METHOD]) + "\n"


def write(result: Result, path: Path, all_rows: bool = False) -> list[Path]:
    """Write the JSON file, the report beside it and, with matplotlib, the plot."""
    written = [path, path.with_suffix(".md")]
    path.write_text(json.dumps(result | {"summary": summarise(result)}, indent=1) + "\n")
    written[1].write_text(markdown(result, all_rows))
    try:
        from . import plot
    except ImportError:
        return written
    if result["cells"]:
        written.append(path.with_suffix(".png"))
        plot.draw(result, written[-1])
    return written
