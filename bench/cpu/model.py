"""``./dev bench model``: a whole transformers model, with compiled experts or its own.

A decoder in the shape of Granite-3.0-1B with fewer layers and random weights reads a prompt
(prefill) and then one token after another (decode). Only the implementation of its experts
differs between participants, which are interleaved; the tokens are the same for all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Must precede the import of numpy and torch, which start threads.
TASK = json.load(sys.stdin) if __name__ == "__main__" else {}
if TASK:
    os.sched_setaffinity(0, TASK["cpus"])
    os.environ["OMP_NUM_THREADS"] = str(TASK["threads"])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ..common import machine, timing
from ..common.options import counts, names_of
from ..common.shapes import DEFAULT_DTYPES

CONFIG = machine.ROOT / "test" / "data" / "granite-3.0-1b-a400m" / "config.json"
IMPLEMENTATIONS = ("eager", "grouped_mm", "moe_mlir")
# The check of logits against a wider type: number of tokens, and the tolerance in
# multiples of the error of eager.
CHECKED_TOKENS = 32
ALLOWED_ERRORS = 3.0
WIDER = {"bf16": "f32", "f32": "f64"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE",
                        default=machine.ROOT / "build" / "bench" / "model.json",
                        help="the results (default build/bench/model.json)")
    parser.add_argument("--layers", type=int, default=8, metavar="N")
    parser.add_argument("--prompt", type=int, default=512, metavar="T",
                        help="prompt tokens (default %(default)s)")
    parser.add_argument("--decode", type=int, default=32, metavar="T",
                        help="decoded tokens (default %(default)s)")
    parser.add_argument("--dtypes", type=names_of(DEFAULT_DTYPES), default=list(DEFAULT_DTYPES),
                        metavar="A,B", help="any of f32, bf16")
    parser.add_argument("--threads", type=counts, default=None, metavar="N,N",
                        help="thread counts (default 1,2, up to the number of processors)")
    parser.add_argument("--implementations", type=names_of(IMPLEMENTATIONS),
                        default=list(IMPLEMENTATIONS), metavar="A,B",
                        help=f"any of {', '.join(IMPLEMENTATIONS)}")
    parser.add_argument("--budget", type=float, default=6.0, metavar="MINUTES",
                        help="approximate time limit of the run (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> int:
    threads = arguments.threads or [n for n in (1, 2) if n <= len(os.sched_getaffinity(0))]
    groups = [(dtype, n) for dtype in arguments.dtypes for n in threads]
    budget = timing.Budget(60 * arguments.budget, [1.0] * len(groups))
    result: dict[str, Any] = {
        "format": 1, "benchmark": "model", "commit": machine.commit(), "date": machine.now(),
        "machine": machine.describe(), "versions": machine.versions(), "groups": [],
        "options": {k: getattr(arguments, k) for k in
                    ("layers", "prompt", "decode", "dtypes", "implementations", "seed")}}
    for dtype, n in groups:
        seconds = budget.next()
        task = result["options"] | {"dtype": dtype, "threads": n, "cpus": machine.cpus(n),
                                    "seconds": seconds}
        found: dict[str, Any] = {"dtype": dtype, "threads": n}
        try:
            done = subprocess.run([sys.executable, "-m", __name__], input=json.dumps(task),
                                  stdout=subprocess.PIPE, text=True, timeout=3 * seconds + 120)
            if done.returncode:
                found["error"] = f"the process ended with status {done.returncode}"
            else:
                found["implementations"] = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            found["error"] = "the process timed out and was killed"
        result["groups"].append(found)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    text = markdown(result)
    arguments.json.with_suffix(".md").write_text(text)
    print(text)
    return 0


def markdown(result: dict[str, Any]) -> str:
    options = result["options"]
    lines = ["# A whole model on the CPU", "",
             f"{result['date']}, commit {result['commit']}, {result['machine']['processor']}, load "
             f"average {result['machine']['load_average']:.1f} at the start; {options['layers']} "
             f"layers, {options['prompt']} prompt tokens, {options['decode']} decoded tokens.", "",
             "| type | threads | experts | prefill, tokens/s | decode, tokens/s | error of "
             "logits |", "| --- | --- | --- | --- | --- | --- |"]
    for group in result["groups"]:
        start = f"| {group['dtype']} | {group['threads']} | "
        if "error" in group:
            lines.append(start + f"- | {group['error']} | | |")
        for name, found in group.get("implementations", {}).items():
            if found["status"] != "ok":
                lines.append(start + f"{name} | {found['status']}: {found['reason']} | | |")
                continue
            prefill = options["prompt"] / found["prefill"]["median"]
            decode = 1 / found["decode"]["median"]
            lines.append(start + f"{name} | {prefill:.1f} | {decode:.1f} | {found['error']:.1e} |")
    return "\n".join(lines) + "\n"


# -- the measuring process, one for each type and thread count --------------


def measure(task: dict[str, Any]) -> dict[str, Any]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(task["threads"])
    torch.manual_seed(task["seed"])
    types = {"f32": torch.float32, "bf16": torch.bfloat16, "f64": torch.float64}
    settings = json.loads(CONFIG.read_text())
    config = AutoConfig.for_model(settings.pop("model_type"),
                                  **settings | {"num_hidden_layers": task["layers"]})
    config._experts_implementation = "eager"
    begin = time.monotonic()
    model = AutoModelForCausalLM.from_config(config, dtype=types[task["dtype"]]).eval()
    tokens = torch.randint(0, config.vocab_size, (1, task["prompt"] + task["decode"]))

    def logits() -> torch.Tensor:
        return model(tokens[:, :CHECKED_TOKENS]).logits.double()

    results: dict[str, Any] = {}
    with torch.inference_mode():
        own = logits()
        model.to(types[WIDER[task["dtype"]]])
        expected = logits()
        model.to(types[task["dtype"]])
        scale = expected.abs().max()
        allowed = ALLOWED_ERRORS * float((own - expected).abs().max() / scale)
        for name in task["implementations"]:
            try:
                _switch(model, name)
                error = float((logits() - expected).abs().max() / scale)
                good = error <= allowed
                results[name] = {"status": "ok" if good else "wrong", "error": error}
                if not good:
                    results[name]["reason"] = f"error {error:.1e}, allowed {allowed:.1e}"
            except ImportError as error:
                results[name] = {"status": "unavailable", "reason": str(error)}
            except Exception as error:  # noqa: BLE001 -- reported, and the others still run
                results[name] = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        _interleave(model, tokens, task, results, begin + task["seconds"])
    return results


def _switch(model: Any, name: str) -> None:
    if name == "moe_mlir":
        from moe.integrations import transformers as compiled_experts

        compiled_experts.register()
    model.set_experts_implementation(name)


def _interleave(model: Any, tokens: Any, task: dict[str, Any], results: dict[str, Any],
                end: float) -> None:
    """Measure each implementation once per round, until the time limit."""
    names = [name for name, found in results.items() if found["status"] == "ok"]
    times: dict[str, dict[str, list[float]]] = {n: {"prefill": [], "decode": []} for n in names}
    rounds = 0
    while rounds < timing.MAX_ROUNDS and (rounds == 0 or time.monotonic() < end):
        start = rounds % max(len(names), 1)
        for name in names[start:] + names[:start]:
            _switch(model, name)
            prefill, decode = _generate(model, tokens, task["prompt"])
            times[name]["prefill"].append(prefill)
            times[name]["decode"] += decode
        rounds += 1
    for name in names:
        for phase, seconds in times[name].items():
            results[name][phase] = timing.summarise(seconds, rounds).as_dict()


def _generate(model: Any, tokens: Any, prompt: int) -> tuple[float, list[float]]:
    """Return the seconds of the prefill, and of each decoded token."""

    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        begin = time.perf_counter()
        return call(), time.perf_counter() - begin

    output, prefill = timed(lambda: model(tokens[:, :prompt], use_cache=True, logits_to_keep=1))
    decode = []
    for position in range(prompt, tokens.shape[1]):
        output, seconds = timed(lambda at=position, cache=output.past_key_values: model(
            tokens[:, at:at + 1], past_key_values=cache, use_cache=True))
        decode.append(seconds)
    return prefill, decode


if __name__ == "__main__":
    machine.end_with_parent()
    print(json.dumps(measure(TASK)))
