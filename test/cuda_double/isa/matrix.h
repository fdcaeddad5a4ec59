//===- matrix.h - Matrix products and the numbers they take -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MATRIX_H
#define MOE_CUDA_DOUBLE_MATRIX_H

#include "ptx/ptx_syntax.h"

#include <cstdint>
#include <vector>

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

private:
  float wide(uint32_t bits) const;
  Type type;
  const float *table = nullptr;
};

/// c[m][n] += a[m][k] * b[k][n], all rows contiguous. Products and sums are of
/// double: the sum over k is as good as exact and rounded once by whoever
/// stores it, where hardware truncates parts of it.
void multiply(int m, int n, int k, const float *a, const float *b, double *c);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MATRIX_H
