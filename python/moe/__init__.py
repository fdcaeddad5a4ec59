"""Compiled Mixture-of-Experts layers.

    module = moe.compile("layer.mlir")            # or moe.load("layer.moe")
    layer = module.layer({"gate_proj": w, ...})   # weights are prepared once
    y = layer(x)                                  # numpy or torch, any T

``moe.reference`` implements the operations of the dialect in numpy, ``moe.ir`` builds layers,
``moe.monitor`` watches the experts of models.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._compile import compile, find_compiler
from ._error import (DATA_LOSS, DEADLINE_EXCEEDED, FAILED_PRECONDITION, INTERNAL,
                     INVALID_ARGUMENT, NOT_FOUND, OUT_OF_RANGE, RESOURCE_EXHAUSTED, UNAVAILABLE,
                     UNIMPLEMENTED, MoEError)
from ._library import runtime_version
from ._profile import Profile, StageTime
from ._runtime import Layer, Module, load
from ._signature import Signature, Statistics, TensorInfo
from ._weights import Checkpoint

if TYPE_CHECKING:
    from . import ir, monitor, parallel, reference
    from .integrations.onnx import from_onnx
    from .integrations.torch import from_torch

__version__ = "0.1.0"

__all__ = [
    "Checkpoint", "DATA_LOSS", "DEADLINE_EXCEEDED", "FAILED_PRECONDITION", "INTERNAL",
    "INVALID_ARGUMENT", "Layer", "MoEError", "Module", "NOT_FOUND", "OUT_OF_RANGE", "Profile",
    "RESOURCE_EXHAUSTED", "Signature", "StageTime", "Statistics", "TensorInfo", "UNAVAILABLE",
    "UNIMPLEMENTED", "compile", "find_compiler", "from_onnx", "from_torch", "ir", "load",
    "monitor", "parallel", "reference", "runtime_version",
]


def __getattr__(name: str) -> Any:
    """Import on first access what layers run without: numpy's definition, and PyTorch."""
    if name in ("ir", "monitor", "parallel", "reference"):
        return importlib.import_module(f".{name}", __name__)
    if name == "from_onnx":
        return importlib.import_module(".integrations.onnx", __name__).from_onnx
    if name == "from_torch":
        return importlib.import_module(".integrations.torch", __name__).from_torch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "from_onnx", "from_torch", "ir", "monitor", "parallel",
                   "reference"})
