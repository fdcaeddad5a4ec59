//===- TorchGroupedMatmul.cpp - PyTorch's grouped products ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// torch-mlir has no operation for them and writes "torch.operator" with their
// name. The groups are ends, not sizes, and the rows after the last one are
// undefined. Without ends it is a product of batches; ends may also divide the
// columns of the second operand.
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

Outcome
mlir::moe::raising::raiseTorchGroupedMatmul(Operation *op,
                                            GroupedProductBuilder &builder) {
  if (!isNamed(op, "torch.operator"))
    return {};
  auto name = op->getAttrOfType<StringAttr>("name");
  if (!name)
    return {};
  bool isFallback = name.getValue() == "torch.transformers.grouped_mm_fallback";
  if (!isFallback && name.getValue() != "torch.aten._grouped_mm")
    return {};
  if (op->getNumOperands() < 3 || op->getNumResults() != 1)
    return Outcome::left("expected the operands self, mat2 and offs");
  Value lhs = op->getOperand(0), rhs = op->getOperand(1),
        ends = op->getOperand(2);
  // The type of the result says the data type.
  if (op->getNumOperands() > 3 && !isTorchNone(op->getOperand(3)))
    return Outcome::left("it has a bias");
  Type result = op->getResult(0).getType();
  RankedTensorType left = tensorTypeOf(lhs.getType()),
                   right = tensorTypeOf(rhs.getType());
  if (!left || !right)
    return Outcome::left("an operand is no tensor of known rank");
  if (isTorchNone(ends))
    return builder.replace(op, BatchedProduct{lhs, rhs, result});
  if (left.getRank() == 3 && right.getRank() == 2 && !isFallback)
    return builder.replace(op, ColumnGroups{lhs, rhs, ends, result});
  if (left.getRank() == 2 && right.getRank() == 2 && !isFallback)
    return builder.replace(op,
                           GroupedGradient{lhs, /*transposed=*/true, rhs, ends,
                                           GroupArgument::Ends, result});
  if (left.getRank() != 2 || right.getRank() != 3)
    return Outcome::left("expected matrices, or rows and weights [g, k, n]");
  return builder.replace(op, GroupedProduct{lhs, ends, GroupArgument::Ends, rhs,
                                            /*transposed=*/false,
                                            /*zeroRest=*/isFallback, result});
}
