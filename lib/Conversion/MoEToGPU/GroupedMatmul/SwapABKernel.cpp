//===- SwapABKernel.cpp - Grouped products of few rows with wgmma ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The first operand of wgmma has 64 lines, the second 8 or more: with few rows
// for an expert, weights are the first and rows the second, so that what is
// multiplied is what is there, and the time is that of reading the weights. One
// warpgroup brings operands (TMAKernel.h), another multiplies: for 64
// columns of the result at a time, with two products 64 columns of each.
//
// Where there are too few tiles for the multiprocessors, a cluster of blocks
// shares one, each a part of the sum along k. They give each other their sums
// through shared memory, each has the columns of some warps, and adds up in the
// order of k.
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t warps = 4; // that multiply

namespace {
class SwappedKernel : public BulkCopyKernel {
public:
  SwappedKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : BulkCopyKernel(request, lowering, /*releases=*/1),
        rowCount(tile.getRows()), groups(tile.getColumns() / groupLines),
        split(tile.getSplit()) {}

  LLVM::LLVMFuncOp build();

private:
  /// Turns and sums, those of one group of columns after the other.
  struct Product {
    Turn after;
    SmallVector<Value> sums;
  };
  Product multiplyTile(Turn start);
  SmallVector<Value> multiply(ValueRange sums, Value stage, bool first);
  SmallVector<Value> elementsOf(ValueRange sums);
  void shareTiles(TileSchedule &tiles, Value isProducer);
  void ownTiles(TileSchedule &tiles, Value isProducer);
  int64_t partialBytes() {
    return split > 1 ? rowCount * tile.getColumns() * 4 : 0;
  }
  void store(TileSchedule &tiles, const TilePlace &place, ArrayRef<Value> sums);
  Value warp() { return b.bitAnd(b.shiftRight(thread, 5), warps - 1); }

  int64_t rowCount;
  int64_t groups; // of 64 columns
  int64_t split;
};
} // namespace

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

/// sums + what `stage` has, or with `first` just that; the instructions are
/// under way afterwards.
SmallVector<Value> SwappedKernel::multiply(ValueRange sums, Value stage,
                                           bool first) {
  Value start = stageAddress(stage);
  Value rows = descriptor(start, 16);
  Value weights = weightsDescriptor(b.add(start, lhsBytes));
  SmallVector<Value> results(sums);
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < lineBytes / instructionBytes; ++step)
    for (auto [i, sum] : llvm::enumerate(results)) {
      int64_t offset = step * weightsStep() + (int64_t(i) * groupBytes >> 4);
      sum = multiplyGroup(sum, b.add(weights, offset),
                          b.add(rows, step * instructionBytes >> 4), rowCount,
                          op.getTransposed(), /*yAlongK=*/true,
                          first && step == 0);
    }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return results;
}

SwappedKernel::Product SwappedKernel::multiplyTile(Turn start) {
  Steps all = multiplySteps(start, groups, rowCount,
                            [&](ValueRange sums, Value stage, bool first) {
                              return multiply(sums, stage, first);
                            });
  waitForGroups(0);
  release(all.last);
  return {all.after, elementsOf(all.sums)};
}

SmallVector<Value> SwappedKernel::elementsOf(ValueRange sums) {
  SmallVector<Value> elements;
  for (Value sum : sums)
    for (int64_t i = 0; i < rowCount / 2; ++i)
      elements.push_back(LLVM::ExtractValueOp::create(b, sum, i));
  return elements;
}

/// A thread has two lines of weights, eight apart, of each group, and two rows
/// of eight: so has the one four lanes on, of the next lines. Each gives the
/// other a row, and stores two columns of the one that it keeps. If both lines
/// are one column of interleaved products, it does the same with the thread
/// eight lanes on and the lines eight apart.
void SwappedKernel::store(TileSchedule &tiles, const TilePlace &place,
                          ArrayRef<Value> sums) {
  Value lane = b.lane(), line = b.shiftRight(lane, 2);
  Value row = b.add(b.shiftLeft(b.bitAnd(lane, 3), 1), b.bitAnd(line, 1));
  Value column = b.mul(place.column, share);
  auto ofRow = [&](int64_t rows, int64_t group, int64_t half) {
    const Value *two = &sums[group * rowCount / 2 + rows * 4 + half * 2];
    return b.transposeLanes(two[0], two[1], 4);
  };
  auto storeIn = [&](int64_t rows, Value column, ArrayRef<Value> pair) {
    Value own = b.add(row, rows * 8);
    b.ifThen(b.less(own, place.rows), [&] {
      storePair(place, b.add(place.firstRow, own), column, pair);
    });
  };
  if (layout.interleaved) {
    column = b.add(column, b.add(b.shiftLeft(warp(), 3),
                                 b.bitOr(b.shiftRight(b.bitAnd(line, 4), 1),
                                         b.shiftLeft(b.bitAnd(line, 2), 1))));
    for (int64_t rows = 0; rows < rowCount / 8; ++rows)
      for (int64_t group = 0; group < groups; ++group) {
        auto [evenLow, oddLow] = ofRow(rows, group, 0);
        auto [evenHigh, oddHigh] = ofRow(rows, group, 1);
        auto [evenFirst, evenSecond] = b.transposeLanes(evenLow, evenHigh, 8);
        auto [oddFirst, oddSecond] = b.transposeLanes(oddLow, oddHigh, 8);
        storeIn(
            rows, b.add(column, group * groupLines / 2),
            interleavedPair({evenFirst, oddFirst}, {evenSecond, oddSecond}));
      }
    return;
  }
  Value ofWarp = b.add(column, b.shiftLeft(warp(), 4));
  column = b.add(ofWarp, b.bitAnd(line, 6));
  for (int64_t rows = 0; rows < rowCount / 8; ++rows)
    for (int64_t half = 0; half < 2; ++half)
      // With two products both groups are of the same columns.
      for (int64_t group = 0; group < groups; group += products) {
        SmallVector<Value> pair(2 * products);
        for (int64_t p = 0; p < products; ++p)
          std::tie(pair[p], pair[products + p]) = ofRow(rows, group + p, half);
        storeIn(rows, b.add(column, group / products * groupLines + half * 8),
                pair);
      }
  arriveAtSum(tiles, place, warp(), warps,
              {ofWarp, groupLines / warps, groups / products, groupLines});
}

