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

/// How a result differs from what was expected. Two NaNs are equal, and so are
/// two infinities of one sign; any other pair with one of them differs by
/// infinity.
struct Comparison {
  std::string name;
  double rtol = 0, atol = 0;
  uint64_t elements = 0;
  uint64_t outside = 0; // elements outside the tolerance
  double maxAbsolute = 0, maxRelative = 0;
  // The first element outside.
  uint64_t firstIndex = 0;
  double firstActual = 0, firstExpected = 0;

  bool passed() const { return outside == 0; }
};

/// Compare two tensors. Their types may differ, their shapes may not.
io::Expected<Comparison> compare(const std::string &name,
                                 const io::TensorView &actual,
                                 const io::TensorView &expected,
                                 std::optional<double> rtol,
                                 std::optional<double> atol);

/// What the elements of a tensor look like.
struct Summary {
  uint64_t elements = 0, nan = 0;
  double min = 0, max = 0, mean = 0; // of those that are numbers
};

Summary summarize(const io::TensorView &tensor);

} // namespace moe::run

#endif // MOE_RUN_COMPARE_H
