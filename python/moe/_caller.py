"""Calls of layers through the extension ``moe._native``, without ctypes.

While a model streams the weights of its layers through the caches, nothing of Python stays
there, and what a call touches of it costs more than what it executes: ctypes and the
objects that describe arrays took as long as a tenth of a layer of one token. The extension
takes whole arrays of numpy and PyTorch on a CPU; ``Layer.__call__`` handles all others.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
import warnings
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

import numpy as np

from ._dlpack import _NUMPY, DTYPES, _torch_names, numpy_dtype
from ._error import MoEError
from ._library import ABI_VERSION, check, library
from ._signature import Signature
from ._tools import build_tree

__all__ = ["extension", "make_caller", "use_torch"]

FILE = "_native.abi3.so"


def _pack(name: str) -> int:
    code, bits = DTYPES[name]
    return code << 8 | bits


@functools.cache
def _types() -> dict[Any, int]:
    """Return the types of arrays, by their dtype objects; those of torch are added with it."""
    types = {}
    for name in _NUMPY:
        try:
            types[numpy_dtype(name)] = _pack(name)
        except MoEError:  # ml_dtypes is not installed
            pass
    return types


@functools.cache
def extension() -> Any:
    """Load the extension from the package or a build tree; None without it."""
    package = Path(__file__).resolve().parent
    for path in (package / FILE, build_tree() / "lib" / FILE):
        if not path.exists():
            continue
        try:
            loader = ExtensionFileLoader("moe._native", str(path))
            spec = importlib.util.spec_from_file_location("moe._native", path, loader=loader)
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
        except ImportError as error:
            warnings.warn(f"{path}: {error}; calls go through ctypes", RuntimeWarning,
                          stacklevel=2)
            continue
        if module.ABI_VERSION == ABI_VERSION:
            return module
        warnings.warn(f"{path} has ABI {module.ABI_VERSION}, expected {ABI_VERSION}; calls go "
                      "through ctypes", RuntimeWarning, stacklevel=2)
    return None


def make_caller(signature: Signature) -> Any:
    """Return what calls layers of the signature, or None if they need ``Layer.__call__``."""
    module, inputs, outputs = extension(), signature.inputs, signature.outputs
    if module is None or len(outputs) != 1 or not 0 < len(inputs) <= module.MAX_INPUTS:
        return None
    if outputs[0].accumulates:  # and is not to be made here
        return None
    dynamic = [(i, d) for i, info in enumerate(inputs)
               for d, extent in enumerate(info.shape) if extent < 0]
    # The last one, as Layer._allocate takes it.
    last = dynamic[-1][0] if dynamic else 0
    tokens = next((pair for pair in dynamic if pair[0] == last), (0, 0))
    shape = tuple(outputs[0].shape) if outputs[0].dtype == inputs[0].dtype else None
    address = ctypes.cast(library().moe_rt_layer_call, ctypes.c_void_p).value
    return module.Caller(address, check, _types(), np.ndarray, np.empty, len(inputs), shape,
                         tokens)


def use_torch(caller: Any) -> bool:
    """Let the caller take tensors of torch, once that is imported."""
    torch = sys.modules.get("torch")
    if not hasattr(torch, "autograd"):  # absent, or being imported
        return False
    _types().update({dtype: _pack(name) for dtype, name in _torch_names().items()})
    caller.use_torch((torch.Tensor, torch.nn.Parameter), torch.autograd.forward_ad)
    return True
