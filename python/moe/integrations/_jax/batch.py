"""Tokens of a batch as rows: ``[B, S, H]`` becomes ``[B * S, H]`` as far as operations allow it.

Blocks of models take ``[batch, sequence, hidden]``, and passes raise routers of ``[tokens,
hidden]``. So operations that treat the first two dimensions alike are repeated on values in which
these are one: ``flat`` has those. Whatever else needs a value gets it reshaped back.

If both extents are symbolic, the function takes and gives rows of tokens, and nothing may need the
batch or the sequence by itself.
"""

from __future__ import annotations

import math

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from ..._error import UNIMPLEMENTED, MoEError
from .extents import ELEMENTWISE, extent_of, ints, is_size, number_of

__all__ = ["flatten"]

BROADCASTS = "stablehlo.broadcast_in_dim", "stablehlo.dynamic_broadcast_in_dim"
RESHAPES = "stablehlo.reshape", "stablehlo.dynamic_reshape"
SLICES = "stablehlo.slice", "stablehlo.real_dynamic_slice"


def flatten(function: ir.Operation, inputs: list[int]) -> dict[int, str]:
    """Rewrite a function; ``inputs`` are its arguments that have tokens.

    Returns the types that arguments had which are rows now: passes count the tokens of a dynamic
    number by the first dimension of an argument. ``widen`` restores them. Of two symbolic extents
    nothing is restored: results are rows, too.

    Raises:
      MoEError: if the batch or the sequence is needed by itself, and both are symbolic.
    """
    before = [str(argument.type) for argument in function.regions[0].blocks[0].arguments]
    flat = _Flatten(function.regions[0].blocks[0], inputs)
    flat.run()
    after = [str(argument.type) for argument in function.regions[0].blocks[0].arguments]
    _set_types(function)
    if flat.leading == [None, None]:
        return {}
    return {i: old for i, (old, new) in enumerate(zip(before, after)) if old != new}


def widen(function: ir.Operation, types: dict[int, str]) -> None:
    """Give arguments the types back that they had."""
    block = function.regions[0].blocks[0]
    for index, text in types.items():
        argument = block.arguments[index]
        rows, groups = argument.type, [[0, 1], *([d] for d in range(2, argument.type.rank + 1))]
        argument.set_type(ir.Type.parse(text))
        i64 = ir.IntegerType.get_signless(64)
        with ir.InsertionPoint.at_block_begin(block), ir.Location.unknown():
            collapse = ir.Operation.create(
                "tensor.collapse_shape", results=[rows], operands=[argument], attributes={
                    "reassociation": ir.ArrayAttr.get([ir.ArrayAttr.get(
                        [ir.IntegerAttr.get(i64, d) for d in group]) for group in groups])})
        argument.replace_all_uses_except(collapse.result, collapse)
    _set_types(function)


def _set_types(function: ir.Operation) -> None:
    block = function.regions[0].blocks[0]
    results = [value.type for value in list(block.operations)[-1].operands]
    function.attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get([argument.type for argument in block.arguments], results))


def _extents(value: ir.Value) -> list[int | None]:
    type_ = value.type
    return [None if type_.is_dynamic_dim(i) else type_.get_dim_size(i) for i in range(type_.rank)]


def _ints(*values: int) -> ir.Attribute:
    return ir.DenseI64ArrayAttr.get(list(values))


def _are_same(one: object, other: object) -> bool:
    """Are two extents the same? Values of MLIR compare with others alone."""
    return isinstance(one, ir.Value) == isinstance(other, ir.Value) and (
        one is not None and one == other)


def _users(value: ir.Value, depth: int = 20) -> set[str]:
    """Return the operations that need a number, or what is computed of it."""
    found: set[str] = set()
    for use in value.uses:
        op = use.owner.operation
        is_number = op.results and depth and op.name in (
            *ELEMENTWISE, *RESHAPES, "stablehlo.concatenate", "stablehlo.broadcast_in_dim") and (
            isinstance(op.results[0].type.element_type, ir.IntegerType)
            and op.results[0].type.has_static_shape)
        found |= _users(op.results[0], depth - 1) if is_number else {op.name}
    return found


