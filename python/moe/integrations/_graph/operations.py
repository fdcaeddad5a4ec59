"""What each operation of ATen becomes; ``translate`` runs over a graph.

A rule gets the function, the traced result and the arguments of the operation. Whatever
is elementwise comes from ``scalars``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sympy
import torch

from .function import (INTEGERS, Extent, Function, IntegerBody, Tensor, expression_of, extents_of,
                     type_of)
from .integers import INTEGER_RULES
from .masks import coordinates, marked
from .normalizations import NORMALIZATIONS
from .scalars import DTYPES, RULES, Scalar

aten, prims = torch.ops.aten, torch.ops.prims

Rule = Callable[..., Any]


def translate(function: Function, graph: torch.fx.Graph, known: dict[torch.fx.Node, Any],
              leaves: Mapping[Any, Rule]) -> Any:
    """Write the operations of a graph whose placeholders are ``known``; returns its results.

    ``leaves`` are rules of further operations.
    """
    for node in graph.nodes:
        if node.op == "call_function":
            known[node] = _call(function, node, known, leaves)
        elif node.op == "output":
            return torch.fx.map_arg(node.args[0], known.__getitem__)
        elif node.op != "placeholder":
            raise function.error(f"has a node '{node.op}', expected a graph of torch.export")
    raise function.error("returns nothing")


def _call(f: Function, node: torch.fx.Node, known: Mapping[torch.fx.Node, Any],
          leaves: Mapping[Any, Rule]) -> Any:
    value = node.meta.get("val")
    if isinstance(value, (int, float, bool, torch.SymInt, torch.SymFloat)):
        return expression_of(value) if not isinstance(value, (float, bool)) else value
    if isinstance(value, torch.SymBool):
        return None  # of an assertion about sizes
    if node.target is operator.getitem:
        return known[node.args[0]][node.args[1]]
    arguments = torch.fx.map_arg(node.args, known.__getitem__)
    options = dict(torch.fx.map_arg(node.kwargs, known.__getitem__))
    if (leaf := leaves.get(getattr(node.target, "overloadpacket", None))) is not None:
        return leaf(f, value, *arguments, **options)
    return call(f, node.target, value, arguments, options)


def call(f: Function, target: Any, value: Any, arguments: Sequence[Any],
         options: Mapping[str, Any]) -> Any:
    """Write one operation; ``value`` has the shapes and types of its results."""
    packet = getattr(target, "overloadpacket", target)
    if packet in OPERATIONS:
        return OPERATIONS[packet](f, value, *arguments, **options)
    if packet in RULES or packet in INTEGER_RULES:
        return _elementwise(f, target, value, arguments, options)
    if value is None:  # an assertion
        return None
    raise f.error(f"uses {target}, which has no translation to MLIR")


def element_of(f: Function, value: torch.Tensor) -> str:
    found = DTYPES.get(value.dtype) or INTEGERS.get(value.dtype)
    if found is None:
        raise f.error(f"computes in {value.dtype}, expected f32, bf16, f16 or integers")
    return found


# -- elementwise --------------------------------------------------------------


def _elementwise(f: Function, target: Any, value: torch.Tensor, arguments: Sequence[Any],
                 options: Mapping[str, Any]) -> Tensor:
    packet, element, shape = target.overloadpacket, element_of(f, value), extents_of(value)
    known = _evaluate(target, arguments, options)
    if known is not None:
        return f.filled(shape, element, known)
    if packet is aten.where and getattr(arguments[0], "constant", None) is not None:
        chosen = arguments[1 if arguments[0].constant else 2]
        if isinstance(chosen, Tensor):
            return f.convert(_expand(f, value, chosen), element)
    arguments = [f.number(a) if isinstance(a, sympy.Expr) else a for a in arguments]
    # A known value is a constant of the body.
    arguments = [a.constant if isinstance(a, Tensor) and a.constant is not None
                 and a.element != "i1" else a for a in arguments]
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    scalars = [a for a in arguments
               if isinstance(a, float) or (isinstance(a, Scalar) and a.element == "f64")]
    integral = (element in INTEGERS.values() and not scalars
                and not any(t.element in DTYPES.values() for t in tensors))
    if integral and packet not in INTEGER_RULES and packet not in (aten.where, aten._to_copy):
        integral = False
    rule = INTEGER_RULES[packet] if integral and packet in INTEGER_RULES else RULES.get(packet)
    if rule is None:
        raise f.error(f"applies {packet} to floats, which has no translation to MLIR")

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        left = iter(values)
        mixed = [next(left) if isinstance(a, Tensor) else a for a in arguments]
        if packet is aten.where and integral:
            mask, *rest = mixed
            rest = [body.cast(r, element) if isinstance(r, Scalar) else
                    body.let(element, f"arith.constant {int(r)} : {element}") for r in rest]
            return body.let(element, f"arith.select {mask.name}, {rest[0].name}, {rest[1].name} : "
                                     f"{element}")
        return rule(body, *mixed, **{k: v for k, v in options.items() if k not in _TYPES})

    result = f.elementwise(tensors, shape, element, write)
    return replace(result, marked=marked(f, packet, shape, arguments))


def _evaluate(target: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """Return the value of all elements if those of all operands are known."""
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    if not tensors or any(t.constant is None for t in tensors):
        return None
    names = {**{v: k for k, v in DTYPES.items()}, **{v: k for k, v in INTEGERS.items()}}
    scalars = [torch.tensor(a.constant, dtype=names[a.element]) if isinstance(a, Tensor) else a
               for a in arguments]
    return target(*scalars, **options).item()


# Options that the result shows.
_TYPES = ("dtype", "layout", "device", "pin_memory", "non_blocking", "memory_format")


# -- views --------------------------------------------------------------------


def _reshape(f: Function, value: torch.Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return f.reshape(x, extents_of(value))


def _expand(f: Function, value: torch.Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
    shape = extents_of(value)
    if tuple(e for e in shape if e != 1) == x.extents:
        return f.reshape(x, shape)
    if x.constant is not None:
        return f.filled(shape, x.element, x.constant)
    return f.elementwise([x], shape, x.element, lambda _, v: v[0])


def _repeat(f: Function, value: torch.Tensor, x: Tensor, repeats: Sequence[Extent]) -> Tensor:
    """Copies along new or single dimensions; others would interleave."""
    shape = (1,) * (len(repeats) - len(x.shape)) + x.shape
    split, whole = [], []
    for extent, count in zip(shape, repeats):
        split += [1, extent]
        whole += [count, extent]
    copies = f.elementwise([f.reshape(x, split)], whole, x.element, lambda _, v: v[0])
    return f.reshape(copies, extents_of(value))


def _permute(f: Function, _: Any, x: Tensor, order: Sequence[int]) -> Tensor:
    return f.permute(x, [i % len(x.shape) for i in order])


def _transpose(f: Function, _: Any, x: Tensor, first: int = 0, second: int = 1) -> Tensor:
    order = list(range(len(x.shape)))
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return f.permute(x, order)


def _slice(f: Function, value: torch.Tensor, x: Tensor, dim: int = 0, start: Any = None,
           end: Any = None, step: int = 1) -> Tensor:
    dim %= len(x.shape)
    count, extent = extents_of(value)[dim], x.shape[dim]
    if count == extent:
        return x
    if not isinstance(extent, int) and not (isinstance(start, int) and start >= 0):
        raise f.error("slices a dimension of tokens from its end, which has no translation to MLIR")
    start = slice(start, None, step).indices(extent)[0] if isinstance(extent, int) else start
    return f.slice(x, dim, start, count, step)


def _select(f: Function, value: torch.Tensor, x: Tensor, dim: int, index: int) -> Tensor:
    dim %= len(x.shape)
    if not isinstance(x.shape[dim], int):
        raise f.error("selects a token, which has no translation to MLIR")
    return f.reshape(f.slice(x, dim, index % x.shape[dim], 1), extents_of(value))


def _split(f: Function, value: Sequence[torch.Tensor], x: Tensor, _: Any, dim: int = 0) -> list[
        Tensor]:
    parts, start = [], 0
    for part in value:
        count = extents_of(part)[dim]
        parts.append(f.slice(x, dim % len(x.shape), start, count))
        start += count
    return parts


def _flip(f: Function, value: torch.Tensor, x: Tensor, dims: Sequence[int]) -> Tensor:
    flipped = {d % len(x.shape) for d in dims}
    if not all(isinstance(x.shape[d], int) for d in flipped):
        raise f.error("reverses the tokens, which has no translation to MLIR")

    def write(body: IntegerBody, _: list[Scalar]) -> Scalar:
        at, loop = [], 0
        for d, extent in enumerate(x.shape):
            if extent == 1:
                continue
            index = body.let("index", f"linalg.index {loop} : index")
            if d in flipped:
                last = body.let("index", f"arith.constant {extent - 1} : index")
                index = body.let("index", f"arith.subi {last.name}, {index.name} : index")
            at.append(index.name)
            loop += 1
        return body.let(x.element, f"tensor.extract {x.name}[{', '.join(at)}] : {x.type}")

    return f.elementwise([], x.shape, x.element, write)


def _cat(f: Function, value: torch.Tensor, parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    shape = extents_of(value)
    dim %= len(shape)
    parts = [f.convert(part, element_of(f, value)) for part in parts]
    result = Tensor(f.empty([e for e in shape if e != 1], parts[0].element), shape,
                    parts[0].element)
    start: Extent = 0
    for part in parts:
        offsets, sizes = [], []
        for position, extent in enumerate(shape):
            if extent == 1:
                continue
            at = part.shape[position]
            offset = start if position == dim else 0
            offsets.append(str(offset) if isinstance(offset, int) else f.index(offset))
            sizes.append(str(at) if isinstance(at, int) else f.index(at))
        name = f.let(f"tensor.insert_slice {part.name} into {result.name}[{', '.join(offsets)}] "
                     f"[{', '.join(sizes)}] [{', '.join('1' * len(sizes))}] : {part.type} into "
                     f"{result.type}")
        result = Tensor(name, shape, result.element)
        start = start + part.shape[dim]
    return result


# -- matmuls ------------------------------------------------------------------


def as_matrix(f: Function, x: Tensor) -> Tensor:
    rows: Extent = 1
    for extent in x.shape[:-1]:
        rows = rows * extent
    return f.reshape(x, (rows, x.shape[-1]))


def _linear(f: Function, value: torch.Tensor, x: Tensor, weight: Tensor,
            bias: Tensor | None = None) -> Tensor:
    matrix = as_matrix(f, x)
    element = x.element if bias is None else "f32"
    y = f.matmul(matrix, weight, (matrix.shape[0], weight.shape[0]), element, transposed=True)
    return f.reshape(_biased(f, y, bias, x.element), extents_of(value))


def _biased(f: Function, y: Tensor, bias: Tensor | None, element: str) -> Tensor:
    if bias is None:
        return y
    return f.elementwise([y, bias], y.shape, element, lambda b, v: b.op("arith.addf", *v))


def _mm(f: Function, value: torch.Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return f.matmul(x, weight, extents_of(value), element_of(f, value))


def _addmm(f: Function, value: torch.Tensor, bias: Tensor, x: Tensor, weight: Tensor,
           beta: float = 1, alpha: float = 1) -> Tensor:
    if (beta, alpha) != (1, 1):
        raise f.error("scales a matmul in aten.addmm, which has no translation to MLIR")
    return _biased(f, f.matmul(x, weight, extents_of(value), "f32"), bias, element_of(f, value))


def _bmm(f: Function, value: torch.Tensor, x: Tensor, weight: Tensor) -> Tensor:
    shape = extents_of(value)
    left, right = f.with_units(x, x.shape), f.with_units(weight, weight.shape)
    type_ = type_of(shape, "f32")
    init = f.fill(shape, "f32", 0.0)
    name = f.let(f"linalg.batch_matmul ins({left}, {right} : {type_of(x.shape, x.element)}, "
                 f"{type_of(weight.shape, weight.element)}) outs({init} : {type_}) -> {type_}")
    return f.convert(f.without_units(name, shape, "f32"), element_of(f, value))


# -- reductions ---------------------------------------------------------------

def _reduce(f: Function, value: torch.Tensor, x: Tensor, dims: Sequence[int], name: str,
            scale: float = 1.0) -> Tensor:
    """Reduce dimensions in f32, and round."""
    starts = {"arith.addf": 0.0, "arith.maximumf": float("-inf"), "arith.minimumf": float("inf")}
    dims = [d % len(x.shape) for d in dims] if dims else list(range(len(x.shape)))
    total = f.reshape(f.reduce(x, dims, name, starts[name]), extents_of(value))
    element = element_of(f, value)
    if scale != 1.0:
        return f.elementwise([total], total.shape, element,
                             lambda b, v: b.op("arith.mulf", v[0], scale))
    return f.convert(total, element)


def _sum(f: Function, value: torch.Tensor, x: Tensor, dims: Sequence[int] = (),
         keepdim: bool = False, **_: Any) -> Tensor:
    if (element := element_of(f, value)) not in DTYPES.values():
        dims = [d % len(x.shape) for d in dims] if dims else list(range(len(x.shape)))
        return f.reshape(f.reduce(f.convert(x, element), dims, "arith.addi", 0), extents_of(value))
    return _reduce(f, value, f.convert(x, "f32") if x.element in INTEGERS.values() else x, dims,
                   "arith.addf")


def _cumsum(f: Function, value: torch.Tensor, x: Tensor, dim: int, **_: Any) -> Tensor:
    element = element_of(f, value)
    sums = f.scan(f.convert(x, "f32" if element in DTYPES.values() else element),
                  dim % len(x.shape))
    return f.convert(sums, element)


def _mean(f: Function, value: torch.Tensor, x: Tensor, dims: Sequence[int] = (),
          keepdim: bool = False, **_: Any) -> Tensor:
    count: Extent = 1
    for dim in dims or range(len(x.shape)):
        count = count * x.shape[dim]
    if isinstance(count, int):
        return _reduce(f, value, x, dims, "arith.addf", 1.0 / count)
    tokens = f.number(count)
    total = f.reduce(x, [d % len(x.shape) for d in dims or range(len(x.shape))], "arith.addf", 0.0)
    total = f.elementwise([total], total.shape, element_of(f, value),
                          lambda b, v: b.op("arith.divf", v[0], b.cast(tokens, "f32")))
    return f.reshape(total, extents_of(value))


def _norm(f: Function, value: torch.Tensor, x: Tensor, p: float = 2.0, dims: Any = None,
          keepdim: bool = False, **_: Any) -> Tensor:
    """The p-norm: (Σ|x|^p)^(1/p)."""
    def power(b: IntegerBody, v: list[Scalar]) -> Scalar:
        size = b.op("math.absf", v[0])
        return size if p == 1 else RULES[aten.pow](b, size, p)

    def root(b: IntegerBody, v: list[Scalar]) -> Scalar:
        return b.op("math.sqrt", v[0]) if p == 2 else b.op("math.powf", v[0], 1 / p)

    if not 0 < p < float("inf"):
        raise f.error(f"takes the norm of order {p}, which has no translation to MLIR")
    powers = f.elementwise([x], x.shape, "f32", power)
    dims = [d % len(x.shape) for d in dims] if dims else list(range(len(x.shape)))
    total = f.reshape(f.reduce(powers, dims, "arith.addf", 0.0), extents_of(value))
    if p != 1:
        total = f.elementwise([total], total.shape, "f32", root)
    return f.convert(total, element_of(f, value))


def _softmax(f: Function, value: torch.Tensor, x: Tensor, dim: int, *_: Any, **__: Any) -> Tensor:
    dim %= len(x.shape)
    if x.shape[dim] == 1:
        return f.elementwise([x], x.shape, element_of(f, value), lambda b, v: b.constant(1.0))
    x32 = f.convert(x, "f32")
    at = sum(e != 1 for e in x.shape[:dim])
    empty = f.empty(x32.extents, "f32")
    name = f.let(f"linalg.softmax dimension({at}) ins({x32.name} : {x32.type}) "
                 f"outs({empty} : {x32.type}) -> {x32.type}")
    return f.convert(Tensor(name, x.shape, "f32"), element_of(f, value))


# -- selection ----------------------------------------------------------------


def _topk(f: Function, value: Sequence[torch.Tensor], x: Tensor, k: int, dim: int = -1,
          largest: bool = True, sorted: bool = True) -> list[Tensor]:
    if dim % len(x.shape) != len(x.shape) - 1 or not largest:
        raise f.error("takes the top-k along another dimension than the last, or the smallest, "
                      "which has no translation to MLIR")
    rows = as_matrix(f, x)
    type_ = f"tensor<?x{x.shape[-1]}x{x.element}>"
    matrix = f.with_units(rows, rows.shape)
    if isinstance(rows.shape[0], int):
        raise f.error("takes the top-k of something that is not one for each token")
    kind = "" if x.element == "f32" else f" score_type({x.element})"
    weights, ids = f.let_all(2, f"moe.gate {matrix} top_k({k}) score(none){kind} : {type_}")
    shape = (rows.shape[0], k)
    values = f.without_units(weights, shape, x.element)
    narrow = f.without_units(ids, shape, "i32")
    wide = f.convert(narrow, "i64")
    result = extents_of(value[0])
    wide = f.reshape(wide, result)
    return [f.reshape(values, result),
            Tensor(wide.name, wide.shape, "i64", narrow.name if len(result) <= 3 else None)]


def _max(f: Function, value: Any, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        return _reduce(f, value, x, (), "arith.maximumf")
    best = value[1] if keepdim else value[1].unsqueeze(dim)
    values, ids = _topk(f, [best, best], x, 1, dim)
    # Of scores one gate makes both; of groups the best score is a step of a gate.
    if len(x.extents) > 2:
        values = _reduce(f, value[0], x, (dim,), "arith.maximumf")
    return [f.reshape(values, extents_of(value[0])), f.reshape(ids, extents_of(value[1]))]


def _argmax(f: Function, value: torch.Tensor, x: Tensor, dim: int | None = None,
            keepdim: bool = False) -> Tensor:
    if dim is None:
        raise f.error("takes the index of the largest of all elements, which has no translation "
                      "to MLIR")
    best = value if keepdim else value.unsqueeze(dim)
    _, ids = _topk(f, [best, best], x, 1, dim)
    return f.reshape(ids, extents_of(value))


def _gather(f: Function, value: torch.Tensor, x: Tensor, dim: int, index: Tensor,
            **_: Any) -> Tensor:
    dim %= len(x.shape)

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        at = coordinates(f, x.shape, body, dim, values[0], index.shape)
        return body.let(x.element, f"tensor.extract {x.name}[{at}] : {x.type}")

    return f.elementwise([index], index.shape, x.element, write)


def _scatter(f: Function, value: torch.Tensor, x: Tensor, dim: int, index: Tensor, source: Any,
             reduce: str | None = None) -> Tensor:
    """The last source of a place wins; a loop over the sources reduces."""
    if reduce is not None:
        raise f.error(f"scatters with reduce='{reduce}', which has no translation to MLIR")
    dim %= len(x.shape)
    if x.shape[dim] == 1 and not isinstance(source, Tensor):
        return f.filled(x.shape, x.element, source)
    loops = [d for d, e in enumerate(x.shape) if e != 1]
    others = [d for d in range(len(x.shape)) if d != dim]
    if x.shape[dim] == 1 or any(x.shape[d] != index.shape[d] for d in others):
        raise f.error("scatters to a part of a tensor, which has no translation to MLIR")
    reduces = index.shape[dim] != 1
    map_ = ", ".join(f"d{len(loops)}" if d == dim else f"d{loops.index(d)}"
                     for d, e in enumerate(index.shape) if e != 1)
    inputs = [(index, map_)]
    if isinstance(source, Tensor):
        inputs.append((source, map_))

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        place = body.let("index", f"linalg.index {loops.index(dim)} : index")
        id_ = body.let("index", f"arith.index_cast {values[0].name} : {index.element} to index")
        here = body.let("i1", f"arith.cmpi eq, {place.name}, {id_.name} : index")
        new = values[1] if isinstance(source, Tensor) else body.cast(
            body.constant(source), x.element)
        return body.let(x.element, f"arith.select {here.name}, {new.name}, {values[-1].name} : "
                                   f"{x.element}")

    name = f.generic(inputs, x.extents, x.element, write, loops=len(loops) + reduces, init=x.name)
    return Tensor(name, x.shape, x.element)


def _rows_of(f: Function, value: torch.Tensor, table: Tensor, index: Tensor,
             wraps: bool) -> Tensor:
    """Rows of a table, or elements of a vector; indices below 0 may count from the end."""
    shape, rank = extents_of(value), len(table.shape)
    if not isinstance(table.shape[0], int):
        raise f.error("indexes tokens, which has no translation to MLIR")
    inner = [e for e in table.shape[1:] if e != 1]

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        row = body.let("index", f"arith.index_cast {values[0].name} : {index.element} to index")
        if wraps:
            zero = body.let("index", "arith.constant 0 : index")
            count = body.let("index", f"arith.constant {table.shape[0]} : index")
            below = body.let("i1", f"arith.cmpi slt, {row.name}, {zero.name} : index")
            other = body.let("index", f"arith.addi {row.name}, {count.name} : index")
            row = body.let("index", f"arith.select {below.name}, {other.name}, {row.name} : index")
        at = [row.name] if table.shape[0] != 1 else []
        first = sum(e != 1 for e in shape) - len(inner)
        at += [body.let("index", f"linalg.index {first + i} : index").name
               for i in range(len(inner))]
        return body.let(table.element,
                        f"tensor.extract {table.name}[{', '.join(at)}] : {table.type}")

    aligned = Tensor(index.name, index.shape + (1,) * (rank - 1), index.element)
    return f.elementwise([aligned], shape, table.element, write)


def _embedding(f: Function, value: torch.Tensor, table: Tensor, index: Tensor, *_: Any,
               **__: Any) -> Tensor:
    return _rows_of(f, value, table, index, wraps=False)


def _index_select(f: Function, value: torch.Tensor, x: Tensor, dim: int, index: Tensor) -> Tensor:
    if dim % len(x.shape) != 0:
        raise f.error("selects by indices along another dimension than the first, which has no "
                      "translation to MLIR")
    return _rows_of(f, value, x, index, wraps=False)


def _index(f: Function, value: torch.Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    if None in indices or any(i.element == "i1" for i in indices):
        raise f.error("indexes by a mask, or not the first dimensions, which has no translation "
                      "to MLIR")
    if len(indices) != 1:
        return _points_of(f, value, x, indices)
    return _rows_of(f, value, x, indices[0], wraps=True)


def _points_of(f: Function, value: torch.Tensor, x: Tensor, indices: Sequence[Tensor]) -> Tensor:
    """Elements, or rows, at several indices; below 0 they count from the end."""
    shape, inner = extents_of(value), x.shape[len(indices):]
    first = sum(e != 1 for e in shape) - sum(e != 1 for e in inner)
    sizes = {e: f.index(e) for e in x.shape[:len(indices)]}

    def write(body: IntegerBody, values: list[Scalar]) -> Scalar:
        at = []
        zero = body.let("index", "arith.constant 0 : index")
        for extent, scalar in zip(x.shape, values):
            if extent == 1:
                continue
            here = body.let("index", f"arith.index_cast {scalar.name} : {scalar.element} to index")
            below = body.let("i1", f"arith.cmpi slt, {here.name}, {zero.name} : index")
            other = body.let("index", f"arith.addi {here.name}, {sizes[extent]} : index")
            at.append(body.let("index", f"arith.select {below.name}, {other.name}, {here.name} : "
                                        "index").name)
        at += [body.let("index", f"linalg.index {first + i} : index").name
               for i in range(sum(e != 1 for e in inner))]
        return body.let(x.element, f"tensor.extract {x.name}[{', '.join(at)}] : {x.type}")

    aligned = [Tensor(i.name, i.shape + (1,) * len(inner), i.element) for i in indices]
    return f.elementwise(aligned, shape, x.element, write)


# -- new tensors --------------------------------------------------------------


def _full(position: int | None, constant: float = 0.0) -> Rule:
    def rule(f: Function, value: torch.Tensor, *arguments: Any, **_: Any) -> Tensor:
        shape, element = extents_of(value), element_of(f, value)
        return f.filled(shape, element, constant if position is None else arguments[position])
    return rule


def _arange(f: Function, value: torch.Tensor, *arguments: Any, **_: Any) -> Tensor:
    shape, element = extents_of(value), element_of(f, value)
    start, step = 0, 1
    if len(arguments) > 1:
        start = arguments[0]
    if len(arguments) > 2:
        step = arguments[2]
    if not isinstance(start, int) or not isinstance(step, int):
        raise f.error("makes a range with steps that are no integers")

    def write(body: IntegerBody, _: list[Scalar]) -> Scalar:
        at = body.let("index", "linalg.index 0 : index")
        x = body.let("i64", f"arith.index_cast {at.name} : index to i64")
        for name, by in (("muli", step), ("addi", start)):
            factor = body.let("i64", f"arith.constant {by} : i64")
            x = body.let("i64", f"arith.{name} {x.name}, {factor.name} : i64")
        return x

    range_ = f.elementwise([], shape, element, write)
    return replace(range_, is_range=(start, step) == (0, 1))


def _same(f: Function, value: Any, x: Any, *_: Any, **__: Any) -> Any:
    return x


OPERATIONS: dict[Any, Rule] = {
    aten.view: _reshape, aten._unsafe_view: _reshape, aten.reshape: _reshape,
    aten.unsqueeze: _reshape, aten.squeeze: _reshape, aten.flatten: _reshape,
    aten.alias: _same, aten.clone: _same, aten.detach: _same, aten.contiguous: _same,
    aten.lift_fresh_copy: _same, aten.dropout: _same,
    aten.expand: _expand, aten.repeat: _repeat,
    aten.permute: _permute, aten.transpose: _transpose, aten.t: _transpose,
    aten.slice: _slice, aten.select: _select, aten.split: _split, aten.split_with_sizes: _split,
    aten.cat: _cat, aten.flip: _flip,
    aten.linear: _linear, aten.mm: _mm, aten.addmm: _addmm, aten.bmm: _bmm,
    aten.sum: _sum, aten.mean: _mean, aten._softmax: _softmax, aten.softmax: _softmax,
    aten.amax: lambda f, value, x, dims=(), keepdim=False: _reduce(f, value, x, dims,
                                                                   "arith.maximumf"),
    aten.amin: lambda f, value, x, dims=(), keepdim=False: _reduce(f, value, x, dims,
                                                                   "arith.minimumf"),
    aten.linalg_vector_norm: _norm, **NORMALIZATIONS,
    aten.topk: _topk, aten.max: _max, aten.argmax: _argmax, aten.cumsum: _cumsum,
    aten.gather: _gather, aten.scatter: _scatter,
    aten.index_select: _index_select,
    aten.embedding: _embedding, aten.index: _index,
    aten.full: _full(1), aten.full_like: _full(1), aten.scalar_tensor: _full(0),
    aten.zeros: _full(None), aten.zeros_like: _full(None), aten.new_zeros: _full(None),
    aten.ones: _full(None, 1.0), aten.ones_like: _full(None, 1.0),
    aten.empty: _full(None), aten.empty_like: _full(None), aten.arange: _arange,
}
