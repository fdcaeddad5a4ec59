//===- GateToLinalg.cpp - moe.gate ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Lowers one gate. Matrices are f32 `[T, E]` or `[T, K]` throughout.
class GateLowering {
public:
  GateLowering(GateOp op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder), experts(op.getNumExperts()),
        topK(op.getTopK()), scoreType(op.getScoreElementType()) {}

  std::pair<Value, Value> run();

private:
  Value negInf() { return b.f32(-std::numeric_limits<double>::infinity()); }
  Value logits();
  Value score(Value values, Value valid, Axis axis);
  /// Returns the value and the index of the best element that is not taken in
  /// each row (or column): the lowest index among equals, -1 if all are taken.
  std::pair<Value, Value> best(Value scores, Value taken, Axis axis);
  Value take(Value taken, Value chosen, Axis axis);
  std::pair<Value, Value> selectTopK(Value scores, int64_t count);
  Value limitToGroups(Value scores);
  Value selectByExpert(Value scores);
  Value gather(Value matrix, Value ids);
  Value validIds(Value ids);
  std::pair<Value, Value> selectScoringEachChoice(Value logits);
  std::pair<Value, Value> selectAndWeigh(Value logits);

  GateOp op;
  TensorBuilder b;
  int64_t experts, topK;
  Type scoreType;
};
} // namespace

/// Returns logits plus noise in f32, with NaN replaced by −inf.
Value GateLowering::logits() {
  SmallVector<Value> inputs{op.getLogits()};
  if (op.getNoise())
    inputs.push_back(op.getNoise());
  return b.map(inputs, b.getF32Type(), [&](ValueRange v) -> Value {
    Value logit = b.toFloat(v[0], b.getF32Type());
    if (op.getNoise())
      logit = arith::AddFOp::create(b, logit, b.toFloat(v[1], b.getF32Type()));
    return arith::SelectOp::create(b, b.isNaN(logit), negInf(), logit);
  });
}

/// Applies the score function and rounds to the score type; a softmax runs over
/// `valid` elements only.
Value GateLowering::score(Value values, Value valid, Axis axis) {
  if (op.getScore() == Score::Softmax)
    values = b.softmax(values, valid, axis);
  return b.map(values, b.getF32Type(), [&](ValueRange v) -> Value {
    Value x = v[0];
    if (op.getScore() == Score::Sigmoid) {
      Value power = math::ExpOp::create(b, arith::NegFOp::create(b, x));
      x = arith::DivFOp::create(b, b.f32(1.0),
                                arith::AddFOp::create(b, b.f32(1.0), power));
    } else if (op.getScore() == Score::Relu) {
      x = arith::MaximumFOp::create(b, x, b.f32(0.0));
    } else if (op.getScore() == Score::SqrtSoftplus) {
      // √(ln(1 + eˣ)), where eˣ must not overflow.
      Value least = arith::NegFOp::create(b, math::AbsFOp::create(b, x));
      Value rest = math::Log1pOp::create(b, math::ExpOp::create(b, least));
      x = arith::MaximumFOp::create(b, x, b.f32(0.0));
      x = math::SqrtOp::create(b, arith::AddFOp::create(b, x, rest));
    }
    return b.roundTo(x, scoreType);
  });
}

//===----------------------------------------------------------------------===//
// Selection
//===----------------------------------------------------------------------===//

std::pair<Value, Value> GateLowering::best(Value scores, Value taken,
                                           Axis axis) {
  // Two reductions vectorize, unlike one of pairs. No score is NaN.
  AffineMap in = axis == Axis::Columns
                     ? b.getMultiDimIdentityMap(2)
                     : AffineMap::getPermutationMap(ArrayRef<unsigned>{1, 0},
                                                    b.getContext());
  AffineMap out = AffineMap::get(2, 0, b.getAffineDimExpr(0));
  OpFoldResult left = b.size(scores, axis == Axis::Columns ? 0 : 1);
  Value most =
      b.generic(2, 1, {scores, taken}, {in, in, out}, b.fill(left, negInf()),
                [&](ValueRange v) {
                  Value open =
                      arith::SelectOp::create(b, b.isSet(v[1]), negInf(), v[0]);
                  return SmallVector<Value>{
                      arith::MaximumFOp::create(b, open, v[2])};
                })
          .front();
  Value none = b.i32(std::numeric_limits<int32_t>::max());
  Value first =
      b.generic(
           2, 1, {scores, taken, most}, {in, in, out, out}, b.fill(left, none),
           [&](ValueRange v) {
             Value equal = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ,
                                                 v[0], v[2]);
             Value found =
                 arith::AndIOp::create(b, equal, b.logicalNot(b.isSet(v[1])));
             Value position = b.toI32(linalg::IndexOp::create(b, 1));
             Value candidate =
                 arith::SelectOp::create(b, found, position, none);
             return SmallVector<Value>{
                 arith::MinSIOp::create(b, candidate, v[3])};
           })
          .front();
  Value index = b.map(first, b.getI32Type(), [&](ValueRange v) -> Value {
    Value missing =
        arith::CmpIOp::create(b, arith::CmpIPredicate::eq, v[0], none);
    return arith::SelectOp::create(b, missing, b.i32(-1), v[0]);
  });
  return {most, index};
}

