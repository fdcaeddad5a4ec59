//===- GroupedKernel.h - Base of the grouped matmul kernels -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "Builder/KernelArguments.h"
#include "Combine/CombineEpilogue.h"
#include "Lowering.h"
#include "TileScheduler.h"
#include "moe/Analysis/KernelModel.h"

#include <array>

namespace mlir::moe {

/// A range of columns, or along k, of a compact weight tensor `[E, N, K]` or
/// `[E, K, N]`: gate and up projections are often halves of one tensor.
struct WeightView {
  Value source;
  int64_t firstColumn = 0, firstK = 0;
  int64_t columns, k; // of the whole tensor
};

/// The layout of the weights of all GEMMs of a grouped matmul.
struct WeightLayout {
  /// One view for each GEMM, or one view whose columns alternate between two.
  SmallVector<WeightView, 2> views;
  bool interleaved = false;
  /// The GEMM that has the even columns of an interleaved view.
  int64_t firstProduct = 0;

  /// Fails, with the reason in `why`, if the weights are no such views.
  static FailureOr<WeightLayout> of(GroupedMatmulOp op, std::string &why);
  /// Returns the layout of an operation that passed `verifyTensorCores`.
  static WeightLayout ofVerified(GroupedMatmulOp op);
};

/// The host values that a launch takes besides the operands of the operation.
struct GroupedKernelOperands {
  SmallVector<Value> outs;      // tensors, one of each result
  Value combined, counters;     // tensors, with a fused combine
  Value rows, lhsRows;          // i32
  Value fewTokens, otherTokens; // i32, with a fused combine
};

/// What to generate a kernel for.
struct GroupedKernelRequest {
  GroupedMatmulOp op;
  TileAttr tile;
  const CombineEpilogue *combine;  // fused, if set
  GroupedKernelOperands &operands; // updated by the launch
};

/// Base of the persistent kernels that compute a `moe.grouped_matmul`.
class GroupedKernel {
public:
  GroupedKernel(const GroupedKernelRequest &request, DeviceLowering &lowering);

  /// Launches the kernel with a grid of `blocks`.
  void launch(LLVM::LLVMFuncOp kernel, Value blocks) {
    arguments.launch(lowering.rewriter, kernel, blocks);
  }

protected:
  int64_t viewCount() { return layout.views.size(); }
  /// Creates the kernel.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape);
  /// Schedules tiles, or the pairs of them that a cluster computes.
  TileScheduler createScheduler() {
    int64_t tileRows = scheduledRows(tile, multicast);
    int64_t columnTiles = llvm::divideCeil(n, outTileColumns);
    if (multicast == Multicast::Rows)
      columnTiles /= blocksOf(multicast);
    int64_t twoPasses = twoPassTiles * tile.getRows() / tileRows;
    // Groups of row tiles fit the L2 cache, with the weights of the tiles in
    // flight.
    constexpr int64_t groupBytes = 12 * 1024 * 1024;
    int64_t rowBytes = llvm::divideCeil(k * storage.getIntOrFloatBitWidth(), 8);
    int64_t groupTiles =
        std::clamp<int64_t>(groupBytes / (tileRows * rowBytes), 4, 4096);
    return TileScheduler(b, offsets, rows, op.getFirstExpert(), experts,
                         tileRows, columnTiles,
                         combineArguments.others ? twoPasses : 0, groupTiles);
  }
  /// Returns the index of the row of `lhs` behind grouped row `row` (i32), and
  /// a pointer to it.
  Value lhsRowIndex(Value row);
  Value lhsRowPointer(Value row);
  /// Loads the scale of row `lhsRow` of `lhs` for stage `step` along k.
  Value loadRowScale(Value lhsRow, Value step);
  /// Loads the scales of the weights for stage `step` along k: for each GEMM
  /// those of `count` groups of eight columns, group i starting at column
  /// `first(i)`. One load serves all groups that share a block of scales.
  SmallVector<Value> loadWeightScales(const TileCoord &coord, int64_t count,
                                      Value step,
                                      llvm::function_ref<Value(int64_t)> first);
  /// Selects from the result of `loadWeightScales` the scale of an even or odd
  /// (`parity` 0 or 1) column of fragment `fragment`; null without scales.
  Value columnScale(ArrayRef<Value> scales, int64_t fragment, int64_t parity);
  /// Returns accumulator + partial · rowScale · columnScale; either scale may
  /// be null.
  Value accumulateScaled(Value accumulator, Value partial, Value rowScale,
                         Value columnScale);
  /// True if the last tile of columns reaches beyond the result.
  bool hasRaggedColumns() { return n % outTileColumns != 0; }
  /// True (i1) if column `column` + `offset` is one of the result; null if all
  /// columns of tiles are.
  Value hasColumn(Value column, int64_t offset);
  /// Applies the epilogue to columns `column` + `offset` and the next of the
  /// result in row `row` of the tile; returns the two elements of each result.
  /// `accumulators` has those of each GEMM for the first column, then for the
  /// second. Elements outside of the result are computed, too: a branch would
  /// take longer.
  SmallVector<std::array<Value, 2>> applyEpilogue(const TileCoord &coord,
                                                  Value row, Value column,
                                                  int64_t offset,
                                                  ArrayRef<Value> accumulators);
  /// Applies the epilogue and stores the elements that are in the result.
  void storePair(const TileCoord &coord, Value row, Value column,
                 int64_t offset, ArrayRef<Value> accumulators);

