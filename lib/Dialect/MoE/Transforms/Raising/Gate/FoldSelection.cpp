//===- FoldSelection.cpp - A bias for the selection, gathered weights ----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"
#include "Patterns.h"

#include "mlir/Dialect/Arith/IR/Arith.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the operations that gather `source` by the ids of a gate.
static SmallVector<Operation *> findGathers(GateOp gate, Value source) {
  SmallVector<Operation *> found;
  SmallVector<Value> pending{gate.getIds()};
  while (!pending.empty()) {
    Value ids = pending.pop_back_val();
    for (Operation *user : ids.getUsers()) {
      if (user->getNumResults() != 1)
        continue;
      Value result = user->getResult(0);
      if (isGatherOf(result, source, gate.getIds()))
        found.push_back(user);
      else if (skipViewsOfIds(result) == gate.getIds())
        pending.push_back(result);
    }
  }
  return found;
}

/// Replaces gathers by the weights of the gate.
static void replaceGathers(PatternRewriter &rewriter, GateOp gate,
                           ArrayRef<Operation *> gathers) {
  for (Operation *gather : gathers) {
    auto type = cast<RankedTensorType>(gather->getResult(0).getType());
    rewriter.setInsertionPoint(gather);
    if (type.getRank() == 1)
      rewriter.replaceOpWithNewOp<tensor::CollapseShapeOp>(
          gather, type, gate.getWeights(),
          ArrayRef<ReassociationIndices>{{0, 1}});
    else
      rewriter.replaceOp(gather, gate.getWeights());
  }
}

/// Makes `scores` the logits of a gate whose weights are then those that
/// `gathers` gathered.
static void rewriteGate(PatternRewriter &rewriter, GateOp gate, Value scores,
                        Value bias, ArrayRef<Operation *> gathers) {
  Type element = cast<RankedTensorType>(scores.getType()).getElementType();
  rewriter.modifyOpInPlace(gate, [&] {
    gate.getLogitsMutable().assign(scores);
    if (bias)
      gate.getBiasMutable().assign(bias);
    gate.setScoreTypeAttr(element.isF32() ? TypeAttr()
                                          : TypeAttr::get(element));
    gate.getWeights().setType(gate.getWeights().getType().clone(element));
  });
  replaceGathers(rewriter, gate, gathers);
}

namespace {

/// Weights gathered from scores + bias without the bias.
struct FoldSelectionBias : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    std::optional<Elementwise> match = matchElementwise(gate.getLogits());
    if (!hasPlainWeights(gate) || gate.getBias() || !match ||
        !gate.getWeights().use_empty())
      return failure();
    // The sum is not rounded.
    auto sum = match->yielded().getDefiningOp<arith::AddFOp>();
    if (!sum || !sum.getType().isF32())
      return failure();
    Value scores, bias;
    for (bool swapped : {false, true}) {
      scores = match->inputOf(swapped ? sum.getRhs() : sum.getLhs(), {0, 1});
      bias = match->inputOf(swapped ? sum.getLhs() : sum.getRhs(), {1});
      if (scores && bias)
        break;
    }
    auto isKnown = [](Value tensor) {
      Type type = getElementTypeOrSelf(tensor);
      return type.isF32() || type.isF16() || type.isBF16();
    };
    if (!scores || !bias || !isKnown(scores) || !isKnown(bias))
      return failure();
    SmallVector<Operation *> gathers = findGathers(gate, scores);
    // Scores may be converted only for the sum.
    if (gathers.empty())
      return rewriter.notifyMatchFailure(gate, "no weights are gathered");
    rewriteGate(rewriter, gate, scores, bias, gathers);
    return success();
  }
};

/// Weights gathered from the scores of the selection are those of the gate.
struct FoldGather : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    Type element = gate.getLogits().getType().getElementType();
    if (!hasPlainWeights(gate) || element != gate.getScoreElementType())
      return failure();
    SmallVector<Operation *> gathers = findGathers(gate, gate.getLogits());
    replaceGathers(rewriter, gate, gathers);
    return success(!gathers.empty());
  }
};

} // namespace

void mlir::moe::raising::populateFoldSelectionPatterns(
    RewritePatternSet &patterns) {
  // Before scores are folded, of which weights are gathered.
  patterns.add<FoldSelectionBias, FoldGather>(patterns.getContext(),
                                              /*benefit=*/2);
}
