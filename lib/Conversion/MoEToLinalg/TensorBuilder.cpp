//===- TensorBuilder.cpp - Short names for linalg on tensors --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// Scalars
//===----------------------------------------------------------------------===//

Value TensorBuilder::index(int64_t value) {
  return arith::ConstantIndexOp::create(*this, value);
}
Value TensorBuilder::i32(int64_t value) {
  return arith::ConstantIntOp::create(*this, value, 32);
}
Value TensorBuilder::f32(double value) {
  return arith::ConstantOp::create(*this, getF32FloatAttr(value));
}
Value TensorBuilder::toI32(Value index) {
  return arith::IndexCastOp::create(*this, getI32Type(), index);
}
Value TensorBuilder::toIndex(Value integer) {
  return arith::IndexCastOp::create(*this, getIndexType(), integer);
}

Value TensorBuilder::toFloat(Value value, Type type) {
  if (value.getType() == type)
    return value;
  // f16 and bf16 convert through f32.
  if (!value.getType().isF32())
    value = arith::ExtFOp::create(*this, getF32Type(), value);
  return type.isF32() ? value : arith::TruncFOp::create(*this, type, value);
}

Value TensorBuilder::roundTo(Value value, Type type) {
  return toFloat(toFloat(value, type), getF32Type());
}

Value TensorBuilder::divideOrZero(Value dividend, Value divisor) {
  Value zero = f32(0.0);
  Value none =
      arith::CmpFOp::create(*this, arith::CmpFPredicate::OEQ, divisor, zero);
  Value quotient = arith::DivFOp::create(*this, dividend, divisor);
  return arith::SelectOp::create(*this, none, zero, quotient);
}

Value TensorBuilder::isNaN(Value value) {
  return arith::CmpFOp::create(*this, arith::CmpFPredicate::UNO, value, value);
}

Value TensorBuilder::inRange(Value integer, int64_t bound) {
  // The unsigned comparison rejects negative integers, too.
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::ult, integer,
                               i32(bound));
}

Value TensorBuilder::logicalNot(Value flag) {
  return arith::XOrIOp::create(*this, flag,
                               arith::ConstantIntOp::create(*this, 1, 1));
}

Value TensorBuilder::toMask(Value flag) {
  return arith::ExtUIOp::create(*this, getI8Type(), flag);
}
Value TensorBuilder::isSet(Value element) {
  return arith::CmpIOp::create(*this, arith::CmpIPredicate::ne, element,
                               arith::ConstantIntOp::create(*this, 0, 8));
}

Value TensorBuilder::clamp(Value value, Value limit) {
  value = arith::MaxSIOp::create(*this, value, index(0));
  return arith::MinSIOp::create(*this, value, limit);
}

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

OpFoldResult TensorBuilder::size(Value tensor, int64_t dim) {
  return tensor::getMixedSize(*this, getLoc(), tensor, dim);
}
Value TensorBuilder::dim(Value tensor, int64_t dim) {
  return getValueOrCreateConstantIndexOp(*this, getLoc(), size(tensor, dim));
}
SmallVector<OpFoldResult> TensorBuilder::sizes(Value tensor) {
  return tensor::getMixedSizes(*this, getLoc(), tensor);
}
Value TensorBuilder::empty(ArrayRef<OpFoldResult> sizes, Type element) {
  return tensor::EmptyOp::create(*this, sizes, element);
}
Value TensorBuilder::fill(ArrayRef<OpFoldResult> sizes, Value scalar) {
  return linalg::FillOp::create(*this, scalar, empty(sizes, scalar.getType()))
      .getResult(0);
}
Value TensorBuilder::extract(Value tensor, ValueRange indices) {
  return tensor::ExtractOp::create(*this, tensor, indices);
}
Value TensorBuilder::insert(Value scalar, Value tensor, ValueRange indices) {
  return tensor::InsertOp::create(*this, scalar, tensor, indices);
}

Value TensorBuilder::rowAt(Value offsets, Value index, Value rows) {
  return clamp(toIndex(extract(offsets, index)), rows);
}

