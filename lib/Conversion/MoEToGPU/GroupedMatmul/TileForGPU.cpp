//===- TileForGPU.cpp - Choose the tiles of grouped products --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TileScheduler.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOETILEFORGPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// What shared memory has for stages, in `blocks` blocks of a multiprocessor.
static int64_t memoryForStages(GroupedMatmulOp op, const GPUDescription &gpu,
                               int64_t blocks = 1) {
  // Barriers; a block of its own takes 1 KiB.
  constexpr int64_t barriers = 256, reserved = 1024;
  int64_t ofBlock = gpu.getSharedBytes() / blocks - (blocks > 1) * reserved;
  return ofBlock - barriers - TileSchedule::sharedBytes(op.getExpertCount());
}

/// A tile with as many stages as fit, `most` at most.
static TileAttr tileOf(GroupedMatmulOp op, const GPUDescription &gpu,
                       MatrixUnit unit, int64_t rows, int64_t columns,
                       int64_t most, WarpRoles roles = WarpRoles::Cooperative,
                       GatherFence fence = GatherFence::Producer) {
  int64_t stages = std::min<int64_t>(most, memoryForStages(op, gpu) /
                                               stageBytes(op, rows, columns));
  return TileAttr::get(op.getContext(), unit, rows, columns, stageDepth(op),
                       stages, roles, /*cluster=*/1,
                       /*swapped=*/false, /*split=*/1, fence);
}

/// A tile of few rows, two blocks of which a multiprocessor has; a cluster of
/// `split` blocks shares the sum along k.
static TileAttr swappedTileOf(GroupedMatmulOp op, const GPUDescription &gpu,
                              int64_t rows, int64_t split, GatherFence fence) {
  constexpr int64_t columns = 128, most = 6;
  int64_t sums = split > 1 ? rows * columns * 4 : 0;
  int64_t stages =
      std::min<int64_t>(most, (memoryForStages(op, gpu, 2) - sums) /
                                  stageBytes(op, rows, columns));
  return TileAttr::get(op.getContext(), MatrixUnit::Wgmma, rows, columns,
                       stageDepth(op), stages, WarpRoles::Cooperative,
                       /*cluster=*/split,
                       /*swapped=*/true, split, fence);
}

static SmallVector<Attribute> chooseTiles(GroupedMatmulOp op,
                                          const GPUDescription &gpu,
                                          GatherFence fence) {
  SmallVector<Attribute> tiles;
  // Nobody else has rows to fence.
  if (!op.getGather())
    fence = GatherFence::Producer;
  if (hasNarrowWeights(op)) {
    for (int64_t rows : {16, 32, 64})
      tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4));
    // wgmma takes both operands from shared memory, as they are. With mma.sync,
    // sums of a stage and those of the stages before leave no registers for
    // more rows.
    if (gpu.hasWgmma() && hasNarrowRows(op))
      tiles.push_back(tileOf(op, gpu, MatrixUnit::Wgmma, 128, 128, 6,
                             WarpRoles::Cooperative, fence));
    return tiles;
  }
  if (!gpu.hasWgmma()) {
    for (int64_t rows : {16, 32, 64, 128})
      tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4));
    return tiles;
  }
  // With the fewest rows there may be too few tiles, too. Every block of a
  // cluster has as many steps along k.
  constexpr int64_t leastSteps = 4;
  int64_t steps = llvm::divideCeil(op.getK(), stageDepth(op));
  for (int64_t split : {4, 2})
    if (steps % split == 0 && steps / split >= leastSteps)
      tiles.push_back(swappedTileOf(op, gpu, 8, split, fence));
  for (int64_t rows : {8, 16, 32, 64})
    tiles.push_back(swappedTileOf(op, gpu, rows, 1, fence));
  // With few steps along k, storing takes a good part of the time: ping-pong
  // hides it. Weights along n come in blocks of 64 columns.
  constexpr int64_t fewSteps = 16;
  bool pingPong =
      steps < fewSteps && (op.getTransposed() || weightViewCount(op) == 1);
  tiles.push_back(pingPong ? tileOf(op, gpu, MatrixUnit::Wgmma, 128, 192, 5,
                                    WarpRoles::PingPong, fence)
                           : tileOf(op, gpu, MatrixUnit::Wgmma, 128, 256, 4,
                                    WarpRoles::Cooperative, fence));
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
      op->setAttr(tilesAttr,
                  ArrayAttr::get(&getContext(),
                                 chooseTiles(op, gpu, gatherFence)));
      ++numTiled;
    });
  }
};
} // namespace
