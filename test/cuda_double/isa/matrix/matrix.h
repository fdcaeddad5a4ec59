//===- matrix.h - Matrix products and their element types -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MATRIX_H
#define MOE_CUDA_DOUBLE_MATRIX_H

#include "isa/numeric.h"
#include "ptx/ptx_syntax.h"

#include <type_traits>

namespace moe::gpu {

/// Converts elements of a matrix operand to float, which represents all of them
/// exactly.
class ElementReader {
public:
  explicit ElementReader(Type type);
  float operator()(uint32_t bits) const {
    if (table)
      return table[bits];
    return wide(bits);
  }
  /// The values of all bit patterns; nullptr for types without a table.
  const float *values() const { return table; }

private:
  float wide(uint32_t bits) const;
  Type type;
  const float *table = nullptr;
};

/// Extracts element `e` of `bits` bits from a 32-bit register.
template <int bits> uint32_t elementOf(uint32_t word, int e) {
  return bits == 32 ? word : word >> (bits * e) & ((uint64_t(1) << bits) - 1);
}

/// Calls `body` with a converter for elements of a type and, as a compile-time
/// constant, their bits, so that loops over elements do not branch on the type.
template <typename Body> void withReader(Type type, Body body) {
  ElementReader reader(type);
  const float *values = reader.values();
  auto fromTable = [values](uint32_t bits) { return values[bits]; };
  if (type == Type::BF16)
    body([](uint32_t bits) { return bitCast<float>(bits << 16); },
         std::integral_constant<int, 16>());
  else if (type == Type::F16)
    body(fromTable, std::integral_constant<int, 16>());
  else if (values)
    body(fromTable, std::integral_constant<int, 8>());
  else if (bitsOf(type) == 8)
    body(reader, std::integral_constant<int, 8>());
  else
    body(reader, std::integral_constant<int, 32>());
}

/// c[m][n] += a[m][k] * b[k][n], all rows contiguous, m a multiple of 4 and n
/// of 8. The accumulators are double: the sum over k is nearly exact and is
/// rounded once when it is stored, whereas hardware truncates partial sums.
void multiply(int m, int n, int k, const float *a, const float *b, double *c);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MATRIX_H
