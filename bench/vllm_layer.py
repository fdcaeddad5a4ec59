"""Time vLLM's fused experts on the CPU beside compiled ones, in turns: one layer, no router.

    .venv-vllm/bin/python -m bench.vllm_layer [--tokens 1,32,128] [--seconds 20]

`./dev check vllm` makes the environment.  Every round times both in a random order on the same
rows and routes, which change from round to round.  Threads are vLLM's for both: PyTorch's.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.layers.fused_moe import FusedMoEFactory

import moe.integrations.vllm as compiled_experts

# Qwen3-30B-A3B
HIDDEN, INNER, EXPERTS, TOP_K = 2048, 768, 128, 8


def create(asked: bool, dtype: torch.dtype, name: str) -> torch.nn.Module:
    config = VllmConfig(additional_config={"moe_mlir": asked})
    with set_current_vllm_config(config):
        layer = FusedMoEFactory(num_experts=EXPERTS, top_k=TOP_K, hidden_size=HIDDEN,
                                intermediate_size=INNER, params_dtype=dtype,
                                prefix=name).routed_experts
    generator = torch.Generator().manual_seed(0)
    for weight in (layer.w13_weight, layer.w2_weight):
        for expert in weight.data:
            expert.copy_(torch.randn(expert.shape, generator=generator) / expert.shape[-1] ** 0.5)
    layer.quant_method.process_weights_after_loading(layer)
    return layer


def seconds(layer: torch.nn.Module, *inputs: torch.Tensor) -> float:
    start = time.perf_counter()
    layer.forward_modular(*inputs)
    return time.perf_counter() - start


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", default="1,32,128")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--seconds", type=float, default=20, help="for each number of tokens")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    compiled_experts.register()
    with tempfile.TemporaryDirectory() as folder, set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder}/store", 0, "gloo")
        initialize_model_parallel(1, 1)
    layers = {name: create(name == "compiled", dtype, name) for name in ("vllm", "compiled")}
    print(f"{dtype}, {torch.get_num_threads()} threads; milliseconds, median and quartiles")
    with torch.inference_mode():
        for tokens in map(int, arguments.tokens.split(",")):
            times: dict[str, list[float]] = {name: [] for name in layers}
            end, warm = time.perf_counter() + arguments.seconds, 3
            while time.perf_counter() < end or len(times["vllm"]) < 10:
                x = torch.randn(tokens, HIDDEN).to(dtype)
                logits = torch.randn(tokens, EXPERTS)
                scales, ids = torch.topk(torch.softmax(logits, -1), TOP_K)
                for name in random.sample(list(layers), 2):
                    taken = seconds(layers[name], x, scales, ids.to(torch.int32))
                    if warm <= 0:
                        times[name].append(1e3 * taken)
                warm -= 1
            ratios = [own / ours for own, ours in zip(times["vllm"], times["compiled"])]
            print(f"T = {tokens}: vllm {quartiles(times['vllm'])}, compiled "
                  f"{quartiles(times['compiled'])}, ratio {quartiles(ratios)}, "
                  f"{len(ratios)} rounds", flush=True)


if __name__ == "__main__":
    main()