class _Flatten:
    def __init__(self, block: ir.Block, inputs: list[int]):
        self.block = block
        self.flat: dict[ir.Value, ir.Value] = {}
        # Values whose tokens are other dimensions than the first two, and which.
        self.moved: dict[ir.Value, tuple[ir.Value, int]] = {}
        self.leading: list[int | None] | None = None
        self.tokens: ir.Value | None = None  # the number of them, as tensor<1xi32>
        self.parts: list[ir.Value] = []  # the batch and the sequence, where both are symbolic
        self.numbers: list[ir.Operation] = []  # that compute them
        self.arguments = [block.arguments[i] for i in inputs]

    def run(self) -> None:
        start = ir.InsertionPoint.at_block_begin(self.block)
        with start, ir.Location.unknown():
            for argument in self.arguments:
                extents = _extents(argument)
                if len(extents) < 3 or (self.leading or extents[:2]) != extents[:2] or not (
                        extents[0] == 1 or extents[:2].count(None) != 1):
                    continue
                self.leading = extents[:2]
                if extents[1] is not None:
                    self.flat[argument] = self.reshaped(argument, self.collapsed(argument))
                else:
                    self.narrow(argument)
        if self.leading is None:
            return
        self.multiply()
        made = {value.owner for value in self.flat.values() if not isinstance(
            value.owner, ir.Block)}
        repeated = [op for op in [o.operation for o in self.block.operations]
                    if op not in made and op not in self.numbers and self.repeat(op)]
        for op in repeated[::-1]:
            for result in op.results:
                flat, place = self.moved.get(result) or (self.flat.get(result), 0)
                if place == 0:
                    self.give(result)
                if any(True for _ in result.uses):
                    with ir.InsertionPoint(op), op.location:
                        # After what it is made of, which is before the operation.
                        back = self.reshaped(flat, result.type, place)
                    result.replace_all_uses_with(back)
            op.erase()
        self.drop_parts()

    def give(self, result: ir.Value) -> None:
        """Return rows, where nobody knows how many are a sequence."""
        if not self.parts:
            return
        for use in list(result.uses):
            if use.owner.operation.name == "func.return":
                use.owner.operation.operands[use.operand_number] = self.flat[result]

    def multiply(self) -> None:
        """The product of the batch and the sequence is the number of tokens."""
        if not self.parts:
            return
        for op in [o.operation for o in self.block.operations]:
            if op.name != "stablehlo.multiply" or op.results[0].type.rank != 0:
                continue
            factors = [number_of(operand) for operand in op.operands]
            if any(all(map(_are_same, factors, parts))
                   for parts in (self.parts, self.parts[::-1])):
                with ir.InsertionPoint(op), op.location:
                    size = stablehlo.reshape(
                        ir.RankedTensorType.get([], self.tokens.type.element_type), self.tokens)
                    if size.type != op.results[0].type:
                        size = stablehlo.convert(op.results[0].type, size)
                op.results[0].replace_all_uses_with(size)
                op.erase()

    def drop_parts(self) -> None:
        """Erase what computes shapes that nothing has any more."""
        if not self.parts:
            return
        for op in [o.operation for o in self.block.operations][::-1]:
            if op.name.startswith("stablehlo.") and op.name != "stablehlo.custom_call" and not any(
                    True for result in op.results for _ in result.uses):
                op.erase()
        if named := sorted(set().union(*map(_users, self.parts))):
            raise MoEError(UNIMPLEMENTED, "the batch or the sequence is needed by itself, by "
                           f"{', '.join(named)}; with two symbolic extents the tokens of a batch "
                           "have to be rows. Give the batch a size, or take [1, t, ...]")
        for part in self.parts:
            part.owner.erase()

    def narrow(self, argument: ir.Value) -> None:
        """Make an argument one of rows; its uses get it reshaped."""
        wide = argument.type
        argument.set_type(self.collapsed(argument))
        size = stablehlo.get_dimension_size(argument, 0)
        if self.tokens is None:
            self.tokens = stablehlo.reshape(
                ir.RankedTensorType.get([1], size.type.element_type), size)
            self.numbers += [size.owner, self.tokens.owner]
            if self.leading == [None, None]:
                self.parts = [ir.Operation.create(f"moe.extent_of_{name}", results=[
                    size.type]).result for name in ("batch", "sequence")]
                self.numbers += [part.owner for part in self.parts]
        back = stablehlo.dynamic_reshape(wide, argument, self.shape(wide))
        argument.replace_all_uses_except(back, [back.owner.operation, size.owner.operation])
        extents = self.parts or [None, size]
        for each in [use.owner.operation for use in back.uses]:
            for dim, extent in enumerate(extents):
                if extent is not None and is_size(each, dim):
                    each.results[0].replace_all_uses_with(extent)
        self.flat[back] = argument
        self.numbers.append(back.owner)

    # -- types ----------------------------------------------------------------

    def collapsed(self, value: ir.Value) -> ir.Type:
        first, second, *rest = _extents(value)
        one = second if first == 1 or second is None else first * second
        dynamic = ir.ShapedType.get_dynamic_size()
        return ir.RankedTensorType.get([dynamic if e is None else e for e in (one, *rest)],
                                       value.type.element_type)

    def is_batch(self, value: ir.Value) -> bool:
        """Are the first two dimensions those of the tokens?"""
        extents = _extents(value) if isinstance(value.type, ir.RankedTensorType) else []
        return len(extents) >= 2 and extents[:2] == self.leading and not (
            self.parts and None in extents[2:])

    def shape(self, type_: ir.Type, place: int = 0) -> ir.Value:
        """The extents of a type, of which one is the number of tokens, or two are its parts."""
        element = self.tokens.type.element_type
        one = ir.RankedTensorType.get([1], element)
        is_whole = type_.rank < place + 2 or not all(
            map(type_.is_dynamic_dim, (place, place + 1)))
        parts = []
        for i in range(type_.rank):
            if not type_.is_dynamic_dim(i):
                parts.append(stablehlo.constant(ir.DenseElementsAttr.get_splat(
                    one, ir.IntegerAttr.get(element, type_.get_dim_size(i)))))
            else:
                parts.append(self.tokens if is_whole else stablehlo.reshape(
                    one, self.parts[i - place]))
        return stablehlo.concatenate(parts, 0)

    def proves(self, value: ir.Value) -> bool:
        """Are the first two extents those of the tokens, where they are symbolic?"""
        if None not in self.leading:
            return True
        expected = self.parts or [1, number_of(self.tokens)]
        found = [extent_of(value, dim) for dim in (0, 1)]
        return all(map(_are_same, found, expected))

    def reshaped(self, value: ir.Value, type_: ir.Type, place: int = 0) -> ir.Value:
        if value.type == type_:
            return value
        if type_.has_static_shape:
            return stablehlo.reshape(type_, value)
        return stablehlo.dynamic_reshape(type_, value, self.shape(type_, place))

    # -- operations -----------------------------------------------------------

    def repeat(self, op: ir.Operation) -> bool:
        """Repeat an operation on flat values; false if it is not one of those known."""
        with ir.InsertionPoint(op), op.location:
            if op.name in RESHAPES:
                return self.repeat_reshape(op)
            if op.name == "stablehlo.reduce" and self.repeat_total(op):
                return True
            if op.name == "stablehlo.dot_general" and self.repeat_moved_dot(op):
                return True
            if not op.results or not all(map(self.is_batch, op.results)):
                return False
            if op.name == "stablehlo.transpose" and op.operands[0] in self.moved:
                return self.repeat_moved_transpose(op)
            if op.name in ELEMENTWISE:
                return self.repeat_elementwise(op)
            if op.name in BROADCASTS:
                return self.repeat_broadcast(op)
            source = self.rows_of(op.operands[0]) if len(op.operands) else None
            if source is None:
                return False
            if op.name == "stablehlo.dot_general":
                return self.repeat_dot(op, source)
            if op.name == "stablehlo.reduce":
                dims = ints(op, "dimensions")
                if len(op.results) != 1 or min(dims) < 2:
                    return False
                return self.copy(op, [source, op.operands[1]],
                                 dimensions=_ints(*(d - 1 for d in dims)))
            if op.name == "stablehlo.transpose":
                order = ints(op, "permutation")
                return order[:2] == [0, 1] and self.copy(
                    op, [source], permutation=_ints(0, *(d - 1 for d in order[2:])))
            if op.name in SLICES:
                return self.repeat_slice(op, source)
            return self.repeat_top_k(op, source)

    def rows_of(self, value: ir.Value) -> ir.Value | None:
        """Return the flat value; made of it if what computes it is not repeated."""
        if value not in self.flat and self.is_batch(value) and len(_extents(value)) > 2 and (
                self.proves(value)):
            self.flat[value] = self.reshaped(value, self.collapsed(value))
        return self.flat.get(value)

    def copy(self, op: ir.Operation, operands: list[ir.Value], **attributes: ir.Attribute) -> bool:
        clone = op.clone(ir.InsertionPoint(op)).operation
        for index, operand in enumerate(operands):
            clone.operands[index] = operand
        for name, value in attributes.items():
            clone.attributes[name] = value
        for old, new in zip(op.results, clone.results):
            new.set_type(self.collapsed(old))
            self.flat[old] = new
        return True

    def repeat_reshape(self, op: ir.Operation) -> bool:
        source, result = op.operands[0], op.results[0]
        if self.is_batch(result) and len(_extents(result)) > 2 and (
                self.keeps_rows(source, result) or self.proves(result)):
            # Rows become tokens of a batch: they stay rows.
            self.flat[result] = self.reshaped(self.flat.get(source, source),
                                              self.collapsed(result))
            return True
        if source not in self.flat:
            return False
        flat = self.flat[source]
        if flat.type == result.type:
            result.replace_all_uses_with(flat)
        elif result.type.has_static_shape:
            result.replace_all_uses_with(stablehlo.reshape(result.type, flat))
        else:
            result.replace_all_uses_with(
                stablehlo.dynamic_reshape(result.type, flat, op.operands[1]))
        return True

    def keeps_rows(self, source: ir.Value, result: ir.Value) -> bool:
        """Has a row of the flat value as many elements as one of the result?"""
        if source not in self.flat:
            return False
        row, new = _extents(self.flat[source])[1:], _extents(result)[2:]
        return None not in row + new and math.prod(row) == math.prod(new)

    def repeat_total(self, op: ir.Operation) -> bool:
        """Repeat a sum over all tokens, whose result has none."""
        dims = ints(op, "dimensions")
        if len(op.results) != 1 or op.operands[0] not in self.flat or not {0, 1} <= set(dims):
            return False
        clone = op.clone(ir.InsertionPoint(op)).operation
        clone.operands[0] = self.flat[op.operands[0]]
        clone.attributes["dimensions"] = _ints(*sorted({max(d - 1, 0) for d in dims}))
        op.results[0].replace_all_uses_with(clone.results[0])
        return True

    def repeat_elementwise(self, op: ir.Operation) -> bool:
        operands = list(op.operands)
        if not any(operand in self.flat for operand in operands):
            return False
        return self.copy(op, [
            self.flat[operand] if operand in self.flat else
            self.reshaped(operand, self.collapsed(operand)) if self.is_batch(operand) else operand
            for operand in operands])

    def repeat_broadcast(self, op: ir.Operation) -> bool:
        source, result = op.operands[0], op.results[0]
        dims = ints(op, "broadcast_dimensions")
        if source in self.flat and dims[:2] == [0, 1]:
            new, dims = self.flat[source], [0, *(d - 1 for d in dims[2:])]
        elif not self.proves(result):
            return False
        elif dims[:2] == [0, 1] and _extents(source)[:2] == [1, 1]:
            new = stablehlo.reshape(self.collapsed(source), source)
            dims = [0, *(d - 1 for d in dims[2:])]
        elif not dims or min(dims) >= 2:  # the same for all tokens
            new, dims = source, [d - 1 for d in dims]
        else:
            return False
        operands = [new]
        if op.name == BROADCASTS[1]:
            operands.append(self.shape(self.collapsed(result)))
        return self.copy(op, operands, broadcast_dimensions=_ints(*dims))

    def repeat_dot(self, op: ir.Operation, source: ir.Value) -> bool:
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        left, right = list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)
        over, other = (list(numbers.lhs_contracting_dimensions),
                       list(numbers.rhs_contracting_dimensions))
        if not left and min(over, default=0) >= 2:
            operands = [source, op.operands[1]]
        elif (left[:2] == right[:2] == [0, 1] and op.operands[1] in self.flat
              and min(left[2:] + right[2:] + over + other, default=2) >= 2):
            operands = [source, self.flat[op.operands[1]]]
            left, right = ([0, *(d - 1 for d in dims[2:])] for dims in (left, right))
            other = [d - 1 for d in other]
        else:
            return False
        return self.copy(op, operands, dot_dimension_numbers=stablehlo.DotDimensionNumbers.get(
            left, right, [d - 1 for d in over], other))

    def repeat_slice(self, op: ir.Operation, source: ir.Value) -> bool:
        """Repeat a slice of all tokens."""
        names = "start_indices", "limit_indices", "strides"
        rank = op.operands[0].type.rank
        numbers = [ints(op, name) if op.name == SLICES[0] else
                   [number_of(op.operands[1 + i], d) for d in range(rank)]
                   for i, name in enumerate(names)]
        starts, limits, strides = numbers
        extents = [extent_of(op.operands[0], d) for d in (0, 1)]
        if not all(map(_are_same, limits, extents)) or not all(
                isinstance(n, int) for each in numbers for n in each[2:]) or (
                    starts[:2], strides[:2]) != ([0, 0], [1, 1]):
            return False
        starts, strides = [0, *starts[2:]], [1, *strides[2:]]
        if not source.type.is_dynamic_dim(0):
            new = stablehlo.slice(source, _ints(*starts), _ints(
                source.type.get_dim_size(0), *limits[2:]), _ints(*strides))
        else:
            vector = ir.RankedTensorType.get([len(starts)], self.tokens.type.element_type)

            def constant(values: list[int]) -> ir.Value:
                element = vector.element_type
                return stablehlo.constant(ir.DenseElementsAttr.get([
                    ir.IntegerAttr.get(element, v) for v in values], vector))

            # The extents of a slice from 0 are its limits.
            ends = self.shape(ir.RankedTensorType.get(
                [ir.ShapedType.get_dynamic_size(), *limits[2:]], source.type.element_type))
            new = stablehlo.real_dynamic_slice(self.collapsed(op.results[0]), source, constant(
                starts), ends, constant(strides))
        self.flat[op.results[0]] = new
        return True

    def repeat_moved_dot(self, op: ir.Operation) -> bool:
        """Repeat a product whose result has the tokens after other dimensions."""
        numbers = stablehlo.DotDimensionNumbers(op.attributes["dot_dimension_numbers"])
        batch = [list(numbers.lhs_batching_dimensions), list(numbers.rhs_batching_dimensions)]
        over = [list(numbers.lhs_contracting_dimensions), list(numbers.rhs_contracting_dimensions)]
        of_tokens = [i for i, operand in enumerate(op.operands) if operand in self.flat]
        if len(of_tokens) != 1:
            return False
        i, = of_tokens
        place = len(batch[0])
        if i == 1:
            place += op.operands[0].type.rank - len(batch[0]) - len(over[0])
        if place == 0 or min(batch[i] + over[i], default=2) < 2:
            return False
        for dims in batch, over:
            dims[i] = [d - 1 for d in dims[i]]
        clone = op.clone(ir.InsertionPoint(op)).operation
        clone.operands[i] = self.flat[op.operands[i]]
        clone.attributes["dot_dimension_numbers"] = stablehlo.DotDimensionNumbers.get(
            batch[0], batch[1], over[0], over[1])
        extents = _extents(op.results[0])
        rows = _extents(clone.operands[i])[0]
        dynamic = ir.ShapedType.get_dynamic_size()
        clone.results[0].set_type(ir.RankedTensorType.get(
            [dynamic if e is None else e for e in (
                *extents[:place], rows, *extents[place + 2:])],
            op.results[0].type.element_type))
        self.moved[op.results[0]] = clone.results[0], place
        return True

    def repeat_moved_transpose(self, op: ir.Operation) -> bool:
        """Repeat a transpose that makes the tokens the first dimensions."""
        source, place = self.moved[op.operands[0]]
        order = ints(op, "permutation")
        return order[:2] == [place, place + 1] and self.copy(op, [source], permutation=_ints(
            *(d - (d > place) for d in (order[0], *order[2:]))))

    def repeat_top_k(self, op: ir.Operation, source: ir.Value) -> bool:
        """The composite's function is for other shapes; the operation that it stands for is not."""
        if op.name == "stablehlo.composite" and ir.StringAttr(
                op.attributes["name"]).value == "chlo.top_k":
            k = ir.DictAttr(op.attributes["composite_attributes"])["k"]
        elif op.name == "chlo.top_k":
            k = op.attributes["k"]
        else:
            return False
        if len(_extents(op.operands[0])) != 3:
            return False
        new = ir.Operation.create("chlo.top_k", results=[self.collapsed(r) for r in op.results],
                                  operands=[source], attributes={"k": k})
        self.flat.update(zip(op.results, new.results))
        return True
