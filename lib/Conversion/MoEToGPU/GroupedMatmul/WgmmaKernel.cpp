//===- WgmmaKernel.cpp - Grouped products with wgmma ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Blocks stay for all tiles. The first warpgroup of a block brings operands
// (TMAKernel.h), two others multiply. Cooperative ones share a tile, 64
// rows each; with ping-pong each has every other tile to itself, and they take
// turns: while one multiplies, the other stores what it has.
//
// Operands of f8E4M3FN are summed one stage at a time, and what comes of it
// scaled and added up by the warpgroup itself.
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t multipliers = 2; // warpgroups
// A block of three warpgroups starts with 168 registers a thread. What the
// first keeps of them, and what the others then have: never more than 3 · 168
// together, or they wait for ever.
static constexpr int64_t registersForCopies = 40, registersForGather = 56;
static constexpr int64_t registersOf(bool gathered) {
  return gathered ? 224 : 232;
}
static_assert(registersForCopies + 2 * registersOf(false) <= 3 * 168 &&
              registersForGather + 2 * registersOf(true) <= 3 * 168);

namespace {
class WgmmaKernel : public BulkCopyKernel {
public:
  WgmmaKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : BulkCopyKernel(request, lowering,
                       isPingPong(request.tile) ? 1 : multipliers),
        columns(tile.getColumns()), pingPong(isPingPong(tile)),
        blocksOfRows(tile.getRows() / groupLines /
                     (pingPong ? 1 : multipliers)) {}

  LLVM::LLVMFuncOp build();

private:
  static bool isPingPong(TileAttr tile) {
    return tile.getRoles() == WarpRoles::PingPong;
  }
  /// With ping-pong, what a warpgroup waits for before it multiplies.
  Value orderAt(Value group) {
    return b.sharedAt(extraMemory(), b.shiftLeft(group, 3));
  }

  /// The other warpgroup may multiply. All threads arrive: a turn that ends with
  /// the first one could be followed by another before the last thread has seen
  /// that its own began, which would then wait for a phase that is over.
  void passTurn() { arrive(orderAt(b.bitXor(group, 1))); }

  void bring(TileSchedule &tiles);
  void consume(TileSchedule &tiles, Value number);
  SmallVector<Value> multiply(ValueRange sums, Value stage, bool first);
  SmallVector<Value> scaledRows(const TilePlace &place);
  void multiplyScaled(const TilePlace &place, ValueRange scaledRows,
                      MutableArrayRef<Value> sums, Turn turn, Value step);
  Turn consumeScaled(const TilePlace &place, Turn turn);
  void store(const TilePlace &place, ValueRange sums);

  int64_t columns;
  bool pingPong;
  int64_t blocksOfRows; // of 64, that a warpgroup multiplies
  Value group;          // of the warpgroups that multiply
};
} // namespace

void WgmmaKernel::bring(TileSchedule &tiles) {
  NVVM::SetMaxRegisterOp::create(
      b, gathered() ? registersForGather : registersForCopies,
      NVVM::SetMaxRegisterAction::decrease);
  byProducers([&] {
    forTiles(tiles, firstToFill(), [&](const TilePlace &place, Turn turn) {
      return produce(place, turn);
    });
  });
}

/// sums + the product of what `stage` has, for each 64 rows, or with `first`
/// just the product; the instructions are under way afterwards.
SmallVector<Value> WgmmaKernel::multiply(ValueRange sums, Value stage,
                                         bool first) {
  Value start = stageAddress(stage);
  Value x =
      descriptor(pingPong ? start : b.add(start, b.mul(group, groupBytes)), 16);
  Value y = weightsDescriptor(b.add(start, lhsBytes));
  SmallVector<Value> results(sums);
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < lineBytes / instructionBytes; ++step)
    for (auto [i, sum] : llvm::enumerate(results)) {
      int64_t xStep = (step * instructionBytes + int64_t(i) * groupBytes) >> 4;
      sum = multiplyGroup(sum, b.add(x, xStep), b.add(y, step * weightsStep()),
                          columns, /*xAlongK=*/true, op.getTransposed(),
                          first && step == 0);
    }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return results;
}

/// The rows of lhs that a thread has sums of.
SmallVector<Value> WgmmaKernel::scaledRows(const TilePlace &place) {
  SmallVector<Value> numbers;
  Value warp = b.bitAnd(b.shiftRight(thread, 5), 3);
  Value lowRow = b.add(b.add(b.mul(group, groupLines), b.shiftLeft(warp, 4)),
                       b.shiftRight(b.lane(), 2));
  for (int64_t half = 0; lhsScales && half < 2; ++half) {
    Value row = b.min(b.add(lowRow, half * 8), b.sub(place.rows, 1));
    numbers.push_back(lhsRowNumber(b.add(place.firstRow, row)));
  }
  return numbers;
}

