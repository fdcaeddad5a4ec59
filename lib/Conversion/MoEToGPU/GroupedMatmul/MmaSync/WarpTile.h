//===- WarpTile.h - Tile of the mma.sync kernels ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILE_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILE_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

/// A tile that eight warps compute. Each warp computes a rectangle of it in
/// m16n8k16 fragments; all of them load the operands with a multistage cp.async
/// pipeline.
class WarpTile {
protected:
  static constexpr int64_t numWarps = 8;
  static constexpr int64_t threads = numWarps * GPUBuilder::warpSize;

  WarpTile(GPUBuilder &b, int64_t rows, int64_t columns, int64_t stages)
      : tileRows(rows), tileColumns(columns), stages(stages),
        warpsM(tileRows >= 64 ? 2 : 1), warpsN(numWarps / warpsM),
        warpRows(tileRows / warpsM), warpColumns(tileColumns / warpsN),
        fragmentsM(warpRows / 16), fragmentsN(warpColumns / 8), b(b) {}

  /// Called at the start of the kernel.
  void startTile();

  /// Returns the byte offset of 16-byte chunk `chunk` of row `row`, rows being
  /// `chunks` long, with the 128-byte swizzle.
  Value swizzledOffset(Value row, Value chunk, int64_t chunks);
  /// Fragments of 16 rows of an operand in shared memory from offset `start`
  /// on, from row 16 · `step` on, for all columns of the warp: MN-major, rows
  /// run along k and are `chunks` chunks long.
  SmallVector<SmallVector<Value>> loadLhsMNMajor(Value start, int64_t chunks,
                                                 int64_t step);
  SmallVector<SmallVector<Value>> loadRhsMNMajor(Value start, int64_t chunks,
                                                 int64_t step);
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
                              MultiplyStage multiplyStage) {
    return mainloop(b.i32(steps), steps, loadStage, multiplyStage);
  }
  /// The same for a number of steps (i32) that only the device knows.
  SmallVector<Value> mainloop(Value steps, LoadStage loadStage,
                              MultiplyStage multiplyStage) {
    return mainloop(steps, std::nullopt, loadStage, multiplyStage);
  }

  int64_t tileRows, tileColumns, stages;
  int64_t warpsM, warpsN, warpRows, warpColumns, fragmentsM, fragmentsN;
  Value memory, thread, lane, warpRow, warpColumn;

private:
  SmallVector<Value> mainloop(Value steps, std::optional<int64_t> known,
                              LoadStage loadStage, MultiplyStage multiplyStage);

  GPUBuilder &b;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_MMASYNC_WARPTILE_H
