//===- TMAKernel.cpp - Base of the wgmma kernels --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

void TMAKernel::declareTensorMaps() {
  auto shareOf = [&](Multicast operand, int64_t rows) {
    return multicast == operand ? rows / blocks : rows;
  };
  if (!isGathered())
    arguments.tensorMap(
        lhsInput, {shareOf(Multicast::Rows, tile.getRows()), depth / lhsBlocks},
        swizzleBytes, lhsMap);
  int64_t boxRows =
      shareOf(Multicast::Weights, op.getTransposed() ? viewTileColumns : depth);
  weightMaps.resize(viewCount());
  for (auto [input, map] : llvm::zip_equal(weightInputs, weightMaps))
    arguments.tensorMap(input, {1, boxRows, depth}, swizzleBytes, map);
}

LLVM::LLVMFuncOp TMAKernel::create(StringRef name, KernelShape shape,
                                   int64_t extraBytes) {
  extraStart = barrierBytes();
  schedulerStart = extraStart + extraBytes;
  shape.sharedBytes =
      stages * stageBytes + schedulerStart +
      (op.getOffsets() ? TileScheduler::sharedBytes(experts) : 0);
  if (blocks > 1)
    shape.cluster = blocks;
  declareTensorMaps();
  auto kernel = GroupedKernel::create(name, shape);
  startPipeline();
  return kernel;
}

Value TMAKernel::extraMemory() { return b.sharedAt(barriers, extraStart); }
Value TMAKernel::schedulerMemory() {
  return b.sharedAt(barriers, schedulerStart);
}

void TMAKernel::initBarriers() {
  SmallVector<Value> maps = weightMaps;
  if (lhsMap)
    maps.push_back(lhsMap);
  WgmmaPipeline::initBarriers(1 + (isGathered() ? warpgroupSize : 0), maps);
}

TileCoord TMAKernel::tileAt(TileScheduler &tiles, Value tile) {
  TileCoord coord = tiles.tileAt(tile);
  if (multicast == Multicast::Rows) {
    coord.columnTile = b.add(b.mul(coord.columnTile, blocks), rank());
  } else if (multicast == Multicast::Weights) {
    // There may be no rows left for the second block.
    Value before = b.mul(rank(), this->tile.getRows());
    coord.firstRow = b.add(coord.firstRow, before);
    coord.rows = b.min(b.sub(coord.rows, before), this->tile.getRows());
  }
  return coord;
}

//===----------------------------------------------------------------------===//
// Producer
//===----------------------------------------------------------------------===//

void TMAKernel::forEachWeightBox(
    const TileCoord &coord, Value kStart,
    llvm::function_ref<void(Value start, Value map, ValueRange coordinates)>
        body) {
  // With multicast this block has some of the rows of each box.
  int64_t boxRows = op.getTransposed() ? viewTileColumns : depth;
  Value first, firstByte = b.i32(0);
  if (multicast == Multicast::Weights) {
    first = b.mul(rank(), boxRows / blocks);
    firstByte = b.mul(first, swizzleBytes);
  }
  for (auto [v, view] : llvm::enumerate(layout.views)) {
    Value column =
        b.add(b.mul(coord.columnTile, viewTileColumns), view.firstColumn);
    // Beyond the range of k there may be other weights; lhs is 0 there.
    Value kOfTensor = b.add(kStart, view.firstK);
    if (first)
      (op.getTransposed() ? column : kOfTensor) =
          b.add(op.getTransposed() ? column : kOfTensor, first);
    Value start = b.add(firstByte,
                        lhsBytes + int64_t(v) * viewTileColumns * swizzleBytes);
    if (op.getTransposed()) {
      body(start, weightMaps[v], {kOfTensor, column, coord.expert});
      continue;
    }
    for (int64_t block = 0; block < viewTileColumns / 64; ++block)
      body(b.add(start, block * 64 * swizzleBytes), weightMaps[v],
           {b.add(column, block * 64), kOfTensor, coord.expert});
  }
}

void TMAKernel::loadWeights(const TileCoord &coord, Value kStart,
                            Value stageStart, Value barrier) {
  forEachWeightBox(
      coord, kStart, [&](Value start, Value map, ValueRange coordinates) {
        issueTMA(b.sharedAt(memory, b.add(stageStart, start)), map, coordinates,
                 barrier, multicast == Multicast::Weights);
      });
}

/// Returns the start along k of stage `step`; the block begins at `firstStep`.
static Value kStartOf(GPUBuilder &b, Value step, Value firstStep,
                      int64_t depth) {
  return b.mul(firstStep ? b.add(step, firstStep) : step, depth);
}

void TMAKernel::prefetchWeights(TileScheduler &tiles, Value tile,
                                Value firstStep) {
  if (isGathered())
    return;
  // What all blocks prefetch fits the L2 cache.
  constexpr int64_t bytes = 64 * 1024;
  int64_t count = std::clamp<int64_t>(bytes / rhsBytes, 1, steps);
  auto mode =
      NVVM::TMALoadModeAttr::get(b.getContext(), NVVM::TMALoadMode::TILE);
  b.ifThen(b.less(tile, tiles.tileCount()), [&] {
    TileCoord coord = tileAt(tiles, tile);
    b.loop(b.i32(0), b.i32(count), b.i32(1), [&](Value step) {
      forEachWeightBox(coord, kStartOf(b, step, firstStep, depth),
                       [&](Value, Value map, ValueRange coordinates) {
                         NVVM::CpAsyncBulkTensorPrefetchOp::create(
                             b, map, coordinates, ValueRange(), mode, Value());
                       });
    });
  });
}

