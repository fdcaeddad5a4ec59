//===- RaiseSoftmax.cpp - Softmax of other dialects ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// jax.nn.softmax over the last dimension of a matrix, in the operations that it
// lowers to.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the matrix whose rows `tensor` reduces; null if it does not.
static Value matchRows(Value tensor, Update update, double start) {
  Operation *op = tensor.getDefiningOp();
  if (!isNamed(op, "stablehlo.reduce") || op->getNumOperands() != 2 ||
      updateOf(op) != update ||
      integersOf(op, "dimensions") != SmallVector<int64_t>{1})
    return {};
  return splatOf(op->getOperand(1)) == start ? op->getOperand(0) : Value();
}

bool mlir::moe::raising::raiseSoftmax(Operation *op, RewriterBase &rewriter) {
  if (!isNamed(op, "stablehlo.divide") || op->getNumOperands() != 2)
    return false;
  auto type = dyn_cast<RankedTensorType>(op->getResult(0).getType());
  if (!type || type.getRank() != 2 || !type.getElementType().isF32() ||
      type.isDynamicDim(1))
    return false;
  Value powers = op->getOperand(0);
  Value sum = repeatedAlongRows(op->getOperand(1), 1);
  Operation *exp = definedBy(powers, "stablehlo.exponential");
  if (!exp || !sum || matchRows(sum, Update::Add, 0.0) != powers)
    return false;
  Operation *difference = definedBy(exp->getOperand(0), "stablehlo.subtract");
  Value scores = difference ? difference->getOperand(0) : Value();
  Value largest =
      difference ? repeatedAlongRows(difference->getOperand(1), 1) : Value();
  if (!largest || scores.getType() != type)
    return false;
  // The largest and −inf, which is the same.
  constexpr double least = -std::numeric_limits<double>::infinity();
  if (Operation *bound = definedBy(largest, "stablehlo.maximum"))
    for (unsigned i : {0u, 1u})
      if (splatOf(bound->getOperand(i)) == least)
        largest = bound->getOperand(1 - i);
  if (matchRows(largest, Update::Max, least) != scores)
    return false;
  Location loc = op->getLoc();
  Value init = tensor::EmptyOp::create(
      rewriter, loc, tensor::getMixedSizes(rewriter, loc, scores),
      type.getElementType());
  auto softmax = linalg::SoftmaxOp::create(rewriter, loc, TypeRange(type),
                                           scores, init, /*dimension=*/1);
  rewriter.replaceOp(op, softmax);
  return true;
}
