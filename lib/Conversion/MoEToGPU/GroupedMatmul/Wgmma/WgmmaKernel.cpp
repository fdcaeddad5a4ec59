//===- WgmmaKernel.cpp - Grouped matmul on wgmma --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A persistent, warp-specialized kernel: one producer warpgroup (TMAKernel.h)
// and two consumer warpgroups. Cooperative consumers share a tile, 64 rows
// each. Ping-pong consumers compute alternate tiles; an ordered barrier lets
// one run its mainloop while the other runs its epilogue.
//
// FP8 operands are accumulated one stage at a time; each consumer scales the
// partial accumulators of a stage and adds them to its f32 accumulators.
//
// Results of 16 bits pass through shared memory: stmatrix writes the fragments
// of 16 rows and 64 columns, swizzled, and lanes read 16 bytes of a row each,
// so that stores fill whole sectors.
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t consumers = 2; // warpgroups
// A block of three warpgroups starts with 168 registers a thread. The producer
// gives registers to the consumers; setmaxnreg would wait forever if they
// needed more than 3 · 168 in all.
static constexpr int64_t producerRegisters = 40;
static constexpr int64_t gatherProducerRegisters = 56;
static constexpr int64_t consumerRegisters(bool gathered) {
  return gathered ? 224 : 232;
}
static_assert(producerRegisters + 2 * consumerRegisters(false) <= 3 * 168 &&
              gatherProducerRegisters + 2 * consumerRegisters(true) <= 3 * 168);

namespace {
class WgmmaKernel : public TMAKernel {
public:
  WgmmaKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : TMAKernel(request, lowering, isPingPong(request.tile) ? 1 : consumers),
        columns(tile.getColumns()), pingPong(isPingPong(tile)),
        rowBlocks(tile.getRows() / wgmmaM / (pingPong ? 1 : consumers)) {}

  LLVM::LLVMFuncOp build();

private:
  static bool isPingPong(TileAttr tile) {
    return tile.getRoles() == WarpRoles::PingPong;
  }
  /// Ping-pong: the barrier that a consumer waits for before its mainloop.
  Value orderBarrier(Value consumer) {
    return b.sharedAt(extraMemory(), b.shiftLeft(consumer, 3));
  }

  /// Ping-pong: lets the other consumer run its mainloop. All threads arrive:
  /// if only the first did, the phase could complete twice before the last
  /// thread observed it, and that thread would wait for a phase that is over.
  void releaseOrder() { arrive(orderBarrier(b.bitXor(consumer, 1))); }

  void produce(TileScheduler &tiles);
  void consume(TileScheduler &tiles, Value warpgroupIndex);
  SmallVector<Value> multiplyStage(ValueRange accumulators, Value stage,
                                   bool first);
  SmallVector<Value> lhsRowsOfThread(const TileCoord &coord);
  void multiplyScaledStage(const TileCoord &coord, ValueRange lhsRows,
                           MutableArrayRef<Value> accumulators,
                           PipelineState state, Value step);
  PipelineState computeScaledTile(const TileCoord &coord, PipelineState state);
  void store(const TileCoord &coord, ValueRange accumulators);
  /// Stores 16 rows of this warp, from row `row` of the tile on, by way of
  /// shared memory.
  void storeWide(const TileCoord &coord, Value row, Value accumulators);
  void stageFragments(const TileCoord &coord, Value row, int64_t firstFragment,
                      int64_t count, Value accumulators);
  void copyStaged(const TileCoord &coord, Value row, int64_t firstFragment,
                  int64_t count);
  /// Returns the staging memory of the warp of a thread.
  Value stagingMemory(Value thread) {
    Value warp = b.sub(b.shiftRight(thread, 5), warpgroupSize / 32);
    return b.sharedAt(extraMemory(),
                      b.add(b.mul(warp, stagingBytes(op) / 8), orderBytes));
  }

  static constexpr int64_t orderBytes = consumers * 8;
  int64_t columns;
  bool pingPong;
  int64_t rowBlocks; // of 64 rows, per consumer
  Value consumer;    // index of the consumer warpgroup
};
} // namespace

void WgmmaKernel::produce(TileScheduler &tiles) {
  NVVM::SetMaxRegisterOp::create(
      b, isGathered() ? gatherProducerRegisters : producerRegisters,
      NVVM::SetMaxRegisterAction::decrease);
  producerLoop([&] {
    forEachTile(tiles, producerStart(),
                [&](const TileCoord &coord, PipelineState state) {
                  return loadTile(coord, state);
                });
  });
}

