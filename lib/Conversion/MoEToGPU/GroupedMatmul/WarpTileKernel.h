//===- WarpTileKernel.h - What kernels with mma.sync share ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WARPTILEKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WARPTILEKERNEL_H

#include "GroupedKernel.h"

namespace mlir::moe {

/// Grouped products by eight warps, each of which has a rectangle of the tile,
/// in pieces of 16 rows by 8 columns (`mma.sync.m16n8k16`). All of them bring
/// the operands to shared memory, some stages ahead, with `cp.async`. Warps
/// have columns of each product side by side.
class WarpTileKernel : public GroupedKernel {
protected:
  static constexpr int64_t numWarps = 8;
  static constexpr int64_t threads = numWarps * GPUBuilder::warpSize;

  WarpTileKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : GroupedKernel(request, lowering), tileRows(tile.getRows()),
        tileColumns(tile.getColumns()), stages(tile.getStages()),
        warpsDown(tileRows >= 64 ? 2 : 1), warpsAcross(numWarps / warpsDown),
        warpRows(tileRows / warpsDown), warpColumns(tileColumns / warpsAcross),
        rowTiles(warpRows / 16), columnTiles(warpColumns / 8) {}

  /// The kernel: `computeTile` once for each tile of a block.
  LLVM::LLVMFuncOp
  buildKernel(StringRef name, int64_t stageBytes,
              llvm::function_ref<void(const TilePlace &)> computeTile);

  /// The view of the weights and the column, within its share of the tile, of
  /// column `slot` of the weights' tile.
  std::pair<Value, Value> weightColumn(Value slot);

  /// Four 8x8 matrices of 16 bits; each lane says where one line of one of them
  /// is, from the start of the shared memory.
  SmallVector<Value> loadMatrices(Value address, bool transposed = false);

  /// Add x · y of type `factor`, 16 rows, 16 along k and 8 columns, to four
  /// sums.
  void multiplyTile(Type factor, ArrayRef<Value> x, ArrayRef<Value> y,
                    MutableArrayRef<Value> sums);

  /// A tile's sums, four for each piece of a warp, row by row of pieces.
  /// `bring` starts the copies of a step along k to a stage; `multiply` gives
  /// the sums after a step, and reads its stage only after `arrive`.
  using Bring = llvm::function_ref<void(Value step, Value stage)>;
  using Multiply = llvm::function_ref<SmallVector<Value>(
      Value step, Value stage, ValueRange sums,
      llvm::function_ref<void()> arrive)>;
  SmallVector<Value> sumOverStages(int64_t steps, Bring bring,
                                   Multiply multiply);

  /// The column of the result that piece `piece` of a product begins with, of
  /// those that this warp has.
  Value firstColumn(const TilePlace &place, int64_t piece);
  void store(const TilePlace &place, ArrayRef<Value> sums);

  int64_t tileRows, tileColumns, stages;
  int64_t warpsDown, warpsAcross, warpRows, warpColumns, rowTiles, columnTiles;
  Value memory, thread, lane, warpRow, warpColumn;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WARPTILEKERNEL_H
