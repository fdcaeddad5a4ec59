//===- RowWords.h - Bytes of neighbouring rows as vectors -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_ROWWORDS_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_ROWWORDS_H

#include "../Lowering.h"

namespace mlir::moe {

/// Loads bytes of `lanes` rows, a multiple of four, as words of 32 bits: a lane
/// is a row. Chunks of 16 bytes are loaded once each, where the builder is when
/// one is asked for first.
class RowWords {
public:
  static constexpr int64_t chunkBytes = 16;

  /// `first` is the element of `rows.elements` at byte 0 of the first row.
  RowWords(CPUBuilder &b, const FlatBuffer &rows, Value first, int64_t lanes)
      : b(b), rows(rows), first(first), lanes(lanes) {}

  /// Has byte `order[i]` of each word in place of byte `i`.
  void setByteOrder(ArrayRef<int64_t> order) { byteOrder = order; }

  /// Returns the four words of each row from byte `byte` on, a multiple of the
  /// bytes of an element.
  ArrayRef<Value> getChunk(int64_t byte);

private:
  Value load(int64_t byte, int64_t row);
  Value reorder(Value words);
  Value shuffle(Value x, Value y, ArrayRef<int64_t> mask) {
    return vector::ShuffleOp::create(b, x, y, mask);
  }

  CPUBuilder &b;
  FlatBuffer rows;
  Value first;
  int64_t lanes;
  ArrayRef<int64_t> byteOrder;
  DenseMap<int64_t, SmallVector<Value, 4>> chunks; // by their first byte
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_ROWWORDS_H
