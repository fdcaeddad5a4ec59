//===- checked.h - Overflow-checked arithmetic ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sizes come from files and from callers: every sum and product of them goes
// through these functions.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_SUPPORT_CHECKED_H
#define MOE_RT_SRC_SUPPORT_CHECKED_H

#include <cstdint>

namespace moe {

/// out = a + b; false if that overflows. Likewise below.
template <typename T> [[nodiscard]] bool checkedAdd(T a, T b, T &out) {
  return !__builtin_add_overflow(a, b, &out);
}

template <typename T> [[nodiscard]] bool checkedMul(T a, T b, T &out) {
  return !__builtin_mul_overflow(a, b, &out);
}

/// Round up to a multiple of a power of two.
[[nodiscard]] inline bool checkedAlign(uint64_t value, uint64_t alignment,
                                       uint64_t &out) {
  if (!checkedAdd(value, alignment - 1, out))
    return false;
  out &= ~(alignment - 1);
  return true;
}

/// Add without wrapping around, for counters.
inline int64_t saturatingAdd(int64_t a, int64_t b) {
  int64_t sum;
  if (checkedAdd(a, b, sum))
    return sum;
  return b < 0 ? INT64_MIN : INT64_MAX;
}

} // namespace moe

#endif // MOE_RT_SRC_SUPPORT_CHECKED_H
