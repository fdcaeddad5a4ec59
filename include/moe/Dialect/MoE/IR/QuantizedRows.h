//===- QuantizedRows.h - Rows of integers of 8 bits -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H
#define MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H

#include <cstdint>

namespace mlir::moe {

/// The layout of the rows that moe.quantize_rows writes: a group of elements
/// has its integers (i8), their scale (f32), and sums of them (i16): two of
/// all, two of the first half, two of the second. One pointer and constant
/// offsets reach all that a kernel needs of a row.
struct QuantizedRows {
  static constexpr int64_t group = 32;     // elements of a scale
  static constexpr int64_t scaleByte = 32; // from the first byte of a group
  static constexpr int64_t sumsByte = 36;
  static constexpr int64_t halfSumsByte = 40; // of the first half
  static constexpr int64_t bytes = 48;        // of a group

  static constexpr int64_t getBytes(int64_t elements) {
    return elements / group * bytes;
  }
  static constexpr int64_t getElements(int64_t rowBytes) {
    return rowBytes / bytes * group;
  }
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_IR_QUANTIZEDROWS_H
