#!/usr/bin/env python3
"""Train small models of transformers with compiled experts and with transformers' own.

    train.py                        a Mixtral and a DeepSeek-V3, each with three implementations
    train.py --experts moe_mlir     with compiled experts alone
    train.py --plot curves.png      and draw what --out has (needs matplotlib)

Every run has the same weights and the same text, the King James Bible, byte by byte: the `bible`
command (Debian packages bible-kjv and bible-kjv-text), or its output in --text. It is a process of
its own, for its peak memory. The Mixtral balances by the loss of its router, the DeepSeek-V3 by
the bias of its router.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from train_tiny_mixtral import WINDOW, read_text, to_ids

import moe.integrations.transformers as compiled_experts

EXPERTS = [compiled_experts.NAME, "grouped_mm", "eager"]
BATCH, LEARNING_RATE, BIAS_RATE = 8, 2e-3, 1e-3
COMMON = dict(vocab_size=256, hidden_size=128, num_attention_heads=4, initializer_range=0.05,
              max_position_embeddings=WINDOW, bos_token_id=None, eos_token_id=None)


def mixtral() -> torch.nn.Module:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(
        **COMMON, intermediate_size=192, num_hidden_layers=2, num_key_value_heads=2,
        num_local_experts=8, num_experts_per_tok=2, router_aux_loss_coef=0.02,
        output_router_logits=True))


def deepseek_v3() -> torch.nn.Module:
    return transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(
        **COMMON, intermediate_size=256, moe_intermediate_size=96, num_hidden_layers=3,
        num_key_value_heads=4, first_k_dense_replace=1, n_routed_experts=16, n_shared_experts=1,
        num_experts_per_tok=4, n_group=4, topk_group=2, q_lora_rank=None, kv_lora_rank=32,
        qk_rope_head_dim=16, qk_nope_head_dim=16, v_head_dim=32, routed_scaling_factor=1.0))


MODELS = {"mixtral": mixtral, "deepseek_v3": deepseek_v3}


def loads_of(model: torch.nn.Module, routes: compiled_experts.Routes) -> dict[str, np.ndarray]:
    """The choices that fell on each expert of each layer."""
    return {name: sum(np.bincount(call.ids.ravel(), minlength=model.get_submodule(name).num_experts)
                      for call in calls) for name, calls in routes.items()}


def balance(model: torch.nn.Module, loads: dict[str, np.ndarray]) -> None:
    """Raise the biases of experts with less than the mean load, and lower the others'."""
    for name, load in loads.items():
        router = model.get_submodule(name.rpartition(".")[0]).gate
        if hasattr(router, "e_score_correction_bias"):
            router.e_score_correction_bias += BIAS_RATE * torch.from_numpy(
                np.sign(load.mean() - load)).float()


