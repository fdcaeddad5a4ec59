//===- QuantizeToLinalg.cpp - moe.quantize --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

/// The largest finite value of f8E4M3FN.
static constexpr double largest = 448.0;

/// Returns max |row[k]| / 448 for each block of columns.
static Value scalesOf(TensorBuilder &b, QuantizeOp op) {
  Type f32 = b.getF32Type();
  OpFoldResult rows = b.size(op.getRows(), 0);
  OpFoldResult blocks = b.getIndexAttr(op.getScales().getType().getDimSize(1));
  // Only provides the extents of the loops.
  Value extents = b.empty({blocks, b.getIndexAttr(op.getBlock())}, f32);
  AffineExpr block = b.getAffineDimExpr(1), step = b.getAffineDimExpr(2);
  AffineMap in = AffineMap::get(3, 0, {block, step}, b.getContext());
  AffineMap out =
      AffineMap::getMultiDimMapWithTargets(3, {0, 1}, b.getContext());
  Value maxima =
      b.generic(
           3, 1, extents, {in, out}, b.fill({rows, blocks}, b.f32(0.0)),
           [&](ValueRange v) -> SmallVector<Value> {
             Value first = arith::MulIOp::create(
                 b, linalg::IndexOp::create(b, 1), b.index(op.getBlock()));
             Value k =
                 arith::AddIOp::create(b, first, linalg::IndexOp::create(b, 2));
             // Beyond the last column, reads it again: a maximum is idempotent.
             k = b.clamp(k, b.index(op.getColumns() - 1));
             Value x = b.toFloat(
                 b.extract(op.getRows(), {linalg::IndexOp::create(b, 0), k}),
                 f32);
             x = math::AbsFOp::create(b, x);
             return {arith::MaximumFOp::create(b, v[1], x)};
           })
          .front();
  return b.map(maxima, f32, [&](ValueRange v) -> Value {
    return arith::DivFOp::create(b, v[0], b.f32(largest));
  });
}

SmallVector<Value> mlir::moe::lowerToLinalg(QuantizeOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  Value scales = scalesOf(b, op);
  Type element = op.getQuantized().getType().getElementType();
  Value quantized = b.map(op.getRows(), element, [&](ValueRange v) -> Value {
    Value block = arith::DivUIOp::create(b, linalg::IndexOp::create(b, 1),
                                         b.index(op.getBlock()));
    Value scale = b.extract(scales, {linalg::IndexOp::create(b, 0), block});
    Value isZero =
        arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, scale, b.f32(0.0));
    scale = arith::SelectOp::create(b, isZero, b.f32(1.0), scale);
    Value x = b.toFloat(v[0], b.getF32Type());
    x = arith::DivFOp::create(b, x, scale);
    x = arith::MinimumFOp::create(b, x, b.f32(largest));
    x = arith::MaximumFOp::create(b, x, b.f32(-largest));
    return b.toFloat(x, element);
  });
  return {quantized, scales};
}
