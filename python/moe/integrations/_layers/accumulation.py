"""Gradients that a backward function adds to what their memory has.

Autograd adds the gradients of several batches up, with a second buffer for the gradient of each.
Backward functions can do it in the memory that holds the sum: in ``grad``, or in ``main_grad``, a
tensor in f32 that a trainer gives parameters in 16 bits, as Megatron-Core's.
"""

from __future__ import annotations

from typing import Any

import torch

from ..._error import INVALID_ARGUMENT, MoEError

__all__ = ["PLACES", "check_place", "sum_of"]

PLACES = ("grad", "main_grad")


def check_place(where: Any) -> None:
    """Refuse a value of ``accumulate_into``."""
    if where is not None and where not in PLACES:
        raise MoEError(INVALID_ARGUMENT, f"accumulate_into is {where!r}, expected 'grad', "
                       "'main_grad' or None")


def sum_of(parameter: torch.nn.Parameter, where: str) -> torch.Tensor | None:
    """Return the memory that the gradient of a parameter is added to; None if autograd has to
    do it: for a parameter without ``main_grad``, or with hooks, which see each gradient."""
    if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
        return None
    if where == "main_grad":
        found = getattr(parameter, "main_grad", None)
    else:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        found = parameter.grad
    if found is None:
        return None
    if found.shape != parameter.shape or found.device != parameter.device or (
            found.dtype not in (parameter.dtype, torch.float32)):
        raise MoEError(INVALID_ARGUMENT, f"{where} is {found.dtype} {list(found.shape)} on "
                       f"'{found.device}', expected {parameter.dtype} or torch.float32 "
                       f"{list(parameter.shape)} on '{parameter.device}'")
    if not found.is_contiguous():
        if where == "grad":
            return None
        raise MoEError(INVALID_ARGUMENT, f"main_grad has strides {found.stride()}, expected a "
                       "contiguous tensor")
    return found