std::pair<Value, Value> TensorBuilder::rowsOf(Value offsets, Value e,
                                              int64_t first, Value rows) {
  Value start = index(0), end = rows;
  if (offsets) {
    Value expert = arith::AddIOp::create(*this, e, index(first));
    start = rowAt(offsets, expert, rows);
    end = rowAt(offsets, arith::AddIOp::create(*this, expert, index(1)), rows);
  }
  return {start, clamp(arith::SubIOp::create(*this, end, start), rows)};
}

SmallVector<Value> TensorBuilder::generic(unsigned loops, unsigned reductions,
                                          ArrayRef<Value> inputs,
                                          ArrayRef<AffineMap> maps,
                                          ArrayRef<Value> outputs, BodyN body) {
  SmallVector<utils::IteratorType> iterators(loops,
                                             utils::IteratorType::parallel);
  for (unsigned i = loops - reductions; i < loops; ++i)
    iterators[i] = utils::IteratorType::reduction;
  auto op = linalg::GenericOp::create(
      *this, TypeRange(ValueRange(outputs)), inputs, outputs, maps, iterators,
      [&](OpBuilder &nested, Location loc, ValueRange elements) {
        OpBuilder::InsertionGuard guard(*this);
        setInsertionPoint(nested.getInsertionBlock(),
                          nested.getInsertionPoint());
        linalg::YieldOp::create(*this, body(elements));
      });
  return llvm::to_vector_of<Value>(op.getResults());
}

Value TensorBuilder::map(ArrayRef<Value> inputs, Type element, Body body) {
  auto type = cast<RankedTensorType>(inputs.front().getType());
  unsigned rank = type.getRank();
  SmallVector<AffineMap> maps(inputs.size() + 1, getMultiDimIdentityMap(rank));
  Value output = empty(sizes(inputs.front()), element);
  return generic(rank, 0, inputs, maps, output,
                 [&](ValueRange elements) {
                   return SmallVector<Value>{body(elements.drop_back())};
                 })
      .front();
}

Value TensorBuilder::mask(ArrayRef<Value> inputs, Body body) {
  return map(inputs, getI8Type(),
             [&](ValueRange v) { return toMask(body(v)); });
}

/// Maps the loops (row, column) to the dimension that is left when `removed` is
/// reduced.
static AffineMap remaining(Builder &b, Axis removed) {
  return AffineMap::get(2, 0,
                        b.getAffineDimExpr(removed == Axis::Columns ? 0 : 1));
}

Value TensorBuilder::mapWithVector(Value matrix, Value vector, Axis removed,
                                   Type element, Body body) {
  AffineMap identity = getMultiDimIdentityMap(2);
  Value output = empty(sizes(matrix), element);
  return generic(2, 0, {matrix, vector},
                 {identity, remaining(*this, removed), identity}, output,
                 [&](ValueRange elements) {
                   return SmallVector<Value>{body(elements.drop_back())};
                 })
      .front();
}

Value TensorBuilder::reduce(Value matrix, Axis axis, Value init, Body body) {
  // The reduced dimension is the inner loop, so that it runs in order.
  AffineMap in = axis == Axis::Columns
                     ? getMultiDimIdentityMap(2)
                     : AffineMap::getPermutationMap(ArrayRef<unsigned>{1, 0},
                                                    getContext());
  AffineMap out = AffineMap::get(2, 0, getAffineDimExpr(0));
  Value output = fill(size(matrix, axis == Axis::Columns ? 0 : 1), init);
  return generic(2, 1, matrix, {in, out}, output,
                 [&](ValueRange elements) {
                   return SmallVector<Value>{body(elements)};
                 })
      .front();
}

Value TensorBuilder::sum(Value matrix, Axis axis) {
  return reduce(matrix, axis, f32(0.0), [&](ValueRange v) -> Value {
    return arith::AddFOp::create(*this, v[1], v[0]);
  });
}

SmallVector<Value> TensorBuilder::loop(
    Value bound, ValueRange inits,
    llvm::function_ref<SmallVector<Value>(Value, ValueRange)> body) {
  auto op = scf::ForOp::create(
      *this, index(0), bound, index(1), inits,
      [&](OpBuilder &nested, Location loc, Value induction, ValueRange iters) {
        OpBuilder::InsertionGuard guard(*this);
        setInsertionPoint(nested.getInsertionBlock(),
                          nested.getInsertionPoint());
        scf::YieldOp::create(*this, body(induction, iters));
      });
  return llvm::to_vector_of<Value>(op.getResults());
}

