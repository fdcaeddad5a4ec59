"""Experts whose loop is written out in their ``forward``: what one expert computes.

Such a module takes rows ``[T, H]``, ids ``[T, K]`` and weights ``[T, K]`` and loops over
the experts that were chosen, which no graph can hold. ``read`` runs it with all tokens at
one expert and records its operations: those on the rows and on that expert's weights are
the function of an expert. The guess is checked: for other experts, and for a random
choice, the module and the recorded function must agree.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..._error import UNIMPLEMENTED, MoEError
from .._graph.function import Function, Tensor, type_of
from .._graph.operations import call, element_of
from .._graph.scalars import DTYPES
from .._tracing.token_counts import Condition, Sizes, counts_beyond

aten = torch.ops.aten

# Numbers of tokens that are no other extent of a module.
_PRIMES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89)
_ROWS = sympy.Symbol("rows", positive=True, integer=True)


def may_be_experts(name: str, module: torch.nn.Module) -> bool:
    """Return true for a module that is called experts and takes rows, ids and weights."""
    called = name.rpartition(".")[2] == "experts" or type(module).__name__.endswith("Experts")
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    needed = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    return called and len(needed) == 3 and "shared" not in type(module).__name__.lower()


@dataclass(frozen=True)
class _Weight:
    """A parameter of all experts, ``[E, ...]``, or those of each expert under one name."""

    name: str
    tensors: tuple[torch.Tensor, ...]  # one with a leading E, or E

    @property
    def is_of_modules(self) -> bool:
        return "*" in self.name

    @property
    def count(self) -> int:
        return len(self.tensors) if self.is_of_modules else self.tensors[0].shape[0]

    def of(self, expert: int) -> torch.Tensor:
        return self.tensors[expert] if self.is_of_modules else self.tensors[0][expert]

    def stacked(self, experts: int) -> torch.Tensor:
        """Return the parts of the first experts, ``[experts, ...]``."""
        if self.is_of_modules:
            return torch.stack(self.tensors[:experts])
        whole = self.tensors[0]
        return whole if whole.shape[0] == experts else whole[:experts]


class _Recorder(TorchDispatchMode):
    """Keeps the operations that run, with their operands and results."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        # What an operation in place computes is what the one without its underscore does.
        name = function.overloadpacket.__name__
        if name.endswith("_") and hasattr(aten, name[:-1]):
            function = getattr(getattr(aten, name[:-1]), function._overloadname, function)
        self.calls.append((function, args, kwargs or {}, result))
        return result


@dataclass(frozen=True)
class _Rows:
    """The rows of the expert."""


@dataclass(frozen=True)
class _Slice:
    """An expert's part of weight ``index``."""

    index: int


@dataclass(frozen=True)
class _Shared:
    """A weight that all experts use whole."""

    name: str


@dataclass(frozen=True)
class _Result:
    """Part ``part`` of the result of operation ``index``."""

    index: int
    part: int | None = None


