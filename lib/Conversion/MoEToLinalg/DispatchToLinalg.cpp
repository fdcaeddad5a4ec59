//===- DispatchToLinalg.cpp - moe.dispatch and moe.route ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Assigns rows to the choices of moe.dispatch or moe.route.
template <typename OpT> class Routing {
public:
  Routing(OpT op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder), experts(op.getNumExperts()),
        topK(op.getTopK()), maxChoices(op.getMaxChoices()) {}

  struct Result {
    Value offsets;
    Value positions;
    Value choices; // t·K + k of each grouped row [R], or -1
  };
  Result run(OpFoldResult rows);

private:
  Value none() { return arith::ConstantIntOp::create(b, 0, 1); }
  /// True if the id is valid and the choice is one of the first `maxChoices`.
  Value considered(Value id, Value k);
  Value keepAll();
  Value keepFirst(Value capacity);
  Value keepMostProbable(Value capacity);
  Value countOffsets(Value kept);
  std::pair<Value, Value> assignRows(Value kept, Value offsets,
                                     OpFoldResult bound);
  /// Builds a loop over the choices, with tokens as the outer loop unless
  /// `choicesOutside`.
  SmallVector<Value> forEachChoice(
      ValueRange inits, bool choicesOutside,
      llvm::function_ref<SmallVector<Value>(Value t, Value k, ValueRange iters)>
          body);

  OpT op;
  TensorBuilder b;
  int64_t experts, topK, maxChoices;
};
} // namespace

template <typename OpT>
SmallVector<Value> Routing<OpT>::forEachChoice(
    ValueRange inits, bool choicesOutside,
    llvm::function_ref<SmallVector<Value>(Value, Value, ValueRange)> body) {
  Value tokens = b.dim(op.getIds(), 0), choices = b.index(topK);
  Value outer = choicesOutside ? choices : tokens;
  Value inner = choicesOutside ? tokens : choices;
  return b.loop(outer, inits, [&](Value i, ValueRange iters) {
    return b.loop(inner, iters, [&](Value j, ValueRange iters) {
      return choicesOutside ? body(j, i, iters) : body(i, j, iters);
    });
  });
}

template <typename OpT> Value Routing<OpT>::considered(Value id, Value k) {
  Value valid = b.inRange(id, experts);
  if (maxChoices == topK)
    return valid;
  Value first = arith::CmpIOp::create(b, arith::CmpIPredicate::ult, k,
                                      b.index(maxChoices));
  return arith::AndIOp::create(b, valid, first);
}

//===----------------------------------------------------------------------===//
// Selection of kept choices: a mask [T, K]
//===----------------------------------------------------------------------===//

template <typename OpT> Value Routing<OpT>::keepAll() {
  return b.map(op.getIds(), b.getI1Type(), [&](ValueRange v) {
    return considered(v[0], linalg::IndexOp::create(b, 1));
  });
}

/// Keeps choices in order of tokens or of choices while their expert has room.
template <typename OpT> Value Routing<OpT>::keepFirst(Value capacity) {
  bool retry = op.getOverflow() == Overflow::NextChoice;
  SmallVector<Value> inits{
      b.fill({b.getIndexAttr(experts)}, b.i32(0)), // rows of each expert
      b.fill(b.size(op.getIds(), 0), b.i32(0)),    // choices kept of each token
      b.fill(b.sizes(op.getIds()), none())};       // the mask
  return forEachChoice(
      inits, op.getPriority() == Priority::Choice,
      [&](Value t, Value k, ValueRange iters) {
        Value id = b.extract(op.getIds(), {t, k});
        Value count = b.extract(iters[1], t);
        Value wanted;
        if (retry) {
          Value open = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                             count, b.i32(maxChoices));
          wanted = arith::AndIOp::create(b, b.inRange(id, experts), open);
        } else {
          wanted = considered(id, k);
        }
        Value expert =
            b.toIndex(arith::SelectOp::create(b, wanted, id, b.i32(0)));
        Value rows = b.extract(iters[0], expert);
        Value room = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                           b.toIndex(rows), capacity);
        Value keep = arith::AndIOp::create(b, wanted, room);
        Value one = arith::ExtUIOp::create(b, b.getI32Type(), keep);
        auto add = [&](Value value, Value tensor, Value index) {
          return b.insert(arith::AddIOp::create(b, value, one), tensor, index);
        };
        return SmallVector<Value>{add(rows, iters[0], expert),
                                  add(count, iters[1], t),
                                  b.insert(keep, iters[2], {t, k})};
      })[2];
}

