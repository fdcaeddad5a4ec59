"""Detects changes of weights after a layer has prepared them.

An address and a version are not enough: both may be those of a deleted tensor. So a
``Snapshot`` has weak references to the tensor and to its storage. Fused optimizers write
without counting it, so the steps of all optimizers are counted here. Other changes that
torch does not record cannot be detected: ``untraced`` returns the reason.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["Snapshot", "StorageSnapshot", "is_computed", "local_part", "tensors_of", "untraced",
           "weights_of"]

PLAIN = (torch.nn.Parameter, torch.Tensor)

_steps: dict[int, int] = {}  # of optimizers, by the addresses of their parameters


def _count_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if torch.compiler.is_compiling():  # compiled steps count their writes
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad:
                address = local_part(parameter).data_ptr()
                _steps[address] = _steps.get(address, 0) + 1


register_optimizer_step_post_hook(_count_step)


def weights_of(module: torch.nn.Module, names: tuple[str, ...]) -> list[torch.Tensor]:
    """Return the weights of a module; this access may compute them."""
    own = module._parameters
    return [own[n] if n in own else getattr(module, n) for n in names]


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the parameters and buffers of a module, by all their names."""
    return {**dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False))}


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the part of a weight in this process: the local shard of a distributed tensor."""
    return tensor if type(tensor) in PLAIN or not hasattr(tensor, "to_local") else tensor.to_local()


class StorageSnapshot:
    """State of the elements of a tensor at one time; keeps them not alive.

    A parameter is one object. Other tensors may be another object in each call of code in
    another language, and are known by their elements.
    """

    __slots__ = ("_parameter", "_storage", "_state")

    def __init__(self, tensor: torch.Tensor):
        local = local_part(tensor)
        # A parameter of the data of another one counts its writes anew.
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        self._parameter = weakref.ref(tensor) if is_parameter else None
        self._storage = StorageWeakRef(local.untyped_storage())
        self._state = _state(local)

    def still(self, tensor: torch.Tensor) -> bool:
        """Return true if ``tensor`` has the same elements, unchanged."""
        if isinstance(tensor, torch.nn.Parameter) and (
                self._parameter is None or self._parameter() is not tensor):
            return False
        local = local_part(tensor)
        return (_state(local) == self._state
                and local.untyped_storage()._cdata == self._storage.cdata)

    def is_dead(self) -> bool:
        """Return true if the elements are gone."""
        return self._storage.expired()


class Snapshot(StorageSnapshot):
    """State of a tensor at one time; keeps neither the tensor nor its elements alive."""

    __slots__ = ("_tensor",)

    def __init__(self, tensor: torch.Tensor):
        super().__init__(tensor)
        self._tensor = weakref.ref(tensor)

    def still(self, tensor: torch.Tensor) -> bool:
        """Return true if ``tensor`` is the same tensor with unchanged elements."""
        return self._tensor() is tensor and super().still(tensor)


def _state(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what a write or an assignment to ``data`` changes, except the storage."""
    version, address = 0 if tensor.is_inference() else tensor._version, tensor.data_ptr()
    return (version, _steps.get(address, 0), address, tensor.dtype, tensor.shape,
            tensor.stride())


def is_computed(module: torch.nn.Module, name: str) -> bool:
    """Return true if each access to a weight creates a tensor, as a parametrization does."""
    return (name not in module._parameters and name not in module._buffers
            and name not in module.__dict__)


def untraced(tensor: torch.Tensor, module: torch.nn.Module) -> str | None:
    """Return why changes of a weight cannot be detected, and a remedy; None if they can."""
    if local_part(tensor).is_inference():
        return ("was made in inference mode, where torch counts no writes; load the model outside "
                "of torch.inference_mode(), or prepare it with free_weights=True")
    if getattr(tensor, "_fsdp_flattened", False) or _is_sharded(module):
        return "is gathered by FSDP, whose writes torch does not count"
    return None


def _is_sharded(module: torch.nn.Module) -> bool:
    """Return true if ``fully_shard`` was applied to this module or to one around it."""
    states = sys.modules.get("torch.distributed._composable_state")
    if states is None:
        return False
    for root, reference in list(states._module_state_mapping.items()):
        if (type(reference()).__module__.startswith("torch.distributed.fsdp")
                and any(m is module for m in root.modules())):
            return True
    return False