@dataclass
class WrittenExperts:
    """What one expert computes: ``calls`` on its rows and weights; ``result`` of them."""

    what: str
    rows: int  # that were recorded
    experts: int
    hidden: int
    output: int
    dtype: str
    weights: list[_Weight]
    shared: dict[str, torch.Tensor]
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]]
    result: Any
    keeps_others: bool = False  # a choice beyond the experts adds its row

    def run(self, rows: torch.Tensor, expert: int) -> torch.Tensor:
        """Compute one expert on some rows. Views have as many as there are; elsewhere the
        number that was recorded is a number."""
        def resized(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return [resized(v) for v in value]
            same = isinstance(value, int) and not isinstance(value, bool) and value == self.rows
            return rows.shape[0] if same else value

        def once(function: Any, args: list[Any], kwargs: dict[str, Any], _: Any) -> Any:
            if function.overloadpacket in _VIEWS:
                args = args[:1] + [resized(a) for a in args[1:]]
            return function(*args, **kwargs)

        return self._replay(rows, [w.of(expert) for w in self.weights], self.shared, once)

    def _replay(self, rows: Any, slices: Sequence[Any], shared: Mapping[str, Any],
                once: Callable[[Any, list[Any], dict[str, Any], Any], Any]) -> Any:
        """Do each operation by ``once``, with these values in place of those recorded; returns
        the result."""
        values: list[Any] = []

        def look(value: Any) -> Any:
            if isinstance(value, _Rows):
                return rows
            if isinstance(value, _Slice):
                return slices[value.index]
            if isinstance(value, _Shared):
                return shared[value.name]
            if isinstance(value, _Result):
                result = values[value.index]
                return result if value.part is None else result[value.part]
            return [look(v) for v in value] if isinstance(value, (list, tuple)) else value

        for function, args, kwargs, result in self.calls:
            values.append(once(function, [look(a) for a in args],
                               {k: look(v) for k, v in kwargs.items()}, result))
        return look(self.result)

    def region(self, outer: Function, shared: Mapping[str, str]) -> str:
        """Write the region of a ``moe.expert`` in ``outer``, whose arguments ``shared`` are."""
        f = Function(self.what)
        f.names = outer.names
        f.indices = {0: outer.index(0)}
        rows = Tensor(f"%t{f.names}", (_ROWS, self.hidden), self.dtype)
        arguments = [f"{rows.name}: {rows.type}"]
        slices = []
        f.names += 1
        for weight in self.weights:
            part = weight.of(0)
            name, element, shape = f"%t{f.names}", element_of(f, part), tuple(part.shape)
            kept = tuple(e for e in shape if e != 1) or shape  # see ``write_experts``
            f.names += 1
            arguments.append(f"{name}: {type_of(kept, element)}")
            slices.append((name, kept, shape, element))
        f.indices[_ROWS] = f.let(f"tensor.dim {rows.name}, {outer.index(0)} : {rows.type}")
        parts = [replace(f.without_units(name, kept, element), shape=shape)
                 for name, kept, shape, element in slices]
        whole = {n: f.without_units(shared[n], tuple(t.shape), element_of(f, t))
                 for n, t in self.shared.items()}
        y = self._replay(rows, parts, whole, lambda function, args, kwargs, result: call(
            f, function, self.shaped(result), args, kwargs))
        y = f.convert(y, self.dtype)
        outer.names = f.names
        lines = [f"^bb0({', '.join(arguments)}):", *f.lines, f"moe.yield {y.name} : {y.type}"]
        return "\n".join("  " + line for line in lines)

    def shaped(self, result: Any) -> Any:
        """Return a result's shape and type with the number of rows as a symbol."""
        if isinstance(result, (list, tuple)):
            return [self.shaped(r) for r in result]
        if not isinstance(result, torch.Tensor):
            return result
        return _Shaped(tuple(_ROWS if size == self.rows else size for size in result.shape),
                       result.dtype)


@dataclass(frozen=True)
class _Shaped:
    """What a rule asks of a traced tensor."""

    shape: tuple[Any, ...]
    dtype: torch.dtype


def read(module: torch.nn.Module, name: str, hidden: int, dtype: torch.dtype,
         marks: int | None = None) -> WrittenExperts:
    """Read what one expert of ``module`` computes; raises ``MoEError`` if it cannot be read.

    With ``marks`` it takes a mask ``[T, K, marks]`` in place of ids.
    """
    if device := next((p.device for p in module.parameters() if not p.is_cpu), None):
        raise MoEError(UNIMPLEMENTED, f"{name} is on '{device}', expected experts that are written "
                       "out on the CPU, where they are run to read them")
    count, other = _free_primes(module)[:2]
    draw = torch.Generator().manual_seed(0)
    buffers = {buffer: buffer.clone() for buffer in module.buffers()}
    try:
        sizes = Sizes(count)
        found = _record(module, name, torch.randn(count, hidden, generator=draw).to(dtype), marks,
                        sizes)
        _check(module, found, torch.randn(other, hidden, generator=draw).to(dtype), draw, marks,
               sizes.conditions)
    finally:
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)
    return found


def _free_primes(module: torch.nn.Module) -> list[int]:
    sizes = {size for p in module.parameters() for size in p.shape}
    return [p for p in _PRIMES if p not in sizes]


def number_of_rows(module: torch.nn.Module) -> int:
    """Return a prime number that is no extent of a parameter."""
    return _free_primes(module)[0]


def _call(module: torch.nn.Module, rows: torch.Tensor, ids: torch.Tensor,
          weights: torch.Tensor, marks: int | None) -> torch.Tensor:
    if marks is not None:
        ids = (ids.unsqueeze(-1) == torch.arange(marks)).to(torch.int64)
    config = getattr(module, "config", None)
    chosen = getattr(config, "_experts_implementation", None)
    if chosen is not None:
        config._experts_implementation = "eager"
    try:
        with torch.no_grad():
            return type(module).forward(module, rows, ids, weights).reshape(rows.shape[0], -1)
    finally:
        if chosen is not None:
            config._experts_implementation = chosen


