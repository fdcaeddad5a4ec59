//===- WarpTileKernel.cpp - Base of the mma.sync kernels ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

LLVM::LLVMFuncOp WarpTileKernel::buildKernel(
    StringRef name, int64_t stageBytes,
    llvm::function_ref<void(const TileCoord &)> computeTile) {
  KernelShape shape;
  shape.threads = threads;
  int64_t schedulerBytes =
      op.getOffsets() ? llvm::alignTo(TileScheduler::sharedBytes(experts), 16)
                      : 0;
  shape.sharedBytes = stages * stageBytes + schedulerBytes;
  auto kernel = create(name, shape);
  startTile();
  Value warp = b.warp();

  TileScheduler tiles = createScheduler();
  tiles.prepare(b.sharedAt(memory, stages * stageBytes), threads);
  combineWithoutRows(tiles, threads);
  b.loop(b.block(), tiles.tileCount(), b.numBlocks(), [&](Value tile) {
    // All warps must have read the stages of the previous tile.
    b.barrier();
    TileCoord coord = tiles.tileAt(tile);
    computeTile(coord);
    arriveForCombine(tiles, coord, b.div(warp, warpsM), warpsN,
                     {fragmentColumn(coord, 0), warpColumns, /*count=*/1,
                      /*stride=*/0,
                      /*writers=*/warpsM});
    arriveRows(coord, warpRows, /*writers=*/warpsN,
               [&](Value index) { return b.add(warpRow, index); });
  });
  return kernel;
}

std::pair<Value, Value> WarpTileKernel::weightColumn(Value slot) {
  int64_t warpViewColumns = warpColumns / viewCount();
  Value warp = b.div(slot, warpColumns), within = b.rem(slot, warpColumns);
  return {b.div(within, warpViewColumns),
          b.add(b.mul(warp, warpViewColumns), b.rem(within, warpViewColumns))};
}

Value WarpTileKernel::weightPointer(Value view, Type type) {
  Value pointer;
  for (int64_t v = 0; v < viewCount(); ++v) {
    const WeightView &its = layout.views[v];
    int64_t first = op.getTransposed()
                        ? its.firstColumn * weightK + its.firstK
                        : its.firstColumn + its.firstK * weightColumns;
    Value start = b.at(weights[v], type, b.i64(first));
    pointer = pointer ? b.select(b.equal(view, v), start, pointer) : start;
  }
  return pointer;
}

Value WarpTileKernel::fragmentColumn(const TileCoord &coord, int64_t fragment) {
  return b.add(b.add(b.mul(coord.columnTile, outTileColumns),
                     b.div(warpColumn, matmuls)),
               fragment * 8);
}

void WarpTileKernel::store(const TileCoord &coord,
                           ArrayRef<Value> accumulators) {
  int64_t rowRegisters = fragmentsN * 4;
  for (int64_t i = 0; i < fragmentsM; ++i)
    storeFragments(
        coord, b.add(warpRow, i * 16), fragmentColumn(coord, 0), fragmentsN,
        [&](int64_t index) { return accumulators[i * rowRegisters + index]; });
}
