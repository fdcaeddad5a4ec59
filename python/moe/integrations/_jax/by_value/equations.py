"""The equations of a function in one list: calls inlined, scans of a known length unrolled."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.extend import core

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
         "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
         "remat": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr"}
LONGEST_SCAN = 256
MOST_EQUATIONS = 20000


class NotFound(Exception):
    """The search ends without a result."""


@dataclass(frozen=True)
class Literal:
    value: Any


@dataclass
class Equation:
    """``call`` takes the values of ``inputs`` and returns a list of those of ``outputs``."""

    name: str
    params: dict[str, Any]
    inputs: list[int | Literal]
    outputs: list[int]
    call: Callable[..., list[Any]]


class Equations:
    """Values are numbers, in the order in which they are computed."""

    def __init__(self, closed: Any) -> None:
        self.avals: list[Any] = []
        self.list: list[Equation] = []
        self.constants: dict[int, Any] = {}
        self.inputs = [self._new(var.aval) for var in closed.jaxpr.invars]
        self.results = self._inline(closed.jaxpr, closed.consts, self.inputs)
        self.producer = {out: eq for eq in self.list for out in eq.outputs}
        self.position = {id(eq): i for i, eq in enumerate(self.list)}

    def _new(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def _inline(self, jaxpr: Any, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.invars, given))
        for var, const in zip(jaxpr.constvars, consts):
            env[var] = self._new(var.aval)
            self.constants[env[var]] = const

        def read(atom: Any) -> int | Literal:
            return Literal(atom.val) if isinstance(atom, core.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            name = eqn.primitive.name
            if name in CALLS and CALLS[name] in eqn.params:
                inner = eqn.params[CALLS[name]]
                if isinstance(inner, core.ClosedJaxpr):
                    results = self._inline(inner.jaxpr, inner.consts, inputs)
                else:
                    results = self._inline(inner, (), inputs)
            elif name == "scan" and isinstance(eqn.params["length"], int) \
                    and eqn.params["length"] <= LONGEST_SCAN:
                results = self._scan(eqn, inputs)
            else:
                results = self._add(name, eqn.params, inputs, [v.aval for v in eqn.outvars],
                                    _bind(eqn))
            env.update(zip(eqn.outvars, results))
        return [read(atom) for atom in jaxpr.outvars]

    def _add(self, name: str, params: dict[str, Any], inputs: list[Any], avals: list[Any],
             call: Callable[..., list[Any]]) -> list[int]:
        if len(self.list) >= MOST_EQUATIONS:
            raise NotFound(f"more than {MOST_EQUATIONS} equations")
        outputs = [self._new(aval) for aval in avals]
        self.list.append(Equation(name, params, inputs, outputs, call))
        return outputs

    def _scan(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        p = eqn.params
        inner, length = p["jaxpr"], p["length"]
        consts = inputs[:p["num_consts"]]
        carry = inputs[p["num_consts"]:p["num_consts"] + p["num_carry"]]
        scanned = inputs[p["num_consts"] + p["num_carry"]:]
        element = [v.aval for v in inner.jaxpr.invars[len(consts) + len(carry):]]
        stacked: list[list[Any]] = []
        steps = range(length)
        for i in (reversed(steps) if p["reverse"] else steps):
            taken = [self._add("index", {"i": i}, [x], [aval], lambda x, i=i: [x[i]])[0]
                     for x, aval in zip(scanned, element)]
            results = self._inline(inner.jaxpr, inner.consts, [*consts, *carry, *taken])
            carry = results[:len(carry)]
            stacked.append(results[len(carry):])
        if p["reverse"]:
            stacked.reverse()
        outs = [v.aval for v in eqn.outvars[len(carry):]]
        return [*carry, *(self._add("stack", {}, list(values), [aval],
                                    lambda *xs: [jax.numpy.stack(xs)])[0]
                          for values, aval in zip(zip(*stacked), outs))]

    def evaluate(self, wanted: Sequence[Any], known: dict[int, Any]) -> list[Any]:
        """Return values, of what is known and of the equations that these need."""
        values = {**self.constants, **known}
        needed: set[int] = set()
        todo = [v for v in wanted if not isinstance(v, Literal)]
        run = set()
        while todo:
            value = todo.pop()
            if value in needed or value in values:
                continue
            needed.add(value)
            eq = self.producer[value]
            run.add(self.position[id(eq)])
            todo.extend(v for v in eq.inputs if not isinstance(v, Literal))

        def read(v: int | Literal) -> Any:
            return v.value if isinstance(v, Literal) else values[v]

        for i in sorted(run):
            eq = self.list[i]
            for out, result in zip(eq.outputs, eq.call(*map(read, eq.inputs))):
                values.setdefault(out, result)
        return [read(v) for v in wanted]

    def ancestors(self, value: int) -> set[int]:
        seen, todo = set(), [value]
        while todo:
            v = todo.pop()
            if v in seen or isinstance(v, Literal):
                continue
            seen.add(v)
            if v in self.producer:
                todo.extend(v for v in self.producer[v].inputs if not isinstance(v, Literal))
        return seen

    def descendants(self, values: set[int]) -> set[int]:
        seen = set(values)
        for eq in self.list:
            if any(not isinstance(v, Literal) and v in seen for v in eq.inputs):
                seen.update(eq.outputs)
        return seen


def _bind(eqn: Any) -> Callable[..., list[Any]]:
    def call(*values: Any) -> list[Any]:
        params = eqn.primitive.get_bind_params(eqn.params)
        with eqn.ctx.manager:
            result = eqn.primitive.bind(*values, **params)
        return list(result) if eqn.primitive.multiple_results else [result]
    return call


def same_values(of: Equations, to: Equations) -> Callable[[int], int]:
    """Return where each value of one trace is in another of the same function.

    A trace with a symbolic extent may compute shapes that another knows.
    """
    inputs = dict(zip(of.inputs, to.inputs))
    first, second = ([eq.name for eq in e.list] for e in (of, to))
    if first == second:
        pairs = dict(enumerate(range(len(first))))
    else:
        matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
        pairs = {a + i: b + i for a, b, size in matcher.get_matching_blocks() for i in range(size)}

    def find(value: int) -> int:
        if value in inputs:
            return inputs[value]
        if value not in of.producer:
            raise NotFound("a constant")
        eq = of.producer[value]
        at = pairs.get(of.position[id(eq)])
        if at is None:
            raise NotFound("the traces differ")
        return to.list[at].outputs[eq.outputs.index(value)]
    return find