//===----------------------------------------------------------------------===//
// Formulas
//===----------------------------------------------------------------------===//

Value TensorBuilder::softmax(Value matrix, Value valid, Axis axis) {
  Type f32Type = getF32Type();
  Value negInf = f32(-std::numeric_limits<double>::infinity());
  if (valid)
    matrix = map({matrix, valid}, f32Type, [&](ValueRange v) -> Value {
      return arith::SelectOp::create(*this, isSet(v[1]), v[0], negInf);
    });
  Value maximum = reduce(matrix, axis, negInf, [&](ValueRange v) -> Value {
    return arith::MaximumFOp::create(*this, v[0], v[1]);
  });
  // exp(0) = 1 for the maximum itself, even if it is infinite.
  Value powers =
      mapWithVector(matrix, maximum, axis, f32Type, [&](ValueRange v) -> Value {
        Value power = math::ExpOp::create(
            *this, arith::SubFOp::create(*this, v[0], v[1]));
        Value same =
            arith::CmpFOp::create(*this, arith::CmpFPredicate::OEQ, v[0], v[1]);
        return arith::SelectOp::create(*this, same, f32(1.0), power);
      });
  if (valid)
    powers = map({powers, valid}, f32Type, [&](ValueRange v) -> Value {
      return arith::SelectOp::create(*this, isSet(v[1]), v[0], f32(0.0));
    });
  Value total = sum(powers, axis);
  return mapWithVector(powers, total, axis, f32Type,
                       [&](ValueRange v) { return divideOrZero(v[0], v[1]); });
}

/// Returns the exponent of the denominator: a sum is one of first powers.
static double powerOf(NormalizeAttr normalize) {
  return normalize.getKind() == NormalizeKind::Norm ? double(normalize.getP())
                                                    : 1.0;
}

Value TensorBuilder::sumOfPowers(Value weights, Value valid,
                                 NormalizeAttr normalize) {
  double p = powerOf(normalize);
  Value terms = map({weights, valid}, getF32Type(), [&](ValueRange v) -> Value {
    Value term = v[0];
    if (normalize.getKind() == NormalizeKind::Norm) {
      term = math::AbsFOp::create(*this, term);
      if (p == 2.0)
        term = arith::MulFOp::create(*this, term, term);
      else if (p != 1.0)
        term = math::PowFOp::create(*this, term, f32(p));
    }
    return arith::SelectOp::create(*this, isSet(v[1]), term, f32(0.0));
  });
  return sum(terms, Axis::Columns);
}

Value TensorBuilder::rootOfPowers(Value sum, NormalizeAttr normalize) {
  double p = powerOf(normalize);
  if (p == 1.0)
    return sum;
  if (p == 2.0)
    return math::SqrtOp::create(*this, sum);
  return math::PowFOp::create(*this, sum, f32(1.0 / p));
}

Value TensorBuilder::guard(Value denominator, NormalizeAttr normalize) {
  Value epsilon = f32(normalize.getEpsilon());
  if (normalize.getGuard() == NormalizeGuard::Clamp)
    return arith::MaximumFOp::create(*this, denominator, epsilon);
  if (normalize.getEpsilon() == 0.0)
    return denominator;
  return arith::AddFOp::create(*this, denominator, epsilon);
}

Value TensorBuilder::normalize(Value weights, Value valid,
                               NormalizeAttr normalize, Type type) {
  Type f32Type = getF32Type();
  if (normalize.getKind() == NormalizeKind::Softmax) {
    Value result = softmax(weights, valid, Axis::Columns);
    return map(result, f32Type,
               [&](ValueRange v) { return roundTo(v[0], type); });
  }
  Value powers = sumOfPowers(weights, valid, normalize);
  Value denominator = map(powers, f32Type, [&](ValueRange v) -> Value {
    Value root = roundTo(rootOfPowers(v[0], normalize), type);
    return roundTo(guard(root, normalize), type);
  });
  return mapWithVector(weights, denominator, Axis::Columns, f32Type,
                       [&](ValueRange v) -> Value {
                         return roundTo(divideOrZero(v[0], v[1]), type);
                       });
}
