"""Compile Mixture-of-Experts layers, run them, and compare with transformers.

    ./dev demo                         the two layers of a small trained model, then
                                       one layer in the shape of Granite-3.0-1B-A400M
    ./dev demo --hf DIR --layer 3      a layer of a checkpoint of yours, on random
                                       hidden states
    ./dev demo --ep 4                  the trained layers over four ranks (threads),
                                       with the bits of one rank

The trained model ships with the hidden states of real text at each layer and with
what transformers computed from them, so nothing but numpy is needed; where
transformers is installed (after ./dev test), the last layer is compared with it too.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import moe
import moe.parallel
from moe._dlpack import numpy_dtype

DATA = Path(__file__).resolve().parents[2] / "test" / "data"
OPERATIONS = ("linalg.matmul", "moe.gate", "moe.dispatch", "moe.expert", "moe.combine")


def title(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def show_operations(checkpoint: Path, layer: int, dtype: str | None) -> None:
    """The operations of the layer, one a line, without types and parameters."""
    command = [str(moe.find_compiler()), "--emit=mlir", f"--hf={checkpoint}", f"--layer={layer}"]
    if dtype:
        command.append(f"--dtype={dtype}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise moe.MoEError(moe.INVALID_ARGUMENT, done.stderr.rstrip())
    for line in done.stdout.splitlines():
        if any(f" {name} " in line for name in OPERATIONS):
            # Six columns deep is the region of an expert.
            depth = 2 if line.startswith(" " * 6) else 0
            line = line.strip().split(" indexing_maps")[0].split(" params(")[0]
            line = re.sub(r" : tensor<[^()]*\)", ")", line)
            print(" " * (4 + depth) + line.split(" : ")[0])


def show_tokens_per_expert(layer: moe.Layer, width: int = 40) -> None:
    for counts in (each.tokens_per_expert for each in layer.statistics()):
        top = max(int(counts.max()), 1)
        for expert, count in enumerate(counts):
            bar = "█" * round(width * int(count) / top) or ("▏" if count else "")
            print(f"    expert {expert:3d} {int(count):6d} {bar}")


def show_error(actual: np.ndarray, expected: np.ndarray, oracle: str, tolerance: float) -> bool:
    error = float(np.abs(actual.astype(np.float64) - expected).max()) if actual.size else 0.0
    scale = float(np.abs(expected).max()) if actual.size else 0.0
    good = error <= tolerance * scale
    print(f"    largest error against {oracle}: {error:.2e} (values up to {scale:.3g})"
          f"{'' if good else '   EXPECTED LESS'}")
    return good


def measure(layer: moe.Layer, x: np.ndarray, seconds: float = 1.0) -> tuple[float, int]:
    """Median time of a call in seconds, after one to warm up, and how many calls."""
    layer(x)
    times: list[float] = []
    while not times or (sum(times) < seconds and len(times) < 20):
        start = time.perf_counter()
        layer(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times), len(times)


def show_time(layer: moe.Layer, x: np.ndarray) -> None:
    median, calls = measure(layer, x)
    print(f"    T = {len(x):4d}: {1e3 * median:10.2f} ms  {len(x) / median:10.0f} tokens/s"
          f"   workspace {layer.workspace_bytes(len(x)) / 2**20:8.2f} MiB   ({calls} calls)")


def compile_layer(checkpoint: Path, number: int, dtype: str | None = None) -> moe.Module:
    start = time.perf_counter()
    module = moe.compile(checkpoint, layer=number, dtype=dtype, cache=False)
    print(f"    compiled in {time.perf_counter() - start:.2f} s")
    return module


def trained_layers() -> bool:
    good = True
    checkpoint = DATA / "tiny-mixtral"
    for number in range(json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]):
        title(f"Layer {number} of a small Mixtral trained on the King James Bible")
        show_operations(checkpoint, number, None)
        layer = compile_layer(checkpoint, number).layer(checkpoint)
        x = np.load(checkpoint / f"layer{number}.input.npy")
        y = layer(x)
        print(f"    tokens per expert, for {len(x)} bytes of text it has not seen:")
        show_tokens_per_expert(layer)
        expected = np.load(checkpoint / f"layer{number}.output.npy")
        good &= show_error(y, expected, "transformers", 2e-6)
        show_time(layer, x)
    return good


def granite_in_float64(x: np.ndarray, weights: dict[str, np.ndarray], top_k: int) -> np.ndarray:
    """The layer as its paper says it, in float64: an oracle that shares no code."""
    x = x.astype(np.float64)
    logits = x @ weights["router"].T.astype(np.float64)
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    scores = np.exp(np.take_along_axis(logits, chosen, 1))
    scores /= scores.sum(1, keepdims=True)
    y = np.zeros_like(x)
    for expert in np.unique(chosen):
        token, choice = np.nonzero(chosen == expert)
        gate, up = np.split(x[token] @ weights["gate_up_proj"][expert].T.astype(np.float64), 2, 1)
        hidden = gate / (1 + np.exp(-gate)) * up
        rows = hidden @ weights["down_proj"][expert].T.astype(np.float64)
        np.add.at(y, token, scores[token, choice, None] * rows)
    return y


def granite_in_transformers(x: np.ndarray, weights: dict[str, np.ndarray],
                            directory: Path) -> np.ndarray | None:
    """What transformers' own module computes, where it is installed."""
    try:
        import torch
        from transformers import GraniteMoeConfig
        from transformers.models.granitemoe.modeling_granitemoe import GraniteMoeMoE
    except ImportError:
        return None
    config = GraniteMoeConfig.from_pretrained(directory)
    config._experts_implementation = "eager"
    module = GraniteMoeMoE(config).float().eval()
    parameters = {"router.weight": "router", "experts.gate_up_proj": "gate_up_proj",
                  "experts.down_proj": "down_proj"}
    if set(module.state_dict()) != set(parameters):
        return None  # another release, with another layout
    module.load_state_dict({name: torch.from_numpy(weights[source])
                            for name, source in parameters.items()})
    with torch.no_grad():
        return module(torch.from_numpy(x)[None])[0].numpy()


