"""What the sequences of a batch are to a module: rows, or something by themselves."""

from __future__ import annotations

import torch

from .examples import first_of
from .unchanged import unchanged

__all__ = ["BY_SEQUENCE", "NONE", "ROWS", "WHOLE", "kind_of_batches"]

ROWS = "rows"  # a batch is as many rows, however they are divided among sequences
BY_SEQUENCE = "by sequence"  # each sequence is a call of its own
WHOLE = "whole"  # something else
NONE = "none"  # it takes rows without a batch, and computes something else with one


def kind_of_batches(module: torch.nn.Module, example: torch.Tensor) -> str:
    """Return what a batch is to ``module``, which was traced with rows like ``example``."""
    columns = example.shape[-1]
    rows = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(0)).to(
        example.device, example.dtype)
    # Many of one kind, to exceed what is counted in a sequence.
    rows = torch.cat([rows, rows[:, :1].expand(2, 64, -1)], 1)

    def run(x: torch.Tensor) -> torch.Tensor:
        with unchanged(module), torch.no_grad():
            return first_of(module(x.clone()))

    try:
        together = run(rows)
    except Exception:  # noqa: BLE001 - it takes no batch
        return ROWS if example.ndim == 2 else BY_SEQUENCE
    flat = rows.reshape(*[1] * (example.ndim - 2), -1, columns)
    if _is_close(together, run(flat)):
        return ROWS
    if example.ndim == 2:
        return NONE
    if _is_close(together, torch.stack([run(r[None]) for r in rows])):
        return BY_SEQUENCE
    return WHOLE


def _is_close(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first.reshape(second.shape), second, 1e-2, 1e-3, equal_nan=True)
