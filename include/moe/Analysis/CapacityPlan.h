//===- CapacityPlan.h - Bounds, variants and policies -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_CAPACITYPLAN_H
#define MOE_ANALYSIS_CAPACITYPLAN_H

#include "moe/Analysis/Cost.h"
#include "moe/Analysis/Imbalance.h"
#include "moe/Analysis/MachineRates.h"

namespace mlir::moe {

/// A kernel for the grouped matmuls of the experts, with tiles of `rows` rows,
/// or of at most as many if they may be ragged.
struct TileVariant {
  std::string name;
  int64_t rows;
  bool ragged = false;

  /// The rows of an expert are padded to a multiple of this.
  int64_t getGranularity() const { return ragged ? 1 : rows; }
};

/// The target of a plan.
struct PlanTarget {
  MachineRates rates;
  /// Smallest tiles first.
  std::vector<TileVariant> variants;
  /// True if kernels use the variant of `tileByRows` instead of the one with
  /// the shortest estimated time.
  bool byMeanRows = false;
  /// The GPU; empty for a CPU.
  std::string machine;
  /// What the model of its kernels knows of the GPU.
  std::optional<GPUMachine> gpu;
};

//===----------------------------------------------------------------------===//
// Bounds as functions of T: the least of the results of a map
//===----------------------------------------------------------------------===//

/// The bound at T; none if it exceeds 64 bits.
std::optional<int64_t> evaluateBound(AffineMap bound, int64_t tokens);

/// Grouped rows of a dispatch, for every routing.
AffineMap boundOfRows(DispatchOp dispatch);
/// Rows of one expert.
AffineMap boundOfFullest(DispatchOp dispatch);
/// Tiles that grouped rows need.
AffineMap boundOfTiles(AffineMap rows, int64_t experts, int64_t tile);
/// Rows of these tiles that are padding.
AffineMap boundOfPadding(AffineMap rows, int64_t experts, int64_t tile);

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

/// True if a call of at most `tokens` tokens can exceed the capacity.
OverflowPolicy overflowPolicy(DispatchOp dispatch, int64_t tokens);

/// Seconds that the experts take with a variant, on average: each tile reads
/// the weights of its expert.
double expertSeconds(const DispatchCost &cost, const RowDistribution &rows,
                     const PlanTarget &target, int64_t tokens,
                     const TileVariant &variant);

/// The variant that a GPU takes for `rows` grouped rows (TileChoice.h); no rows
/// means more than 64 bits hold.
const TileVariant &tileByRows(const PlanTarget &target,
                              std::optional<int64_t> rows, int64_t experts);

/// The plan of one dispatch for `min` to `max` tokens.
DispatchPlanAttr planDispatch(const DispatchCost &cost,
                              const RowDistribution &rows,
                              const PlanTarget &target, int64_t min,
                              int64_t max);

/// Fail, with an error at the function, if it has a plan that promises less
/// than its dispatches need. A function without a plan is right.
LogicalResult verifyCapacityPlan(func::FuncOp function);

/// The range of T that a function is for: `moe.tokens`, or all for which row
/// indices are 32-bit. Fails, with an error, if the attribute is no range.
FailureOr<std::pair<int64_t, int64_t>> tokenRange(func::FuncOp function);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_CAPACITYPLAN_H
