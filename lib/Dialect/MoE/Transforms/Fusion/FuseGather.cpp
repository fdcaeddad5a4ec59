//===- FuseGather.cpp - Gather rows where a product reads them ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoE/Transforms/Fusion/FusionRemarks.h"
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h"

#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEFUSEGATHER
#include "moe/Dialect/MoE/Transforms/Fusion/Passes.h.inc"
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

  /// Take what uses the grouped rows to `products`; the reason why it cannot
  /// read them gathered, or nothing.
  static StringRef addProduct(DispatchOp op, OpOperand &use,
                              SmallVectorImpl<GroupedMatmulOp> &products) {
    if (isa<tensor::DimOp>(use.getOwner()))
      return "";
    auto product = dyn_cast<GroupedMatmulOp>(use.getOwner());
    bool ofRows = product && (use.get() == product.getLhs() ||
                              use.get() == product.getLhsScales());
    if (!ofRows || llvm::count(product->getOperands(), use.get()) != 1 ||
        product.getGather())
      return "the grouped rows have uses other than matmuls";
    // Other rows than those of its experts have no token.
    if (product.getOffsets() != op.getOffsets())
      return "a matmul reads rows that no expert covers";
    auto quantize = product.getLhs().getDefiningOp<QuantizeOp>();
    if (product.getLhsScales() &&
        (!quantize || product.getLhsScales() != quantize.getScales()))
      return "the scales of the grouped rows come from elsewhere";
    if (!llvm::is_contained(products, product))
      products.push_back(product);
    return "";
  }

  /// Products read `rows`, and what asks for extents of `grouped` those of the
  /// numbers of their tokens.
  static void gatherFrom(Value grouped, Value rows, RouteOp route) {
    for (OpOperand &use : llvm::make_early_inc_range(grouped.getUses()))
      use.set(isa<tensor::DimOp>(use.getOwner()) ? Value(route.getTokens())
                                                 : rows);
  }

  void rewrite(DispatchOp op) {
    auto notFused = [&](StringRef reason) {
      remarkNotFused(op, "GatherNotFused", reason);
    };
    SmallVector<GroupedMatmulOp> products;
    SmallVector<QuantizeOp> quantizations;
    for (OpOperand &use : op.getGrouped().getUses()) {
      if (auto quantize = dyn_cast<QuantizeOp>(use.getOwner()))
        quantizations.push_back(quantize);
      else if (StringRef reason = addProduct(op, use, products);
               !reason.empty())
        return notFused(reason);
    }
    // Each row is quantized by itself: those of the tokens are gathered as
    // well.
    for (QuantizeOp quantize : quantizations)
      for (Value result : quantize->getResults())
        for (OpOperand &use : result.getUses())
          if (StringRef reason = addProduct(op, use, products); !reason.empty())
            return notFused(reason);
    if (op.getScaleRows())
      return notFused("the rows are scaled by their weights");

    IRRewriter rewriter(op);
    // Weights matter to the choice of what is kept alone.
    Value weights =
        op.getPriority() == Priority::Probability ? op.getWeights() : Value();
    auto route = RouteOp::create(rewriter, op.getLoc(), op.getIds(), weights,
                                 op.getNumExpertsAttr(), op.getCapacityAttr(),
                                 op.getPriorityAttr(), op.getOverflowAttr(),
                                 op.getChoicesAttr());
    for (GroupedMatmulOp product : products)
      rewriter.modifyOpInPlace(product, [&] {
        product.getGatherMutable().assign(route.getTokens());
      });
    for (QuantizeOp quantize : quantizations) {
      auto all = QuantizeOp::create(rewriter, quantize.getLoc(), op.getRows(),
                                    quantize.getBlockAttr());
      gatherFrom(quantize.getQuantized(), all.getQuantized(), route);
      gatherFrom(quantize.getScales(), all.getScales(), route);
      rewriter.eraseOp(quantize);
    }
    gatherFrom(op.getGrouped(), op.getRows(), route);
    rewriter.replaceAllUsesWith(op.getOffsets(), route.getOffsets());
    rewriter.replaceAllUsesWith(op.getPositions(), route.getPositions());
    rewriter.eraseOp(op);
    numFused += products.size();
    remarkFused(route, "GatherFused", "gather fused into the first matmul");
  }
};
} // namespace
