//===- GateGradientToLinalg.cpp - moe.gate_gradient -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Computes the scores of the choices once more and goes back through scale,
// normalisation, score and selection. Differences are taken before quotients,
// so that a small denominator does not overflow what cancels.
//
//===----------------------------------------------------------------------===//

#include "GateBuilder.h"
#include "Lowering.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Lowers one gradient. Matrices are f32 `[T, E]` or `[T, K]` throughout.
class GateGradientLowering {
public:
  GateGradientLowering(GateGradientOp op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder), f32(b.getF32Type()) {}

  Value run();

private:
  Value scatter(Value gradient) {
    return b.scatter(op.getIds(), gradient, op.getNumExperts());
  }
  Value throughScore(Value values, Value scores, Value gradient, Axis axis);
  Value throughNormalize(Value scores, Value gradient);
  /// Returns the gradient by the scores of the choices, 0 where there is none.
  Value ofScores(Value scores);

  Value scoreThenSelect(Value logits);
  Value selectThenScore(Value logits);
  Value scoreEachChoice(Value logits);
  std::pair<Value, Value> scoreChoice(Value logits, Value taken, Value k);

  GateGradientOp op;
  GateBuilder b;
  Type f32;
  /// Marks the choices that have an expert.
  Value valid;
};
} // namespace

//===----------------------------------------------------------------------===//
// Steps of a gate
//===----------------------------------------------------------------------===//

/// Returns the gradient by `values`, of which `scores` are the scores.
Value GateGradientLowering::throughScore(Value values, Value scores,
                                         Value gradient, Axis axis) {
  if (op.getScore() == Score::Softmax)
    return b.softmaxGradient(scores, gradient, axis);
  return b.scoreGradient(values, gradient, op.getScore());
}

/// Returns the gradient by the scores that normalize divides: with denominator
/// `D` and weights `w`, `(g − Σ g w · dD/ds) / D`.
Value GateGradientLowering::throughNormalize(Value scores, Value gradient) {
  std::optional<NormalizeAttr> normalize = op.getNormalize();
  if (!normalize)
    return gradient;
  if (normalize->getKind() == NormalizeKind::Softmax) {
    Value weights = b.softmax(scores, valid, Axis::Columns);
    return b.softmaxGradient(weights, gradient, Axis::Columns);
  }
  Value powers = b.sumOfPowers(scores, valid, *normalize);
  Value norms = b.map(powers, f32, [&](ValueRange v) {
    return b.rootOfPowers(v[0], *normalize);
  });
  Value denominators = b.map(
      norms, f32, [&](ValueRange v) { return b.guard(v[0], *normalize); });
  auto divide = [&](Value matrix) {
    return b.mapWithVector(
        matrix, denominators, Axis::Columns, f32,
        [&](ValueRange v) { return b.divideOrZero(v[0], v[1]); });
  };
  Value products =
      b.map({gradient, divide(scores)}, f32, [&](ValueRange v) -> Value {
        return arith::MulFOp::create(b, v[0], v[1]);
      });
  Value mean = b.sum(products, Axis::Columns);
  // An epsilon in the place of the norm is constant.
  if (normalize->getGuard() == NormalizeGuard::Clamp)
    mean = b.map({mean, norms}, f32, [&](ValueRange v) -> Value {
      Value constant = arith::CmpFOp::create(b, arith::CmpFPredicate::OLT, v[1],
                                             b.f32(normalize->getEpsilon()));
      return arith::SelectOp::create(b, constant, b.f32(0.0), v[0]);
    });
  auto subtract = [&](ValueRange v) -> Value {
    return arith::SubFOp::create(b, v[0], v[1]);
  };
  if (normalize->getKind() == NormalizeKind::Sum)
    return divide(
        b.mapWithVector(gradient, mean, Axis::Columns, f32, subtract));

  // dD/ds = sign(s) (|s| / D)^(p − 1), and 0 for a score of 0
  double p = normalize->getP();
  Value slopes = b.mapWithVector(
      scores, norms, Axis::Columns, f32, [&](ValueRange v) -> Value {
        Value ratio = b.divideOrZero(math::AbsFOp::create(b, v[0]), v[1]);
        Value power = ratio;
        if (p == 1.0)
          power = b.f32(1.0);
        else if (p != 2.0)
          power = math::PowFOp::create(b, ratio, b.f32(p - 1.0));
        auto compare = [&](arith::CmpFPredicate predicate) {
          return arith::CmpFOp::create(b, predicate, v[0], b.f32(0.0));
        };
        Value sign =
            arith::SelectOp::create(b, compare(arith::CmpFPredicate::OLT),
                                    arith::NegFOp::create(b, power), power);
        return arith::SelectOp::create(b, compare(arith::CmpFPredicate::OEQ),
                                       b.f32(0.0), sign);
      });
  Value shares = b.mapWithVector(slopes, mean, Axis::Columns, f32,
                                 [&](ValueRange v) -> Value {
                                   return arith::MulFOp::create(b, v[0], v[1]);
                                 });
  return divide(b.map({gradient, shares}, f32, subtract));
}

Value GateGradientLowering::ofScores(Value scores) {
  Value gradient =
      b.map({op.getGradient(), valid}, f32, [&](ValueRange v) -> Value {
        Value g = b.toFloat(v[0], f32);
        if (op.getScale())
          g = arith::MulFOp::create(b, g,
                                    b.f32(op.getScale()->convertToDouble()));
        return arith::SelectOp::create(b, b.isSet(v[1]), g, b.f32(0.0));
      });
  return b.whereValid(throughNormalize(scores, gradient), valid);
}

