//===- SwapABKernel.cpp - Grouped matmul of few rows on wgmma -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// wgmma has M = 64 but N from 8 on. With few rows per expert the kernel swaps A
// and B: weights are the A operand and rows the B operand, so little of the
// tensor core work is padding and the time is that of reading the weights. One
// producer warpgroup (TMAKernel.h) feeds one consumer warpgroup, which computes
// 64 columns of the result at a time; with two GEMMs, 64 columns of each.
//
// If there are fewer tiles than multiprocessors, a cluster of blocks splits k
// (split-K within a cluster). The blocks exchange partial accumulators through
// distributed shared memory; each reduces the columns of some warps, in the
// order of k.
//
// FP8 weights with 16-bit rows stay FP8 in memory and shared memory: the
// consumers convert them exactly to the type of the rows, in registers, from
// which wgmma takes A. A stage is 128 elements along k, of rows two blocks of
// 64; its partial accumulators are scaled and added to the f32 accumulators.
//
//===----------------------------------------------------------------------===//

#include "TMAKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t consumerWarps = 4;

namespace {
class SwapABKernel : public TMAKernel {
public:
  SwapABKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : TMAKernel(
            request, lowering,
            /*emptyArrivals=*/hasFP8Weights(request.op) ? consumerWarps : 1),
        rowCount(tile.getRows()), columnBlocks(tile.getColumns() / wgmmaM),
        split(tile.getSplit()) {}

  LLVM::LLVMFuncOp build();

private:
  /// The accumulators of a tile, one column block after the other.
  struct TileResult {
    PipelineState state;
    SmallVector<Value> accumulators;
  };
  /// Computes a tile from stage `firstStep` along k on (null: 0).
  TileResult computeTile(const TileCoord &coord, PipelineState start,
                         Value firstStep = Value());
  TileResult computeScaledTile(const TileCoord &coord, PipelineState start,
                               Value firstStep);
  SmallVector<Value> loadColumnScales(const TileCoord &coord, Value step);
  SmallVector<Value> decodeWeights(Value start, int64_t block, int64_t step);
  SmallVector<Value> multiplyDecodedStage(Value stage);
  void releaseDecodedStage(Value stage);
  SmallVector<Value> multiplyStage(ValueRange accumulators, Value stage,
                                   bool first);
  void persistentTiles(TileScheduler &tiles, Value isProducer);
  void splitKTile(TileScheduler &tiles, Value isProducer);
  SmallVector<Value> reducePartials(Value slot);
  int64_t partialBytes() {
    return split > 1 ? rowCount * tile.getColumns() * 4 : 0;
  }
  Value partialIndex(Value rank, int64_t element, Value slot);
  void store(TileScheduler &tiles, const TileCoord &coord,
             ArrayRef<Value> accumulators);
  Value warp() { return b.bitAnd(b.shiftRight(thread, 5), consumerWarps - 1); }

  /// Returns the number of accumulators of a thread.
  int64_t threadElements() { return columnBlocks * rowCount / 2; }
  /// Returns the number of threads whose accumulators a block reduces.
  int64_t slots() { return consumerWarps / split * GPUBuilder::warpSize; }

  int64_t rowCount;
  int64_t columnBlocks; // of 64 columns
  int64_t split;
};
} // namespace

//===----------------------------------------------------------------------===//
// Mainloop
//===----------------------------------------------------------------------===//

/// Issues the wgmmas of a stage, for each 64 columns, and commits them as a
/// group.
SmallVector<Value> SwapABKernel::multiplyStage(ValueRange accumulators,
                                               Value stage, bool first) {
  Value start = stageAddress(stage);
  Value rows = descriptor(start, 16);
  Value weights = weightsDescriptor(b.add(start, lhsBytes));
  SmallVector<Value> results(accumulators);
  NVVM::WgmmaFenceAlignedOp::create(b);
  for (int64_t step = 0; step < swizzleBytes / wgmmaKBytes; ++step)
    for (auto [i, accumulator] : llvm::enumerate(results)) {
      int64_t offset =
          step * weightsDescriptorStep() + (int64_t(i) * wgmmaMBytes >> 4);
      accumulator =
          wgmma(accumulator, b.add(weights, offset),
                b.add(rows, step * wgmmaKBytes >> 4), rowCount,
                op.getTransposed(), /*rhsKMajor=*/true, first && step == 0);
    }
  NVVM::WgmmaGroupSyncAlignedOp::create(b);
  return results;
}

