"""Gradients of blocks of transformers, by PyTorch's autograd in float64."""

from __future__ import annotations

import copy
import re

import torch


def gradients_of(block, x, dy):
    """The gradients by the rows and by the parameters, by name, in float64."""
    block = copy.deepcopy(block).double()
    rows = x.double().requires_grad_(True)
    y = block(rows[None])
    y = y[0] if isinstance(y, tuple) else y
    parameters = dict(block.named_parameters())
    found = torch.autograd.grad(y.reshape(-1), [rows, *parameters.values()],
                                dy.double().reshape(-1), allow_unused=True)
    return {name: g for name, g in zip(["rows", *parameters], found) if g is not None}


def expected_gradient(gradients, name):
    """The gradient of a tensor of the layer: a parameter, or a stack of those of experts."""
    if "*" not in name:
        return gradients[name]
    pattern = re.compile(re.escape(name).replace(r"\*", r"(\d+)") + "$")
    numbered = sorted((int(m[1]), g) for n, g in gradients.items() if (m := pattern.match(n)))
    return torch.stack([g for _, g in numbered])
