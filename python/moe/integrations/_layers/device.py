"""Compiled layers with weights, for the device of PyTorch's tensors: the CPU, or a GPU by CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..._call import Calls
from ..._caller import use_torch
from ..._compile import compile as compile_module
from ..._error import UNIMPLEMENTED, MoEError
from ..._runtime import Layer, Module
from .follow import StorageSnapshot

__all__ = ["Bound", "LayerCall", "bind", "check_device", "compile_for"]


def check_device(device: torch.device, what: str) -> None:
    """Refuse a device that layers do not run on."""
    if device.type not in ("cpu", "cuda"):
        raise MoEError(UNIMPLEMENTED, f"{what} is on '{device}', expected the CPU or a GPU by CUDA")


def compile_for(mlir: str, device: torch.device, **options: Any) -> Module:
    """Compile a function for a device; ``options`` are those of ``moe.compile``."""
    if device.type == "cpu":
        return compile_module(mlir, **options)
    if options.get("target") is None:
        options["target"] = _target(device)
    return compile_module(mlir, device=f"cuda:{device.index or 0}", **options)


def _target(device: torch.device) -> str:
    """Return the target whose code a GPU runs: that of Hopper is for it alone."""
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise MoEError(UNIMPLEMENTED, f"'{device}' has compute capability "
                       f"{capability[0]}.{capability[1]}, expected 8.0 or later")
    return "sm_90a" if capability == (9, 0) else "sm_80"


def _arrays(weights: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Return weights on ``device``, which may be views or need copies, as the runtime reads
    them."""
    tensors = [w.detach().contiguous() for w in weights]
    if device.type == "cuda":
        # The runtime reads them on another stream.
        torch.cuda.current_stream(device).synchronize()
    return tensors


def bind(module: Module, weights: Sequence[torch.Tensor], device: torch.device,
         function: str | None = None) -> Layer:
    """Bind weights to a function."""
    return module.layer(_arrays(weights, device), function)


class LayerCall:
    """Calls a layer with contiguous tensors of its device.

    On a GPU a call runs on PyTorch's current stream, with workspace from PyTorch's
    allocator, and does not wait; so it can be captured by ``torch.cuda.graph``. Its
    errors are raised by a later call.
    """

    def __init__(self, layer: Layer, device: torch.device):
        self.layer, self.device = layer, device
        self._calls = Calls(layer, None if device.type == "cpu" else device.index or 0)
        caller = layer._caller if device.type == "cpu" else None
        self._native = caller if caller is not None and use_torch(caller) else None

    def __call__(self, tokens: int, inputs: Sequence[torch.Tensor],
                 outputs: Sequence[torch.Tensor]) -> None:
        if self._native is not None:
            handle = self.layer._handle  # must outlive the use of its address
            if self._native(handle.pointer, tuple(inputs), outputs[0], None) is not NotImplemented:
                return
        ins, outs = [t.data_ptr() for t in inputs], [t.data_ptr() for t in outputs]
        if self.device.type == "cpu":
            self._calls.call(tokens, ins, outs)
            return
        size = self.layer.workspace_bytes(tokens)
        workspace = torch.empty(size, dtype=torch.uint8, device=self.device)
        stream = torch.cuda.current_stream(self.device).cuda_stream
        self._calls.call(tokens, ins, outs, workspace.data_ptr(), size, stream)


class Bound:
    """A compiled layer with weights at one time."""

    def __init__(self, module: Module, weights: Sequence[torch.Tensor], device: torch.device,
                 snapshot: type[StorageSnapshot] | None,
                 taken: Callable[[Sequence[torch.Tensor]], Sequence[torch.Tensor]],
                 function: str | None = None):
        """Bind what is ``taken`` of the weights to a function, by default the only one; without
        ``snapshot`` their changes cannot be detected."""
        self.device, self._snapshot, self._taken = device, snapshot, taken
        # Before the weights are read, to notice a concurrent write.
        snapshots = self._look_at(weights)
        start = time.perf_counter()
        self.layer = bind(module, taken(weights), device, function)
        self.seconds = time.perf_counter() - start
        self.call = LayerCall(self.layer, device)
        self.snapshots = snapshots

    def _look_at(self, weights: Sequence[torch.Tensor]) -> list[StorageSnapshot] | None:
        return None if self._snapshot is None else [self._snapshot(w) for w in weights]

    def renew(self, weights: Sequence[torch.Tensor]) -> None:
        """Prepare weights in the memory of those before; nobody may call the layer meanwhile."""
        snapshots, self.snapshots = self._look_at(weights), None
        self.layer.update(_arrays(self._taken(weights), self.device), in_place=True)
        self.snapshots = snapshots

    def is_of(self, weights: Sequence[torch.Tensor]) -> bool:
        return self.snapshots is not None and all(
            snapshot.still(w) for snapshot, w in zip(self.snapshots, weights))
