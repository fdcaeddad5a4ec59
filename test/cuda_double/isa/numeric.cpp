//===- numeric.cpp - Number formats and their rounding --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "numeric.h"

using namespace moe::gpu;

/// Returns whether to round away from zero, given the discarded bits.
static bool roundsUp(Rounding rounding, bool negative, bool odd, bool half,
                     bool rest) {
  switch (rounding) {
  case Rounding::Nearest:
    return half && (rest || odd);
  case Rounding::NearestAway:
    return half;
  case Rounding::Zero:
    return false;
  case Rounding::Down:
    return negative && (half || rest);
  case Rounding::Up:
    return !negative && (half || rest);
  }
  return false;
}

/// The result for a number beyond the largest finite one.
static uint32_t overflow(const Format &format, Rounding rounding, bool negative,
                         bool saturate) {
  bool stays = saturate || rounding == Rounding::Zero ||
               (rounding == Rounding::Down && !negative) ||
               (rounding == Rounding::Up && negative);
  if (stays)
    return format.largest();
  return format.infinities ? format.infinity() : format.nan;
}

uint32_t moe::gpu::encode(const Format &format, double value, Rounding rounding,
                          bool saturate) {
  if (std::isnan(value))
    return format.nan;
  uint64_t bits = bitCast<uint64_t>(value);
  bool negative = bits >> 63;
  uint32_t sign = negative ? format.sign() : 0;
  if (value == 0)
    return sign;
  if (std::isinf(value)) {
    if (saturate)
      return sign | format.largest();
    return sign | (format.infinities ? format.infinity() : format.nan);
  }

  // The magnitude is significand * 2^(exponent - 52).
  int exponent = static_cast<int>(bits >> 52 & 0x7FF);
  uint64_t significand = bits & ((uint64_t(1) << 52) - 1);
  if (exponent == 0) {
    exponent = 1;
  } else {
    significand |= uint64_t(1) << 52;
  }
  exponent -= 1023;

  int lowest = 1 - format.bias();
  int shift = 52 - format.mantissa;
  if (exponent < lowest)
    shift += lowest - exponent;
  uint32_t kept;
  bool half, rest;
  if (shift > 54) {
    // Less than a quarter of the smallest subnormal number.
    kept = 0;
    half = false;
    rest = true;
  } else {
    kept = static_cast<uint32_t>(significand >> shift);
    half = significand >> (shift - 1) & 1;
    rest = (significand & ((uint64_t(1) << (shift - 1)) - 1)) != 0;
  }
  kept += roundsUp(rounding, negative, kept & 1, half, rest);

  // A carry out of the significand increments the exponent, as it must.
  uint64_t result = kept;
  if (exponent >= lowest)
    result += static_cast<uint64_t>(exponent - lowest) << format.mantissa;
  if (result > format.largest())
    return sign | overflow(format, rounding, negative, saturate);
  return sign | static_cast<uint32_t>(result);
}

/// 2^exponent, for the exponent of a normal double.
static double powerOfTwo(int exponent) {
  return bitCast<double>(static_cast<uint64_t>(1023 + exponent) << 52);
}

double moe::gpu::decode(const Format &format, uint32_t bits) {
  bool negative = bits & format.sign();
  uint32_t magnitude = bits & (format.sign() - 1);
  uint32_t exponent = magnitude >> format.mantissa;
  uint32_t fraction = magnitude & ((1u << format.mantissa) - 1);
  double value;
  if (magnitude > format.largest()) {
    if (format.infinities && fraction == 0)
      value = HUGE_VAL;
    else
      return NAN;
  } else if (exponent == 0) {
    value = fraction * powerOfTwo(1 - format.bias() - format.mantissa);
  } else {
    value = (fraction + (1u << format.mantissa)) *
            powerOfTwo(static_cast<int>(exponent) - format.bias() -
                       format.mantissa);
  }
  return negative ? -value : value;
}

/// Rounds sum + error to odd, where `sum` is that value rounded to nearest.
static double toOdd(double sum, double error) {
  uint64_t bits = bitCast<uint64_t>(sum);
  if (error == 0 || !std::isfinite(sum) || !std::isfinite(error) || bits & 1)
    return sum;
  bool away = (error > 0) == (sum > 0);
  return bitCast<double>(away ? bits + 1 : bits - 1);
}

double moe::gpu::addToOdd(double a, double b) {
  double sum = a + b;
  double part = sum - a;
  double error = (a - (sum - part)) + (b - part);
  return toOdd(sum, error);
}

double moe::gpu::fmaToOdd(double a, double b, double c) {
  // Double represents the products of these formats exactly.
  double product = a * b;
  return addToOdd(product, c);
}

double moe::gpu::integerToOdd(uint64_t value) {
  if (value >> 53 == 0)
    return static_cast<double>(value);
  int shift = 11 - __builtin_clzll(value);
  uint64_t kept = value >> shift;
  bool rest = (kept << shift) != value;
  return std::ldexp(static_cast<double>(kept | rest), shift);
}

double moe::gpu::integerToOdd(int64_t value) {
  return value < 0 ? -integerToOdd(-static_cast<uint64_t>(value))
                   : integerToOdd(static_cast<uint64_t>(value));
}

double moe::gpu::roundToInteger(double value, Rounding rounding) {
  switch (rounding) {
  case Rounding::Nearest:
    return std::nearbyint(value);
  case Rounding::Zero:
    return std::trunc(value);
  case Rounding::Down:
    return std::floor(value);
  case Rounding::Up:
    return std::ceil(value);
  case Rounding::NearestAway:
    return std::round(value);
  }
  return value;
}