/// Marks element `chosen` of each row (or column) in `taken`.
Value GateLowering::take(Value taken, Value chosen, Axis axis) {
  unsigned along = axis == Axis::Columns ? 1 : 0;
  AffineMap each = AffineMap::get(2, 0, b.getAffineDimExpr(1 - along));
  return b
      .generic(2, 0, chosen, {each, b.getMultiDimIdentityMap(2)}, taken,
               [&](ValueRange v) {
                 Value position = b.toI32(linalg::IndexOp::create(b, along));
                 Value here = arith::CmpIOp::create(b, arith::CmpIPredicate::eq,
                                                    position, v[0]);
                 return SmallVector<Value>{
                     arith::OrIOp::create(b, v[1], b.toMask(here))};
               })
      .front();
}

/// Inserts `column` as column `k` of `matrix`.
static Value setColumn(TensorBuilder &b, Value column, Value matrix, Value k) {
  OpFoldResult one = b.getIndexAttr(1), zero = b.getIndexAttr(0);
  SmallVector<OpFoldResult> offsets{zero, k}, strides{one, one};
  SmallVector<OpFoldResult> sizes{b.size(matrix, 0), one};
  return tensor::InsertSliceOp::create(b, column, matrix, offsets, sizes,
                                       strides);
}

/// Returns the ids `[N, count]` of the `count` best columns of each row, best
/// first, and a mask of the shape of `scores`.
std::pair<Value, Value> GateLowering::selectTopK(Value scores, int64_t count) {
  Value none = arith::ConstantIntOp::create(b, 0, 8);
  Value ids =
      b.empty({b.size(scores, 0), b.getIndexAttr(count)}, b.getI32Type());
  SmallVector<Value> results =
      b.loop(b.index(count), {ids, b.fill(b.sizes(scores), none)},
             [&](Value k, ValueRange iters) {
               Value chosen = best(scores, iters[1], Axis::Columns).second;
               return SmallVector<Value>{setColumn(b, chosen, iters[0], k),
                                         take(iters[1], chosen, Axis::Columns)};
             });
  return {results[0], results[1]};
}

/// Replaces the selection scores of groups that are not kept.
Value GateLowering::limitToGroups(Value scores) {
  GroupsAttr groups = *op.getGroups();
  int64_t count = groups.getCount(), size = experts / count;
  OpFoldResult tokens = b.size(scores, 0);
  Type f32 = b.getF32Type();
  int64_t staticTokens = cast<RankedTensorType>(scores.getType()).getDimSize(0);

  // Reshapes [T, E] to [T·G, E/G], with a row for each group.
  auto cube = RankedTensorType::get({staticTokens, count, size}, f32);
  int64_t staticRows =
      ShapedType::isDynamic(staticTokens) ? staticTokens : staticTokens * count;
  auto rows = RankedTensorType::get({staticRows, size}, f32);
  SmallVector<OpFoldResult> cubeSizes{tokens, b.getIndexAttr(count),
                                      b.getIndexAttr(size)};
  Value cubeScores = tensor::ExpandShapeOp::create(
      b, cube, scores, ArrayRef<ReassociationIndices>{{0}, {1, 2}}, cubeSizes);
  Value grouped = tensor::CollapseShapeOp::create(
      b, rows, cubeScores, ArrayRef<ReassociationIndices>{{0, 1}, {2}});

  int64_t best = groups.getScore() == GroupScore::Top2Sum ? 2 : 1;
  Value top = gather(grouped, selectTopK(grouped, best).first);
  Value sums =
      b.reduce(top, Axis::Columns, b.f32(0.0), [&](ValueRange v) -> Value {
        return arith::AddFOp::create(b, v[1], v[0]);
      });
  // Opposite infinities add up to NaN, which counts as −inf.
  sums = b.map(sums, f32, [&](ValueRange v) -> Value {
    return arith::SelectOp::create(b, b.isNaN(v[0]), negInf(), v[0]);
  });
  // `max` is the sum of one element; adding 0 does not change comparisons.
  auto groupMatrix = RankedTensorType::get({staticTokens, count}, f32);
  Value groupScores = tensor::ExpandShapeOp::create(
      b, groupMatrix, sums, ArrayRef<ReassociationIndices>{{0, 1}},
      SmallVector<OpFoldResult>{tokens, b.getIndexAttr(count)});

  Value kept = selectTopK(groupScores, groups.getKeep()).second;
  Value fill = groups.getFill() == GroupFill::Zero ? b.f32(0.0) : negInf();
  AffineMap each = b.getMultiDimIdentityMap(3);
  AffineMap group =
      AffineMap::getMultiDimMapWithTargets(3, {0, 1}, b.getContext());
  Value limited = b.generic(3, 0, {cubeScores, kept}, {each, group, each},
                            b.empty(cubeSizes, f32),
                            [&](ValueRange v) {
                              return SmallVector<Value>{arith::SelectOp::create(
                                  b, b.isSet(v[1]), v[0], fill)};
                            })
                      .front();
  return tensor::CollapseShapeOp::create(
      b, scores.getType(), limited,
      ArrayRef<ReassociationIndices>{{0}, {1, 2}});
}

