"""What jaxlib's MLIR does of an import: inlining, and lowering StableHLO to linalg.

The passes of this package raise what is of experts and their routing in StableHLO, which
they match by name. jaxlib has the dialects, and lowers the rest.
"""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Iterable
from typing import Any

from jax._src.interpreters import mlir as jax_mlir
from jaxlib.mlir import ir, passmanager
from jaxlib.mlir.dialects import stablehlo

from ..._error import INTERNAL, NOT_FOUND, UNIMPLEMENTED, MoEError
from ..._tools import find_tool
from .batch import flatten, widen
from .build import constant, constants, create, element
from .stacks import stack_weights
from .to_linalg import lower_rest

__all__ = ["lower", "raised"]

RAISING = ["--moe-raise-routing", "--moe-raise-grouped"]
# Shapes that are computed element by element, and chains of elementwise operations.
SIMPLIFICATION = ["--linalg-inline-scalar-operands", "--canonicalize",
                  "--moe-fuse-elementwise", "--canonicalize", "--cse"]


def _context() -> ir.Context:
    context = jax_mlir.make_ir_context()
    context.allow_unregistered_dialects = True
    return context


def _run(module: ir.Module, passes: str) -> None:
    stablehlo.register_stablehlo_passes()
    try:
        passmanager.PassManager.parse(f"builtin.module({passes})").run(module.operation)
    except ir.MLIRError as error:
        raise MoEError(UNIMPLEMENTED, f"jaxlib does not lower the function: {error}") from error


def _text(module: ir.Module) -> str:
    return module.operation.get_asm(print_generic_op_form=True, enable_debug_info=False)


def _moe_opt(text: str, *passes: str) -> str:
    tool = find_tool("moe-opt")
    if tool is None:
        raise MoEError(NOT_FOUND, "moe-opt was not found beside the package or in a build tree")
    done = subprocess.run([tool, "-", "--allow-unregistered-dialect", *passes], input=text,
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise MoEError(INTERNAL, f"moe-opt failed\n{done.stderr.rstrip()}")
    return done.stdout


def raised(module: str, inputs: list[int]) -> tuple[str, str, dict[int, str]]:
    """Return an exported module with calls inlined and experts raised, in the generic form, the
    same before anything is raised, and the types that arguments of the function had, which are
    rows of tokens now.

    Args:
      inputs: the arguments that have tokens.
    """
    with _context():
        parsed = ir.Module.parse(module)
        _inline(parsed)
        _run(parsed, "symbol-dce,canonicalize,cse")
        for function in parsed.body.operations:
            if function.name.value == "main":
                types = flatten(function.operation, inputs)
        _run(parsed, "symbol-dce,canonicalize,cse")
        text = _text(parsed)
    return _moe_opt(text, "--mlir-print-op-generic", *RAISING), text, types


def lower(module: str, types: dict[int, str], arguments: list[tuple[str, str]],
          weights: dict[str, Any] | None = None) -> str:
    """Return a module of ``raised`` without StableHLO.

    Args:
      types: of arguments, as ``raised`` returns them.
      arguments: the name and role of each argument of its function.
      weights: the arrays of the weights, of which those that the function puts together become
        one, in its place.

    Raises:
      MoEError: if an operation is left that neither jaxlib nor a pass lowers.
    """
    with _context():
        # A run loads the dialects of its result. What was parsed before, as operations of
        # dialects that nobody knows, would be taken for others then.
        _run(ir.Module.parse(""), "stablehlo-legalize-to-linalg")
        parsed = ir.Module.parse(module)
        # A composite that no pass raised is what it stands for.
        _inline(parsed, composites=True)
        for function in list(parsed.body.operations):
            if function.name.value == "main":
                _accumulate_in_f32(function.operation)
                lower_rest(function.operation, parsed)
                _make_static(function.operation)
                widen(function.operation, types)
                if weights is not None:
                    arguments = stack_weights(function.operation, arguments, weights)
                _describe(function.operation, arguments)
            else:
                function.operation.erase()
        _run(parsed, "canonicalize,cse,stablehlo-legalize-to-linalg,canonicalize,cse")
        text = _text(parsed)
    left = sorted(set(re.findall(r'"((?:stablehlo|chlo)\.(?!return)\w+)"\(', text)))
    if left:
        raise MoEError(UNIMPLEMENTED, "no lowering of " + ", ".join(left))
    return _moe_opt(text, *SIMPLIFICATION)


def _describe(function: ir.Operation, arguments: list[tuple[str, str]]) -> None:
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(
        {"moe.name": ir.StringAttr.get(name), "moe.role": ir.StringAttr.get(role)})
        for name, role in arguments])
    for holder, names in ((function, ("res_attrs",)),
                          (function.parent, ("jax.uses_shape_polymorphism", "mhlo.num_partitions",
                                             "mhlo.num_replicas"))):
        for name in names:
            if name in holder.attributes:
                del holder.attributes[name]


