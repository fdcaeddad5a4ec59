//===- KernelModel.h - How long kernels of a GPU should take ----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model of the kernels of a GPU, from the data sheet of the GPU and the work
// of the kernel. What it says is a prediction: nothing in it was measured.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_KERNELMODEL_H
#define MOE_ANALYSIS_KERNELMODEL_H

#include "moe/Analysis/Imbalance.h"
#include "moe/Analysis/MachineRates.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// The work of a kernel, a dictionary: written when the kernel is built, read
/// by the plan.
inline constexpr StringLiteral workAttrName = "moe.work";

/// The rows of a call: `total` rows of `active` experts, which take `padded`
/// rows in whole tiles.
struct RowCounts {
  double total = 0, active = 0, padded = 0;
};

/// Seconds of one launch, and what they are made of. Parts overlap: the launch
/// takes the longest of tensor cores with epilogues, L2 cache and memory.
struct KernelPrediction {
  double seconds = 0;
  double tensor = 0, epilogue = 0, cache = 0, memory = 0, start = 0;
  double memoryBytes = 0, cacheBytes = 0;
  /// Tiles that one multiprocessor computes, one after the other.
  double waves = 0;

  /// The part that takes longest.
  StringRef bound() const;
};

/// A kernel of one tile for a `moe.grouped_matmul`.
struct GroupedMatmulWork {
  /// The number of the tile among those of the operation.
  int64_t index = 0;
  TileAttr tile;
  int64_t experts = 1, n = 0, k = 0, accumulators = 1;
  Type lhs, weights, result;
  bool grouped = true;
  /// Instructions of the epilogue for an element of the result, about.
  int64_t instructions = 0;

  /// The work of tile `index` of an operation on tensors.
  static GroupedMatmulWork of(GroupedMatmulOp op, TileAttr tile);
  /// What `toAttr` wrote; none if the attribute is of another kernel.
  static std::optional<GroupedMatmulWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr() const;

  KernelPrediction predict(const GPUMachine &gpu, const RowCounts &rows) const;
};

/// A kernel that reads and writes memory, and computes little.
struct MemoryWork {
  double bytes = 0, bytesPerToken = 0, bytesPerRow = 0;

  static std::optional<MemoryWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr(MLIRContext *context) const;

  KernelPrediction predict(const GPUMachine &gpu, int64_t tokens,
                           const RowCounts &rows) const;
};

/// A launch: its kernel, and the `moe.work` of the kernel or null.
struct LaunchWork {
  std::string kernel;
  DictionaryAttr work;
};

/// A launch that runs in a call.
struct PredictedLaunch {
  std::string kernel;
  KernelPrediction predicted;
};

/// The launches of a call of `tokens` tokens that run and whose work is known.
/// `dispatches` are those of the function, with the rows of each in `rows`.
std::vector<PredictedLaunch> predictLaunches(ArrayRef<LaunchWork> launches,
                                             const GPUMachine &gpu,
                                             ArrayRef<DispatchOp> dispatches,
                                             ArrayRef<RowDistribution> rows,
                                             int64_t tokens);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_KERNELMODEL_H
