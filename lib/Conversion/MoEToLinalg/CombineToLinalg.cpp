//===- CombineToLinalg.cpp - moe.combine ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

/// The weights in f32, normalised over the choices that were kept.
static Value keptWeights(TensorBuilder &b, CombineOp op) {
  Type f32 = b.getF32Type();
  Value weights = b.map(op.getWeights(), f32, [&](ValueRange v) {
    return b.toFloat(v[0], f32);
  });
  if (!op.getNormalize())
    return weights;
  Value kept =
      b.map(op.getPositions(), b.getI1Type(), [&](ValueRange v) -> Value {
        return arith::CmpIOp::create(b, arith::CmpIPredicate::sge, v[0],
                                     b.i32(0));
      });
  return b.normalize(weights, kept, *op.getNormalize(), f32);
}

SmallVector<Value> mlir::moe::lowerToLinalg(CombineOp op,
                                            OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  Type f32 = b.getF32Type();
  Type element = op.getResult().getType().getElementType();
  Value grouped = op.getGrouped(), rows = b.dim(grouped, 0);

  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(3, dims, b.getContext());
  };
  SmallVector<Value> inputs{op.getPositions()};
  SmallVector<AffineMap> maps{map({0, 2})};
  if (op.getWeights()) {
    inputs.push_back(keptWeights(b, op));
    maps.push_back(map({0, 2}));
  }
  if (op.getDropped()) {
    inputs.push_back(op.getDropped());
    maps.push_back(map({0, 1}));
  }
  maps.push_back(map({0, 1}));
  SmallVector<OpFoldResult> sizes{b.size(op.getPositions(), 0),
                                  b.size(grouped, 1)};

  auto body = [&](ValueRange v) {
    Value sum = v.back();
    auto add = [&](Value x) -> Value {
      x = b.toFloat(x, f32);
      if (op.getWeights())
        x = arith::MulFOp::create(b, v[1], x);
      return arith::AddFOp::create(b, sum, x);
    };
    Value row = b.toIndex(v[0]), h = linalg::IndexOp::create(b, 1);
    Value kept =
        arith::CmpIOp::create(b, arith::CmpIPredicate::ult, row, rows);
    auto choice = scf::IfOp::create(b, f32, kept, /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(b);
    b.setInsertionPointToStart(choice.thenBlock());
    scf::YieldOp::create(b, add(b.extract(grouped, {row, h})));
    b.setInsertionPointToStart(choice.elseBlock());
    scf::YieldOp::create(
        b, op.getDropped() ? add(v[v.size() - 2]) : sum);
    return SmallVector<Value>{choice.getResult(0)};
  };
  Value sum = b.generic(3, 1, inputs, maps, b.fill(sizes, b.f32(0.0)), body)
                  .front();
  if (!element.isF32())
    sum = b.map(sum, element,
                [&](ValueRange v) { return b.toFloat(v[0], element); });
  return {sum};
}
