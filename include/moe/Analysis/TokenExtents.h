//===- TokenExtents.h - Extents that are the number of tokens ---*- C++ -*-===//
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

/// An extent of a tensor by its source: two that compare equal have the same
/// value.
struct Extent {
  /// None for a constant, and for the number of tokens.
  Value source;
  /// The constant, or the dimension of `source`.
  int64_t number;

  static constexpr int64_t tokens = -1;
  /// Stands for a dimension if `source` is the extent itself.
  static constexpr int64_t index = -2;

  bool isTokens() const { return !source && number == tokens; }
  bool isKnown() const { return !source && number != tokens; }
  bool operator==(const Extent &other) const {
    return source == other.source && number == other.number;
  }
};

/// Dimension `dim` of a tensor. Dynamic extents of arguments are the number of
/// tokens in functions that `moe-export` prepared, and in `exported`. A
/// value that a loop carries is assumed to keep its initial extents.
Extent extentOf(Value tensor, int64_t dim, Operation *exported = nullptr);
Extent extentOf(OpFoldResult size, Operation *exported = nullptr);

/// True if two tensors are known to have the same extents.
bool haveSameExtents(Value a, Value b);

/// An extent for one number of tokens; none where it depends on anything else.
/// May reify result shapes of operations, which leaves dead arithmetic behind.
std::optional<int64_t> evaluateExtent(const Extent &extent, int64_t tokens,
                                      Operation *exported);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TOKENEXTENTS_H
