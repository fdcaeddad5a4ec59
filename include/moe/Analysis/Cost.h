//===- Cost.h - FLOPs and bytes of a layer ----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_COST_H
#define MOE_ANALYSIS_COST_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"

namespace mlir::moe {

/// The work of all experts on the rows of one dispatch.
struct DispatchCost {
  DispatchOp dispatch;
  /// Floating-point operations of contractions for each row, at most.
  int64_t flopsPerRow = 0;
  /// Bytes that the expert operations read and write for each row, at most.
  int64_t bytesPerRow = 0;
  /// Parameters of one expert, of the largest kind, and of all experts.
  int64_t weightsPerExpert = 0, weights = 0;
  int64_t weightBytesPerExpert = 0, weightBytes = 0;

  /// Element type of the rows of the experts, and so of their matmuls.
  Type getElementType() const {
    return getElementTypeOrSelf(DispatchOp(dispatch).getGrouped());
  }
};

/// The cost of a function at the tensor level as a function of T and of the
/// rows of its dispatches. Every dynamic extent of the function is T, those
/// within an expert are its rows. Products of grouped rows that no dispatch has
/// made, as in a backward function, count by their rows. A multiplication and
/// an addition are two operations; elementwise operations do not count.
struct FunctionCost {
  /// Of contractions outside of experts.
  int64_t flopsPerToken = 0, fixedFlops = 0;
  /// Bytes of inputs and outputs.
  int64_t bytesPerToken = 0, fixedBytes = 0;
  /// Parameters outside of the experts of dispatches, and their bytes.
  int64_t sharedWeights = 0, sharedWeightBytes = 0;
  /// Of those, the ones of experts that no row of a token reads, at least.
  int64_t idleWeights = 0;
  /// Bytes of the results that the backward function takes (docs/training.md).
  int64_t savedBytesPerToken = 0, savedFixedBytes = 0;
  SmallVector<DispatchCost> dispatches;

  bool savesTensors() const { return savedBytesPerToken + savedFixedBytes > 0; }

  /// Parameters of the layer, and those that one token uses at most.
  int64_t weights() const;
  int64_t activatedWeights() const;
};

/// Fails, with an error at the operation, where the cost is no linear function
/// of T and the rows, or exceeds 64 bits.
FailureOr<FunctionCost> computeCost(func::FuncOp function);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_COST_H
