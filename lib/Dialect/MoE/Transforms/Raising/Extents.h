//===- Extents.h - Extents of tensors of StableHLO ---------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_EXTENTS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_EXTENTS_H

#include "mlir/IR/Operation.h"

#include <optional>

namespace mlir::moe::raising {

/// factor · (rows of root) + constant; a constant without a root.
struct Extent {
  Value root;
  int64_t factor = 0;
  int64_t constant = 0;

  bool operator==(const Extent &other) const {
    return root == other.root && factor == other.factor &&
           constant == other.constant;
  }
  bool operator!=(const Extent &other) const { return !(*this == other); }
};

/// True for operations of StableHLO whose result has the shape of their
/// tensors.
bool isElementwise(Operation *op);
/// Returns the first extent of a tensor, as far as it is known.
std::optional<Extent> rowsOf(Value tensor);
/// Returns the element `index` of a tensor of integers of rank 0 or 1.
std::optional<Extent> elementOf(Value tensor, int64_t index);
/// True if both first extents are known and the same.
bool haveSameRows(Value a, Value b);
/// Returns the integer or float that all elements of a tensor are.
std::optional<double> splatOf(Value tensor);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_EXTENTS_H
