"""Lets Python read counts of the choices while a module is traced.

Code of experts splits the sorted rows by counts that it reads (``tolist()``, ``numpy()``,
``item()``), loops over the experts that have tokens, and skips those that have none. A trace
has no values. But what is computed of ids alone is known in form: ``Reads`` gives Python a
``Number``, a sum of counts, and takes the branches in which every expert has rows; a slice
between two numbers is one operation of the graph, ``rows_between``. All of it supposes that
nothing else is done with the values: whoever traces has to check the graph against the
module if ``assumed`` is true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ..._error import UNIMPLEMENTED, MoEError
from .numbers import Number

__all__ = ["Reads"]

_COMPARISONS = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
                "gt": operator.gt, "ge": operator.ge}
# What keeps the elements of a vector and their order.
_KEEPS = {"to", "cpu", "long", "int", "detach", "contiguous", "clone", "flatten", "squeeze",
          "view", "reshape", "type", "ravel"}
_MAKES = {"zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones",
          "new_empty", "new_full"}


class Reads(TorchFunctionMode):
    """Follows what is computed of ids, and answers where Python reads it.

    With ``sizes`` selections of tokens are supposed to have two rows or more, too, and ``length``
    ones where Python takes their length. That is a number, on which nothing may depend: whoever
    traces has to compare the traces with two lengths where ``has_length`` is true.
    """

    def __init__(self, sizes: bool = False, length: int = 1_000_003) -> None:
        super().__init__()
        self.assumed, self.sizes, self.length = False, sizes, length
        self.has_length = False
        # By the ids of tensors, which are kept so that no others have their ids.
        self.kept: dict[int, torch.Tensor] = {}
        self.forgotten: set[int] = set()
        self.experts: dict[int, int] = {}  # of tensors of ids
        self.numbers: dict[int, list[Any]] = {}  # what the elements of a tensor are
        self.known: dict[int, np.ndarray] = {}  # tensors whose elements are these integers
        self.marks: dict[int, bool] = {}  # truth values that are assumed
        self.sources: list[torch.Tensor] = []
        self.lengths: dict[int, torch.Tensor] = {}  # by sources: a tensor that they divide
        self.between: dict[Number, Any] = {}
        self.parts: dict[Any, tuple[Number, Number]] = {}  # by the size that they have

    def error(self, why: str) -> MoEError:
        return MoEError(UNIMPLEMENTED, "its operations depend on the values of a tensor: it reads "
                        f"a number of choices, and {why}")

    def __torch_function__(self, function: Any, types: Any, args: Any = (),
                           kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "").strip("_")
        if (rule := _RULES.get(name)) is not None:
            answer = rule(self, name, function, args, kwargs)
            if answer is not NotImplemented:
                return answer
        result = function(*args, **kwargs)
        self.note(name, args, kwargs, result)
        return result

    # -- what is known --------------------------------------------------------

    def keep(self, tensor: Any) -> Any:
        self.kept[id(tensor)] = tensor
        return tensor

    def is_of_ids(self, tensor: Any) -> bool:
        return id(tensor) in self.kept and id(tensor) not in self.forgotten

    def forget(self, tensor: torch.Tensor) -> None:
        """Note that something else was written to a tensor."""
        self.keep(tensor)
        self.forgotten.add(id(tensor))

    def note(self, name: str, args: Sequence[Any], kwargs: Any, result: Any) -> None:
        """Note what a result is."""
        first = args[0] if args else kwargs.get("input")
        if name in ("topk", "max", "sort", "argmax", "argsort", "min", "argmin"):
            indices = result if isinstance(result, torch.Tensor) else (
                result[1] if isinstance(result, tuple) and len(result) == 2 else None)
            if isinstance(indices, torch.Tensor) and not indices.is_floating_point():
                self.keep(indices)
                if not self.is_of_ids(first) and isinstance(first.shape[-1], int):
                    self.experts[id(indices)] = first.shape[-1]
                elif self.is_of_ids(first) and name == "sort":
                    self.keep(result[0])
                    self._same(first, result[0])
            return
        operands = list(_tensors((args, kwargs)))
        if result is first and not all(self.is_of_ids(t) for t in operands):
            self.forget(first)
        if not all(self.is_of_ids(t) for t in operands) and name not in _MAKES:
            return
        for tensor in _tensors(result):
            self.keep(tensor)
        if not isinstance(result, torch.Tensor):
            return
        if name in _KEEPS and isinstance(first, torch.Tensor):
            self._same(first, result)
        if name in ("any", "count_nonzero") and result.ndim == 0 and operands:
            self.marks[id(result)] = True

    def _same(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Note that ``new`` has the elements of ``old``."""
        if id(old) in self.experts:
            self.experts[id(new)] = self.experts[id(old)]
        if new.ndim == 1 and (found := self.numbers.get(id(old))) is not None:
            self.numbers[id(new)] = found
        if id(old) in self.known and all(isinstance(s, int) for s in new.shape):
            self.known[id(new)] = self.known[id(old)].reshape(new.shape)

    def is_vector(self, tensor: Any) -> bool:
        """Return true for integers of ids, as many as a trace knows."""
        return (isinstance(tensor, torch.Tensor) and self.is_of_ids(tensor) and tensor.ndim == 1
                and isinstance(tensor.shape[0], int) and not tensor.is_floating_point()
                and tensor.dtype != torch.bool)

    def vector(self, tensor: torch.Tensor) -> list[Any]:
        """Return the elements of a vector."""
        if id(tensor) in self.known:
            return self.known[id(tensor)].tolist()
        if id(tensor) not in self.numbers:
            source = len(self.sources)
            self.sources.append(tensor)
            self.numbers[id(tensor)] = [Number(self, {(source, i): 1})
                                        for i in range(tensor.shape[0])]
        return self.numbers[id(tensor)]

    def number(self, value: Any) -> Any:
        """Return what is read of a tensor without dimensions; None if that is not known."""
        if not isinstance(value, torch.Tensor) or not self.is_of_ids(value) or value.ndim > 1 or (
                value.ndim == 1 and value.shape[0] != 1):
            return None
        if id(value) in self.known:
            return int(self.known[id(value)].reshape(-1)[0])
        if id(value) in self.numbers:
            return self.numbers[id(value)][0]
        if value.is_floating_point() or value.dtype == torch.bool:
            return None
        source = len(self.sources)
        self.sources.append(value.reshape(1))
        self.numbers[id(value)] = [Number(self, {(source, 0): 1})]
        return self.numbers[id(value)][0]

    # -- rows between numbers -------------------------------------------------

    def operands(self, *ends: Number) -> tuple[list[torch.Tensor], list[list[int]]]:
        """Return the tensors that numbers are sums of, and the factors of each."""
        used = sorted({source for end in ends for source, _ in end.terms})
        factors = [[end.terms.get((source, i), 0) for source in used
                    for i in range(self.sources[source].shape[0])] + [end.constant]
                   for end in ends]
        return [self.sources[s] for s in used], factors

    def ends_of(self, piece: slice) -> tuple[Number, Number] | None:
        """Return the numbers of a slice, if any is one."""
        ends = [self.number(e) if isinstance(e, torch.Tensor) else e
                for e in (piece.start, piece.stop)]
        if not any(isinstance(e, Number) for e in ends) or piece.step not in (None, 1):
            return None
        start, end = ends
        if end is None:  # to the end of what the counts divide
            sources = {source for source, _ in start.terms}
            if len(sources) != 1:
                return None
            source, = sources
            end = Number(self, {(source, i): 1 for i in range(self.sources[source].shape[0])})
        start = 0 if start is None else start
        zero = Number(self, {})
        return zero + start, zero + end

    def size(self, start: Number, end: Number) -> Any:
        """Return the number of rows between two numbers as a size of the trace."""
        length = end - start
        self.assumed = True
        if length not in self.between:
            if not length.terms:
                raise self.error("cuts a part of as many rows for every input")
            sources, (first, last) = self.operands(start, end)
            self.between[length] = torch.ops.moe_mlir.size_between(sources, first, last)
        size = self.between[length]
        self.parts.setdefault(str(size), (start, end))
        return size

    def rows(self, x: torch.Tensor, start: Number, end: Number) -> torch.Tensor:
        for source, _ in end.terms:
            self.lengths.setdefault(source, x)
        sources, (first, last) = self.operands(start, end)
        result = torch.ops.moe_mlir.rows_between(x, sources, first, last, self.size(start, end))
        return self.keep(result) if self.is_of_ids(x) else result

    # -- rules ----------------------------------------------------------------

    def item(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if id(args[0]) in self.marks:
            self.assumed = True
            return self.marks[id(args[0])]
        found = self.number(args[0])
        if isinstance(found, int) or (found is not None and name == "item"):
            return found
        return NotImplemented

    def compare(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Note the result of a comparison of a count; an id that is known is a number."""
        if len(args) != 2 or kwargs:
            return NotImplemented
        known = [int(self.known[id(a)].reshape(-1)[0]) if id(a) in self.known
                 and self.known[id(a)].size == 1 else a for a in args]
        if all(isinstance(a, int) for a in known):
            return _COMPARISONS[name](*known)
        if any(a is not b for a, b in zip(args, known)) and isinstance(known[0], torch.Tensor):
            result = function(*known)
            self.note(name, known, {}, result)
            return result
        if isinstance(args[1], (int, np.integer)) and isinstance(args[0], torch.Tensor) and (
                self.is_of_ids(args[0]) and args[0].ndim == 0
                and not args[0].is_floating_point() and args[0].dtype != torch.bool):
            number = self.number(args[0])
            result = self.keep(function(*args))
            if isinstance(number, Number):
                before = self.assumed
                found = number.compare(_COMPARISONS[name], int(args[1]))
                self.assumed = before
                if found is not None:
                    self.marks[id(result)] = found
            return result
        return NotImplemented

    def numpy(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if not self.is_vector(args[0]):
            return NotImplemented
        values = self.vector(args[0])
        result = np.empty(len(values), dtype=object)
        result[:] = values
        return result

    def unbind(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if not (self.is_vector(args[0]) or id(args[0]) in self.known):
            return NotImplemented
        result = function(*args, **kwargs)
        values = self.known[id(args[0])] if id(args[0]) in self.known else self.vector(args[0])
        for element, value in zip(result, values):
            self.keep(element)
            if isinstance(value, (Number, int)):
                self.numbers[id(element)] = [value]
            if not isinstance(value, Number):
                self.known[id(element)] = np.asarray(value)
        return result

    def iterate(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        if id(args[0]) not in self.known:
            return NotImplemented
        return iter(torch.unbind(args[0]))

    def getitem(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        x, index = args
        pieces = index if isinstance(index, tuple) else (index,)
        first = pieces[0] if pieces else None
        if isinstance(first, slice) and (ends := self.ends_of(first)) is not None:
            rows = self.rows(x, *ends)
            return rows if len(pieces) == 1 else rows[(slice(None), *pieces[1:])]
        pieces = tuple(self._index(p) for p in pieces)
        if any(isinstance(p, list) for p in pieces):
            pieces = tuple(slice(p[0], p[0] + 1) if isinstance(p, list) else p for p in pieces)
        result = function(x, pieces if isinstance(index, tuple) else pieces[0])
        self.note(name, (x, index), {}, result)
        if len(pieces) == 1 and isinstance(pieces[0], (int, slice)):
            self._part(x, pieces[0], result)
        return result

    def _index(self, piece: Any) -> Any:
        """Return a known id as a number, or as a list of one."""
        if id(piece) not in self.known or not isinstance(piece, torch.Tensor):
            return piece
        found = self.known[id(piece)]
        if found.size != 1 or found.ndim > 1:
            return piece
        return int(found) if found.ndim == 0 else [int(found[0])]

    def _part(self, x: torch.Tensor, piece: Any, result: torch.Tensor) -> None:
        """Note some elements of a vector."""
        if id(x) in self.known:
            self.known[id(result)] = self.known[id(x)][piece]
            self.keep(result)
        elif self.is_vector(x):
            some = self.vector(x)[piece]
            self.numbers[id(result)] = some if isinstance(some, list) else [some]
            self.keep(result)

    def setitem(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        x, index, values = args
        pieces = index if isinstance(index, tuple) else (index,)
        if len(pieces) == 1 and isinstance(pieces[0], slice) and (
                ends := self.ends_of(pieces[0])) is not None and isinstance(values, torch.Tensor):
            for source, _ in ends[1].terms:
                self.lengths.setdefault(source, x)
            self.size(*ends)
            sources, (first, last) = self.operands(*ends)
            x.copy_(torch.ops.moe_mlir.put_between(x, sources, first, last, values.to(x.dtype)))
            return None
        pieces = tuple(self._index(p) for p in pieces)
        pieces = tuple(p[0] if isinstance(p, list) else p for p in pieces)
        if not all(self.is_of_ids(t) for t in _tensors((index, values))):
            self.forget(x)
        return function(x, pieces if isinstance(index, tuple) else pieces[0], values)

    def narrow(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "dim", "start", "length"), args), **kwargs)
        start, length = (self.number(given[n]) if isinstance(given[n], torch.Tensor) else given[n]
                         for n in ("start", "length"))
        if given["dim"] != 0 or not (isinstance(start, Number) or isinstance(length, Number)):
            return NotImplemented
        start = Number(self, {}) + start
        return self.rows(given["input"], start, start + length)

    def split(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("tensor", "sizes", "dim"), args),
                     **{"sizes" if k.startswith(("split", "indices", "tensor_ind")) else k: v
                        for k, v in kwargs.items()})
        sizes = given.get("sizes")
        if isinstance(sizes, np.ndarray) or (name == "tensor_split" and self.is_vector(sizes)):
            sizes = list(self.vector(sizes) if isinstance(sizes, torch.Tensor) else sizes)
        if not isinstance(sizes, (list, tuple)) or given.get("dim", 0) != 0:
            return NotImplemented
        sizes = [self.number(s) if isinstance(s, torch.Tensor) else s for s in sizes]
        if not any(isinstance(s, Number) for s in sizes):
            return NotImplemented
        ends = [Number(self, {})]
        for size in sizes:
            ends.append(ends[-1] + size if name != "tensor_split" else ends[0] + size)
        x, result = given["tensor"], []
        for start, end in zip(ends, ends[1:]):
            result.append(self.rows(x, start, end))
        if name == "tensor_split":
            result.append(x[ends[-1]:])
        return tuple(result)

    def cat(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """Parts, one after the other, are as many rows as what they are parts of."""
        given = dict(zip(("tensors", "dim"), args), **kwargs)
        parts = [t for t in given.get("tensors", ()) if t.ndim]
        dim = given.get("dim", 0)
        if self.constant_of(parts) and dim == 0:
            result = function(*args, **kwargs)
            self.note(name, args, kwargs, result)
            self.numbers[id(result)] = [n for t in parts for n in self.vector(t)]
            self.keep(result)
            return result
        if dim != 0 or not parts or not all(isinstance(t.shape[0], torch.SymInt) for t in parts):
            return NotImplemented
        at = Number(self, {})
        for part in parts:
            start, end = self.parts.get(str(part.shape[0]), (None, None))
            if start is None or (start - at).terms or (start - at).constant:
                return NotImplemented
            at = end
        sources = {source for source, _ in at.terms}
        whole = len(sources) == 1 and all(
            at.terms.get((s, i)) == 1 for s in sources for i in range(self.sources[s].shape[0]))
        if not whole or at.constant:
            return NotImplemented
        return torch.ops.moe_mlir.joined(parts, self.lengths[sources.pop()])

    def constant_of(self, parts: Sequence[torch.Tensor]) -> bool:
        """Return true for vectors of counts and zeros."""
        return any(self.is_vector(t) and id(t) in self.numbers for t in parts) and all(
            self.is_vector(t) for t in parts)

    def zeros(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.ndim == 1 and isinstance(
                result.shape[0], int) and not result.is_floating_point() and (
                result.shape[0] <= 4):
            self.keep(result)
            self.known[id(result)] = np.zeros(result.shape, np.int64)
        else:
            self.note(name, args, kwargs, result)
        return result

    def bincount(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "weights", "minlength"), args), **kwargs)
        ids, least = given["input"], given.get("minlength", 0)
        experts = self.experts.get(id(ids))
        if given.get("weights") is not None or not self.is_of_ids(ids) or (
                experts is None and not least):
            return NotImplemented
        self.assumed = True
        return self.keep(torch.ops.moe_mlir.counts(ids, max(least, experts or 0)))

    def unique(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """All experts are among the ids."""
        given = dict(zip(("input", "sorted", "return_inverse", "return_counts"), args), **kwargs)
        ids = given.get("input")
        experts = self.experts.get(id(ids))
        if experts is None or given.get("return_inverse") or given.get("dim") is not None:
            return NotImplemented
        self.assumed = True
        every = self.range(experts, ids, (experts,))
        if not given.get("return_counts"):
            return every
        return every, self.keep(torch.ops.moe_mlir.counts(ids, experts))

    def range(self, count: int, like: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """Return 0, 1, 2, ..., which Python may read."""
        every = self.keep(torch.arange(count, device=like.device).reshape(shape))
        self.known[id(every)] = np.arange(count).reshape(shape)
        return every

    def nonzero(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """The experts that have tokens are all; of tokens there are some."""
        mask = args[0] if args else kwargs.get("input", kwargs.get("condition"))
        if name == "where" and len(args) + len(kwargs) != 1:
            return NotImplemented
        if isinstance(mask, torch.Tensor) and self.is_of_ids(mask) and mask.ndim == 1 and (
                isinstance(mask.shape[0], int)) and mask.shape[0] > 1:
            self.assumed = True
            if name == "where" or kwargs.get("as_tuple"):
                return (self.range(mask.shape[0], mask, mask.shape),)
            return self.range(mask.shape[0], mask, (mask.shape[0], 1))
        if not self.sizes:
            return NotImplemented
        result = function(*args, **kwargs)
        self.note(name, args, kwargs, result)
        first = result[0] if isinstance(result, tuple) else result
        if isinstance(first.shape[0], torch.SymInt):
            torch._check(first.shape[0] >= 2)
            self.assumed = True
        return result

    def len(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        size = args[0].shape[0] if args[0].ndim else None
        if not self.sizes or not isinstance(size, torch.SymInt) or not self.is_of_ids(args[0]):
            return NotImplemented
        self.has_length = self.assumed = True
        return self.length

    def one_hot(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        """torch has one number of classes in a trace; here it may be a capacity."""
        given = dict(zip(("tensor", "num_classes"), args), **kwargs)
        ids, count = given.get("tensor", given.get("input")), given.get("num_classes")
        if not isinstance(count, torch.SymInt):
            return NotImplemented
        marks = ids.unsqueeze(-1) == torch.arange(count, device=ids.device)
        result = marks.to(torch.int64)
        self.note(name, (ids,), {}, result)
        return result

    def cumsum(self, name: str, function: Any, args: Any, kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        self.note(name, args, kwargs, result)
        x = args[0] if args else kwargs.get("input")
        if self.is_vector(x):
            total, values = Number(self, {}), []
            for value in self.vector(x):
                total = total + value
                values.append(total)
            self.numbers[id(result)] = values
        return result


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _named(rule: Callable[..., Any], names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    return {name: rule for name in names}


# By the names of functions and methods, without underscores.
_RULES: dict[str, Callable[..., Any]] = {
    **_named(Reads.item, ("item", "bool", "int", "index")),
    **_named(Reads.compare, _COMPARISONS), **_named(Reads.numpy, ("numpy", "array")),
    **_named(Reads.split, ("split", "split_with_sizes", "tensor_split")),
    **_named(Reads.cat, ("cat", "concat", "concatenate", "vstack")),
    **_named(Reads.nonzero, ("nonzero", "where", "argwhere")),
    **_named(Reads.zeros, ("zeros", "new_zeros")),
    **_named(Reads.unique, ("unique", "unique_consecutive", "return_output", "return_counts",
                            "unique_impl")),
    "unbind": Reads.unbind, "iter": Reads.iterate, "getitem": Reads.getitem,
    "setitem": Reads.setitem, "narrow": Reads.narrow, "bincount": Reads.bincount,
    "cumsum": Reads.cumsum, "len": Reads.len, "one_hot": Reads.one_hot,
}
