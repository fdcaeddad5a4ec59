//===- PromoteSmallFloats.cpp - Arithmetic of 16-bit floats in f32 --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/TypeUtilities.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPROMOTESMALLFLOATS
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

static bool isSmallFloat(Type type) {
  Type element = getElementTypeOrSelf(type);
  return (element.isF16() || element.isBF16()) && !isa<TensorType>(type) &&
         (type == element || isa<VectorType>(type));
}

/// Returns the type with f32 in place of a small float.
static Type promoted(Type type) {
  Type f32 = Float32Type::get(type.getContext());
  auto vector = dyn_cast<VectorType>(type);
  return vector ? Type(vector.clone(f32)) : f32;
}

/// True if an operation computes with its operands rather than moving or
/// converting them.
static bool computes(Operation *op) {
  if (isa<arith::ConstantOp, arith::SelectOp, arith::BitcastOp, arith::ExtFOp,
          arith::TruncFOp>(op))
    return false;
  return isa<arith::ArithDialect, math::MathDialect>(op->getDialect()) ||
         isa<vector::ContractionOp, vector::FMAOp, vector::MultiDimReductionOp,
             vector::OuterProductOp, vector::ReductionOp, vector::ScanOp>(op);
}

static void promote(Operation *op) {
  OpBuilder b(op);
  Location loc = op->getLoc();
  for (OpOperand &operand : op->getOpOperands())
    if (Type type = operand.get().getType(); isSmallFloat(type))
      operand.set(arith::ExtFOp::create(b, loc, promoted(type), operand.get()));
  b.setInsertionPointAfter(op);
  for (OpResult result : op->getResults()) {
    Type type = result.getType();
    if (!isSmallFloat(type))
      continue;
    result.setType(promoted(type));
    auto rounded = arith::TruncFOp::create(b, loc, type, result);
    result.replaceAllUsesExcept(rounded, rounded);
  }
}

namespace {
struct MoEPromoteSmallFloats
    : moe::impl::MoEPromoteSmallFloatsBase<MoEPromoteSmallFloats> {
  void runOnOperation() override {
    SmallVector<Operation *> operations;
    getOperation()->walk([&](Operation *op) {
      if (computes(op) && (llvm::any_of(op->getOperandTypes(), isSmallFloat) ||
                           llvm::any_of(op->getResultTypes(), isSmallFloat)))
        operations.push_back(op);
    });
    for (Operation *op : operations)
      promote(op);
  }
};
} // namespace
