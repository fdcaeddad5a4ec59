//===- FuseGather.cpp - Fuse the gather of rows into matmuls --------------===//
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

  /// Adds the matmul that uses the grouped rows to `matmuls`. Returns why it
  /// cannot gather them; empty if it can.
  static StringRef addMatmul(DispatchOp op, OpOperand &use,
                             SmallVectorImpl<GroupedMatmulOp> &matmuls) {
    if (isa<tensor::DimOp>(use.getOwner()))
      return "";
    auto matmul = dyn_cast<GroupedMatmulOp>(use.getOwner());
    bool ofRows = matmul && (use.get() == matmul.getLhs() ||
                             use.get() == matmul.getLhsScales());
    if (!ofRows || llvm::count(matmul->getOperands(), use.get()) != 1 ||
        matmul.getGather())
      return "the grouped rows have uses other than matmuls";
    // Only rows of the dispatch's experts have a token.
    if (matmul.getOffsets() != op.getOffsets())
      return "a matmul reads rows that no expert covers";
    auto quantize = matmul.getLhs().getDefiningOp<QuantizeOp>();
    if (matmul.getLhsScales() &&
        (!quantize || matmul.getLhsScales() != quantize.getScales()))
      return "the scales of the grouped rows are not those of moe.quantize";
    if (!llvm::is_contained(matmuls, matmul))
      matmuls.push_back(matmul);
    return "";
  }

  /// Replaces `grouped` by `rows` in matmuls, and by the gathered token
  /// indices, which have the extent, in tensor.dim.
  static void gatherFrom(Value grouped, Value rows, RouteOp route) {
    for (OpOperand &use : llvm::make_early_inc_range(grouped.getUses()))
      use.set(isa<tensor::DimOp>(use.getOwner()) ? Value(route.getTokens())
                                                 : rows);
  }

  void rewrite(DispatchOp op) {
    auto notFused = [&](StringRef reason) {
      remarkNotFused(op, "GatherNotFused", reason);
    };
    SmallVector<GroupedMatmulOp> matmuls;
    SmallVector<QuantizeOp> quantizations;
    for (OpOperand &use : op.getGrouped().getUses()) {
      if (auto quantize = dyn_cast<QuantizeOp>(use.getOwner());
          quantize && quantize.isRowwise())
        quantizations.push_back(quantize);
      else if (StringRef reason = addMatmul(op, use, matmuls); !reason.empty())
        return notFused(reason);
    }
    // Rows are quantized independently, so the quantized rows of the tokens can
    // be gathered as well.
    for (QuantizeOp quantize : quantizations)
      for (Value result : quantize->getResults())
        for (OpOperand &use : result.getUses())
          if (StringRef reason = addMatmul(op, use, matmuls); !reason.empty())
            return notFused(reason);
    if (op.getScaleRows())
      return notFused("the rows are scaled by their weights");

    IRRewriter rewriter(op);
    // A route has weights only to choose which choices to keep.
    Value weights =
        op.getPriority() == Priority::Probability ? op.getWeights() : Value();
    auto route = RouteOp::create(rewriter, op.getLoc(), op.getIds(), weights,
                                 op.getNumExpertsAttr(), op.getCapacityAttr(),
                                 op.getPriorityAttr(), op.getOverflowAttr(),
                                 op.getChoicesAttr());
    for (GroupedMatmulOp matmul : matmuls)
      rewriter.modifyOpInPlace(
          matmul, [&] { matmul.getGatherMutable().assign(route.getTokens()); });
    for (QuantizeOp quantize : quantizations) {
      auto quantized =
          QuantizeOp::create(rewriter, quantize.getLoc(), op.getRows(),
                             /*transposed=*/false, quantize.getFormat());
      gatherFrom(quantize.getQuantized(), quantized.getQuantized(), route);
      gatherFrom(quantize.getScales(), quantized.getScales(), route);
      rewriter.eraseOp(quantize);
    }
    gatherFrom(op.getGrouped(), op.getRows(), route);
    rewriter.replaceAllUsesWith(op.getOffsets(), route.getOffsets());
    rewriter.replaceAllUsesWith(op.getPositions(), route.getPositions());
    rewriter.eraseOp(op);
    numFused += matmuls.size();
    remarkFused(route, "GatherFused", "gather fused into the first matmul");
  }
};
} // namespace
