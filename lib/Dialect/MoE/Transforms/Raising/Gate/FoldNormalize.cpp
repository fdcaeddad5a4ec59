//===- FoldNormalize.cpp - Weights divided by their sum, and scaled ------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Match.h"
#include "Patterns.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Sets the epsilon or the bound of a denominator [T], if it has one; returns
/// what it is added to, or `denominator`.
static Value matchGuard(Value denominator, NormalizeGuard &guard,
                        double &epsilon) {
  std::optional<Elementwise> match = matchElementwise(denominator);
  if (!match)
    return denominator;
  double constant = 0.0;
  auto kind = NormalizeGuard::Add;
  Value sum = matchWithConstant<arith::AddFOp>(match->yielded(), constant);
  if (!sum) {
    kind = NormalizeGuard::Clamp;
    sum = matchWithConstant<arith::MaximumFOp>(match->yielded(), constant);
  }
  Value input = sum ? match->inputOf(sum, {0}) : Value();
  if (!input)
    return denominator;
  guard = kind;
  epsilon = constant;
  return input;
}

/// Returns x of |x| for each element; null for anything else.
static Value matchAbs(Value tensor) {
  std::optional<Elementwise> match =
      tensor ? matchElementwise(tensor) : std::nullopt;
  auto abs = match ? match->yielded().getDefiningOp<math::AbsFOp>() : nullptr;
  return abs ? match->inputOf(abs.getOperand(), {0, 1}) : Value();
}

namespace {

/// The parts of a division by the sum of the weights.
struct Quotient {
  NormalizeKind kind = NormalizeKind::Sum;
  NormalizeGuard guard = NormalizeGuard::Add;
  double epsilon = 0.0;
};

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
      std::optional<Quotient> quotient = matchQuotient(user, weights);
      if (!quotient)
        continue;
      // A gate rounds the sum before and after it adds epsilon, as these do.
      double epsilon = quotient->epsilon;
      if (!(epsilon >= 0.0) || std::signbit(epsilon) || std::isinf(epsilon))
        return failure();
      double p = quotient->kind == NormalizeKind::Norm ? 1.0 : 2.0;
      auto normalize = NormalizeAttr::get(gate.getContext(), quotient->kind, p,
                                          quotient->epsilon, quotient->guard);
      rewriter.modifyOpInPlace(gate, [&] { gate.setNormalizeAttr(normalize); });
      rewriter.replaceOp(user, weights);
      return success();
    }
    return failure();
  }

private:
  /// Matches `user` if it divides the weights by their sum or that of their
  /// absolute values, for which alone they are used besides.
  static std::optional<Quotient> matchQuotient(Operation *user, Value weights) {
    Quotient result;
    if (user->getNumResults() != 1 ||
        user->getResult(0).getType() != weights.getType())
      return std::nullopt;
    std::optional<Elementwise> match = matchElementwise(user->getResult(0));
    auto division =
        match ? skipRounding(match->yielded()).getDefiningOp<arith::DivFOp>()
              : nullptr;
    if (!division || !division.getType().isF32() ||
        match->inputOf(division.getLhs(), {0, 1}) != weights)
      return std::nullopt;
    Value denominator = match->inputOf(division.getRhs(), {0});
    // The denominator and the sum are of the type of the weights, as in a gate.
    Type type = getElementTypeOrSelf(weights);
    if (!denominator || getElementTypeOrSelf(denominator) != type)
      return std::nullopt;
    // What epsilon is added to, too.
    Value guarded = matchGuard(denominator, result.guard, result.epsilon);
    if (getElementTypeOrSelf(guarded) != type)
      return std::nullopt;
    Value sum = skipTensorRounding(guarded, type);
    Value summed = matchReduction(sum, Reduction::Sum);
    Operation *reader = sum.getDefiningOp();
    if (summed && summed != weights) {
      reader = summed.getDefiningOp();
      summed = matchAbs(summed);
      result.kind = NormalizeKind::Norm;
    }
    bool isOnlyUse = llvm::all_of(weights.getUsers(), [&](Operation *other) {
      return other == user || other == reader;
    });
    if (summed != weights || !isOnlyUse)
      return std::nullopt;
    return result;
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
    if (!factor || !std::isfinite(scale) ||
        match->inputOf(factor, {0, 1}) != weights)
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
