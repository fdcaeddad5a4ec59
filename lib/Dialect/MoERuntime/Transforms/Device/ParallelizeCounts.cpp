//===- ParallelizeCounts.cpp - Count with atomic additions ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/IRMapping.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEPARALLELIZECOUNTS
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// True if every result of `op` is an integer sum over all elements.
static bool isCount(linalg::GenericOp op) {
  if (op.getNumLoops() == 0 || op.getNumReductionLoops() != op.getNumLoops() ||
      !op.hasPureBufferSemantics())
    return false;
  for (OpOperand *input : op.getDpsInputOperands())
    if (!op.getMatchingIndexingMap(input).isProjectedPermutation())
      return false;
  for (OpOperand &init : op.getDpsInitsMutable()) {
    auto add =
        op.getMatchingYieldValue(&init)->get().getDefiningOp<arith::AddIOp>();
    BlockArgument sum = op.getMatchingBlockArgument(&init);
    // Nothing but the addition may depend on the running sum.
    if (!add || !llvm::is_contained(add->getOperands(), sum) ||
        !sum.hasOneUse() || !add->hasOneUse() || op.getRank(&init) != 0 ||
        !isa<IntegerType>(sum.getType()))
      return false;
  }
  return true;
}

/// Replaces `op` by a parallel loop whose iterations add atomically. An
/// iteration computes its own addend by running the body on a sum of 0.
static void parallelize(linalg::GenericOp op) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  Value zero = arith::ConstantIndexOp::create(b, 0);
  Value one = arith::ConstantIndexOp::create(b, 1);
  SmallVector<Value> ends;
  for (Range range :
       cast<linalg::LinalgOp>(*op).createLoopRanges(b, b.getLoc()))
    ends.push_back(getValueOrCreateConstantIndexOp(b, b.getLoc(), range.size));
  SmallVector<Value> starts(ends.size(), zero), steps(ends.size(), one);
  auto loop = scf::ParallelOp::create(b, starts, ends, steps);
  b.setInsertionPointToStart(loop.getBody());
  IRMapping mapping;
  for (OpOperand *input : op.getDpsInputOperands()) {
    SmallVector<Value> indices;
    for (AffineExpr expr : op.getMatchingIndexingMap(input).getResults())
      indices.push_back(
          loop.getInductionVars()[cast<AffineDimExpr>(expr).getPosition()]);
    mapping.map(op.getMatchingBlockArgument(input),
                memref::LoadOp::create(b, input->get(), indices));
  }
  for (OpOperand &init : op.getDpsInitsMutable()) {
    auto sum = op.getMatchingBlockArgument(&init);
    mapping.map(sum, arith::ConstantIntOp::create(
                         b, 0, sum.getType().getIntOrFloatBitWidth()));
  }
  for (Operation &nested : op.getBlock()->without_terminator()) {
    if (auto index = dyn_cast<linalg::IndexOp>(nested)) {
      mapping.map(index, loop.getInductionVars()[index.getDim()]);
      continue;
    }
    b.clone(nested, mapping);
  }
  for (OpOperand &init : op.getDpsInitsMutable()) {
    Value added = mapping.lookup(op.getMatchingYieldValue(&init)->get());
    memref::AtomicRMWOp::create(b, arith::AtomicRMWKind::addi, added,
                                init.get(), ValueRange());
  }
  op.erase();
}

namespace {
struct MoEParallelizeCounts
    : moe::impl::MoEParallelizeCountsBase<MoEParallelizeCounts> {
  void runOnOperation() override {
    SmallVector<linalg::GenericOp> counts;
    getOperation()->walk([&](linalg::GenericOp op) {
      if (isCount(op))
        counts.push_back(op);
    });
    llvm::for_each(counts, parallelize);
    numParallel = counts.size();
  }
};
} // namespace
