"""A layer of a checkpoint whose experts are spread over the ranks of PyTorch.

    torchrun --nproc-per-node 2 python/examples/expert_parallel.py
    torchrun --nproc-per-node 4 python/examples/expert_parallel.py --hf DIR --layer 3

Each rank reads its own experts, and calls the layer with its own tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch.distributed as dist

import moe

TINY = Path(__file__).resolve().parents[2] / "test" / "data" / "tiny-mixtral"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hf", type=Path, default=TINY, help="directory of a checkpoint")
    parser.add_argument("--layer", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=100, help="tokens of the last rank")
    parser.add_argument("--output", type=Path, help="directory for what each rank had and got")
    arguments = parser.parse_args()

    dist.init_process_group("gloo")
    group = moe.parallel.Group(dist.group.WORLD, deadline=60, num_threads=1)
    module = moe.compile(arguments.hf, layer=arguments.layer, group=group)
    layer = module.layer(arguments.hf)

    info = module.signature().inputs[0]
    tokens = arguments.tokens * group.rank // max(group.size - 1, 1)  # the first has none
    x = np.random.default_rng(group.rank).standard_normal((tokens, info.shape[1]), np.float32)
    y = layer(x)
    if arguments.output is not None:
        np.savez(arguments.output / f"rank{group.rank}.npz", x=x, y=y)
    print(f"rank {group.rank} of {group.size}: {layer.weight_bytes} bytes of weights, "
          f"{tokens} tokens, {layer.exchange}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
