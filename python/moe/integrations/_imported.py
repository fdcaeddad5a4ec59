"""A function of another framework as MLIR, with the arrays that it was imported with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._compile import compile as compile_module
from .._runtime import Layer, Module


@dataclass
class Imported:
    """A function: ``mlir`` computes it from inputs and ``weights``, arrays by name."""

    mlir: str
    weights: Mapping[str, Any]

    def compile(self, **options: Any) -> Module:
        """Compile the function; ``options`` are those of ``moe.compile``."""
        return compile_module(self.mlir, **options)

    def layer(self, **options: Any) -> Layer:
        """Compile the function and bind the arrays that it was imported with."""
        return self.compile(**options).layer(
            {name: np.asarray(array) for name, array in self.weights.items()})
