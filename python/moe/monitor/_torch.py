"""Counts of modules of PyTorch."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor

from .._error import INVALID_ARGUMENT, MoEError
from .._runtime import Layer
from ..integrations._experts.description import is_experts, parameter_names
from ..integrations._layers.functions import functions_of
from ..integrations._layers.module import CompiledLayer, tensors_by
from ..integrations._layers.training import TrainableLayer
from ..integrations._transformers import routes as _routes
from ..integrations.transformers import NAME
from ._counts import Counts
from ._layers import LayerReader
from ._routes import RouteCounter
from ._sources import Source, named, work_of
from ._work import Work

__all__ = ["sources_of"]

_Route = tuple[torch.Tensor, torch.Tensor]


class ExpertsSource:
    """The routes of the experts of a model that go through transformers' interface.

    All choices that experts get are computed: their capacity, if there is one, is the router's.
    """

    def __init__(self, model: torch.nn.Module, prefix: str):
        self._prefix, self._counter = prefix, RouteCounter()
        self._modules: dict[str, torch.nn.Module] = {}
        self._works: dict[tuple[str, int], Work | None] = {}
        self._closing = ExitStack()
        self._closing.enter_context(_routes.observe(model, self._observer, NAME))

    def _observer(self, name: str, module: torch.nn.Module) -> Callable[..., _Route]:
        name = _joined(self._prefix, name, module)
        self._modules[name], experts = module, module.num_experts

        add = self._counter.add

        def observe(ids: torch.Tensor, weights: torch.Tensor) -> _Route:
            if ids.ndim == 2 and _runs(ids):
                add(name, experts, ids.clone(), weights.detach().clone())
            return ids, weights

        return observe

    def take(self) -> dict[str, Counts]:
        found = self._counter.take()
        return {name: found.get(name) or Counts(np.zeros(module.num_experts, np.int64), 0, 0, 0,
                                                None, 0, 0)
                for name, module in self._modules.items()}

    def work(self, name: str, counts: Counts) -> Work | None:
        if counts.top_k is None:
            return None
        key = name, counts.top_k
        if key not in self._works:
            self._works[key] = _work_of(self._modules[name], counts.top_k)
        return self._works[key]

    def close(self) -> None:
        self._closing.close()


class CompiledSource:
    """The statistics of a function with weights of PyTorch.

    Its layers come and go with the contents of the weights, and each goes on with the counts of
    the one before.
    """

    def __init__(self, name: str, mlir: str, weights: Callable[[], list[torch.Tensor]],
                 trains: bool = False):
        self._name, self._mlir, self._weights, self._trains = name, mlir, weights, trains
        self._readers: dict[Any, LayerReader | None] = {}
        self._works: list[Work | None] = []
        self._kept: dict[str, Counts] = {}  # taken, but not by the monitor
        self._closing = ExitStack()
        self._count()

    def leave_out_recomputation(self, module: torch.nn.Module) -> None:
        """Do not count the calls of a module that are part of a backward pass."""
        def before(*_: Any) -> None:
            if _is_backward():
                self._kept = self._count()

        def after(*_: Any) -> None:
            if _is_backward():
                kept, self._kept = self._kept, {}
                self._count()
                self._kept = kept

        for handle in (module.register_forward_pre_hook(before),
                       module.register_forward_hook(after, always_call=True)):
            self._closing.callback(handle.remove)

    def _count(self) -> dict[str, Counts]:
        """Return what was counted since the last time, and what was kept."""
        found, self._kept = self._kept, {}
        for key, function in functions_of(self._mlir, self._weights(), self._trains).items():
            layer = function.layer
            if key not in self._readers:
                self._readers[key] = self._reader_of(layer)
            reader = self._readers[key]
            if reader is None:
                continue
            if not self._works:
                self._works.append(work_of(layer, self._name))
            for name, counts in named(self._name, reader.take(layer)).items():
                found[name] = found[name] + counts if name in found else counts
        return found

    def _reader_of(self, layer: Layer) -> LayerReader | None:
        try:
            return LayerReader(layer, self._name)
        except MoEError as error:  # a model must not fail because somebody watches it
            warnings.warn(f"not watched: {error.message}", stacklevel=2)
            return None

    def take(self) -> dict[str, Counts]:
        return self._count()

    def work(self, name: str, counts: Counts) -> Work | None:
        return self._works[0] if self._works else None

    def close(self) -> None:
        self._closing.close()


def _runs(ids: torch.Tensor) -> bool:
    """Return true if a call is one of the model's, and not part of a trace, of a capture or of
    what a backward pass computes again."""
    return not (_is_backward() or (ids.is_cuda and torch.cuda.is_current_stream_capturing())
                or isinstance(ids, FakeTensor))


def _is_backward() -> bool:
    """Return true within a backward pass."""
    return torch._C._current_graph_task_id() >= 0


def _work_of(module: torch.nn.Module, top_k: int) -> Work | None:
    """Return the work of experts with plain weights by their shapes."""
    weights = [getattr(module, name) for name in parameter_names(module)]
    first, second = weights[0], weights[len(weights) // 2]
    if not all(isinstance(w, torch.Tensor) and w.is_floating_point() for w in weights) or any(
            w.ndim != 3 or w.shape[0] != module.num_experts for w in (first, second)):
        return None
    hidden, output = ((first.shape[1], second.shape[2]) if module.is_transposed
                      else (first.shape[2], second.shape[1]))
    row = (hidden + output) * first.element_size()
    return Work(flops_per_row=2 * (first[0].numel() + second[0].numel()), bytes_per_row=row,
                bytes_per_expert=sum(w[0].numel() * w.element_size() for w in weights),
                # Rows in and out, ids of 8 bytes and weights of 4.
                bytes_per_token=row + top_k * (8 + 4))


def _joined(prefix: str, name: str, module: torch.nn.Module) -> str:
    return ".".join(part for part in (prefix, name) if part) or type(module).__name__


def _compiled(model: torch.nn.Module, prefix: str) -> Iterator[CompiledSource]:
    """Return the compiled layers inside of a module."""
    for name, module in model.named_modules():
        if isinstance(module, (CompiledLayer, TrainableLayer)):
            source = CompiledSource(_joined(prefix, name, module), module._mlir,
                                    functools.partial(_weights_of, module),
                                    isinstance(module, TrainableLayer))
            source.leave_out_recomputation(module)
            yield source
        elif isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.moe_mlir.layer.default and all(
                        w.op == "get_attr" for w in node.args[1]):
                    names = [w.target for w in node.args[1]]
                    owner = names[0].rpartition(".")[0]
                    yield CompiledSource(
                        _joined(prefix, f"{name}.{owner}".strip("."), module), node.args[2],
                        functools.partial(lambda m, n: tensors_by(m, n)[0], module, names))


def _weights_of(module: CompiledLayer | TrainableLayer) -> list[torch.Tensor]:
    return tensors_by(module, module._names)[0]


def sources_of(model: torch.nn.Module, prefix: str) -> Iterator[Source]:
    """Return the sources inside of a module."""
    found = 0
    if any(is_experts(module) for module in model.modules()):
        found += 1
        yield ExpertsSource(model, prefix)
    for source in _compiled(model, prefix):
        found += 1
        yield source
    if not found:
        raise MoEError(INVALID_ARGUMENT, f"{type(model).__name__} has no experts that can be "
                       "watched, expected some behind transformers' experts interface, or layers "
                       "of moe.from_torch")