/// Keeps a choice if fewer than C choices of its expert precede it by
/// descending weight.
template <typename OpT> Value Routing<OpT>::keepMostProbable(Value capacity) {
  Type f32 = b.getF32Type();
  Value weights = b.map(op.getWeights(), f32, [&](ValueRange v) -> Value {
    Value weight = b.toFloat(v[0], f32);
    Value negInf = b.f32(-std::numeric_limits<double>::infinity());
    return arith::SelectOp::create(b, b.isNaN(weight), negInf, weight);
  });
  auto map = [&](ArrayRef<unsigned> dims) {
    return AffineMap::getMultiDimMapWithTargets(4, dims, b.getContext());
  };
  AffineMap mine = map({0, 1}), other = map({2, 3});
  Value ids = op.getIds();
  Value rank =
      b.generic(
           4, 2, {ids, weights, ids, weights}, {mine, mine, other, other, mine},
           b.fill(b.sizes(ids), b.i32(0)),
           [&](ValueRange v) {
             Value t = linalg::IndexOp::create(b, 0);
             Value k = linalg::IndexOp::create(b, 1);
             Value otherT = linalg::IndexOp::create(b, 2);
             Value otherK = linalg::IndexOp::create(b, 3);
             using P = arith::CmpIPredicate;
             auto cmp = [&](P predicate, Value x, Value y) -> Value {
               return arith::CmpIOp::create(b, predicate, x, y);
             };
             auto both = [&](Value x, Value y) -> Value {
               return arith::AndIOp::create(b, x, y);
             };
             auto either = [&](Value x, Value y) -> Value {
               return arith::OrIOp::create(b, x, y);
             };
             Value sameExpert =
                 both(considered(v[2], otherK), cmp(P::eq, v[0], v[2]));
             Value earlier =
                 either(cmp(P::ult, otherT, t),
                        both(cmp(P::eq, otherT, t), cmp(P::ult, otherK, k)));
             Value larger = arith::CmpFOp::create(b, arith::CmpFPredicate::OGT,
                                                  v[3], v[1]);
             Value equal = arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ,
                                                 v[3], v[1]);
             Value before =
                 both(sameExpert, either(larger, both(equal, earlier)));
             Value one = arith::ExtUIOp::create(b, b.getI32Type(), before);
             return SmallVector<Value>{arith::AddIOp::create(b, v[4], one)};
           })
          .front();
  return b.map({ids, rank}, b.getI1Type(), [&](ValueRange v) -> Value {
    Value room = arith::CmpIOp::create(b, arith::CmpIPredicate::slt,
                                       b.toIndex(v[1]), capacity);
    Value wanted = considered(v[0], linalg::IndexOp::create(b, 1));
    return arith::AndIOp::create(b, wanted, room);
  });
}

//===----------------------------------------------------------------------===//
// Positions of kept choices
//===----------------------------------------------------------------------===//

/// Counts the rows of each expert and builds their prefix sum, [E + 1].
template <typename OpT> Value Routing<OpT>::countOffsets(Value kept) {
  Value counts = b.fill({b.getIndexAttr(experts + 1)}, b.i32(0));
  counts =
      forEachChoice(counts, false, [&](Value t, Value k, ValueRange iters) {
        Value keep = b.extract(kept, {t, k});
        Value id = b.extract(op.getIds(), {t, k});
        Value expert =
            b.toIndex(arith::SelectOp::create(b, keep, id, b.i32(0)));
        Value slot = arith::AddIOp::create(b, expert, b.index(1));
        Value one = arith::ExtUIOp::create(b, b.getI32Type(), keep);
        Value count = arith::AddIOp::create(b, b.extract(iters[0], slot), one);
        return SmallVector<Value>{b.insert(count, iters[0], slot)};
      }).front();
  return b
      .loop(b.index(experts), counts,
            [&](Value e, ValueRange iters) {
              Value next = arith::AddIOp::create(b, e, b.index(1));
              Value sum = arith::AddIOp::create(b, b.extract(iters[0], e),
                                                b.extract(iters[0], next));
              return SmallVector<Value>{b.insert(sum, iters[0], next)};
            })
      .front();
}

