//===- FoldScore.cpp - A score function before the selection -------------===//
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

namespace {

/// gate(extf logits) → gate(logits): a gate computes in f32.
struct FoldExtension : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    std::optional<Elementwise> match = matchElementwise(gate.getLogits());
    if (!match || !gate.getLogits().getType().getElementType().isF32())
      return failure();
    Value logits = match->inputOf(match->yielded(), {0, 1});
    if (!logits || !match->yielded().getDefiningOp<arith::ExtFOp>())
      return failure();
    rewriter.modifyOpInPlace(gate,
                             [&] { gate.getLogitsMutable().assign(logits); });
    return success();
  }
};

/// gate(score(logits), score none) → gate(logits, score).
struct FoldScore : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    if (!isTopK(gate))
      return failure();
    // Scores that are rounded stay so.
    Value scores = gate.getLogits();
    Type type = gate.getLogits().getType().getElementType();
    if (!type.isF32() && type != gate.getScoreElementType())
      return failure();
    Score score;
    Value logits = matchScore(scores, score);
    if (!logits && !type.isF32()) {
      // Or they are rounded on their own.
      scores = skipTensorRounding(scores, type);
      logits = scores == gate.getLogits() ? Value() : matchScore(scores, score);
    }
    if (!logits)
      return failure();
    rewriter.modifyOpInPlace(gate, [&] {
      gate.getLogitsMutable().assign(logits);
      gate.setScore(score);
    });
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldScorePatterns(
    RewritePatternSet &patterns) {
  patterns.add<FoldExtension, FoldScore>(patterns.getContext());
}