/// Issues the wgmmas of a stage, for each 64 rows, and commits them as a group.
SmallVector<Value> WgmmaKernel::multiplyStage(ValueRange accumulators,
                                              Value stage, bool first) {
  Value start = stageAddress(stage);
  Value lhs = descriptor(
      pingPong ? start : b.add(start, b.mul(consumer, wgmmaMBytes)), 16);
  Value rhs = weightsDescriptor(b.add(start, lhsBytes));
  SmallVector<Value> results(accumulators);
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < swizzleBytes / wgmmaKBytes; ++step)
    for (auto [i, accumulator] : llvm::enumerate(results)) {
      int64_t lhsStep = (step * wgmmaKBytes + int64_t(i) * wgmmaMBytes) >> 4;
      accumulator =
          wgmma(accumulator, b.add(lhs, lhsStep),
                b.add(rhs, step * weightsDescriptorStep()), columns,
                /*lhsKMajor=*/true, op.getTransposed(), first && step == 0);
    }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return results;
}

/// Returns the two rows of lhs that a thread has accumulators of; none without
/// row scales.
SmallVector<Value> WgmmaKernel::lhsRowsOfThread(const TileCoord &coord) {
  SmallVector<Value> rows;
  Value warp = b.bitAnd(b.shiftRight(thread, 5), 3);
  Value lowRow = b.add(b.add(b.mul(consumer, wgmmaM), b.shiftLeft(warp, 4)),
                       b.shiftRight(b.lane(), 2));
  for (int64_t half = 0; lhsScales && half < 2; ++half) {
    Value row = b.min(b.add(lowRow, half * 8), b.sub(coord.rows, 1));
    rows.push_back(lhsRowIndex(b.add(coord.firstRow, row)));
  }
  return rows;
}

/// Adds the scaled products of a stage to the accumulators. The stage is
/// released as soon as its wgmmas finish; the other consumer multiplies while
/// this one adds.
void WgmmaKernel::multiplyScaledStage(const TileCoord &coord,
                                      ValueRange lhsRows,
                                      MutableArrayRef<Value> accumulators,
                                      PipelineState state, Value step) {
  SmallVector<Value> rowScales;
  for (Value row : lhsRows)
    rowScales.push_back(loadRowScale(row, step));
  Value first = b.mul(coord.columnTile, outTileColumns);
  SmallVector<Value> columnScales =
      loadWeightScales(coord, outTileColumns / 8, step,
                       [&](int64_t group) { return b.add(first, group * 8); });
  waitFull(state);
  Value partial = multiplyStage(undefinedAccumulators(columns), state.stage,
                                /*first=*/true)
                      .front();
  waitWgmma(0);
  releaseStage(state.stage);
  for (auto [i, accumulator] : llvm::enumerate(accumulators))
    accumulator = accumulateScaled(
        accumulator, LLVM::ExtractValueOp::create(b, partial, int64_t(i)),
        rowScales.empty() ? Value() : rowScales[i % 4 / 2],
        columnScale(columnScales, i / 4, i % 2));
}

WgmmaKernel::PipelineState
WgmmaKernel::computeScaledTile(const TileCoord &coord, PipelineState state) {
  SmallVector<Value> rows = lhsRowsOfThread(coord);
  SmallVector<Value> inits{state.stage, state.phase};
  inits.append(columns / 2, b.f32(0.0));
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(steps), b.i32(1), inits,
             [&](Value step, ValueRange carried) {
               PipelineState now{carried[0], carried[1]};
               SmallVector<Value> accumulators(carried.drop_front(2));
               multiplyScaledStage(coord, rows, accumulators, now, step);
               PipelineState next = advance(now);
               SmallVector<Value> results{next.stage, next.phase};
               llvm::append_range(results, accumulators);
               return results;
             });
  Value accumulators = undefinedAccumulators(columns);
  for (int64_t i = 0; i < columns / 2; ++i)
    accumulators = LLVM::InsertValueOp::create(b, accumulators, end[i + 2], i);
  store(coord, accumulators);
  return {end[0], end[1]};
}

void WgmmaKernel::store(const TileCoord &coord, ValueRange accumulators) {
  Value warp = b.bitAnd(b.shiftRight(b.opaque(thread), 5), 3);
  Value firstRow = b.shiftLeft(warp, 4);
  if (!pingPong)
    firstRow = b.add(firstRow, b.mul(consumer, wgmmaM));
  for (auto [i, accumulator] : llvm::enumerate(accumulators)) {
    Value row = b.add(firstRow, int64_t(i) * wgmmaM);
    if (stagingBytes(op) != 0) {
      storeWide(coord, row, accumulator);
      continue;
    }
    storeFragments(coord, row, b.mul(coord.columnTile, outTileColumns),
                   columns / 8,
                   [&, accumulator = accumulator](int64_t index) -> Value {
                     return LLVM::ExtractValueOp::create(b, accumulator, index);
                   });
  }
  arriveRows(coord, rowBlocks * 16, /*writers=*/1, [&](Value index) {
    Value block = b.shiftRight(index, 4);
    return b.add(b.add(firstRow, b.mul(block, wgmmaM)), b.bitAnd(index, 15));
  });
}

