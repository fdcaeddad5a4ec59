"""Calls of a layer from programs that JAX compiles.

A call is an operation of JAX of its own, with rules for shapes, gradients, vmap and lowering.
XLA runs it as a custom call, whose handler in ``moe._native`` passes the arrays of XLA to the
runtime: nothing is copied, and Python does not run. The program has a random key for the layer,
which only this process knows.
"""

from __future__ import annotations

import ctypes
import functools
import secrets
import weakref
from typing import Any

import jax
import numpy as np
from jax._src import dispatch
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ..._caller import extension
from ..._dlpack import numpy_dtype
from ..._error import FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from ..._library import Handle, library
from ..._runtime import Layer
from ..._signature import TensorInfo

TARGET = "moe_layer"
PLATFORMS = {"cpu": "XLA_CPU", "cuda": "XLA_CUDA"}


@functools.cache
def _native() -> Any:
    """Load the handlers, and make them known to XLA."""
    module, lib = extension(), library()
    if module is None:
        raise MoEError(FAILED_PRECONDITION, "calls from programs of JAX need the extension "
                       "moe._native, which was not built: Python's headers were missing")
    module.use_runtime(*(ctypes.cast(getattr(lib, "moe_rt_" + name), ctypes.c_void_p).value
                         for name in ("layer_call", "layer_call_on_stream", "status_code",
                                      "status_message", "status_free")))
    for platform, handler in PLATFORMS.items():
        jax.ffi.register_ffi_target(TARGET, getattr(module, handler), platform=platform)
    return module


class Binding:
    """A layer as programs know it. They keep it, and it keeps the weights."""

    def __init__(self, layer: Layer):
        signature = layer.signature
        if sums := [info.name for info in signature.outputs if info.accumulates]:
            raise MoEError(UNIMPLEMENTED, f"the layer '{signature.name}' adds to {sums[0]}, and "
                           "programs of JAX write to no array")
        self.name, self.inputs, self.outputs = signature.name, signature.inputs, signature.outputs
        self.platform = "cuda" if layer.module.on_device else "cpu"
        self.key = np.int64(secrets.randbits(63))
        self._held: list[Handle] = []
        # Waits for the calls of programs that still run, without the GIL.
        weakref.finalize(self, _release, _native(), int(self.key), self._held)
        self.rebind(layer._handle)

    def rebind(self, handle: Handle) -> None:
        """Have later calls use these weights, and wait for those that use the ones before."""
        _native().bind_layer(int(self.key), handle.pointer)
        self._held[:] = [handle]

    def __repr__(self) -> str:
        return self.name

    def check(self, avals: Any) -> Any:
        """Return the number of tokens, which may be symbolic; an error if a shape is wrong."""
        if len(avals) != len(self.inputs):
            raise MoEError(INVALID_ARGUMENT, f"expected {len(self.inputs)} inputs, got "
                           f"{len(avals)}")
        tokens: Any = None
        for info, aval in zip(self.inputs, avals):
            known = "" if tokens is None or -1 not in info.shape else f" with T = {tokens}"
            expected = numpy_dtype(info.dtype)
            fits = aval.dtype == expected and len(aval.shape) == len(info.shape)
            for size, actual in zip(info.shape, aval.shape) if fits else ():
                if size < 0 and tokens is None:
                    tokens = actual
                fits = fits and actual == (tokens if size < 0 else size)
            if not fits:
                got = f"{aval.dtype}[{', '.join(map(str, aval.shape))}]"
                raise MoEError(INVALID_ARGUMENT, f"input '{info.name}': expected {_text(info)}"
                               f"{known}, got {got}")
        return tokens


def _text(info: TensorInfo) -> str:
    extents = ", ".join("T" if d < 0 else str(d) for d in info.shape)
    return f"{numpy_dtype(info.dtype)}[{extents}]"


def _release(module: Any, key: int, held: list[Handle]) -> None:
    module.bind_layer(key, 0)
    held.clear()


def bind(layer: Layer) -> Binding:
    """Return the binding of a layer, which there is one of."""
    with layer._updating:
        if layer._binding is None:
            layer._binding = Binding(layer)
        return layer._binding


# -- the operation ------------------------------------------------------------

call_p = Primitive("moe_layer")
call_p.multiple_results = True
dispatch.simple_impl(call_p)


@call_p.def_abstract_eval
def _shapes(*avals: Any, binding: Binding) -> Any:
    tokens = binding.check(avals)
    example = avals[0]
    return [example.update(shape=tuple(tokens if d < 0 else d for d in info.shape),
                           dtype=numpy_dtype(info.dtype), weak_type=False)
            for info in binding.outputs]


def _lower(context: Any, *operands: Any, binding: Binding, platform: str) -> Any:
    if binding.platform != platform:
        raise MoEError(INVALID_ARGUMENT, f"the layer '{binding.name}' runs on "
                       f"'{binding.platform}', and the program is for '{platform}'")
    if not context.module_context.lowering_parameters.for_export:
        # The layer stays while the executable does. An exported program cannot keep anything.
        context.module_context.add_keepalive(binding)
    return jax.ffi.ffi_lowering(TARGET)(context, *operands, layer=binding.key)


def _refuse_gradient(primals: Any, tangents: Any, *, binding: Binding) -> Any:
    if any(type(tangent) is not ad.Zero for tangent in tangents):
        raise MoEError(UNIMPLEMENTED, f"the layer '{binding.name}' has no gradient; use "
                       "jax.lax.stop_gradient on its inputs, or jax.custom_vjp around it")
    results = call_p.bind(*primals, binding=binding)
    return results, [ad.Zero.from_primal_value(result) for result in results]


def _map(arrays: Any, dims: Any, *, binding: Binding) -> Any:
    """One call for each, as tokens of two calls may not be those of one: capacities, sums."""
    mapped = [jax.numpy.moveaxis(array, dim, 0) for array, dim in zip(arrays, dims)
              if dim is not None]

    def call(given: Any) -> Any:
        rest = iter(given)
        return call_p.bind(*(array if dim is None else next(rest)
                             for array, dim in zip(arrays, dims)), binding=binding)

    results = jax.lax.map(call, mapped)
    return results, [0] * len(results)


for _platform in PLATFORMS:
    mlir.register_lowering(call_p, functools.partial(_lower, platform=_platform),
                           platform=_platform)
ad.primitive_jvps[call_p] = _refuse_gradient
batching.primitive_batchers[call_p] = _map