/// Returns the row of each choice [T, K], and the choice t·K + k of each row
/// [R].
template <typename OpT>
std::pair<Value, Value> Routing<OpT>::assignRows(Value kept, Value offsets,
                                                 OpFoldResult bound) {
  SmallVector<Value> inits{offsets,
                           b.empty(b.sizes(op.getIds()), b.getI32Type()),
                           b.fill(bound, b.i32(-1))};
  SmallVector<Value> results =
      forEachChoice(inits, false, [&](Value t, Value k, ValueRange iters) {
        Value keep = b.extract(kept, {t, k});
        auto choice = scf::IfOp::create(b, TypeRange(iters), keep,
                                        /*withElseRegion=*/true);
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(choice.thenBlock());
        Value expert = b.toIndex(b.extract(op.getIds(), {t, k}));
        Value row = b.extract(iters[0], expert);
        Value index = b.toI32(arith::AddIOp::create(
            b, arith::MulIOp::create(b, t, b.index(topK)), k));
        Value next = arith::AddIOp::create(b, row, b.i32(1));
        scf::YieldOp::create(
            b, ValueRange{b.insert(next, iters[0], expert),
                          b.insert(row, iters[1], {t, k}),
                          b.insert(index, iters[2], b.toIndex(row))});
        b.setInsertionPointToStart(choice.elseBlock());
        scf::YieldOp::create(
            b, ValueRange{iters[0], b.insert(b.i32(-1), iters[1], {t, k}),
                          iters[2]});
        return llvm::to_vector_of<Value>(choice.getResults());
      });
  return {results[1], results[2]};
}

template <typename OpT>
typename Routing<OpT>::Result Routing<OpT>::run(OpFoldResult rows) {
  Value kept;
  if (std::optional<CapacityAttr> capacity = op.getCapacity()) {
    Value rows =
        buildCapacity(b, b.getLoc(), *capacity, b.dim(op.getIds(), 0), experts);
    kept = op.getPriority() == Priority::Probability ? keepMostProbable(rows)
                                                     : keepFirst(rows);
  } else {
    kept = keepAll();
  }
  Value offsets = countOffsets(kept);
  auto [positions, choices] = assignRows(kept, offsets, rows);
  return {offsets, positions, choices};
}

/// Gathers the rows; uncovered ones are zero, which is valid for `undefined`,
/// too.
static Value gatherRows(TensorBuilder &b, DispatchOp op, Value source) {
  Type element = op.getRows().getType().getElementType();
  AffineMap row = AffineMap::get(2, 0, b.getAffineDimExpr(0));
  Value output = b.empty({b.size(source, 0), b.size(op.getRows(), 1)}, element);
  return b
      .generic(2, 0, source, {row, b.getMultiDimIdentityMap(2)}, output,
               [&](ValueRange v) {
                 Value h = linalg::IndexOp::create(b, 1);
                 Value covered = arith::CmpIOp::create(
                     b, arith::CmpIPredicate::sge, v[0], b.i32(0));
                 auto value = scf::IfOp::create(b, element, covered,
                                                /*withElseRegion=*/true);
                 OpBuilder::InsertionGuard guard(b);
                 b.setInsertionPointToStart(value.thenBlock());
                 Value choice = b.toIndex(v[0]), k = b.index(op.getTopK());
                 Value t = arith::DivUIOp::create(b, choice, k);
                 Value x = b.extract(op.getRows(), {t, h});
                 if (op.getScaleRows()) {
                   Value weight = b.extract(
                       op.getWeights(),
                       {t, arith::RemUIOp::create(b, choice, k).getResult()});
                   Type f32 = b.getF32Type();
                   x = b.toFloat(arith::MulFOp::create(b, b.toFloat(x, f32),
                                                       b.toFloat(weight, f32)),
                                 element);
                 }
                 scf::YieldOp::create(b, x);
                 b.setInsertionPointToStart(value.elseBlock());
                 scf::YieldOp::create(b, ValueRange(arith::ConstantOp::create(
                                             b, b.getFloatAttr(element, 0.0))));
                 return SmallVector<Value>{value.getResult(0)};
               })
      .front();
}

SmallVector<Value> mlir::moe::lowerToLinalg(DispatchOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // cannot fail for this operation
  auto routed = Routing<DispatchOp>(op, b).run(shapes[0][0]);
  return {gatherRows(b, op, routed.choices), routed.offsets, routed.positions};
}

SmallVector<Value> mlir::moe::lowerToLinalg(RouteOp op, OpBuilder &builder) {
  TensorBuilder b(op.getLoc(), builder);
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // cannot fail for this operation
  auto routed = Routing<RouteOp>(op, b).run(shapes[0][0]);
  Value topK = b.i32(op.getTopK());
  Value tokens =
      b.generic(1, 0, routed.choices,
                {b.getDimIdentityMap(), b.getDimIdentityMap()},
                b.empty(shapes[0], b.getI32Type()),
                [&](ValueRange v) -> SmallVector<Value> {
                  // Floor division keeps -1.
                  return {arith::FloorDivSIOp::create(b, v[0], topK)};
                })
          .front();
  return {tokens, routed.offsets, routed.positions};
}
