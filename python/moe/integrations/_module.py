"""A compiled layer as a module of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .._error import UNIMPLEMENTED, MoEError
from . import _operation  # noqa: F401  (registers moe_mlir::layer)

__all__ = ["CompiledLayer"]


class CompiledLayer(torch.nn.Module):
    """A compiled layer in place of a module; see ``Imported.module``."""

    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor], columns: int,
                 returned: int | None):
        super().__init__()
        self.mlir, self.columns, self.returned = mlir, columns, returned
        self.names = tuple(weights)
        for name, tensor in weights.items():
            *path, last = name.split(".")
            owner: torch.nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, torch.nn.Module())
                owner = owner._modules[part]
            if isinstance(tensor, torch.nn.Parameter):
                owner.register_parameter(last, tensor)
            else:
                owner.register_buffer(last, tensor)
        self.eval()

    def forward(self, rows: torch.Tensor, *more: Any, **named: Any) -> Any:
        """Run on rows ``[..., H]``."""
        if any(value is not None for value in (*more, *named.values())):
            raise MoEError(UNIMPLEMENTED, "a compiled layer takes rows, and was also given "
                           + (", ".join(named) or f"{len(more)} more"))
        weights = [self.weight(name) for name in self.names]
        y = torch.ops.moe_mlir.layer([rows], weights, self.mlir, self.columns, [], [])
        return y if self.returned is None else (y, *[None] * (self.returned - 1))

    def weight(self, name: str) -> torch.Tensor:
        path, _, last = name.rpartition(".")
        return getattr(self.get_submodule(path), last)

    def extra_repr(self) -> str:
        return f"columns={self.columns}, weights={list(self.names)}"