def granite(token_counts: list[int], seed: int) -> bool:
    title("One layer in the shape of Granite-3.0-1B-A400M, weights drawn from a seed")
    directory = DATA / "granite-3.0-1b-a400m"
    show_operations(directory, 0, "f32")
    module = compile_layer(directory, 0, "f32")
    generator = np.random.default_rng(seed)
    weights = {info.name: generator.standard_normal(info.shape, np.float32) * np.float32(0.02)
               for info in module.signature().weights}
    layer = module.layer(weights)
    hidden = module.signature().inputs[0].shape[1]
    top_k = json.loads((directory / "config.json").read_text())["num_experts_per_tok"]
    x = generator.standard_normal((max(token_counts), hidden), np.float32)
    y = layer(x)
    print(f"    tokens per expert at T = {len(x)}:")
    show_tokens_per_expert(layer)
    good = show_error(y, granite_in_float64(x, weights, top_k), "float64 in numpy", 1e-5)
    expected = granite_in_transformers(x, weights, directory)
    if expected is not None:
        good &= show_error(y, expected, "transformers", 1e-5)
    print("    one artifact, any number of tokens:")
    for tokens in token_counts:
        show_time(layer, x[:tokens])
    return good


def checkpoint_layer(directory: Path, number: int, token_counts: list[int], seed: int) -> None:
    title(f"Layer {number} of {directory}")
    show_operations(directory, number, None)
    layer = compile_layer(directory, number).layer(directory)
    info = layer.signature.inputs[0]
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((max(token_counts), info.shape[1]), np.float32)
    x = x.astype(numpy_dtype(info.dtype))
    layer(x)
    print(f"    tokens per expert at T = {len(x)}, random hidden states:")
    show_tokens_per_expert(layer)
    for tokens in token_counts:
        show_time(layer, x[:tokens])


def spread_layers(ranks: int) -> bool:
    """The layers of the trained model, whose experts are spread over threads."""
    checkpoint, good = DATA / "tiny-mixtral", True
    count = json.loads((checkpoint / "config.json").read_text())["num_hidden_layers"]
    for number in range(count):
        title(f"Layer {number} of a small Mixtral over {ranks} ranks")
        x = np.load(checkpoint / f"layer{number}.input.npy")
        alone = compile_layer(checkpoint, number).layer(checkpoint)
        expected = alone(x)
        options = [f"--parallel=ranks={ranks}"]
        artifact = moe.compile(checkpoint, layer=number, options=options).path
        shares = np.array_split(x, ranks)

        def on_rank(communicator: moe.parallel.Communicator) -> tuple[np.ndarray, str]:
            group = moe.parallel.Group(communicator, num_threads=1)
            layer = moe.load(artifact, group=group).layer(checkpoint)
            y = layer(shares[group.rank])
            moved = layer.exchange
            return y, (f"    rank {group.rank}: {len(y):4d} tokens, {moved.rows_received:4d} came "
                       f"for its experts, {moved.bytes_sent / 1024:6.1f} KiB sent to others")

        with ThreadPoolExecutor(ranks) as threads:
            results = list(threads.map(on_rank, moe.parallel.threads(ranks)))
        for _, line in results:
            print(line)
        y = np.concatenate([each for each, _ in results])
        same = y.tobytes() == expected.tobytes()
        good &= same
        print(f"    {'the bits' if same else 'NOT THE BITS'} of one rank on all {len(x)} tokens")
    print("\n    over processes: mpirun -n 4 moe-run layer.moe --ep (docs/mpi.md), torchrun "
          "(docs/parallel.md)")
    return good


def parse_token_counts(text: str) -> list[int]:
    counts = [int(count) for count in text.split(",")]
    if min(counts) < 0:
        raise ValueError(text)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hf", type=Path, metavar="DIR",
                        help="run a layer of this checkpoint instead")
    parser.add_argument("--layer", type=int, metavar="N", help="which layer (default 0)")
    parser.add_argument("--ep", type=int, metavar="N",
                        help="spread the experts over N ranks instead (expert parallelism)")
    parser.add_argument("--tokens", type=parse_token_counts, default="1,16,64",
                        metavar="T,T,...", help="token counts to time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.layer is not None and not arguments.hf:
        parser.error("--layer needs --hf")
    if arguments.ep is not None and (arguments.ep < 1 or arguments.hf):
        parser.error(f"--ep is {arguments.ep}, expected at least 1, without --hf")
    try:
        if arguments.hf:
            directory = arguments.hf.parent if arguments.hf.is_file() else arguments.hf
            checkpoint_layer(directory, arguments.layer or 0, arguments.tokens, arguments.seed)
            return 0
        if arguments.ep:
            good = spread_layers(arguments.ep)
        else:
            good = trained_layers()
            good &= granite(arguments.tokens, arguments.seed)
    except moe.MoEError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    title("every result as expected" if good else "A RESULT DIFFERS FROM ITS ORACLE")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
