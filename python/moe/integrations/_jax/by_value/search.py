"""The search: which values are the rows, the choice, its weights and the result of experts.

Claim: ``result[t] = sum_k weights[t, k] * expert(choice[t, k], rows[t])``. What an expert does is
read from a run on fingerprints with one choice (``Interpreter``). The claim is then tested: the
equations behind the rows, the choice and the weights, which are drawn, give what it says for
choices of all kinds. A result that depends on the router otherwise does not pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .equations import Equations, Literal, NotFound, same_values
from .interpreter import Interpreter
from .steps import Experts, Step, unify

TOKENS = 12  # where the number is symbolic
MOST_TOKENS = 512
MOST_CANDIDATES = 16
# Capacities that are looked for, and elements of the largest value that one is exceeded with.
MOST_LIMIT, MOST_OF_LIMITS = 1 << 16, 1 << 24


@dataclass
class Found:
    rows: int
    ids: int
    weights: int
    result: int
    dense: bool  # weights of all experts, [T, E]
    top_k: int
    experts: Experts


def find_by_value(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Return the function with its experts in the form that the passes raise, or None.

    Args:
      function: a function of JAX.
      arguments: trees as ``from_jax`` takes them: arrays are weights, a ``jax.ShapeDtypeStruct``
        is an input.
    """
    leaves, tree = jax.tree_util.tree_flatten(tuple(arguments))

    def flat(*given: Any) -> Any:
        return function(*jax.tree_util.tree_unflatten(tree, given))

    try:
        small = _at(leaves, TOKENS)
        equations = Equations(jax.make_jaxpr(flat)(*map(_spec, small)))
        found = _find(equations, small)
        rewritten = _rewrite(flat, tree, equations, found)
        for tokens in {TOKENS, TOKENS - 5} if small is not leaves else {TOKENS}:
            _compare(flat, rewritten, _at(leaves, tokens))
        if small is not leaves:
            most = _beyond_limits(flat, leaves, equations, found)
            _compare(flat, rewritten, _at(leaves, most), (True,))
    except Exception:
        # NotFound, or an equation that JAX does not run by itself: the function stays as it is.
        return None
    return lambda *given: rewritten(*jax.tree_util.tree_leaves(given))


def _spec(leaf: Any) -> Any:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _at(leaves: list[Any], tokens: int) -> list[Any]:
    """Return the leaves with symbolic extents as ``tokens`` (a batch: 2 sequences)."""
    names = sorted({str(e) for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)
                    for e in leaf.shape if not isinstance(e, int)})
    if not names:
        return leaves

    def extent(e: Any, leaf: Any) -> int:
        if isinstance(e, int):
            return e
        return 2 if len(names) == 2 and leaf.shape[0] is e else tokens

    return [jax.ShapeDtypeStruct(tuple(extent(e, leaf) for e in leaf.shape), leaf.dtype)
            if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in leaves]


def _beyond_limits(flat: Callable[..., Any], leaves: list[Any], equations: Equations,
                   found: Found) -> int:
    """Return so many tokens that no integer of the function, as a capacity is, holds all of them.

    Raises:
      NotFound: if those would take long, and an integer is no extent of a parameter.
    """
    other = Equations(jax.make_jaxpr(flat)(*map(_spec, _at(leaves, TOKENS - 5))))
    integers = {i for i in _integers(equations) & _integers(other) if TOKENS <= i <= MOST_LIMIT}
    largest = max(math.prod(aval.shape) for aval in equations.avals)
    most = max(TOKENS, int(TOKENS * math.sqrt(MOST_OF_LIMITS / largest)))
    own = {e for leaf in leaves for e in leaf.shape if isinstance(e, int)} | {
        found.experts.count, found.top_k}
    # Places of all experts are explained by those of one.
    explained = own | {a * b for a in own for b in own} | {
        found.experts.count * i + more for i in integers for more in (0, 1)}
    if any(i >= most for i in integers - explained):
        raise NotFound("a capacity that is too large to be exceeded")
    return max((i + 1 for i in integers if i < most), default=TOKENS)


