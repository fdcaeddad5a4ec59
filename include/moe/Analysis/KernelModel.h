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

#include <functional>

namespace mlir::moe {

// Assumptions of the model, none of them measured. A kernel starts, and its
// first loads arrive, after so long; and where it began under the one before
// it, which waits for that one in the meantime.
inline constexpr double startSeconds = 3e-6, overlappedStartSeconds = 1.2e-6;
/// The share of the bandwidth of a data sheet that a kernel reaches.
inline constexpr double memoryShare = 0.92;
/// Bytes per clock that a multiprocessor reads from the L2 cache.
inline constexpr double cacheBytesPerClock = 32;
/// The share of the peak of wgmma that mma.sync reaches on a GPU with both.
inline constexpr double mmaSyncShare = 0.62;
/// How long the arrival of a warp's rows takes where a kernel combines them: a
/// fence, and accesses that depend on each other.
inline constexpr double arrivalSeconds = 2e-6;
/// Tokens up to which the last block of few columns combines the rows of all.
inline constexpr int64_t maxFewTokens = 64;
/// Row tiles from which on a kernel that combines rows computes an expert in
/// two passes (TileScheduler.h).
inline constexpr int64_t twoPassTiles = 8;
/// How long a load from the L2 cache takes whose address was loaded, and how
/// long an addition to memory that the same thread has just written.
inline constexpr double loadSeconds = 0.35e-6, chainSeconds = 40e-9;
/// Threads of a multiprocessor that are resident, and that issue an instruction
/// in a clock, and of which a clock computes a special function (CUDA
/// Programming Guide).
inline constexpr double residentThreads = 2048, issueLanes = 128,
                        functionLanes = 16;

/// The work of a kernel, a dictionary: written when the kernel is built, read
/// by the plan.
inline constexpr StringLiteral workAttrName = "moe.work";

/// The operand of a wgmma tile that the blocks of a cluster of two load for
/// each other: the weights of two row tiles of an expert, or the rows of two
/// column tiles. The operation's `moe.multicast`, a string, says which for
/// tiles whose operands are not swapped.
enum class Multicast { None, Weights, Rows };
inline constexpr StringLiteral multicastAttrName = "moe.multicast";
inline StringRef stringify(Multicast multicast) {
  return multicast == Multicast::None      ? "none"
         : multicast == Multicast::Weights ? "weights"
                                           : "rows";
}
Multicast multicastOf(GroupedMatmulOp op, TileAttr tile);
/// The blocks of a cluster.
inline int64_t blocksOf(Multicast multicast) {
  return multicast == Multicast::None ? 1 : 2;
}
/// The rows of what a block or a cluster computes at a time.
inline int64_t scheduledRows(TileAttr tile, Multicast multicast) {
  return int64_t(tile.getRows()) * (multicast == Multicast::Weights ? 2 : 1);
}

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
  /// Instructions of other kinds, on the critical path.
  double instructions = 0;
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
  Multicast multicast = Multicast::None;
  int64_t experts = 1, n = 0, k = 0, accumulators = 1;
  Type lhs, weights, result;
  bool grouped = true;
  /// The kernel sums as many rows for each token (CombineEpilogue.h); or 0.
  int64_t combined = 0;
  /// Bytes of a row of the epilogue's operands, and of results but the first.
  int64_t otherBytes = 0;
  /// Of the epilogue, for an element of the result, about: instructions, and
  /// how many of them are functions of the special function unit.
  double instructions = 0, functions = 0;

  /// The work of tile `index` of an operation on tensors.
  static GroupedMatmulWork of(GroupedMatmulOp op, TileAttr tile);
  /// What `toAttr` wrote; none if the attribute is of another kernel.
  static std::optional<GroupedMatmulWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr() const;

  KernelPrediction predict(const GPUMachine &gpu, const RowCounts &rows) const;

private:
  /// How often the kernel reads the weights.
  int64_t passes(const RowCounts &rows) const;
  void addCombine(KernelPrediction &predicted, double products,
                  const GPUMachine &gpu, const RowCounts &rows) const;
};

/// A kernel that reads and writes memory, and computes little. It runs from
/// `minTokens` tokens on.
struct MemoryWork {
  double bytes = 0, bytesPerToken = 0, bytesPerRow = 0;
  int64_t minTokens = 0;

  static std::optional<MemoryWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr(MLIRContext *context) const;

  KernelPrediction predict(const GPUMachine &gpu, int64_t tokens,
                           const RowCounts &rows) const;
};

/// Experts whose logits a staged kernel of a router computes at a time, at
/// most.
inline constexpr int64_t stagedExperts = 128;

