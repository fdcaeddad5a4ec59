//===- PackedFormat.cpp - Quantised weights in panels ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/PackedFormat.h"

using namespace mlir;
using namespace mlir::moe;

std::array<float, 16> mlir::moe::getF4Values() {
  std::array<float, 16> values;
  for (uint64_t code = 0; code < values.size(); ++code)
    values[code] =
        APFloat(APFloat::Float4E2M1FN(), APInt(4, code)).convertToDouble();
  return values;
}

//===----------------------------------------------------------------------===//
// Which formats are packed
//===----------------------------------------------------------------------===//

/// True if kernels read codes of this type.
static bool isPackedCode(FormatAttr format) {
  Type element = format.getCodes().getElement();
  if (isa<Float4E2M1FNType, Float8E4M3FNType>(element))
    return !format.getTable() && format.getOffset() == 0;
  auto integer = dyn_cast<IntegerType>(element);
  if (!integer)
    return false;
  if (integer.getWidth() == 4)
    return true;
  // Wider codes with a table would need large ones; a sign and an offset, more
  // than 8 bits.
  bool isWide = integer.getWidth() == 8 ||
                (integer.getWidth() == 6 && integer.isUnsigned());
  int64_t last = integer.isUnsigned() ? (1 << integer.getWidth()) - 1 : 0;
  return isWide && !format.getTable() && format.getOffset() >= 0 &&
         format.getOffset() <= last;
}

/// True if kernels read numbers like this.
static bool isPackedNumber(FieldAttr number) {
  Type element = number.getElement();
  bool isKnown = isa<Float32Type, Float16Type, BFloat16Type, Float8E8M0FNUType,
                     IntegerType>(element);
  return isKnown && !number.getDivide() &&
         (!element.isInteger() || number.getWidth() <= 8);
}

/// True if a slice of the rows of a matrix is one of each operand: the fields
/// of an operand have numbers for equal blocks of rows.
static bool hasEqualRows(FormatAttr format) {
  for (int64_t index = 0; index < format.getNumOperands(); ++index) {
    int64_t fields = 0;
    for (FieldAttr field : format.getFields()) {
      if (field.getOperand() != index)
        continue;
      ++fields;
      int64_t rows = field.getAxis() == 0 ? 0 : field.getBlockRows();
      if (!format.isInRecord(field) && rows != format.getBlockRows(index))
        return false;
    }
    if (fields == 0)
      return false;
  }
  return true;
}

std::optional<PackedFormat> PackedFormat::get(FormatAttr format) {
  if (!isPackedCode(format) || !hasEqualRows(format) || !format.getScales() ||
      format.getScales().empty())
    return std::nullopt;
  PackedFormat packed;
  packed.format = format;
  packed.width = format.getCodes().getWidth();
  llvm::append_range(packed.scales, format.getScales().getAsRange<FieldAttr>());
  if (format.getMins())
    llvm::append_range(packed.mins, format.getMins().getAsRange<FieldAttr>());
  packed.scalesMins = format.getZero() != nullptr;
  if (packed.scalesMins) {
    if (packed.hasMins())
      return std::nullopt;
    packed.mins.push_back(format.getZero());
  }
  auto numbers = llvm::concat<FieldAttr>(packed.scales, packed.mins);
  if (!llvm::all_of(numbers, isPackedNumber))
    return std::nullopt;
  packed.group = INT64_MAX;
  packed.block = 0;
  for (FieldAttr number : numbers) {
    packed.group = std::min(packed.group, number.getBlockColumns());
    packed.block = std::max(packed.block, number.getBlockColumns());
  }
  // Numbers of more than two sizes of groups are nobody's.
  for (FieldAttr number : numbers)
    if (number.getBlockColumns() != packed.group &&
        number.getBlockColumns() != packed.block)
      return std::nullopt;
  // Smaller groups would cost more than the codes themselves.
  if (packed.group % 16 != 0 || packed.block % packed.group != 0)
    return std::nullopt;
  return packed;
}

//===----------------------------------------------------------------------===//
// Layout
//===----------------------------------------------------------------------===//

