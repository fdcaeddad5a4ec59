//===- MoECanonicalization.cpp - Folds and canonical forms ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/Matchers.h"
#include "mlir/IR/PatternMatch.h"

using namespace mlir;
using namespace mlir::moe;

/// True if `value` is a constant with every element equal to `expected`.
static bool isSplat(Value value, double expected) {
  DenseFPElementsAttr constant;
  return value && matchPattern(value, m_Constant(&constant)) &&
         constant.isSplat() &&
         constant.getSplatValue<APFloat>().convertToDouble() == expected;
}

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

namespace {
/// Removes options without effect: zero bias or noise, a scale of one, groups
/// that are all kept, and an order if the score neither maps nor rounds.
struct SimplifyGate : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(GateOp op,
                                PatternRewriter &rewriter) const override {
    bool zeroBias = isSplat(op.getBias(), 0.0);
    bool zeroNoise = isSplat(op.getNoise(), 0.0);
    bool unitScale = op.getScale() && op.getScale()->isExactlyValue(1.0);
    bool allGroups = op.getGroups() &&
                     op.getGroups()->getKeep() == op.getGroups()->getCount();
    bool idleOrder = op.getScore() == Score::None &&
                     op.getScoreElementType().isF32() &&
                     op.getOrder() == Order::SelectThenScore;
    if (!zeroBias && !zeroNoise && !unitScale && !allGroups && !idleOrder)
      return failure();
    rewriter.modifyOpInPlace(op, [&] {
      if (zeroBias)
        op.getBiasMutable().clear();
      if (zeroNoise)
        op.getNoiseMutable().clear();
      if (unitScale)
        op.removeScaleAttr();
      if (allGroups)
        op.removeGroupsAttr();
      if (idleOrder)
        op.setOrder(Order::ScoreThenSelect);
    });
    return success();
  }
};
} // namespace

void GateOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                         MLIRContext *context) {
  patterns.add<SimplifyGate>(context);
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

namespace {
/// Without a capacity nothing is dropped: priority has no effect, and weights
/// only matter if rows are scaled.
struct SimplifyDispatch : OpRewritePattern<DispatchOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(DispatchOp op,
                                PatternRewriter &rewriter) const override {
    bool idlePriority =
        !op.getCapacity() && op.getPriority() != Priority::Position;
    bool probability =
        op.getPriority() == Priority::Probability && !idlePriority;
    bool idleWeights = op.getWeights() && !op.getScaleRows() && !probability;
    bool allChoices =
        op.getChoices() && int64_t(*op.getChoices()) == op.getTopK();
    if (!idlePriority && !idleWeights && !allChoices)
      return failure();
    rewriter.modifyOpInPlace(op, [&] {
      if (idlePriority)
        op.setPriority(Priority::Position);
      if (idleWeights)
        op.getWeightsMutable().clear();
      if (allChoices)
        op.removeChoicesAttr();
    });
    return success();
  }
};
} // namespace

void DispatchOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                             MLIRContext *context) {
  patterns.add<SimplifyDispatch>(context);
}

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

OpFoldResult ExpertOp::fold(FoldAdaptor) {
  // If experts return their input, so does the operation: uncovered rows are
  // undefined and may have any value.
  bool identity = getYield().getValue() == getBody().front().getArgument(0) &&
                  isMemoryEffectFree(*this);
  if (identity && getGrouped().getType() == getResult().getType() &&
      (getInit() ? getInit() == getGrouped()
                 : getExpertCount() == getNumExperts() &&
                       getUncovered() == Uncovered::Undefined))
    return getGrouped();
  return {};
}

namespace {
/// Removes parameters that the region does not read, and a range that covers
/// all experts.
struct SimplifyExpert : OpRewritePattern<ExpertOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(ExpertOp op,
                                PatternRewriter &rewriter) const override {
    Block &body = op.getBody().front();
    BitVector unused(op.getParams().size());
    for (BlockArgument argument : body.getArguments().drop_front())
      if (argument.use_empty())
        unused.set(argument.getArgNumber() - 1);
    bool idleFirst = op.getFirst() && op.getFirstExpert() == 0;
    bool idleCount =
        op.getCount() &&
        int64_t(*op.getCount()) == op.getNumExperts() - op.getFirstExpert();
    if (unused.none() && !idleFirst && !idleCount)
      return failure();
    rewriter.modifyOpInPlace(op, [&] {
      for (int index = unused.find_last(); index >= 0;
           index = unused.find_prev(index)) {
        body.eraseArgument(index + 1);
        op.getParamsMutable().erase(index);
      }
      if (idleFirst)
        op.removeFirstAttr();
      if (idleCount)
        op.removeCountAttr();
    });
    return success();
  }
};
} // namespace

void ExpertOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                           MLIRContext *context) {
  patterns.add<SimplifyExpert>(context);
}

//===----------------------------------------------------------------------===//
// moe.combine
//===----------------------------------------------------------------------===//

namespace {
/// Removes weights that are all one.
struct DropUnitWeights : OpRewritePattern<CombineOp> {
  using OpRewritePattern::OpRewritePattern;

  LogicalResult matchAndRewrite(CombineOp op,
                                PatternRewriter &rewriter) const override {
    if (op.getNormalize() || !isSplat(op.getWeights(), 1.0))
      return failure();
    rewriter.modifyOpInPlace(op, [&] { op.getWeightsMutable().clear(); });
    return success();
  }
};
} // namespace

void CombineOp::getCanonicalizationPatterns(RewritePatternSet &patterns,
                                            MLIRContext *context) {
  patterns.add<DropUnitWeights>(context);
}
