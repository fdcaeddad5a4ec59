//===- TMAKernel.h - Base of the wgmma kernels ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The grouped matmuls on wgmma (WgmmaPipeline.h). TMA loads the weights and
// contiguous rows; gathered rows are copied with cp.async, 16 bytes a thread.
//
// Weights `[E, N, K]` are K-major. Weights `[E, K, N]` are MN-major, in blocks
// of 64 columns.
//
// With multicast (KernelModel.h) the two blocks of a cluster compute
// neighbouring tiles at the same time: two row tiles of an expert, or two
// column tiles. Each loads half of the operand that both read into the shared
// memory of both. A stage is empty when the consumers of both blocks have
// released it. The last row tile of an expert may lie behind its rows; its
// block loads, multiplies and releases like any other, and stores nothing.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H

#include "GroupedMatmul/GroupedKernel.h"
#include "WgmmaPipeline.h"

namespace mlir::moe {

class TMAKernel : public GroupedKernel, protected WgmmaPipeline {
protected:
  using GroupedKernel::b;

  /// `emptyArrivals` is the number of consumers that release a stage.
  TMAKernel(const GroupedKernelRequest &request, DeviceLowering &lowering,
            int64_t emptyArrivals)
      : GroupedKernel(request, lowering),
        WgmmaPipeline(b, element, tile.getStages(),
                      (tile.getRows() * lhsBlocksOf(op) + tile.getColumns()) *
                          swizzleBytes,
                      emptyArrivals, blocksOf(multicast)),
        depth(stageDepth(op)), fp8(hasFP8Weights(op)),
        lhsBlocks(lhsBlocksOf(op)),
        steps(llvm::divideCeil(k, depth) / tile.getSplit()),
        lhsBlockBytes(tile.getRows() * swizzleBytes),
        lhsBytes(lhsBlocks * lhsBlockBytes),
        rhsBytes(tile.getColumns() * swizzleBytes) {}

  bool isGathered() { return bool(op.getGather()); }
  bool consumersFence() {
    return tile.getGatherFence() == GatherFence::Consumer;
  }

  /// Creates the kernel. Its shared memory holds the stages, their barriers,
  /// `extraBytes` for the derived kernel and the tile scheduler.
  LLVM::LLVMFuncOp create(StringRef name, KernelShape shape,
                          int64_t extraBytes);
  /// The first tile of the scheduler that is of this block, the distance to
  /// the next, and the coordinates of this block's part of one.
  Value firstTile() { return b.div(b.block(), blocks); }
  Value tileStride() { return b.div(b.numBlocks(), blocks); }
  TileCoord tileAt(TileScheduler &tiles, Value tile);
  Value extraMemory();
  Value schedulerMemory();

  /// Initializes the barriers and prefetches the tensor maps; called by one
  /// thread.
  void initBarriers();
  void waitFull(PipelineState state) {
    WgmmaPipeline::waitFull(state, consumersFence());
  }
  MainloopResult mainloop(PipelineState start, int64_t count, int64_t columns,
                          MultiplyStage multiply) {
    return WgmmaPipeline::mainloop(start, b.i32(steps), count, columns,
                                   multiply, consumersFence());
  }

  /// Producer: loads the stages of one tile, from stage `firstStep` along k on
  /// (null: 0). Must run inside `producerLoop`.
  PipelineState loadTile(const TileCoord &coord, PipelineState state,
                         Value firstStep = Value());
  /// Runs `load` by the producer threads: all of the warpgroup if rows are
  /// gathered, otherwise one, which issues the TMA loads.
  void producerLoop(llvm::function_ref<void()> load);
  /// Prefetches to the L2 cache the weights of the first steps of tile `tile`,
  /// from stage `firstStep` along k on (null: 0); called by one thread. A
  /// kernel whose rows an earlier kernel computes does so before it waits for
  /// that one (moe-overlap-launches).
  void prefetchWeights(TileScheduler &tiles, Value tile,
                       Value firstStep = Value());
  /// Runs `body` for every tile of this block, carrying the pipeline state.
  void forEachTile(TileScheduler &tiles, PipelineState start,
                   llvm::function_ref<PipelineState(const TileCoord &coord,
                                                    PipelineState state)>
                       body);

  Value weightsDescriptor(Value address);
  /// Returns the distance along k of the weights of two wgmmas, in the 16-byte
  /// units of a descriptor.
  int64_t weightsDescriptorStep() {
    return (op.getTransposed() ? wgmmaKBytes : 16 * swizzleBytes) >> 4;
  }
  int64_t depth; // elements along k of a stage
  bool fp8;
  int64_t lhsBlocks; // of 128 bytes along k, of the rows of a stage
  int64_t steps, lhsBlockBytes, lhsBytes, rhsBytes;

private:
  /// FP8 weights have twice as many elements in 128 bytes as 16-bit rows.
  static int64_t lhsBlocksOf(GroupedMatmulOp op) {
    return hasFP8Weights(op) && !hasFP8Lhs(op) ? 2 : 1;
  }
  void declareTensorMaps();
  /// Returns the rank of the block in its cluster.
  Value rank() { return b.blockInCluster(blocks); }
  /// Calls `body` for each box of the weights that this block loads of a stage,
  /// with its place in the stage.
  void forEachWeightBox(
      const TileCoord &coord, Value kStart,
      llvm::function_ref<void(Value start, Value map, ValueRange coordinates)>
          body);
  void loadWeights(const TileCoord &coord, Value kStart, Value stageStart,
                   Value barrier);
  PipelineState loadContiguousTile(const TileCoord &coord, PipelineState state,
                                   Value firstStep);
  PipelineState loadGatheredTile(const TileCoord &coord, PipelineState state,
                                 Value firstStep);

  int64_t extraStart = 0, schedulerStart = 0;
  Value lhsMap;
  SmallVector<Value> weightMaps;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H