SwapABKernel::TileResult SwapABKernel::computeTile(const TileCoord &coord,
                                                   PipelineState start,
                                                   Value firstStep) {
  if (fp8)
    return computeScaledTile(coord, start, firstStep);
  MainloopResult result =
      mainloop(start, columnBlocks, rowCount,
               [&](ValueRange accumulators, Value stage, bool first) {
                 return multiplyStage(accumulators, stage, first);
               });
  waitWgmma(0);
  releaseStage(result.lastStage);
  SmallVector<Value> elements;
  for (Value accumulator : result.accumulators)
    for (int64_t i = 0; i < rowCount / 2; ++i)
      elements.push_back(LLVM::ExtractValueOp::create(b, accumulator, i));
  return {result.state, elements};
}

//===----------------------------------------------------------------------===//
// Mainloop of FP8 weights
//===----------------------------------------------------------------------===//

/// Loads the scales of this thread's accumulators for stage `step`: of each
/// column block those of its columns, and of those eight on. A block of scales
/// covers eight columns of the result at least.
SmallVector<Value> SwapABKernel::loadColumnScales(const TileCoord &coord,
                                                  Value step) {
  // Columns of the result in a column block, and in a warp.
  int64_t blockColumns = layout.interleaved ? wgmmaM / matmuls : wgmmaM;
  int64_t warpColumns = blockColumns / consumerWarps;
  int64_t groups = 2 * outTileColumns / blockColumns;
  Value first = b.add(b.mul(coord.columnTile, outTileColumns),
                      b.mul(warp(), warpColumns));
  SmallVector<Value> loaded =
      loadWeightScales(coord, groups, step, [&](int64_t group) {
        return b.add(first,
                     group / 2 * blockColumns + group % 2 * warpColumns / 2);
      });
  SmallVector<Value> scales;
  if (loaded.empty())
    return SmallVector<Value>(2 * columnBlocks);
  for (int64_t block = 0; block < columnBlocks; ++block)
    for (int64_t half = 0; half < 2; ++half) {
      if (!layout.interleaved) {
        scales.push_back(
            loaded[block % matmuls * groups + block / matmuls * 2 + half]);
        continue;
      }
      Value isEven = b.equal(b.bitAnd(b.lane(), 4), 0);
      int64_t group = block * 2 + half;
      scales.push_back(
          b.select(isEven, loaded[layout.firstProduct * groups + group],
                   loaded[(1 - layout.firstProduct) * groups + group]));
    }
  return scales;
}

/// Converts two f8E4M3FN elements (i16) exactly to a pair of f16 or bf16 (i32).
static Value convertFP8(GPUBuilder &b, Value two, Type type) {
  Value halves =
      LLVM::InlineAsmOp::create(
          b, b.getI32Type(), two, "cvt.rn.f16x2.e4m3x2 $0, $1;", "=r,h",
          /*has_side_effects=*/false,
          /*is_align_stack=*/false, LLVM::TailCallKind::None,
          LLVM::AsmDialectAttr::get(b.getContext(), LLVM::AsmDialect::AD_ATT),
          /*operand_attrs=*/ArrayAttr())
          .getRes();
  if (type.isF16())
    return halves;
  Value pair =
      LLVM::BitcastOp::create(b, VectorType::get(2, b.getF16Type()), halves);
  return LLVM::BitcastOp::create(b, b.getI32Type(),
                                 b.toFloat(pair, VectorType::get(2, type)));
}

