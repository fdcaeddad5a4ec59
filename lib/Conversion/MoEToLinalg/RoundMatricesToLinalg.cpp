//===- RoundMatricesToLinalg.cpp - moe.round_matrices ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

static Value toF64(ImplicitLocOpBuilder &b, Value value) {
  return arith::ExtFOp::create(b, b.getF64Type(), value);
}

/// Returns a tensor of an f64 for each expert of `matrices`, `[?, N, K]`.
static Value emptyForExperts(ImplicitLocOpBuilder &b, Value matrices,
                             Type element) {
  return tensor::EmptyOp::create(
      b, ArrayRef{tensor::getMixedSize(b, b.getLoc(), matrices, 0)}, element);
}

/// Returns ‖decoded − w‖ / ‖w‖ of each expert, `[?]` in f32; 0 for zeros.
/// Operands are `[?, N, K]`.
static Value buildErrors(ImplicitLocOpBuilder &b, Value decoded, Value weights,
                         bool transposed) {
  Value zero = arith::ConstantOp::create(b, b.getF64FloatAttr(0.0));
  Value init = linalg::FillOp::create(
                   b, zero, emptyForExperts(b, weights, b.getF64Type()))
                   .getResult(0);
  AffineMap identity = b.getMultiDimIdentityMap(3);
  AffineMap ofWeights =
      transposed
          ? AffineMap::getMultiDimMapWithTargets(3, {0, 2, 1}, b.getContext())
          : identity;
  AffineMap ofExperts =
      AffineMap::getMultiDimMapWithTargets(3, {0}, b.getContext());
  auto parallel = utils::IteratorType::parallel;
  auto reduction = utils::IteratorType::reduction;
  auto sums = linalg::GenericOp::create(
      b, TypeRange{init.getType(), init.getType()},
      ValueRange{decoded, weights}, ValueRange{init, init},
      ArrayRef{identity, ofWeights, ofExperts, ofExperts},
      ArrayRef{parallel, reduction, reduction},
      [](OpBuilder &builder, Location loc, ValueRange v) {
        ImplicitLocOpBuilder b(loc, builder);
        Value w = toF64(b, v[1]);
        Value error = arith::SubFOp::create(b, toF64(b, v[0]), w);
        Value errors = arith::AddFOp::create(
            b, v[2], arith::MulFOp::create(b, error, error));
        Value weights =
            arith::AddFOp::create(b, v[3], arith::MulFOp::create(b, w, w));
        linalg::YieldOp::create(b, ValueRange{errors, weights});
      });
  Value out = emptyForExperts(b, weights, b.getF32Type());
  AffineMap each = b.getMultiDimIdentityMap(1);
  return linalg::GenericOp::create(
             b, TypeRange{out.getType()}, sums.getResults(), ValueRange{out},
             ArrayRef{each, each, each}, ArrayRef{parallel},
             [&](OpBuilder &builder, Location loc, ValueRange v) {
               ImplicitLocOpBuilder b(loc, builder);
               Value zero =
                   arith::ConstantOp::create(b, b.getF64FloatAttr(0.0));
               Value one = arith::ConstantOp::create(b, b.getF64FloatAttr(1.0));
               Value isZero = arith::CmpFOp::create(
                   b, arith::CmpFPredicate::OEQ, v[1], zero);
               Value weights = arith::SelectOp::create(b, isZero, one, v[1]);
               Value ratio = math::SqrtOp::create(
                   b, arith::DivFOp::create(b, v[0], weights));
               linalg::YieldOp::create(b, ValueRange{arith::TruncFOp::create(
                                              b, b.getF32Type(), ratio)});
             })
      .getResult(0);
}

SmallVector<Value> mlir::moe::lowerToLinalg(RoundMatricesOp op,
                                            OpBuilder &builder) {
  ImplicitLocOpBuilder b(op.getLoc(), builder);
  auto quantized =
      QuantizeOp::create(b, op.getSource(), op.getTransposed(), op.getFormat());
  if (!op.isMeasurement())
    return llvm::to_vector_of<Value>(quantized.getFields());
  SmallVector<int64_t> shape{op.getSourceType().getDimSize(0), op.getN(),
                             op.getK()};
  Value decoded =
      DequantizeOp::create(b, RankedTensorType::get(shape, b.getF32Type()),
                           quantized.getFields(), op.getFormat());
  return {buildErrors(b, decoded, op.getSource(), op.getTransposed())};
}
