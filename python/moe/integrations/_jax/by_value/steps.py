"""The steps of one expert on one row, and the experts that they are, written as JAX does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax

from .equations import Equation, Equations, NotFound


@dataclass(frozen=True)
class Part:
    """A matrix or a bias: all of a parameter (``expert`` is -1), or of its part of an expert."""

    value: int
    axis: int
    expert: int


@dataclass(frozen=True)
class Step:
    """``kind``: row, product, bias, columns, constant or elementwise."""

    kind: str
    operands: tuple[Step, ...] = ()
    part: Part | None = None
    columns: tuple[int, int, int] | None = None
    equation: int = -1  # by its position, for what it calls
    constant: Any = None

    def products(self) -> int:
        return (self.kind == "product") + sum(o.products() for o in self.operands)


def unify(steps: Sequence[Step], equations: Equations) -> Experts:
    """Return the experts whose steps are given, if all do the same with their parts."""
    return Experts(steps, equations)


class Experts:
    """Steps that all experts share, each with the parts of all of them."""

    def __init__(self, steps: Sequence[Step], equations: Equations) -> None:
        self.count = len(steps)
        self.equations = equations
        self.steps: list[tuple[Step, list[Part], list[int]]] = []
        self._seen: dict[tuple[Step, ...], int] = {}
        self._add(tuple(steps))

    def _add(self, steps: tuple[Step, ...]) -> int:
        if steps in self._seen:
            return self._seen[steps]
        first = steps[0]
        signatures = {(s.kind, len(s.operands), s.columns, str(s.constant),
                       s.part.axis if s.part else None, self._signature(s)) for s in steps}
        if len(signatures) != 1:
            raise NotFound("the experts differ")
        operands = [self._add(tuple(s.operands[i] for s in steps))
                    for i in range(len(first.operands))]
        self.steps.append((first, [s.part for s in steps if s.part], operands))
        self._seen[steps] = len(self.steps) - 1
        return self._seen[steps]

    def _signature(self, step: Step) -> str:
        if step.equation < 0:
            return ""
        eq = self.equations.list[step.equation]
        return eq.name + str(sorted((k, str(v)) for k, v in eq.params.items() if k in KEPT))

    def values(self) -> list[int]:
        """Values that are parameters."""
        return sorted({part.value for _, parts, _ in self.steps for part in parts})

    def __call__(self, x: Any, ids: Any, weights: Any, values: dict[int, Any]) -> Any:
        """Return the sum over the choices: rows sorted by expert, products of groups.

        Args:
          x: [T, H].
          ids: [T, K].
          weights: [T, K].
        """
        top_k = ids.shape[1]
        flat = ids.reshape(-1)
        order = jnp.argsort(flat)
        rows = jnp.take(x, order // top_k, axis=0)
        sizes = jnp.bincount(flat, length=self.count).astype(jnp.int32)
        done: list[Any] = []
        for step, parts, operands in self.steps:
            given = [done[i] for i in operands]
            if step.kind == "row":
                result = rows
            elif step.kind == "product":
                matrices = self._stack(parts, values)
                if step.part.axis == 1:
                    matrices = jnp.swapaxes(matrices, 1, 2)
                eq = self.equations.list[step.equation]
                dtype = eq.params.get("preferred_element_type")
                result = lax.ragged_dot(given[0], matrices, sizes, preferred_element_type=dtype)
            elif step.kind == "bias":
                result = self._stack(parts, values)[flat[order]]
            elif step.kind == "columns":
                first, last, stride = step.columns
                result = given[0][:, first:last:stride]
            elif step.kind == "constant":
                result = step.constant
            else:
                result = apply(self.equations.list[step.equation], given)
            done.append(result)
        y = jnp.take(done[-1], jnp.argsort(order), axis=0)
        y = y.reshape(-1, top_k, y.shape[-1])
        dtype = jnp.promote_types(y.dtype, weights.dtype)
        return jnp.einsum("TKH,TK -> TH", y.astype(dtype), weights.astype(dtype))

    def _stack(self, parts: Sequence[Part], values: dict[int, Any]) -> Any:
        kind = "matrix" if parts[0].axis >= 0 else "bias"
        rank = 2 if kind == "matrix" else 1
        whole = {part.value for part in parts}
        if len(whole) == 1 and [p.expert for p in parts] == list(range(self.count)):
            value = values[parts[0].value]
            if value.shape[0] == self.count:
                return value.reshape((self.count, *value.shape[value.ndim - rank:]))
        taken = []
        for part in parts:
            value = values[part.value]
            if part.expert >= 0:
                value = value[part.expert]
            taken.append(value.reshape(value.shape[value.ndim - rank:]))
        return jnp.stack(taken)


# Parameters of elementwise equations that say what they compute.
KEPT = {"new_dtype", "y", "exponent", "accuracy", "approximate", "preferred_element_type"}


def apply(eq: Equation, given: Sequence[Any]) -> Any:
    """Do an elementwise equation on rows, where its constants are scalars."""
    shape = next(v.shape for v in given if getattr(v, "ndim", 0) == 2)
    whole = [v if getattr(v, "ndim", 0) == 2 else jnp.broadcast_to(v, shape) for v in given]
    if eq.name == "convert_element_type":
        return whole[0].astype(eq.params["new_dtype"])
    return eq.call(*whole)[0]
