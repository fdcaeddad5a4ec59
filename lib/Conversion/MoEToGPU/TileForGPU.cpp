//===- TileForGPU.cpp - Choose the tiles of grouped products --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TileSchedule.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOETILEFORGPU
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// A tile with as many stages as fit, `most` at most.
static TileAttr tileOf(GroupedMatmulOp op, const GPUDescription &gpu,
                       MatrixUnit unit, int64_t rows, int64_t columns,
                       int64_t most,
                       WarpRoles roles = WarpRoles::Cooperative) {
  constexpr int64_t depth = 64, barriers = 256;
  int64_t memory = gpu.getSharedBytes() - barriers -
                   TileSchedule::sharedBytes(op.getExpertCount());
  int64_t stages =
      std::min<int64_t>(most, memory / ((rows + columns) * depth * 2));
  return TileAttr::get(op.getContext(), unit, rows, columns, depth, stages,
                       roles, /*cluster=*/1,
                       /*swapped=*/false, /*split=*/1);
}

static SmallVector<Attribute> chooseTiles(GroupedMatmulOp op,
                                          const GPUDescription &gpu) {
  SmallVector<Attribute> tiles;
  for (int64_t rows : {16, 32, 64})
    tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, rows, 128, 4));
  if (!gpu.hasWgmma()) {
    tiles.push_back(tileOf(op, gpu, MatrixUnit::MmaSync, 128, 128, 4));
    return tiles;
  }
  // With few steps along k, storing takes a good part of the time: ping-pong hides
  // it. Weights along n come in blocks of 64 columns.
  constexpr int64_t fewSteps = 1024;
  bool pingPong = op.getK() < fewSteps &&
                  (op.getTransposed() || op.getNumProducts() == 1);
  tiles.push_back(pingPong ? tileOf(op, gpu, MatrixUnit::Wgmma, 128, 192, 5,
                                    WarpRoles::PingPong)
                           : tileOf(op, gpu, MatrixUnit::Wgmma, 128, 256, 4));
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
      op->setAttr(tilesAttr, ArrayAttr::get(&getContext(), chooseTiles(op, gpu)));
      ++numTiled;
    });
  }
};
} // namespace
