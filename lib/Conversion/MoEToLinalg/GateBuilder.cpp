//===- GateBuilder.cpp - Steps of gates and their gradients ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GateBuilder.h"
#include "moe/Conversion/Utils/ScoreFormula.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

Value GateBuilder::negInf() {
  return f32(-std::numeric_limits<double>::infinity());
}

Value GateBuilder::logit(ValueRange elements) {
  Value logit = toFloat(elements[0], getF32Type());
  if (elements.size() == 1)
    return logit;
  return arith::AddFOp::create(*this, logit,
                               toFloat(elements[1], getF32Type()));
}

Value GateBuilder::logits(Value logits, Value noise) {
  SmallVector<Value> inputs{logits};
  if (noise)
    inputs.push_back(noise);
  return map(inputs, getF32Type(), [&](ValueRange v) -> Value {
    Value sum = logit(v);
    return arith::SelectOp::create(*this, isNaN(sum), negInf(), sum);
  });
}

Value GateBuilder::score(Value values, Value valid, Axis axis, Score score,
                         Type type) {
  if (score == Score::Softmax)
    values = softmax(values, valid, axis);
  return map(values, getF32Type(), [&](ValueRange v) {
    return roundTo(scoreOf(*this, v[0], score), type);
  });
}

//===----------------------------------------------------------------------===//
// Gradients
//===----------------------------------------------------------------------===//

Value GateBuilder::softmaxGradient(Value scores, Value gradient, Axis axis) {
  auto multiply = [&](Value x, Value y) {
    return map({x, y}, getF32Type(), [&](ValueRange v) -> Value {
      return arith::MulFOp::create(*this, v[0], v[1]);
    });
  };
  Value mean = sum(multiply(gradient, scores), axis);
  Value rest = mapWithVector(gradient, mean, axis, getF32Type(),
                             [&](ValueRange v) -> Value {
                               return arith::SubFOp::create(*this, v[0], v[1]);
                             });
  return multiply(scores, rest);
}

Value GateBuilder::scoreGradient(Value values, Value gradient, Score score) {
  if (score == Score::None)
    return gradient;
  return map({values, gradient}, getF32Type(), [&](ValueRange v) -> Value {
    Value x = v[0], g = v[1];
    Value positive =
        arith::CmpFOp::create(*this, arith::CmpFPredicate::OGT, x, f32(0.0));
    if (score == Score::Relu)
      return arith::SelectOp::create(*this, positive, g, f32(0.0));
    // The power is at most 1: e = exp(−|x|).
    Value e = math::ExpOp::create(
        *this, arith::NegFOp::create(*this, math::AbsFOp::create(*this, x)));
    Value sum = arith::AddFOp::create(*this, f32(1.0), e);
    Value slope;
    if (score == Score::Sigmoid) {
      // s (1 − s) without the difference
      slope = arith::DivFOp::create(*this, e,
                                    arith::MulFOp::create(*this, sum, sum));
    } else {
      // σ(x) / (2 s); both are 0 for −∞.
      Value sigmoid = arith::DivFOp::create(
          *this, arith::SelectOp::create(*this, positive, f32(1.0), e), sum);
      Value s = scoreOf(*this, x, score);
      slope = divideOrZero(sigmoid, arith::AddFOp::create(*this, s, s));
    }
    return arith::MulFOp::create(*this, g, slope);
  });
}

Value GateBuilder::scatter(Value ids, Value values, int64_t columns) {
  auto dims = [&](ArrayRef<unsigned> results) {
    return AffineMap::getMultiDimMapWithTargets(3, results, getContext());
  };
  AffineMap choice = dims({0, 2});
  return generic(
             3, 1, {ids, values}, {choice, choice, dims({0, 1})},
             fill({size(ids, 0), getIndexAttr(columns)}, f32(0.0)),
             [&](ValueRange v) {
               Value column = toI32(linalg::IndexOp::create(*this, 1));
               Value its = arith::CmpIOp::create(
                   *this, arith::CmpIPredicate::eq, v[0], column);
               Value x = arith::SelectOp::create(*this, its, v[1], f32(0.0));
               return SmallVector<Value>{arith::AddFOp::create(*this, v[2], x)};
             })
      .front();
}

//===----------------------------------------------------------------------===//
// Selection
//===----------------------------------------------------------------------===//

