//===- compare.cpp - Compare tensors --------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "compare.h"

#include <algorithm>
#include <cmath>

using namespace moe;
using namespace moe::run;
using moe::io::Error;
using moe::io::Expected;

namespace {

struct Tolerance {
  const char *type;
  double rtol, atol;
};

// Accumulation in another order changes a few units in the last place of the
// largest terms.
constexpr Tolerance tolerances[] = {{"f64", 1e-9, 1e-12},
                                    {"f32", 1e-4, 1e-5},
                                    {"f16", 1e-2, 1e-3},
                                    {"bf16", 2e-2, 1e-2}};

} // namespace

static uint64_t countElements(const io::TensorView &tensor) {
  uint64_t count = 1;
  for (int64_t extent : tensor.shape)
    count *= static_cast<uint64_t>(extent);
  return count;
}

Expected<Comparison> moe::run::compare(const std::string &name,
                                       const io::TensorView &actual,
                                       const io::TensorView &expected,
                                       std::optional<double> rtol,
                                       std::optional<double> atol) {
  if (actual.shape != expected.shape)
    return Error{"output '" + name + "' has type " +
                 io::typeName(actual.dtype, actual.shape) +
                 ", the expected tensor " +
                 io::typeName(expected.dtype, expected.shape)};
  Comparison result;
  result.name = name;
  for (const Tolerance &entry : tolerances) {
    if (io::dtypeName(actual.dtype) != entry.type)
      continue;
    result.rtol = entry.rtol;
    result.atol = entry.atol;
  }
  result.rtol = rtol.value_or(result.rtol);
  result.atol = atol.value_or(result.atol);
  result.elements = countElements(actual);
  for (uint64_t i = 0; i < result.elements; ++i) {
    double a = io::readElement(actual, i), b = io::readElement(expected, i);
    double absolute = 0, relative = 0;
    bool inside = true;
    if (a != b && !(std::isnan(a) && std::isnan(b))) {
      bool finite = std::isfinite(a) && std::isfinite(b);
      absolute = finite ? std::fabs(a - b) : HUGE_VAL;
      relative = finite && b != 0 ? absolute / std::fabs(b) : HUGE_VAL;
      inside = finite && absolute <= result.atol + result.rtol * std::fabs(b);
      // A relative error is meaningless near zero.
      if (inside && b == 0)
        relative = 0;
    }
    result.maxAbsolute = std::max(result.maxAbsolute, absolute);
    result.maxRelative = std::max(result.maxRelative, relative);
    if (!inside && result.outside++ == 0) {
      result.firstIndex = i;
      result.firstActual = a;
      result.firstExpected = b;
    }
  }
  return result;
}

Summary moe::run::summarize(const io::TensorView &tensor) {
  Summary result;
  result.elements = countElements(tensor);
  uint64_t numbers = 0;
  for (uint64_t i = 0; i < result.elements; ++i) {
    double value = io::readElement(tensor, i);
    if (std::isnan(value)) {
      ++result.nan;
      continue;
    }
    result.min = numbers ? std::min(result.min, value) : value;
    result.max = numbers ? std::max(result.max, value) : value;
    result.mean += value;
    ++numbers;
  }
  if (numbers)
    result.mean /= static_cast<double>(numbers);
  return result;
}
