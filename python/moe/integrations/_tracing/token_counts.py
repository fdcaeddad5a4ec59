"""Finds where Python decides by the number of tokens, which a trace knows one of.

``if x.shape[0] > 4`` has one of its branches in a trace, whatever the number of tokens of a
later call. torch keeps such comparisons of a symbolic size; ``Sizes`` keeps those of code
that runs with tensors. ``counts_beyond`` returns numbers of tokens for which they have
another result: a trace holds for these only if it computes what the module does.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Condition", "Sizes", "conditions_of", "counts_beyond", "symbolic_numbers"]

# A module is run with so many tokens at most, to see what it does.
LIMIT = 1024
_FAR = 2**24


@dataclass(frozen=True)
class Condition:
    """What is true of the number of tokens that was traced, and perhaps not of another."""

    text: str
    holds: Callable[[int], bool]
    constants: frozenset[int] = field(default_factory=frozenset)


def counts_beyond(conditions: Sequence[Condition], traced: int) -> tuple[list[int], list[str]]:
    """Return numbers of tokens for which a condition does not hold, on both sides of where it
    begins to, and the texts of those that only fail beyond ``LIMIT`` tokens."""
    counts: set[int] = set()
    far = []
    for condition in conditions:
        near = {c + d for c in condition.constants for d in (-1, 0, 1)}
        steps = {1 << i for i in range(_FAR.bit_length())}
        tried = sorted(n for n in {*range(1, 65), *near, *steps, *(n - 1 for n in steps)}
                       if 1 <= n <= _FAR)
        failing = [n for n in tried if not condition.holds(n)]
        if not failing:
            continue
        for count in {failing[0], min(failing, key=lambda n: abs(n - traced))}:
            edge = _edge(condition, traced, count)
            if edge > LIMIT:
                far.append(condition.text)
                continue
            counts |= {edge, edge + (1 if edge < traced else -1)}
    return sorted(counts), list(dict.fromkeys(far))


def _edge(condition: Condition, good: int, bad: int) -> int:
    """Return a number between for which the condition fails, next to one for which it holds."""
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        if condition.holds(middle):
            good = middle
        else:
            bad = middle
    return bad


# -- sizes of torch.export ----------------------------------------------------


def _holds(expression: sympy.Basic, symbol: sympy.Symbol, number: int) -> bool:
    try:
        return bool(expression.xreplace({symbol: sympy.Integer(number)}))
    except ZeroDivisionError:
        return False


def conditions_of(rows: torch.Tensor) -> list[Condition]:
    """Return what a trace supposes of the number of tokens, the symbolic extent of ``rows``."""
    size = next(s for s in rows.shape if isinstance(s, torch.SymInt))
    symbol, environment = size.node.expr, size.node.shape_env
    conditions = {}
    for check in environment.deferred_runtime_asserts.get(None, ()):
        expression = check.expr
        if expression.free_symbols != {symbol}:
            continue
        text = str(expression.xreplace({symbol: sympy.Symbol("tokens")}))
        conditions[text] = Condition(
            text, lambda n, e=expression: _holds(e, symbol, n),
            frozenset(abs(int(c)) for c in expression.atoms(sympy.Integer)))
    # Simple comparisons are in the range of the symbol, and nowhere else.
    bounds = environment.var_to_range[symbol]
    for name, compare, bound in (("<=", operator.le, bounds.upper), (">=", operator.ge,
                                                                     bounds.lower)):
        if isinstance(bound, sympy.Integer) and not (name == ">=" and bound <= 2):
            conditions[name] = Condition(f"tokens {name} {bound}",
                                         lambda n, c=compare, b=int(bound): c(n, b),
                                         frozenset({int(bound)}))
    return list(conditions.values())


@contextlib.contextmanager
def symbolic_numbers(module: torch.nn.Module) -> Iterator[None]:
    """Have ``min``, ``max``, ``int`` and ``float`` of symbolic numbers be symbolic in the code of
    a module's classes: those of Python have the result for one number of tokens."""
    names = {cls.__module__ for part in module.modules() for cls in type(part).__mro__}
    spaces = [sys.modules[name].__dict__ for name in names
              if name in sys.modules and name.partition(".")[0] not in ("builtins", "torch", "moe")]
    added = [(space, name) for space in spaces for name in _SYMBOLIC if name not in space]
    for space, name in added:
        space[name] = _SYMBOLIC[name]
    try:
        yield
    finally:
        for space, name in added:
            space.pop(name, None)