/// Returns the mask `[T, E]` of the `C` best tokens of each expert.
Value GateLowering::selectByExpert(Value scores) {
  Value none = arith::ConstantIntOp::create(b, 0, 8);
  Value tokens = b.dim(scores, 0);
  Value capacity =
      buildCapacity(b, b.getLoc(), *op.getCapacity(), tokens, experts);
  Value rounds = arith::MinSIOp::create(b, capacity, tokens);
  return b
      .loop(rounds, b.fill(b.sizes(scores), none),
            [&](Value, ValueRange iters) {
              Value chosen = best(scores, iters[0], Axis::Rows).second;
              return SmallVector<Value>{take(iters[0], chosen, Axis::Rows)};
            })
      .front();
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

Value GateLowering::validIds(Value ids) {
  return b.mask(
      ids, [&](ValueRange v) -> Value { return b.inRange(v[0], experts); });
}

/// Returns matrix[n, ids[n, k]], or 0 for an id out of range.
Value GateLowering::gather(Value matrix, Value ids) {
  int64_t columns = cast<RankedTensorType>(matrix.getType()).getDimSize(1);
  return b.map(ids, b.getF32Type(), [&](ValueRange v) -> Value {
    Value valid = b.inRange(v[0], columns);
    Value column = b.toIndex(arith::SelectOp::create(b, valid, v[0], b.i32(0)));
    Value row = linalg::IndexOp::create(b, 0);
    return arith::SelectOp::create(b, valid, b.extract(matrix, {row, column}),
                                   b.f32(0.0));
  });
}

/// Selects one choice after another; its weight is its softmax over the experts
/// that are left and within the margin of the best.
std::pair<Value, Value> GateLowering::selectScoringEachChoice(Value logits) {
  Type f32 = b.getF32Type();
  Value none = arith::ConstantIntOp::create(b, 0, 8);
  SmallVector<OpFoldResult> chosenSizes{b.size(logits, 0),
                                        b.getIndexAttr(topK)};
  SmallVector<Value> results = b.loop(
      b.index(topK),
      {b.empty(chosenSizes, f32), b.empty(chosenSizes, b.getI32Type()),
       b.fill(b.sizes(logits), none)},
      [&](Value k, ValueRange iters) {
        Value taken = iters[2];
        auto [value, chosen] = best(logits, taken, Axis::Columns);
        Value near =
            b.mapWithVector(logits, value, Axis::Columns, b.getI8Type(),
                            [&](ValueRange v) -> Value {
                              if (!op.getMargin())
                                return arith::ConstantIntOp::create(b, 1, 8);
                              Value gap = arith::SubFOp::create(b, v[1], v[0]);
                              Value factor = arith::MaximumFOp::create(
                                  b, math::AbsFOp::create(b, v[0]), v[1]);
                              Value relative =
                                  arith::DivFOp::create(b, gap, factor);
                              Value far = arith::CmpFOp::create(
                                  b, arith::CmpFPredicate::OGT, relative,
                                  b.f32(op.getMargin()->convertToDouble()));
                              return b.toMask(b.logicalNot(far));
                            });
        Value counted = b.mask({near, taken}, [&](ValueRange v) -> Value {
          return arith::AndIOp::create(b, b.isSet(v[0]),
                                       b.logicalNot(b.isSet(v[1])));
        });
        Value scores = score(logits, counted, Axis::Columns);
        auto column = [&](Value ids) {
          // The gather takes [T] as [T, 1].
          return tensor::ExpandShapeOp::create(
              b,
              RankedTensorType::get(
                  {cast<RankedTensorType>(ids.getType()).getDimSize(0), 1},
                  b.getI32Type()),
              ids, ArrayRef<ReassociationIndices>{{0, 1}},
              SmallVector<OpFoldResult>{b.size(ids, 0), b.getIndexAttr(1)});
        };
        Value weight = gather(scores, column(chosen));
        weight = tensor::CollapseShapeOp::create(
            b, weight, ArrayRef<ReassociationIndices>{{0, 1}});
        return SmallVector<Value>{setColumn(b, weight, iters[0], k),
                                  setColumn(b, chosen, iters[1], k),
                                  take(taken, chosen, Axis::Columns)};
      });
  return {results[0], results[1]};
}

/// Returns ids and their scores, before threshold, normalisation and scale.
std::pair<Value, Value> GateLowering::selectAndWeigh(Value logits) {
  Type f32 = b.getF32Type();
  if (op.getOrder() == Order::ScoreEachChoice)
    return selectScoringEachChoice(logits);

  bool scoreFirst = op.getOrder() == Order::ScoreThenSelect;
  Axis axis =
      op.getScoreAxis() == ScoreAxis::Tokens ? Axis::Rows : Axis::Columns;
  Value scores = scoreFirst ? score(logits, Value(), axis) : logits;

  Value selection = scores;
  if (op.getBias())
    selection = b.mapWithVector(
        selection, op.getBias(), Axis::Rows, f32, [&](ValueRange v) -> Value {
          Value sum = arith::AddFOp::create(b, v[0], b.toFloat(v[1], f32));
          return arith::SelectOp::create(b, b.isNaN(sum), negInf(), sum);
        });
  if (op.getGroups())
    selection = limitToGroups(selection);

  if (op.getSelection() == Selection::ExpertChoice) {
    Value mask = selectByExpert(selection);
    Value ids = b.map(mask, b.getI32Type(), [&](ValueRange v) -> Value {
      Value expert = b.toI32(linalg::IndexOp::create(b, 1));
      return arith::SelectOp::create(b, b.isSet(v[0]), expert, b.i32(-1));
    });
    Value weights = b.map({scores, mask}, f32, [&](ValueRange v) -> Value {
      return arith::SelectOp::create(b, b.isSet(v[1]), v[0], b.f32(0.0));
    });
    return {weights, ids};
  }

  Value ids =
      op.getGivenIds() ? op.getGivenIds() : selectTopK(selection, topK).first;
  Value weights = gather(scores, ids);
  if (!scoreFirst) {
    Value valid = validIds(ids);
    weights = score(weights, valid, Axis::Columns);
    weights = b.map({weights, valid}, f32, [&](ValueRange v) -> Value {
      return arith::SelectOp::create(b, b.isSet(v[1]), v[0], b.f32(0.0));
    });
  }
  return {weights, ids};
}

std::pair<Value, Value> GateLowering::run() {
  Type f32 = b.getF32Type();
  auto [weights, ids] = selectAndWeigh(logits());

  if (op.getThreshold()) {
    Value above = b.mask(weights, [&](ValueRange v) -> Value {
      return arith::CmpFOp::create(b, arith::CmpFPredicate::OGT, v[0],
                                   b.f32(op.getThreshold()->convertToDouble()));
    });
    // An invalid id is kept for the report.
    ids = b.map({ids, above}, b.getI32Type(), [&](ValueRange v) -> Value {
      Value below = arith::AndIOp::create(b, b.inRange(v[0], experts),
                                          b.logicalNot(b.isSet(v[1])));
      return arith::SelectOp::create(b, below, b.i32(-1), v[0]);
    });
    weights = b.map({weights, above}, f32, [&](ValueRange v) -> Value {
      return arith::SelectOp::create(b, b.isSet(v[1]), v[0], b.f32(0.0));
    });
  }
  if (std::optional<NormalizeAttr> normalize = op.getNormalize())
    weights = b.normalize(weights, validIds(ids), *normalize, scoreType);
  weights = b.map(weights, scoreType, [&](ValueRange v) -> Value {
    Value weight = v[0];
    if (op.getScale())
      weight = arith::MulFOp::create(b, weight,
                                     b.f32(op.getScale()->convertToDouble()));
    return b.toFloat(weight, scoreType);
  });
  return {weights, ids};
}

SmallVector<Value> mlir::moe::lowerToLinalg(GateOp op, OpBuilder &builder) {
  auto [weights, ids] = GateLowering(op, builder).run();
  return {weights, ids};
}
