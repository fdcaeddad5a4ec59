//===- RankSums.cpp - Sums of the rows of a token on a rank ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RankSums.h"

#include "mlir/Analysis/SliceAnalysis.h"
#include "mlir/Dialect/Arith/Utils/Utils.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Transforms/RegionUtils.h"

using namespace mlir;
using namespace mlir::moe;

using BodyFn = llvm::function_ref<Value(ImplicitLocOpBuilder &, ValueRange)>;

/// Builds a linalg.generic with one init, whose body returns what it yields.
static Value generic(ImplicitLocOpBuilder &b, ValueRange inputs, Value init,
                     ArrayRef<AffineMap> maps, unsigned parallelLoops,
                     BodyFn body) {
  SmallVector<utils::IteratorType> iterators(maps.front().getNumDims(),
                                             utils::IteratorType::reduction);
  std::fill_n(iterators.begin(), parallelLoops, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, init.getType(), inputs, init, maps, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange elements) {
               ImplicitLocOpBuilder its(loc, nested);
               linalg::YieldOp::create(its, body(its, elements));
             })
      .getResult(0);
}

static Value i32(ImplicitLocOpBuilder &b, int64_t value) {
  return arith::ConstantOp::create(b, b.getI32IntegerAttr(value));
}

/// Returns an empty tensor of the shape of another one.
static Value emptyLike(ImplicitLocOpBuilder &b, Value value, Type element) {
  return tensor::EmptyOp::create(b, tensor::getMixedSizes(b, b.getLoc(), value),
                                 element);
}

static Value isValid(ImplicitLocOpBuilder &b, Value id) {
  return arith::CmpIOp::create(b, arith::CmpIPredicate::sge, id, i32(b, 0));
}

/// Returns the slots `[T, K]` of the first choice of a token on each rank, -1
/// for the other choices.
static Value firstOnEachRank(ImplicitLocOpBuilder &b, Value slots,
                             int64_t numSlots) {
  MLIRContext *context = b.getContext();
  AffineMap own = AffineMap::getMultiDimMapWithTargets(3, {0, 1}, context);
  AffineMap others = AffineMap::getMultiDimMapWithTargets(3, {0, 2}, context);
  // The init has the slots: what is yielded replaces some of them.
  return generic(b, {slots, slots}, slots, {own, others, own}, 2,
                 [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
                   Value k = linalg::IndexOp::create(b, 1);
                   Value other = linalg::IndexOp::create(b, 2);
                   Value isBefore = arith::CmpIOp::create(
                       b, arith::CmpIPredicate::ult, other, k);
                   auto rankOf = [&](Value slot) -> Value {
                     return arith::DivUIOp::create(b, slot, i32(b, numSlots));
                   };
                   Value same = arith::CmpIOp::create(
                       b, arith::CmpIPredicate::eq, rankOf(v[0]), rankOf(v[1]));
                   same = arith::AndIOp::create(b, same, isBefore);
                   same = arith::AndIOp::create(b, same, isValid(b, v[1]));
                   return arith::SelectOp::create(b, same, i32(b, -1), v[2]);
                 });
}

/// Returns the numbers `[R, 1]` of the received tokens that have a slot here,
/// -1 for others.
static Value withSlot(ImplicitLocOpBuilder &b, Value local) {
  Value rows = getValueOrCreateConstantIndexOp(
      b, b.getLoc(), tensor::getMixedSize(b, b.getLoc(), local, 0));
  Value init = tensor::EmptyOp::create(b, SmallVector<OpFoldResult>{rows},
                                       b.getI32Type());
  init = linalg::FillOp::create(b, i32(b, -1), init).getResult(0);
  SmallVector<AffineMap> maps{
      b.getMultiDimIdentityMap(2),
      AffineMap::getMultiDimMapWithTargets(2, {0}, b.getContext())};
  Value numbers = generic(
      b, local, init, maps, 1,
      [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
        Value number = arith::IndexCastOp::create(
            b, b.getI32Type(), linalg::IndexOp::create(b, 0));
        return arith::SelectOp::create(b, isValid(b, v[0]), number, v[1]);
      });
  auto type = RankedTensorType::get({ShapedType::kDynamic, 1}, b.getI32Type());
  SmallVector<OpFoldResult> sizes{rows, b.getIndexAttr(1)};
  return tensor::ExpandShapeOp::create(
      b, type, numbers, SmallVector<ReassociationIndices>{{0, 1}}, sizes);
}

/// Divides the weights of a token by the sum of those of choices with a slot,
/// as moe.combine does for choices with a position.
static Value normalizeBySum(ImplicitLocOpBuilder &b, Value weights, Value slots,
                            NormalizeAttr normalize) {
  MLIRContext *context = b.getContext();
  FloatType f32 = b.getF32Type();
  auto toF32 = [&](ImplicitLocOpBuilder &b, Value value) -> Value {
    return value.getType() == f32 ? value
                                  : arith::ExtFOp::create(b, f32, value);
  };
  auto constant = [&](ImplicitLocOpBuilder &b, double value) -> Value {
    return arith::ConstantOp::create(b, b.getFloatAttr(f32, value));
  };
  AffineMap choices = b.getMultiDimIdentityMap(2);
  AffineMap tokens = AffineMap::getMultiDimMapWithTargets(2, {0}, context);
  Value init = tensor::EmptyOp::create(
      b,
      SmallVector<OpFoldResult>{tensor::getMixedSize(b, b.getLoc(), slots, 0)},
      f32);
  init = linalg::FillOp::create(b, constant(b, 0.0), init).getResult(0);
  Value sum =
      generic(b, {weights, slots}, init, {choices, choices, tokens}, 1,
              [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
                Value each = arith::SelectOp::create(
                    b, isValid(b, v[1]), toF32(b, v[0]), constant(b, 0.0));
                return arith::AddFOp::create(b, v[2], each);
              });
  return generic(
      b, {weights, sum}, emptyLike(b, weights, f32), {choices, tokens, choices},
      2, [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
        Value epsilon = constant(b, normalize.getEpsilon());
        Value divisor =
            normalize.getGuard() == NormalizeGuard::Add
                ? arith::AddFOp::create(b, v[1], epsilon).getResult()
                : arith::MaximumFOp::create(b, v[1], epsilon).getResult();
        Value isZero = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ,
                                             divisor, constant(b, 0.0));
        Value quotient = arith::DivFOp::create(b, toF32(b, v[0]), divisor);
        return arith::SelectOp::create(b, isZero, constant(b, 0.0), quotient);
      });
}