std::pair<Value, Value> GateBuilder::best(Value scores, Value taken,
                                          Axis axis) {
  // Two reductions vectorize, unlike one of pairs. No score is NaN.
  AffineMap in = axis == Axis::Columns
                     ? getMultiDimIdentityMap(2)
                     : AffineMap::getPermutationMap(ArrayRef<unsigned>{1, 0},
                                                    getContext());
  AffineMap out = AffineMap::get(2, 0, getAffineDimExpr(0));
  OpFoldResult left = size(scores, axis == Axis::Columns ? 0 : 1);
  Value most =
      generic(2, 1, {scores, taken}, {in, in, out}, fill(left, negInf()),
              [&](ValueRange v) {
                Value open =
                    arith::SelectOp::create(*this, isSet(v[1]), negInf(), v[0]);
                return SmallVector<Value>{
                    arith::MaximumFOp::create(*this, open, v[2])};
              })
          .front();
  Value none = i32(std::numeric_limits<int32_t>::max());
  Value first =
      generic(2, 1, {scores, taken, most}, {in, in, out, out}, fill(left, none),
              [&](ValueRange v) {
                Value equal = arith::CmpFOp::create(
                    *this, arith::CmpFPredicate::OEQ, v[0], v[2]);
                Value found = arith::AndIOp::create(*this, equal,
                                                    logicalNot(isSet(v[1])));
                Value position = toI32(linalg::IndexOp::create(*this, 1));
                Value candidate =
                    arith::SelectOp::create(*this, found, position, none);
                return SmallVector<Value>{
                    arith::MinSIOp::create(*this, candidate, v[3])};
              })
          .front();
  Value index = map(first, getI32Type(), [&](ValueRange v) -> Value {
    Value missing =
        arith::CmpIOp::create(*this, arith::CmpIPredicate::eq, v[0], none);
    return arith::SelectOp::create(*this, missing, i32(-1), v[0]);
  });
  return {most, index};
}

Value GateBuilder::take(Value taken, Value chosen, Axis axis) {
  unsigned along = axis == Axis::Columns ? 1 : 0;
  AffineMap each = AffineMap::get(2, 0, getAffineDimExpr(1 - along));
  return generic(2, 0, chosen, {each, getMultiDimIdentityMap(2)}, taken,
                 [&](ValueRange v) {
                   Value position =
                       toI32(linalg::IndexOp::create(*this, along));
                   Value here = arith::CmpIOp::create(
                       *this, arith::CmpIPredicate::eq, position, v[0]);
                   return SmallVector<Value>{
                       arith::OrIOp::create(*this, v[1], toMask(here))};
                 })
      .front();
}

Value GateBuilder::withinMargin(Value logits, Value best, Value taken,
                                std::optional<APFloat> margin) {
  if (!margin)
    return mask(taken, [&](ValueRange v) { return logicalNot(isSet(v[0])); });
  Value near = mapWithVector(
      logits, best, Axis::Columns, getI8Type(), [&](ValueRange v) -> Value {
        Value gap = arith::SubFOp::create(*this, v[1], v[0]);
        Value factor = arith::MaximumFOp::create(
            *this, math::AbsFOp::create(*this, v[0]), v[1]);
        Value relative = arith::DivFOp::create(*this, gap, factor);
        Value far =
            arith::CmpFOp::create(*this, arith::CmpFPredicate::OGT, relative,
                                  f32(margin->convertToDouble()));
        return toMask(logicalNot(far));
      });
  return mask({near, taken}, [&](ValueRange v) -> Value {
    return arith::AndIOp::create(*this, isSet(v[0]), logicalNot(isSet(v[1])));
  });
}

//===----------------------------------------------------------------------===//
// Columns
//===----------------------------------------------------------------------===//

Value GateBuilder::validIds(Value ids, int64_t experts) {
  return mask(ids,
              [&](ValueRange v) -> Value { return inRange(v[0], experts); });
}

Value GateBuilder::gather(Value matrix, Value ids) {
  int64_t columns = cast<RankedTensorType>(matrix.getType()).getDimSize(1);
  return map(ids, getF32Type(), [&](ValueRange v) -> Value {
    Value valid = inRange(v[0], columns);
    Value column = toIndex(arith::SelectOp::create(*this, valid, v[0], i32(0)));
    Value row = linalg::IndexOp::create(*this, 0);
    return arith::SelectOp::create(*this, valid, extract(matrix, {row, column}),
                                   f32(0.0));
  });
}

Value GateBuilder::setColumn(Value column, Value matrix, Value k) {
  OpFoldResult one = getIndexAttr(1), zero = getIndexAttr(0);
  SmallVector<OpFoldResult> offsets{zero, k}, strides{one, one};
  SmallVector<OpFoldResult> sizes{size(matrix, 0), one};
  return tensor::InsertSliceOp::create(*this, column, matrix, offsets, sizes,
                                       strides);
}

Value GateBuilder::whereValid(Value matrix, Value valid) {
  return map({matrix, valid}, getF32Type(), [&](ValueRange v) -> Value {
    return arith::SelectOp::create(*this, isSet(v[1]), v[0], f32(0.0));
  });
}
