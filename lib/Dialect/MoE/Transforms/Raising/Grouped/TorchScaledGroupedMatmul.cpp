//===- TorchScaledGroupedMatmul.cpp - PyTorch's 8-bit grouped products ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// torch.aten._scaled_grouped_mm of rows [m, k] and weights [g, k, n] of
// f8E4M3FN, with a scale of each row [m] and of each column [g, n]: the sum
// times both. The groups are ends, the rows after the last one undefined.
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

Outcome mlir::moe::raising::raiseTorchScaledGroupedMatmul(
    Operation *op, GroupedProductBuilder &builder) {
  if (!isNamed(op, "torch.operator"))
    return {};
  auto name = op->getAttrOfType<StringAttr>("name");
  if (!name || !name.getValue().starts_with("torch.aten._scaled_grouped_mm"))
    return {};
  if (name.getValue() != "torch.aten._scaled_grouped_mm")
    return Outcome::left("its recipes of scales are not read: " +
                         name.getValue());
  // self, mat2, scale_a, scale_b, offs, bias, scale_result, out_dtype,
  // use_fast_accum. The type of the result says the data type.
  if (op->getNumOperands() < 5 || op->getNumResults() != 1)
    return Outcome::left("expected the operands self, mat2, scale_a, scale_b "
                         "and offs");
  auto given = [&](unsigned operand) {
    return op->getNumOperands() > operand &&
           !isTorchNone(op->getOperand(operand));
  };
  if (!given(4))
    return Outcome::left("it has no offs: a batched matmul");
  if (given(5) || given(6))
    return Outcome::left("it has a bias or a scale of the result");
  RankedTensorType left = tensorTypeOf(op->getOperand(0).getType()),
                   right = tensorTypeOf(op->getOperand(1).getType());
  if (!left || !right)
    return Outcome::left("an operand is no tensor of known rank");
  if (left.getRank() != 2 || right.getRank() != 3)
    return Outcome::left("expected rows and weights [g, k, n]");
  return builder.replace(
      op, GroupedProduct{op->getOperand(0), op->getOperand(4),
                         GroupArgument::Ends, op->getOperand(1),
                         /*transposed=*/false, /*zeroRest=*/false,
                         op->getResult(0).getType(), op->getOperand(2),
                         op->getOperand(3)});
}
