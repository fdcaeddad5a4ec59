//===- GatheredWeights.h - Weights of each row -------------- -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GATHEREDWEIGHTS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GATHEREDWEIGHTS_H

#include "Foreign.h"

namespace mlir::moe::raising {

/// weights[ids[...], :, ...]: the matrix, or vector, of each id.
struct GatheredWeights {
  Value weights;  // [g, ...]
  Operation *op;  // of the gather
  int64_t idDims; // dimensions of the result that are those of the ids
  /// The value with the ids: [..., 1] of StableHLO, where an id that is none is
  /// the next one that is; null for linalg, whose body computes the index.
  Value ids;
  Value index;
};

/// Matches gathers of StableHLO and linalg along the first dimension of
/// weights.
std::optional<GatheredWeights> matchGatheredWeights(Value value);

/// Builds the ids, as i32 and all of them in [0, g) if the gather clamps them,
/// where the result has a dimension for each of the ids.
Value buildIds(OpBuilder &b, const GatheredWeights &gathered);

} // namespace mlir::moe::raising

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_RAISING_GROUPED_GATHEREDWEIGHTS_H
