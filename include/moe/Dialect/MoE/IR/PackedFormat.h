//===- PackedFormat.h - Quantised weights in panels -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_DIALECT_MOE_IR_PACKEDFORMAT_H
#define MOE_DIALECT_MOE_IR_PACKEDFORMAT_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// Returns the values of the codes of f4E2M1FN.
std::array<float, 16> getF4Values();

/// The codes of a format as integers of 8 bits.
struct Int8Codes {
  std::array<int64_t, 16> values; // the value of each code, times `factor`
  int64_t offset;                 // `value + offset` is never negative
  float factor;

  /// True if `value + offset` of a code is the code itself.
  bool isLinear() const;
  /// True if sums of products with 16 integers of 8 bits fit 16 bits, and sums
  /// of two products of `value + offset`, too.
  bool fitInt16() const;
};

/// What a kernel has to know of a format whose weights stay quantised in
/// panels: codes of 4 bits, each the index of a value, and a scale for each
/// group of elements along k.
struct PackedFormat {
  std::array<float, 16> values; // of the codes
  int64_t group;                // elements of a scale, a multiple of 32
  FieldAttr scale;

  /// Elements along k of a step: the codes of a word of 32 bits.
  static constexpr int64_t step = 8;
  /// Element along k of each code of a word, from the lowest bits on.
  static constexpr std::array<int64_t, step> order = {0, 4, 2, 6, 1, 5, 3, 7};

  /// Returns the packed form of a format; none if it has to be decoded.
  static std::optional<PackedFormat> get(FormatAttr format);

  /// True if bf16 represents all values.
  bool isExactBF16() const;
  /// Returns the codes as integers of 8 bits; none if their values are no
  /// multiples of 1/2, or too large.
  std::optional<Int8Codes> getInt8Codes() const;
  /// Bytes of the scale of one column.
  int64_t getScaleBytes() const { return scale.getWidth() / 8; }
  /// Bytes of one group of `columns` columns.
  int64_t getGroupBytes(int64_t columns) const {
    return columns * (group / 2 + getScaleBytes());
  }
  /// Bytes of a panel of `columns` columns.
  int64_t getPanelBytes(int64_t columns, int64_t k) const {
    return llvm::divideCeil(k, group) * getGroupBytes(columns);
  }
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_IR_PACKEDFORMAT_H
