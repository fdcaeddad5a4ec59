//===- MmaSyncContract.cpp - Contraction on mma.sync ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For f16 and bf16, sm_80 and later. Rows of both operands are copied to shared
// memory as they are, gathered on the way: both are MN-major there, and
// ldmatrix transposes them.
//
//===----------------------------------------------------------------------===//

#include "ContractKernel.h"
#include "GroupedMatmul/MmaSync/WarpTile.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class MmaSyncContract : public ContractKernel, protected WarpTile {
public:
  using ContractKernel::b;

  static constexpr int64_t size = 128, stageCount = 3;

  MmaSyncContract(GroupedContractOp op, ContractOperands &operands,
                  DeviceLowering &lowering)
      : ContractKernel(op, size, size, operands, lowering),
        WarpTile(b, size, size, stageCount) {}

  LLVM::LLVMFuncOp build();

private:
  static constexpr int64_t chunks = size / 8; // of a row, 16 bytes each
  static constexpr int64_t sideBytes = depth * size * 2;
  static constexpr int64_t stageBytes = 2 * sideBytes;

  void loadSide(const Coord &coord, const Side &side, Value firstColumn,
                Value step, Value start);
  void computeTile(const Coord &coord);
};
} // namespace

/// Copies the columns of a tile of 64 rows of an operand to shared memory, with
/// zeros where there are none.
void MmaSyncContract::loadSide(const Coord &coord, const Side &side,
                               Value firstColumn, Value step, Value start) {
  constexpr int64_t rowsAtOnce = threads / chunks;
  Value chunk = b.rem(thread, chunks), within = b.div(thread, chunks);
  Value column = b.add(firstColumn, b.shiftLeft(chunk, 3));
  Value hasColumn = b.less(column, side.columns);
  column = b.select(hasColumn, column, b.i32(0));
  for (int64_t i = 0; i < depth; i += rowsAtOnce) {
    Value stageRow = b.add(within, i);
    Value row = b.add(b.add(coord.firstRow, b.mul(step, depth)), stageRow);
    Value exists = hasRow(coord, row);
    Value source = pointerTo(side, sourceRow(side, row, exists), column);
    Value bytes = b.select(b.both(exists, hasColumn), b.i32(16), b.i32(0));
    Value offset = b.add(start, swizzledOffset(stageRow, chunk, chunks));
    NVVM::CpAsyncOp::create(b, b.sharedAt(memory, offset), source, 16,
                            NVVM::LoadCacheModifierKind::CG, bytes);
  }
}

void MmaSyncContract::computeTile(const Coord &coord) {
  auto loadStage = [&](Value step, Value stage) {
    Value start = b.mul(stage, stageBytes);
    loadSide(coord, lhs, coord.k, step, start);
    loadSide(coord, rhs, coord.n, step, b.add(start, sideBytes));
  };
  auto multiply = [&](Value, Value stage, ValueRange carried,
                      llvm::function_ref<void()> waitStage) {
    waitStage();
    SmallVector<Value> sums(carried);
    Value start = b.mul(stage, stageBytes);
    for (int64_t step = 0; step < depth / 16; ++step) {
      auto left = loadLhsMNMajor(start, chunks, step);
      auto right = loadRhsMNMajor(b.add(start, sideBytes), chunks, step);
      for (int64_t i = 0; i < fragmentsM; ++i)
        for (int64_t j = 0; j < fragmentsN; ++j)
          b.mma(element, left[i], right[j],
                MutableArrayRef(sums).slice((i * fragmentsN + j) * 4, 4));
    }
    return sums;
  };
  SmallVector<Value> sums = mainloop(coord.steps, loadStage, multiply);
  Value firstK = b.add(b.add(coord.k, warpRow), b.shiftRight(lane, 2));
  Value firstN =
      b.add(b.add(coord.n, warpColumn), b.shiftLeft(b.bitAnd(lane, 3), 1));
  for (int64_t i = 0; i < fragmentsM; ++i)
    for (int64_t half = 0; half < 2; ++half) {
      SmallVector<Pair> pairs;
      for (int64_t j = 0; j < fragmentsN; ++j) {
        const Value *sum = &sums[(i * fragmentsN + j) * 4 + half * 2];
        pairs.push_back({b.add(firstK, i * 16 + half * 8), b.add(firstN, j * 8),
                         sum[0], sum[1]});
      }
      storePairs(coord, pairs);
    }
}

LLVM::LLVMFuncOp MmaSyncContract::build() {
  KernelShape shape;
  shape.threads = threads;
  shape.sharedBytes = stages * stageBytes;
  auto kernel = create("grouped_contract", shape, MatrixUnit::MmaSync);
  startTile();
  b.loop(b.block(), b.i32(tileCount()), b.numBlocks(), [&](Value tile) {
    // All warps must have read the stages of the previous tile.
    b.barrier();
    computeTile(tileAt(tile));
  });
  return kernel;
}

void mlir::moe::launchMmaSyncContract(GroupedContractOp op,
                                      ContractOperands &operands,
                                      DeviceLowering &lowering) {
  HostBuilder host(op.getLoc(), lowering.rewriter);
  MmaSyncContract kernel(op, operands, lowering);
  LLVM::LLVMFuncOp function = kernel.build();
  kernel.launch(function, kernel.gridSize(host));
}