//===----------------------------------------------------------------------===//
// Tiles of one block, and of a cluster
//===----------------------------------------------------------------------===//

void SwappedKernel::ownTiles(TileSchedule &tiles, Value isProducer) {
  b.ifElse(
      isProducer,
      [&] {
        byProducers([&] {
          forTiles(tiles, firstToFill(),
                   [&](const TilePlace &place, Turn turn) {
                     return produce(place, turn);
                   });
        });
      },
      [&] {
        forTiles(tiles, firstToRead(), [&](const TilePlace &place, Turn turn) {
          Product product = multiplyTile(turn);
          store(tiles, place, product.sums);
          return product.after;
        });
      });
}

/// Where block `rank` of a cluster leaves what its thread has, in the block
/// that has the columns of the thread's warp: numbers of a warp lie together.
static Value partialIndex(GPUBuilder &b, Value rank, int64_t elements,
                          int64_t element, Value slot, int64_t slots) {
  return b.add(b.mul(b.add(b.mul(rank, elements), element), slots), slot);
}

/// A block has one tile at most: there are as many clusters as tiles.
void SwappedKernel::shareTiles(TileSchedule &tiles, Value isProducer) {
  Value rank = NVVM::ClusterId::create(b, b.getI32Type());
  Value number = b.div(b.block(), split);
  int64_t warpsOfBlock = warps / split;
  int64_t slots = warpsOfBlock * GPUBuilder::warpSize;
  int64_t elements = groups * rowCount / 2;
  Value owner = b.div(warp(), warpsOfBlock);
  Value slot = b.bitAnd(thread, slots - 1);
  auto sync = [&] {
    NVVM::ClusterArriveOp::create(b, UnitAttr());
    NVVM::ClusterWaitOp::create(b, UnitAttr());
  };
  // Nobody writes to a block that has not begun.
  sync();
  b.ifThen(b.less(number, tiles.total()), [&] {
    TilePlace place = tiles.find(number);
    Value firstStep = b.mul(rank, steps);
    b.ifElse(
        isProducer,
        [&] { byProducers([&] { produce(place, firstToFill(), firstStep); }); },
        [&] {
          Product product = multiplyTile(firstToRead());
          auto cluster = LLVM::LLVMPointerType::get(
              b.getContext(), unsigned(NVVM::NVVMMemorySpace::SharedCluster));
          Value there = NVVM::MapaOp::create(b, cluster, extraMemory(), owner);
          for (auto [i, sum] : llvm::enumerate(product.sums))
            b.storeAt(sum, there,
                      partialIndex(b, rank, elements, i, slot, slots));
        });
    sync();
    Value mine = b.both(b.logicalNot(isProducer), b.equal(owner, rank));
    b.ifThen(mine, [&] {
      SmallVector<Value> sums;
      for (int64_t i = 0; i < elements; ++i) {
        Value sum;
        for (int64_t part = 0; part < split; ++part) {
          Value next =
              b.loadAt(b.getF32Type(), extraMemory(),
                       partialIndex(b, b.i32(part), elements, i, slot, slots));
          sum = sum ? arith::AddFOp::create(b, sum, next).getResult() : next;
        }
        sums.push_back(sum);
      }
      store(tiles, place, sums);
    });
  });
}

LLVM::LLVMFuncOp SwappedKernel::build() {
  KernelShape shape;
  shape.threads = 2 * warpgroup;
  shape.cluster = split;
  auto kernel = create("grouped_matmul_swapped", shape, partialBytes());
  Value isProducer = b.equal(b.shuffle(b.shiftRight(thread, 7), b.i32(0)), 0);
  b.ifThen(b.equal(thread, 0), [&] {
    initializeStages();
    NVVM::FenceMbarrierInitOp::create(b);
  });
  TileSchedule tiles = schedule();
  tiles.prepare(scheduleMemory());
  sumWithoutTiles(tiles, shape.threads);
  b.barrier();
  if (split > 1)
    shareTiles(tiles, isProducer);
  else
    ownTiles(tiles, isProducer);
  return kernel;
}

LLVM::LLVMFuncOp
mlir::moe::buildSwappedKernel(const GroupedKernelRequest &request,
                              DeviceLowering &lowering) {
  return SwappedKernel(request, lowering).build();
}
