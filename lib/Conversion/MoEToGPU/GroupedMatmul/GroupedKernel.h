//===- GroupedKernel.h - Base of the grouped matmul kernels -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "Combine/CombineEpilogue.h"
#include "Lowering.h"
#include "TileScheduler.h"

namespace mlir::moe {

/// A range of columns of a compact weight tensor `[E, N, K]` or `[E, K, N]`:
/// gate and up projections are often halves of one tensor.
struct WeightView {
  Value source;
  int64_t firstColumn = 0;
  int64_t columns; // of the whole tensor
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
};

/// What to generate a kernel for.
struct GroupedKernelRequest {
  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<CombineEpilogue> combine; // fused, if set
};

/// Base of the persistent kernels that compute a `moe.grouped_matmul`.
class GroupedKernel {
public:
  GroupedKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : op(request.op), tile(request.tile), combine(request.combine),
        lowering(lowering), b(op.getLoc(), op.getContext()),
        element(cast<RankedTensorType>(op.getLhs().getType()).getElementType()),
        storage(isa<Float8E4M3FNType>(element) ? b.getI8Type() : element),
        k(op.getK()), n(op.getN()), experts(op.getExpertCount()),
        products(op.getNumProducts()),
        outTileColumns(tile.getColumns() / products), layout(layoutOf(op)),
        viewTileColumns(tile.getColumns() / viewCount()),
        viewColumns(n * products / viewCount()),
        weightColumns(layout.views.front().columns) {}

  /// Returns the inputs of a launch, in the order of the kernel's pointers. Its
  /// results are the rows and, with a fused combine, the combined tokens and
  /// the arrival counters; its scalars the rows of the result and of `lhs`,
  /// with offsets the range of rows, and with a fused combine the number of
  /// tokens.
  static SmallVector<Value> inputs(const GroupedKernelRequest &request);

protected:
  /// Returns the layout of an operation that passed `verifyTensorCores`.
  static WeightLayout layoutOf(GroupedMatmulOp op);
  int64_t viewCount() { return layout.views.size(); }
  /// Creates the kernel and names its arguments.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape);
  TileScheduler createScheduler() {
    return TileScheduler(b, offsets, rows, expertRows, op.getFirstExpert(),
                         experts, tile.getRows(),
                         llvm::divideCeil(n, outTileColumns));
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
  /// Applies the epilogue to columns `column` and `column` + 1 of grouped row
  /// `row` and stores them. `accumulators` has those of each GEMM for the first
  /// column, then for the second.
  void storePair(const TileCoord &coord, Value row, Value column,
                 ArrayRef<Value> accumulators);
  /// Stores 16 rows of `fragments` m16n8 accumulator fragments of a warp, in
  /// the layout of mma.sync and wgmma: a lane has two columns of row lane / 4,
  /// then the same of the row eight below. `accumulator(4 · f + i)` is register
  /// i of fragment f; `row` counts within the tile, `column` within the result.
  void storeFragments(const TileCoord &coord, Value row, Value column,
                      int64_t fragments,
                      llvm::function_ref<Value(int64_t)> accumulator);
  /// Orders the accumulators of two column pairs of interleaved weights, each
  /// pair one column of the result, as the operand of `storePair`.
  SmallVector<Value> interleavedPair(std::pair<Value, Value> firstColumn,
                                     std::pair<Value, Value> secondColumn);

  /// Runs the fused combine, if there is one: a warp, one of `warps` that store
  /// rows, arrives after it has stored its `columns` of a tile.
  void arriveForCombine(TileScheduler &tiles, const TileCoord &coord,
                        Value warp, int64_t warps,
                        const CombineEpilogueEmitter::Columns &columns);
  /// Runs the fused combine where no expert has a row, and so no warp arrives.
  void combineWithoutTiles(TileScheduler &tiles, int64_t threads);

  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<CombineEpilogue> combine;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element; // of `lhs`
  Type storage; // of `lhs` in memory: i8 for f8E4M3FN
  int64_t k, n, experts, products;
  int64_t outTileColumns; // columns of the result in a tile
  WeightLayout layout;
  int64_t viewTileColumns; // columns of each view in a tile
  int64_t viewColumns;     // columns of each view
  int64_t weightColumns;   // columns of the tensors behind the views

  // Arguments of the kernel.
  Value lhs, gather, offsets, lhsScales, out, rows, lhsRows;
  SmallVector<Value> weights, weightScales, extras;
  RowRange expertRows; // with offsets: row counts that this kernel handles
  CombineEpilogueEmitter::Arguments combineArguments;
};

/// Builds a kernel on mma.sync (sm_80 and later).
LLVM::LLVMFuncOp buildMmaSyncKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering);
/// Builds a kernel on mma.sync for FP8 weights.
LLVM::LLVMFuncOp buildScaledMmaSyncKernel(const GroupedKernelRequest &request,
                                          DeviceLowering &lowering);
/// Builds a kernel on wgmma (sm_90a) for large row counts.
LLVM::LLVMFuncOp buildWgmmaKernel(const GroupedKernelRequest &request,
                                  DeviceLowering &lowering);
/// Builds a kernel on wgmma with A and B swapped, for small row counts.
LLVM::LLVMFuncOp buildSwapABKernel(const GroupedKernelRequest &request,
                                   DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
