//===- numeric.h - Number formats and their rounding ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The floating-point formats of PTX ISA 5.2 (f16, bf16, tf32, e4m3, e5m2) and
// the rounding modifiers of 6.5. Double represents the values of all of them
// and of f32 exactly; results are computed in double, rounded to odd where
// double is inexact, and then rounded once to their format.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_NUMERIC_H
#define MOE_CUDA_DOUBLE_NUMERIC_H

#include <cmath>
#include <cstdint>
#include <cstring>

namespace moe::gpu {

enum class Rounding : uint8_t {
  Nearest,     // .rn: to even
  Zero,        // .rz
  Down,        // .rm
  Up,          // .rp
  NearestAway, // .rna
};

/// A binary format of at most 32 bits.
struct Format {
  int mantissa;    // stored bits
  int exponent;    // bits
  bool infinities; // else the highest exponent encodes numbers and one NaN
  uint32_t nan;    // the NaN that conversions produce

  int bits() const { return 1 + exponent + mantissa; }
  int bias() const { return (1 << (exponent - 1)) - 1; }
  uint32_t sign() const { return 1u << (exponent + mantissa); }
  uint32_t infinity() const { return ((1u << exponent) - 1) << mantissa; }
  /// The largest finite number.
  uint32_t largest() const {
    return infinities ? infinity() - 1 : infinity() | ((1u << mantissa) - 2);
  }
};

constexpr Format formatF16 = {10, 5, true, 0x7FFF};
constexpr Format formatBF16 = {7, 8, true, 0x7FFF};
constexpr Format formatTF32 = {10, 8, true, 0x3FFFF};
constexpr Format formatF32 = {23, 8, true, 0x7FFFFFFF};
constexpr Format formatE4M3 = {3, 4, false, 0x7F};
constexpr Format formatE5M2 = {2, 5, true, 0x7F};

/// Rounds to a format. On overflow the result is infinity, or the largest
/// finite number if the rounding mode or `saturate` (.satfinite) requires it.
uint32_t encode(const Format &format, double value,
                Rounding rounding = Rounding::Nearest, bool saturate = false);

double decode(const Format &format, uint32_t bits);

/// a + b and a * b + c rounded to odd: rounding this result to a format of at
/// most 50 bits gives the same as rounding the exact sum once.
double addToOdd(double a, double b);
double fmaToOdd(double a, double b, double c);
/// An integer as a double, rounded to odd.
double integerToOdd(int64_t value);
double integerToOdd(uint64_t value);

template <typename To, typename From> To bitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

inline float halfToFloat(uint16_t bits) {
  return static_cast<float>(decode(formatF16, bits));
}
inline uint16_t floatToHalf(double value) {
  return static_cast<uint16_t>(encode(formatF16, value));
}
inline float bfloatToFloat(uint16_t bits) {
  return bitCast<float>(static_cast<uint32_t>(bits) << 16);
}
inline uint16_t floatToBfloat(double value) {
  return static_cast<uint16_t>(encode(formatBF16, value));
}

/// .ftz: flushes a subnormal number to zero of the same sign.
inline float flush(float value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.f, value)
                                                : value;
}

/// Rounds to an integer as cvt.rni, .rzi, .rmi and .rpi do.
double roundToInteger(double value, Rounding rounding);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_NUMERIC_H