def _integers(equations: Equations) -> set[int]:
    """Return the extents of values and the integers that equations are given."""
    found = {int(e) for aval in equations.avals for e in aval.shape}
    given = [v.value for eq in equations.list for v in eq.inputs if isinstance(v, Literal)]
    scalars = [c for c in equations.constants.values() if not c.ndim]
    for value in map(np.asarray, [*given, *scalars]):
        if value.ndim == 0 and value.dtype.kind in "iuf" and float(value).is_integer():
            found.add(int(value))
    return found


def _find(equations: Equations, leaves: list[Any]) -> Found:
    weights = {v for v, leaf in zip(equations.inputs, leaves)
               if not isinstance(leaf, jax.ShapeDtypeStruct)}
    known = {v: leaf for v, leaf in zip(equations.inputs, leaves) if v in weights}
    choices = [eq for eq in equations.list if eq.name in ("top_k", "argmax")]
    for eq in reversed(choices[-4:]):
        ids = eq.outputs[-1]
        shape = equations.avals[ids].shape
        experts = equations.avals[eq.inputs[0]].shape[-1]
        if eq.name == "argmax" and eq.params["axes"] != (len(shape),):
            continue
        top_k = shape[-1] if eq.name == "top_k" else 1
        tokens = math.prod(shape) // max(top_k, 1)
        if not 1 < experts <= 1024 or not 0 < tokens <= MOST_TOKENS or top_k > experts:
            continue
        before = equations.ancestors(ids)
        inputs = [v for v in equations.inputs if v not in weights]
        for rows in _rows(equations, before, inputs, tokens, weights):
            try:
                return _behind(equations, known, weights, rows, ids, tokens, top_k, experts,
                               before)
            except NotFound:
                continue
    raise NotFound("no choice has experts")


def _rows(equations: Equations, before: set[int], inputs: list[int], tokens: int,
          weights: set[int]) -> list[int]:
    """Return what may be the rows: what the scores are a product of, and the inputs."""
    found: list[int] = []
    for eq in reversed(equations.list):
        if eq.name == "dot_general" and eq.outputs[0] in before:
            value = next((v for v in eq.inputs if not isinstance(v, Literal) and set(inputs)
                          & equations.ancestors(v)), None)
            while value is not None:
                found.append(value)
                above = equations.producer.get(value)
                if above is None or above.name not in ("reshape", "convert_element_type",
                                                       "transpose", "squeeze"):
                    break
                value = above.inputs[0]
            break
    found = found[::-1] + inputs
    unique = list(dict.fromkeys(found))
    return [v for v in unique if jnp.issubdtype(equations.avals[v].dtype, jnp.floating)
            and equations.avals[v].ndim >= 2
            and math.prod(equations.avals[v].shape[:-1]) == tokens]


