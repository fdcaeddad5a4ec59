//===- TorchScaledGroupedMatmul.cpp - PyTorch's 8-bit grouped products ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// torch.aten._scaled_grouped_mm of rows [m, k] and weights [g, k, n] of
// f8E4M3FN, with a scale of each row [m] and of each column [g, n]: the sum
// times both. The groups are ends, the rows after the last one undefined. Its
// second version has lists of scales, each with a recipe.
//
//===----------------------------------------------------------------------===//

#include "GroupedProduct.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the only element of a list of torch-mlir; null if it has others.
static Value onlyOf(Value list) {
  Operation *op = definedBy(list, "torch.prim.ListConstruct");
  return op && op->getNumOperands() == 1 ? op->getOperand(0) : Value();
}

/// Returns the scales [..] that a list has, where their recipe is one scale for
/// each row, or column, that is stored in order; null for others.
static Value scalesOf(Operation *op, unsigned scales) {
  auto is = [&](unsigned operand, int64_t expected) {
    Value only = onlyOf(op->getOperand(operand));
    Operation *constant = only ? only.getDefiningOp() : nullptr;
    return constant &&
           integersOf(constant, "value") == SmallVector<int64_t>{expected};
  };
  constexpr int64_t rowWise = 1, noSwizzle = 0; // of ATen's enumerations
  return is(scales + 1, rowWise) && is(scales + 2, noSwizzle)
             ? onlyOf(op->getOperand(scales))
             : Value();
}

Outcome mlir::moe::raising::raiseTorchScaledGroupedMatmul(
    Operation *op, GroupedProductBuilder &builder) {
  if (!isNamed(op, "torch.operator"))
    return {};
  auto name = op->getAttrOfType<StringAttr>("name");
  if (!name || !name.getValue().starts_with("torch.aten._scaled_grouped_mm"))
    return {};
  bool isSecond = name.getValue() == "torch.aten._scaled_grouped_mm_v2";
  if (!isSecond && name.getValue() != "torch.aten._scaled_grouped_mm")
    return Outcome::left("it is another operation: " + name.getValue());
  // self, mat2, scale_a, scale_b, offs, bias, scale_result, out_dtype,
  // use_fast_accum; or self, mat2, scale_a, recipe_a, swizzle_a, scale_b,
  // recipe_b, swizzle_b, offs, bias, out_dtype, contraction_dim,
  // use_fast_accum. The type of the result says the data type.
  unsigned ends = isSecond ? 8 : 4;
  if (op->getNumOperands() <= ends || op->getNumResults() != 1)
    return Outcome::left("expected the operands self, mat2, their scales and "
                         "offs");
  auto given = [&](unsigned operand) {
    return op->getNumOperands() > operand &&
           !isTorchNone(op->getOperand(operand));
  };
  if (!given(ends))
    return Outcome::left("it has no offs: a batched matmul");
  if (given(ends + 1) || (!isSecond && given(6)))
    return Outcome::left("it has a bias or a scale of the result");
  Value left = op->getOperand(0), right = op->getOperand(1);
  Value rowScales = isSecond ? scalesOf(op, 2) : op->getOperand(2),
        weightScales = isSecond ? scalesOf(op, 5) : op->getOperand(3);
  if (!rowScales || !weightScales)
    return Outcome::left("a recipe is not one scale of each row and column");
  if (isSecond && given(11)) {
    // The dimensions that are summed are the last of self and the one before
    // of mat2, as they are if none are given.
    Operation *dims = definedBy(op->getOperand(11), "torch.prim.ListConstruct");
    if (!dims || dims->getNumOperands() != 0)
      return Outcome::left("it names the dimensions that it contracts");
  }
  RankedTensorType rows = tensorTypeOf(left.getType()),
                   weights = tensorTypeOf(right.getType());
  if (!rows || !weights)
    return Outcome::left("an operand is no tensor of known rank");
  if (rows.getRank() != 2 || weights.getRank() != 3)
    return Outcome::left("expected rows and weights [g, k, n]");
  return builder.replace(
      op, GroupedProduct{left, op->getOperand(ends), GroupArgument::Ends, right,
                         /*transposed=*/false, /*zeroRest=*/false,
                         op->getResult(0).getType(), rowScales, weightScales});
}
