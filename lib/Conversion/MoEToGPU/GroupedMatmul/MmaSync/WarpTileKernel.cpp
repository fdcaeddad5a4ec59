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
  memory = b.sharedMemory();
  thread = b.thread();
  lane = b.lane();
  Value warp = b.warp();
  warpRow = b.mul(b.rem(warp, warpsM), warpRows);
  warpColumn = b.mul(b.div(warp, warpsM), warpColumns);

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
    int64_t first = layout.views[v].firstColumn * (op.getTransposed() ? k : 1);
    Value start = b.at(weights[v], type, b.i64(first));
    pointer = pointer ? b.select(b.equal(view, v), start, pointer) : start;
  }
  return pointer;
}

SmallVector<Value> WarpTileKernel::loadMatrices(Value address,
                                                bool transposed) {
  Type i32 = b.getI32Type();
  auto type =
      LLVM::LLVMStructType::getLiteral(b.getContext(), {i32, i32, i32, i32});
  auto shape = NVVM::LdStMatrixShapeAttr::get(b.getContext(), 8, 8);
  Value loaded = NVVM::LdMatrixOp::create(
      b, type, b.sharedAt(memory, address), 4,
      transposed ? NVVM::MMALayout::col : NVVM::MMALayout::row, shape,
      NVVM::LdStMatrixEltType::B16);
  SmallVector<Value> registers;
  for (int64_t i = 0; i < 4; ++i)
    registers.push_back(LLVM::ExtractValueOp::create(b, loaded, i));
  return registers;
}

SmallVector<Value> WarpTileKernel::mainloop(int64_t steps, LoadStage loadStage,
                                            MultiplyStage multiplyStage) {
  for (int64_t stage = 0; stage < stages - 1; ++stage) {
    if (stage < steps)
      loadStage(b.i32(stage), b.i32(stage));
    NVVM::CpAsyncCommitGroupOp::create(b);
  }
  SmallVector<Value> inits{b.i32(0)};
  inits.append(fragmentsM * fragmentsN * 4, b.f32(0.0));
  SmallVector<Value> results = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), inits,
      [&](Value step, ValueRange carried) {
        Value stage = carried.front();
        auto waitStage = [&] {
          // After the barrier the stage is visible to all threads, and all have
          // read the stage that the next copies overwrite.
          NVVM::CpAsyncWaitGroupOp::create(b, stages - 2);
          b.barrier();
          Value ahead = b.add(step, stages - 1);
          b.ifThen(b.less(ahead, steps), [&] {
            Value target = b.add(stage, stages - 1);
            target =
                b.select(b.less(target, stages), target, b.sub(target, stages));
            loadStage(ahead, target);
          });
          NVVM::CpAsyncCommitGroupOp::create(b);
        };
        SmallVector<Value> next{Value()};
        llvm::append_range(
            next, multiplyStage(step, stage, carried.drop_front(), waitStage));
        Value following = b.add(stage, 1);
        next.front() =
            b.select(b.equal(following, stages), b.i32(0), following);
        return next;
      });
  results.erase(results.begin());
  return results;
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