def _record(module: torch.nn.Module, name: str, rows: torch.Tensor, marks: int | None,
            sizes: Sizes) -> WrittenExperts:
    """Run the module with all tokens at expert 0, and keep what it computes of their rows."""
    candidates = dict(_weights(module))
    several = any(w.count > 1 for w in candidates.values() if w.tensors[0].ndim)
    # Two choices, as some modules cannot take one: expert 0, and expert 1 with weight 0.
    top_k = 2 if several else 1
    ids = torch.arange(top_k).expand(rows.shape[0], top_k).contiguous()
    recorder = _Recorder()
    try:
        with recorder, sizes:
            y = _call(module, rows, ids, 1 - ids.to(rows.dtype), marks)
    except Exception as failure:
        raise _unreadable(name, "it cannot be called with rows, ids and weights: "
                          f"{failure}") from failure
    reading = _Reading(name, rows, candidates)
    for call in recorder.calls:
        reading.read(*call)
    return reading.result(y)


def _unreadable(name: str, why: str) -> MoEError:
    return MoEError(UNIMPLEMENTED, f"{name}: the function of an expert cannot be read: {why}")


class _Reading:
    """What is known of the tensors of a recorded call of a module."""

    def __init__(self, name: str, rows: torch.Tensor, candidates: dict[str, _Weight]):
        self.name, self.rows, self.candidates = name, rows, candidates
        self.everyone = torch.arange(rows.shape[0])
        # By the ids of tensors: what they are, for expert 0.
        self.known: dict[int, Any] = {id(rows): _Rows()}
        # Views of weights on the way to the part of an expert, and whose they are.
        self.views: dict[int, torch.Tensor] = {}
        self.owners: dict[int, str] = {}
        self.others: set[int] = set()  # what belongs to expert 1
        self.weights: list[_Weight] = []
        self.shared: dict[str, torch.Tensor] = {}
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        for parameter, weight in candidates.items():
            first = weight.tensors[0]
            if not weight.is_of_modules:
                self.views[id(first)], self.owners[id(first)] = first, parameter
            else:
                self.known[id(first)] = ("weight", weight)
                self.others.update(map(id, weight.tensors[1:]))

    def slot(self, weight: _Weight) -> _Slice:
        for index, other in enumerate(self.weights):
            if other.name == weight.name:
                return _Slice(index)
        self.weights.append(weight)
        return _Slice(len(self.weights) - 1)

    def look(self, value: Any) -> Any:
        """Return what an operand is."""
        if isinstance(value, (list, tuple)):
            return [self.look(v) for v in value]
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in self.known:
            found = self.known[id(value)]
            if isinstance(found, tuple):
                self.known[id(value)] = found = self.slot(found[1])
            return found
        if id(value) in self.owners:
            owner = self.owners[id(value)]
            if self.views[id(value)] is not self.candidates[owner].tensors[0]:
                raise _unreadable(self.name, f"it uses a view of all of '{owner}'")
            self.shared[owner] = value
            return _Shared(owner)
        if value.numel() and bool((value == value.flatten()[0]).all()):
            return value.flatten()[0].item()
        raise _unreadable(self.name, f"a tensor of shape {tuple(value.shape)} depends on the "
                          "choice")

    def depends(self, value: Any, *groups: Any) -> bool:
        """Return true if any of some operands is known, or is in one of these groups."""
        if isinstance(value, (list, tuple)):
            return any(self.depends(v, *groups) for v in value)
        return isinstance(value, torch.Tensor) and any(
            id(value) in group for group in groups or (self.known, self.owners))

    def read(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
             result: Any) -> None:
        """Read an operation."""
        packet = function.overloadpacket
        operands = [*args, *kwargs.values()]
        adds = packet in (aten.index_add, aten.index_put, aten.index_copy, aten.scatter_add)
        if self.depends(operands, self.others):
            if adds or self.adds_nothing(packet, args):
                self.stays(args, result)
            else:
                results = result if isinstance(result, (list, tuple)) else [result]
                self.others.update(map(id, results))
            return
        if not self.depends(operands) or self.is_of_weights(function, packet, args, kwargs, result):
            return
        if adds:
            source = args[2] if packet is aten.index_put else args[3]
            if source.numel() != 0:
                self.known[id(result)] = self.look(source)
            else:
                self.stays(args, result)
            return
        same, found = self.passes(packet, args, result)
        if same:
            if found is not None:
                self.known[id(result)] = found
            return
        self.calls.append((function, tuple(self.look(a) for a in args),
                           {k: self.look(v) for k, v in kwargs.items()}, result))
        if isinstance(result, (list, tuple)):
            for part, tensor in enumerate(result):
                self.known[id(tensor)] = _Result(len(self.calls) - 1, part)
        else:
            self.known[id(result)] = _Result(len(self.calls) - 1)

    def adds_nothing(self, packet: Any, args: tuple[Any, ...]) -> bool:
        """Return true for a sum with what is 0, as the weight of expert 1 is."""
        return packet is aten.add and any(
            isinstance(a, torch.Tensor) and id(a) in self.others and not a.count_nonzero()
            for a in args[:2])

    def stays(self, args: tuple[Any, ...], result: Any) -> None:
        """A sum is what it was before, in place or not."""
        for before in args[:2]:
            if isinstance(before, torch.Tensor) and id(before) in self.known:
                self.known[id(result)] = self.known[id(before)]
                return

    def is_of_weights(self, function: Any, packet: Any, args: tuple[Any, ...],
                      kwargs: dict[str, Any], result: Any) -> bool:
        """Return true for a view of a weight of all experts, or the part of one."""
        first = args[0] if args else None
        if not isinstance(first, torch.Tensor) or id(first) not in self.owners:
            return False
        weight = self.candidates[self.owners[id(first)]]
        if packet in (aten.select, aten.index):
            # [E, ...] after views.
            if _picks(args):
                part = _Weight(weight.name, (self.views[id(first)],))
                self.known[id(result)] = self.slot(part)
            else:
                self.others.add(id(result))
            return True
        if packet in _VIEWS:
            self.views[id(result)] = function(self.views[id(first)], *args[1:], **kwargs)
            self.owners[id(result)] = self.owners[id(first)]
            return True
        return False

    def passes(self, packet: Any, args: tuple[Any, ...], result: Any) -> tuple[bool, Any]:
        """Return true, and which operand it is, for an operation that changes nothing here: all
        rows, a weight of 1, a copy; without an operand for no rows."""
        first = args[0] if args else None
        if packet in (aten.index, aten.index_select) and isinstance(
                self.look(first), (_Rows, _Result)):
            picked = [a for a in (args[1] if packet is aten.index else [args[2]]) if a is not None]
            if len(picked) == 1 and torch.equal(picked[0].flatten(), self.everyone):
                return True, self.look(first)
            if len(picked) == 1 and picked[0].numel() == 0:
                return True, None
        if packet is aten.mul and any(
                isinstance(a, torch.Tensor) and not self.depends(a) and self.look(a) == 1.0
                for a in args):
            return True, self.look(next(a for a in args if self.depends(a)))
        if packet in (aten._to_copy, aten.detach, aten.alias, aten.clone) and (
                result.dtype == first.dtype):
            return True, self.look(first)
        if packet is aten.where and not self.depends(first):
            if bool(first.all()) or not bool(first.any()):
                return True, self.look(args[1] if bool(first.all()) else args[2])
            raise _unreadable(self.name, "torch.where selects some of the rows of an expert")
        return False, None

    def result(self, y: torch.Tensor) -> WrittenExperts:
        """Return what was read for the result of the call."""
        if id(y) not in self.known:
            raise _unreadable(self.name, "its result does not depend on the rows")
        experts = {weight.count for weight in self.weights}
        if not experts:
            raise _unreadable(self.name, "it has no weights with a leading dimension of experts")
        calls, result = _needed(self.calls, self.known[id(y)])
        return WrittenExperts(self.name, self.rows.shape[0], min(experts), self.rows.shape[1],
                              y.shape[1], DTYPES[self.rows.dtype], self.weights, self.shared, calls,
                              result)


