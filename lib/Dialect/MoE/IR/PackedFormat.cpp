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

/// Returns the values of codes of 4 bits; none if they have another width.
static std::optional<std::array<float, 16>> valuesOf(FormatAttr format) {
  Type element = format.getCodes().getElement();
  if (isa<Float4E2M1FNType>(element))
    return getF4Values();
  std::array<float, 16> values;
  auto integer = dyn_cast<IntegerType>(element);
  if (!integer || integer.getWidth() != 4)
    return std::nullopt;
  for (int64_t code = 0; code < int64_t(values.size()); ++code) {
    int64_t value = integer.isSigned() && code >= 8 ? code - 16 : code;
    values[code] = format.getTable() ? format.getTable()[code] : float(value);
    values[code] -= float(format.getOffset());
  }
  return values;
}

std::optional<PackedFormat> PackedFormat::get(FormatAttr format) {
  std::optional<std::array<float, 16>> values = valuesOf(format);
  ArrayAttr scales = format.getScales();
  if (!values || format.getZero() || format.getMins() || !scales ||
      scales.size() != 1)
    return std::nullopt;
  auto scale = cast<FieldAttr>(scales[0]);
  Type element = scale.getElement();
  bool isScale =
      isa<Float32Type, Float16Type, BFloat16Type, Float8E8M0FNUType>(element);
  // A group of one scale for the whole row would be padded to 32.
  if (!isScale || scale.getDivide() || scale.getBlockRows() != 1 ||
      scale.getBlockColumns() % 32 != 0 || scale.getAxis() != 1)
    return std::nullopt;
  return PackedFormat{*values, scale.getBlockColumns(), scale};
}

bool PackedFormat::isExactBF16() const {
  return llvm::all_of(values, [](float value) {
    APFloat rounded(value);
    bool losesInfo = false;
    rounded.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven,
                    &losesInfo);
    return !losesInfo;
  });
}

bool Int8Codes::isLinear() const {
  for (int64_t code = 0; code < int64_t(values.size()); ++code)
    if (values[code] + offset != code)
      return false;
  return true;
}

bool Int8Codes::fitInt16() const {
  return llvm::all_of(values, [&](int64_t value) {
    return std::abs(value) * 127 * 16 <= INT16_MAX &&
           (value + offset) * 127 * 2 <= INT16_MAX;
  });
}

std::optional<Int8Codes> PackedFormat::getInt8Codes() const {
  for (float factor : {1.0f, 2.0f}) {
    bool areIntegers = llvm::all_of(values, [&](float value) {
      return std::abs(value * factor) <= 127 &&
             std::trunc(value * factor) == value * factor;
    });
    if (!areIntegers)
      continue;
    Int8Codes codes;
    codes.factor = factor;
    for (auto [integer, value] : llvm::zip(codes.values, values))
      integer = int64_t(value * factor);
    codes.offset = std::max<int64_t>(
        0, -*std::min_element(codes.values.begin(), codes.values.end()));
    return codes;
  }
  return std::nullopt;
}
