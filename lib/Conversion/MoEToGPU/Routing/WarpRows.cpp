//===- WarpRows.cpp - Rows in the registers of a warp ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WarpRows.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

using Row = WarpRows::Row;

Value WarpRows::negInf() {
  return b.f32(-std::numeric_limits<double>::infinity());
}
Value WarpRows::isNaN(Value x) {
  return compare(arith::CmpFPredicate::UNO, x, x);
}
Value WarpRows::compare(arith::CmpFPredicate predicate, Value x, Value y) {
  return arith::CmpFOp::create(b, predicate, x, y);
}

Value WarpRows::columnOf(unsigned slot) {
  return b.add(lane, int64_t(slot) * 32);
}

Row WarpRows::validColumns(int64_t columns) {
  Row flags;
  for (int64_t slot = 0; slot < slotsOf(columns); ++slot)
    flags.push_back(columns - slot * 32 >= 32
                        ? b.i1(true)
                        : b.less(columnOf(slot), columns));
  return flags;
}

Row WarpRows::loadRow(Value pointer, Type element, Value first, int64_t columns,
                      Value otherwise) {
  Row row;
  for (auto [slot, valid] : llvm::enumerate(validColumns(columns))) {
    // Out-of-range columns are clamped to the last one.
    Value column = b.min(columnOf(slot), columns - 1);
    Value value = b.loadAt(element, pointer, b.add(first, b.toI64(column)));
    if (isa<FloatType>(element))
      value = b.toFloat(value, b.getF32Type());
    row.push_back(b.select(valid, value, otherwise));
  }
  return row;
}

void WarpRows::forEach(
    const Row &row, int64_t columns,
    llvm::function_ref<void(Value column, Value value)> body) {
  for (auto [slot, valid] : llvm::enumerate(validColumns(columns)))
    b.ifThen(valid, [&, slot = slot] { body(columnOf(slot), row[slot]); });
}

void WarpRows::storeRow(const Row &row, Value pointer, Value first,
                        int64_t columns) {
  forEach(row, columns, [&](Value column, Value value) {
    b.storeAt(value, pointer, b.add(first, b.toI64(column)));
  });
}

Row WarpRows::map(const Row &row, llvm::function_ref<Value(Value)> body) {
  return llvm::map_to_vector(row, body);
}

Row WarpRows::gather(const Row &row, const Row &ids, int64_t columns) {
  return map(ids, [&](Value id) {
    Value from = b.bitAnd(id, 31), slot = b.shiftRight(id, 5);
    Value result = b.f32(0.0);
    for (auto [i, value] : llvm::enumerate(row)) {
      Value other = b.shuffle(value, from);
      result = b.select(b.equal(slot, int64_t(i)), other, result);
    }
    return b.select(b.below(id, columns), result, b.f32(0.0));
  });
}

Row WarpRows::softmax(const Row &row, const Row &valid) {
  Row masked;
  for (auto [x, isValid] : llvm::zip_equal(row, valid))
    masked.push_back(b.select(isValid, x, negInf()));
  Value maximum = masked.front();
  for (Value x : llvm::drop_begin(masked))
    maximum = arith::MaximumFOp::create(b, maximum, x);
  maximum = b.maxWarp(maximum);
  Row exps;
  Value sum = b.f32(0.0);
  for (auto [x, isValid] : llvm::zip_equal(masked, valid)) {
    // The maximum itself gives exp(0) = 1, even if it is infinite.
    Value exp = math::ExpOp::create(b, arith::SubFOp::create(b, x, maximum));
    exp = b.select(compare(arith::CmpFPredicate::OEQ, x, maximum), b.f32(1.0),
                   exp);
    exp = b.select(isValid, exp, b.f32(0.0));
    exps.push_back(exp);
    sum = arith::AddFOp::create(b, sum, exp);
  }
  sum = b.sumWarp(sum);
  Value none = compare(arith::CmpFPredicate::OEQ, sum, b.f32(0.0));
  return map(exps, [&](Value exp) {
    return b.select(none, sum, arith::DivFOp::create(b, exp, sum));
  });
}
