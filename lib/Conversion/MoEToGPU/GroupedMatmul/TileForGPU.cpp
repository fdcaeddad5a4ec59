//===- TileForGPU.cpp - Choose the tiles of grouped matmuls ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TileScheduler.h"
#include "moe/Analysis/KernelModel.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOETILEFORGPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// Returns the bytes of shared memory for stages, with `blocks` blocks resident
/// on a multiprocessor.
static int64_t pipelineBytes(GroupedMatmulOp op, const GPUDescription &gpu,
                             int64_t blocks = 1) {
  // The system reserves 1 KiB per block.
  constexpr int64_t barriers = 256, reserved = 1024;
  int64_t blockBytes = gpu.getSharedBytes() / blocks - (blocks > 1) * reserved;
  return blockBytes - barriers -
         TileScheduler::sharedBytes(op.getExpertCount());
}

/// Returns a tile with as many stages as fit, at most `maxStages`.
static TileAttr tileOf(GroupedMatmulOp op, const GPUDescription &gpu,
                       MatrixUnit unit, int64_t rows, int64_t columns,
                       int64_t maxStages,
                       WarpRoles roles = WarpRoles::Cooperative,
                       GatherFence fence = GatherFence::Producer) {
  int64_t staging = unit == MatrixUnit::Wgmma ? stagingBytes(op) : 0;
  int64_t stages =
      std::min<int64_t>(maxStages, (pipelineBytes(op, gpu) - staging) /
                                       stageBytes(op, rows, columns));
  return TileAttr::get(op.getContext(), unit, rows, columns, stageDepth(op),
                       stages, roles, /*swapAB=*/false, /*split=*/1, fence);
}

/// Returns a swap-AB tile, of which two blocks fit on a multiprocessor; a
/// cluster of `split` blocks splits k.
static TileAttr swapABTileOf(GroupedMatmulOp op, const GPUDescription &gpu,
                             int64_t rows, int64_t split, GatherFence fence) {
  constexpr int64_t columns = 128, maxStages = 6;
  int64_t partialBytes = split > 1 ? rows * columns * 4 : 0;
  int64_t stages =
      std::min<int64_t>(maxStages, (pipelineBytes(op, gpu, 2) - partialBytes) /
                                       stageBytes(op, rows, columns));
  return TileAttr::get(op.getContext(), MatrixUnit::Wgmma, rows, columns,
                       stageDepth(op), stages, WarpRoles::Cooperative,
                       /*swapAB=*/true, split, fence);
}

namespace {
/// A tile for many rows of each expert, and what the blocks of a cluster share.
struct ManyRowsTile {
  TileAttr tile;
  Multicast multicast;
};
} // namespace

/// Returns the seconds that a tile should take for many rows of each expert.
static double secondsOfManyRows(GroupedMatmulOp op, ManyRowsTile chosen,
                                const GPUDescription &gpu) {
  // So many that the last wave of tiles does not matter.
  constexpr double leastRowsOfExpert = 2048, leastRows = 1 << 18;
  double experts = double(op.getExpertCount());
  double rowsOfExpert = std::max(leastRowsOfExpert, leastRows / experts);
  // On average half of an expert's last tile is empty, or of its last two.
  double padded =
      rowsOfExpert + double(scheduledRows(chosen.tile, chosen.multicast)) / 2;
  RowCounts rows{rowsOfExpert * experts, experts, padded * experts};
  std::optional<GPUMachine> machine = findGPU(gpu.arch);
  GroupedMatmulWork work = GroupedMatmulWork::of(op, chosen.tile);
  work.multicast = chosen.multicast;
  // moe-fuse-combine will fuse them.
  for (Operation *user : op.getResult().getUsers())
    if (auto sum = dyn_cast<GatherSumOp>(user))
      work.combined = sum.getTopK();
  return work.predict(*machine, rows).seconds;
}

/// Returns the operands that clusters of a tile may share: what the operation
/// says, or any; none if there is no kernel of the tile that does.
static SmallVector<Multicast, 3> multicastsOf(GroupedMatmulOp op,
                                              TileAttr tile) {
  SmallVector<Multicast, 3> all = {Multicast::None, Multicast::Weights,
                                   Multicast::Rows};
  if (op->hasAttr(multicastAttrName))
    all = {multicastOf(op, tile)};
  int64_t columnTiles = llvm::divideCeil(op.getN() * op.getNumAccumulators(),
                                         int64_t(tile.getColumns()));
  if (op.getGather() || columnTiles % 2 != 0)
    llvm::erase(all, Multicast::Rows);
  return all;
}

/// Returns the fastest of some tiles, with an operand that is multicast or
/// without; the first of equal ones.
static ManyRowsTile chooseManyRows(GroupedMatmulOp op, ArrayRef<TileAttr> tiles,
                                   const GPUDescription &gpu) {
  ManyRowsTile best;
  double least = 0;
  for (TileAttr tile : tiles)
    for (Multicast multicast : multicastsOf(op, tile)) {
      ManyRowsTile candidate{tile, multicast};
      double seconds = secondsOfManyRows(op, candidate, gpu);
      if (best.tile && seconds >= least)
        continue;
      best = candidate;
      least = seconds;
    }
  // The conversion says why there is no kernel.
  if (!best.tile)
    best = {tiles.front(), multicastOf(op, tiles.front())};
  return best;
}

/// Returns the seconds that a tile should take for so many rows of each expert
/// as it has.
static double secondsOfFullTiles(GroupedMatmulOp op, TileAttr tile,
                                 const GPUDescription &gpu) {
  double experts = double(op.getExpertCount());
  double rows = double(tile.getRows()) * experts;
  std::optional<GPUMachine> machine = findGPU(gpu.arch);
  return GroupedMatmulWork::of(op, tile)
      .predict(*machine, RowCounts{rows, experts, rows})
      .seconds;
}