SmallVector<FieldAttr> PackedFormat::getNumbers(bool ofBlock) const {
  SmallVector<FieldAttr> numbers;
  for (FieldAttr number : llvm::concat<const FieldAttr>(scales, mins))
    if (isOfBlock(number) == ofBlock)
      numbers.push_back(number);
  return numbers;
}

int64_t PackedFormat::getNumberBytes(bool ofBlock) const {
  int64_t bytes = 0;
  for (FieldAttr number : getNumbers(ofBlock))
    bytes += getBytes(number);
  return bytes;
}

int64_t PackedFormat::getNumberOffset(FieldAttr number) const {
  int64_t bytes = 0;
  for (FieldAttr each : getNumbers(isOfBlock(number))) {
    if (each == number)
      break;
    bytes += getBytes(each);
  }
  return bytes;
}

int64_t PackedFormat::getPanelBytes(int64_t columns, int64_t k) const {
  int64_t bytes = k / block * getBlockBytes(), rest = k % block;
  if (rest > 0) {
    bytes += getNumberBytes(true) + rest / group * getGroupBytes();
    if (rest % group > 0)
      bytes += getGroupBytes(llvm::divideCeil(rest % group, getStep()));
  }
  return columns * bytes;
}

//===----------------------------------------------------------------------===//
// Values of codes
//===----------------------------------------------------------------------===//

std::array<float, 16> PackedFormat::getValues() const {
  Type element = format.getCodes().getElement();
  if (isa<Float4E2M1FNType>(element))
    return getF4Values();
  std::array<float, 16> values;
  bool isSigned = cast<IntegerType>(element).isSigned();
  for (int64_t code = 0; code < int64_t(values.size()); ++code) {
    int64_t value = isSigned && code >= 8 ? code - 16 : code;
    values[code] = format.getTable() ? format.getTable()[code] : float(value);
    values[code] -= float(format.getOffset());
  }
  return values;
}

bool PackedFormat::hasBF16Codes() const {
  if (width != 4)
    return width == 6;
  return llvm::all_of(getValues(), [](float value) {
    APFloat rounded(value);
    bool losesInfo = false;
    rounded.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven,
                    &losesInfo);
    return !losesInfo;
  });
}

bool Int8Codes::fitInt16(int64_t count) const {
  int64_t largest = std::max(std::abs(minimum), std::abs(maximum));
  return largest * 127 * count <= INT16_MAX &&
         (maximum + offset) * 127 * 2 <= INT16_MAX;
}

/// Returns the values of codes of 4 bits as integers.
static std::optional<Int8Codes> getTableCodes(const PackedFormat &format) {
  std::array<float, 16> values = format.getValues();
  for (float factor : {1.0f, 2.0f}) {
    bool areIntegers = llvm::all_of(values, [&](float value) {
      return std::abs(value * factor) <= 127 &&
             std::trunc(value * factor) == value * factor;
    });
    if (!areIntegers)
      continue;
    Int8Codes codes;
    codes.factor = factor;
    codes.flipsSign = false;
    for (float value : values)
      codes.table.push_back(int64_t(value * factor));
    codes.minimum = *std::min_element(codes.table.begin(), codes.table.end());
    codes.maximum = *std::max_element(codes.table.begin(), codes.table.end());
    codes.offset = std::max<int64_t>(0, -codes.minimum);
    bool isLinear = true;
    for (auto [code, value] : llvm::enumerate(codes.table))
      isLinear &= value + codes.offset == int64_t(code);
    if (isLinear)
      codes.table.clear();
    return codes;
  }
  return std::nullopt;
}

std::optional<Int8Codes> PackedFormat::getInt8Codes() const {
  if (isFloat8())
    return std::nullopt;
  if (width == 4)
    return getTableCodes(*this);
  Int8Codes codes;
  codes.factor = 1;
  codes.flipsSign =
      cast<IntegerType>(format.getCodes().getElement()).isSigned();
  codes.offset = codes.flipsSign ? 128 : format.getOffset();
  codes.minimum = -codes.offset;
  codes.maximum = (int64_t(1) << width) - 1 - codes.offset;
  return codes;
}