LogicalResult mlir::moe::prepareSums(ImplicitLocOpBuilder &b, CombineOp combine,
                                     Value slots, bool hasOthers) {
  std::optional<NormalizeAttr> normalize = combine.getNormalize();
  if (normalize && (normalize->getKind() != NormalizeKind::Sum || hasOthers))
    return combine.emitOpError("expected weights that are normalised by their "
                               "sum over experts of one kind, or not after "
                               "choices were dropped, to add rows on each rank "
                               "(reduce = per_rank)");
  Value weights = combine.getWeights();
  if (!weights)
    return success();
  Operation *maker = weights.getDefiningOp();
  Operation *before = slots.getDefiningOp();
  if (maker && !maker->isBeforeInBlock(before)) {
    SetVector<Operation *> needed;
    bool isKnown = succeeded(getBackwardSlice(weights, &needed));
    IRRewriter rewriter(combine.getContext());
    if (!isKnown || needed.contains(combine.getPositions().getDefiningOp()) ||
        failed(moveValueDefinitions(rewriter, weights, before)))
      return combine.emitOpError("expected weights that do not depend on the "
                                 "rows of experts, to add rows on each rank "
                                 "(reduce = per_rank)");
  }
  if (normalize) {
    combine.getWeightsMutable().assign(
        normalizeBySum(b, weights, slots, *normalize));
    combine.removeNormalizeAttr();
  }
  return success();
}

void mlir::moe::bringSumsHome(ImplicitLocOpBuilder &b, CombineOp combine,
                              const SpreadTokens &tokens) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(combine);
  auto [leaving, local, partition, weights] = tokens;
  auto sum = CombineOp::create(b, combine.getGrouped(), local.getPositions(),
                               weights, Value(), NormalizeAttr());
  // A token without a slot here brings nothing home.
  auto collect = CollectOp::create(
      b, cast<TypedValue<RankedTensorType>>(withSlot(b, leaving.getRows()[1])),
      leaving.getReceived());
  RankedTensorType type = sum.getResult().getType();
  // Callers allocate by tokens: a token has K rows at most.
  auto byToken = RankedTensorType::get(
      {ShapedType::kDynamic, partition.getTopK(), type.getDimSize(1)},
      type.getElementType());
  auto home = ExchangeOp::create(b, TypeRange(byToken), Type(), sum.getResult(),
                                 collect.getOrder(), collect.getReturns(),
                                 partition.getSend());
  combine.getGroupedMutable().set(tensor::CollapseShapeOp::create(
      b, home.getRows()[0], SmallVector<ReassociationIndices>{{0, 1}, {2}}));
  // Where they are: those of a partition of one choice for each rank.
  b.setInsertionPointAfter(partition);
  auto first = PartitionOp::create(
      b, firstOnEachRank(b, partition.getSlots(), partition.getNumSlots()),
      partition.getNumSlots(), partition.getNumRanks());
  combine.getPositionsMutable().set(first.getHome());
}

void mlir::moe::finishSums(ImplicitLocOpBuilder &b, CombineOp combine,
                           Value slots, bool hasOthers) {
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPoint(combine);
  SmallVector<AffineMap> maps(3, b.getMultiDimIdentityMap(2));
  Value weights = combine.getWeights(), dropped = combine.getDropped();
  if (weights && (hasOthers || dropped)) {
    Type element = getElementTypeOrSelf(weights);
    Value scaled = generic(
        b, {slots, weights}, emptyLike(b, weights, element), maps, 2,
        [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
          Value one =
              arith::ConstantOp::create(b, b.getFloatAttr(element, 1.0));
          return arith::SelectOp::create(b, isValid(b, v[0]), one, v[1]);
        });
    combine.getWeightsMutable().assign(scaled);
  } else {
    combine.getWeightsMutable().clear();
  }
  if (!dropped)
    return;
  // The choices of a token that share a row have no position, but were not
  // dropped: rows of dropped choices are listed behind the others.
  Value rows = combine.getGrouped(), positions = combine.getPositions();
  Value count = getValueOrCreateConstantIndexOp(
      b, b.getLoc(), tensor::getMixedSize(b, b.getLoc(), rows, 0));
  Value all = tensor::ConcatOp::create(b, 0, ValueRange{rows, dropped});
  Value listed = generic(
      b, {positions, slots}, emptyLike(b, positions, b.getI32Type()), maps, 2,
      [&](ImplicitLocOpBuilder &b, ValueRange v) -> Value {
        Value token = arith::AddIOp::create(
            b, count, linalg::IndexOp::create(b, 0).getResult());
        Value behind = arith::IndexCastOp::create(b, b.getI32Type(), token);
        Value other =
            arith::SelectOp::create(b, isValid(b, v[1]), i32(b, -1), behind);
        return arith::SelectOp::create(b, isValid(b, v[0]), v[0], other);
      });
  combine.getGroupedMutable().set(all);
  combine.getPositionsMutable().set(listed);
  combine.getDroppedMutable().clear();
}
