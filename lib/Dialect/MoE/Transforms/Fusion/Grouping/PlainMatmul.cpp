//===- PlainMatmul.cpp - Plain matmuls as grouped matmuls -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "PlainMatmul.h"

#include "mlir/IR/Matchers.h"

using namespace mlir;
using namespace mlir::moe;

/// True if the body of `op` is accumulator + lhs · rhs in f32, nothing else.
static bool isPlainBody(linalg::LinalgOp op) {
  Block *body = op.getBlock();
  auto operandOf = [](Value value) {
    if (auto extension = value.getDefiningOp<arith::ExtFOp>())
      value = extension.getIn();
    return dyn_cast<BlockArgument>(value);
  };
  Value yielded = body->getTerminator()->getOperand(0);
  auto sum = yielded.getDefiningOp<arith::AddFOp>();
  if (!sum)
    return false;
  Value accumulator = body->getArgument(2);
  Value term = sum.getLhs() == accumulator ? sum.getRhs() : sum.getLhs();
  auto product = term.getDefiningOp<arith::MulFOp>();
  if (!product || (sum.getLhs() != accumulator && sum.getRhs() != accumulator))
    return false;
  BlockArgument x = operandOf(product.getLhs()),
                y = operandOf(product.getRhs());
  auto isOperand = [&](BlockArgument argument, unsigned index) {
    return argument && argument == body->getArgument(index);
  };
  return (isOperand(x, 0) && isOperand(y, 1)) ||
         (isOperand(x, 1) && isOperand(y, 0));
}

std::optional<PlainMatmul> mlir::moe::matchPlainMatmul(linalg::LinalgOp op) {
  auto maps = op.getIndexingMapsArray();
  if (!linalg::isaContractionOpInterface(op) || maps.size() != 3 ||
      op.getNumLoops() != 3 || !op.hasPureTensorSemantics() || !isPlainBody(op))
    return std::nullopt;
  MLIRContext *context = op.getContext();
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, context);
  };
  bool transposed = maps[1] == map({1, 2});
  if (maps[0] != map({0, 2}) || maps[2] != map({0, 1}) ||
      (!transposed && maps[1] != map({2, 1})))
    return std::nullopt;
  auto isF32Zero = [](Value value) {
    auto fill = value.getDefiningOp<linalg::FillOp>();
    return fill && fill.value().getType().isF32() &&
           matchPattern(fill.value(), m_PosZeroFloat());
  };
  Value lhs = op.getDpsInputOperand(0)->get(),
        rhs = op.getDpsInputOperand(1)->get();
  auto lhsType = cast<RankedTensorType>(lhs.getType());
  auto rhsType = cast<RankedTensorType>(rhs.getType());
  if (!isF32Zero(op.getDpsInitOperand(0)->get()) || !rhsType.hasStaticShape() ||
      lhsType.isDynamicDim(1) ||
      lhsType.getElementType() != rhsType.getElementType() ||
      !(lhsType.getElementType().isF32() || lhsType.getElementType().isF16() ||
        lhsType.getElementType().isBF16()))
    return std::nullopt;
  return PlainMatmul{lhs, rhs, transposed};
}

Value mlir::moe::buildPlainMatmul(OpBuilder &b, Location loc, Value lhs,
                                  Value offsets, Value weights, bool transposed,
                                  IntegerAttr first) {
  auto type = cast<RankedTensorType>(weights.getType());
  int64_t columns = type.getDimSize(transposed ? 1 : 2);
  Value init = tensor::EmptyOp::create(
      b, loc,
      ArrayRef<OpFoldResult>{tensor::getMixedSize(b, loc, lhs, 0),
                             b.getIndexAttr(columns)},
      b.getF32Type());
  auto matmul = GroupedMatmulOp::create(
      b, loc, init.getType(), lhs, /*gather=*/nullptr, offsets, weights,
      /*lhs_scales=*/nullptr, /*weight_scales=*/ValueRange(),
      /*extras=*/ValueRange(), init, transposed, /*panels=*/nullptr,
      /*maps=*/nullptr, first, /*blocks=*/nullptr);
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&matmul.getEpilogue());
  YieldOp::create(b, loc, body->addArgument(b.getF32Type(), loc));
  return matmul.getResult();
}