//===----------------------------------------------------------------------===//
// Orders
//===----------------------------------------------------------------------===//

Value GateGradientLowering::scoreThenSelect(Value logits) {
  Axis axis =
      op.getScoreAxis() == ScoreAxis::Tokens ? Axis::Rows : Axis::Columns;
  Value scores = b.score(logits, Value(), axis, op.getScore(), f32);
  Value gradient = scatter(ofScores(b.gather(scores, op.getIds())));
  return throughScore(logits, scores, gradient, axis);
}

Value GateGradientLowering::selectThenScore(Value logits) {
  Value chosen = b.gather(logits, op.getIds());
  Value scores = b.whereValid(
      b.score(chosen, valid, Axis::Columns, op.getScore(), f32), valid);
  Value gradient =
      throughScore(chosen, scores, ofScores(scores), Axis::Columns);
  return scatter(gradient);
}

/// Returns choice `k` of each token and its softmax over the experts. A choice
/// without an expert took the best one that was left.
std::pair<Value, Value>
GateGradientLowering::scoreChoice(Value logits, Value taken, Value k) {
  auto [value, best] = b.best(logits, taken, Axis::Columns);
  Value chosen = b.map(best, b.getI32Type(), [&](ValueRange v) -> Value {
    Value id = b.extract(op.getIds(), {linalg::IndexOp::create(b, 0), k});
    return arith::SelectOp::create(b, b.inRange(id, op.getNumExperts()), id,
                                   v[0]);
  });
  Value counted = b.withinMargin(logits, value, taken, op.getMargin());
  Value scores = b.score(logits, counted, Axis::Columns, Score::Softmax, f32);
  return {chosen, scores};
}

Value GateGradientLowering::scoreEachChoice(Value logits) {
  Value none = arith::ConstantIntOp::create(b, 0, 8);
  Value nobody = b.fill(b.sizes(logits), none);
  Value rounds = b.index(op.getTopK());
  SmallVector<OpFoldResult> choices{b.size(logits, 0),
                                    b.getIndexAttr(op.getTopK())};
  Value scores = b.loop(rounds, {b.empty(choices, f32), nobody},
                        [&](Value k, ValueRange iters) {
                          auto [chosen, all] = scoreChoice(logits, iters[1], k);
                          return SmallVector<Value>{
                              b.setColumn(b.gather(all, chosen), iters[0], k),
                              b.take(iters[1], chosen, Axis::Columns)};
                        })
                     .front();
  Value gradient = ofScores(b.whereValid(scores, valid));

  AffineMap each = b.getMultiDimIdentityMap(2);
  AffineMap token = AffineMap::get(2, 0, b.getAffineDimExpr(0));
  return b
      .loop(rounds, {b.fill(b.sizes(logits), b.f32(0.0)), nobody},
            [&](Value k, ValueRange iters) {
              auto [chosen, all] = scoreChoice(logits, iters[1], k);
              Value score = b.gather(all, chosen);
              // g p_c (1 − p_c) for the choice c, −g p_c p_e for others
              Value sum =
                  b.generic(2, 0, {all, chosen, score},
                            {each, token, token, each}, iters[0],
                            [&](ValueRange v) {
                              Value token = linalg::IndexOp::create(b, 0);
                              Value expert =
                                  b.toI32(linalg::IndexOp::create(b, 1));
                              Value its = arith::CmpIOp::create(
                                  b, arith::CmpIPredicate::eq, v[1], expert);
                              Value other = arith::NegFOp::create(b, v[0]);
                              Value own =
                                  arith::SubFOp::create(b, b.f32(1.0), v[0]);
                              Value slope = arith::MulFOp::create(
                                  b, v[2],
                                  arith::SelectOp::create(b, its, own, other));
                              Value g = b.extract(gradient, {token, k});
                              return SmallVector<Value>{arith::AddFOp::create(
                                  b, v[3], arith::MulFOp::create(b, g, slope))};
                            })
                      .front();
              return SmallVector<Value>{
                  sum, b.take(iters[1], chosen, Axis::Columns)};
            })
      .front();
}

Value GateGradientLowering::run() {
  Value logits = b.logits(op.getLogits(), op.getNoise());
  valid = b.validIds(op.getIds(), op.getNumExperts());
  Value gradient;
  switch (op.getOrder()) {
  case Order::ScoreThenSelect:
    gradient = scoreThenSelect(logits);
    break;
  case Order::SelectThenScore:
    gradient = selectThenScore(logits);
    break;
  case Order::ScoreEachChoice:
    gradient = scoreEachChoice(logits);
    break;
  }
  SmallVector<Value> inputs{gradient, op.getLogits()};
  if (op.getNoise())
    inputs.push_back(op.getNoise());
  Type type = op.getLogits().getType().getElementType();
  return b.map(inputs, type, [&](ValueRange v) -> Value {
    // NaN counts as −inf, which no score depends on.
    Value none = b.isNaN(b.logit(v.drop_front()));
    Value g = arith::SelectOp::create(b, none, b.f32(0.0), v[0]);
    return b.toFloat(g, type);
  });
}

SmallVector<Value> mlir::moe::lowerToLinalg(GateGradientOp op,
                                            OpBuilder &builder) {
  return {GateGradientLowering(op, builder).run()};
}
