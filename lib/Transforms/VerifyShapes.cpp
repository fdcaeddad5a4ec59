//===- VerifyShapes.cpp - Verify extents of linalg operations -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The verifier of linalg compares extents only if all loops of an operation are
// static. With a dynamic number of rows it accepts a matmul whose operands do
// not fit, which would read out of bounds.
//
//===----------------------------------------------------------------------===//

#include "moe/Transforms/Passes.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEVERIFYSHAPES
#include "moe/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
/// The extent of a loop and the operand that it was read from.
struct LoopExtent {
  int64_t extent = ShapedType::kDynamic;
  unsigned operand = 0;
};
} // namespace

/// Evaluates `expr` with loop `i` at `at(extent of i)`; nullopt if one of its
/// loops is dynamic or empty.
static std::optional<int64_t>
evaluate(AffineExpr expr, ArrayRef<LoopExtent> loops,
         llvm::function_ref<int64_t(int64_t)> at) {
  SmallVector<AffineExpr> values;
  for (const LoopExtent &loop : loops)
    values.push_back(
        loop.extent > 0 // also false if dynamic
            ? getAffineConstantExpr(at(loop.extent), expr.getContext())
            : getAffineSymbolExpr(0, expr.getContext()));
  auto value = dyn_cast<AffineConstantExpr>(expr.replaceDims(values));
  return value ? std::optional(value.getValue()) : std::nullopt;
}

/// True if `expr` has its maximum at an end of each loop.
static bool isMonotone(AffineExpr expr) {
  return !expr.walk([](AffineExpr part) {
                return part.getKind() == AffineExprKind::Mod
                           ? WalkResult::interrupt()
                           : WalkResult::advance();
              })
              .wasInterrupted();
}

static LogicalResult verifyExtents(linalg::LinalgOp op) {
  SmallVector<LoopExtent> loops(op.getNumLoops());
  auto forEachExtent = [&](llvm::function_ref<LogicalResult(
                               OpOperand &, int64_t, int64_t, AffineExpr)>
                               verify) -> LogicalResult {
    for (OpOperand &operand : op->getOpOperands()) {
      auto type = dyn_cast<ShapedType>(operand.get().getType());
      if (!type || !type.hasRank())
        continue;
      AffineMap map = op.getMatchingIndexingMap(&operand);
      for (auto [dim, expr] : llvm::enumerate(map.getResults()))
        if (int64_t extent = type.getDimSize(dim);
            !ShapedType::isDynamic(extent) &&
            failed(verify(operand, dim, extent, expr)))
          return failure();
    }
    return success();
  };
  LogicalResult same =
      forEachExtent([&](OpOperand &operand, int64_t dim, int64_t extent,
                        AffineExpr expr) -> LogicalResult {
        auto loop = dyn_cast<AffineDimExpr>(expr);
        if (!loop)
          return success();
        LoopExtent &known = loops[loop.getPosition()];
        if (ShapedType::isDynamic(known.extent)) {
          known = {extent, operand.getOperandNumber()};
          return success();
        }
        if (known.extent == extent)
          return success();
        return op->emitOpError("expected dimension ")
               << dim << " of operand #" << operand.getOperandNumber()
               << " to have the extent " << known.extent << " that operand #"
               << known.operand << " has, got " << extent;
      });
  if (failed(same))
    return failure();
  return forEachExtent([&](OpOperand &operand, int64_t dim, int64_t extent,
                           AffineExpr expr) -> LogicalResult {
    if (isa<AffineDimExpr>(expr) || !isMonotone(expr))
      return success();
    auto first = evaluate(expr, loops, [](int64_t) { return 0; });
    auto last = evaluate(expr, loops, [](int64_t size) { return size - 1; });
    if (!first || !last || std::max(*first, *last) < extent)
      return success();
    return op->emitOpError("expected dimension ")
           << dim << " of operand #" << operand.getOperandNumber()
           << " to have an extent of at least " << std::max(*first, *last) + 1
           << ", got " << extent;
  });
}

namespace {
struct MoEVerifyShapes : moe::impl::MoEVerifyShapesBase<MoEVerifyShapes> {
  void runOnOperation() override {
    bool valid = true;
    getOperation()->walk(
        [&](linalg::LinalgOp op) { valid &= succeeded(verifyExtents(op)); });
    if (!valid)
      return signalPassFailure();
    markAllAnalysesPreserved();
  }
};
} // namespace
