"""Experts of transformers' models over several ranks: ``ep_implementation="moe_mlir"``.

transformers shards the experts (``DistributedConfig``, ``ep_plan``); each rank has whole experts,
neighbours in order. What runs them there is an ``EPImplementation``: here a layer of
``moe.parallel`` on the process group of the expert mesh.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import Shard, distribute_tensor
from transformers.distributed import expert_parallel
from transformers.distributed.parallel_utils import ALL_PARALLEL_STYLES

from ..._compile import compile as compile_module
from ..._error import UNIMPLEMENTED, MoEError
from ...parallel import Group, ParallelLayer
from .._experts.description import describe, parameter_names
from .._layers.follow import StorageSnapshot, weights_of

__all__ = ["RANKS", "STYLE", "ExpertParallel", "register"]

STYLE = "moe_mlir_experts"
RANKS = "_moe_mlir_ranks"  # the attribute of an experts module that is run here

_options: dict[str, Any] = {}
_deadline = 60.0
_groups: dict[tuple[dist.ProcessGroup, float, int], Group] = {}


def register(name: str, options: dict[str, Any], deadline: float) -> None:
    """Add the implementation and the style to transformers."""
    global _deadline
    _options.clear()
    _options.update(options)
    _deadline = deadline
    expert_parallel.EPImplementationInterface.register(name, ExpertParallel)
    ALL_PARALLEL_STYLES.register(STYLE, _Shards())


class _Shards(expert_parallel.ExpertParallelLayer):
    """As ``grouped_gemm``, also for numbers of experts that the ranks do not divide: each has as
    many as the first, as long as there are some."""

    def shard_param(self, module: torch.nn.Module, param: str, mesh: Any) -> None:
        whole = module._parameters.get(param)
        if whole is None:
            return
        parts = distribute_tensor(whole, mesh, [Shard(0)], src_data_rank=None)
        module.num_experts = parts.to_local().shape[0]
        module._is_expert_parallel = True
        module._parameters[param] = torch.nn.Parameter(parts, requires_grad=whole.requires_grad)


class ExpertParallel(expert_parallel.EPImplementation):
    """Runs the experts of one module as a compiled layer over the ranks of the expert mesh.

    A token travels once to each rank with one of its experts. Ranks that hold the same batch
    (tensor parallelism) take equal parts of it.
    """

    def __init__(self, experts: torch.nn.Module, ep_mesh: Any, tp_mesh: Any):
        super().__init__(experts, ep_mesh, tp_mesh)
        self._module = experts
        self._names = parameter_names(experts)
        self._layers: dict[int, ParallelLayer] = {}  # by the number of choices
        self._snapshots: list[StorageSnapshot] = []
        self._counts: list[int] = []  # of the experts of each rank
        self.layer: ParallelLayer | None = None  # of the last call
        experts.__dict__[RANKS] = self

    def __call__(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor,
                 top_k_weights: torch.Tensor) -> torch.Tensor:
        weights = weights_of(self._module, self._names)
        if torch.is_grad_enabled() and any(
                t.requires_grad for t in (hidden_states, top_k_weights, *weights)):
            raise MoEError(UNIMPLEMENTED, f"{self._name}: experts over several ranks have no "
                           "gradients yet; ep_implementation='all_to_all' has them")
        layer = self.layer = self._layer_of(weights, top_k_index.shape[-1])
        given, shared = hidden_states, self.tp_mesh.size()
        tokens = hidden_states.shape[0]
        # As many for each rank; the last ones may have fewer.
        rows = -(-tokens // shared)
        own = slice(self.tp_mesh.get_local_rank() * rows,
                    (self.tp_mesh.get_local_rank() + 1) * rows)
        hidden_states, top_k_index, top_k_weights = (
            t[own] for t in (hidden_states, top_k_index, top_k_weights))
        columns = layer.signature.outputs[0].shape[1]
        out = hidden_states.new_empty((rows, columns), dtype=weights[0].dtype)
        layer(hidden_states.to(weights[0].dtype).contiguous(),
              top_k_index.to(torch.int64).contiguous(),
              top_k_weights.to(torch.float32).contiguous(), out=out[:hidden_states.shape[0]])
        if shared > 1:
            whole = out.new_empty((rows * shared, columns))
            dist.all_gather_into_tensor(whole, out, group=self.tp_mesh.get_group())
            out = whole[:tokens]
        return out.to(given.dtype)

    @property
    def _name(self) -> str:
        return type(self._module).__name__

    def _layer_of(self, weights: list[torch.Tensor], top_k: int) -> ParallelLayer:
        """Return the layer with the current weights. Ranks do the same: they change weights
        together, or none does."""
        if not (self._snapshots and all(s.still(w) for s, w in zip(self._snapshots, weights))):
            self._layers.clear()  # first, so that two prepared copies never coexist
        if top_k not in self._layers:
            with torch.no_grad():
                self._snapshots = [StorageSnapshot(w) for w in weights]
                self._layers[top_k] = self._bind([w.detach() for w in weights], top_k)
        return self._layers[top_k]

    def _bind(self, weights: list[torch.Tensor], top_k: int) -> ParallelLayer:
        if weights[0].device.type != "cpu":
            raise MoEError(UNIMPLEMENTED, f"{self._name}: experts over several ranks run on the "
                           f"CPU, the weights are on '{weights[0].device}'")
        process_group, size = self.ep_mesh.get_group(), self.ep_mesh.size()
        own = describe(self._module, self._name, weights)
        if not self._counts:
            self._counts = [0] * size
            dist.all_gather_object(self._counts, own.experts, group=process_group)
        experts = dataclasses.replace(own, experts=sum(self._counts))
        threads = _options.get("num_threads", 0)
        key = process_group, _deadline, threads
        if key not in _groups:
            _groups[key] = Group(process_group, deadline=_deadline, num_threads=threads)
        table = torch.full((size, max(self._counts)), -1, dtype=torch.int32)
        first = 0
        for row, count in zip(table, self._counts):
            row[:count] = torch.arange(first, first + count)
            first += count
        options = {**_options, "options": [*_options.get("options", ()),
                                           f"--parallel={max(self._counts)}"]}
        module = compile_module(experts.mlir(top_k), group=_groups[key], **options)
        return module.layer([w.contiguous() for w in weights], table=table.numpy())