/// Adds tiles for few rows of each expert whose clusters split k, where blocks
/// have enough steps: the fewest rows may give too few tiles to fill the GPU.
/// All blocks of a cluster have the same number of steps.
static void addSplitTiles(GroupedMatmulOp op, const GPUDescription &gpu,
                          GatherFence fence,
                          SmallVectorImpl<Attribute> &tiles) {
  constexpr int64_t minSteps = 4;
  int64_t steps = llvm::divideCeil(op.getK(), stageDepth(op));
  for (int64_t split : {4, 2})
    if (steps % split == 0 && steps / split >= minSteps)
      tiles.push_back(swapABTileOf(op, gpu, 8, split, fence));
}

/// Returns the tiles of FP8 weights that are converted to the type of the rows
/// in registers, where the target has wgmma. It takes only A from registers, so
/// operands are swapped; two sets of accumulators leave no registers for tiles
/// of 64 rows.
static SmallVector<Attribute> chooseTilesOfDecoded(GroupedMatmulOp op,
                                                   const GPUDescription &gpu,
                                                   GatherFence fence) {
  SmallVector<Attribute> tiles;
  addSplitTiles(op, gpu, fence, tiles);
  tiles.push_back(swapABTileOf(op, gpu, 8, /*split=*/1, fence));
  for (int64_t rows : {16, 32}) {
    TileAttr swapped = swapABTileOf(op, gpu, rows, /*split=*/1, fence);
    TileAttr mma = tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4);
    bool isFaster = secondsOfFullTiles(op, swapped, gpu) <=
                    secondsOfFullTiles(op, mma, gpu);
    tiles.push_back(isFaster ? swapped : mma);
  }
  tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, 64, 128, 4));
  return tiles;
}

/// Returns the tiles to generate kernels for, in ascending order of rows, and
/// which operand the last one's clusters share.
static SmallVector<Attribute> chooseTiles(GroupedMatmulOp op,
                                          const GPUDescription &gpu,
                                          GatherFence fence,
                                          Multicast &multicast) {
  SmallVector<Attribute> tiles;
  multicast = Multicast::None;
  // TMA loads need no proxy fence.
  if (!op.getGather())
    fence = GatherFence::Producer;
  if (hasFP8Weights(op)) {
    if (gpu.hasWgmma() && !hasFP8Lhs(op))
      return chooseTilesOfDecoded(op, gpu, fence);
    for (int64_t rows : {16, 32, 64})
      tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4));
    // wgmma reads B from shared memory without conversion, so rows must be FP8,
    // too. mma.sync needs two sets of accumulators, which leaves
    // no registers for larger tiles.
    if (gpu.hasWgmma() && hasFP8Lhs(op)) {
      ManyRowsTile chosen =
          chooseManyRows(op,
                         tileOf(op, gpu, MatrixUnit::Wgmma, 128, 128, 6,
                                WarpRoles::Cooperative, fence),
                         gpu);
      tiles.push_back(chosen.tile);
      multicast = chosen.multicast;
    }
    return tiles;
  }
  // Stores of several results take registers from the accumulators.
  bool isPlain = op.hasOneInit();
  if (!gpu.hasWgmma()) {
    for (int64_t rows : {16, 32, 64, 128})
      if (rows < 128 || isPlain)
        tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4));
    return tiles;
  }
  addSplitTiles(op, gpu, fence, tiles);
  for (int64_t rows : {8, 16, 32, 64})
    tiles.push_back(swapABTileOf(op, gpu, rows, 1, fence));
  // A cooperative tile reads less from the L2 cache; ping-pong hides the
  // epilogue, which takes a good part of the time with few steps along k.
  int64_t columns = isPlain || weightViewCount(op) > 1 ? 256 : 192;
  SmallVector<TileAttr> many = {tileOf(op, gpu, MatrixUnit::Wgmma, 128, columns,
                                       4, WarpRoles::Cooperative, fence)};
  // MN-major weights are loaded in blocks of 64 columns, and 192 columns do not
  // divide into two views of whole blocks.
  if (isPlain && (op.getTransposed() || weightViewCount(op) == 1))
    many.push_back(tileOf(op, gpu, MatrixUnit::Wgmma, 128, 192, 5,
                          WarpRoles::PingPong, fence));
  ManyRowsTile chosen = chooseManyRows(op, many, gpu);
  tiles.push_back(chosen.tile);
  multicast = chosen.multicast;
  return tiles;
}

namespace {
struct MoETileForGPU : moe::impl::MoETileForGPUBase<MoETileForGPU> {
  using MoETileForGPUBase::MoETileForGPUBase;

  void runOnOperation() override {
    GPUDescription gpu{arch};
    if (failed(gpu.verify(getOperation())))
      return signalPassFailure();
    getOperation()->walk([&](GroupedMatmulOp op) {
      std::string why;
      if (!isa<RankedTensorType>(op.getInit().getType()) ||
          failed(verifyTensorCores(op, why)))
        return;
      Multicast multicast;
      SmallVector<Attribute> tiles =
          chooseTiles(op, gpu, gatherFence, multicast);
      op->setAttr(tilesAttrName, ArrayAttr::get(&getContext(), tiles));
      if (multicast != Multicast::None)
        op->setAttr(multicastAttrName,
                    StringAttr::get(&getContext(), stringify(multicast)));
      ++numTiled;
    });
  }
};
} // namespace
