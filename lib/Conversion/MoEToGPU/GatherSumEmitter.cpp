//===- GatherSumEmitter.cpp - Sums over the choices of a token ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GatherSumEmitter.h"

using namespace mlir;
using namespace mlir::moe;

int64_t GatherSumEmitter::widthOf(Type element, int64_t columns) {
  int64_t width = 128 / element.getIntOrFloatBitWidth();
  while (columns % width != 0)
    width /= 2;
  return width;
}

GatherSumEmitter::GatherSumEmitter(GPUBuilder &b, Type element, int64_t columns,
                                   int64_t topK, const Arrays &arrays)
    : b(b), element(element), columns(columns), topK(topK),
      width(widthOf(element, columns)), arrays(arrays) {
  // A choice without a row reads one all the same, and does not use it: the
  // first, or where there is none the token's own of the result.
  none = b.equal(arrays.numRows, 0);
  source = b.select(none, arrays.out, arrays.rows);
}

/// Part of a row, in f32.
Value GatherSumEmitter::load(Value base, Value row, Value vector) {
  Value offset =
      b.add(b.mul(b.toI64(row), columns), b.toI64(b.mul(vector, width)));
  auto type = VectorType::get(width, element);
  Value loaded = b.load(type, b.at(base, element, offset),
                        width * element.getIntOrFloatBitWidth() / 8);
  return b.toFloat(loaded, VectorType::get(width, b.getF32Type()));
}

Value GatherSumEmitter::splat(Value scalar) {
  return vector::BroadcastOp::create(
      b, VectorType::get(width, scalar.getType()), scalar);
}

void GatherSumEmitter::emit(Value token, Value vector) {
  constexpr int64_t atOnce = 8;
  Value unused = b.select(none, token, b.i32(0));
  Value first = b.mul(b.toI64(token), topK);
  auto f32 = VectorType::get(width, b.getF32Type());
  Value sum = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  for (int64_t start = 0; start < topK; start += atOnce) {
    SmallVector<Value> terms, isRow;
    for (int64_t k = start; k < std::min(topK, start + atOnce); ++k) {
      Value row = b.loadAt(b.getI32Type(), arrays.positions, b.add(first, k));
      // A number is below as an unsigned one only if it is not negative.
      isRow.push_back(b.below(row, arrays.numRows));
      Value term = load(source, b.select(isRow.back(), row, unused), vector);
      if (arrays.dropped)
        term =
            b.select(isRow.back(), term, load(arrays.dropped, token, vector));
      terms.push_back(term);
    }
    for (auto [k, term] : llvm::enumerate(terms)) {
      if (arrays.weights)
        term = arith::MulFOp::create(
            b,
            splat(b.loadAt(b.getF32Type(), arrays.weights,
                           b.add(first, start + int64_t(k)))),
            term);
      Value added = arith::AddFOp::create(b, sum, term);
      sum = arrays.dropped ? added : b.select(isRow[k], added, sum);
    }
  }
  Value result = b.toFloat(sum, VectorType::get(width, element));
  Value offset =
      b.add(b.mul(b.toI64(token), columns), b.toI64(b.mul(vector, width)));
  b.store(result, b.at(arrays.out, element, offset),
          width * element.getIntOrFloatBitWidth() / 8);
}
