"""Rows that a module takes, to trace it with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._graph.scalars import DTYPES
from .unchanged import unchanged

__all__ = ["call_once", "example_of", "first_of", "rows_in_model",
           "rows_that_fit", "shapes_of"]


def example_of(module: torch.nn.Module, name: str, model: torch.nn.Module | None = None) -> (
        torch.Tensor):
    """Make rows that fit the first matrix of the module, in transformers' shape.

    ``model`` is the model that has the module, whose configuration may say more.
    """
    whole, own = (getattr(m, "config", None) for m in (model, module))
    # A block may call the size of its experts hidden.
    names = "hidden_dim", "hidden_size"
    sources = [(whole, names), (getattr(whole, "text_config", None), names), (own, names),
               (module, ("input_size", *names))]
    hidden = next((size for source, attributes in sources for attribute in attributes
                   if isinstance(size := getattr(source, attribute, None), int)), None)
    floats = [p for p in module.parameters() if p.dtype in DTYPES and p.ndim >= 2]
    if not floats:
        raise MoEError(INVALID_ARGUMENT, f"{name} has no matrix in f32, bf16 or f16 from which the "
                       "type of its rows could be seen; pass example=")
    # Routers and biases may be in f32 beside weights of 16 bits.
    largest = max(floats, key=lambda p: p.numel())
    if hidden is None:
        two = next((p for p in floats if p.ndim == 2), None)
        if two is None:
            raise MoEError(INVALID_ARGUMENT, f"the number of columns that {name} takes cannot be "
                           "seen; pass example=")
        hidden = two.shape[-1]
    return torch.zeros(1, 6, hidden, dtype=largest.dtype, device=largest.device)


def shapes_of(module: torch.nn.Module, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Return the rows ``[1, T, H]`` or ``[T, H]`` that a module takes. Where it computes
    something else of both, its rows are ``[T, H]``."""
    drawn = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).to(
        rows.device, rows.dtype)
    batch, flat = _run(module, drawn), _run(module, drawn[0])
    if batch is not None and (flat is None or torch.allclose(
            batch.reshape(flat.shape), flat, 1e-2, 1e-3)):
        yield rows
    if flat is not None:
        yield rows[0]
    if batch is None and flat is None:
        yield rows
        other = next(rows_that_fit(module, rows), None)
        if other is not None and other.shape != rows.shape:
            yield other


def rows_in_model(module: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Return rows ``[1, T, H]``, which models have; ``[T, H]`` if the module takes no others."""
    return rows if _run(module, rows) is not None else rows[0]


def _run(module: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor | None:
    """Return what a module computes of rows, if it takes them and returns as many."""
    others = [t for part in module.modules() for t in part.__dict__.values()
              if isinstance(t, torch.Tensor)]
    buffers = [(buffer, buffer.clone()) for buffer in [*module.buffers(), *others]]
    try:
        with unchanged(module), torch.no_grad():
            result = call_once(module, rows)
    except MoEError:
        raise
    except Exception:  # noqa: BLE001 - it takes other rows
        return None
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
    fits = isinstance(result, torch.Tensor) and result.ndim > 1 and (
        result.shape[:-1].numel() == rows.shape[:-1].numel())
    return result if fits else None


def call_once(module: torch.nn.Module, rows: torch.Tensor) -> Any:
    """Return the rows that a module makes of ``rows``; raises an error if what a call leaves
    behind in the module makes the next one another."""
    before = _state_of(module)
    result = first_of(module(rows.clone()))
    if _state_of(module)[0] != before[0]:
        again = first_of(module(rows.clone()))
        if isinstance(result, torch.Tensor) and not torch.equal(result.nan_to_num(),
                                                                again.nan_to_num()):
            raise MoEError(UNIMPLEMENTED, f"{type(module).__name__} computes something else in "
                           "each call")
    return result


def first_of(result: Any) -> Any:
    return result[0] if isinstance(result, (tuple, list)) else result


def _state_of(module: torch.nn.Module) -> tuple[list[tuple[Any, ...]], list[torch.Tensor]]:
    """Return what a call may change in a module, but for its parameters and buffers, and tensors
    to keep, so that no others have their ids."""
    found = [(name, value) for part in module.modules() for name, value in part.__dict__.items()
             if isinstance(value, (int, float, torch.Tensor))]
    tensors = [value for _, value in found if isinstance(value, torch.Tensor)]
    return [(name, value) if not isinstance(value, torch.Tensor) else
            (name, id(value), 0 if value.is_inference() else value._version)
            for name, value in found], tensors


def rows_that_fit(module: torch.nn.Module, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Make rows of as many columns as the module takes."""
    extents = [n for p in module.parameters() if p.ndim == 2 for n in reversed(p.shape)]
    for columns in dict.fromkeys([rows.shape[-1], *extents[:8]]):
        for shape in ((1, 6, columns), (6, columns)):
            example = rows.new_zeros(shape)
            if _run(module, example) is not None:
                yield example
