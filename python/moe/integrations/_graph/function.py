"""Writes a graph of ``torch.export`` as a function of linalg, tensor and moe operations.

An extent of 1 is dropped from every tensor, so that views which only move such extents
are no operation, and a broadcast is a projection: ``[1, T, H]``, ``[T, 1, H]`` and
``[T, H]`` are one tensor. Each ATen operation becomes the operation of linalg that says
the same (``operations`` has the table); passes of the compiler recognise gates in them.
``moe.ir`` is not used: its tensors know that an extent is dynamic, not which product of the
number of tokens it is, which decides here what a view is and what broadcasts; and programs are
written with the gate that passes have yet to find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sympy
import torch

from ..._error import UNIMPLEMENTED, MoEError
from .scalars import DTYPES, Body, Scalar, float_text

Extent = int | sympy.Expr

INTEGERS = {torch.int64: "i64", torch.int32: "i32", torch.bool: "i1"}


def extents_of(value: torch.Tensor) -> tuple[Extent, ...]:
    """Return the shape of a traced tensor; an extent that is not fixed is an expression."""
    return tuple(expression_of(size) for size in value.shape)


def expression_of(size: int | torch.SymInt | torch.SymFloat) -> Extent:
    if isinstance(size, (int, sympy.Expr)):
        return int(size) if isinstance(size, sympy.Integer) else size
    expression = size.node.expr
    if not expression.is_number:
        return expression
    return int(expression) if isinstance(size, torch.SymInt) else float(expression)


def argument(node: torch.fx.Node, name: str, default: Any) -> Any:
    """Return an argument of an operation by its name in the schema."""
    if name in node.kwargs:
        return node.kwargs[name]
    for position, argument in enumerate(node.target._schema.arguments):
        if argument.name == name:
            return node.args[position] if position < len(node.args) else default
    return default


@dataclass(frozen=True)
class Tensor:
    """A value of the function. ``shape`` is that in torch, with extents of 1."""

    name: str
    shape: tuple[Extent, ...]
    element: str
    narrow: str | None = None  # of ids in i64: the tensor of i32 that they come from
    constant: float | int | bool | None = None  # the value of all elements, if it is known
    transposed: Tensor | None = None  # the matrix that this one is the transpose of
    is_range: bool = False  # 0, 1, 2, ... along the last dimension
    # Of a mask [..., E] that marks one index of the last dimension at most: that index, in i64
    # [..., 1]; another number where none is marked.
    marked: Tensor | None = None

    @property
    def extents(self) -> tuple[Extent, ...]:
        """Return the shape in MLIR."""
        return tuple(e for e in self.shape if e != 1)

    @property
    def type(self) -> str:
        return type_of(self.extents, self.element)


def type_of(extents: Sequence[Extent], element: str) -> str:
    return f"tensor<{''.join(f'{e}x' if isinstance(e, int) else '?x' for e in extents)}{element}>"


class IntegerBody(Body):
    """A body in which operands of float operations may be integers or truth values."""

    def operand(self, value: Any) -> str:
        return super().operand(self.cast(value, "f32") if isinstance(value, Scalar) else value)

    def cast(self, value: Scalar, element: str) -> Scalar:
        """Convert between any two types, as torch does."""
        old, name = value.element, value.name
        if old == element:
            return value
        floats = DTYPES.values()
        if old == "f64":
            return self.cast(self.let("f32", f"arith.truncf {name} : f64 to f32"), element)
        if old in floats and element in floats:
            return self.convert(value, element)
        if element == "i1":
            zero = self.let(old, f"arith.constant {'0.0' if old in floats else 0} : {old}").name
            compare = "cmpf une" if old in floats else "cmpi ne"
            return self.let("i1", f"arith.{compare}, {name}, {zero} : {old}")
        if old in floats:
            return self.let(element, f"arith.fptosi {name} : {old} to {element}")
        if element in floats:
            convert = "uitofp" if old == "i1" else "sitofp"
            return self.let(element, f"arith.{convert} {name} : {old} to {element}")
        convert = "extui" if old == "i1" else "extsi" if int(element[1:]) > int(old[1:]) else (
            "trunci")
        return self.let(element, f"arith.{convert} {name} : {old} to {element}")


class Function:
    """The text of a function, operation by operation; ``what`` names its source."""

    def __init__(self, what: str):
        self.what = what
        self.lines: list[str] = []
        self.arguments: list[str] = []
        self.names = 0
        self.indices: dict[Extent, str] = {}
        self.numbers: dict[sympy.Expr, Scalar] = {}  # of extents
        # What a value without extents of 1 comes from, with its shape.
        self.whole: dict[str, tuple[str, tuple[Extent, ...]]] = {}

    def error(self, why: str) -> MoEError:
        return MoEError(UNIMPLEMENTED, f"{self.what} {why}")

    def text(self, result: Tensor) -> str:
        return (f"func.func @layer(\n    {(',' + chr(10) + '    ').join(self.arguments)})\n"
                f"    -> {result.type} {{\n"
                + "".join(f"  {line}\n" for line in self.lines)
                + f"  return {result.name} : {result.type}\n}}\n")

    # -- values ---------------------------------------------------------------

    def argument(self, name: str, role: str, shape: Sequence[Extent], element: str) -> str:
        """Add an argument, which keeps its extents of 1; returns its name."""
        value = f"%p{len(self.arguments)}"
        self.arguments.append(f'{value}: {type_of(shape, element)} '
                              f'{{moe.role = "{role}", moe.name = "{name}"}}')
        return value

    def line(self, text: str) -> None:
        self.lines += text.split("\n")

    def let(self, text: str) -> str:
        """Write an operation with one result; returns its name."""
        return self.let_all(1, text)[0]

    def let_all(self, count: int, text: str) -> list[str]:
        """Write an operation with several results; returns their names."""
        names = [f"%t{self.names + n}" for n in range(count)]
        self.names += count
        self.line(f"{', '.join(names)} = {text}")
        return names

    def index(self, extent: Extent) -> str:
        """Return an extent as a value of index type."""
        if extent not in self.indices:
            if isinstance(extent, int):
                text = f"arith.constant {extent} : index"
            elif isinstance(extent, (sympy.Mul, sympy.Add)):
                first, *rest = [self.index(e if not e.is_number else int(e)) for e in extent.args]
                name = "muli" if isinstance(extent, sympy.Mul) else "addi"
                for other in rest:
                    first = self.let(f"arith.{name} {first}, {other} : index")
                self.indices[extent] = first
                return first
            elif extent.is_Symbol:
                raise self.error(f"has a tensor with {extent} rows, expected a number that follows "
                                 "from the number of tokens")
            else:
                text = f"arith.index_cast {self.number(extent).name} : i64 to index"
            self.indices[extent] = self.let(text)
        return self.indices[extent]

    def number(self, expression: sympy.Expr) -> Scalar:
        """Return an expression of extents as i64 or f64."""
        if expression not in self.numbers:
            self.numbers[expression] = self._number(expression)
        return self.numbers[expression]

    def _number(self, expression: sympy.Expr) -> Scalar:
        kind = type(expression).__name__
        if expression.is_number:
            value = (f"{int(expression)} : i64" if expression.is_integer else
                     f"{float(expression):.17e} : f64")
            return Scalar(self.let(f"arith.constant {value}"), value[-3:])
        if expression.is_Symbol:
            return Scalar(self.let(f"arith.index_cast {self.index(expression)} : index to i64"),
                          "i64")
        operands = [self.number(e) for e in expression.args]
        if kind in ("Mod", "PythonMod") and all(o.element == "i64" for o in operands):
            # What is left of a quotient that is rounded down, as in Python.
            one, other = (o.name for o in operands)
            whole = self.let(f"arith.floordivsi {one}, {other} : i64")
            whole = self.let(f"arith.muli {whole}, {other} : i64")
            return Scalar(self.let(f"arith.subi {one}, {whole} : i64"), "i64")
        if kind in ("CeilToInt", "FloorToInt", "TruncToInt") and operands[0].element == "f64":
            rounded = operands[0].name
            if kind != "TruncToInt":
                name = {"CeilToInt": "ceil", "FloorToInt": "floor"}[kind]
                rounded = self.let(f"math.{name} {rounded} : f64")
            return Scalar(self.let(f"arith.fptosi {rounded} : f64 to i64"), "i64")
        integers = all(o.element == "i64" for o in operands) and kind not in (
            "ToFloat", "IntTrueDiv", "FloatTrueDiv")
        names = {"Add": ("addi", "addf"), "Mul": ("muli", "mulf"), "Max": ("maxsi", "maximumf"),
                 "Min": ("minsi", "minimumf"), "FloorDiv": ("floordivsi", ""),
                 "CleanDiv": ("floordivsi", ""), "CeilDiv": ("ceildivsi", ""),
                 "IntTrueDiv": ("", "divf"),
                 "FloatTrueDiv": ("", "divf"), "ToFloat": ("", "")}
        if kind not in names or (len(operands) > 1 and not names[kind][0 if integers else 1]):
            raise self.error(f"computes '{expression}' of the number of tokens, which has no "
                             "translation to MLIR")
        if not integers:
            operands = [o if o.element == "f64" else Scalar(
                self.let(f"arith.sitofp {o.name} : i64 to f64"), "f64") for o in operands]
        total = operands[0]
        for other in operands[1:]:
            total = Scalar(self.let(f"arith.{names[kind][0 if integers else 1]} {total.name}, "
                                    f"{other.name} : {total.element}"), total.element)
        return total

    def empty(self, extents: Sequence[Extent], element: str) -> str:
        sizes = ", ".join(self.index(e) for e in extents if not isinstance(e, int))
        return self.let(f"tensor.empty({sizes}) : {type_of(extents, element)}")

    def fill(self, extents: Sequence[Extent], element: str, value: float | int | bool) -> str:
        """Return a tensor of one value."""
        value = self.constant(value, element)
        type_ = type_of(extents, element)
        empty = self.empty(extents, element)
        return self.let(f"linalg.fill ins({value} : {element}) outs({empty} : {type_}) -> {type_}")

    def filled(self, shape: Sequence[Extent], element: str, value: float | int | bool) -> Tensor:
        """Return a tensor of one value, which later operations may compute with."""
        types = {**DTYPES, **INTEGERS}
        dtype = next(d for d, name in types.items() if name == element)
        value = torch.tensor(value).to(dtype).item()
        name = self.fill([e for e in shape if e != 1], element, value)
        return Tensor(name, tuple(shape), element, constant=value)

    def constant(self, value: float | int, element: str) -> str:
        if element in DTYPES.values():
            name = self.let(f"arith.constant {float_text(value)} : f32")
            return name if element == "f32" else self.let(
                f"arith.truncf {name} : f32 to {element}")
        text = ("true" if value else "false") if element == "i1" else f"{int(value)} : {element}"
        return self.let(f"arith.constant {text}")

    # -- operations -----------------------------------------------------------

    def generic(self, inputs: Sequence[tuple[Tensor, str]], extents: Sequence[Extent],
                element: str, write: Callable[[IntegerBody, list[Scalar]], Scalar], *,
                loops: int | None = None, init: str | None = None) -> str:
        """Write a ``linalg.generic``. Inputs have the results of their maps, ``d0, d1``.

        Loops beyond those of the result reduce; they need ``init``, a tensor like the
        result, which the body gets as its last scalar.
        """
        rank = len(extents)
        loops = rank if loops is None else loops
        dims = ", ".join(f"d{i}" for i in range(loops))
        out = ", ".join(f"d{i}" for i in range(rank))
        maps = ", ".join(f"affine_map<({dims}) -> ({m})>" for m in [m for _, m in inputs] + [out])
        kinds = ", ".join('"parallel"' if i < rank else '"reduction"' for i in range(loops))
        body = IntegerBody(self.what)
        scalars = [Scalar(f"%in{i}", t.element) for i, (t, _) in enumerate(inputs)]
        value = write(body, scalars + ([Scalar("%old", element)] if init else []))
        value = body.cast(value, element)
        type_ = type_of(extents, element)
        init = init or self.empty(extents, element)
        ins = (f"ins({', '.join(t.name for t, _ in inputs)} : "
               f"{', '.join(t.type for t, _ in inputs)}) ") if inputs else ""
        arguments = ", ".join([f"{s.name}: {s.element}" for s in scalars] + [f"%old: {element}"])
        lines = "".join(f"  {line}\n" for line in body.lines)
        return self.let(f"linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}\n"
                        f"    {ins}outs({init} : {type_}) {{\n^bb0({arguments}):\n{lines}"
                        f"  linalg.yield {value.name} : {element}\n}} -> {type_}")

    def map_of(self, tensor: Tensor, shape: Sequence[Extent]) -> str:
        """Return the results of the map of a tensor that is broadcast to ``shape``."""
        loops = {}
        for position, extent in enumerate(shape):
            if extent != 1:
                loops[position - len(shape)] = len(loops)
        return ", ".join(f"d{loops[p - len(tensor.shape)]}"
                         for p, e in enumerate(tensor.shape) if e != 1)

    def elementwise(self, tensors: Sequence[Tensor], shape: Sequence[Extent], element: str,
                    write: Callable[[IntegerBody, list[Scalar]], Scalar]) -> Tensor:
        """Apply ``write`` to the elements of tensors that broadcast to ``shape``."""
        extents = [e for e in shape if e != 1]
        inputs = [(t, self.map_of(t, shape)) for t in tensors]
        return Tensor(self.generic(inputs, extents, element, write), tuple(shape), element)

    def convert(self, tensor: Tensor, element: str) -> Tensor:
        if tensor.element == element:
            return tensor
        result = self.elementwise([tensor], tensor.shape, element, lambda _, v: v[0])
        return replace(result, marked=tensor.marked)

    def reduce(self, tensor: Tensor, dims: Sequence[int], name: str, start: float) -> Tensor:
        """Reduce dimensions by an operation on f32, or on integers; they become 1."""
        element = tensor.element if name.endswith("i") else "f32"
        shape = tuple(1 if d in dims else e for d, e in enumerate(tensor.shape))
        kept = [e for e in shape if e != 1]
        result, reduced, map_ = 0, len(kept), []
        for position, extent in enumerate(tensor.shape):
            if extent == 1:
                continue
            if position in dims:
                map_.append(f"d{reduced}")
                reduced += 1
            else:
                map_.append(f"d{result}")
                result += 1
        def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
            if element == "f32":
                return body.op(name, values[1], values[0])
            return body.let(element, f"{name} {values[1].name}, {values[0].name} : {element}")

        init = self.fill(kept, element, start)
        total = self.generic([(tensor, ", ".join(map_))], kept, element, write, loops=reduced,
                             init=init)
        return Tensor(total, shape, element)

    def scan(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the sums up to each index along a dimension."""
        extents, at = tensor.extents, sum(e != 1 for e in tensor.shape[:dim])
        if tensor.shape[dim] == 1:
            return tensor
        one = [1 if i == at else e for i, e in enumerate(extents)]
        part, whole = type_of(one, tensor.element), tensor.type
        sizes = ", ".join(str(e) if isinstance(e, int) else self.index(e) for e in one)
        ones = ", ".join("1" * len(one))
        zero, step, count = self.index(0), self.index(1), self.index(extents[at])
        start = self.fill(one, tensor.element, 0)
        empty = self.empty(extents, tensor.element)
        name, i, sum_, out, row, next_, new = (f"%t{self.names + n}" for n in range(7))
        self.names += 7
        where = ", ".join(i if d == at else "0" for d in range(len(one)))
        self.line(
            f"{name}:2 = scf.for {i} = {zero} to {count} step {step}\n"
            f"    iter_args({sum_} = {start}, {out} = {empty}) -> ({part}, {whole}) {{\n"
            f"  {row} = tensor.extract_slice {tensor.name}[{where}] [{sizes}] [{ones}]\n"
            f"      : {whole} to {part}\n"
            f"  {next_} = linalg.add ins({sum_}, {row} : {part}, {part})\n"
            f"      outs({sum_} : {part}) -> {part}\n"
            f"  {new} = tensor.insert_slice {next_} into {out}[{where}] [{sizes}] [{ones}]\n"
            f"      : {part} into {whole}\n"
            f"  scf.yield {next_}, {new} : {part}, {whole}\n}}")
        return Tensor(f"{name}#1", tensor.shape, tensor.element)

    def reshape(self, tensor: Tensor, shape: Sequence[Extent]) -> Tensor:
        """Give a tensor another shape of as many elements."""
        old, new = list(tensor.extents), [e for e in shape if e != 1]
        name = tensor.name
        if old != new:
            groups = _common_groups(old, new)
            if groups is None:
                raise self.error(f"views {tuple(tensor.shape)} as {tuple(shape)}, expected extents "
                                 "that are split or merged")
            whole = [group[0] for group in groups]
            if len(whole) != len(old):
                name = self.let(f"tensor.collapse_shape {name} {_reassociation(groups, 1)} : "
                                f"{tensor.type} into {type_of(whole, tensor.element)}")
            if len(whole) != len(new):
                sizes = ", ".join(str(e) if isinstance(e, int) else self.index(e) for e in new)
                name = self.let(f"tensor.expand_shape {name} {_reassociation(groups, 2)} "
                                f"output_shape [{sizes}] : {type_of(whole, tensor.element)} into "
                                f"{type_of(new, tensor.element)}")
        narrow = tensor.narrow if name == tensor.name else None
        result = Tensor(name, tuple(shape), tensor.element, narrow, tensor.constant)
        if tensor.marked is not None and shape and tensor.shape[-1] == shape[-1] != 1:
            result = replace(result, marked=self.reshape(tensor.marked, (*shape[:-1], 1)))
        return replace(result, is_range=tensor.is_range and result.extents == tensor.extents)

    def permute(self, tensor: Tensor, order: Sequence[int]) -> Tensor:
        shape = tuple(tensor.shape[i] for i in order)
        kept = [i for i in range(len(tensor.shape)) if tensor.shape[i] != 1]
        moved = [kept.index(i) for i in order if i in kept]
        if moved == sorted(moved):
            return self.reshape(tensor, shape)
        result = Tensor("", shape, tensor.element)
        empty = self.empty(result.extents, result.element)
        name = self.let(f"linalg.transpose ins({tensor.name} : {tensor.type}) "
                        f"outs({empty} : {result.type}) permutation = {moved}")
        return Tensor(name, shape, tensor.element,
                      transposed=tensor if len(tensor.shape) == 2 else None)

    def slice(self, tensor: Tensor, dim: int, start: int, count: Extent, step: int = 1) -> Tensor:
        """Return ``count`` slices along a dimension, every ``step``-th from ``start`` on."""
        shape = list(tensor.shape)
        shape[dim] = count
        if tensor.shape[dim] == 1:
            return Tensor(tensor.name, tuple(shape), tensor.element)
        result = Tensor("", tuple(shape), tensor.element)
        offsets, sizes, strides = [], [], []
        for position, extent in enumerate(tensor.shape):
            if extent == 1:
                continue
            at = position == dim
            size = count if at else extent
            offsets.append(str(start if at else 0))
            sizes.append(str(size) if isinstance(size, int) else self.index(size))
            strides.append(str(step if at else 1))
        name = self.let(f"tensor.extract_slice {tensor.name}[{', '.join(offsets)}] "
                        f"[{', '.join(sizes)}] [{', '.join(strides)}] : {tensor.type} to "
                        f"{result.type}")
        return Tensor(name, result.shape, result.element)

    def matmul(self, lhs: Tensor, rhs: Tensor, shape: Sequence[Extent], element: str,
               transposed: bool = False) -> Tensor:
        """Multiply matrices; accumulates in f32 and rounds to ``element``."""
        rows, _ = shape
        if rhs.transposed is not None:
            rhs, transposed = rhs.transposed, not transposed
        whole = tuple(shape)
        # A matmul keeps extents of 1.
        left = self.with_units(lhs, (rows, lhs.shape[-1]))
        right = self.with_units(rhs, tuple(rhs.shape))
        type_ = type_of(whole, "f32")
        init = self.fill(whole, "f32", 0.0)
        maps = ("" if not transposed else
                "indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> "
                "(n, k)>, affine_map<(m, n, k) -> (m, n)>] ")
        name = self.let(f"linalg.matmul {maps}ins({left}, {right} : "
                        f"{type_of((rows, lhs.shape[-1]), lhs.element)}, "
                        f"{type_of(rhs.shape, rhs.element)}) outs({init} : {type_}) -> {type_}")
        return self.convert(self.without_units(name, whole, "f32"), element)

    def with_units(self, tensor: Tensor, shape: Sequence[Extent]) -> str:
        """Return a tensor with all of its extents, also those of 1."""
        if 1 not in shape:
            return tensor.name
        if tensor.name in self.whole and self.whole[tensor.name][1] == tuple(shape):
            return self.whole[tensor.name][0]
        groups = _unit_groups(shape)
        sizes = ", ".join(str(e) if isinstance(e, int) else self.index(e) for e in shape)
        return self.let(f"tensor.expand_shape {tensor.name} {groups} output_shape [{sizes}] : "
                        f"{tensor.type} into {type_of(shape, tensor.element)}")

    def without_units(self, name: str, shape: Sequence[Extent], element: str) -> Tensor:
        """Return a value that has extents of 1 without them."""
        result = Tensor(name, tuple(shape), element)
        if 1 not in shape:
            return result
        name = self.let(f"tensor.collapse_shape {name} {_unit_groups(shape)} : "
                        f"{type_of(shape, element)} into {result.type}")
        self.whole[name] = (result.name, result.shape)
        return Tensor(name, result.shape, element)


