//===- QuantizedRows.h - Rows of integers of 8 bits -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H
#define MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H

#include <array>
#include <cstdint>

namespace mlir::moe {

/// The layout of the rows that moe.quantize_rows writes: a group of elements
/// has its integers (i8), their scale (f32) and two sums of them (i16). One
/// pointer and constant offsets reach all that a kernel needs of a row.
struct QuantizedRows {
  static constexpr int64_t group = 32;     // elements of a scale
  static constexpr int64_t scaleByte = 32; // from the first byte of a group
  static constexpr int64_t sumsByte = 36;
  static constexpr int64_t bytes = 40; // of a group
  /// Element of each integer of four, as in the words of PackedFormat.
  static constexpr std::array<int64_t, 4> order = {0, 2, 1, 3};

  static constexpr int64_t getBytes(int64_t elements) {
    return elements / group * bytes;
  }
  static constexpr int64_t getElements(int64_t rowBytes) {
    return rowBytes / bytes * group;
  }
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H
