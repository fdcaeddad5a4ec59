//===- RowWords.cpp - Bytes of neighbouring rows as vectors ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowWords.h"

using namespace mlir;
using namespace mlir::moe;

/// Loads the chunk of one row, as four words.
Value RowWords::load(int64_t byte, int64_t row) {
  Type element = cast<MemRefType>(rows.elements.getType()).getElementType();
  int64_t bytes = element.getIntOrFloatBitWidth() / 8;
  Value at = b.add(b.add(first, b.mul(rows.strides[1], row)), byte / bytes);
  Value loaded = vector::LoadOp::create(
      b, VectorType::get(chunkBytes / bytes, element), rows.elements, at);
  auto words = VectorType::get(chunkBytes / 4, b.getI32Type());
  return loaded.getType() == words
             ? loaded
             : vector::BitCastOp::create(b, words, loaded).getResult();
}

/// Reorders the bytes of each word.
Value RowWords::reorder(Value words) {
  auto type = cast<VectorType>(words.getType());
  auto bytes = VectorType::get(4 * lanes, b.getI8Type());
  SmallVector<int64_t> mask;
  for (int64_t lane = 0; lane < lanes; ++lane)
    for (int64_t byte : byteOrder)
      mask.push_back(4 * lane + byte);
  Value value = vector::BitCastOp::create(b, bytes, words);
  return vector::BitCastOp::create(b, type, shuffle(value, value, mask));
}

ArrayRef<Value> RowWords::getChunk(int64_t byte) {
  auto [found, isNew] = chunks.try_emplace(byte);
  if (!isNew)
    return found->second;
  // Part j of vector i has row 4 j + i: four words, as wide as the shuffles
  // that processors have.
  SmallVector<Value, 4> parts;
  for (int64_t i = 0; i < 4; ++i) {
    SmallVector<Value> loaded;
    for (int64_t row = i; row < lanes; row += 4)
      loaded.push_back(load(byte, row));
    while (loaded.size() > 1) {
      SmallVector<Value> joined;
      for (size_t j = 0; j < loaded.size(); j += 2) {
        int64_t size =
            cast<VectorType>(loaded[j].getType()).getNumElements() * 2;
        joined.push_back(shuffle(loaded[j], loaded[j + 1],
                                 llvm::to_vector(llvm::seq<int64_t>(0, size))));
      }
      loaded = std::move(joined);
    }
    parts.push_back(loaded.front());
  }
  // Transpose the parts as squares of four.
  auto interleave = [&](Value x, Value y, ArrayRef<int64_t> ofX,
                        ArrayRef<int64_t> ofY) {
    SmallVector<int64_t> mask;
    for (int64_t part = 0; part < lanes; part += 4)
      for (auto [i, j] : llvm::zip(ofX, ofY)) {
        mask.push_back(part + i);
        mask.push_back(part + j + lanes);
      }
    return shuffle(x, y, mask);
  };
  auto low = [&](Value x, Value y) { return interleave(x, y, {0, 1}, {0, 1}); };
  auto high = [&](Value x, Value y) {
    return interleave(x, y, {2, 3}, {2, 3});
  };
  // The words of rows 0 and 2, and of rows 1 and 3, then of all four.
  Value even01 = low(parts[0], parts[2]), odd01 = low(parts[1], parts[3]);
  Value even23 = high(parts[0], parts[2]), odd23 = high(parts[1], parts[3]);
  SmallVector<Value, 4> words = {low(even01, odd01), high(even01, odd01),
                                 low(even23, odd23), high(even23, odd23)};
  if (!byteOrder.empty())
    for (Value &word : words)
      word = reorder(word);
  return found->second = std::move(words);
}
