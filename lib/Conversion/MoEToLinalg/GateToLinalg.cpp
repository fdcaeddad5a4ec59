//===- GateToLinalg.cpp - moe.gate ----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GateBuilder.h"
#include "Lowering.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

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
  std::pair<Value, Value> selectTopK(Value scores, int64_t count);
  Value limitToGroups(Value scores);
  Value selectByExpert(Value scores);
  Value score(Value values, Value valid, Axis axis) {
    return b.score(values, valid, axis, op.getScore(), scoreType);
  }
  std::pair<Value, Value> selectScoringEachChoice(Value logits);
  std::pair<Value, Value> selectAndWeigh(Value logits);

  GateOp op;
  GateBuilder b;
  int64_t experts, topK;
  Type scoreType;
};
} // namespace

//===----------------------------------------------------------------------===//
// Selection
//===----------------------------------------------------------------------===//

/// Returns the ids `[N, count]` of the `count` best columns of each row, best
/// first, and a mask of the shape of `scores`.
std::pair<Value, Value> GateLowering::selectTopK(Value scores, int64_t count) {
  Value none = arith::ConstantIntOp::create(b, 0, 8);
  Value ids =
      b.empty({b.size(scores, 0), b.getIndexAttr(count)}, b.getI32Type());
  SmallVector<Value> results = b.loop(
      b.index(count), {ids, b.fill(b.sizes(scores), none)},
      [&](Value k, ValueRange iters) {
        Value chosen = b.best(scores, iters[1], Axis::Columns).second;
        return SmallVector<Value>{b.setColumn(chosen, iters[0], k),
                                  b.take(iters[1], chosen, Axis::Columns)};
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
  Value top = b.gather(grouped, selectTopK(grouped, best).first);
  Value sums =
      b.reduce(top, Axis::Columns, b.f32(0.0), [&](ValueRange v) -> Value {
        return arith::AddFOp::create(b, v[1], v[0]);
      });
  // Opposite infinities add up to NaN, which counts as −inf.
  sums = b.map(sums, f32, [&](ValueRange v) -> Value {
    return arith::SelectOp::create(b, b.isNaN(v[0]), b.negInf(), v[0]);
  });
  // `max` is the sum of one element; adding 0 does not change comparisons.
  auto groupMatrix = RankedTensorType::get({staticTokens, count}, f32);
  Value groupScores = tensor::ExpandShapeOp::create(
      b, groupMatrix, sums, ArrayRef<ReassociationIndices>{{0, 1}},
      SmallVector<OpFoldResult>{tokens, b.getIndexAttr(count)});

  Value kept = selectTopK(groupScores, groups.getKeep()).second;
  Value fill = groups.getFill() == GroupFill::Zero ? b.f32(0.0) : b.negInf();
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
              Value chosen = b.best(scores, iters[0], Axis::Rows).second;
              return SmallVector<Value>{b.take(iters[0], chosen, Axis::Rows)};
            })
      .front();
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

/// Selects one choice after another, or takes the given one; its weight is its
/// softmax over the experts that are left and within the margin of the best. A
/// given choice without an expert has taken the best, as one below a threshold.
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
        auto [value, chosen] = b.best(logits, taken, Axis::Columns);
        Value counted = b.withinMargin(logits, value, taken, op.getMargin());
        Value id = chosen;
        if (op.getGivenIds()) {
          id = b.map(chosen, b.getI32Type(), [&](ValueRange) {
            Value token = linalg::IndexOp::create(b, 0);
            return b.extract(op.getGivenIds(), {token, k});
          });
          chosen = b.map({id, chosen}, b.getI32Type(), [&](ValueRange v) {
            return arith::SelectOp::create(b, b.inRange(v[0], experts), v[0],
                                           v[1]);
          });
        }
        Value weight = b.gather(score(logits, counted, Axis::Columns), id);
        return SmallVector<Value>{b.setColumn(weight, iters[0], k),
                                  b.setColumn(id, iters[1], k),
                                  b.take(taken, chosen, Axis::Columns)};
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
          return arith::SelectOp::create(b, b.isNaN(sum), b.negInf(), sum);
        });
  if (op.getGroups())
    selection = limitToGroups(selection);

  if (op.getSelection() == Selection::ExpertChoice) {
    Value mask = selectByExpert(selection);
    Value ids = b.map(mask, b.getI32Type(), [&](ValueRange v) -> Value {
      Value expert = b.toI32(linalg::IndexOp::create(b, 1));
      return arith::SelectOp::create(b, b.isSet(v[0]), expert, b.i32(-1));
    });
    return {b.whereValid(scores, mask), ids};
  }

  Value ids =
      op.getGivenIds() ? op.getGivenIds() : selectTopK(selection, topK).first;
  Value weights = b.gather(scores, ids);
  if (!scoreFirst) {
    Value valid = b.validIds(ids, experts);
    weights = score(weights, valid, Axis::Columns);
    weights = b.whereValid(weights, valid);
  }
  return {weights, ids};
}

std::pair<Value, Value> GateLowering::run() {
  auto [weights, ids] = selectAndWeigh(b.logits(op.getLogits(), op.getNoise()));

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
    weights = b.whereValid(weights, above);
  }
  if (std::optional<NormalizeAttr> normalize = op.getNormalize())
    weights =
        b.normalize(weights, b.validIds(ids, experts), *normalize, scoreType);
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