/// Returns the registers of A of 64 columns and 16 elements along k, converted
/// from the weights at `start` (i32) in the shared memory: a thread has two
/// adjacent elements and those eight on, of two columns eight apart.
SmallVector<Value> SwapABKernel::decodeWeights(Value start, int64_t block,
                                               int64_t step) {
  Value lane = b.lane(), laneColumn = b.shiftRight(lane, 2);
  Value column = b.add(b.shiftLeft(warp(), 4), laneColumn);
  Value chunk = b.swizzle128(b.i32(step), laneColumn);
  Value byte = b.add(b.add(b.mul(column, swizzleBytes), b.shiftLeft(chunk, 4)),
                     b.shiftLeft(b.bitAnd(lane, 3), 1));
  SmallVector<Value> registers;
  for (int64_t k = 0; k < 16; k += 8)
    for (int64_t half = 0; half < 2; ++half) {
      int64_t offset = block * wgmmaMBytes + half * 8 * swizzleBytes + k;
      Value two =
          b.load(b.getI16Type(),
                 b.sharedAt(memory, b.add(b.add(start, byte), offset)), 2);
      // Before the wgmma.fence, not where the wgmma needs it.
      registers.push_back(b.opaque(convertFP8(b, two, element)));
    }
  return registers;
}

/// Issues the wgmmas of a stage in groups along k of 64 columns; while one
/// group multiplies the next is decoded. Waits for all.
SmallVector<Value> SwapABKernel::multiplyDecodedStage(Value stage) {
  constexpr int64_t blockSteps = swizzleBytes / wgmmaKBytes;
  // Registers of two groups are in use at most; accumulators of 32 rows leave
  // few.
  int64_t groupSteps = rowCount < 32 ? 4 : 2;
  Value rows = descriptor(stageAddress(stage), 16);
  Value weights = b.add(b.mul(stage, stageBytes), lhsBytes);
  SmallVector<Value> results(columnBlocks, undefinedAccumulators(rowCount));
  int64_t groups = 0;
  for (auto [block, accumulator] : llvm::enumerate(results))
    for (int64_t first = 0; first < lhsBlocks * blockSteps;
         first += groupSteps) {
      if (groups++ > 1)
        waitWgmma(1);
      SmallVector<SmallVector<Value>> decoded;
      for (int64_t step = first; step < first + groupSteps; ++step)
        decoded.push_back(decodeWeights(weights, block, step));
      NVVM::WgmmaFenceAlignedOp::create(b);
      for (int64_t step = first; step < first + groupSteps; ++step) {
        int64_t byte =
            step / blockSteps * lhsBlockBytes + step % blockSteps * wgmmaKBytes;
        accumulator =
            wgmmaOfRegisters(accumulator, decoded[step - first],
                             b.add(rows, byte >> 4), rowCount, step == 0);
      }
      NVVM::WgmmaGroupSyncAlignedOp::create(b);
    }
  waitWgmma(0);
  return results;
}

/// Each warp has read weights of the stage.
void SwapABKernel::releaseDecodedStage(Value stage) {
  NVVM::SyncWarpOp::create(b, b.i32(-1));
  b.ifThen(b.equal(b.lane(), 0), [&] { arrive(emptyBarrier(stage)); });
}

SwapABKernel::TileResult SwapABKernel::computeScaledTile(const TileCoord &coord,
                                                         PipelineState start,
                                                         Value firstStep) {
  SmallVector<Value> inits{start.stage, start.phase};
  inits.append(threadElements(), b.f32(0.0));
  SmallVector<Value> end = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), inits,
      [&](Value step, ValueRange carried) {
        PipelineState now{carried[0], carried[1]};
        // The loads of scales overlap with the wait for the stage.
        SmallVector<Value> scales =
            loadColumnScales(coord, firstStep ? b.add(step, firstStep) : step);
        waitFull(now);
        SmallVector<Value> partials = multiplyDecodedStage(now.stage);
        releaseDecodedStage(now.stage);
        PipelineState next = advance(now);
        SmallVector<Value> results{next.stage, next.phase};
        for (int64_t i = 0; i < threadElements(); ++i) {
          int64_t block = i / (rowCount / 2), element = i % (rowCount / 2);
          Value partial =
              LLVM::ExtractValueOp::create(b, partials[block], element);
          results.push_back(
              accumulateScaled(carried[2 + i], partial, Value(),
                               scales[block * 2 + element % 4 / 2]));
        }
        return results;
      });
  return {{end[0], end[1]}, SmallVector<Value>(llvm::drop_begin(end, 2))};
}

