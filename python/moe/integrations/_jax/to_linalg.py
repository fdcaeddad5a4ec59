"""Operations that jaxlib's ``stablehlo-legalize-to-linalg`` leaves, as those of linalg and scf.

Sorts, scatters, gathers of slices of dynamic extents, cumulative sums and control flow. They are
for what no pass raised: right for all shapes, and simple. A sort compares all with all.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxlib.mlir import ir
from jaxlib.mlir.dialects import stablehlo

from .build import constants, defining, element
from .scalars import Scalars, can_compute

__all__ = ["lower_rest"]

Body = Callable[[list[ir.Value], list[ir.Value]], list[ir.Value]]


def lower_rest(function: ir.Operation, module: ir.Module) -> None:
    """Replace such operations of a function; inner ones first."""
    rest = _Rest({f.name.value: f.operation for f in module.body.operations
                  if f.operation.name == "func.func"})
    found: list[ir.Operation] = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in LOWERINGS:
            found.append(op)
        return ir.WalkResult.ADVANCE

    function.walk(visit, ir.WalkOrder.POST_ORDER)
    for op in found:
        with ir.InsertionPoint(op), op.location:
            results = LOWERINGS[op.name](rest, op)
        if results is not None:
            with ir.InsertionPoint(op), op.location:
                for old, new in zip(op.results, results):
                    old.replace_all_uses_with(rest.recast(new, old.type))
            op.erase()


def _plain(type_: ir.Type) -> ir.Type:
    element = type_.element_type
    if not isinstance(element, ir.IntegerType) or element.is_signless:
        return type_
    return ir.RankedTensorType.get(type_.shape, ir.IntegerType.get_signless(element.width))


class _Rest(Scalars):
    def __init__(self, functions: dict[str, ir.Operation]):
        self.functions = functions

    # -- tensors ----------------------------------------------------------------

    def extent(self, value: ir.Value, dim: int) -> ir.Value:
        if not value.type.is_dynamic_dim(dim):
            return self.index(value.type.get_dim_size(dim))
        return self.create("tensor.dim", ir.IndexType.get(), value, self.index(dim))

    def extents(self, value: ir.Value) -> list[ir.Value]:
        return [self.extent(value, dim) for dim in range(value.type.rank)]

    def empty(self, type_: ir.Type, extents: list[ir.Value]) -> ir.Value:
        return self.create("tensor.empty", type_, *(
            e for dim, e in enumerate(extents) if type_.is_dynamic_dim(dim)))

    def copy(self, value: ir.Value) -> ir.Value:
        """A tensor of its own, which loops write to."""
        return self.generic(value.type, self.extents(value), [(value, None)], lambda _, x: x[0])

    def at(self, value: ir.Value, places: list[ir.Value]) -> ir.Value:
        return self.create("tensor.extract", value.type.element_type, value, *places)

    def put(self, scalar: ir.Value, into: ir.Value, places: list[ir.Value]) -> ir.Value:
        return self.create("tensor.insert", into.type, scalar, into, *places)

    def generic(self, type_: ir.Type, extents: list[ir.Value],
                inputs: list[tuple[ir.Value, ir.AffineMap | None]],
                body: Callable[[list[ir.Value], list[ir.Value]], ir.Value],
                start: ir.Value | None = None, summed: int = 0) -> ir.Value:
        """Elements by ``body``, of their places and elements of ``inputs``.

        The last ``summed`` dimensions are those of a reduction that begins with ``start``.
        """
        rank = type_.rank
        out = self.empty(type_, extents)
        if start is not None:
            out = self.fill(start, out)
        identity = ir.AffineMap.get(rank + summed, 0, [ir.AffineDimExpr.get(d)
                                                       for d in range(rank)])
        maps = [identity if map_ is None else map_ for _, map_ in inputs] + [identity]
        kinds = ["parallel"] * rank + ["reduction"] * summed
        op = ir.Operation.create(
            "linalg.generic", results=[type_], operands=[*(value for value, _ in inputs), out],
            attributes={
                "indexing_maps": ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in maps]),
                "iterator_types": ir.ArrayAttr.get([ir.Attribute.parse(
                    f"#linalg.iterator_type<{kind}>") for kind in kinds]),
                "operandSegmentSizes": ir.DenseI32ArrayAttr.get([len(inputs), 1])}, regions=1)
        types = [value.type.element_type for value, _ in inputs] + [type_.element_type]
        block = op.regions[0].blocks.append(*types, arg_locs=[op.location] * len(types))
        with ir.InsertionPoint(block):
            i64 = ir.IntegerType.get_signless(64)
            places = [self.create("linalg.index", ir.IndexType.get(),
                                  dim=ir.IntegerAttr.get(i64, d)) for d in range(rank + summed)]
            self.end("linalg.yield", body(places, list(block.arguments)))
        return op.result

    def fill(self, scalar: ir.Value, into: ir.Value) -> ir.Value:
        identity = ir.AffineMap.get_identity(into.type.rank)
        op = ir.Operation.create("linalg.generic", results=[into.type], operands=[scalar, into],
                                 attributes={
            "indexing_maps": ir.ArrayAttr.get([ir.AffineMapAttr.get(m) for m in (
                ir.AffineMap.get(into.type.rank, 0, []), identity)]),
            "iterator_types": ir.ArrayAttr.get([ir.Attribute.parse(
                "#linalg.iterator_type<parallel>")] * into.type.rank),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([1, 1])}, regions=1)
        block = op.regions[0].blocks.append(scalar.type, scalar.type,
                                            arg_locs=[op.location] * 2)
        with ir.InsertionPoint(block):
            self.end("linalg.yield", block.arguments[0])
        return op.result

    def end(self, name: str, *values: ir.Value) -> None:
        ir.Operation.create(name, results=[], operands=list(values))

    # -- control flow -----------------------------------------------------------

    def loops(self, extents: list[ir.Value], carried: list[ir.Value], body: Body,
              places: tuple[ir.Value, ...] = ()) -> list[ir.Value]:
        """A nest of loops that carry values."""
        if not extents:
            return body(list(places), carried)
        types = [value.type for value in carried]
        op = ir.Operation.create("scf.for", results=types, operands=[
            self.index(0), extents[0], self.index(1), *carried], regions=1)
        types = [ir.IndexType.get(), *types]
        block = op.regions[0].blocks.append(*types, arg_locs=[op.location] * len(types))
        with ir.InsertionPoint(block):
            place, *inner = block.arguments
            self.end("scf.yield", *self.loops(extents[1:], inner, body, (*places, place)))
        return list(op.results)

    def choose(self, condition: ir.Value, types: list[ir.Type],
               then: Callable[[], list[ir.Value]], other: Callable[[], list[ir.Value]],
               ) -> list[ir.Value]:
        op = ir.Operation.create("scf.if", results=types, operands=[condition], regions=2)
        for region, values in zip(op.regions, (then, other)):
            with ir.InsertionPoint(region.blocks.append()):
                self.end("scf.yield", *values())
        return list(op.results)

    def recast(self, value: ir.Value, type_: ir.Type) -> ir.Value:
        """Between integers with and without a sign: jaxlib lowers both to the latter."""
        if value.type == type_:
            return value
        return self.create("builtin.unrealized_conversion_cast", type_, value)

    def plain(self, value: ir.Value) -> ir.Value:
        return self.recast(value, _plain(value.type))

    def inline(self, block: ir.Block, arguments: list[ir.Value]) -> list[ir.Value]:
        """Repeat the operations of a block here; return the operands of its last one."""
        values = {argument: self.recast(value, argument.type)
                  for argument, value in zip(block.arguments, arguments)}

        def use_values(op: ir.Operation) -> ir.WalkResult:
            for index, operand in enumerate(op.operands):
                if operand in values:
                    op.operands[index] = values[operand]
            return ir.WalkResult.ADVANCE

        *inner, last = (o.operation for o in block.operations)
        for op in inner:
            copy = op.clone()
            copy.operation.walk(use_values)
            values.update(zip(op.results, copy.operation.results))
        return [self.plain(values.get(operand, operand)) for operand in last.operands]

    def while_(self, op: ir.Operation) -> list[ir.Value]:
        condition, body = (region.blocks[0] for region in op.regions)
        given = [self.plain(value) for value in op.operands]
        types = [value.type for value in given]
        locations = [op.location] * len(types)
        if (trips := self.trips(op)) is not None:
            return self.loops([trips], given, lambda _, x: self.inline(body, x))
        loop = ir.Operation.create("scf.while", results=types, operands=given, regions=2)
        before, after = (region.blocks.append(*types, arg_locs=locations)
                         for region in loop.regions)
        with ir.InsertionPoint(before):
            is_next, = self.inline(condition, list(before.arguments))
            self.end("scf.condition", self.at(is_next, []), *before.arguments)
        with ir.InsertionPoint(after):
            self.end("scf.yield", *self.inline(body, list(after.arguments)))
        return list(loop.results)

    def trips(self, op: ir.Operation) -> ir.Value | None:
        """How often a loop runs whose counter goes up by one to a number; None for others."""
        condition, body = (region.blocks[0] for region in op.regions)
        *others, returned = (o.operation for o in condition.operations)
        test = defining(returned.operands[0])
        if test is None or test.name != "stablehlo.compare" or "LT" not in str(
                test.attributes["comparison_direction"]) or any(
                    o.name not in ("stablehlo.constant", test.name) for o in others):
            return None
        places = {argument: i for i, argument in enumerate(condition.arguments)}
        counter, limit = test.operands
        if counter not in places or not isinstance(counter.type.element_type, ir.IntegerType):
            return None
        place = places[counter]
        end = constants(limit)
        if end is None and limit in places:
            last = list(body.operations)[-1].operation
            if last.operands[places[limit]] != body.arguments[places[limit]]:
                return None
            limit = op.operands[places[limit]]
            end = constants(limit)
        step = defining(list(body.operations)[-1].operation.operands[place])
        if step is None or step.name != "stablehlo.add" or not any(
                x == body.arguments[place] and constants(y) == [1]
                for x, y in (list(step.operands), list(step.operands)[::-1])):
            return None
        start = constants(op.operands[place])
        if start is not None and end is not None:
            return self.index(max(end[0] - start[0], 0))
        first, stop = (self.cast(self.at(v, []), ir.IndexType.get()) if known is None
                       else self.index(known[0])
                       for v, known in ((op.operands[place], start), (limit, end)))
        count = self.create("arith.subi", ir.IndexType.get(), stop, first)
        return self.create("arith.maxsi", ir.IndexType.get(), count, self.index(0))

    def if_(self, op: ir.Operation) -> list[ir.Value]:
        then, other = (region.blocks[0] for region in op.regions)
        return self.choose(self.at(op.operands[0], []), [_plain(r.type) for r in op.results],
                           lambda: self.inline(then, []), lambda: self.inline(other, []))

    def case(self, op: ir.Operation) -> list[ir.Value]:
        """An index that is out of range chooses the last branch."""
        chosen, types = self.at(op.operands[0], []), [_plain(r.type) for r in op.results]

        def branch(index: int) -> list[ir.Value]:
            block = op.regions[index].blocks[0]
            if index == len(op.regions) - 1:
                return self.inline(block, [])
            is_this = self.compare("EQ", chosen, self.number(index, chosen.type))
            return self.choose(is_this, types, lambda: self.inline(block, []),
                               lambda: branch(index + 1))

        return branch(0)

    # -- gathers and scatters ---------------------------------------------------

    def gather(self, op: ir.Operation) -> list[ir.Value] | None:
        source, indices = op.operands[:2]
        numbers = stablehlo.GatherDimensionNumbers(op.attributes["dimension_numbers"])
        type_, rank = op.results[0].type, source.type.rank
        sizes = [element(op.operands[2], d, op) for d in range(rank)]
        offsets, vector = list(numbers.offset_dims), numbers.index_vector_dim
        collapsed, batching = (list(numbers.collapsed_slice_dims),
                               list(numbers.operand_batching_dims))
        batch = [d for d in range(type_.rank) if d not in offsets]
        window = [d for d in range(rank) if d not in collapsed + batching]
        of_indices = [d for d in range(indices.type.rank) if d != vector]
        extents = [self.index(0)] * type_.rank
        for out, dim in zip(offsets, window):
            extents[out] = sizes[dim]
        for out, dim in zip(batch, of_indices):
            extents[out] = self.extent(indices, dim)

        def body(places: list[ir.Value], _: list[ir.Value]) -> ir.Value:
            at = [self.index(0)] * rank
            for out, dim in zip(offsets, window):
                at[dim] = places[out]
            rows = [places[d] for d in batch]
            for dim, of in zip(batching, numbers.start_indices_batching_dims):
                at[dim] = rows[of_indices.index(of)]
            for component, dim in enumerate(numbers.start_index_map):
                start = self.component(indices, rows, vector, component)
                last = self.create("arith.subi", ir.IndexType.get(), self.extent(source, dim),
                                   sizes[dim])
                start = self.create("arith.maxsi", start.type, start, self.index(0))
                start = self.create("arith.minsi", start.type, start, last)
                at[dim] = self.create("arith.addi", start.type, start, at[dim])
            return self.at(source, at)

        return [self.generic(type_, extents, [], body)]

    def component(self, indices: ir.Value, rows: list[ir.Value], vector: int,
                  component: int) -> ir.Value:
        """An element of the vector of indices of a row."""
        at = list(rows)
        if vector < indices.type.rank:
            at.insert(vector, self.index(component))
        return self.cast(self.at(indices, at), ir.IndexType.get())

    def scatter(self, op: ir.Operation) -> list[ir.Value] | None:
        count = len(op.results)
        into, indices, updates = (list(op.operands[:count]), op.operands[count],
                                  list(op.operands[count + 1:]))
        block = op.regions[0].blocks[0]
        if not can_compute(block):
            return None
        numbers = stablehlo.ScatterDimensionNumbers(op.attributes["scatter_dimension_numbers"])
        rank, vector = into[0].type.rank, numbers.index_vector_dim
        windows = list(numbers.update_window_dims)
        inserted, batching = (list(numbers.inserted_window_dims),
                              list(numbers.input_batching_dims))
        window = [d for d in range(rank) if d not in inserted + batching]
        of_indices = [d for d in range(indices.type.rank) if d != vector]
        sizes = {dim: self.extent(updates[0], of) for of, dim in zip(windows, window)}

        def body(places: list[ir.Value], carried: list[ir.Value]) -> list[ir.Value]:
            at = [self.index(0)] * rank
            for of, dim in zip(windows, window):
                at[dim] = places[of]
            rows = [place for d, place in enumerate(places) if d not in windows]
            for dim, of in zip(batching, numbers.scatter_indices_batching_dims):
                at[dim] = rows[of_indices.index(of)]
            inside = self.number(1, ir.IntegerType.get_signless(1))
            for component, dim in enumerate(numbers.scattered_dims_to_operand_dims):
                start = self.component(indices, rows, vector, component)
                at[dim] = self.create("arith.addi", start.type, start, at[dim])
                # As XLA does, a window is dropped whole.
                last = self.create("arith.subi", start.type, self.extent(into[0], dim),
                                   sizes.get(dim) or self.index(1))
                for fits in (self.compare("GE", start, self.index(0)),
                             self.compare("LE", start, last)):
                    inside = self.binary("and", inside, fits)

            def update() -> list[ir.Value]:
                new = self.run(block, [*(self.at(x, at) for x in carried),
                                       *(self.at(x, places) for x in updates)])
                return [self.put(value, x, at) for value, x in zip(new, carried)]

            return self.choose(inside, [x.type for x in carried], update, lambda: carried)

        return self.loops(self.extents(updates[0]), [self.copy(x) for x in into], body)

    # -- views of dynamic extents -------------------------------------------------

    def reverse(self, op: ir.Operation) -> list[ir.Value] | None:
        source, = op.operands
        dims = list(ir.DenseI64ArrayAttr(op.attributes["dimensions"]))
        if source.type.has_static_shape:
            return None
        extents = self.extents(source)

        def body(places: list[ir.Value], _: list[ir.Value]) -> ir.Value:
            for dim in dims:
                last = self.create("arith.subi", ir.IndexType.get(), extents[dim], self.index(1))
                places[dim] = self.create("arith.subi", last.type, last, places[dim])
            return self.at(source, places)

        return [self.generic(source.type, extents, [], body)]

    def update_slice(self, op: ir.Operation) -> list[ir.Value] | None:
        into, update, *starts = op.operands
        if into.type.has_static_shape and update.type.has_static_shape:
            return None
        index = ir.IndexType.get()
        at = []
        for dim, start in enumerate(starts):
            last = self.create("arith.subi", index, self.extent(into, dim),
                               self.extent(update, dim))
            place = self.create("arith.maxsi", index, self.cast(self.at(start, []), index),
                                self.index(0))
            at.append(self.create("arith.minsi", index, place, last))

        def body(places: list[ir.Value], carried: list[ir.Value]) -> list[ir.Value]:
            to = [self.create("arith.addi", index, a, b) for a, b in zip(at, places)]
            return [self.put(self.at(update, places), carried[0], to)]

        return self.loops(self.extents(update), [self.copy(into)], body)

    # -- order ------------------------------------------------------------------

    def ranks(self, keys: list[ir.Value], dim: int,
              less: Callable[[list[ir.Value], list[ir.Value]], ir.Value]) -> ir.Value:
        """How many are before each: all that are less, and equal ones that were before."""
        rank = keys[0].type.rank
        i64 = ir.IntegerType.get_signless(64)
        shape = keys[0].type.shape
        other = ir.AffineMap.get(rank + 1, 0, [ir.AffineDimExpr.get(rank if d == dim else d)
                                               for d in range(rank)])
        this = ir.AffineMap.get(rank + 1, 0, [ir.AffineDimExpr.get(d) for d in range(rank)])

        def body(places: list[ir.Value], x: list[ir.Value]) -> ir.Value:
            mine, theirs, sum_ = x[:len(keys)], x[len(keys):-1], x[-1]
            is_less, is_more = less(theirs, mine), less(mine, theirs)
            one = self.number(1, ir.IntegerType.get_signless(1))
            before = self.compare("LT", places[rank], places[dim])
            is_equal = self.binary("and", before, self.binary("xor", is_more, one))
            count = self.create("arith.extui", i64, self.binary("or", is_less, is_equal))
            return self.binary("add", sum_, count)

        return self.generic(
            ir.RankedTensorType.get(shape, i64), self.extents(keys[0]),
            [*((key, this) for key in keys), *((key, other) for key in keys)], body,
            start=self.number(0, i64), summed=1)

    def sort(self, op: ir.Operation) -> list[ir.Value] | None:
        keys, block = list(op.operands), op.regions[0].blocks[0]
        dim = ir.IntegerAttr(op.attributes["dimension"]).value
        dim += keys[0].type.rank if dim < 0 else 0
        if not can_compute(block):
            return None

        def less(a: list[ir.Value], b: list[ir.Value]) -> ir.Value:
            return self.run(block, [x for pair in zip(a, b) for x in pair])[0]

        ranks = self.ranks(keys, dim, less)

        def body(places: list[ir.Value], carried: list[ir.Value]) -> list[ir.Value]:
            to = list(places)
            to[dim] = self.cast(self.at(ranks, places), ir.IndexType.get())
            return [self.put(self.at(key, places), x, to) for key, x in zip(keys, carried)]

        return self.loops(self.extents(keys[0]), [
            self.empty(key.type, self.extents(key)) for key in keys], body)

    def top_k(self, op: ir.Operation) -> list[ir.Value] | None:
        source, = op.operands
        values, ids = op.results
        dim, k = source.type.rank - 1, ir.IntegerAttr(op.attributes["k"]).value
        ranks = self.ranks([source], dim, lambda a, b: self.compare("GT", a[0], b[0], total=True))

        def body(places: list[ir.Value], carried: list[ir.Value]) -> list[ir.Value]:
            to = list(places)
            to[dim] = self.cast(self.at(ranks, places), ir.IndexType.get())

            def chosen() -> list[ir.Value]:
                new = self.at(source, places), self.cast(places[dim], ids.type.element_type)
                return [self.put(value, x, to) for value, x in zip(new, carried)]

            return self.choose(self.compare("LT", to[dim], self.index(k)),
                               [x.type for x in carried], chosen, lambda: carried)

        extents = [*self.extents(source)[:-1], self.index(k)]
        return self.loops(self.extents(source), [
            self.empty(x.type, extents) for x in (values, ids)], body)

    # -- windows ----------------------------------------------------------------

    def custom_call(self, op: ir.Operation) -> list[ir.Value] | None:
        """A cumulative sum, which is one over a window as long as the dimension."""
        if ir.StringAttr(op.attributes["call_target_name"]).value != (
                "stablehlo.dynamic_reduce_window") or len(op.operands) != 7:
            return None
        source, start, window, *steps, padding = op.operands
        called = ir.FlatSymbolRefAttr(ir.ArrayAttr(op.attributes["called_computations"])[0])
        block = self.functions[called.value].regions[0].blocks[0]
        rank = source.type.rank
        lengths = [_number(window, d) for d in range(rank)]
        along = [d for d in range(rank) if lengths[d] != 1]
        if any(_number(step, d) != 1 for step in steps for d in range(rank)) or len(
                along) != 1 or not _is_product(window, along[0]) or not can_compute(block):
            return None
        dim, = along
        low, high = (_padding(padding, dim, side) for side in (0, 1))
        if (low == 0) == (high == 0):
            return None
        return self.cumulate(source, start, block, dim, low == 0)

    def reduce_window(self, op: ir.Operation) -> list[ir.Value] | None:
        """The same along a static dimension, beside dynamic ones."""
        if len(op.operands) != 2 or op.operands[0].type.has_static_shape:
            return None
        (source, start), block = op.operands, op.regions[0].blocks[0]
        lengths = list(ir.DenseI64ArrayAttr(op.attributes["window_dimensions"]))
        along = [d for d, length in enumerate(lengths) if length != 1]
        steps = [step for name in ("window_strides", "base_dilations", "window_dilations")
                 if name in op.attributes for step in ir.DenseI64ArrayAttr(op.attributes[name])]
        if len(along) != 1 or "padding" not in op.attributes or set(steps) - {1} or not can_compute(
                block):
            return None
        dim, = along
        padding = [int(n) for n in ir.DenseIntElementsAttr(op.attributes["padding"])]
        own = padding[2 * dim], padding[2 * dim + 1]
        before = lengths[dim] - 1
        if source.type.is_dynamic_dim(dim) or source.type.get_dim_size(dim) != lengths[dim] or (
                own not in ((before, 0), (0, before)) or sum(map(bool, padding)) != 1):
            return None
        return self.cumulate(source, start, block, dim, own[0] == 0)

    def cumulate(self, source: ir.Value, start: ir.Value, block: ir.Block, dim: int,
                 backwards: bool) -> list[ir.Value]:
        last = self.create("arith.subi", ir.IndexType.get(), self.extent(source, dim),
                           self.index(1))

        def body(places: list[ir.Value], carried: list[ir.Value]) -> list[ir.Value]:
            at, before = list(places), list(places)
            one = self.index(1)
            name = "arith.subi"
            if backwards:  # from the last one
                at[dim] = self.create(name, one.type, last, places[dim])
                name = "arith.addi"
            before[dim] = self.create(name, one.type, at[dim], one)
            sum_, = self.choose(
                self.compare("EQ", places[dim], self.index(0)), [source.type.element_type],
                lambda: [self.at(start, [])], lambda: [self.at(carried[0], before)])
            new, = self.run(block, [sum_, self.at(source, at)])
            return [self.put(new, carried[0], at)]

        return self.loops(self.extents(source), [
            self.empty(source.type, self.extents(source))], body)


def _number(vector: ir.Value, place: int) -> int | None:
    """Return an element of a vector of integers, if it is known."""
    op = defining(vector)
    if op is not None and op.name == "stablehlo.concatenate":
        for part in op.operands:
            if place < (extent := part.type.get_dim_size(0)):
                return _number(part, place)
            place -= extent
    if op is not None and op.name == "stablehlo.reshape" and vector.type.rank == 1:
        return _number(op.operands[0], place)
    known = constants(vector)
    return None if known is None else known[place]


def _is_product(vector: ir.Value, place: int) -> bool:
    """Is an element of a vector of integers an extent, or a product of extents and numbers?

    A window of a part of the rows, such as half of them, is computed by other operations.
    """
    op = defining(vector)
    name = op.name if op is not None else ""
    if name == "stablehlo.concatenate":
        for part in op.operands:
            if place < (extent := part.type.get_dim_size(0)):
                return _is_product(part, place)
            place -= extent
    if name in ("stablehlo.reshape", "stablehlo.convert", "stablehlo.broadcast_in_dim"):
        return _is_product(op.operands[0], place if op.operands[0].type.rank else 0)
    if name == "stablehlo.multiply":
        return all(_is_product(operand, place) for operand in op.operands) and not all(
            constants(operand) for operand in op.operands)
    return name in ("stablehlo.get_dimension_size", "stablehlo.constant")


def _padding(matrix: ir.Value, dim: int, side: int) -> int | None:
    """Return an element of a matrix [rank, 2], which is rows of one dimension each."""
    op = defining(matrix)
    if op is not None and op.name == "stablehlo.concatenate":
        for part in op.operands:
            if dim < (extent := part.type.get_dim_size(0)):
                return _padding(part, dim, side)
            dim -= extent
    if op is not None and op.name == "stablehlo.reshape":
        return _number(op.operands[0], 2 * dim + side)
    known = constants(matrix)
    return None if known is None else known[2 * dim + side]


LOWERINGS = {
    "stablehlo.while": _Rest.while_, "stablehlo.if": _Rest.if_, "stablehlo.case": _Rest.case,
    "stablehlo.dynamic_gather": _Rest.gather, "stablehlo.scatter": _Rest.scatter,
    "stablehlo.sort": _Rest.sort, "chlo.top_k": _Rest.top_k,
    "stablehlo.custom_call": _Rest.custom_call, "stablehlo.reduce_window": _Rest.reduce_window,
    "stablehlo.reverse": _Rest.reverse,
    "stablehlo.dynamic_update_slice": _Rest.update_slice}
