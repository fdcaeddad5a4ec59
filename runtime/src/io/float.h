//===- float.h - Conversions of 16 and 8-bit floating point -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_IO_FLOAT_H
#define MOE_RT_SRC_IO_FLOAT_H

#include <cstdint>
#include <cstring>

namespace moe::io {

inline uint32_t floatBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float floatFromBits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline float bfloatToFloat(uint16_t bits) {
  return floatFromBits(static_cast<uint32_t>(bits) << 16);
}

/// Round to nearest even; a NaN stays one.
inline uint16_t floatToBfloat(float value) {
  uint32_t bits = floatBits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u)
    return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float halfToFloat(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
  if (exponent == 31) // infinity or NaN
    return floatFromBits(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) { // zero or subnormal: mantissa * 2^-24
    float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return floatFromBits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// Round to nearest even; a NaN stays one.
inline uint16_t floatToHalf(float value) {
  uint32_t bits = floatBits(value), magnitude = bits & 0x7fffffffu;
  auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000u)
    return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000u) // 65520 and more round to infinity
    return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000u) {
    // Below 2^-14 halves are multiples of 2^-24: adding 0.5, whose last place
    // is 2^-24, lets the hardware round to one.
    float shifted = floatFromBits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (floatBits(shifted) - 0x3f000000u));
  }
  uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

/// Of f8E4M3FN, which has no infinity.
inline float float8ToFloat(uint8_t byte) {
  uint32_t sign = static_cast<uint32_t>(byte & 0x80) << 24;
  uint32_t magnitude = byte & 0x7f;
  if (magnitude == 0x7f)
    return floatFromBits(sign | 0x7fc00000u);
  if (magnitude < 8) { // zero or subnormal: a multiple of 2^-9
    float value = static_cast<float>(magnitude) * 0x1p-9f;
    return sign ? -value : value;
  }
  return floatFromBits(sign | ((magnitude << 20) + (120u << 23)));
}

/// Round to nearest even; NaN, and what is beyond 464, becomes NaN.
inline uint8_t floatToFloat8(float value) {
  uint32_t bits = floatBits(value), magnitude = bits & 0x7fffffffu;
  auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  if (magnitude > 0x43e80000u)
    return static_cast<uint8_t>(sign | 0x7f);
  if (magnitude < 0x3c800000u) {
    // As for halves: the last place of 2^14 is 2^-9.
    float shifted = floatFromBits(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (floatBits(shifted) - 0x46800000u));
  }
  uint32_t rounded = magnitude + 0x7ffff + (magnitude >> 20 & 1);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

/// Of f8E5M2, the upper half of a half.
inline float float8E5M2ToFloat(uint8_t byte) {
  return halfToFloat(static_cast<uint16_t>(byte << 8));
}

/// Round to nearest even; a NaN stays one, and what is 61440 or more becomes
/// infinite.
inline uint8_t floatToFloat8E5M2(float value) {
  uint32_t bits = floatBits(value), magnitude = bits & 0x7fffffffu;
  auto sign = static_cast<uint8_t>(bits >> 24 & 0x80);
  if (magnitude > 0x7f800000u)
    return static_cast<uint8_t>(sign | 0x7e);
  if (magnitude >= 0x47700000u)
    return static_cast<uint8_t>(sign | 0x7c);
  if (magnitude < 0x38800000u) {
    // As for halves: the last place of 2^7 is 2^-16.
    float shifted = floatFromBits(magnitude) + 0x1p7f;
    return static_cast<uint8_t>(sign | (floatBits(shifted) - 0x43000000u));
  }
  uint32_t rounded = magnitude + 0xfffff + (magnitude >> 21 & 1);
  return static_cast<uint8_t>(sign | ((rounded >> 21) - (112u << 2)));
}

/// Of f8E8M0FNU: 2^(byte-127), with a NaN but neither sign nor zero.
inline float float8E8M0ToFloat(uint8_t byte) {
  if (byte == 0xff)
    return floatFromBits(0x7fc00000u);
  return byte == 0 ? 0x1p-127f
                   : floatFromBits(static_cast<uint32_t>(byte) << 23);
}

} // namespace moe::io

#endif // MOE_RT_SRC_IO_FLOAT_H