//===----------------------------------------------------------------------===//
// Epilogue
//===----------------------------------------------------------------------===//

/// The accumulators are transposed: of each column block a thread has two
/// columns, eight apart, and two of every eight rows. The thread four lanes on
/// has the same rows of the next columns. The two exchange a row, so that each
/// stores two adjacent columns of one row. With interleaved weights two columns
/// of weights are one column of the result, and threads eight lanes apart
/// exchange the column halves, too.
void SwapABKernel::store(TileScheduler &tiles, const TileCoord &coord,
                         ArrayRef<Value> accumulators) {
  Value lane = b.lane(), laneColumn = b.shiftRight(lane, 2);
  Value row = b.add(b.shiftLeft(b.bitAnd(lane, 3), 1), b.bitAnd(laneColumn, 1));
  Value column = b.mul(coord.columnTile, outTileColumns);
  auto exchangeRows = [&](int64_t rowBlock, int64_t columnBlock, int64_t half) {
    const Value *pair =
        &accumulators[columnBlock * rowCount / 2 + rowBlock * 4 + half * 2];
    return b.transposeLanes(pair[0], pair[1], 4);
  };
  auto storeInRow = [&](int64_t rowBlock, int64_t offset,
                        ArrayRef<Value> pair) {
    storePair(coord, b.add(row, rowBlock * 8), column, offset, pair);
  };
  if (layout.interleaved) {
    column =
        b.add(column, b.add(b.shiftLeft(warp(), 3),
                            b.bitOr(b.shiftRight(b.bitAnd(laneColumn, 4), 1),
                                    b.shiftLeft(b.bitAnd(laneColumn, 2), 1))));
    for (int64_t rowBlock = 0; rowBlock < rowCount / 8; ++rowBlock)
      for (int64_t block = 0; block < columnBlocks; ++block) {
        auto [evenLow, oddLow] = exchangeRows(rowBlock, block, 0);
        auto [evenHigh, oddHigh] = exchangeRows(rowBlock, block, 1);
        auto [evenFirst, evenSecond] = b.transposeLanes(evenLow, evenHigh, 8);
        auto [oddFirst, oddSecond] = b.transposeLanes(oddLow, oddHigh, 8);
        storeInRow(
            rowBlock, block * wgmmaM / 2,
            interleavedPair({evenFirst, oddFirst}, {evenSecond, oddSecond}));
      }
    return;
  }
  Value warpColumn = b.add(column, b.shiftLeft(warp(), 4));
  column = b.add(warpColumn, b.bitAnd(laneColumn, 6));
  for (int64_t rowBlock = 0; rowBlock < rowCount / 8; ++rowBlock)
    for (int64_t half = 0; half < 2; ++half)
      // With two GEMMs, two adjacent blocks are the same columns of the result.
      for (int64_t block = 0; block < columnBlocks; block += matmuls) {
        SmallVector<Value> pair(2 * matmuls);
        for (int64_t p = 0; p < matmuls; ++p)
          std::tie(pair[p], pair[matmuls + p]) =
              exchangeRows(rowBlock, block + p, half);
        storeInRow(rowBlock, block / matmuls * wgmmaM + half * 8, pair);
      }
  arriveForCombine(tiles, coord, warp(), consumerWarps,
                   {warpColumn, wgmmaM / consumerWarps, columnBlocks / matmuls,
                    wgmmaM,
                    /*writers=*/1});
  arriveRows(coord, rowCount, /*writers=*/consumerWarps,
             [](Value index) { return index; });
}

//===----------------------------------------------------------------------===//
// Persistent tiles, and split-K in a cluster
//===----------------------------------------------------------------------===//

void SwapABKernel::persistentTiles(TileScheduler &tiles, Value isProducer) {
  b.ifElse(
      isProducer,
      [&] {
        producerLoop([&] {
          forEachTile(tiles, producerStart(),
                      [&](const TileCoord &coord, PipelineState state) {
                        return loadTile(coord, state);
                      });
        });
      },
      [&] {
        forEachTile(tiles, consumerStart(),
                    [&](const TileCoord &coord, PipelineState state) {
                      TileResult result = computeTile(coord, state);
                      store(tiles, coord, result.accumulators);
                      return result.state;
                    });
      });
}

