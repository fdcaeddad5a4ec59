//===- Units.cpp - Values with units, as options give them ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/Units.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/Support/MathExtras.h"

#include <cmath>

using namespace mlir::moe;
using llvm::StringRef;

namespace {
struct Unit {
  StringRef name;
  int64_t factor;
};
} // namespace

// A suffix of other names comes after them.
static constexpr Unit byteUnits[] = {{"KiB", int64_t(1) << 10},
                                     {"MiB", int64_t(1) << 20},
                                     {"GiB", int64_t(1) << 30},
                                     {"TiB", int64_t(1) << 40},
                                     {"kB", 1000},
                                     {"KB", 1000},
                                     {"MB", 1000000},
                                     {"GB", 1000000000},
                                     {"TB", 1000000000000},
                                     {"B", 1}};

static constexpr Unit flopUnits[] = {{"kflop", 1000},
                                     {"mflop", 1000000},
                                     {"gflop", 1000000000},
                                     {"tflop", 1000000000000},
                                     {"pflop", 1000000000000000},
                                     {"flop", 1}};

/// Strips the unit from the end of `text`. Returns its factor; 1 without one.
static int64_t consumeUnit(StringRef &text, llvm::ArrayRef<Unit> units) {
  for (const Unit &unit : units)
    if (text.consume_back_insensitive(unit.name))
      return unit.factor;
  return 1;
}

/// Parses digits, a fraction and an exponent: no sign, no `inf` or `nan`.
static std::optional<double> parseNumber(StringRef text) {
  double value;
  if (text.empty() || !llvm::isDigit(text.front()) ||
      text.find_first_not_of("0123456789.eE+-") != StringRef::npos ||
      text.getAsDouble(value))
    return std::nullopt;
  return value;
}

std::optional<int64_t> mlir::moe::parseBytes(StringRef text) {
  int64_t factor = 1;
  for (const Unit &unit : byteUnits)
    if (text.consume_back(unit.name)) {
      factor = unit.factor;
      break;
    }
  int64_t whole, bytes;
  if (!text.empty() && llvm::isDigit(text.front()) &&
      !text.getAsInteger(10, whole)) {
    if (llvm::MulOverflow(whole, factor, bytes))
      return std::nullopt;
    return bytes;
  }
  std::optional<double> number = parseNumber(text);
  if (!number)
    return std::nullopt;
  double exact = *number * factor;
  if (exact != std::floor(exact) || exact >= 0x1p63)
    return std::nullopt;
  return int64_t(exact);
}

static std::optional<double> parseRate(StringRef text,
                                       llvm::ArrayRef<Unit> units) {
  // Without `/s` only a bare number is valid.
  int64_t factor = text.consume_back("/s") ? consumeUnit(text, units) : 1;
  std::optional<double> number = parseNumber(text);
  if (!number || !(*number > 0) || std::isinf(*number * factor))
    return std::nullopt;
  return *number * factor;
}

std::optional<double> mlir::moe::parseBandwidth(StringRef text) {
  return parseRate(text, byteUnits);
}

std::optional<double> mlir::moe::parseFlops(StringRef text) {
  return parseRate(text, flopUnits);
}

std::optional<std::pair<int64_t, int64_t>>
mlir::moe::parseTokenRange(StringRef text) {
  auto [first, last] = text.split(':');
  int64_t min, max;
  if (first.getAsInteger(10, min) || last.getAsInteger(10, max) || min < 0 ||
      max < min)
    return std::nullopt;
  return std::pair(min, max);
}
