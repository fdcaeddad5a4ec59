//===- GroupedKernel.h - What kernels of grouped products share -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H

#include "Builder/DeviceEpilogue.h"
#include "Lowering.h"
#include "Combine/CombineEpilogue.h"
#include "TileScheduler.h"

namespace mlir::moe {

/// Where weights `[E, N, K]` or `[E, K, N]` lie: columns from `firstColumn` on of a
/// compact tensor that has `columns` of them (gate and up are often halves of one).
struct WeightView {
  Value source;
  int64_t firstColumn = 0;
  int64_t columns;
};

/// Where the weights of all products lie.
struct WeightLayout {
  /// One for each product, or one for two of which each has every other column.
  SmallVector<WeightView, 2> views;
  bool interleaved = false;
  /// Of interleaved products, the one that has the first column.
  int64_t firstProduct = 0;

  /// Nothing, and why, if weights are no such parts of tensors.
  static FailureOr<WeightLayout> of(GroupedMatmulOp op, std::string &why);
};

/// What to make a kernel for.
struct GroupedKernelRequest {
  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<RowSum> sum; // that it ends in
};

/// A kernel that computes a `moe.grouped_matmul` tile by tile, and its arguments.
class GroupedKernel {
public:
  GroupedKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : op(request.op), tile(request.tile), sum(request.sum),
        lowering(lowering), b(op.getLoc(), op.getContext()),
        element(cast<RankedTensorType>(op.getLhs().getType()).getElementType()),
        storage(isa<Float8E4M3FNType>(element) ? b.getI8Type() : element),
        k(op.getK()), n(op.getN()), experts(op.getExpertCount()),
        products(op.getNumProducts()), share(tile.getColumns() / products),
        layout(layoutOf(op)), viewShare(tile.getColumns() / viewCount()),
        viewColumns(n * products / viewCount()),
        weightColumns(layout.views.front().columns) {}

  /// Operands of a launch, in the order of the kernel's pointers. Results are
  /// the rows and, with a sum, what is added up and the arrivals; scalars the rows
  /// of the result and of `lhs` and, with a sum, the tokens to add up.
  static SmallVector<Value> inputs(const GroupedKernelRequest &request);

protected:
  /// That of an operation that was verified.
  static WeightLayout layoutOf(GroupedMatmulOp op);
  int64_t viewCount() { return layout.views.size(); }
  /// Create the kernel and name its arguments.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape);
  TileSchedule schedule() {
    return TileSchedule(b, offsets, rows, expertRows, op.getFirstExpert(),
                        experts, tile.getRows(), llvm::divideCeil(n, share));
  }
  /// The row of `lhs` that grouped row `row` (i32) is, and where it starts.
  Value lhsRowNumber(Value row);
  Value lhsRow(Value row);
  /// The scale of row `lhsRow` of `lhs` for step `step` along k.
  Value rowScale(Value lhsRow, Value step);
  /// Those of the weights: for each product, of `count` tiles of eight columns that
  /// begin where `first` says. They are one where all are in one block.
  SmallVector<Value> weightScalesOf(const TilePlace &place, int64_t count,
                                    Value step,
                                    llvm::function_ref<Value(int64_t)> first);
  /// Of those, the scale for an even (`which` = 0) or odd column of the eight
  /// that are piece `piece` of the weights; null if there are none.
  Value columnScale(ArrayRef<Value> scales, int64_t piece, int64_t which);
  /// sum + block · rowScale · columnScale, of which either may be null.
  Value addScaled(Value sum, Value block, Value rowScale, Value columnScale);
  /// Store the results of columns `column` and the next; `sums` has the sums of
  /// the products for the one, then for the other. `row` is a grouped row.
  void storePair(const TilePlace &place, Value row, Value column,
                 ArrayRef<Value> sums);
  /// The same of 16 rows by `pieces` times eight columns of weights, as
  /// mma.sync and wgmma leave them to a warp: sums 4 · piece and on of a lane
  /// are of two columns, and of those eight rows below. `row` is one of the
  /// tile, `column` one of the result.
  void storePieces(const TilePlace &place, Value row, Value column,
                   int64_t pieces, llvm::function_ref<Value(int64_t)> sum);
  /// The operand of `storePair` from the sums of two columns of weights that
  /// are one column of interleaved products, and of the two that follow.
  SmallVector<Value> interleavedPair(std::pair<Value, Value> firstColumn,
                                     std::pair<Value, Value> secondColumn);

  /// Where the kernel ends in a sum, `warps` of a block storing rows: by a warp
  /// that has stored its columns of a tile, and by all threads before the tiles.
  void arriveAtSum(TileSchedule &tiles, const TilePlace &place, Value warp,
                   int64_t warps, const RowSumEmitter::Columns &columns);
  void sumWithoutTiles(TileSchedule &tiles, int64_t threads);

  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<RowSum> sum;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element; // of `lhs`
  Type storage; // the same in memory
  int64_t k, n, experts, products;
  int64_t share; // columns of each product in a tile
  WeightLayout layout;
  int64_t viewShare;     // columns of each view in a tile
  int64_t viewColumns;   // of each view, all in all
  int64_t weightColumns; // of the tensors that weights lie in

  // Arguments of the kernel.
  Value lhs, gather, offsets, lhsScales, out, rows, lhsRows;
  SmallVector<Value> weights, weightScales, extras;
  RowRange expertRows; // of the experts that the kernel takes, with offsets
  RowSumEmitter::Arguments sumArguments;
};

/// A kernel with `mma.sync` (sm_80 and later).
LLVM::LLVMFuncOp buildMmaSyncKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering);
/// One with `mma.sync` for weights of 8 bits.
LLVM::LLVMFuncOp buildScaledMmaSyncKernel(const GroupedKernelRequest &request,
                                          DeviceLowering &lowering);
/// Ones with `wgmma` (sm_90a), for many rows and for few.
LLVM::LLVMFuncOp buildWgmmaKernel(const GroupedKernelRequest &request,
                                  DeviceLowering &lowering);
LLVM::LLVMFuncOp buildSwappedKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_GROUPEDKERNEL_H