/// Returns where block `rank` of the cluster leaves an element of a thread, in
/// the block that reduces it: elements of a warp are adjacent.
Value SwapABKernel::partialIndex(Value rank, int64_t element, Value slot) {
  return b.add(b.mul(b.add(b.mul(rank, threadElements()), element), slots()),
               slot);
}

/// Adds up the partial accumulators of all blocks, in the order of k.
SmallVector<Value> SwapABKernel::reducePartials(Value slot) {
  SmallVector<Value> accumulators;
  for (int64_t i = 0; i < threadElements(); ++i) {
    Value sum;
    for (int64_t rank = 0; rank < split; ++rank) {
      Value partial = b.loadAt(b.getF32Type(), extraMemory(),
                               partialIndex(b.i32(rank), i, slot));
      sum = sum ? arith::AddFOp::create(b, sum, partial).getResult() : partial;
    }
    accumulators.push_back(sum);
  }
  return accumulators;
}

/// There are as many clusters as tiles, so a block computes one tile at most.
void SwapABKernel::splitKTile(TileScheduler &tiles, Value isProducer) {
  Value rank = NVVM::ClusterId::create(b, b.getI32Type());
  Value tile = b.div(b.block(), split);
  Value owner = b.div(warp(), consumerWarps / split);
  Value slot = b.bitAnd(thread, slots() - 1);
  // Producer threads need not have reconverged, so the barriers are not
  // aligned.
  auto syncCluster = [&] {
    b.arriveCluster(/*aligned=*/false);
    b.waitCluster(/*aligned=*/false);
  };
  // A block must have started before others write to its shared memory.
  syncCluster();
  b.ifThen(b.less(tile, tiles.tileCount()), [&] {
    TileCoord coord = tiles.tileAt(tile);
    Value firstStep = b.mul(rank, steps);
    b.ifElse(
        isProducer,
        [&] {
          producerLoop([&] { loadTile(coord, producerStart(), firstStep); });
        },
        [&] {
          TileResult result = computeTile(coord, consumerStart(), firstStep);
          Value target = b.mapToBlock(extraMemory(), owner);
          for (auto [i, accumulator] : llvm::enumerate(result.accumulators))
            b.storeAt(accumulator, target, partialIndex(rank, i, slot));
        });
    syncCluster();
    Value isOwner = b.both(b.logicalNot(isProducer), b.equal(owner, rank));
    b.ifThen(isOwner, [&] { store(tiles, coord, reducePartials(slot)); });
  });
}

LLVM::LLVMFuncOp SwapABKernel::build() {
  KernelShape shape;
  shape.threads = 2 * warpgroupSize;
  shape.cluster = split;
  shape.resident = 2;
  auto kernel = create("grouped_matmul_swapped", shape, partialBytes());
  Value isProducer = b.equal(b.shuffle(b.shiftRight(thread, 7), b.i32(0)), 0);
  b.ifThen(b.equal(thread, 0), [&] {
    initBarriers();
    NVVM::FenceMbarrierInitOp::create(b);
  });
  TileScheduler tiles = createScheduler();
  tiles.prepare(schedulerMemory(), shape.threads);
  b.ifThen(b.equal(thread, 0), [&] {
    if (split > 1)
      prefetchWeights(tiles, b.div(b.block(), split),
                      b.mul(NVVM::ClusterId::create(b, b.getI32Type()), steps));
    else
      prefetchWeights(tiles, b.block());
  });
  combineWithoutRows(tiles, shape.threads);
  b.barrier();
  if (split > 1)
    splitKTile(tiles, isProducer);
  else
    persistentTiles(tiles, isProducer);
  return kernel;
}

void mlir::moe::launchSwapABKernel(const GroupedKernelRequest &request,
                                   Value blocks, DeviceLowering &lowering) {
  SwapABKernel kernel(request, lowering);
  kernel.launch(kernel.build(), blocks);
}