  // A warp has m16n8 accumulator fragments in the layout of mma.sync and wgmma:
  // a lane has two columns of row lane / 4, then the same of the row eight
  // below. `accumulator(4 · f + i)` is register i of fragment f. With
  // interleaved weights the two columns are one column of the result;
  // neighbouring lanes exchange columns of two fragments so that each lane has
  // two adjacent columns of one fragment of the result.

  /// Returns the first of the two columns that a lane has of a fragment of
  /// the result.
  Value laneColumn(Value lane);
  /// Returns this lane's accumulators of fragment `fragment` of the result, of
  /// its upper (`half` 0) or lower row, as the operand of `applyEpilogue`.
  SmallVector<Value>
  fragmentPair(int64_t fragments, int64_t fragment, int64_t half,
               llvm::function_ref<Value(int64_t)> accumulator);
  /// Stores 16 rows of `fragments` fragments of a warp; `row` counts within the
  /// tile, `column` within the result.
  void storeFragments(const TileCoord &coord, Value row, Value column,
                      int64_t fragments,
                      llvm::function_ref<Value(int64_t)> accumulator);
  /// Orders the accumulators of two column pairs of interleaved weights, each
  /// pair one column of the result, as the operand of `applyEpilogue`.
  SmallVector<Value> interleavedPair(std::pair<Value, Value> firstColumn,
                                     std::pair<Value, Value> secondColumn);

  /// Runs the fused combine for few tokens, if there is one: a warp, one of
  /// `warps` that store rows, arrives after it has stored its `columns` of a
  /// tile.
  void arriveForCombine(TileScheduler &tiles, const TileCoord &coord,
                        Value warp, int64_t warps,
                        const CombineEpilogueEmitter::Columns &columns);
  /// The same for any number of tokens: a warp, one of `writers` with the same
  /// rows, has stored those that `rowAt` returns for `count` indices.
  void arriveRows(const TileCoord &coord, int64_t count, int64_t writers,
                  llvm::function_ref<Value(Value)> rowAt);
  /// Runs the fused combine of tokens for which no warp arrives.
  void combineWithoutRows(TileScheduler &tiles, int64_t threads);

  GroupedMatmulOp op;
  TileAttr tile;
  Multicast multicast;
  const CombineEpilogue *combine; // null if none is fused
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element; // of `lhs`
  Type storage; // of `lhs` in memory: i8 for f8E4M3FN
  int64_t k, n, experts, matmuls;
  int64_t outTileColumns; // columns of the result in a tile
  WeightLayout layout;
  int64_t viewTileColumns; // columns of each view in a tile
  int64_t viewColumns;     // columns of each view
  // Extents of the tensors behind the views.
  int64_t weightColumns, weightK;

  // Arguments of the kernel, and the inputs that tensor maps describe.
  KernelArguments arguments;
  int64_t lhsInput = 0;
  SmallVector<int64_t> weightInputs;
  Value lhs, gather, offsets, lhsScales, rows, lhsRows;
  SmallVector<Value> weights, weightScales, extras, outs;
  CombineEpilogueEmitter::Arguments combineArguments;

private:
  void declareArguments(const GroupedKernelRequest &request);
};

/// Builds and launches a kernel on mma.sync (sm_80 and later).
void launchMmaSyncKernel(const GroupedKernelRequest &request, Value blocks,
                         DeviceLowering &lowering);
/// Builds and launches a kernel on mma.sync for FP8 weights.
void launchScaledMmaSyncKernel(const GroupedKernelRequest &request,
                               Value blocks, DeviceLowering &lowering);
/// Builds and launches a kernel on wgmma (sm_90a) for large row counts.
void launchWgmmaKernel(const GroupedKernelRequest &request, Value blocks,
                       DeviceLowering &lowering);
/// Builds and launches a kernel on wgmma with A and B swapped, for small row
/// counts.
void launchSwapABKernel(const GroupedKernelRequest &request, Value blocks,
                        DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
