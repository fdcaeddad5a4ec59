"""Runs a graph on few tokens with chosen experts, and follows the rows of experts in it.

Choices of experts are given, so that everything that is computed of them (orders, counts, masks,
positions) has its values; weights and rows are random numbers. An operation on those is run as
it is. What it makes is known again if it has only moved numbers; a product of rows with the
matrix of an expert, and an operation on each element of rows, make a family of their own. Where
rows are mixed up, numbers are of no family, and the result is not that of experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..choices import packet_of
from .parameters import MOST, Matrix, Moved, moved
from .tables import Expression, Family, Places, Tables

__all__ = ["ERRORS", "Interpreter"]

Node = torch.fx.Node
aten = torch.ops.aten

_SAME = {aten.clone, aten.detach, aten.alias, aten.contiguous, aten.lift_fresh_copy}
_MOVES = {aten.view, aten.reshape, aten._unsafe_view, aten.flatten, aten.permute, aten.transpose,
          aten.t, aten.select, aten.slice, aten.unsqueeze, aten.squeeze, aten.expand, aten.split,
          aten.split_with_sizes, aten.unbind, aten.chunk, aten.cat, aten.stack, aten.index,
          aten.index_select, aten.unflatten}
# Along the last dimension, with what says which that is.
_IN_ROWS = {aten.sum: 1, aten.mean: 1, aten.amax: 1, aten.amin: 1, aten._softmax: 1,
            aten.softmax: 1, aten._log_softmax: 1, aten.var: 1, aten.cumsum: 1}
# What they make of numbers depends on those: where it is the same here, it need not be elsewhere.
_LIMITS = {aten.clamp, aten.clamp_min, aten.clamp_max, aten.hardtanh, aten.nan_to_num, aten.fmod,
           aten.remainder, aten.threshold}
_TWO_LIMITS = {aten.minimum, aten.maximum, aten.fmin, aten.fmax}
_COMPARISONS = {aten.gt, aten.ge, aten.lt, aten.le, aten.eq, aten.ne, aten.isnan, aten.isinf,
                aten.isfinite}
_KEEP_COLUMNS = {aten._softmax, aten.softmax, aten._log_softmax, aten.cumsum}


class Unknown(Exception):
    """A value that an operation needs is not known."""


# What operations raise for numbers that they do not take.
ERRORS = (Unknown, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError,
          AttributeError, AssertionError)


class Interpreter:
    """Runs nodes in order. ``given`` has values of nodes in place of what they compute."""

    def __init__(self, tables: Tables, matrices: list[tuple[Matrix, dict[Node, int | None]]],
                 experts: int, given: Mapping[Node, torch.Tensor]):
        self.tables, self.experts, self.given = tables, experts, given
        self.matrices = [matrix for matrix, _ in matrices]
        self.values: dict[Node, Any] = {}
        self.uses: dict[Node, int] = {}
        # The nodes that hold rows of tokens in their order.
        self.carriers: dict[Expression, Node] = {}
        self.parameters: dict[Node, Moved] = {}
        for number, (matrix, nodes) in enumerate(matrices):
            size = matrix.experts * torch.Size(matrix.shape).numel()
            numbers = None
            if size <= MOST // 16:
                numbers = tables.random(matrix.experts, 1, size // matrix.experts)
                if len(matrix.shape) < 2 or 1 in matrix.shape:
                    tables.add(Expression("parameter", (number,)), numbers)
            for node, expert in nodes.items():
                self.parameters[node] = moved(number, matrix, expert, numbers)

    def run(self, node: Node) -> Any:
        """Return the value of a node, None where it is not known."""
        if node in self.given:
            value = self.given[node]
        elif node.op == "placeholder":
            value = self.parameters.get(node)
        elif node.op == "call_function":
            try:
                value = self._call(node)
            except ERRORS:
                value = None
        else:
            value = None
        self.values[node] = value
        self._release(node)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            self._note(node, value)
        return value

    def _release(self, node: Node) -> None:
        """Let go of the places of matrices that nothing reads again; gathered ones are large."""
        for source in node.all_input_nodes:
            self.uses[source] = self.uses.get(source, len(source.users)) - 1
            if self.uses[source] == 0 and isinstance(self.values.get(source), Moved):
                del self.values[source]

    def _note(self, node: Node, value: torch.Tensor) -> None:
        if value.ndim < 2 or value.numel() > MOST:
            return
        for family in self.tables.families.values():
            if not family.by_expert and family.table[0].shape == value.shape[-2:] and (
                    value.numel() == family.table.numel()
                    and torch.equal(family.table[0], value.reshape(family.table[0].shape))):
                self.carriers.setdefault(family.expression, node)

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            value = self.values.get(argument)
            if value is None:
                raise Unknown
            return value
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._value(a) for a in argument)
        if isinstance(argument, slice):
            return slice(*(self._value(v) for v in (argument.start, argument.stop, argument.step)))
        return argument

    def _call(self, node: Node) -> Any:
        args = tuple(self._value(a) for a in node.args)
        kwargs = {k: self._value(v) for k, v in node.kwargs.items()}
        packet = packet_of(node)
        if packet is None:
            return node.target(*args, **kwargs)
        if packet in _SAME:
            return args[0]
        if packet is aten._to_copy:
            return self._convert(node, args[0], kwargs.get("dtype"))
        if any(isinstance(a, Moved) for a in _flat(args)):
            if packet in _MOVES:
                return _move(node.target, args, kwargs)
            if (rule := _PRODUCTS.get(packet)) is not None:
                return rule(self, *args, **kwargs)
            args = tuple(_numbers(a) for a in args)
        if packet in _LIMITS:
            return self._limit(node, args, kwargs)
        if packet in _COMPARISONS and any(self._is_of_rows(a) for a in args):
            raise Unknown
        result = _run(node.target, args, kwargs)
        if packet in _TWO_LIMITS and any(self._is_of_rows(a) for a in args) and (
                self.tables.holds(result)):
            return self._limit(node, args, kwargs)
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            self._learn(node.target, packet, args, kwargs, result)
        return result

    # -- operations on rows ----------------------------------------------------

    def _convert(self, node: Node, value: Any, dtype: torch.dtype | None) -> Any:
        """Conversions of rows are operations of experts; they round, and numbers here do not."""
        if isinstance(value, Moved) or dtype is None:
            return value
        if not dtype.is_floating_point:
            return value.to(dtype)
        if not value.is_floating_point():
            return value.to(torch.float64)
        places = self.tables.locate(value)
        if places is None or node.args[0].meta["val"].dtype == dtype or (
                places.family.expression.kind in ("weights", "parameter")):
            return value
        return self._renewed(node, places, (), {"dtype": dtype}, value)

    def _is_of_rows(self, value: Any) -> bool:
        if not isinstance(value, torch.Tensor) or not value.ndim or not value.is_floating_point():
            return False
        places = self.tables.locate(value)
        return places is not None and places.family.expression.kind not in ("weights", "parameter")

    def _limit(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation of rows with numbers, whose results are always those of a new family."""
        result = _run(node.target, args, kwargs)
        if not self._is_of_rows(args[0]):
            if any(self._is_of_rows(a) for a in args):
                raise Unknown
            return result
        rest = []
        for arg in args[1:]:
            if isinstance(arg, torch.Tensor):
                if arg.ndim:
                    raise Unknown
                arg = arg.item()
            rest.append(arg)
        return self._renewed(node, self.tables.locate(args[0]), rest, kwargs, result)

    def _renewed(self, node: Node, places: Places, rest: Sequence[Any], kwargs: dict[str, Any],
                 result: torch.Tensor) -> torch.Tensor:
        """Return a result whose elements at ``places`` are those of a family of their own."""
        part = self._columns(places)
        family = self._new(Expression("operation", (part.expression, *rest),
                                      tuple(sorted(kwargs.items())), node.target),
                           part.table.shape)
        values = family.table[places.expert.clamp(min=0), places.token.clamp(min=0),
                              (places.column - places.first).clamp(0, family.columns - 1)]
        return torch.where(places.known, values, result)

    def _learn(self, target: Any, packet: Any, args: tuple[Any, ...], kwargs: dict[str, Any],
               result: torch.Tensor) -> None:
        """Add the family of an operation on the elements of rows, or within rows."""
        within = packet in _IN_ROWS
        if not within and torch.Tag.pointwise not in target.tags:
            return
        if result.numel() > MOST or self.tables.holds(result):
            return
        if within:
            dims = args[1] if len(args) > 1 else kwargs.get("dim")
            dims = [dims] if isinstance(dims, int) else dims
            if not dims or [d % args[0].ndim for d in dims] != [args[0].ndim - 1]:
                return
        operands, tables = [], []
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.ndim and arg.is_floating_point():
                places = self.tables.locate(arg)
                if places is None:
                    return
                part = self._columns(places)
                operands.append(part.expression)
                tables.append(part.table)
            elif isinstance(arg, torch.Tensor):
                if arg.ndim:
                    return
                operands.append(arg.item())
                tables.append(arg)
            else:
                operands.append(arg)
                tables.append(arg)
        keywords = {k: v for k, v in kwargs.items() if k not in ("dtype", "layout", "device")}
        if within:
            operands[1:2] = tables[1:2] = [-1 if isinstance(args[1], int) else [-1]]
            if packet not in _KEEP_COLUMNS:
                operands[2:] = tables[2:] = []
                keywords["keepdim"] = True
        # A family of parameters alone is no rows.
        if all(not isinstance(o, Expression) or o.kind in ("parameter", "weights")
               for o in operands):
            return
        try:
            table = _run(target, tuple(tables), keywords)
        except RuntimeError:
            return
        some = table[table != 0]
        if table.ndim != 3 or table.numel() > MOST or 2 * some.unique().numel() < some.numel():
            return  # nothing is known again by numbers that are all the same
        self.tables.add(Expression(
            "operation", tuple(tuple(o) if isinstance(o, list) else o for o in operands),
            tuple(sorted(keywords.items())), target), table)

    def _columns(self, places: Places) -> Family:
        """Return the family of the columns that a value has of another."""
        family, first, count = places.family, places.first, places.last - places.first + 1
        if count == family.columns:
            return family
        return self.tables.add(Expression("columns", (family.expression, first, count)),
                               family.table[:, :, first:first + count])

    def _new(self, expression: Expression, shape: tuple[int, ...]) -> Family:
        known = self.tables.families.get(expression)
        if known is None and torch.Size(shape).numel() > MOST:
            raise Unknown
        return known or self.tables.add(expression, self.tables.random(*shape))

    # -- products --------------------------------------------------------------

    def product(self, rows: Any, matrix: Any) -> torch.Tensor:
        """Rows [b, m, k] times the matrices [b, k, n] of experts."""
        if isinstance(rows, Moved):
            if isinstance(matrix, Moved):
                raise Unknown
            flipped = self.product(matrix.transpose(-1, -2), rows.map(lambda p: p.mT))
            return flipped.transpose(-1, -2)
        if not isinstance(matrix, Moved):
            return torch.matmul(rows, matrix)
        if not rows.is_floating_point() or len(matrix.places) != 4 or (
                rows.numel() // rows.shape[-1] * matrix.places[0].shape[-1] > MOST):
            raise Unknown
        inner = rows.shape[-1]
        number, expert, row, column = (_line(p) for p in matrix.places)
        transposed = row.shape[-2] == 1 and column.shape[-2] != 1
        along, across = (column, row) if transposed else (row, column)
        order = torch.arange(inner, dtype=along.dtype)[:, None]
        if any(p.shape[-2] != 1 for p in (number, expert, across)) or not bool(
                (along == order).all()):
            raise Unknown
        number, expert, across = (p[..., 0, :].long() for p in (number, expert, across))
        places = self.tables.locate(rows)
        out = self.tables.random(*rows.shape[:-1], number.shape[-1])
        out[(rows == 0).all(-1)] = 0
        if places is None:
            return out
        of = places.family
        whole = places.known.all(-1)
        for place, step in ((places.expert, 0), (places.token, 0), (places.column, 1)):
            whole &= (place == place[..., :1] + step * torch.arange(inner)).all(-1)
        if not bool(whole.any()):
            return out
        first = places.column[..., 0]
        begin = int(first[whole].min())
        whole &= first == begin
        if inner < of.columns:
            of = self.tables.add(Expression("columns", (of.expression, begin, inner)),
                                 of.table[:, :, begin:begin + inner])
        own, token = places.expert[..., 0, None], places.token[..., 0, None]
        for each in number.unique().tolist():
            parameter = self.matrices[each]
            columns = parameter.shape[0 if transposed else -1] if len(parameter.shape) > 1 else 1
            if (parameter.shape[-1 if transposed else 0] if len(parameter.shape) > 1
                    else parameter.shape[0]) != inner:
                continue
            experts = max(parameter.experts, of.table.shape[0])
            family = self._new(Expression("matmul", (of.expression, each, transposed)),
                               (experts, of.table.shape[1], columns))
            theirs, at = (p[..., None, :] for p in (expert, across))
            fits = whole[..., None] & (number[..., None, :] == each)
            if of.by_expert and parameter.experts > 1:
                fits = fits & (own == theirs)
            e = own if parameter.experts == 1 else theirs
            e, t, c, fits = torch.broadcast_tensors(e, token, at, fits)
            out = torch.where(fits, family.table[e, t, c.clamp(max=columns - 1)], out)
        return out

    def linear(self, rows: Any, matrix: Any, bias: Any = None) -> torch.Tensor:
        y = self.product(rows, matrix.map(lambda p: p.mT) if isinstance(matrix, Moved)
                         else matrix.mT)
        return y if bias is None else self.add(y, bias)

    def addmm(self, bias: Any, rows: Any, matrix: Any, beta: float = 1, alpha: float = 1) -> (
            torch.Tensor):
        if (beta, alpha) != (1, 1):
            raise Unknown
        return self.add(self.product(rows, matrix), bias)

    def add(self, y: torch.Tensor, bias: Any) -> torch.Tensor:
        bias = _numbers(bias)
        result = y + bias
        self._learn(aten.add.Tensor, aten.add, (y, bias), {}, result)
        return result

    def grouped(self, rows: Any, matrix: Any, ends: Any = None, bias: Any = None,
                out_dtype: Any = None) -> torch.Tensor:
        if ends is None or not isinstance(matrix, Moved) or rows.ndim != 2 or bias is not None:
            raise Unknown
        parts, begin = [], 0
        for group, end in enumerate(ends.tolist()):
            parts.append(self.product(rows[begin:end], matrix.map(lambda p, g=group: p[g])))
            begin = end
        parts.append(self.tables.random(len(rows) - begin, parts[0].shape[-1]))
        return torch.cat(parts)


_PRODUCTS: dict[Any, Callable[..., Any]] = {
    aten.mm: Interpreter.product, aten.bmm: Interpreter.product, aten.matmul: Interpreter.product,
    aten.linear: Interpreter.linear, aten.addmm: Interpreter.addmm,
    aten.baddbmm: Interpreter.addmm, aten._grouped_mm: Interpreter.grouped}


def _line(places: torch.Tensor) -> torch.Tensor:
    """Return places [..., k, n] with one row if all are the same, without what is repeated."""
    kept = places
    for dim in range(places.ndim):
        if places.stride(dim) == 0:
            kept = kept.narrow(dim, 0, 1)
    if bool((kept == kept[..., :1, :]).all()):
        return places[..., :1, :]
    return kept


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [part for each in value for part in _flat(each)]
    return [value]


def _numbers(value: Any) -> Any:
    if isinstance(value, Moved):
        if value.numbers is None:
            raise Unknown
        return value.numbers
    return value


def _run(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on numbers of 64 bits, whichever it is told to make."""
    dtype = kwargs.get("dtype")
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        kwargs = kwargs | {"dtype": torch.float64}
    result = _target(target)(*args, **kwargs)
    if isinstance(result, torch.Tensor) and result.is_floating_point():
        return result.to(torch.float64)
    return result


def _target(target: Any) -> Any:
    """Copies are left out, so that what was one may not be viewed."""
    return aten.reshape.default if target in (aten.view.default,
                                              aten._unsafe_view.default) else target


def _move(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Move the places of parameters, and their numbers."""
    first = args[0]
    if target in (aten.index.Tensor, aten.index_select.default) and isinstance(first, Moved):
        along = args[1] == 0 if target is aten.index_select.default else len(args[1]) == 1
        if along and first.places[0].ndim > 1:
            return first.map(lambda p: _taken(p, target, args[1:]))

    def each(pick: Callable[[Moved], torch.Tensor]) -> Any:
        def of(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(of(v) for v in value)
            return pick(value) if isinstance(value, Moved) else value

        return _target(target)(*of(args), **kwargs)

    places = [each(lambda m, i=i: m.places[i]) for i in range(4)]
    has_numbers = all(m.numbers is not None for m in _flat(args) if isinstance(m, Moved))
    numbers = each(lambda m: m.numbers) if has_numbers else None
    if isinstance(places[0], (list, tuple)):
        return [Moved(tuple(p[i] for p in places), numbers and numbers[i])
                for i in range(len(places[0]))]
    if places[0].numel() > MOST and 0 not in places[0].stride():
        raise Unknown
    return Moved(tuple(places), numbers)


def _taken(places: torch.Tensor, target: Any, args: tuple[Any, ...]) -> torch.Tensor:
    """Index the first dimension of places; what is repeated along others stays so."""
    few = places
    for dim in range(1, places.ndim):
        if places.stride(dim) == 0 and places.shape[dim]:
            few = few.narrow(dim, 0, 1)
    taken = target(few, *args)
    if taken.numel() > MOST:
        raise Unknown
    return taken.expand(*taken.shape[:taken.ndim - places.ndim + 1], *places.shape[1:])