def _needed(calls: list[Any], result: Any) -> tuple[list[Any], Any]:
    """Drop operations that the result does not need."""
    needed: set[int] = set()

    def visit(value: Any) -> None:
        if isinstance(value, (list, tuple)):
            for each in value:
                visit(each)
        elif isinstance(value, _Result) and value.index not in needed:
            needed.add(value.index)
            visit(calls[value.index][1])
            visit(list(calls[value.index][2].values()))

    visit(result)
    order = sorted(needed)

    def moved(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [moved(v) for v in value]
        if isinstance(value, _Result):
            return _Result(order.index(value.index), value.part)
        return value

    kept = [(f, tuple(map(moved, args)), {k: moved(v) for k, v in kwargs.items()}, made)
            for f, args, kwargs, made in (calls[i] for i in order)]
    return kept, moved(result)


_VIEWS = (aten.view, aten._unsafe_view, aten.reshape, aten.t, aten.transpose, aten.permute,
          aten.detach, aten.alias, aten.unsqueeze, aten.squeeze, aten.expand)


def _picks(args: Sequence[Any]) -> bool:
    """Return true for weight[0]."""
    if isinstance(args[1], int):
        return args[1] == 0 and args[2] == 0
    return len(args[1]) == 1 and args[1][0].ndim == 0 and int(args[1][0]) == 0


def _weights(module: torch.nn.Module) -> Iterator[tuple[str, _Weight]]:
    """Find weights with a leading dimension of experts, and those of experts that are modules."""
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    groups: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        numbered = re.fullmatch(r"(.*?)(\d+)(\..*)", name)
        if numbered:
            groups.setdefault(f"{numbered[1]}*{numbered[3]}", {})[int(numbered[2])] = tensor
        else:
            yield name, _Weight(name, (tensor,))
    for name, parts in groups.items():
        ordered = tuple(parts[i] for i in sorted(parts))
        if len({t.shape for t in ordered}) == 1 and list(sorted(parts)) == list(range(len(parts))):
            yield name, _Weight(name, ordered)


def _check(module: torch.nn.Module, found: WrittenExperts, rows: torch.Tensor,
           draw: torch.Generator, marks: int | None, conditions: Sequence[Condition]) -> None:
    """Compare random choices, which every expert is among, with the module: in other numbers of
    rows than were recorded, and each expert on its rows alone, as the compiled code has them."""
    count, top_k = rows.shape[0], min(2, found.experts)
    calls = -(-found.experts // count)
    first = torch.randperm(calls * count, generator=draw) % found.experts
    for call in range(calls):
        _compare(module, found, rows, first[call * count:(call + 1) * count], draw, marks)
    counts, far = counts_beyond(conditions, found.rows)
    if far:
        raise MoEError(UNIMPLEMENTED, f"{found.what}: it depends on a number of tokens ({far[0]})")
    for tokens in {1, *counts}:
        some = torch.randn(tokens, found.hidden, generator=draw).to(rows.dtype)
        try:
            # All of them at one expert, whose number of rows the code may ask for, too.
            _compare(module, found, some, torch.zeros(tokens, dtype=torch.int64), draw, marks)
        except _Fails:  # the module itself, with so few rows or so many
            continue
    if marks is not None:
        return
    # A choice beyond the experts, and another of weight 0.
    ids = torch.zeros(count, top_k, dtype=torch.int64)
    ids[:, 0] = found.experts
    weights = torch.rand(count, top_k, generator=draw).to(rows.dtype)
    weights[:, 1:] = 0
    try:
        beyond = _call(module, rows, ids, weights, None)
    except Exception:
        return
    found.keeps_others = beyond.shape == rows.shape and torch.allclose(
        beyond, rows * weights[:, :1], rtol=_TOLERANCES[found.dtype])


class _Fails(Exception):
    """A module raises an error for a number of rows."""


_TOLERANCES = {"f32": 1e-4, "bf16": 1.5e-2, "f16": 2e-3}


def _compare(module: torch.nn.Module, found: WrittenExperts, rows: torch.Tensor,
             first: torch.Tensor, draw: torch.Generator, marks: int | None) -> None:
    """Compare rows whose first choices are ``first`` with the module."""
    ids, tolerance = first[:, None], _TOLERANCES[found.dtype]
    if found.experts > 1:
        step = torch.randint(1, found.experts, ids.shape, generator=draw)
        ids = torch.cat([ids, (ids + step) % found.experts], 1)
    weights = torch.rand(ids.shape, generator=draw).to(rows.dtype)
    try:
        expected = _call(module, rows, ids, weights, marks).float()
    except Exception as error:
        raise _Fails from error
    actual = torch.zeros(rows.shape[0], found.output)
    for expert in ids.unique().tolist():
        token, choice = torch.where(ids == expert)
        shuffled = torch.randperm(len(token), generator=draw)
        token, choice = token[shuffled], choice[shuffled]
        with torch.no_grad():
            y = found.run(rows[token], expert).float()
        actual.index_add_(0, token, y * weights[token, choice, None].float())
    largest = float(expected.abs().nan_to_num(posinf=0.0).amax())
    if expected.shape != actual.shape or not torch.allclose(
            actual, expected, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        raise MoEError(UNIMPLEMENTED, f"{found.what}: the function of expert 0 is not that of "
                       "all experts, or their results are not added with their weights")