void WgmmaKernel::storeWide(const TileCoord &coord, Value row,
                            Value accumulators) {
  constexpr int64_t most = swizzleBytes / 16; // fragments in a staged row
  int64_t fragments = outTileColumns / 8;
  for (int64_t first = 0; first < fragments; first += most) {
    int64_t count = std::min(most, fragments - first);
    // All lanes have copied what was staged before.
    NVVM::SyncWarpOp::create(b, b.i32(-1));
    stageFragments(coord, row, first, count, accumulators);
    NVVM::SyncWarpOp::create(b, b.i32(-1));
    copyStaged(coord, row, first, count);
  }
}

/// Writes fragments of the result to shared memory, two at a time: chunk c of
/// row r is at c ^ (r mod 8).
void WgmmaKernel::stageFragments(const TileCoord &coord, Value row,
                                 int64_t firstFragment, int64_t count,
                                 Value accumulators) {
  // Nothing here may be computed ahead of the loop over tiles, for which there
  // are no registers.
  Value self = b.opaque(thread), lane = b.bitAnd(self, 31);
  Value laneRow = b.add(row, b.shiftRight(lane, 2));
  Value column =
      b.add(b.mul(coord.columnTile, outTileColumns), laneColumn(lane));
  auto accumulator = [&](int64_t index) -> Value {
    return LLVM::ExtractValueOp::create(b, accumulators, index);
  };
  auto matrixOf = [&](int64_t fragment, int64_t half) {
    std::array<Value, 2> pair =
        applyEpilogue(coord, b.add(laneRow, half * 8), column, fragment * 8,
                      fragmentPair(columns / 8, fragment, half, accumulator))
            .front();
    Type type = VectorType::get(2, getElementTypeOrSelf(op.getInit()));
    Value word = LLVM::BitcastOp::create(
        b, b.getI32Type(), vector::FromElementsOp::create(b, type, pair));
    if (!layout.interleaved)
      return word;
    // The second and the third of four lanes have each other's columns.
    Value within = b.bitAnd(lane, 3);
    Value swapped =
        b.bitOr(b.shiftLeft(b.bitAnd(within, 1), 1), b.shiftRight(within, 1));
    return b.shuffle(word, b.bitOr(b.bitAnd(lane, 28), swapped));
  };
  // A lane has the address of a row: of the upper and the lower eight of the
  // first fragment, then of the second.
  Value matrixRow = b.bitAnd(lane, 15);
  Value start =
      b.bitOr(b.mul(matrixRow, swizzleBytes),
              b.shiftLeft(b.swizzle128(b.shiftRight(lane, 4), matrixRow), 4));
  Value staging = stagingMemory(self);
  auto shape = NVVM::LdStMatrixShapeAttr::get(b.getContext(), 8, 8);
  for (int64_t fragment = 0; fragment < count; fragment += 2) {
    SmallVector<Value> matrices;
    for (int64_t i = fragment; i < std::min(fragment + 2, count); ++i)
      for (int64_t half = 0; half < 2; ++half)
        matrices.push_back(matrixOf(firstFragment + i, half));
    NVVM::StMatrixOp::create(
        b, b.sharedAt(staging, b.bitXor(start, fragment * 16)), matrices,
        NVVM::MMALayout::row, shape, NVVM::LdStMatrixEltType::B16);
  }
}

/// Copies staged fragments to the result, 16 bytes a lane; adjacent lanes copy
/// adjacent chunks of a row.
void WgmmaKernel::copyStaged(const TileCoord &coord, Value row,
                             int64_t firstFragment, int64_t count) {
  Type type = getElementTypeOrSelf(op.getInit());
  int64_t rowLanes = llvm::PowerOf2Ceil(count);
  int64_t rowsAtOnce = GPUBuilder::warpSize / rowLanes;
  Value self = b.opaque(thread), chunk = b.bitAnd(self, rowLanes - 1);
  Value laneRow = b.div(b.bitAnd(self, 31), rowLanes);
  Value column = b.add(b.mul(coord.columnTile, outTileColumns),
                       b.add(b.shiftLeft(chunk, 3), firstFragment * 8));
  Value hasColumn = b.i1(true), source = chunk;
  if (count < rowLanes) {
    hasColumn = b.less(chunk, count);
    source = b.min(chunk, count - 1);
  }
  if (hasRaggedColumns())
    hasColumn = b.both(hasColumn, b.less(column, n));
  Value staging = stagingMemory(self);
  Value tileRow = b.add(row, laneRow);
  Value target = b.at(outs.front(), type,
                      b.add(b.mul(b.toI64(b.add(coord.firstRow, tileRow)), n),
                            b.toI64(column)));
  auto words = VectorType::get(4, b.getI32Type());
  for (int64_t i = 0; i < 16; i += rowsAtOnce) {
    Value within = b.add(laneRow, i);
    Value byte = b.add(b.mul(within, swizzleBytes),
                       b.shiftLeft(b.swizzle128(source, within), 4));
    Value loaded = b.load(words, b.sharedAt(staging, byte), 16);
    b.storeIf(b.both(hasColumn, b.less(b.add(tileRow, i), coord.rows)), loaded,
              b.at(target, type, b.i64(i * n)));
  }
}

