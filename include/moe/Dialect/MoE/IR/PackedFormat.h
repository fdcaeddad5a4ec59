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
  /// The values of codes of 4 bits, times `factor`; empty if the value of a
  /// code is `code - offset`.
  SmallVector<int64_t> table;
  int64_t offset; // `value + offset` is never negative
  int64_t minimum, maximum;
  float factor;
  /// True if `value + offset` is the stored byte with its sign bit flipped.
  bool flipsSign;

  /// True if a value is an integer of 8 bits with a sign.
  bool fitInt8() const { return minimum >= -128 && maximum <= 127; }
  /// True if the sum of products with `count` integers of at most 127 fits 16
  /// bits, and so do two products of `value + offset`.
  bool fitInt16(int64_t count) const;
};

/// What a kernel has to know of a format whose weights stay quantised in
/// panels. A panel has blocks along k, a block has groups, a group has steps:
/// of the columns next to one another, in the order in which a kernel reads
/// them.
///
///   block: numbers of the block, groups
///   group: steps, numbers of the group
///   step:  words of 32 bits with the codes of 8 or 16 elements
///
/// A number is a scale, a minimum or a zero point, widened to bytes. Codes of 4
/// bits are the index of a value; those of 6 and 8 bits are integers, or floats
/// of 8 bits.
struct PackedFormat {
  FormatAttr format;
  int64_t width;                       // bits of a code: 4, 6 or 8
  int64_t group, block;                // elements along k
  SmallVector<FieldAttr> scales, mins; // products of numbers
  bool scalesMins; // the minimum is a zero point: `scales` multiply it, too

  /// Element along k of each of the eight codes of 4 bits of a word, from the
  /// lowest bits on.
  static constexpr std::array<int64_t, 8> order = {0, 4, 2, 6, 1, 5, 3, 7};
  /// Element of each byte of a word with the codes of four elements.
  std::array<int64_t, 4> getByteOrder() const {
    if (isFloat8())
      return {0, 1, 2, 3};
    return rowOrder;
  }
  /// The same of moe.quantize_rows.
  static constexpr std::array<int64_t, 4> rowOrder = {0, 2, 1, 3};

  /// Returns the packed form of a format; none if it has to be decoded.
  static std::optional<PackedFormat> get(FormatAttr format);

  /// Elements of a step, and the words of a column that hold their codes.
  int64_t getStep() const { return width == 6 ? 16 : 8; }
  int64_t getWords() const { return getStep() * width / 32; }
  bool hasMins() const { return !mins.empty(); }
  bool isFloat8() const {
    return width == 8 && isa<FloatType>(format.getCodes().getElement());
  }
  /// Values of codes of 4 bits.
  std::array<float, 16> getValues() const;
  /// True if kernels turn codes into values in bf16, which has all of them.
  bool hasBF16Codes() const;
  /// Returns the codes as integers of 8 bits; none if their values are no
  /// multiples of 1/2, or too large.
  std::optional<Int8Codes> getInt8Codes() const;

  /// The numbers of a block, or of a group that is no block, in their order.
  SmallVector<FieldAttr> getNumbers(bool ofBlock) const;
  /// Bytes of a number.
  static int64_t getBytes(FieldAttr number) {
    return llvm::divideCeil(number.getWidth(), 8);
  }
  /// Bytes of one column: of a step, of the numbers of a block or group, of a
  /// group of `steps` steps, of a block.
  int64_t getStepBytes() const { return 4 * getWords(); }
  int64_t getNumberBytes(bool ofBlock) const;
  int64_t getGroupBytes(int64_t steps) const {
    return steps * getStepBytes() + getNumberBytes(false);
  }
  int64_t getGroupBytes() const { return getGroupBytes(group / getStep()); }
  int64_t getBlockBytes() const {
    return getNumberBytes(true) + block / group * getGroupBytes();
  }
  /// Bytes of a panel of `columns` columns.
  int64_t getPanelBytes(int64_t columns, int64_t k) const;
  /// Bytes before a number in the numbers of its block or group, of one column.
  int64_t getNumberOffset(FieldAttr number) const;
  bool isOfBlock(FieldAttr number) const {
    return number.getBlockColumns() > group;
  }
};

} // namespace mlir::moe

#endif // MOE_DIALECT_MOE_IR_PACKEDFORMAT_H
