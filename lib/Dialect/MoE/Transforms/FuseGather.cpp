//===- FuseGather.cpp - Gather rows where a product reads them ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "FusionRemarks.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Passes.h"

#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSEGATHER
#include "moe/Dialect/MoE/Transforms/Passes.h.inc"
} // namespace mlir::moe

namespace {
struct MoEFuseGather : moe::impl::MoEFuseGatherBase<MoEFuseGather> {
  using MoEFuseGatherBase::MoEFuseGatherBase;

  void runOnOperation() override {
    SmallVector<DispatchOp> dispatches;
    getOperation()->walk([&](DispatchOp op) { dispatches.push_back(op); });
    for (DispatchOp op : dispatches)
      rewrite(op);
  }

  void rewrite(DispatchOp op) {
    auto notFused = [&](StringRef reason) {
      remarkNotFused(op, "GatherNotFused", reason);
    };
    SmallVector<GroupedMatmulOp> products;
    for (OpOperand &use : op.getGrouped().getUses()) {
      if (isa<tensor::DimOp>(use.getOwner()))
        continue;
      auto product = dyn_cast<GroupedMatmulOp>(use.getOwner());
      if (!product || &use != &product.getLhsMutable() || product.getGather())
        return notFused("the grouped rows have uses other than products");
      // Other rows than those of its experts have no token.
      if (product.getOffsets() != op.getOffsets())
        return notFused("a product reads rows that no expert covers");
      products.push_back(product);
    }
    if (op.getScaleRows())
      return notFused("the rows are scaled by their weights");

    IRRewriter rewriter(op);
    // Weights matter to the choice of what is kept alone.
    Value weights = op.getPriority() == Priority::Probability
                        ? op.getWeights()
                        : Value();
    auto route = RouteOp::create(
        rewriter, op.getLoc(), op.getIds(), weights, op.getNumExpertsAttr(),
        op.getCapacityAttr(), op.getPriorityAttr(), op.getOverflowAttr(),
        op.getChoicesAttr());
    for (GroupedMatmulOp product : products)
      rewriter.modifyOpInPlace(product, [&] {
        product.getLhsMutable().assign(op.getRows());
        product.getGatherMutable().assign(route.getTokens());
      });
    for (Operation *user :
         llvm::make_early_inc_range(op.getGrouped().getUsers()))
      user->setOperand(0, route.getTokens());
    rewriter.replaceAllUsesWith(op.getOffsets(), route.getOffsets());
    rewriter.replaceAllUsesWith(op.getPositions(), route.getPositions());
    rewriter.eraseOp(op);
    numFused += products.size();
    remarkFused(route, "GatherFused", "gather fused into the first product");
  }
};
} // namespace
