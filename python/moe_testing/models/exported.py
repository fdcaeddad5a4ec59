"""Blocks as programs that torch.export makes, with any number of rows."""

from __future__ import annotations

import torch

from .hf import H


def export(block: torch.nn.Module, dtype=torch.float32) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(block.eval(), (torch.randn(7, H).to(dtype),), dynamic_shapes=(
            {0: torch.export.Dim("tokens", min=2)},))


class Rows(torch.nn.Module):
    """A block of transformers as a function of rows ``[T, H]``."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        y = self.block(x[None])
        return (y[0] if isinstance(y, tuple) else y).reshape(x.shape)