/// A kernel that computes the logits of a router, and its gate, for `tile`
/// tokens at a time. Kernels for different numbers of tokens follow each other.
struct RouterWork {
  int64_t experts = 1, k = 1, choices = 1;
  int64_t tile = 16, cluster = 1;
  /// All tokens are of one cluster, which routes them, too.
  bool whole = false;
  /// Operands pass through shared memory; `tile` is the most tokens at a time.
  bool staged = false;
  bool tensorCores = true;
  Type x, weights;

  static std::optional<RouterWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr() const;

  KernelPrediction predict(const GPUMachine &gpu, int64_t tokens) const;
};

/// Which of a router's kernels runs, as on the host, in
/// lib/Conversion/MoEToGPU/Router/RouterToGPU.cpp; and the tokens of a block.
struct ChosenRouter {
  size_t index;
  int64_t tokensOfBlock;
  static ChosenRouter of(ArrayRef<RouterWork> kernels, const GPUMachine &gpu,
                         int64_t tokens);
};

/// A kernel that scatters choices into `buckets`: each block adds the
/// histograms of all blocks, and one warp of it scatters the choices of a
/// chunk.
struct ScatterWork {
  int64_t choices = 1; // of a token
  int64_t buckets = 1;
  /// Choices of a block; 0: those of a block of the router before, unless that
  /// routes all tokens.
  int64_t chunk = 0;

  static std::optional<ScatterWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr(MLIRContext *context) const;

  KernelPrediction predict(const GPUMachine &gpu, int64_t tokens,
                           int64_t tokensOfBlock) const;
};

/// A kernel that contracts rows, of the gradients of weights. Its blocks
/// compute tiles of all matrices one after the other, with a step for `depth`
/// rows of an expert.
struct ContractWork {
  int64_t experts = 1, k = 0, n = 0; // matrices of k rows and n columns
  int64_t tileK = 1, tileN = 1, depth = 64;
  MatrixUnit unit = MatrixUnit::Wgmma;
  /// Without tensor cores: a thread for each element.
  bool elements = false;
  /// Rows of experts; otherwise all rows are of one.
  bool grouped = true;
  /// Sides whose rows are gathered, and sums that are added to what is there.
  int64_t gathers = 0;
  bool accumulate = false;
  Type rows, result;

  static std::optional<ContractWork> fromAttr(DictionaryAttr attr);
  DictionaryAttr toAttr() const;

  KernelPrediction predict(const GPUMachine &gpu,
                           const RowCounts &counts) const;
};

/// A kernel that is a loop without a kernel of its own: what all of its threads
/// do together.
struct LoopWork {
  double iterations = 0;
  /// Instructions, and bytes of elements that are read and written.
  double instructions = 0, readBytes = 0, writtenBytes = 0;
  /// Bytes of memory: those of a buffer at most once for reads and for writes.
  double memoryBytes = 0;
  /// Steps of an iteration that wait for what the one before has stored.
  double chain = 0;

  KernelPrediction predict(const GPUMachine &gpu) const;
};

/// A launch: its kernel, and the `moe.work` of the kernel or null.
struct LaunchWork {
  std::string kernel;
  DictionaryAttr work;
  /// It may begin under the launch before it (`moe.primaries`).
  bool overlaps = false;
  /// For a number of tokens: the blocks, the most rows of an operand, and what
  /// a loop does. Null or none where that is not known.
  std::function<std::optional<int64_t>(int64_t tokens)> blocks = nullptr,
                                                        rows = nullptr;
  std::function<std::optional<LoopWork>(int64_t tokens)> loop = nullptr;
};

/// The rows of experts that no dispatch of a function has made, as in a
/// backward function; none if there is no model of them.
using RowsOfExperts = std::function<std::optional<RowDistribution>(
    int64_t experts, int64_t topK)>;

/// A launch that runs in a call.
struct PredictedLaunch {
  std::string kernel;
  KernelPrediction predicted;
};

/// The launches of a call of `tokens` tokens that run and whose work is known.
/// `dispatches` are those of the function, with the rows of each in `rows`; for
/// other experts, `rowsOfExperts` has them. Adds the launches of which nothing
/// is known to `unknown`.
std::vector<PredictedLaunch>
predictLaunches(ArrayRef<LaunchWork> launches, const GPUMachine &gpu,
                ArrayRef<DispatchOp> dispatches, ArrayRef<RowDistribution> rows,
                int64_t tokens, const RowsOfExperts &rowsOfExperts = nullptr,
                int64_t *unknown = nullptr);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_KERNELMODEL_H