/// sums + the scaled sums of step `step`, whose stage is released as soon as it
/// has been multiplied: the other warpgroup multiplies while this one adds.
void WgmmaKernel::multiplyScaled(const TilePlace &place, ValueRange scaledRows,
                                 MutableArrayRef<Value> sums, Turn turn,
                                 Value step) {
  SmallVector<Value> rowScales;
  for (Value row : scaledRows)
    rowScales.push_back(rowScale(row, step));
  Value first = b.mul(place.column, share);
  SmallVector<Value> columnScales =
      weightScalesOf(place, share / 8, step,
                     [&](int64_t tile) { return b.add(first, tile * 8); });
  waitUntilFull(turn);
  Value block =
      multiply(undefinedSums(columns), turn.stage, /*first=*/true).front();
  waitForGroups(0);
  release(turn.stage);
  for (auto [i, sum] : llvm::enumerate(sums))
    sum = addScaled(sum, LLVM::ExtractValueOp::create(b, block, int64_t(i)),
                    rowScales.empty() ? Value() : rowScales[i % 4 / 2],
                    columnScale(columnScales, i / 4, i % 2));
}

WgmmaKernel::Turn WgmmaKernel::consumeScaled(const TilePlace &place,
                                             Turn turn) {
  SmallVector<Value> rowsOfThread = scaledRows(place);
  SmallVector<Value> inits{turn.stage, turn.parity};
  inits.append(columns / 2, b.f32(0.0));
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(steps), b.i32(1), inits,
             [&](Value step, ValueRange carried) {
               Turn now{carried[0], carried[1]};
               SmallVector<Value> sums(carried.drop_front(2));
               multiplyScaled(place, rowsOfThread, sums, now, step);
               Turn after = next(now);
               SmallVector<Value> state{after.stage, after.parity};
               llvm::append_range(state, sums);
               return state;
             });
  Value sums = undefinedSums(columns);
  for (int64_t i = 0; i < columns / 2; ++i)
    sums = LLVM::InsertValueOp::create(b, sums, end[i + 2], i);
  store(place, sums);
  return {end[0], end[1]};
}

void WgmmaKernel::store(const TilePlace &place, ValueRange sums) {
  Value warp = b.bitAnd(b.shiftRight(thread, 5), 3);
  Value firstRow = b.shiftLeft(warp, 4);
  if (!pingPong)
    firstRow = b.add(firstRow, b.mul(group, groupLines));
  for (auto [i, sum] : llvm::enumerate(sums))
    storePieces(place, b.add(firstRow, int64_t(i) * groupLines),
                b.mul(place.column, share), columns / 8,
                [&, sum = sum](int64_t number) -> Value {
                  return LLVM::ExtractValueOp::create(b, sum, number);
                });
}

void WgmmaKernel::consume(TileSchedule &tiles, Value number) {
  group = b.sub(number, 1);
  NVVM::SetMaxRegisterOp::create(b, registersOf(gathered()),
                                 NVVM::SetMaxRegisterAction::increase);
  Turn start = firstToRead();
  Value tile = b.block(), blocks = b.numBlocks(), order = b.i32(1);
  if (pingPong) {
    // The second begins with the second tile, behind the stages of the first.
    Value second = b.equal(group, 1);
    Turn later = skip(start, steps);
    start = {b.select(second, later.stage, start.stage),
             b.select(second, later.parity, start.parity)};
    tile = b.select(second, b.add(tile, blocks), tile);
    blocks = b.mul(blocks, 2);
    // Nobody stands before the first one.
    order = b.select(second, b.i32(0), b.i32(1));
  }
  b.loop(tile, tiles.total(), blocks, {start.stage, start.parity, order},
         [&](Value number, ValueRange outer) {
           TilePlace place = tiles.find(number);
           if (pingPong)
             waitFor(orderAt(group), outer[2]);
           if (narrow) {
             Turn after = consumeScaled(place, {outer[0], outer[1]});
             return SmallVector<Value>{after.stage, after.parity, outer[2]};
           }
           Steps all =
               multiplySteps({outer[0], outer[1]}, blocksOfRows, columns,
                             [&](ValueRange sums, Value stage, bool first) {
                               return multiply(sums, stage, first);
                             });
           if (pingPong)
             passTurn();
           waitForGroups(0);
           release(all.last);
           store(place, all.sums);
           Turn after = pingPong ? skip(all.after, steps) : all.after;
           return SmallVector<Value>{after.stage, after.parity,
                                     b.bitXor(outer[2], 1)};
         });
}

LLVM::LLVMFuncOp WgmmaKernel::build() {
  KernelShape shape;
  shape.threads = (multipliers + 1) * warpgroup;
  auto kernel = create("grouped_matmul_wgmma", shape, multipliers * 8);
  // The same register in all threads of a warp, so that the roles are branches
  // that warps take as one.
  Value number = b.shuffle(b.shiftRight(thread, 7), b.i32(0));
  b.ifThen(b.equal(thread, 0), [&] {
    initializeStages();
    for (int64_t each = 0; pingPong && each < multipliers; ++each)
      NVVM::MBarrierInitOp::create(b, orderAt(b.i32(each)), b.i32(warpgroup),
                                   Value());
    NVVM::FenceMbarrierInitOp::create(b);
  });
  TileSchedule tiles = schedule();
  tiles.prepare(scheduleMemory());
  b.barrier();
  b.ifElse(
      b.equal(number, 0), [&] { bring(tiles); },
      [&] { consume(tiles, number); });
  return kernel;
}

LLVM::LLVMFuncOp
mlir::moe::buildWgmmaKernel(const GroupedKernelRequest &request,
                            DeviceLowering &lowering) {
  return WgmmaKernel(request, lowering).build();
}
