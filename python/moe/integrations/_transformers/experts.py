"""The function that transformers' experts interface calls, and its operations in graphs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from ..._error import FAILED_PRECONDITION, UNIMPLEMENTED, MoEError
from .._experts.description import describe, parameter_names
from .._layers.follow import is_computed, local_part, untraced, weights_of
from .._layers.gradients import needed_of
from .._layers.operation import layer as whole_operation
from . import routes
from .state import OPTIONS, STATES, TRAINING, state_of

__all__ = ["differentiable", "forward"]


@torch.compiler.assume_constant_result
def _ensure_state(module: torch.nn.Module) -> bool:
    state_of(module)
    return True


@torch.compiler.assume_constant_result
def _text_of(module: torch.nn.Module, top_k: int) -> tuple[str, int]:
    """Return the function of a module's experts, and the columns of its result."""
    with unset_fake_temporarily():
        experts = describe(module, type(module).__name__)
    return experts.mlir(top_k), experts.output


def forward(self: torch.nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor,
             top_k_weights: torch.Tensor) -> torch.Tensor:
    """Run the experts of one module, ``self``."""
    if (type(hidden_states) is torch.Tensor and not torch.compiler.is_compiling()
            and not torch.is_grad_enabled()):
        return state_of(self).run(hidden_states, top_k_index, top_k_weights)
    if torch.compiler.is_exporting():
        # A saved program has neither this module nor its key.
        names = parameter_names(self)
        mlir, columns = _text_of(self, top_k_index.shape[1])
        return whole_operation([hidden_states, top_k_index, top_k_weights],
                               weights_of(self, names), mlir, columns,
                               not any(is_computed(self, n) for n in names))
    if torch.is_grad_enabled():
        y = _with_gradients(self, hidden_states, top_k_index, top_k_weights)
        if y is not None:
            return y
    _ensure_state(self)
    # Read as an attribute, so that torch.compile guards it: code that was compiled for
    # one module must not run with the weights of another.
    state = self._moe_mlir
    parameters = []
    if torch.is_grad_enabled():
        parameters += self.parameters()
        if not torch.compiler.is_compiling():  # a parametrization may compute them elsewhere
            parameters += [w for w in weights_of(self, state.names) if not w.is_leaf]
    return torch.ops.moe_mlir.experts(hidden_states, top_k_index, top_k_weights, parameters,
                                      state.key, state.columns)


@torch.library.custom_op("moe_mlir::experts", mutates_args=())
def _operation(hidden_states: torch.Tensor, top_k_index: torch.Tensor,
               top_k_weights: torch.Tensor, parameters: list[torch.Tensor], key: str,
               columns: int) -> torch.Tensor:
    """Run the experts of ``key``. ``parameters`` are only there for autograd."""
    _owner_of(key)
    return STATES[key].run(hidden_states, top_k_index, top_k_weights)


def _owner_of(key: str) -> torch.nn.Module:
    state = STATES.get(key)
    if state is None or (owner := state.owner()) is None:
        raise MoEError(FAILED_PRECONDITION, f"no experts '{key}' in this process: the model that "
                       "was compiled is gone")
    return owner


@_operation.register_fake
def _(hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor,
      parameters: list[torch.Tensor], key: str, columns: int) -> torch.Tensor:
    return hidden_states.new_empty((hidden_states.shape[0], columns))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.key = inputs[4]


def _backward(ctx: Any, _: torch.Tensor) -> None:
    state = STATES.get(ctx.key)
    name, why = ("experts", "the model is gone") if state is None else (
        state.name, state.no_gradients)
    raise MoEError(UNIMPLEMENTED, f"{name}: compiled experts have no gradients here: {why}")


_operation.register_autograd(_backward, setup_context=_setup)


def _with_gradients(module: torch.nn.Module, hidden_states: torch.Tensor,
                    top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor | None:
    """Run the experts of a module so that their gradients can be computed; None if there are
    none to compute."""
    # Read once: each access to a computed weight creates another tensor.
    weights = weights_of(module, parameter_names(module))
    if not torch.compiler.is_compiling():
        weights = [local_part(w) for w in weights]
    needed = needed_of([hidden_states, top_k_index, top_k_weights], weights)
    if not needed:
        return None
    _ensure_state(module)
    state = module._moe_mlir  # guarded, as above
    if torch.compiler.is_compiling():
        found = differentiable(module, top_k_index.shape[-1], tuple(needed))
    else:
        found = differentiable(module, top_k_index.shape[-1], tuple(needed), weights)
    if found is None:
        return None
    mlir, followed, options = found
    if torch.compiler.is_compiling():
        top_k_index, top_k_weights, _ = torch.ops.moe_mlir.routed(top_k_index, top_k_weights,
                                                                  state.key)
    else:
        top_k_index, top_k_weights = routes.apply(module, top_k_index, top_k_weights)
    return torch.ops.moe_mlir.layer_forward([hidden_states, top_k_index, top_k_weights], weights,
                                            mlir, needed, followed, None, options)[0]


@torch.compiler.assume_constant_result
def differentiable(module: torch.nn.Module, top_k: int, needed: tuple[int, ...],
                    weights: Sequence[torch.Tensor] | None = None
                    ) -> tuple[str, bool, str] | None:
    """Return the function of a module's experts, whether its weights stay, and the options to
    compile it with; None if there is no backward function."""
    state = state_of(module)
    with unset_fake_temporarily():
        if weights is None:
            weights = weights_of(module, state.names)
        if any(w.is_meta for w in weights):
            state.no_gradients = "the weights were freed after they had been prepared"
            return None
        options = json.dumps({**OPTIONS, **TRAINING})
        mlir = state.function(module, weights, top_k, needed, options)
    followed = not any(is_computed(module, n) or untraced(w, module)
                       or not isinstance(module._parameters.get(n, w), torch.nn.Parameter)
                       for n, w in zip(state.names, weights))
    return None if mlir is None else (mlir, followed, options)


@torch.library.custom_op("moe_mlir::routed", mutates_args=())
def _routed(top_k_index: torch.Tensor, top_k_weights: torch.Tensor, key: str
            ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Apply what records or replaces routes to those of ``key``, also in code that was compiled
    before; the last result is 1 if the weights are the router's, otherwise 0."""
    ids, weights = routes.apply(_owner_of(key), top_k_index, top_k_weights)
    own = torch.full((), float(weights is top_k_weights), device=weights.device)
    return ids.clone(), weights.clone(), own


@_routed.register_fake
def _(top_k_index: torch.Tensor, top_k_weights: torch.Tensor, key: str
      ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    own = top_k_weights.new_empty((), dtype=torch.float32)
    return torch.empty_like(top_k_index), torch.empty_like(top_k_weights), own


def _setup_routed(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    ctx.mark_non_differentiable(output[0], output[2])
    ctx.save_for_backward(output[2])


def _routed_backward(ctx: Any, *results: torch.Tensor) -> tuple[Any, ...]:
    own, = ctx.saved_tensors
    return None, (results[1] * own).to(results[1].dtype), None


_routed.register_autograd(_routed_backward, setup_context=_setup_routed)
