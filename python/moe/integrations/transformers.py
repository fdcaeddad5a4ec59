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

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from .._compile import compile as compile_module
from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, MoEError
from .._runtime import Layer
from ._experts.description import is_experts
from ._layers.accumulation import check_place
from ._layers.follow import weights_of
from ._transformers import routes as _routes
from ._transformers.experts import forward
from ._transformers.interface import check, watch
from ._transformers.routes import Route, Routes
from ._transformers.state import (NAME, OPTIONS, TRAINING, WARNED, check_freed, refuse_freed,
                                  state_of)

__all__ = ["NAME", "Route", "Routes", "layer_of", "prepare", "record", "register", "replay"]

# Names for the number of experts per token in configurations.
_TOP_K = ("num_experts_per_tok", "top_k_experts", "moe_topk", "moe_k", "moe_top_k")

# A layer to test the compiler and the runtime with.
_SMALLEST = """\
func.func @same(%x: tensor<?x1xf32> {moe.role = "input", moe.name = "x"}) -> tensor<?x1xf32> {
  return %x : tensor<?x1xf32>
}
"""

_tried: list[dict[str, Any]] = []  # options of calls of register


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
    OPTIONS.clear()
    OPTIONS.update(asked)
    TRAINING.clear()
    if accumulate_into is not None:
        TRAINING["accumulate_into"] = accumulate_into
    if _has_ranks():
        from ._transformers import expert_parallel

        expert_parallel.register(NAME, asked, deadline)
    WARNED.clear()


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
    ALL_EXPERTS_FUNCTIONS.register(NAME, forward)


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
            if refuse_freed in module._forward_pre_hooks.values():
                check_freed(module, implementation)


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
        state = state_of(module)
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
    bound = state_of(module).bound
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
