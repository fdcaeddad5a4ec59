//===- TokenFunction.h - Arithmetic on T, evaluated -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TOKENFUNCTION_H
#define MOE_ANALYSIS_TOKENFUNCTION_H

#include "mlir/IR/Value.h"
#include "llvm/ADT/DenseMap.h"

#include <cstdint>
#include <optional>

namespace mlir::moe {

/// Evaluates integers that are computed from the number of tokens alone, as
/// TokenBounds builds them, for one T. Sums, differences and products are
/// checked.
class TokenFunction {
public:
  /// `argument` (index or an integer) is T in the arithmetic.
  TokenFunction(Value argument, int64_t tokens)
      : argument(argument), tokens(tokens) {}

  /// None if the value exceeds 64 bits or depends on anything but T.
  std::optional<int64_t> evaluate(Value value);

private:
  Attribute fold(Value value);

  Value argument;
  int64_t tokens;
  llvm::DenseMap<Value, Attribute> known;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENFUNCTION_H
