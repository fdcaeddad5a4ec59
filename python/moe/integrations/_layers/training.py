"""A compiled layer that trains: its gradients are compiled, too."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from ..._error import INVALID_ARGUMENT, MoEError
from .accumulation import check_place
from .gradients import needed_of
from .module import register, tensors_by

__all__ = ["TrainableLayer"]


class TrainableLayer(torch.nn.Module):
    """A compiled layer with gradients; see ``Imported.trainable``."""

    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor],
                 options: Mapping[str, Any]):
        super().__init__()
        if "device" in options:
            raise MoEError(INVALID_ARGUMENT, f"device is {options['device']!r}, expected none: the "
                           "layer runs on that of its rows and parameters")
        check_place(options.get("accumulate_into"))
        self._mlir, self._options = mlir, json.dumps(dict(options), default=os.fspath)
        self._names = tuple(weights)
        for name, tensor in weights.items():
            register(self, name, tensor)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the layer of rows ``[..., H]``, whose gradient PyTorch can ask for."""
        weights, followed = tensors_by(self, self._names)
        return torch.ops.moe_mlir.layer_forward(
            [rows], weights, self._mlir, needed_of([rows], weights), followed, None,
            self._options)[0]