@torch.no_grad()
def heldout_loss(model: torch.nn.Module, text: bytes) -> float:
    """The mean cross entropy of each byte but the first of windows of the text."""
    model.eval()
    windows = to_ids(text).reshape(-1, BATCH, WINDOW)
    losses = [torch.nn.functional.cross_entropy(
        model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1),
        ids[:, 1:].flatten()).item() for ids in windows]
    return sum(losses) / len(losses)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def train(name: str, experts: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one model with one implementation of experts."""
    _, text, heldout = read_text(options.text)
    ids, generator = to_ids(text), torch.Generator().manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    compiled_experts.register()
    model = MODELS[name]().train()
    model.set_experts_implementation(experts)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    losses, seconds, loads = [], [], []
    before = peak_bytes()
    for step in range(1, options.steps + 1):
        first = torch.randint(len(ids) - WINDOW + 1, (BATCH, 1), generator=generator)
        batch = ids[first + torch.arange(WINDOW)]
        start = time.process_time()
        with compiled_experts.record(model) as routes:
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
        losses.append(loss.item())
        counts = loads_of(model, routes)
        balance(model, counts)
        loads.append({layer: load.tolist() for layer, load in counts.items()})
        if step % 50 == 0:
            print(f"{name} {experts}: step {step}, loss {loss.item():.4f}", flush=True)
    peak = peak_bytes()
    return {"model": name, "experts": experts, "losses": losses, "seconds": seconds,
            "loads": loads, "peak_bytes": peak, "bytes_before": before,
            "heldout_perplexity": math.exp(heldout_loss(model, heldout))}


def report(results: list[dict[str, Any]]) -> None:
    """Print a line for each run, and how far the curves of a model are apart."""
    columns = ["model", "experts", "loss of the last 20 steps", "held-out perplexity",
               "ms of the processor a step", "MiB above the start", "largest load / mean"]
    print(f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|")
    for run in results:
        last = [np.array(list(step.values())) for step in run["loads"][-20:]]
        worst = np.mean([(load.max(-1) / load.mean(-1)).max() for load in last])
        print(f"| {run['model']} | {run['experts']} | {np.mean(run['losses'][-20:]):.4f} "
              f"| {run['heldout_perplexity']:.4f} "
              f"| {1e3 * statistics.median(run['seconds'][1:]):.0f} "
              f"| {(run['peak_bytes'] - run['bytes_before']) / 2**20:.0f} | {worst:.2f} |")
    for name, base, others in by_model(results):
        for other in others:
            apart = differences(other, base)
            print(f"{name}: {other['experts']} and {base['experts']}: {apart.mean():.1e} apart in "
                  f"the mean, {apart.max():.1e} at most")


def by_model(results: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], list[Any]]]:
    """For each model: the run with transformers' grouped experts, or the last, and the others."""
    found = []
    for name in dict.fromkeys(run["model"] for run in results):
        runs = [run for run in results if run["model"] == name]
        base = next((run for run in runs if run["experts"] == "grouped_mm"), runs[-1])
        found.append((name, base, [run for run in runs if run is not base]))
    return found


def differences(run: dict[str, Any], base: dict[str, Any]) -> np.ndarray:
    """How far the losses of two runs are apart, in each step of both."""
    return np.array([abs(a - b) for a, b in zip(run["losses"], base["losses"])])


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw losses, how far they are apart, and the load of the first layer's experts."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = by_model(results)
    figure, axes = plt.subplots(3, len(models), figsize=(5 * len(models), 7.5), squeeze=False,
                                layout="constrained")
    for column, (name, base, others) in zip(axes.T, models):
        column[0].set_title(name)
        for run in (base, *others):
            column[0].plot(run["losses"], label=run["experts"], linewidth=0.9)
        for run in others:
            column[1].semilogy(differences(run, base), linewidth=0.9,
                               label=f"{run['experts']} − {base['experts']}")
        ours = next((r for r in others if r["experts"] == compiled_experts.NAME), base)
        load = np.array([next(iter(step.values())) for step in ours["loads"]], float)
        load /= load.mean(1, keepdims=True)
        image = column[2].imshow(load.T, aspect="auto", vmin=0, vmax=2, cmap="coolwarm",
                                 interpolation="nearest")
        figure.colorbar(image, ax=column[2], label="load / mean")
        for axis, label in zip(column, ("loss", "|difference of losses|", "expert")):
            axis.set_xlabel("step")
            axis.set_ylabel(label)
        column[0].legend()
        if others:
            column[1].legend(loc="upper left")
    figure.savefig(path, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=MODELS, help="(default: each)")
    parser.add_argument("--experts", action="append", help=f"(default: each of {EXPERTS})")
    parser.add_argument("--steps", type=int, default=250, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--text", type=Path, help="the output of `bible` (default: run it)")
    parser.add_argument("--out", type=Path, default=Path("runs"),
                        help="folder of the results (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the results of --out")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        result = train(options.model[-1], options.experts[-1], options)
        path = options.out / f"{result['model']}-{result['experts']}.json"
        path.write_text(json.dumps(result))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    if options.plot is None:
        for name in options.model or MODELS:
            for experts in options.experts or EXPERTS:
                subprocess.run([sys.executable, __file__, *sys.argv[1:], "--here",
                                f"--model={name}", f"--experts={experts}"], check=True)
    results = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]
    report(results)
    if options.plot is not None:
        plot(results, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
