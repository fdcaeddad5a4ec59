"""A compiled layer that trains over several ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..._compile import compile as compile_module
from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from ...parallel import (Communicator, Group, ParallelLayer, as_group, experts_of, placement,
                         refuse_call)
from .follow import StorageSnapshot
from .module import register, tensors_by

__all__ = ["RankLayer"]


class RankLayer(torch.nn.Module):
    """A compiled layer with gradients, on one rank of a group; see ``Imported.trainable``.

    ``ranks`` is the group, ``own_experts`` are the experts of this rank, in the order of
    the parameters that are by experts.
    """

    def __init__(self, mlir: str, weights: Mapping[str, torch.Tensor], group: Any,
                 table: Any = None, options: Sequence[str] = (), tokens: str | None = None,
                 **rest: Any):
        super().__init__()
        # Others have no collectives of PyTorch.
        self._process_group = None if isinstance(group, (Group, Communicator)) else group
        self.ranks = as_group(group, rest.get("num_threads", 0), tokens)
        # Inputs come first; their gradients are always there.
        needed = [0, *(i + 1 for i, w in enumerate(weights.values()) if w.requires_grad)]
        layout = (f"ranks={self.ranks.size}" if table is None
                  else f"{np.shape(table)[1]}:1" if np.ndim(table) == 2 else "1")
        self._module = compile_module(mlir, group=self.ranks, options=[
            *options, f"--parallel={layout}", f"--backward={','.join(map(str, needed))}"], **rest)
        names = self._module_names()
        self._names = tuple(weights)
        self._forward, self._backward = names
        count, of_experts = experts_of(self._module, names[0])
        self._table = placement(count, self.ranks.size) if table is None else np.asarray(table)
        _check_once(self._table, count)
        self.own_experts = [int(e) for e in self._table[self.ranks.rank] if e >= 0]
        self._slots = [i for i, e in enumerate(self._table[self.ranks.rank]) if e >= 0]
        self._arguments = [info.name for info in self._module.signature(names[0]).weights]
        self._is_own = [name in of_experts for name in self._arguments]
        self._needed = [i - 1 for i in needed[1:]]
        for name, tensor, is_own in zip(weights, weights.values(), self._is_own):
            part = tensor.detach()[self.own_experts] if is_own else tensor.detach().clone()
            if isinstance(tensor, torch.nn.Parameter):
                part = torch.nn.Parameter(part, tensor.requires_grad)
            register(self, name, part)
        self._layers: dict[str, ParallelLayer] = {}
        self._snapshots: list[StorageSnapshot] = []

    def _module_names(self) -> tuple[str, str]:
        from ...parallel import names

        forward = next(n for n in names(self._module) if not n.endswith("_backward"))
        return forward, f"{forward}_backward"

    def _current(self, weights: Sequence[torch.Tensor]) -> dict[str, ParallelLayer]:
        """Return both layers with the present weights of this rank."""
        # There are none after an update that failed.
        if self._snapshots and all(
                s.still(w) for s, w in zip(self._snapshots, weights, strict=True)):
            return self._layers
        given = dict(zip(self._arguments, (w.detach().contiguous() for w in weights)))
        snapshots = [StorageSnapshot(w) for w in weights]
        for name in (self._forward, self._backward):
            own = {info.name: given[info.name] for info in self._module.signature(name).weights}
            if name not in self._layers:
                self._layers[name] = self._module.layer(own, function=name, table=self._table)
                continue
            try:
                self._layers[name].update(own)
            except Exception:
                # The others are told, who call the layer next.
                self._snapshots = []
                refuse_call(self._layers[self._forward])
                raise
        self._snapshots = snapshots
        return self._layers

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the layer of this rank's rows ``[..., H]``, together with all other ranks."""
        with self._told(self._forward):
            weights, followed = tensors_by(self, self._names)
            if not followed:
                raise MoEError(UNIMPLEMENTED, "weights of a layer over several ranks: expected "
                               "parameters, and they are computed for every call")
            if not isinstance(rows, torch.Tensor) or rows.ndim == 0:
                raise MoEError(INVALID_ARGUMENT, "expected a tensor of rows [..., H], got "
                               + (f"{rows.ndim} extents" if isinstance(rows, torch.Tensor)
                                  else type(rows).__name__))
        return _OverRanks.apply(self, rows, *weights)

    @contextlib.contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Tell the other ranks, who wait in a call of this layer, of an error before it."""
        try:
            yield
        except Exception:
            if name in self._layers:
                refuse_call(self._layers[name])
            else:
                # They create it.
                with contextlib.suppress(MoEError):
                    self._module.layer({}, function=name, table=self._table)
            raise

    def _sum(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks, in their order: all have the same bits."""
        if self._process_group is None or self.ranks.size == 1:
            return gradient
        parts = [torch.empty_like(gradient) for _ in range(self.ranks.size)]
        torch.distributed.all_gather(parts, gradient.contiguous(), group=self._process_group)
        total = parts[0].to(torch.float32)
        for part in parts[1:]:
            total += part
        return total.to(gradient.dtype)


def _check_once(table: np.ndarray, experts: int) -> None:
    """Check that each expert is on one rank: copies would drift apart."""
    own = table[table >= 0]
    if own.size != experts or len(set(own.tolist())) != experts:
        raise MoEError(INVALID_ARGUMENT, f"table: expected each of the {experts} experts on one "
                       f"rank, got {own.size} entries for {len(set(own.tolist()))} of them")


class _OverRanks(torch.autograd.Function):
    """The layer, and its backward function with what the call has saved."""

    @staticmethod
    def forward(ctx: Any, layer: RankLayer, rows: torch.Tensor,
                *weights: torch.Tensor) -> torch.Tensor:
        layers = layer._current(weights)
        flat = rows.detach().reshape(-1, rows.shape[-1]).contiguous()
        result, ctx.saved = layers[layer._forward].forward(flat)
        # Autograd refuses a backward pass after a change of these in place.
        ctx.save_for_backward(rows, *weights)
        ctx.layer = layer
        return result.reshape(*rows.shape[:-1], result.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        layer = ctx.layer
        backward = layer._layers[layer._backward]
        with layer._told(layer._backward):
            rows, *weights = ctx.saved_tensors
        flat = [t.detach().reshape(-1, t.shape[-1]).contiguous() for t in (rows, gradient)]
        given = [flat[info.name.endswith("_gradient")] for info in backward.signature.inputs]
        found = backward.backward(ctx.saved, *given)
        found = list(found) if isinstance(found, tuple) else [found]
        of_weights: list[torch.Tensor | None] = [None] * len(weights)
        for i, each in zip(layer._needed, found[1:], strict=True):
            of_weights[i] = (each[layer._slots] if layer._is_own[i] else layer._sum(each)).to(
                weights[i].dtype)
        return None, found[0].reshape(rows.shape), *of_weights
