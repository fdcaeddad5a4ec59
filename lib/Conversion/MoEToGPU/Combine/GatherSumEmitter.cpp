//===- GatherSumEmitter.cpp - Weighted sum of a token's rows --------------===//
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
      width(widthOf(element, columns)), arrays(arrays) {}

/// Returns the address of a vector of a row.
Value GatherSumEmitter::addressOf(Value base, Value row, Value vector) {
  Value offset =
      b.add(b.mul(b.toI64(row), columns), b.toI64(b.mul(vector, width)));
  return b.at(base, element, offset);
}

/// Loads a vector as f32.
Value GatherSumEmitter::load(Value pointer) {
  Value loaded = b.load(VectorType::get(width, element), pointer,
                        width * element.getIntOrFloatBitWidth() / 8);
  return b.toFloat(loaded, VectorType::get(width, b.getF32Type()));
}

/// The same with a predicate: zeros unless `condition` holds. A branch would
/// keep the loads of several rows from being in flight at once.
Value GatherSumEmitter::loadIf(Value condition, Value pointer) {
  Value loaded =
      b.loadVectorIf(condition, VectorType::get(width, element), pointer);
  return b.toFloat(loaded, VectorType::get(width, b.getF32Type()));
}

Value GatherSumEmitter::splat(Value scalar) {
  return vector::BroadcastOp::create(
      b, VectorType::get(width, scalar.getType()), scalar);
}

/// Adds `count` choices of `token`, from choice `start` + `k` on, to `sum`.
Value GatherSumEmitter::add(Value sum, Value token, Value vector, Value start,
                            int64_t k, int64_t count,
                            ArrayRef<Value> positions) {
  SmallVector<Value> rows, isRow, terms;
  for (int64_t i = k; i < k + count; ++i) {
    rows.push_back(
        positions.empty()
            ? b.loadAt(b.getI32Type(), arrays.positions, b.add(start, i))
            : positions[i]);
    // The unsigned comparison rejects negative positions, too.
    isRow.push_back(b.below(rows.back(), arrays.numRows));
  }
  for (auto [row, valid] : llvm::zip_equal(rows, isRow)) {
    Value term = loadIf(valid, addressOf(arrays.rows, row, vector));
    if (dropped)
      term = b.select(valid, term, dropped);
    terms.push_back(term);
  }
  for (auto [i, term] : llvm::enumerate(terms)) {
    if (arrays.weights)
      term =
          arith::MulFOp::create(b,
                                splat(b.loadAt(b.getF32Type(), arrays.weights,
                                               b.add(start, k + int64_t(i)))),
                                term);
    Value added = arith::AddFOp::create(b, sum, term);
    sum = dropped ? added : b.select(isRow[i], added, sum);
  }
  return sum;
}

void GatherSumEmitter::emit(Value token, Value vector,
                            ArrayRef<Value> positions) {
  // Beyond what models use for top-k, the code size must not grow with it.
  constexpr int64_t atOnce = 8, maxUnrolled = 32;
  Value first = b.mul(b.toI64(token), topK);
  auto f32 = VectorType::get(width, b.getF32Type());
  if (arrays.dropped)
    dropped = load(addressOf(arrays.dropped, token, vector));
  Value sum = arith::ConstantOp::create(b, b.getZeroAttr(f32));
  int64_t looped = topK > maxUnrolled ? topK / atOnce * atOnce : 0;
  if (looped > 0)
    sum = b.loop(b.i64(0), b.i64(looped), b.i64(atOnce), sum,
                 [&](Value k, ValueRange sums) {
                   return SmallVector<Value>{
                       add(sums[0], token, vector, b.add(first, k), 0, atOnce)};
                 })
              .front();
  for (int64_t k = looped; k < topK; k += atOnce)
    sum = add(sum, token, vector, first, k, std::min(atOnce, topK - k),
              positions);
  Value result = b.toFloat(sum, VectorType::get(width, element));
  b.store(result, addressOf(arrays.out, token, vector),
          width * element.getIntOrFloatBitWidth() / 8);
}