def _bound(plain: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    def bound(*values: Any, **options: Any) -> Any:
        given = values[0] if len(values) == 1 and isinstance(values[0], (list, tuple)) else values
        if options or not all(isinstance(v, (int, float, *_SYMBOLS)) for v in given) or not any(
                isinstance(v, _SYMBOLS) for v in given):
            return plain(*values, **options)
        return functools.reduce(symbolic, given)

    return bound


class _Kind(type):
    """A type that stands for another one."""

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.__base__)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, cls.__base__)


def _kind(plain: type, symbolic: Callable[..., Any]) -> type:
    def convert(_: type, *values: Any, **options: Any) -> Any:
        if len(values) == 1 and isinstance(values[0], _SYMBOLS):
            return symbolic(values[0])
        return plain(*values, **options)

    return _Kind(plain.__name__, (plain,), {"__new__": convert})


_SYMBOLS = torch.SymInt, torch.SymFloat
_SYMBOLIC = {"min": _bound(min, torch.sym_min), "max": _bound(max, torch.sym_max),
             "int": _kind(int, torch.sym_int), "float": _kind(float, torch.sym_float)}


# -- sizes of tensors ---------------------------------------------------------


class _Size(int):
    """A number that ``of`` computes of the number of tokens; notes what it is compared with."""

    of: Callable[[int], int]
    sizes: Sizes

    def __new__(cls, value: int, of: Callable[[int], int], sizes: Sizes) -> _Size:
        self = super().__new__(cls, value)
        self.of, self.sizes = of, sizes
        return self

    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        return self != 0


def _of(value: Any) -> Callable[[int], int]:
    return value.of if isinstance(value, _Size) else lambda n: value


def _arithmetic(name: str, reflected: bool) -> Callable[[_Size, Any], Any]:
    function = getattr(operator, name)

    def compute(self: _Size, other: Any) -> Any:
        if not isinstance(other, int):
            return NotImplemented
        left, right = (other, self) if reflected else (self, other)
        first, second = _of(left), _of(right)
        return _Size(function(int(left), int(right)), lambda n: function(first(n), second(n)),
                     self.sizes)

    return compute


def _comparison(name: str) -> Callable[[_Size, Any], Any]:
    function = getattr(operator, name)

    def compare(self: _Size, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        result = function(int(self), int(other) if isinstance(other, _Size) else other)
        self.sizes.note(self.of, _of(other), function, result, other)
        return result

    return compare


for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(_Size, f"__{_name}__", _arithmetic(_name, False))
    setattr(_Size, f"__r{_name}__", _arithmetic(_name, True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Size, f"__{_name}__", _comparison(_name))


class Sizes(TorchFunctionMode):
    """Notes comparisons of leading extents that are ``count``, the number of tokens, or some of
    them for each token."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count
        self.conditions: list[Condition] = []

    def note(self, left: Callable[[int], Any], right: Callable[[int], Any],
             function: Callable[[Any, Any], bool], result: bool, other: Any) -> None:
        def holds(n: int) -> bool:
            try:
                return function(left(n), right(n)) == result
            except ZeroDivisionError:
                return False

        constants = frozenset({int(other)}) if abs(other) < _FAR else frozenset()
        self.conditions.append(Condition(f"{function.__name__} {other}", holds, constants))

    def size(self, value: int) -> int:
        if value == 0 or value % self.count:
            return value
        factor = value // self.count
        return _Size(value, lambda n: n * factor, self)

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function == torch.Tensor.shape.__get__ or (
                function is torch.Tensor.size and isinstance(result, torch.Size)):
            last = len(result) - 1
            return torch.Size(self.size(n) if i < max(last, 1) else n
                              for i, n in enumerate(result))
        if function is torch.Tensor.size:
            dim = args[1] if len(args) > 1 else kwargs["dim"]
            return self.size(result) if dim % args[0].ndim < max(args[0].ndim - 1, 1) else result
        if function in (torch.Tensor.__len__, torch.Tensor.numel, torch.Tensor.nelement,
                        torch.numel):
            return self.size(result)
        return result