def _unit_groups(shape: Sequence[Extent]) -> str:
    """Return the reassociation that drops extents of 1."""
    groups: list[list[int]] = []
    leading: list[int] = []
    for position, extent in enumerate(shape):
        if extent != 1:
            groups.append(leading + [position])
            leading = []
        elif groups:
            groups[-1].append(position)
        else:
            leading.append(position)
    return str(groups)


def _common_groups(old: Sequence[Extent], new: Sequence[Extent]) -> (
        list[tuple[Extent, int, int]] | None):
    """Return the coarsest extents that both shapes split, each with the number of extents that
    it has in either."""
    groups, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        first, second = i, j
        left, right, i, j = sympy.sympify(old[i]), sympy.sympify(new[j]), i + 1, j + 1
        while left != right:
            if _is_smaller(right, left) and j < len(new):
                right, j = right * new[j], j + 1
            elif i < len(old):
                left, i = left * old[i], i + 1
            else:
                return None
        groups.append((int(left) if left.is_number else left, i - first, j - second))
    return groups if i == len(old) and j == len(new) else None


def _is_smaller(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Return true if the size ``b`` has factors that ``a`` lacks."""
    numerator, _ = sympy.fraction(sympy.cancel(b / a))
    return bool(numerator != 1)


def _reassociation(groups: Sequence[tuple[Extent, int, int]], which: int) -> str:
    result, next_ = [], 0
    for group in groups:
        result.append(list(range(next_, next_ + group[which])))
        next_ += group[which]
    return str(result)
