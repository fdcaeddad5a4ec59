//===- FoldNormalize.cpp - Weights divided by their sum, and scaled ------===//
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

/// Sets the epsilon or the bound of a denominator [T]; returns what it is added
/// to, or `denominator`.
static Value matchGuard(Value denominator, NormalizeGuard &guard,
                        double &epsilon) {
  std::optional<Elementwise> match = matchElementwise(denominator);
  if (!match)
    return denominator;
  guard = NormalizeGuard::Add;
  Value sum = matchWithConstant<arith::AddFOp>(match->yielded(), epsilon);
  if (!sum) {
    guard = NormalizeGuard::Clamp;
    sum = matchWithConstant<arith::MaximumFOp>(match->yielded(), epsilon);
  }
  Value input = sum ? match->inputOf(sum, {0}) : Value();
  return input ? input : denominator;
}

namespace {

/// weights / (sum of the weights), with a guard → normalize.
struct FoldNormalize : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    if (gate.getNormalize() || gate.getScale() ||
        gate.getSelection() != Selection::TokenChoice || gate.getThreshold())
      return failure();
    Value weights = gate.getWeights();
    for (Operation *user : weights.getUsers()) {
      NormalizeGuard guard = NormalizeGuard::Add;
      double epsilon = 0.0;
      if (!isQuotient(user, weights, guard, epsilon))
        continue;
      // A small epsilon vanishes where the sum is rounded first.
      if (epsilon < 0.0 ||
          (!gate.getScoreElementType().isF32() && epsilon > 1e-10))
        return failure();
      auto normalize = NormalizeAttr::get(gate.getContext(), NormalizeKind::Sum,
                                          /*p=*/2.0, epsilon, guard);
      rewriter.modifyOpInPlace(gate, [&] { gate.setNormalizeAttr(normalize); });
      rewriter.replaceOp(user, weights);
      return success();
    }
    return failure();
  }

private:
  /// True if `user` divides the weights by their sum, for which alone they are
  /// used besides.
  static bool isQuotient(Operation *user, Value weights, NormalizeGuard &guard,
                         double &epsilon) {
    if (user->getNumResults() != 1 ||
        user->getResult(0).getType() != weights.getType())
      return false;
    std::optional<Elementwise> match = matchElementwise(user->getResult(0));
    auto division =
        match ? skipConversions(match->yielded()).getDefiningOp<arith::DivFOp>()
              : nullptr;
    if (!division || match->inputOf(division.getLhs(), {0, 1}) != weights)
      return false;
    Value denominator = match->inputOf(division.getRhs(), {0});
    if (!denominator)
      return false;
    Value sum = matchGuard(denominator, guard, epsilon);
    sum = skipTensorConversions(sum);
    return matchReduction(sum, Reduction::Sum) == weights &&
           llvm::all_of(weights.getUsers(), [&](Operation *other) {
             return other == user || other == sum.getDefiningOp();
           });
  }
};

/// weights · constant → scale.
struct FoldScale : OpRewritePattern<GateOp> {
  using OpRewritePattern::OpRewritePattern;
  LogicalResult matchAndRewrite(GateOp gate,
                                PatternRewriter &rewriter) const override {
    Value weights = gate.getWeights();
    if (gate.getScale() || !weights.hasOneUse())
      return failure();
    Operation *user = *weights.user_begin();
    if (user->getNumResults() != 1 ||
        user->getResult(0).getType() != weights.getType())
      return failure();
    std::optional<Elementwise> match = matchElementwise(user->getResult(0));
    double scale = 1.0;
    Value factor =
        match ? matchWithConstant<arith::MulFOp>(match->yielded(), scale)
              : Value();
    if (!factor || match->inputOf(factor, {0, 1}) != weights)
      return failure();
    rewriter.modifyOpInPlace(
        gate, [&] { gate.setScaleAttr(rewriter.getF64FloatAttr(scale)); });
    rewriter.replaceOp(user, weights);
    return success();
  }
};

} // namespace

void mlir::moe::raising::populateFoldNormalizePatterns(
    RewritePatternSet &patterns) {
  patterns.add<FoldNormalize, FoldScale>(patterns.getContext());
}
