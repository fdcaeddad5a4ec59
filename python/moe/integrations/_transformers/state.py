"""The state of experts modules that run compiled: their layers, and options of ``register``."""

from __future__ import annotations

import itertools
import threading
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from ..._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from ..._runtime import Module
from .._experts.description import Experts, describe, parameter_names
from .._graph.scalars import DTYPES
from .._layers.device import Bound, compile_for
from .._layers.follow import Snapshot, is_computed, local_part, untraced, weights_of
from .._layers.gradients import differentiated
from . import routes

__all__ = ["NAME", "OPTIONS", "STATES", "TRAINING", "WARNED", "State", "check_freed",
           "refuse_freed", "state_of"]

NAME = "moe_mlir"

_lock = threading.RLock()
OPTIONS: dict[str, Any] = {}
TRAINING: dict[str, str] = {}  # options of backward functions
_modules: dict[tuple[Experts, int, torch.device, str], Module] = {}
STATES: weakref.WeakValueDictionary[str, State] = weakref.WeakValueDictionary()
_numbers = itertools.count()
WARNED: set[str] = set()


def _compiled(experts: Experts, top_k: int, device: torch.device) -> Module:
    key = experts, top_k, device, repr(sorted(OPTIONS.items()))
    if key not in _modules:
        _modules[key] = compile_for(experts.mlir(top_k), device, **OPTIONS)
    return _modules[key]


class BoundExperts(Bound):
    """The compiled experts of a module with weights at one time."""

    def __init__(self, experts: Experts, weights: Sequence[torch.Tensor], top_k: int,
                 followed: bool):
        device = local_part(weights[0]).device
        super().__init__(_compiled(experts, top_k, device), weights, device,
                         Snapshot if followed else None, lambda own: [local_part(w) for w in own])
        self.experts, self.top_k = experts, top_k
        self.hidden, self.columns = experts.hidden, experts.output
        self.dtype = local_part(weights[0]).dtype
        self.kinds = _kinds(weights)
        self.used = False


def _kinds(weights: Sequence[torch.Tensor]) -> list[tuple[Any, ...]]:
    """Return everything about weights that their compiled code depends on."""
    return [(type(w), w.dtype, w.shape, w.device) for w in map(local_part, weights)]


