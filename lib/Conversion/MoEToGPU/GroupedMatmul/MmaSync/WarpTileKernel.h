//===- WarpTileKernel.h - Base of the mma.sync kernels ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H

#include "GroupedMatmul/GroupedKernel.h"

namespace mlir::moe {

/// A persistent kernel of eight warps. Each warp computes a rectangle of the
/// tile in m16n8k16 fragments; all of them load the operands with a multistage
/// cp.async pipeline. A warp has the same columns of each GEMM.
class WarpTileKernel : public GroupedKernel {
protected:
  static constexpr int64_t numWarps = 8;
  static constexpr int64_t threads = numWarps * GPUBuilder::warpSize;

  WarpTileKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : GroupedKernel(request, lowering), tileRows(tile.getRows()),
        tileColumns(tile.getColumns()), stages(tile.getStages()),
        warpsM(tileRows >= 64 ? 2 : 1), warpsN(numWarps / warpsM),
        warpRows(tileRows / warpsM), warpColumns(tileColumns / warpsN),
        fragmentsM(warpRows / 16), fragmentsN(warpColumns / 8) {}

  /// Builds the kernel, which runs `computeTile` for each tile of a block.
  LLVM::LLVMFuncOp
  buildKernel(StringRef name, int64_t stageBytes,
              llvm::function_ref<void(const TileCoord &)> computeTile);

  /// Maps column `slot` of the weight tile in shared memory to a view of the
  /// weights and a column within the view's part of the tile.
  std::pair<Value, Value> weightColumn(Value slot);
  /// Returns the pointer to the weights of view `view`, elements being `type`.
  Value weightPointer(Value view, Type type);

  /// Loads four 8x8 matrices of 16-bit elements (ldmatrix.x4); each lane passes
  /// the shared memory offset of one row of one matrix.
  SmallVector<Value> loadMatrices(Value address, bool transposed = false);

  using LoadStage = llvm::function_ref<void(Value step, Value stage)>;
  /// Returns the accumulators after a stage; must call `waitStage` before it
  /// reads shared memory.
  using MultiplyStage = llvm::function_ref<SmallVector<Value>(
      Value step, Value stage, ValueRange accumulators,
      llvm::function_ref<void()> waitStage)>;
  /// Runs the pipelined loop along k. Returns the accumulators of a warp: four
  /// registers a fragment, fragments in row-major order.
  SmallVector<Value> mainloop(int64_t steps, LoadStage loadStage,
                              MultiplyStage multiplyStage);

  /// Returns the first column, in the result, of fragment `fragment` of this
  /// warp.
  Value fragmentColumn(const TileCoord &coord, int64_t fragment);
  void store(const TileCoord &coord, ArrayRef<Value> accumulators);

  int64_t tileRows, tileColumns, stages;
  int64_t warpsM, warpsN, warpRows, warpColumns, fragmentsM, fragmentsN;
  Value memory, thread, lane, warpRow, warpColumn;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H
