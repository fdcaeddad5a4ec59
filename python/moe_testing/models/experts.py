"""Experts modules of transformers of a small size, with weights from a seed."""

from __future__ import annotations

import importlib
import re
import types
from pathlib import Path

import pytest
import torch
import transformers

import moe
import moe.integrations.transformers as ce

H, I, E, K, T = 12, 10, 5, 3, 17
# Some tens of roundings of f32.
F32 = 2e-6


class Softmax(torch.nn.Module):
    def forward(self, x):
        return torch.softmax(x, -1)


class Shift(torch.nn.Module):
    def forward(self, x):
        return torch.roll(x, 1, -1)


def expect(message: str):
    return pytest.raises(moe.MoEError, match=re.escape(message))


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.double(), expected.double()
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# -- every class of experts ---------------------------------------------------

CONFIG = dict(
    hidden_size=H, moe_hidden_size=H, intermediate_size=I, moe_intermediate_size=I, num_experts=E,
    num_local_experts=E, n_routed_experts=E, moe_num_experts=E, num_experts_per_tok=K,
    hidden_act="silu", hidden_activation="gelu_pytorch_tanh", mlp_hidden_act="relu2",
    # Small enough that many values are beyond it.
    swiglu_limit=0.7, swiglu_alpha=1.702, mlp_gate_softcap=3.0, mlp_up_softcap=2.0,
    moe_latent_size=None, post_norm_eps=1e-6)


def experts_classes() -> list[tuple[str, str]]:
    """(module, class) of everything in transformers that is decorated for the interface."""
    found = []
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        found += [(f"transformers.models.{path.parent.name}.{path.stem}", name)
                  for name in re.findall(r"^@use_experts_implementation.*\nclass (\w+)",
                                         path.read_text(), re.MULTILINE)]
    return found


def make(module: str, name: str, dtype: torch.dtype = torch.float32, **more) -> torch.nn.Module:
    cls = getattr(importlib.import_module(module), name)
    experts = cls(types.SimpleNamespace(**dict(CONFIG, **more)))
    generator = torch.Generator().manual_seed(1)
    for parameter in experts.parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(draw / (parameter.shape[-1] ** 0.5 if draw.ndim > 1 else 1))
    experts.config._experts_implementation = ce.NAME
    return experts.to(dtype)


def mixtral(dtype: torch.dtype = torch.float32, **more) -> torch.nn.Module:
    return make("transformers.models.mixtral.modeling_mixtral", "MixtralExperts", dtype, **more)


def route(tokens: int, dtype: torch.dtype = torch.float32, top_k: int = K, seed: int = 2):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(tokens, H, generator=generator).to(dtype),
            torch.randint(0, E, (tokens, top_k), generator=generator),
            torch.rand(tokens, top_k, generator=generator).to(dtype))


def run(experts: torch.nn.Module, implementation: str, *arguments) -> torch.Tensor:
    before = experts.config._experts_implementation
    experts.config._experts_implementation = implementation
    try:
        return experts(*arguments)
    finally:
        experts.config._experts_implementation = before
