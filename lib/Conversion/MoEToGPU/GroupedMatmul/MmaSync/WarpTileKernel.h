//===- WarpTileKernel.h - Base of the mma.sync kernels ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H

#include "GroupedMatmul/GroupedKernel.h"
#include "WarpTile.h"

namespace mlir::moe {

/// A persistent kernel for a grouped matmul. A warp has the same columns of
/// each GEMM.
class WarpTileKernel : public GroupedKernel, protected WarpTile {
protected:
  using GroupedKernel::b;

  WarpTileKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : GroupedKernel(request, lowering),
        WarpTile(b, tile.getRows(), tile.getColumns(), tile.getStages()) {}

  /// Builds the kernel, which runs `computeTile` for each tile of a block.
  LLVM::LLVMFuncOp
  buildKernel(StringRef name, int64_t stageBytes,
              llvm::function_ref<void(const TileCoord &)> computeTile);

  /// Maps column `slot` of the weight tile in shared memory to a view of the
  /// weights and a column within the view's part of the tile.
  std::pair<Value, Value> weightColumn(Value slot);
  /// Returns the pointer to the weights of view `view`, elements being `type`.
  Value weightPointer(Value view, Type type);

  /// Returns the first column, in the result, of fragment `fragment` of this
  /// warp.
  Value fragmentColumn(const TileCoord &coord, int64_t fragment);
  void store(const TileCoord &coord, ArrayRef<Value> accumulators);
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILEKERNEL_H
