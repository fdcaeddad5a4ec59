//===- TokenExtents.h - Which extents are the number of tokens --*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TOKENEXTENTS_H
#define MOE_ANALYSIS_TOKENEXTENTS_H

#include "mlir/IR/OpDefinition.h"
#include "mlir/IR/Value.h"

#include <optional>

namespace mlir::moe {

/// An extent of a tensor by where it comes from: two that compare equal are the
/// same number.
struct Extent {
  /// None for a number that is known, and for the number of tokens.
  Value source;
  /// That number; or the dimension of `source`.
  int64_t number;

  static constexpr int64_t tokens = -1;
  /// Instead of a dimension, where `source` is the extent itself.
  static constexpr int64_t index = -2;

  bool isTokens() const { return !source && number == tokens; }
  bool isKnown() const { return !source && number != tokens; }
  bool operator==(const Extent &other) const {
    return source == other.source && number == other.number;
  }
};

/// Dimension `dim` of a tensor. Dynamic extents of arguments are the number of
/// tokens in functions that `moe-export` prepared, and in `exported`. What
/// loops carry is taken to keep the extents that it starts with.
Extent extentOf(Value tensor, int64_t dim, Operation *exported = nullptr);
Extent extentOf(OpFoldResult size, Operation *exported = nullptr);

/// True if two tensors have the same extents for sure.
bool haveSameExtents(Value a, Value b);

/// An extent for one number of tokens; none where it depends on anything else.
/// Operations that say how large their results are may be asked, by way of
/// arithmetic that is left for others to clean up.
std::optional<int64_t> evaluateExtent(const Extent &extent, int64_t tokens,
                                      Operation *exported);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENEXTENTS_H
