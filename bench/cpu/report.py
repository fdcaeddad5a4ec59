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
    "ratio": ("time of the best peer over ours", "x"),
    # Other load on the machine increases medians more than minima.
    "ratio_of_minima": ("the same of the shortest calls", "x"),
    "limit_many_rows": (f"of the machine's limit, {MANY_ROWS} rows an expert or more", "%"),
    "bandwidth_one_token": ("of the read bandwidth, T = 1", "%"),
    "zipf_over_uniform": ("time with Zipf routing over uniform", "x"),
    "compile_s": ("seconds to compile a layer", "s"),
    "first_result_s": ("seconds from loading an artifact to the first result", "s"),
    "prepare_over_copy": ("throughput of packing weights over that of copying them", "x"),
    "prepare_again_over_copy": ("the same, of packing them again", "x"),
    "memory": ("peak memory of a layer over weights and workspace", "x"),
}


def _milliseconds(found: Result) -> str:
    """Format the median and the MAD, or the reason why there is none."""
    if found.get("status") != "ok":
        return found.get("status", "-")
    return f"{1e3 * found['median']:.3g} ± {1e3 * found['mad']:.1g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _place(found: Result) -> str:
    threads = found["threads"]
    return f"{found['shape']} {found['dtype']}, {threads} thread{'s' if threads > 1 else ''}"


def _machine(result: Result) -> list[str]:
    machine, gib = result["machine"], 2**30
    lines = [
        f"{result['date']}, commit {result['commit']}. {machine['processor']} "
        f"({', '.join(machine['vectors'])}), {machine['cores']} cores, "
        f"{machine['last_level_cache'] / 2**20:.0f} MiB last-level cache, "
        f"{machine['memory'] / gib:.0f} GiB, {machine['system']}; load "
        f"{machine['load_average']:.1f} when it began. "
        + ", ".join(f"{k} {v}" for k, v in result["versions"].items()) + ".", ""]
    return lines + table(
        ("threads", "f32 FMA, GFLOP/s", "bf16 dot, GFLOP/s", "read, GB/s", "copy, GB/s"),
        [(p["threads"], *(f"{p[k] / 1e9:.1f}" for k in ("fma_f32", "dot_bf16", "read", "copy")))
         for p in result["peaks"]])


def _some(cells: Sequence[Result]) -> list[Result]:
    """Return the cells of the short report: the first and the last shape, with uniform routing."""
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
                   "rows an expert", "ours, ms", "best peer, ms", "ratio", "ours of limit",
                   "best peer of limit"), rows)


def _participants(result: Result) -> list[str]:
    names = result["options"]["participants"]
    return table(("shape", "type", "threads", "T", "routing", *names), [
        (c["shape"], c["dtype"], c["threads"], c["tokens"], c["routing"],
         *(_milliseconds(c["participants"].get(n, {})) for n in names))
        for c in result["cells"]])


def _absences(result: Result) -> list[str]:
    """List each reason once, with its cells."""
    cells_of: dict[tuple[str, str, str], list[str]] = {}
    for cell in result["cells"]:
        for name, found in cell["participants"].items():
            if found["status"] != "ok":
                key = (name, found["status"], found["reason"])
                cells_of.setdefault(key, []).append(
                    f"{_place(cell)}, T = {cell['tokens']} {cell['routing']}")
    lines = [f"- {name}: {status}: {reason} ({where[0]}"
             + (f" and {len(where) - 1} more)" if len(where) > 1 else ")")
             for (name, status, reason), where in cells_of.items()]
    lines += [f"- {_place(found)}: not measured: {found['reason']}" for found in result["refused"]]
    return [*(lines or ["Everybody took part everywhere."]), ""]


def _absences_in_short(result: Result) -> list[str]:
    """List how often each participant is missing, with the first reason."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in result["cells"]:
        for name, found in cell["participants"].items():
            if found["status"] != "ok":
                reasons.setdefault((name, found["status"]), []).append(found["reason"])
    lines = [f"- {name}: {status} in {len(its)} of {len(result['cells'])} cells, first: {its[0]}"
             for (name, status), its in reasons.items()]
    lines += [f"- {_place(found)}: not measured: {found['reason']}" for found in result["refused"]]
    return [*(lines or ["Everybody took part everywhere."]), ""]


def _costs(result: Result) -> list[str]:
    rows = [(_place(c), *((f"error: {c['error']}", "", "", "", "") if "error" in c else (
        f"{c['compile_s']:.2f}", f"{c['first_result_s']:.3f}", f"{c['prepare_s']:.3f}",
        f"{c['prepare_again_s']:.3f}",
        f"{c['weight_bytes'] / c['prepare_again_s'] / 1e9:.1f}"))) for c in result["costs"]]
    lines = table(("layer", "compile, s", "load to first result, s", "pack, s", "again, s", "GB/s"),
                   rows)
    mib = 2**20
    rows = [(_place(m), *((f"error: {m['error']}", "", "", "", "") if "error" in m else (
        f"{m['weight_bytes'] / mib:.0f}", f"{m['workspace_bytes'] / mib:.2f}",
        f"{m['before_bytes'] / mib:.0f}", f"{m['peak_bytes'] / mib:.0f}",
        f"{m['private_bytes'] / mib:.0f}"))) for m in result["memory"]]
    return lines + table(("process with one layer", "weights, MiB", "workspace, MiB",
                           "before, MiB", "peak, MiB", "private at the end, MiB"), rows)


METHOD = """\
All participants of a shape, type and thread count share one process on as many processors as
threads, and take turns; who begins, and who follows whom, changes from round to round. Who takes
more than ten times as long as the fastest has one call and no turns. Times are medians of calls ±
the median distance from the median; a turn of short calls begins with one that is not timed.
Weights come from a seed, hidden states are such that the router itself chooses experts drawn
uniformly or by Zipf(1.0). Calls go through several inputs and through as many copies of the layer
as the caches need to be filled four times over, so that weights come from memory as they do in a
model of many layers. Before it is timed, each participant's numbers are compared with float64. The
limit is the larger of useful operations over the arithmetic peak (of bf16 dot products for bf16)
and of the bytes of active experts, router, x and y over the read bandwidth. `dense` is one product
with the experts' operations, in oneDNN: a yardstick, no peer."""


def markdown(result: Result, all_rows: bool = False) -> str:
    """Return the report, either short or with all cells and participants."""
    cells = result["cells"]
    lines = ["# MoE layers on the CPU", "", *_machine(result), "## Summary", "",
             *summary_table(summarise(result), SUMMARY), "## Layers", ""]
    if all_rows:
        lines += [*_cells(cells), "## All participants, ms", "", *_participants(result),
                  "## Who did not take part", "", *_absences(result),
                  "## Compiling, packing, memory", "", *_costs(result)]
    else:
        some = _some(cells)
        lines += [f"{len(some)} of {len(cells)} cells; the JSON file of the run has all of "
                  "them: `./dev bench report FILE --all-rows`.", "",
                  *_cells(some), "## Who did not take part", "", *_absences_in_short(result)]
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
