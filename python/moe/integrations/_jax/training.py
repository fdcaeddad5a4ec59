"""Functions of JAX that are compiled with their gradients.

Weights are arguments of each call, as JAX trains: they change in every step. So the compiled
function takes them as inputs, and prepares them itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from ..._compile import compile as compile_module
from ..._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from ..._runtime import Layer
from .._imported import Imported
from .xla_call import bind, call_p

__all__ = ["ImportedFunction"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Needed:
    """The numbers of the arguments that need a gradient, which no program computes."""

    arguments: tuple[int, ...]


@dataclass
class ImportedFunction(Imported):
    """A function of JAX: ``mlir`` computes it from inputs and ``weights``, arrays by name."""

    function: Callable[..., Any] = field(repr=False)
    # The same function, where the weights are inputs.
    open_mlir: str = field(repr=False)
    # The arguments that it takes, of all leaves of the arguments of `function`.
    kept: Sequence[int] = field(repr=False)
    tree: Any = field(repr=False)

    def trainable(self, **options: Any) -> Callable[..., Any]:
        """Return the function with its gradients, compiled; it takes what the function takes.

        ``jax.grad`` and ``jax.vjp`` give the gradients of inputs and of weights, also in
        ``jax.jit``. A backward function is compiled for each set of arguments that need one,
        when they first do. Weights are prepared in every call. ``options`` are those of
        ``moe.compile``.

        Raises:
          MoEError: if the arguments have another structure than those of ``from_jax``. When it
            is differentiated: if an operation has no gradient, or twice.
        """
        return _Trainable(self, options)


class _Trainable:
    def __init__(self, imported: ImportedFunction, options: dict[str, Any]):
        self._imported, self._options = imported, options
        self._layers: dict[tuple[int, ...], tuple[Layer, Layer | None]] = {}
        self._call = jax.custom_vjp(lambda *arrays: self._run((), arrays)[0])
        self._call.defvjp(self._forward, self._backward, symbolic_zeros=True)

    def __call__(self, *arguments: Any) -> Any:
        imported = self._imported
        leaves, tree = jax.tree_util.tree_flatten(arguments)
        if tree != imported.tree:
            raise MoEError(INVALID_ARGUMENT, "expected arguments of the structure that was "
                           f"imported, {imported.tree}, got {tree}")
        result = jax.eval_shape(imported.function, *arguments)
        specs, results = jax.tree_util.tree_flatten(result)
        found = self._call(*(jax.numpy.asarray(leaves[i]) for i in imported.kept))
        return jax.tree_util.tree_unflatten(
            results, [array.reshape(spec.shape) for array, spec in zip(found, specs)])

    def _bound(self, needed: tuple[int, ...]) -> tuple[Layer, Layer | None]:
        """Return the layer, and its backward function for the gradients of these arguments."""
        if needed not in self._layers:
            given = tuple(self._options.get("options", ()))
            if needed:
                given += (f"--backward={','.join(map(str, needed))}",)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", ".*weights are prepared in every call")
                    module = compile_module(self._imported.open_mlir,
                                            **{**self._options, "options": given})
            except MoEError as error:
                if not needed:
                    raise
                raise MoEError(UNIMPLEMENTED, "the compiled function cannot be differentiated: "
                               f"{error.message}") from error
            names = sorted(module.functions, key=len)
            layers = [module.layer({}, function=name) for name in names]
            self._layers[needed] = layers[0], layers[1] if needed else None
        return self._layers[needed]

    def _run(self, needed: tuple[int, ...], arrays: Sequence[Any]
             ) -> tuple[list[Any], list[Any]]:
        """Return the results, and what the backward function takes."""
        layer, _ = self._bound(needed)
        found = _bind(layer, list(arrays))
        saved = sum(info.is_saved for info in layer.signature.outputs) if needed else 0
        return found[:len(found) - saved], found[len(found) - saved:]

    def _forward(self, *primals: Any) -> tuple[list[Any], Any]:
        arrays = [primal.value for primal in primals]
        needed = tuple(i for i, primal in enumerate(primals) if primal.perturbed
                       and jax.numpy.issubdtype(primal.value.dtype, jax.numpy.floating))
        results, saved = self._run(needed, arrays)
        return results, (_Needed(needed), arrays, saved)

    def _backward(self, kept: Any, cotangents: Sequence[Any]) -> tuple[Any, ...]:
        which, arrays, saved = kept
        needed = which.arguments
        forward, layer = self._bound(needed)
        assert layer is not None, "a backward pass of no gradient"
        given = {info.name: array for info, array in zip(forward.signature.inputs, arrays)}
        given.update({f"saved{i}": array for i, array in enumerate(saved)})
        # What is left are the gradients of the results that are floats, in their order.
        floats = iter(array for array in cotangents if array.dtype != jax.dtypes.float0)
        found = _bind(layer, [given[info.name] if info.name in given else _dense(next(floats))
                              for info in layer.signature.inputs])
        gradients: list[Any] = [None] * len(arrays)
        for i, gradient in zip(needed, found):
            gradients[i] = gradient.reshape(arrays[i].shape)
        return tuple(gradients)


def _dense(cotangent: Any) -> Any:
    if isinstance(cotangent, jax.custom_derivatives.SymbolicZero):
        return jax.numpy.zeros(cotangent.shape, cotangent.dtype)
    return cotangent


def _bind(layer: Layer, arrays: Sequence[Any]) -> list[Any]:
    """Call a layer, whose rows are tokens where an array has a batch and a sequence."""
    given = [array.reshape(tuple(-1 if d < 0 else d for d in info.shape))
             if array.ndim != len(info.shape) else array
             for info, array in zip(layer.signature.inputs, arrays)]
    return list(call_p.bind(*given, binding=bind(layer)))


