//===- LinalgToTasks.cpp - Parallel loops over blocks of tokens -----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Adjacent operations that work token by token share one parallel loop if each
// token reads only what the same token wrote: the matmul of a router, its
// scores, the top-k selection step by step, the weights.
//
//===----------------------------------------------------------------------===//

#include "TokenAccess.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/Transforms/Transforms.h"
#include "mlir/Dialect/Linalg/Utils/Utils.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/Transforms/LoopInvariantCodeMotionUtils.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOELINALGTOTASKS
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// Returns how many iterations of the first loop make a task.
static int64_t blockOf(linalg::LinalgOp op, int64_t elements) {
  int64_t inner = 1;
  SmallVector<int64_t> ranges = op.getStaticLoopRanges();
  for (int64_t extent : llvm::drop_begin(ranges))
    inner *= ShapedType::isDynamic(extent) ? 64 : std::max<int64_t>(extent, 1);
  return std::max<int64_t>(1, elements / std::max<int64_t>(inner, 1));
}

/// Bounds of the rows of a matmul in a task: enough for a few tiles, each of
/// which reads all weights, and few enough to balance the load.
static constexpr int64_t minRows = 24, maxRows = 64;

/// Returns the slice of `size` tokens from `offset` on along dimension `dim`.
static Value sliceOf(ImplicitLocOpBuilder &b, Value buffer, unsigned dim,
                     Value offset, Value size) {
  SmallVector<OpFoldResult> sizes =
      memref::getMixedSizes(b, b.getLoc(), buffer);
  SmallVector<OpFoldResult> offsets(sizes.size(), b.getIndexAttr(0));
  SmallVector<OpFoldResult> strides(sizes.size(), b.getIndexAttr(1));
  offsets[dim] = offset;
  sizes[dim] = size;
  return memref::SubViewOp::create(b, buffer, offsets, sizes, strides);
}

namespace {
/// Operations that are fused into one parallel loop.
class Group {
public:
  bool empty() const { return members.empty(); }
  size_t size() const { return members.size(); }
  Operation *front() const { return members.front(); }
  /// Adds an operation if it can share the loop; always succeeds for the first.
  bool add(Operation *op, const TokenWork &work);
  void build(RewriterBase &rewriter, int64_t elements);

private:
  SmallVector<Operation *> members;
  TokenWork all;
};

struct MoELinalgToTasks : moe::impl::MoELinalgToTasksBase<MoELinalgToTasks> {
  using MoELinalgToTasksBase::MoELinalgToTasksBase;

  void runOnOperation() override {
    if (elements < 1) {
      getOperation()->emitError("expected at least 1 element in a task, got ")
          << int64_t(elements);
      return signalPassFailure();
    }
    getOperation()->walk(
        [](LoopLikeOpInterface loop) { moveLoopInvariantCode(loop); });
    IRRewriter rewriter(&getContext());
    for (Region &region : getOperation()->getRegions())
      rewrite(rewriter, region);
  }

  void rewrite(RewriterBase &rewriter, Region &region);
  void rewrite(RewriterBase &rewriter, Block &block);
  void finish(RewriterBase &rewriter, Group &group);
};
} // namespace

bool Group::add(Operation *op, const TokenWork &work) {
  if (conflict(all.accesses, work.accesses) || !append(all, work))
    return false;
  members.push_back(op);
  return true;
}

/// Replaces the members by one loop over blocks of tokens.
void Group::build(RewriterBase &rewriter, int64_t elements) {
  ImplicitLocOpBuilder b(front()->getLoc(), front());
  int64_t block = INT64_MAX;
  bool hasMatmul = false;
  for (Operation *member : members)
    member->walk([&](Operation *op) {
      hasMatmul |= isa<GroupedMatmulOp>(op);
      if (auto linalgOp = dyn_cast<linalg::LinalgOp>(op))
        block = std::min(block, blockOf(linalgOp, elements));
    });
  if (hasMatmul)
    block = std::clamp(block, minRows, maxRows);
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  auto [source, dim] = all.extents.front();
  Value extent =
      dim < 0 ? source : memref::DimOp::create(b, source, dim).getResult();
  Value blocks = arith::CeilDivUIOp::create(b, extent, index(block));
  auto loop = scf::ForallOp::create(b, ArrayRef<OpFoldResult>{blocks},
                                    /*outputs=*/ValueRange(), std::nullopt);
  b.setInsertionPointToStart(loop.getBody());
  Value offset =
      arith::MulIOp::create(b, loop.getInductionVar(0), index(block));
  Value size = arith::MinSIOp::create(
      b, arith::SubIOp::create(b, extent, offset), index(block));
  SmallVector<Operation *> parts;
  for (Operation *member : members)
    b.clone(*member)->walk([&](Operation *op) {
      if (isa<linalg::LinalgOp, GroupedMatmulOp>(op))
        parts.push_back(op);
    });
  for (Operation *part : parts) {
    ImplicitLocOpBuilder inner(part->getLoc(), part);
    for (OpOperand &operand : part->getOpOperands())
      if (std::optional<unsigned> dim = tokenDim(operand))
        operand.set(sliceOf(inner, operand.get(), *dim, offset, size));
    if (auto linalgOp = dyn_cast<linalg::LinalgOp>(part))
      linalg::offsetIndices(rewriter, linalgOp, {OpFoldResult(offset)});
  }
  for (Operation *member : llvm::reverse(members))
    rewriter.eraseOp(member);
}

void MoELinalgToTasks::finish(RewriterBase &rewriter, Group &group) {
  if (group.empty())
    return;
  if (group.size() > 1)
    remarkFused(group.front(), "TokenLoopsFused",
                std::to_string(group.size()) +
                    " operations on each token run in one parallel loop");
  ++numLoops;
  numFused += group.size() - 1;
  group.build(rewriter, elements);
  group = Group();
}

void MoELinalgToTasks::rewrite(RewriterBase &rewriter, Region &region) {
  for (Block &block : region)
    rewrite(rewriter, block);
}

void MoELinalgToTasks::rewrite(RewriterBase &rewriter, Block &block) {
  Group group;
  for (Operation &op : llvm::make_early_inc_range(block)) {
    // Views and allocations do not separate operations; they move ahead.
    if (isMovable(&op)) {
      if (!group.empty())
        op.moveBefore(group.front());
      continue;
    }
    if (std::optional<TokenWork> work = tokenWorkOf(&op)) {
      if (!group.add(&op, *work)) {
        finish(rewriter, group);
        group.add(&op, *work);
      }
      for (Operation *alloc : work->allocs)
        alloc->moveBefore(group.front());
      continue;
    }
    finish(rewriter, group);
    if (!isa<scf::ForallOp, scf::ParallelOp, linalg::LinalgOp>(op))
      for (Region &region : op.getRegions())
        rewrite(rewriter, region);
  }
  finish(rewriter, group);
}