def _routings(tokens: int, top_k: int, experts: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)

    def draw(of: np.ndarray) -> np.ndarray:
        return np.stack([rng.permutation(of)[:top_k] for _ in range(tokens)]).astype(np.int32)

    everyone = np.arange(experts)
    few = everyone[-max(top_k, experts // 2):]
    same = np.tile(rng.permutation(everyone)[:top_k].astype(np.int32), (tokens, 1))
    # Each expert is somewhere.
    around = (np.arange(tokens)[:, None] * top_k + np.arange(top_k)) % experts
    return [around.astype(np.int32), draw(everyone), draw(few), same]


def _behind(equations: Equations, known: dict[int, Any], weights: set[int], rows: int, ids: int,
            tokens: int, top_k: int, experts: int, before: set[int]) -> Found:
    shape = equations.avals[ids].shape
    around = _routings(tokens, top_k, experts, 0)[0]
    interpreter = Interpreter(
        equations, weights, rows, equations.avals[rows].shape, ids,
        around.reshape(shape).astype(equations.avals[ids].dtype), experts,
        before - weights - {rows})
    interpreter.run()
    tried: list[list[Step]] = []
    for _, steps in _candidates(interpreter, experts):
        if steps in tried:
            continue
        tried.append(steps)
        try:
            what = unify(steps, equations)
        except NotFound:
            continue
        result = _test(equations, known, rows, ids, tokens, top_k, experts, before, what)
        if result is not None:
            return result
        if len(tried) > 4:
            break
    raise NotFound("no result is that of experts")


def _expert(step: Step) -> int | None:
    """Return the expert whose parts a step has, if it says."""
    own = {step.part.expert} if step.part and step.part.expert >= 0 else set()
    for operand in step.operands:
        of = _expert(operand)
        own |= {of} if of is not None else set()
    return next(iter(own)) if len(own) == 1 else None


def _candidates(interpreter: Interpreter, experts: int) -> list[tuple[int, list[Step]]]:
    """Return lists of a step for each expert that the weights may be applied to, last first."""
    found: list[tuple[int, list[Step]]] = []
    depths: dict[tuple[int, str], list[Step]] = {}
    for position, steps in interpreter.ends:
        for step in steps:
            depths.setdefault((step.products(), _kind(step)), []).append(step)
    for steps in depths.values():
        unique = list(dict.fromkeys(steps))
        of = {_expert(s): s for s in unique}
        of.pop(None, None)
        if sorted(of) == list(range(experts)):
            found.append((0, [of[e] for e in range(experts)]))
        elif len(unique) == experts:
            found.append((0, sorted(unique, key=lambda s: interpreter.families[s])))
    return sorted(found, key=lambda f: -f[1][0].products())


def _kind(step: Step) -> str:
    return step.kind + str(step.columns) + str(step.operands[0].kind if step.operands else "")


def _drawn(aval: Any, rng: np.random.Generator, low: float = -1.0) -> Any:
    return jnp.asarray(rng.uniform(low, 1.0, aval.shape), aval.dtype)


def _tolerance(*dtypes: Any) -> float:
    return 64 * max(float(jnp.finfo(d).eps) for d in dtypes if jnp.issubdtype(d, jnp.floating))


def _test(equations: Equations, known: dict[int, Any], rows: int, ids: int, tokens: int,
          top_k: int, experts: int, before: set[int], what: Experts) -> Found | None:
    """Return the weights and the result with which the claim is right."""
    avals = equations.avals
    parts = dict(zip(what.values(), equations.evaluate(what.values(), known)))
    behind = equations.descendants({ids})
    after_rows = equations.descendants({rows})
    routed = equations.descendants(before - {rows} - set(known) - set(equations.constants)
                                   - equations.ancestors(rows))
    routed = {v for v in routed if v in equations.producer}

    def floats(v: int) -> bool:
        return jnp.issubdtype(avals[v].dtype, jnp.floating)

    def candidates(width: int) -> list[int]:
        return [v for v in sorted(routed - before, reverse=True) if floats(v)
                and math.prod(avals[v].shape) == tokens * width]

    rng = np.random.default_rng(1)
    routings = _routings(tokens, top_k, experts, 2)
    x = _drawn(avals[rows], rng)
    flat_x = x.reshape(tokens, -1)

    def results(choice: np.ndarray, value: int, scores: Any, wanted: list[int]) -> list[Any]:
        given = {**known, rows: x, value: scores,
                 ids: jnp.asarray(choice.reshape(avals[ids].shape), avals[ids].dtype)}
        return equations.evaluate(wanted, given)

    tried = 0
    order = [(v, False) for v in candidates(top_k)] + [
        (v, True) for v in candidates(experts)] if top_k != experts else [
        (v, False) for v in candidates(top_k)]
    for value, dense in order[:2 * MOST_CANDIDATES]:
        scores = _drawn(avals[value], rng, 0.1)
        after = equations.descendants({value})

        def claim(choice: np.ndarray) -> Any:
            flat = scores.reshape(tokens, -1)
            of = jnp.take_along_axis(flat, choice, 1) if dense else flat
            return np.asarray(what(flat_x, jnp.asarray(choice), of, parts), np.float64)

        expected = claim(routings[1])
        outs = [v for v in sorted(after & after_rows & behind | (after & behind)) if floats(v)
                and math.prod(avals[v].shape) == expected.size
                and avals[v].shape[-1:] == expected.shape[-1:]]
        if not outs:
            continue
        tried += 1
        if tried > MOST_CANDIDATES:
            break

        def near(got: Any, wanted: Any, v: int) -> bool:
            got = np.asarray(got, np.float64).reshape(wanted.shape)
            return bool(np.abs(got - wanted).max() <= _tolerance(
                avals[v].dtype, avals[value].dtype, avals[rows].dtype) * np.abs(wanted).max())

        got = results(routings[1], value, scores, outs)
        right = [v for v, y in zip(outs, got) if near(y, expected, v)]
        for v in right[:1]:
            if all(near(results(choice, value, scores, [v])[0], claim(choice), v)
                   for choice in routings):
                return Found(rows, ids, value, v, dense, top_k, what)
    return None


def _rewrite(flat: Callable[..., Any], tree: Any, small: Equations,
             found: Found) -> Callable[..., Any]:
    """Return the function of leaves with the result of the experts in the canonical form."""

    def rewritten(*given: Any) -> Any:
        closed, shape = jax.make_jaxpr(flat, return_shape=True)(*map(_spec, given))
        equations = Equations(closed)
        at = same_values(small, equations)
        known = dict(zip(equations.inputs, given))
        parts = found.experts.values()
        constants = dict(zip(small.constants, equations.constants))
        where = [constants[v] if v in constants else at(v) for v in parts]
        wanted = [at(found.rows), at(found.ids), at(found.weights)]
        x, ids, weights, *values = equations.evaluate([*wanted, *where], known)
        x = x.reshape(-1, x.shape[-1])
        ids = ids.reshape(x.shape[0], found.top_k)
        weights = weights.reshape(x.shape[0], -1)
        if found.dense:
            weights = jnp.take_along_axis(weights, ids, axis=1)
        y = found.experts(x, ids, weights, dict(zip(parts, values)))
        result = at(found.result)
        aval = equations.avals[result]
        known[result] = y.reshape(aval.shape).astype(aval.dtype)
        results = equations.evaluate(equations.results, known)
        return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(shape), results)

    return rewritten


def _compare(flat: Callable[..., Any], rewritten: Callable[..., Any], leaves: list[Any],
             kinds: Sequence[bool] = (False, True)) -> None:
    """Compare both functions on rows, of which some are nearly the same and choose the same."""
    rng = np.random.default_rng(3)
    for alike in kinds:
        given = []
        for leaf in leaves:
            if not isinstance(leaf, jax.ShapeDtypeStruct):
                given.append(leaf)
            elif jnp.issubdtype(leaf.dtype, jnp.floating):
                drawn = rng.standard_normal(leaf.shape)
                if alike and drawn.ndim >= 2:
                    one = drawn[(0,) * (drawn.ndim - 1)]
                    drawn = one * (1 + 0.05 * drawn)
                given.append(jnp.asarray(drawn, leaf.dtype))
            else:
                raise NotFound("an input of integers")
        expected, got = (jax.tree_util.tree_leaves(f(*given)) for f in (flat, rewritten))
        for a, b in zip(expected, got, strict=True):
            if not jnp.issubdtype(a.dtype, jnp.floating):
                if not bool((a == b).all()):
                    raise NotFound("the results differ")
                continue
            difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max()
            if not difference <= _tolerance(a.dtype) * (np.abs(np.asarray(a, np.float64)).max()):
                raise NotFound("the results differ")
