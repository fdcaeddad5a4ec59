"""Layers of JAX models, compiled: ``from_jax``, and ``to_jax`` calls them in programs of JAX.

    from moe.integrations.jax import from_jax

    tokens, = jax.export.symbolic_shape("t")
    x = jax.ShapeDtypeStruct((tokens, 1024), jnp.float32)
    imported = from_jax(block, x, params)   # block(x, params), jitted or not
    layer = imported.layer()                # compiled, with the arrays of params
    y = layer(x)                            # [T, 1024], any T

The function is exported by ``jax.export``. Passes of the compiler raise its sorted choices
and grouped products (``jax.lax.top_k``, ``argsort``, ``ragged_dot``) to operations of
experts, and jaxlib's own MLIR lowers the rest to linalg; sorts, scatters and loops that are left
become loops. An operation that none of them knows is an error that names it. Where no pass finds
experts, the function is run on marks of its rows, and is written anew if these show what its
experts are.

    moe_block = to_jax(layer)               # takes and gives arrays of JAX
    step = jax.jit(lambda x: x + moe_block(x))

    trained = imported.trainable()          # block, compiled with its gradients
    gradients = jax.grad(lambda params: trained(x, params).sum())(params)
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import jax

from .._error import INVALID_ARGUMENT, UNIMPLEMENTED, MoEError
from .._runtime import Layer
from ._jax.by_value import find_by_value
from ._jax.stablehlo import lower, raised
from ._jax.training import ImportedFunction
from ._jax.xla_call import bind, call_p

__all__ = ["ImportedFunction", "from_jax", "to_jax"]

ROUTER = re.compile(r'"moe\.gate"')
CHOICE = re.compile(r"top_k|argmax|stablehlo\.(sort|reduce)\b")
ROUTED = re.compile(r'"moe\.(dispatch|route)"')
EXPERTS = re.compile(r'"moe\.(dispatch|route|grouped_matmul|grouped_contract)"')


def from_jax(function: Callable[..., Any], *arguments: Any) -> ImportedFunction:
    """Import a function of JAX.

    Args:
      function: a function, jitted or not, with experts written as operations of JAX.
      arguments: its arguments, trees of arrays. Arrays are weights, prepared once; a
        ``jax.ShapeDtypeStruct`` is an input of a call. Its first extent may be symbolic
        (``jax.export.symbolic_shape``), or its second after a batch of 1, and is then any
        number of tokens. If both are, a batch and a sequence, the layer takes and gives their
        tokens as rows: ``layer(x.reshape(-1, hidden)).reshape(x.shape)``.

    A function that chooses by a top-k and has nothing that is known as experts is compiled as the
    operations that it consists of, with a ``RuntimeWarning``.

    Raises:
      MoEError: if the function has no input, or an operation that is not lowered.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(arguments)
    specs = jax.tree_util.tree_map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for _, leaf in leaves):
        raise MoEError(INVALID_ARGUMENT, "expected an input: a jax.ShapeDtypeStruct")
    _check_symbols([leaf.shape for _, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)])
    if not isinstance(function, jax.stages.Wrapped):
        function = jax.jit(function)
    names = [_name(path) for path, _ in leaves]
    exported = _export(function, specs)
    module, plain, types = _raised(exported, leaves)
    if CHOICE.search(plain) and not ROUTED.search(module):
        # No rule knows how its experts are written. After the rules: most programs need no search.
        written = find_by_value(function, arguments)
        if written is not None:
            try:
                again = _export(jax.jit(written), specs)
                found = _raised(again, leaves)
            except Exception:  # with a symbolic number of tokens it is traced to something else
                found = None
            if found is not None and ROUTED.search(found[0]):
                exported, (module, plain, types) = again, found
    weights, signature = {}, []
    for index in exported.module_kept_var_idx:
        path, leaf = leaves[index]
        name = names[index]
        if names.count(name) > 1:
            name = f"arg{path[0].idx}.{name}"
        is_weight = not isinstance(leaf, jax.ShapeDtypeStruct)
        if is_weight:
            weights[name] = leaf
        signature.append((name, "weight" if is_weight else "input"))
    if ROUTER.search(module) and not EXPERTS.search(module):
        # A gate, for which NaN is -inf, is for experts alone.
        module = plain
        name = getattr(function, "__name__", "the function")
        warnings.warn(f"{name} chooses and has nothing that is known as experts: it is compiled as "
                      "the operations that it consists of", RuntimeWarning, stacklevel=2)
    open_mlir = lower(module, types, [(name, "input") for name, _ in signature])
    return ImportedFunction(
        lower(module, types, signature, weights), weights, function, open_mlir=open_mlir,
        kept=exported.module_kept_var_idx, tree=tree)


def _export(function: Callable[..., Any], specs: Any) -> Any:
    try:
        # As for a GPU, where grouped products stay one operation.
        return jax.export.export(function, platforms=("cuda",))(*specs)
    except (NotImplementedError, jax.errors.JAXTypeError) as error:
        raise MoEError(UNIMPLEMENTED, f"JAX does not export the function: {error}") from error


def _raised(exported: Any, leaves: list[Any]) -> tuple[str, str, dict[int, str]]:
    inputs = [i for i, index in enumerate(exported.module_kept_var_idx)
              if isinstance(leaves[index][1], jax.ShapeDtypeStruct)]
    return raised(exported.mlir_module(), inputs)


def to_jax(layer: Layer) -> Callable[..., Any]:
    """Return a function of JAX that calls the layer, in ``jax.jit`` too.

    It takes arrays in signature order or by name, and returns the output, or a tuple of several.
    XLA calls the layer with its own arrays, and nothing is copied. A program is compiled for each
    number of tokens, as JAX does, or once for any with ``jax.export`` and a symbolic one; the
    code of the layer is the same in all. ``jax.vmap`` calls the layer once for each element. There
    is no gradient (``ImportedFunction.trainable`` has): to differentiate with respect to an input
    is an error. ``Layer.update`` is seen by programs that are compiled already.

    A layer for a GPU is for programs that run there, on its stream.

    Raises:
      MoEError: if the package was built without Python's headers. The function raises it for
        arrays of another type or shape than those of the layer; an error of a call is one of XLA.
    """
    binding = bind(layer)

    def call(*inputs: Any, **named: Any) -> Any:
        given = inputs if not named else layer._inputs(inputs, named)
        results = call_p.bind(*given, binding=binding)
        return results[0] if len(results) == 1 else tuple(results)

    call.__name__ = call.__qualname__ = layer.signature.name
    return jax.jit(call)


def _check_symbols(shapes: list[tuple[Any, ...]]) -> None:
    """One symbolic extent, or a batch and a sequence, which are the first two wherever they are."""
    symbolic = [[str(e) if not isinstance(e, int) else "" for e in shape] for shape in shapes]
    symbols = {name: None for shape in symbolic for name in shape if name}
    first = list(symbols)
    if len(symbols) < 2 or len(symbols) == 2 and all(
            shape[:2] == first and not any(shape[2:]) for shape in symbolic if any(shape)):
        return
    raise MoEError(INVALID_ARGUMENT, "expected one symbolic extent, the number of tokens, or a "
                   f"batch and a sequence, the first two of each input, got {shapes}")


def _name(path: tuple[Any, ...]) -> str:
    """Return the name of a leaf: ``x`` of ``(x,)`` is arg0, params["mlp"]["w"] is mlp.w."""
    first, *rest = path
    keys = [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
            for key in rest]
    return ".".join(re.sub(r"[^\w.]", "_", key) for key in keys) or f"arg{first.idx}"
