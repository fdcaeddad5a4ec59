//===- RaggedDims.h - Dimension numbers of chlo.ragged_dot -- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_RAGGEDDIMS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_RAGGEDDIMS_H

#include "Foreign.h"

namespace mlir::moe::raising {

struct RaggedDims {
  using Dims = SmallVector<int64_t>;
  Dims lhsBatching, rhsBatching, lhsContracting, rhsContracting, lhsRagged,
      rhsGroup;

  bool isBatched() const {
    return !lhsBatching.empty() || !rhsBatching.empty();
  }
};

/// True for chlo.ragged_dot and its composite in StableHLO.
bool isRaggedDot(Operation *op);
/// Returns its dimension numbers; none if they are not understood.
std::optional<RaggedDims> readRaggedDims(Operation *op);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_RAGGEDDIMS_H
