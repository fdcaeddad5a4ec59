"""Hugging Face transformers: the MoE block of the model on PyTorch's CPU kernels.

The variants are those of its experts interface; each runs the whole block with its router.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from transformers import AutoConfig

from ...common.data import NUMPY_DTYPES, Weights
from ...common.shapes import DTYPE_BYTES, Shape
from . import Case, Unavailable, select

BLOCKS = {"granitemoe": "GraniteMoeMoE", "olmoe": "OlmoeSparseMoeBlock",
          "qwen3_moe": "Qwen3MoeSparseMoeBlock", "deepseek_v2": "DeepseekV2Moe",
          "mixtral": "MixtralSparseMoeBlock"}

# Maps the parameters of blocks to those of Weights. The router is identified by its class.
PARAMETERS = {"experts.gate_up_proj": "gate_up_proj", "experts.down_proj": "down_proj",
              "gate.weight": "router", "router.weight": "router",
              "shared_experts.gate_proj.weight": "shared_gate_proj",
              "shared_experts.up_proj.weight": "shared_up_proj",
              "shared_experts.down_proj.weight": "shared_down_proj"}


def as_torch(array: np.ndarray) -> torch.Tensor:
    """Return a tensor that shares the array's memory."""
    if array.dtype == NUMPY_DTYPES["bf16"]:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_f32(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.float32).numpy()


def make_block(shape: Shape, weights: Weights, implementation: str) -> torch.nn.Module:
    """Build the block of the shape's model on these weights, without copies."""
    settings = dict(shape.config)
    model_type = settings.pop("model_type")
    config = AutoConfig.for_model(model_type, **settings)
    config._experts_implementation = implementation
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    with torch.device("meta"):
        block = getattr(module, BLOCKS[model_type])(config)
    named = weights.named()
    state = {key: as_torch(named[PARAMETERS[key]]) for key in block.state_dict()}
    block.load_state_dict(state, assign=True)
    return block.eval()


class Blocks:
    def __init__(self, case: Case, implementation: str):
        torch.set_num_threads(case.threads)
        self.case, self.implementation = case, implementation
        try:
            self.blocks = [make_block(case.shape, w, implementation) for w in case.layers]
        except KeyError as error:
            raise Unavailable(f"this release of transformers has other parameters: {error}")

    def scratch(self, tokens: int) -> int:
        if self.implementation != "batched_mm":
            return 0
        # It copies the weights of each choice of each token.
        shape = self.case.shape
        return tokens * shape.top_k * shape.expert_parameters * DTYPE_BYTES[self.case.dtype]

    def load(self, inputs: Sequence[np.ndarray]) -> None:
        self.inputs = [as_torch(x)[None] for x in inputs]

    @torch.inference_mode()
    def step(self, number: int) -> None:
        layer, x = select(number, len(self.blocks), len(self.inputs))
        self.result = self.blocks[layer](self.inputs[x])

    def output(self) -> np.ndarray:
        return as_f32(self.result[0])


def open(case: Case, implementation: str) -> Blocks:
    return Blocks(case, implementation)
