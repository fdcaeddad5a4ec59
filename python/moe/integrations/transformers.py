"""Compiled experts in unmodified models of Hugging Face transformers.

    import moe.integrations.transformers as compiled_experts

    compiled_experts.register()
    model = AutoModelForCausalLM.from_pretrained(DIR, experts_implementation="moe_mlir")
    compiled_experts.prepare(model)         # or at the first call
    model.generate(...)

``register`` adds an implementation to transformers' experts interface, so that any model
whose experts go through it runs them as compiled layers; routers, shared experts and the
rest stay as they are.  Layers of one shape share one compiled module, in the process and
in the cache of ``moe.compile``; each keeps its own weights.

* The code computes what transformers' eager experts do, in the type of the weights (f32,
  bf16 or f16); the choices of a token are added in f32 and rounded once.  Hidden states of
  another type, as under autocast, are cast to it and the output back, as transformers'
  grouped experts do.
* Ids equal to the number of experts (another rank's, under expert parallelism) or -1 add
  nothing; any other id that is no expert is an error.
* Weights are prepared once, and again after one of them is replaced or changed in place.
  If changes cannot be detected (parametrizations, inference mode, FSDP), weights are
  prepared in every call, with a warning that states the time.
  A write through ``parameter.data``, ``numpy()`` or DLPack leaves no trace in torch, and
  other changes of a module (its activation, a limit) are not detected: call ``prepare``
  after such a change.
* On the CPU, or on GPUs by CUDA: there a call runs on PyTorch's current stream, with
  workspace from PyTorch's allocator, and can be captured by ``torch.cuda.graph`` once the
  weights are prepared. An invalid id is then an error of a later call.
* Where PyTorch asks for gradients, a backward function is compiled for the tensors that need
  one, and weights are prepared for both functions after each change of them. Gradients of
  gradients are an error; so is a backward pass through experts that have no backward
  function, or whose weights were freed.
* ``record`` has the experts and weights that the routers choose, and ``replay`` gives them
  to the experts again.
* Under ``torch.compile`` the experts are one custom operation, ``moe_mlir::experts``, with
  the name of the module as an operand: code compiled for one layer is not reused for another.
  With gradients they are ``moe_mlir::layer_forward``.
* ``DistributedConfig(ep_size=N, ep_implementation="moe_mlir")`` runs them over N ranks, on a
  process group with gloo (``moe.parallel``); there they have no gradients.
* Under ``torch.export`` they are ``moe_mlir::layer``, whose operands are all that it depends on:
  a saved program loads in any process that imported ``moe.integrations.torch``.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .._compile import compile as compile_module
from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Layer, Module
from ._experts.description import Experts, describe, is_experts, parameter_names
from ._graph.scalars import DTYPES
from ._layers.accumulation import check_place
from ._layers.device import Bound, compile_for
from ._layers.follow import Snapshot, is_computed, local_part, untraced, weights_of
from ._layers.gradients import differentiated, needed_of
from ._layers.operation import layer as whole_operation
from ._transformers import routes as _routes
from ._transformers.interface import check, watch
from ._transformers.routes import Route, Routes

__all__ = ["NAME", "Route", "Routes", "layer_of", "prepare", "record", "register", "replay"]

NAME = "moe_mlir"

# Names for the number of experts per token in configurations.
_TOP_K = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")

# A layer to test the compiler and the runtime with.
_SMALLEST = """\
func.func @same(%x: tensor<?x1xf32> {moe.role = "input", moe.name = "x"}) -> tensor<?x1xf32> {
  return %x : tensor<?x1xf32>
}
"""

_lock = threading.RLock()
_options: dict[str, Any] = {}
_training: dict[str, str] = {}  # options of backward functions
_tried: list[dict[str, Any]] = []
_modules: dict[tuple[Experts, int, torch.device, str], Module] = {}
_states: weakref.WeakValueDictionary[str, _State] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_warned: set[str] = set()


def register(*, target: str | None = None, options: Sequence[str] = (), cache: bool = True,
             num_threads: int = 0, accumulate_into: str | None = None,
             deadline: float = 60.0) -> None:
    """Register ``experts_implementation="moe_mlir"`` with transformers, and
    ``ep_implementation="moe_mlir"`` for experts over several ranks, which wait for one another
    up to ``deadline`` seconds.

    The arguments are those of ``moe.compile`` for layers that are prepared later. They, the
    compiler and the runtime are tested here. From now on it is an error to load a model
    with this implementation if it has experts that transformers' interface does not reach.

    With ``accumulate_into="grad"`` or ``"main_grad"`` the backward pass of calls from then on
    adds the gradients of the experts' parameters to that attribute of them, in place, and
    autograd gets none. ``grad`` is made where there is none; ``main_grad`` may be f32, and
    parameters without it have ordinary gradients. So have those with hooks, and graphs of
    ``torch.compile``. ``torch.autograd.grad`` by such parameters fails.
    """
    check_place(accumulate_into)
    asked = dict(target=target, options=tuple(options), cache=cache, num_threads=num_threads)
    if isinstance(options, str):
        raise MoEError(INVALID_ARGUMENT, f"options is {options!r}, expected a sequence of strings")
    _connect()
    if asked not in _tried:
        on_gpu = target is not None and target.startswith("sm_")
        compile_module(_SMALLEST, device="cuda" if on_gpu else None, **asked)
        _tried.append(asked)
    _options.clear()
    _options.update(asked)
    _training.clear()
    if accumulate_into is not None:
        _training["accumulate_into"] = accumulate_into
    if _has_ranks():
        from ._transformers import expert_parallel

        expert_parallel.register(NAME, asked, deadline)
    _warned.clear()


def _connect() -> None:
    """Add the implementation to transformers."""
    import transformers

    # Before, an implementation by another name than transformers' own was refused.
    version = tuple(int(n) for n in re.findall(r"\d+", transformers.__version__)[:3])
    if version < (5, 7, 0):
        raise MoEError(FAILED_PRECONDITION, f"transformers has version {transformers.__version__}, "
                       "expected 5.7.0 or later")
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    watch(NAME, _switch)
    ALL_EXPERTS_FUNCTIONS.register(NAME, _forward)


def _has_ranks() -> bool:
    """Whether this transformers takes implementations of expert parallelism."""
    if not torch.distributed.is_available():
        return False
    try:
        from transformers.distributed.expert_parallel import EPImplementationInterface
    except ImportError:
        return False
    return EPImplementationInterface is not None


def _switch(model: torch.nn.Module, implementation: str) -> None:
    """Called for each model that gets an implementation."""
    if implementation != NAME:
        for module in model.modules():
            if _refuse_freed in module._forward_pre_hooks.values():
                _check_freed(module, implementation)


def prepare(model: torch.nn.Module, *, top_k: int | None = None, free_weights: bool = False,
            progress: bool = True) -> None:
    """Compile the experts of ``model`` and bind their weights now, layer by layer.

    A model that was loaded with another implementation is switched to this one.

    Args:
      model: a model of transformers, or any module with experts inside.
      top_k: choices of a token, where the configuration does not name them.
      free_weights: leave the weights to the compiled layers alone, which saves memory where
        they prepare copies: the parameters move to the device "meta". The model cannot be
        saved then, nor its experts run by another implementation, until weights are loaded
        again (with ``assign=True``).
      progress: show a progress bar.

    Raises:
      MoEError: if there are no experts, or some that cannot be compiled.
    """
    from transformers.utils import logging

    experts = [(name, m) for name, m in model.named_modules() if is_experts(m)]
    if not experts:
        raise MoEError(INVALID_ARGUMENT, f"{type(model).__name__} has no experts that go through "
                       "transformers' experts interface")
    check(model, NAME)
    bar = logging.tqdm(experts, desc="Preparing experts", unit="layer", disable=not progress)
    for name, module in bar:
        state = _state_of(module)
        state.name = name or type(module).__name__
        choices = _top_k(module, state.name) if top_k is None else top_k
        state.bind(module, weights_of(module, state.names), choices)
        if free_weights:
            state.free(module)
    _connect()
    for _, module in experts:
        module.config._experts_implementation = NAME


def layer_of(module: torch.nn.Module) -> Layer | None:
    """Return the compiled layer of an experts module, e.g. for its statistics."""
    if (ranks := module.__dict__.get("_moe_mlir_ranks")) is not None:
        return ranks.layer
    bound = _state_of(module).bound
    return None if bound is None else bound.layer


def record(model: torch.nn.Module) -> AbstractContextManager[Routes]:
    """Record which experts the tokens of ``model`` go to, and with which weights.

        with compiled_experts.record(model) as routes:
            model.generate(ids)
        routes["model.layers.0.mlp.experts"][0].ids     # of the first call: [tokens, choices]

    It works with every implementation of experts, for code that ``torch.compile`` made before
    with this one only. Ids are int64, weights float32, which has every value of bf16 and f16.
    """
    return _routes.record(model, NAME)


def replay(model: torch.nn.Module, routes: Mapping[str, Sequence[Route]], *,
           weights: str = "recorded") -> AbstractContextManager[None]:
    """Give the experts of ``model`` recorded routes, call by call, instead of their router's.

        with compiled_experts.replay(model, routes):
            model.generate(ids)

    Args:
      model: the model, or one with experts of the same names.
      routes: a route for each call of each experts module. ``Routes.merged`` makes one call of
        the calls on a sequence.
      weights: ``recorded``: the experts get the recorded ids and weights, so that the same
        implementation computes the same bits from the same hidden states. ``router``: the
        router chooses the recorded ids and weighs them by its current weights, with
        gradients; for routers that choose with ``torch.topk`` and run eagerly.

    Raises:
      MoEError: for a call of another shape or beyond the recorded ones, and at the end for
        experts of which no call was replayed.
    """
    return _routes.replay(model, routes, weights, NAME)


def _top_k(module: torch.nn.Module, name: str) -> int:
    for attribute in _TOP_K:
        if isinstance(value := getattr(module.config, attribute, None), int):
            return value
    raise MoEError(INVALID_ARGUMENT, f"{name}: {type(module.config).__name__} has none of "
                   f"{', '.join(_TOP_K)}; pass top_k")


def _compiled(experts: Experts, top_k: int, device: torch.device) -> Module:
    key = experts, top_k, device, repr(sorted(_options.items()))
    if key not in _modules:
        _modules[key] = compile_for(experts.mlir(top_k), device, **_options)
    return _modules[key]


class _BoundExperts(Bound):
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


class _State:
    """The state of an experts module; a copy of the module gets a new one.

    ``key`` identifies the state in the custom operation.
    """

    def __init__(self, module: torch.nn.Module | None = None):
        self.owner = weakref.ref(module) if module is not None else lambda: None
        self.key = f"experts{next(_numbers)}"
        self.name = type(module).__name__
        self.columns = 0
        self.bound: _BoundExperts | None = None
        self.in_vain = 0  # consecutive layers bound for one call
        # With gradients: the function by all that it depends on; None if it has no backward
        # function, for the last reason.
        self.functions: dict[tuple[Any, ...], str | None] = {}
        self.no_gradients = "they were not asked for"
        if module is not None:
            self.names = parameter_names(module)
            down = module.down_proj
            self.columns = down.shape[-1 if module.is_transposed else -2] if down.ndim == 3 else 0
            _states[self.key] = self

    def __reduce__(self) -> tuple[type[_State], tuple[()]]:
        return _State, ()

    def current(self, weights: Sequence[torch.Tensor], top_k: int) -> _BoundExperts | None:
        """Return the compiled layer if it is for this top k and these weights."""
        bound = self.bound
        if bound is None or bound.top_k != top_k or not bound.is_of(weights):
            return None
        bound.used = True
        return bound

    def bind(self, module: torch.nn.Module, weights: Sequence[torch.Tensor], top_k: int,
             look_again: bool = True) -> _BoundExperts:
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
            self.bound = bound = _BoundExperts(experts, weights, top_k, reason is None)
            if look_again or last is None or last.used or last.top_k != top_k:
                self.in_vain = 0
            else:
                self.in_vain += 1
                reason = reason or self.why_in_vain(module, weights, last)
            if reason is not None:
                self.warn(*reason, bound)
            return bound

    def why_in_vain(self, module: torch.nn.Module, weights: Sequence[torch.Tensor],
                    last: _BoundExperts) -> tuple[str, str] | None:
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

    def warn(self, parameter: str, why: str, bound: _BoundExperts) -> None:
        """Warn once for each reason, with the time it takes to prepare weights in every call."""
        if why not in _warned:
            _warned.add(why)
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
            if _refuse_freed not in module._forward_pre_hooks.values():
                module.register_forward_pre_hook(_refuse_freed)

    def run(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor,
            top_k_weights: torch.Tensor) -> torch.Tensor:
        module = self.owner()
        top_k_index, top_k_weights = _routes.apply(module, top_k_index, top_k_weights)
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


def _refuse_freed(module: torch.nn.Module, _arguments: Any) -> None:
    """A forward hook for modules whose weights are only in a compiled layer."""
    if module.config._experts_implementation != NAME:
        _check_freed(module, module.config._experts_implementation)


def _check_freed(module: torch.nn.Module, implementation: str) -> None:
    if module.down_proj.is_meta:
        raise MoEError(FAILED_PRECONDITION, f"{type(module).__name__}: the weights were freed "
                       f"after they had been prepared for '{NAME}', so that '{implementation}' "
                       "has none; load them again")


def _state_of(module: torch.nn.Module) -> _State:
    state = module.__dict__.get("_moe_mlir")
    # In a copy of the module, the owner is another module.
    if state is None or state.owner() is not module:
        with _lock:
            state = module.__dict__.get("_moe_mlir")
            if state is None or state.owner() is not module:
                state = module.__dict__["_moe_mlir"] = _State(module)
    return state


@torch.compiler.assume_constant_result
def _ensure_state(module: torch.nn.Module) -> bool:
    _state_of(module)
    return True


@torch.compiler.assume_constant_result
def _text_of(module: torch.nn.Module, top_k: int) -> tuple[str, int]:
    """Return the function of a module's experts, and the columns of its result."""
    with unset_fake_temporarily():
        experts = describe(module, type(module).__name__)
    return experts.mlir(top_k), experts.output


