"""Compiled experts in unmodified models of vLLM, on the CPU.

    from vllm import LLM

    llm = LLM(model=DIR, additional_config={"moe_mlir": True})
    llm.generate(...)

or ``vllm serve DIR --additional-config '{"moe_mlir": true}'``.  An installed ``moe-compiler``
registers itself with vLLM in every process of an engine (the entry point ``moe_mlir`` of
``vllm.general_plugins``).  An engine that does not ask for ``moe_mlir`` runs vLLM's own code.

``register`` gives vLLM an out-of-tree method for the layers of ``FusedMoE`` that are not
quantised.  vLLM routes, so that all its routers work, adds shared experts and reduces over
ranks; the method computes the routed experts from ids and weights.  Layers of one shape
share one compiled module, in the process and in the cache of ``moe.compile``.

* The code computes in f32 and rounds to the type of the weights (f32, bf16 or f16) after each
  matmul, bias and activation; the choices of a token are added in f32 and rounded once.
* Activations: ``silu``, with or without a limit, ``gelu``, ``gelu_tanh``, ``swigluoai``,
  ``swigluoai_uninterleave``, ``swiglustep`` and ``situ``, with or without biases.
* Ids of -1 or of the number of experts add nothing; any other that is no expert is an error.
* Weights are prepared after loading, and vLLM's copy is freed.  The model can load weights
  again (``reload_weights``), but not save them.
* Expert parallelism, its load balancer, data parallelism and LoRA are errors.  Quantised
  layers keep vLLM's method, with a warning.
* Under ``torch.compile`` the experts are one custom operation, ``moe_mlir::vllm_experts``.

``{"moe_mlir": {"target": ..., "options": [...]}}`` passes these to ``moe.compile``.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch
import torch.nn.functional as F
import vllm.envs as envs
from vllm.config import get_current_vllm_config_or_none
from vllm.logger import init_logger
from vllm.model_executor.custom_op import CustomOp, op_registry_oot
from vllm.model_executor.layers.fused_moe import (FusedMoEConfig, RoutedExperts,
                                                  UnquantizedFusedMoEMethod)
from vllm.model_executor.layers.fused_moe.oracle.unquantized import UnquantizedMoeBackend
from vllm.model_executor.utils import replace_parameter
from vllm.platforms import current_platform

from .._call import Calls
from .._compile import compile as compile_module
from .._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Module
from ._experts.description import Experts
from ._graph.elementwise import trace
from ._graph.scalars import DTYPES

__all__ = ["NAME", "register"]

NAME = "moe_mlir"

# What vLLM calls the weights, and what the compiled function does.
_WEIGHTS = {"w13_weight": "gate_up_proj", "w13_bias": "gate_up_proj_bias",
            "w2_weight": "down_proj", "w2_bias": "down_proj_bias"}

# vLLM only configures the loggers below its own.
_logger = init_logger(f"vllm.{__name__}")

_numbers = itertools.count()
_layers: weakref.WeakValueDictionary[int, _Layer] = weakref.WeakValueDictionary()


def register() -> None:
    """Register the method with vLLM, for engines whose ``additional_config`` has ``moe_mlir``.

    vLLM calls this as a plugin, in each process of an engine.  Where the wheel is not installed,
    as in a source tree, call it before an engine is created that runs in this process alone
    (``VLLM_ENABLE_V1_MULTIPROCESSING=0``).
    """
    if envs.VLLM_ENABLE_V1_MULTIPROCESSING and not entry_points(group="vllm.general_plugins",
                                                                name=NAME):
        _logger.warning("the plugin %s is not installed, so that the other processes of an engine "
                        "run vLLM's own experts: install moe-compiler, or set "
                        "VLLM_ENABLE_V1_MULTIPROCESSING=0", NAME)
    for replaced, ours in ((UnquantizedFusedMoEMethod, CompiledExpertsMethod),
                           (RoutedExperts, _RoutedExperts)):
        found = op_registry_oot.get(replaced.__name__)
        if found is None:
            CustomOp.register_oot(ours, name=replaced.__name__)
        elif found is not ours:
            # Not an error: an engine may well not want moe_mlir.
            _logger.warning("another plugin replaces %s by %s.%s: %s has no effect on it",
                            replaced.__name__, found.__module__, found.__name__, NAME)


def _options() -> dict[str, Any] | None:
    """Return the options of the engine that is being created; None if it does not ask."""
    config = get_current_vllm_config_or_none()
    known = getattr(config, "additional_config", None)
    asked = known.get(NAME, False) if isinstance(known, dict) else False
    if isinstance(asked, bool):
        return {} if asked else None
    if not isinstance(asked, dict) or not asked.keys() <= {"target", "options"}:
        raise MoEError(INVALID_ARGUMENT, f"additional_config: {NAME} is {asked!r}, expected a "
                       "boolean, or an object with 'target' and 'options'")
    return asked


class CompiledExpertsMethod(UnquantizedFusedMoEMethod):
    """Runs the routed experts of one layer as compiled code."""

    def __init__(self, moe: FusedMoEConfig):
        options = _options()
        if options is None:
            # vLLM creates this class for every engine once it is registered.
            self.__class__ = UnquantizedFusedMoEMethod
            UnquantizedFusedMoEMethod.__init__(self, moe)
            return
        # vLLM's own would choose one of its kernels, or find none.
        super(UnquantizedFusedMoEMethod, self).__init__(moe)
        self.unquantized_backend = UnquantizedMoeBackend.OOT
        self.experts_cls = None
        self.supports_pre_processed_weights = False
        self.options = options
        self.compiled: _Layer | None = None
        # Names the layer in the custom operation. A tensor is an input of vLLM's graphs, which
        # are shared by layers and kept across processes; a number would be a constant of them.
        self.key = torch.tensor(next(_numbers))

    @property
    def is_monolithic(self) -> bool:
        return False  # vLLM routes

    def create_weights(self, layer: RoutedExperts, num_experts: int, hidden_size: int,
                       intermediate_size_per_partition: int, params_dtype: torch.dtype,
                       **extra_weight_attrs: Any) -> None:
        _check(layer, self.moe, params_dtype)
        super().create_weights(layer, num_experts, hidden_size, intermediate_size_per_partition,
                               params_dtype, **extra_weight_attrs)

    def process_weights_after_loading(self, layer: RoutedExperts) -> None:
        """Prepare the weights and free vLLM's copy of them; again after weights were reloaded."""
        self.compiled = None  # first, so that two prepared copies never coexist
        self.compiled = _Layer(layer, self.moe, self.options)
        _layers[int(self.key)] = self.compiled
        for name in ("w13_weight", "w2_weight"):
            weight = getattr(layer, name)
            replace_parameter(layer, name, weight.new_empty((len(weight), 0, 0)))

    def apply(self, layer: RoutedExperts, x: torch.Tensor, topk_weights: torch.Tensor,
              topk_ids: torch.Tensor, shared_experts: Any = None,
              shared_experts_input: torch.Tensor | None = None) -> torch.Tensor:
        # vLLM runs the shared experts itself, as this method has no kernel to overlap them with.
        if layer.apply_router_weight_on_input:
            x = x * topk_weights.to(x.dtype)
            topk_weights = torch.ones_like(topk_weights)
        if torch.compiler.is_compiling():
            return torch.ops.moe_mlir.vllm_experts(x, topk_weights, topk_ids, self.key)
        if self.compiled is None:
            raise MoEError(FAILED_PRECONDITION, f"{layer.layer_name}: the weights are not loaded")
        return self.compiled.run(x, topk_weights, topk_ids)


