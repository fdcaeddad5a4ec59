//===- FoldSelectedScore.cpp - A score function of the selected logits ---===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"
#include "Patterns.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the only operation that uses `value`; null if there are several.
static Operation *onlyUser(Value value) {
  return value.hasOneUse() ? *value.user_begin() : nullptr;
}

namespace {

/// score(gate weights) → gate with order(select_then_score).
struct FoldSelectedScore : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    if (!hasPlainWeights(gate))
      return failure();
    // The selected logits are those of the tensor: they may be widened.
    Value selected = gate.getWeights();
    Operation *user = onlyUser(selected);
    if (user && user->getNumResults() == 1 &&
        skipTensorWidening(user->getResult(0)) == selected) {
      selected = user->getResult(0);
      user = onlyUser(selected);
    }
    Type element = cast<RankedTensorType>(selected.getType()).getElementType();
    Score score;
    if (!user || user->getNumResults() != 1 ||
        matchScore(user->getResult(0), score) != selected)
      return failure();
    Value result = user->getResult(0);
    Type rounded = cast<RankedTensorType>(result.getType()).getElementType();
    // Logits that the gate rounds before the selection would not be rounded.
    Type logits = gate.getLogits().getType().getElementType();
    if (gate.getScoreElementType() != logits &&
        !gate.getScoreElementType().isF32())
      return failure();
    if (!rounded.isF32() && rounded != element)
      return failure();
    rewriter.modifyOpInPlace(gate, [&] {
      gate.setScore(score);
      gate.setOrder(Order::SelectThenScore);
      gate.setScoreTypeAttr(rounded.isF32() ? TypeAttr()
                                            : TypeAttr::get(rounded));
      gate.getWeights().setType(gate.getWeights().getType().clone(rounded));
    });
    rewriter.replaceOp(user, gate.getWeights());
    return success();
  }
};

/// Rounding the weights of such a gate is its score type.
struct FoldRounding : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    // A threshold would compare rounded scores.
    if (gate.getOrder() != Order::SelectThenScore || gate.getNormalize() ||
        gate.getThreshold() || gate.getScale() ||
        !gate.getScoreElementType().isF32())
      return failure();
    Operation *user = onlyUser(gate.getWeights());
    if (!user || user->getNumResults() != 1)
      return failure();
    Value result = user->getResult(0);
    Type type = getElementTypeOrSelf(result);
    if (!isa<RankedTensorType>(result.getType()) ||
        !(type.isF16() || type.isBF16()))
      return failure();
    if (skipTensorRounding(result, type) != gate.getWeights())
      return failure();
    rewriter.modifyOpInPlace(gate, [&] {
      gate.setScoreTypeAttr(TypeAttr::get(type));
      gate.getWeights().setType(gate.getWeights().getType().clone(type));
    });
    rewriter.replaceOp(user, gate.getWeights());
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldSelectedScorePatterns(
    RewritePatternSet &patterns) {
  patterns.add<FoldSelectedScore, FoldRounding>(patterns.getContext());
}
