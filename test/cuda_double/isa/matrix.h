//===- matrix.h - Matrix products and the numbers they take -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MATRIX_H
#define MOE_CUDA_DOUBLE_MATRIX_H

#include "numeric.h"
#include "ptx/ptx_syntax.h"

#include <type_traits>

namespace moe::gpu {

/// An element of an operand of a matrix product as float, which holds all of
/// them exactly.
class ElementReader {
public:
  explicit ElementReader(Type type);
  float operator()(uint32_t bits) const {
    if (table)
      return table[bits];
    return wide(bits);
  }
  /// Of all that there are; nullptr where those are many.
  const float *values() const { return table; }

private:
  float wide(uint32_t bits) const;
  Type type;
  const float *table = nullptr;
};

/// Element `e` of those of `bits` bits that a register holds.
template <int bits> uint32_t elementOf(uint32_t word, int e) {
  return bits == 32 ? word : word >> (bits * e) & ((uint64_t(1) << bits) - 1);
}

/// Call `body` with what reads elements of a type and, as a constant, how many
/// bits those have: loops over elements decide nothing for each.
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
/// of 8. Products and sums are of
/// double: the sum over k is as good as exact and rounded once by whoever
/// stores it, where hardware truncates parts of it.
void multiply(int m, int n, int k, const float *a, const float *b, double *c);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MATRIX_H