# -- calls ------------------------------------------------------------------


def _inline(module: ir.Module, composites: bool = False) -> None:
    """Inline the calls of the public function, and drop the checks of its shapes."""
    callees = {"func.call": "callee"}
    if composites:
        callees["stablehlo.composite"] = "decomposition"
    functions = {f.name.value: f for f in module.body.operations if f.operation.name == "func.func"}
    main = functions["main"].operation
    while found := _operations(main, callees):
        for op in found:
            _inline_call(op, functions[ir.FlatSymbolRefAttr(op.attributes[callees[op.name]]).value])
    for op in _operations(main, ("stablehlo.custom_call",)):
        if ir.StringAttr(op.attributes["call_target_name"]).value == "shape_assertion":
            op.erase()


def _operations(root: ir.Operation, names: Iterable[str]) -> list[ir.Operation]:
    """Return the operations with these names, in the regions of others, too."""
    found = []

    def visit(op: ir.Operation) -> ir.WalkResult:
        if op.name in names:
            found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return found


def _inline_call(call: ir.Operation, function: ir.Operation) -> None:
    entry = function.regions[0].blocks[0]
    values = dict(zip(entry.arguments, call.operands))

    def use_values(op: ir.Operation) -> ir.WalkResult:
        for index, operand in enumerate(op.operands):
            if operand in values:
                op.operands[index] = values[operand]
        return ir.WalkResult.ADVANCE

    for inner in (o.operation for o in entry.operations):
        if inner.name == "func.return":
            for old, new in zip(call.results, inner.operands):
                old.replace_all_uses_with(values.get(new, new))
            break
        copy = inner.clone(ir.InsertionPoint(call))
        copy.walk(use_values)
        values.update(zip(inner.results, copy.results))
    call.erase()


# -- products ---------------------------------------------------------------


def _accumulate_in_f32(function: ir.Operation) -> None:
    """Products of 16-bit floats are rounded once, as XLA does; lowered to linalg as they are, each
    sum of their accumulator would be."""
    f32 = ir.F32Type.get()
    for op in _operations(function, ("stablehlo.dot", "stablehlo.dot_general")):
        type_ = op.results[0].type
        if not isinstance(type_.element_type, (ir.BF16Type, ir.F16Type)):
            continue
        with op.location:
            accumulator = ir.RankedTensorType.get(type_.shape, f32)
        wide = create(op.name, accumulator, list(op.operands), op,
                      **{name: op.attributes[name] for name in op.attributes})
        op.results[0].replace_all_uses_with(create("stablehlo.convert", type_, [wide], op))
        op.erase()


# -- dynamic shapes -----------------------------------------------------------


def _make_static(function: ir.Operation) -> None:
    """Say more about operations of dynamic shapes, which are lowered then."""
    names = ("stablehlo.dynamic_broadcast_in_dim", "stablehlo.dynamic_iota",
             "stablehlo.dynamic_reshape", "stablehlo.real_dynamic_slice",
             "stablehlo.get_dimension_size")
    for op in _operations(function, names)[::-1]:
        if op.name == "stablehlo.dynamic_broadcast_in_dim":
            _mark_broadcast(op)
            _rewrite_shape(op, 1)
        elif op.name == "stablehlo.dynamic_iota":
            _rewrite_shape(op, 0)
        elif op.name == "stablehlo.dynamic_reshape":
            _reshape(op)
        elif op.name == "stablehlo.real_dynamic_slice":
            _slice(op)
        elif op.name == "stablehlo.get_dimension_size":
            _dimension(op)


def _mark_broadcast(op: ir.Operation) -> None:
    """JAX repeats dimensions of extent 1 that are static, and no others."""
    source, result = op.operands[0].type, op.results[0].type
    dims = list(ir.DenseI64ArrayAttr(op.attributes["broadcast_dimensions"]))
    expanding, other = [], []
    for index, dim in enumerate(dims):
        one = not source.is_dynamic_dim(index) and source.get_dim_size(index) == 1
        same = not result.is_dynamic_dim(dim) and result.get_dim_size(dim) == 1
        (expanding if one and not same else other).append(index)
    op.attributes["known_expanding_dimensions"] = ir.DenseI64ArrayAttr.get(expanding)
    op.attributes["known_nonexpanding_dimensions"] = ir.DenseI64ArrayAttr.get(other)