class State:
    """The state of an experts module; a copy of the module gets a new one.

    ``key`` identifies the state in the custom operation.
    """

    def __init__(self, module: torch.nn.Module | None = None):
        self.owner = weakref.ref(module) if module is not None else lambda: None
        self.key = f"experts{next(_numbers)}"
        self.name = type(module).__name__
        self.columns = 0
        self.bound: BoundExperts | None = None
        self.in_vain = 0  # consecutive layers bound for one call
        # With gradients: the function by all that it depends on; None if it has no backward
        # function, for the last reason.
        self.functions: dict[tuple[Any, ...], str | None] = {}
        self.no_gradients = "they were not asked for"
        if module is not None:
            self.names = parameter_names(module)
            down = module.down_proj
            self.columns = down.shape[-1 if module.is_transposed else -2] if down.ndim == 3 else 0
            STATES[self.key] = self

    def __reduce__(self) -> tuple[type[State], tuple[()]]:
        return State, ()

    def current(self, weights: Sequence[torch.Tensor], top_k: int) -> BoundExperts | None:
        """Return the compiled layer if it is for this top k and these weights."""
        bound = self.bound
        if bound is None or bound.top_k != top_k or not bound.is_of(weights):
            return None
        bound.used = True
        return bound

    def bind(self, module: torch.nn.Module, weights: Sequence[torch.Tensor], top_k: int,
             look_again: bool = True) -> BoundExperts:
        """Prepare ``weights``, the current ones of the module.

        With ``look_again`` the rest of the module may have changed, too.
        """
        with _lock, torch.no_grad():
            last = self.bound
            if last is not None and all(w.is_meta for w in weights):
                raise MoEError(FAILED_PRECONDITION, f"{self.name}: the weights were freed after "
                               "they had been prepared; load the model again")
            reason = next(((n, why) for n, w in zip(self.names, weights)
                           if (why := untraced(w, module))), None)
            self.bound = None  # first, so that two prepared copies never coexist
            if look_again or last is None or last.kinds != _kinds(weights):
                experts = describe(module, self.name, weights)
                self.functions.clear()
            else:
                experts = last.experts
            self.bound = bound = BoundExperts(experts, weights, top_k, reason is None)
            if look_again or last is None or last.used or last.top_k != top_k:
                self.in_vain = 0
            else:
                self.in_vain += 1
                reason = reason or self.why_in_vain(module, weights, last)
            if reason is not None:
                self.warn(*reason, bound)
            return bound

    def why_in_vain(self, module: torch.nn.Module, weights: Sequence[torch.Tensor],
                    last: BoundExperts) -> tuple[str, str] | None:
        """Return why layers keep being bound for a single call; None if they are not."""
        changed = [n for n, w, s in zip(self.names, weights, last.snapshots or ())
                   if not s.still(w)]
        for name in changed:
            if is_computed(module, name):
                self.in_vain = 0
                return name, ("is computed by every access, for instance by a parametrization; "
                              "make it a parameter again for inference")
        if changed and self.in_vain > 1:
            return changed[0], ("was changed or replaced before each of the last calls; change it "
                                "less often, or use another implementation meanwhile")
        return None

    def warn(self, parameter: str, why: str, bound: BoundExperts) -> None:
        """Warn once for each reason, with the time it takes to prepare weights in every call."""
        if why not in WARNED:
            WARNED.add(why)
            warnings.warn(f"{self.name}: {parameter} {why}. While that is so, the weights of this "
                          "layer are prepared in every call: "
                          f"{bound.layer.weight_bytes} bytes, which took "
                          f"{1e3 * bound.seconds:.1f} ms now", stacklevel=2)

    def function(self, module: torch.nn.Module, weights: Sequence[torch.Tensor], top_k: int,
                 needed: tuple[int, ...], options: str) -> str | None:
        """Return the function whose gradients by the arguments ``needed`` can be computed."""
        key = top_k, needed, options, *_kinds(weights)
        if key not in self.functions:
            with _lock, torch.no_grad():
                mlir = describe(module, self.name, weights).mlir(top_k)
                try:
                    differentiated(mlir, needed, local_part(weights[0]).device, options)
                except MoEError as error:
                    if error.code != UNIMPLEMENTED:
                        raise
                    self.no_gradients, mlir = error.message, None
                self.functions[key] = mlir
        return self.functions[key]

    def free(self, module: torch.nn.Module) -> None:
        with _lock:
            for name in self.names:
                parameter = getattr(module, name)
                if type(parameter) is not torch.nn.Parameter:
                    raise MoEError(UNIMPLEMENTED, f"{self.name}: {name} is a "
                                   f"{type(parameter).__name__}, expected a parameter to free")
            with torch.inference_mode(False):  # so that what replaces them is seen
                for name in self.names:
                    parameter = getattr(module, name)
                    empty = torch.empty_strided(parameter.shape, parameter.stride(),
                                                dtype=parameter.dtype, device="meta")
                    setattr(module, name, torch.nn.Parameter(empty, parameter.requires_grad))
            self.bound.snapshots = [Snapshot(w) for w in weights_of(module, self.names)]
            if refuse_freed not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(refuse_freed)

    def run(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor,
            top_k_weights: torch.Tensor) -> torch.Tensor:
        module = self.owner()
        top_k_index, top_k_weights = routes.apply(module, top_k_index, top_k_weights)
        shape = top_k_index.shape
        if len(shape) != 2:
            raise self.error("top_k_index", top_k_index, "[tokens, choices]")
        tokens, top_k = shape
        # Read once: each access to a computed weight creates another tensor.
        weights = weights_of(module, self.names)
        # One object, so that a concurrent rebind does not change it in between.
        bound = self.current(weights, top_k)
        if bound is None:
            with _lock:
                bound = self.current(weights, top_k) or self.bind(module, weights, top_k, False)
        dtype = hidden_states.dtype
        if not dtype.is_floating_point or hidden_states.shape != (tokens, bound.hidden):
            raise self.error("hidden_states", hidden_states,
                             f"{DTYPES[bound.dtype]} [{tokens}, {bound.hidden}]")
        if top_k_weights.shape != shape:
            raise self.error("top_k_weights", top_k_weights, f"{list(shape)}")
        for tensor in (hidden_states, top_k_index, top_k_weights):
            if tensor.device != bound.device:
                raise MoEError(INVALID_ARGUMENT, f"{self.name}: an input is on '{tensor.device}', "
                               f"expected '{bound.device}' as the weights")
        if top_k_index.is_floating_point():
            raise self.error("top_k_index", top_k_index, "integers")
        # As in transformers' grouped experts: other types come from autocast.
        hidden_states = hidden_states.to(bound.dtype).contiguous()
        ids = top_k_index.to(torch.int64).contiguous()
        scales = top_k_weights.to(torch.float32).contiguous()
        out = hidden_states.new_empty((tokens, bound.columns))
        bound.call(tokens, (hidden_states, ids, scales), (out,))
        return out.to(dtype)

    def error(self, what: str, tensor: torch.Tensor, expected: str) -> MoEError:
        actual = f"{DTYPES.get(tensor.dtype, tensor.dtype)} {list(tensor.shape)}"
        return MoEError(INVALID_ARGUMENT,
                        f"{self.name}: {what} is {actual}, expected {expected}")


def refuse_freed(module: torch.nn.Module, _arguments: Any) -> None:
    """A forward hook for modules whose weights are only in a compiled layer."""
    if module.config._experts_implementation != NAME:
        check_freed(module, module.config._experts_implementation)


def check_freed(module: torch.nn.Module, implementation: str) -> None:
    if module.down_proj.is_meta:
        raise MoEError(FAILED_PRECONDITION, f"{type(module).__name__}: the weights were freed "
                       f"after they had been prepared for '{NAME}', so that '{implementation}' "
                       "has none; load them again")


def state_of(module: torch.nn.Module) -> State:
    state = module.__dict__.get("_moe_mlir")
    # In a copy of the module, the owner is another module.
    if state is None or state.owner() is not module:
        with _lock:
            state = module.__dict__.get("_moe_mlir")
            if state is None or state.owner() is not module:
                state = module.__dict__["_moe_mlir"] = State(module)
    return state
