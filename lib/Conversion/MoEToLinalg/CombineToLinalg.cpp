//===- CombineToLinalg.cpp - moe.combine ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"
#include "moe/Conversion/MoEToLinalg/MoEToLinalg.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

/// Returns the weights in f32, normalised over the choices that were kept.
static Value keptWeights(TensorBuilder &b, CombineOp op) {
  Type f32 = b.getF32Type();
  Value weights = b.map(op.getWeights(), f32,
                        [&](ValueRange v) { return b.toFloat(v[0], f32); });
  if (!op.getNormalize())
    return weights;
  Value kept = b.mask(op.getPositions(), [&](ValueRange v) -> Value {
    return arith::CmpIOp::create(b, arith::CmpIPredicate::sge, v[0], b.i32(0));
  });
  return b.normalize(weights, kept, *op.getNormalize(), f32);
}

/// Adds up the rows of the choices of each token. `weights` (f32) and `dropped`
/// may be null.
static Value gatherSum(TensorBuilder &b, Value grouped, Value positions,
                       Value weights, Value dropped) {
  Type f32 = b.getF32Type();
  Type element = cast<RankedTensorType>(grouped.getType()).getElementType();
  Value rows = b.dim(grouped, 0);
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, b.getContext());
  };
  SmallVector<Value> inputs{positions};
  SmallVector<AffineMap> maps{map({0, 2})};
  if (weights) {
    inputs.push_back(weights);
    maps.push_back(map({0, 2}));
  }
  if (dropped) {
    inputs.push_back(dropped);
    maps.push_back(map({0, 1}));
  }
  maps.push_back(map({0, 1}));
  SmallVector<OpFoldResult> sizes{b.size(positions, 0), b.size(grouped, 1)};

  auto body = [&](ValueRange v) {
    Value sum = v.back();
    auto add = [&](Value x) -> Value {
      x = b.toFloat(x, f32);
      if (weights)
        x = arith::MulFOp::create(b, v[1], x);
      return arith::AddFOp::create(b, sum, x);
    };
    Value row = b.toIndex(v[0]), h = linalg::IndexOp::create(b, 1);
    Value kept = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, rows);
    auto choice = scf::IfOp::create(b, f32, kept, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(choice.thenBlock());
    scf::YieldOp::create(b, add(b.extract(grouped, {row, h})));
    b.setInsertionPointToStart(choice.elseBlock());
    scf::YieldOp::create(b, dropped ? add(v[v.size() - 2]) : sum);
    return SmallVector<Value>{choice.getResult(0)};
  };
  Value sum =
      b.generic(3, 1, inputs, maps, b.fill(sizes, b.f32(0.0)), body).front();
  if (!element.isF32())
    sum = b.map(sum, element,
                [&](ValueRange v) { return b.toFloat(v[0], element); });
  return sum;
}

SmallVector<Value> mlir::moe::lowerToLinalg(CombineOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  Value weights = op.getWeights() ? keptWeights(b, op) : Value();
  return {gatherSum(b, op.getGrouped(), op.getPositions(), weights,
                    op.getDropped())};
}

SmallVector<Value> mlir::moe::lowerToLinalg(GatherSumOp op,
                                            OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  return {gatherSum(b, op.getRows(), op.getPositions(), op.getWeights(),
                    op.getDropped())};
}

Value mlir::moe::decomposeCombine(CombineOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  Value weights = op.getWeights() ? keptWeights(b, op) : Value();
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // cannot fail for this operation
  Value init = b.empty(shapes[0], op.getResult().getType().getElementType());
  Value sum =
      GatherSumOp::create(b, init.getType(), op.getGrouped(), op.getPositions(),
                          weights, op.getDropped(), init)
          .getResult();
  Type type = op.getResult().getType();
  return sum.getType() == type ? sum : tensor::CastOp::create(b, type, sum);
}
