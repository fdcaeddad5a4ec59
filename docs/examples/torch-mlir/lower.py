"""Lowers what moe-opt left of a program of torch-mlir to linalg: a filter of text.

    moe-opt block.mlir --allow-unregistered-dialect --mlir-print-op-generic \\
        --moe-raise-routing --moe-raise-grouped | python lower.py x up:weight > lowered.mlir

Arguments name those of the function, and which are weights.
"""

from __future__ import annotations

import re
import sys

from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.passmanager import PassManager

# Partial conversions: those of torch-backend-to-linalg-on-tensors-backend-pipeline refuse
# operations of other dialects.
STEPS = ("func.func(torch-recompose-complex-ops,torch-decompose-complex-ops),canonicalize,"
         "cse,func.func(convert-torch-to-linalg,convert-torch-to-tensor,convert-torch-to-arith),"
         "canonicalize,cse,func.func(torch-finalizing-backend-type-conversion),canonicalize,cse")


def lower(text: str, arguments: list[tuple[str, str]]) -> str:
    """Return a raised program, in the generic form, without operations of torch.

    ``arguments`` are the names and roles ("input" or "weight") of those of its function.
    """
    with ir.Context() as context:
        # Those of moe.
        context.allow_unregistered_dialects = True
        torch_dialect.register_dialect(context)
        steps = PassManager.parse(f"builtin.module({STEPS})")
        # A run loads the dialects of its result, which have to be there to parse.
        steps.run(ir.Module.parse("").operation)
        module = ir.Module.parse(text)
        for function in module.body.operations:
            take_tensors(function.operation, arguments)
        steps.run(module.operation)
        return module.operation.get_asm(print_generic_op_form=True, enable_debug_info=False)


def take_tensors(function: ir.Operation, arguments: list[tuple[str, str]]) -> None:
    """Give a function tensors as arguments and results, and names to its arguments."""
    block = function.regions[0].blocks[0]
    start, end = ir.InsertionPoint.at_block_begin(block), list(block.operations)[-1].operation
    with ir.Location.unknown():
        for argument in block.arguments:
            foreign = argument.type
            argument.set_type(tensor_of(foreign))
            with start:
                cast = ir.Operation.create("torch_c.from_builtin_tensor", [foreign], [argument])
            argument.replace_all_uses_except(cast.result, cast)
        with ir.InsertionPoint(end):
            for index, value in enumerate(end.operands):
                end.operands[index] = ir.Operation.create(
                    "torch_c.to_builtin_tensor", [tensor_of(value.type)], [value]).result
    function.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(
        [a.type for a in block.arguments], [v.type for v in end.operands]))
    function.attributes["arg_attrs"] = ir.ArrayAttr.get([ir.DictAttr.get(
        {"moe.name": ir.StringAttr.get(name), "moe.role": ir.StringAttr.get(role)})
        for name, role in arguments])


def tensor_of(type_: ir.Type) -> ir.Type:
    shape, element = re.fullmatch(r"!torch.vtensor<\[(.*)\],(\w+)>", str(type_)).groups()
    extents = "".join(extent + "x" for extent in shape.split(",") if extent)
    return ir.Type.parse(f"tensor<{extents}{element.replace('si', 'i')}>")


if __name__ == "__main__":
    pairs = [name.partition(":") for name in sys.argv[1:]]
    print(lower(sys.stdin.read(), [(name, role or "input") for name, _, role in pairs]))