class _RoutedExperts(RoutedExperts):
    """Names the layers that other methods run in an engine that asks for compiled experts."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if _options() is not None and not isinstance(self.quant_method, CompiledExpertsMethod):
            _logger.warning("%s: the experts are quantised (%s), so that %s does not compile "
                            "them: vLLM's own method runs them", self.layer_name,
                            type(self.quant_method).__name__, NAME)


def _check(layer: RoutedExperts, moe: FusedMoEConfig, dtype: torch.dtype) -> None:
    """Refuse what the compiled code does not do."""
    parallel, name = moe.moe_parallel_config, layer.layer_name
    if not current_platform.is_cpu():
        raise MoEError(UNIMPLEMENTED, f"{name}: {NAME} runs on vLLM's platform 'cpu', got "
                       f"'{current_platform.device_type}'")
    for refused, what in (
            (parallel.use_ep or parallel.enable_eplb, "expert parallelism"),
            (parallel.dp_size > 1, f"data parallelism ({parallel.dp_size} ranks)"),
            (parallel.pcp_size > 1, f"context parallelism ({parallel.pcp_size} ranks)"),
            (moe.is_lora_enabled, "LoRA"),
            (moe.num_local_experts != moe.num_experts,
             f"{moe.num_local_experts} of {moe.num_experts} experts on a rank")):
        if refused:
            raise MoEError(UNIMPLEMENTED, f"{name}: {NAME} does not support {what}; leave it out, "
                           f"or run vLLM's own experts without {NAME} in additional_config")
    if dtype not in DTYPES:
        raise MoEError(UNIMPLEMENTED, f"{name}: the weights are {dtype}, expected f32, bf16 or f16")
    if layer.apply_router_weight_on_input and moe.experts_per_token != 1:
        raise MoEError(UNIMPLEMENTED, f"{name}: apply_router_weight_on_input with "
                       f"{moe.experts_per_token} experts per token, expected 1")
    _gate(name, moe)


def _gate(name: str, moe: FusedMoEConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function between the matmuls, as vLLM's fused_moe/activation.py defines it."""
    kind, limit = moe.activation.value, moe.swiglu_limit
    alpha, beta, interleaved = 1.0, 0.0, False

    def silu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        if limit is not None:
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        scaled = F.silu(gate) if alpha == 1.0 else gate * torch.sigmoid(alpha * gate)
        return scaled * (up + beta if beta else up)

    def step(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        return F.silu(gate).clamp(max=limit) * up.clamp(-limit, limit)

    def situ(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        b, linear = moe.activation_situ_beta, moe.activation_situ_linear_beta
        if linear is not None:
            up = linear * torch.tanh(up / linear)
        return b * torch.tanh(gate / b) * torch.sigmoid(gate) * up

    if kind in ("swigluoai", "swiglustep") and limit is None:
        limit = 7.0
    if kind == "swigluoai":
        alpha, beta, interleaved = 1.702, 1.0, True
    if kind in ("swigluoai", "swigluoai_uninterleave"):
        alpha = alpha if moe.swiglu_alpha is None else moe.swiglu_alpha
        beta = beta if moe.swiglu_beta is None else moe.swiglu_beta
    functions = {
        "silu": silu, "swigluoai": silu, "swigluoai_uninterleave": silu, "swiglustep": step,
        "situ": situ,
        "gelu": lambda gate, up: F.gelu(gate) * up,
        "gelu_tanh": lambda gate, up: F.gelu(gate, approximate="tanh") * up}
    missing = {"swigluoai_uninterleave": limit, "situ": moe.activation_situ_beta}
    if kind not in functions or missing.get(kind, 0.0) is None:
        without = " without its limit or beta" if kind in functions else ""
        raise MoEError(UNIMPLEMENTED, f"{name}: the activation is '{kind}'{without}, expected one "
                       f"of {', '.join(functions)}")
    function = functions[kind]

    def gate(x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        first, second = (x[:, ::2], x[:, 1::2]) if interleaved else (x[:, :half], x[:, half:])
        return function(first.float(), second.float()).to(x.dtype)

    return gate


@functools.lru_cache(maxsize=64)
def _module(experts: Experts, top_k: int, target: str | None, options: tuple[str, ...]) -> Module:
    return compile_module(experts.mlir(top_k), target=target, options=options)


class _Layer:
    """A compiled layer with the weights of one ``RoutedExperts``."""

    def __init__(self, layer: RoutedExperts, moe: FusedMoEConfig, options: dict[str, Any]):
        self.name, self.top_k = layer.layer_name, moe.experts_per_token
        weights = {ours: getattr(layer, name).detach().contiguous()
                   for name, ours in _WEIGHTS.items() if hasattr(layer, name)}
        up, down = weights["gate_up_proj"], weights["down_proj"]
        if up.numel() == 0:
            raise MoEError(FAILED_PRECONDITION, f"{self.name}: the weights were freed after they "
                           "had been prepared; load them again")
        self.dtype, (count, self.hidden, inner) = up.dtype, down.shape
        gate = trace(_gate(self.name, moe), up.shape[1], up.dtype,
                     f"{self.name}: the activation '{moe.activation.value}'")
        experts = Experts(count, self.hidden, up.shape[1], inner, self.hidden, DTYPES[up.dtype],
                          False, tuple(weights), tuple(DTYPES[w.dtype] for w in weights.values()),
                          gate)
        for (ours, weight), shape in zip(weights.items(), experts.shapes()):
            if tuple(weight.shape) != shape:
                raise MoEError(INVALID_ARGUMENT, f"{self.name}: {ours} has shape "
                               f"{tuple(weight.shape)}, expected {shape}")
        module = _module(experts, self.top_k, options.get("target"),
                         tuple(options.get("options", ())))
        self.layer = module.layer(list(weights.values()))
        self.calls = Calls(self.layer)
        _logger.info_once("Using %s experts: %d of %d x %d, %s, %s", NAME, count, self.hidden,
                          inner, DTYPES[up.dtype], moe.activation.value)

    def run(self, x: torch.Tensor, topk_weights: torch.Tensor,
            topk_ids: torch.Tensor) -> torch.Tensor:
        chosen = (len(x), self.top_k)
        for what, tensor, shape in (("x", x, (len(x), self.hidden)),
                                    ("topk_weights", topk_weights, chosen),
                                    ("topk_ids", topk_ids, chosen)):
            if tuple(tensor.shape) != shape:
                raise MoEError(INVALID_ARGUMENT, f"{self.name}: {what} has shape "
                               f"{tuple(tensor.shape)}, expected {shape}")
        if x.dtype != self.dtype:
            raise MoEError(INVALID_ARGUMENT, f"{self.name}: x is {x.dtype}, expected {self.dtype}")
        x, ids = x.contiguous(), topk_ids.to(torch.int64).contiguous()
        scales, out = topk_weights.to(torch.float32).contiguous(), torch.empty_like(x)
        self.calls.call(len(x), (x.data_ptr(), ids.data_ptr(), scales.data_ptr()),
                        (out.data_ptr(),))
        return out


@torch.library.custom_op("moe_mlir::vllm_experts", mutates_args=())
def _operation(x: torch.Tensor, topk_weights: torch.Tensor, topk_ids: torch.Tensor,
               key: torch.Tensor) -> torch.Tensor:
    layer = _layers.get(int(key))
    if layer is None:
        raise MoEError(FAILED_PRECONDITION, f"no experts {int(key)} in this process: their engine "
                       "is gone, or their weights are not loaded")
    return layer.run(x, topk_weights, topk_ids)


@_operation.register_fake
def _(x: torch.Tensor, topk_weights: torch.Tensor, topk_ids: torch.Tensor,
      key: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)
