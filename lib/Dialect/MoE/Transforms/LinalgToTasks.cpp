//===- LinalgToTasks.cpp - Operations on all tokens in parallel -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Linalg/Utils/Utils.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;

namespace mlir::moe {
#define GEN_PASS_DEF_MOELINALGTOTASKS
#include "moe/Dialect/MoE/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Whether the first loop of `op` goes over tokens, or rows, each by itself.
static bool isOverTokens(linalg::GenericOp op) {
  if (!op.hasPureBufferSemantics() || op.getNumLoops() == 0 ||
      op.getIteratorTypesArray()[0] != utils::IteratorType::parallel ||
      !ShapedType::isDynamic(op.getStaticLoopRanges()[0]) ||
      op->getParentOfType<scf::ForallOp>() ||
      op->getParentOfType<scf::ParallelOp>())
    return false;
  // A part of the loop must be a part of each buffer.
  for (AffineMap map : op.getIndexingMapsArray())
    for (AffineExpr expr : map.getResults())
      if (expr.isFunctionOfDim(0) && !isa<AffineDimExpr>(expr))
        return false;
  return true;
}

/// Iterations of the first loop that are worth handing out together.
static int64_t blockOf(linalg::GenericOp op, int64_t elements) {
  int64_t inner = 1;
  for (int64_t extent : llvm::drop_begin(op.getStaticLoopRanges()))
    inner *= ShapedType::isDynamic(extent) ? 64 : std::max<int64_t>(extent, 1);
  return std::max<int64_t>(1, elements / std::max<int64_t>(inner, 1));
}

/// The part of `buffer` that `size` iterations from `offset` read or write.
static Value sliceOf(ImplicitLocOpBuilder &b, Value buffer, AffineMap map,
                     Value offset, Value size) {
  std::optional<unsigned> dim =
      map.getResultPosition(b.getAffineDimExpr(0));
  if (!dim)
    return buffer;
  SmallVector<OpFoldResult> sizes =
      memref::getMixedSizes(b, b.getLoc(), buffer);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets[*dim] = offset;
  sizes[*dim] = size;
  return memref::SubViewOp::create(b, buffer, offsets, sizes, strides);
}

static void toTasks(RewriterBase &rewriter, linalg::GenericOp op,
                    int64_t block) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  // Any operand with the first loop as a dimension has its extent.
  Value extent;
  for (OpOperand &operand : op->getOpOperands())
    if (std::optional<unsigned> dim =
            op.getMatchingIndexingMap(&operand).getResultPosition(
                b.getAffineDimExpr(0)))
      extent = memref::DimOp::create(b, operand.get(), *dim);
  Value blocks = arith::CeilDivUIOp::create(b, extent, index(block));
  auto loop = scf::ForallOp::create(b, ArrayRef<OpFoldResult>{blocks},
                                    /*outputs=*/ValueRange(), std::nullopt);
  b.setInsertionPointToStart(loop.getBody());
  Value offset =
      arith::MulIOp::create(b, loop.getInductionVar(0), index(block));
  Value size = arith::MinSIOp::create(
      b, arith::SubIOp::create(b, extent, offset), index(block));
  SmallVector<Value> operands;
  for (OpOperand &operand : op->getOpOperands())
    operands.push_back(sliceOf(b, operand.get(),
                               op.getMatchingIndexingMap(&operand), offset,
                               size));
  auto part = cast<linalg::GenericOp>(b.clone(*op));
  part->setOperands(operands);
  linalg::offsetIndices(rewriter, part, {OpFoldResult(offset)});
  rewriter.eraseOp(op);
}

namespace {
struct MoELinalgToTasks : moe::impl::MoELinalgToTasksBase<MoELinalgToTasks> {
  using MoELinalgToTasksBase::MoELinalgToTasksBase;

  void runOnOperation() override {
    if (elements < 1) {
      getOperation()->emitError("expected at least 1 element in a task, got ")
          << int64_t(elements);
      return signalPassFailure();
    }
    SmallVector<linalg::GenericOp> work;
    getOperation()->walk([&](linalg::GenericOp op) {
      if (isOverTokens(op))
        work.push_back(op);
    });
    IRRewriter rewriter(&getContext());
    for (linalg::GenericOp op : work)
      toTasks(rewriter, op, blockOf(op, elements));
  }
};
} // namespace
