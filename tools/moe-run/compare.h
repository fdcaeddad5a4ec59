//===- compare.h - Compare tensors ------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RUN_COMPARE_H
#define MOE_RUN_COMPARE_H

#include "moe_rt/io.h"

#include <optional>

namespace moe::run {

/// The difference between a result and its expected value. Two NaNs are equal,
/// and so are two infinities of one sign; in any other pair with NaN or
/// infinity the difference is infinite.
struct Comparison {
  std::string name;
  double rtol = 0, atol = 0;
  uint64_t elements = 0;
  uint64_t outside = 0; // elements outside the tolerance
  double maxAbsolute = 0, maxRelative = 0;
  // The first element outside the tolerance.
  uint64_t firstIndex = 0;
  double firstActual = 0, firstExpected = 0;

  bool passed() const { return outside == 0; }
};

/// Compares two tensors of equal shapes, whose types may differ.
io::Expected<Comparison> compare(const std::string &name,
                                 const io::TensorView &actual,
                                 const io::TensorView &expected,
                                 std::optional<double> rtol,
                                 std::optional<double> atol);

/// Statistics of the elements of a tensor.
struct Summary {
  uint64_t elements = 0, nan = 0;
  double min = 0, max = 0, mean = 0; // over finite and infinite elements
};

Summary summarize(const io::TensorView &tensor);

} // namespace moe::run

#endif // MOE_RUN_COMPARE_H