/// One thread issues all TMA loads of a tile.
TMAKernel::PipelineState TMAKernel::loadContiguousTile(const TileCoord &coord,
                                                       PipelineState state,
                                                       Value firstStep) {
  bool isShared = multicast == Multicast::Rows;
  Value firstRow = coord.firstRow, firstByte = b.i32(0);
  if (isShared) {
    Value first = b.mul(rank(), tile.getRows() / blocks);
    firstRow = b.add(firstRow, first);
    firstByte = b.mul(first, swizzleBytes);
  }
  PipelineState end =
      fillStages(state, b.i32(steps), [&](Value step, Value stage, Value full) {
        expectBytes(full, b.i32(stageBytes));
        Value kStart = kStartOf(b, step, firstStep, depth);
        Value start = b.mul(stage, stageBytes);
        for (int64_t block = 0; block < lhsBlocks; ++block)
          issueTMA(b.sharedAt(memory, b.add(b.add(start, firstByte),
                                            block * lhsBlockBytes)),
                   lhsMap, {b.add(kStart, block * depth / lhsBlocks), firstRow},
                   full, isShared);
        loadWeights(coord, kStart, start, full);
      });
  return end;
}

/// Each thread copies 16-byte chunks of gathered rows with cp.async; one thread
/// issues the TMA loads of the weights.
TMAKernel::PipelineState TMAKernel::loadGatheredTile(const TileCoord &coord,
                                                     PipelineState state,
                                                     Value firstStep) {
  constexpr int64_t rowsAtOnce = warpgroupSize / 8;
  Value chunk = b.bitAnd(thread, 7), row = b.shiftRight(thread, 3);
  Value swizzled = b.swizzle128(chunk, row);
  Value target = b.add(b.mul(row, swizzleBytes), b.shiftLeft(swizzled, 4));
  int64_t blockDepth = depth / lhsBlocks;
  Value chunkStart = b.mul(chunk, blockDepth / 8);
  SmallVector<Value> sources;
  int64_t count = llvm::divideCeil(tile.getRows(), rowsAtOnce);
  for (int64_t i = 0; i < count; ++i) {
    Value clamped = b.min(b.add(row, i * rowsAtOnce), b.sub(coord.rows, 1));
    sources.push_back(b.at(lhsRowPointer(b.add(coord.firstRow, clamped)),
                           storage, chunkStart));
  }
  PipelineState end =
      fillStages(state, b.i32(steps), [&](Value step, Value stage, Value full) {
        Value kStart = kStartOf(b, step, firstStep, depth);
        Value start = b.mul(stage, stageBytes);
        b.ifThen(b.equal(thread, 0), [&] {
          expectBytes(full, b.i32(rhsBytes));
          loadWeights(coord, kStart, start, full);
        });
        auto copyBlock = [&](int64_t block) {
          // Beyond k a copy reads nothing and fills the chunk with zeros.
          Value kOfBlock = b.add(kStart, block * blockDepth);
          Value inside =
              k % depth != 0 ? b.less(b.add(kOfBlock, chunkStart), k) : Value();
          Value bytes =
              inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
          Value offset =
              inside ? b.select(inside, kOfBlock, b.i32(0)) : kOfBlock;
          for (auto [i, source] : llvm::enumerate(sources)) {
            Value byte = b.add(b.add(start, target),
                               block * lhsBlockBytes +
                                   int64_t(i) * rowsAtOnce * swizzleBytes);
            copyChunk(b.sharedAt(memory, byte), b.at(source, storage, offset),
                      bytes);
          }
        };
        auto copy = [&] {
          for (int64_t block = 0; block < lhsBlocks; ++block)
            copyBlock(block);
        };
        if (tile.getRows() < rowsAtOnce)
          b.ifThen(b.less(row, tile.getRows()), copy);
        else
          copy();
        if (consumersFence())
          NVVM::CpAsyncMBarrierArriveOp::create(b, full, /*noinc=*/true);
        else
          commitCopies(stage, step);
      });
  if (!consumersFence())
    finishCopies(end.stage, b.i32(steps));
  return end;
}

TMAKernel::PipelineState TMAKernel::loadTile(const TileCoord &coord,
                                             PipelineState state,
                                             Value firstStep) {
  return isGathered() ? loadGatheredTile(coord, state, firstStep)
                      : loadContiguousTile(coord, state, firstStep);
}

void TMAKernel::producerLoop(llvm::function_ref<void()> load) {
  if (!isGathered())
    return b.ifThen(b.equal(thread, 0), load);
  load();
  // A thread must not exit while copies of it are in flight.
  if (consumersFence())
    NVVM::CpAsyncWaitGroupOp::create(b, b.getI32IntegerAttr(0));
}

void TMAKernel::forEachTile(
    TileScheduler &tiles, PipelineState start,
    llvm::function_ref<PipelineState(const TileCoord &, PipelineState)> body) {
  b.loop(firstTile(), tiles.tileCount(), tileStride(),
         {start.stage, start.phase}, [&](Value tile, ValueRange carried) {
           PipelineState state =
               body(tileAt(tiles, tile), {carried[0], carried[1]});
           return SmallVector<Value>{state.stage, state.phase};
         });
}

Value TMAKernel::weightsDescriptor(Value address) {
  return descriptor(address, op.getTransposed() ? 16 : wgmmaMBytes);
}