def _rewrite_shape(op: ir.Operation, index: int) -> None:
    """Compute the extents of a dynamic shape apart, so that their bounds are seen."""
    shape = op.operands[index]
    type_ = shape.type.element_type
    extents = [element(shape, place, op) for place in range(shape.type.get_dim_size(0))]
    if type_ != ir.IndexType.get():
        extents = [create("arith.index_cast", type_, [extent], op) for extent in extents]
    op.operands[index] = create("tensor.from_elements", shape.type, extents, op)


def _dimension(op: ir.Operation) -> None:
    dim = constant(ir.IntegerAttr(op.attributes["dimension"]).value, op)
    extent = create("tensor.dim", ir.IndexType.get(), [op.operands[0], dim], op)
    result = op.results[0].type
    extent = create("arith.index_cast", result.element_type, [extent], op)
    op.results[0].replace_all_uses_with(create("tensor.from_elements", result, [extent], op))
    op.erase()


def _reassociation(many: list[int | None], few: list[int | None]) -> list[list[int]] | None:
    """Return which dimensions of ``many`` each of ``few`` has; None stands for a dynamic one."""
    if not few:
        return [] if not many else None
    extent, *rest = few
    ends = range(1, len(many) + 1)
    # A dynamic one has as many of the others as later ones do not need.
    for end in ends if extent is not None else ends[::-1]:
        group = many[:end]
        if extent is None:
            fits = group.count(None) == 1
        else:
            # Dimensions of extent 1 at the end belong to the last one.
            fits = None not in group and math.prod(group) == extent and (
                rest or end == len(many))
        groups = _reassociation(many[end:], rest) if fits else None
        if groups is not None:
            return [list(range(end)), *([end + dim for dim in g] for g in groups)]
    return None


def _reshape(op: ir.Operation) -> None:
    """Make a reshape of one dynamic extent one that merges or splits dimensions, if it is."""
    source, shape = op.operands
    result = op.results[0].type
    before, after = ([None if t.is_dynamic_dim(i) else t.get_dim_size(i) for i in range(t.rank)]
                     for t in (source.type, result))
    merges = len(after) < len(before)
    groups = _reassociation(*((before, after) if merges else (after, before)))
    if groups is None or len(after) == len(before):
        index = ir.IndexType.get()
        extents = [element(shape, dim, op) for dim in range(result.rank)]
        with op.location:
            of_shape = ir.RankedTensorType.get([result.rank], index)
        shape = create("tensor.from_elements", of_shape, extents, op)
        op.results[0].replace_all_uses_with(
            create("tensor.reshape", result, [source, shape], op))
        op.erase()
        return
    i64 = ir.IntegerType.get_signless(64)
    reassociation = ir.ArrayAttr.get([ir.ArrayAttr.get(
        [ir.IntegerAttr.get(i64, dim) for dim in group]) for group in groups])
    if merges:
        new = create("tensor.collapse_shape", result, [source], op, reassociation=reassociation)
    else:
        extents = [element(shape, dim, op) for dim, e in enumerate(after) if e is None]
        dynamic = ir.ShapedType.get_dynamic_size()
        new = create("tensor.expand_shape", result, [source, *extents], op,
                      reassociation=reassociation, static_output_shape=ir.DenseI64ArrayAttr.get(
                          [dynamic if e is None else e for e in after]))
    op.results[0].replace_all_uses_with(new)
    op.erase()


def _slice(op: ir.Operation) -> None:
    """Make a slice from the first row, to any, one of tensors."""
    source, start, limit, stride = op.operands
    starts, strides, result = constants(start), constants(stride), op.results[0].type
    if starts is None or strides is None or set(strides) != {1}:
        return
    dynamic = ir.ShapedType.get_dynamic_size()
    sizes, extents = [], []
    for dim in range(result.rank):
        if not result.is_dynamic_dim(dim):
            sizes.append(result.get_dim_size(dim))
            continue
        if starts[dim] != 0 or dim != 0:
            return
        sizes.append(dynamic)
        extents.append(element(limit, dim, op))
    new = create("tensor.extract_slice", result, [source, *extents], op,
                  static_offsets=ir.DenseI64ArrayAttr.get(starts),
                  static_sizes=ir.DenseI64ArrayAttr.get(sizes),
                  static_strides=ir.DenseI64ArrayAttr.get(strides),
                  operandSegmentSizes=ir.DenseI32ArrayAttr.get([1, 0, len(extents), 0]))
    op.results[0].replace_all_uses_with(new)
    op.erase()