def _forward(self: torch.nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor,
             top_k_weights: torch.Tensor) -> torch.Tensor:
    """Run the experts of one module, ``self``."""
    if (type(hidden_states) is torch.Tensor and not torch.compiler.is_compiling()
            and not torch.is_grad_enabled()):
        return _state_of(self).run(hidden_states, top_k_index, top_k_weights)
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
    return _states[key].run(hidden_states, top_k_index, top_k_weights)


def _owner_of(key: str) -> torch.nn.Module:
    state = _states.get(key)
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
    state = _states.get(ctx.key)
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
        found = _differentiable(module, top_k_index.shape[-1], tuple(needed))
    else:
        found = _differentiable(module, top_k_index.shape[-1], tuple(needed), weights)
    if found is None:
        return None
    mlir, followed, options = found
    if torch.compiler.is_compiling():
        top_k_index, top_k_weights, _ = torch.ops.moe_mlir.routed(top_k_index, top_k_weights,
                                                                  state.key)
    else:
        top_k_index, top_k_weights = _routes.apply(module, top_k_index, top_k_weights)
    return torch.ops.moe_mlir.layer_forward([hidden_states, top_k_index, top_k_weights], weights,
                                            mlir, needed, followed, None, options)[0]


@torch.compiler.assume_constant_result
def _differentiable(module: torch.nn.Module, top_k: int, needed: tuple[int, ...],
                    weights: Sequence[torch.Tensor] | None = None
                    ) -> tuple[str, bool, str] | None:
    """Return the function of a module's experts, whether its weights stay, and the options to
    compile it with; None if there is no backward function."""
    state = _state_of(module)
    with unset_fake_temporarily():
        if weights is None:
            weights = weights_of(module, state.names)
        if any(w.is_meta for w in weights):
            state.no_gradients = "the weights were freed after they had been prepared"
            return None
        options = json.dumps({**_options, **_training})
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
    ids, weights = _routes.apply(_owner_of(key), top_k_index, top_k_weights)
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
