//===- MeasureQuantization.cpp - Measure errors of quantised weights ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/ABI/Passes.h"
#include "moe/Dialect/MoE/Transforms/ABI/WeightPreparation.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEMEASUREQUANTIZATION
#include "moe/Dialect/MoE/Transforms/ABI/Passes.h.inc"
} // namespace mlir::moe

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

/// Adds an argument with the errors of a quantised weight.
static void measure(WeightPreparation &preparation, QuantizeOp op) {
  auto type = op.getSource().getType();
  bool hasExperts = type.getRank() == 3;
  SmallVector<int64_t> matrices{ShapedType::kDynamic, op.getN(), op.getK()};
  auto errors = RankedTensorType::get({hasExperts ? type.getDimSize(0) : 1},
                                      Float32Type::get(op.getContext()));
  auto build = [&](ImplicitLocOpBuilder &b, ValueRange sources) -> Value {
    Value weights = sources.front();
    SmallVector<Value> fields =
        WeightPreparation::buildFields(b, op.getFields(), sources);
    Value decoded =
        DequantizeOp::create(b, RankedTensorType::get(matrices, b.getF32Type()),
                             fields, op.getFormat());
    return buildErrors(b, decoded, weights, op.getTransposed());
  };
  preparation.add(op.getLoc(), "error", errors,
                  {{cast<BlockArgument>(op.getSource()), hasExperts}}, build,
                  preparation.weightOf(op.getSource()).getName());
}

namespace {
struct MoEMeasureQuantization
    : moe::impl::MoEMeasureQuantizationBase<MoEMeasureQuantization> {
  using MoEMeasureQuantizationBase::MoEMeasureQuantizationBase;

  void runOnOperation() override {
    SmallVector<func::FuncOp> functions(getOperation().getOps<func::FuncOp>());
    for (func::FuncOp function : functions) {
      if (function.isExternal() || !isExported(function))
        continue;
      WeightPreparation preparation(function);
      SmallVector<QuantizeOp> work;
      function.walk([&](QuantizeOp op) {
        int64_t rank = op.getSource().getType().getRank();
        if ((rank == 2 || rank == 3) && preparation.weightOf(op.getSource()))
          work.push_back(op);
      });
      if (work.empty())
        continue;
      for (QuantizeOp op : work)
        measure(preparation, op);
      preparation.finish();
      numMeasured += preparation.getNumAdded();
    }
  }
};
} // namespace