void WgmmaKernel::consume(TileScheduler &tiles, Value warpgroupIndex) {
  consumer = b.sub(warpgroupIndex, 1);
  NVVM::SetMaxRegisterOp::create(b, consumerRegisters(isGathered()),
                                 NVVM::SetMaxRegisterAction::increase);
  PipelineState start = consumerStart();
  Value tile = firstTile(), stride = tileStride(), orderPhase = b.i32(1);
  if (pingPong) {
    // The second consumer begins with the block's second tile, behind the
    // stages of the first.
    Value isSecond = b.equal(consumer, 1);
    PipelineState later = advance(start, steps);
    start = {b.select(isSecond, later.stage, start.stage),
             b.select(isSecond, later.phase, start.phase)};
    tile = b.select(isSecond, b.add(tile, stride), tile);
    stride = b.mul(stride, 2);
    // Phase 1 of a new barrier is complete: the first consumer does not wait.
    orderPhase = b.select(isSecond, b.i32(0), b.i32(1));
  }
  b.loop(tile, tiles.tileCount(), stride,
         {start.stage, start.phase, orderPhase},
         [&](Value tile, ValueRange carried) {
           TileCoord coord = tileAt(tiles, tile);
           if (pingPong)
             waitBarrier(orderBarrier(consumer), carried[2]);
           if (fp8) {
             PipelineState next =
                 computeScaledTile(coord, {carried[0], carried[1]});
             return SmallVector<Value>{next.stage, next.phase, carried[2]};
           }
           MainloopResult result =
               mainloop({carried[0], carried[1]}, rowBlocks, columns,
                        [&](ValueRange accumulators, Value stage, bool first) {
                          return multiplyStage(accumulators, stage, first);
                        });
           if (pingPong)
             releaseOrder();
           waitWgmma(0);
           releaseStage(result.lastStage);
           store(coord, result.accumulators);
           PipelineState next =
               pingPong ? advance(result.state, steps) : result.state;
           return SmallVector<Value>{next.stage, next.phase,
                                     b.bitXor(carried[2], 1)};
         });
}

LLVM::LLVMFuncOp WgmmaKernel::build() {
  KernelShape shape;
  shape.threads = (consumers + 1) * warpgroupSize;
  auto kernel =
      create("grouped_matmul_wgmma", shape, orderBytes + stagingBytes(op));
  // The shuffle makes the index uniform over a warp, so that the roles are
  // uniform branches.
  Value warpgroupIndex = b.shuffle(b.shiftRight(thread, 7), b.i32(0));
  b.ifThen(b.equal(thread, 0), [&] {
    initBarriers();
    for (int64_t each = 0; pingPong && each < consumers; ++each)
      NVVM::MBarrierInitOp::create(b, orderBarrier(b.i32(each)),
                                   b.i32(warpgroupSize), Value());
    NVVM::FenceMbarrierInitOp::create(b);
  });
  TileScheduler tiles = createScheduler();
  tiles.prepare(schedulerMemory(), shape.threads);
  b.ifThen(b.equal(thread, 0), [&] { prefetchWeights(tiles, firstTile()); });
  combineWithoutRows(tiles, shape.threads);
  if (blocks > 1)
    syncBlocks(/*aligned=*/true);
  else
    b.barrier();
  b.ifElse(
      b.equal(warpgroupIndex, 0), [&] { produce(tiles); },
      [&] { consume(tiles, warpgroupIndex); });
  // The other block has released all stages of this one.
  if (blocks > 1)
    syncBlocks(/*aligned=*/false);
  return kernel;
}

void mlir::moe::launchWgmmaKernel(const GroupedKernelRequest &request,
                                  Value blocks, DeviceLowering &lowering) {
  WgmmaKernel kernel(request, lowering);
  kernel.launch(kernel.build(), blocks);
}
