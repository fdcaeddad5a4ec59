//===- TMAKernel.h - Base of the wgmma kernels ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The wgmma kernels are warp-specialized. The first warpgroup of a block, the
// producer, fills a circular pipeline of `stages` shared memory stages along k:
// TMA loads the weights and contiguous rows; gathered rows are copied with
// cp.async, 16 bytes a thread. Each stage has a full and an empty mbarrier.
//
// cp.async writes through the generic proxy and wgmma reads through the async
// proxy, so a proxy fence must order them. With `gather_fence = producer` a
// producer thread waits for its own copies of two stages before, fences and
// arrives; with `consumer` the copies arrive on the full barrier themselves and
// the consumer warpgroups fence.
//
// Operands have the 128-byte swizzle of TMA and wgmma: a row of 64 elements
// (128 for FP8) is eight chunks of 16 bytes, chunk c of row r at c ^ (r mod 8).
// Weights `[E, N, K]` are K-major. Weights `[E, K, N]` are MN-major, in blocks
// of 64 columns.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H

#include "GroupedMatmul/GroupedKernel.h"

namespace mlir::moe {

class TMAKernel : public GroupedKernel {
protected:
  static constexpr int64_t warpgroupSize = 128;
  static constexpr int64_t swizzleBytes = 128; // of a row in shared memory
  static constexpr int64_t wgmmaKBytes = 32;   // of a row, per wgmma
  static constexpr int64_t wgmmaM = 64;
  /// Bytes of 64 swizzled rows: the A operand of a wgmma along M, or 64 columns
  /// of MN-major weights.
  static constexpr int64_t wgmmaMBytes = wgmmaM * swizzleBytes;

  /// `emptyArrivals` is the number of consumers that release a stage.
  TMAKernel(const GroupedKernelRequest &request, DeviceLowering &lowering,
            int64_t emptyArrivals)
      : GroupedKernel(request, lowering), depth(stageDepth(op)),
        fp8(hasFP8Weights(op)), stages(tile.getStages()),
        steps(llvm::divideCeil(k, depth) / tile.getSplit()),
        lhsBytes(tile.getRows() * swizzleBytes),
        rhsBytes(tile.getColumns() * swizzleBytes),
        stageBytes(lhsBytes + rhsBytes), emptyArrivals(emptyArrivals) {}

  bool isGathered() { return bool(op.getGather()); }
  bool consumersFence() {
    return tile.getGatherFence() == GatherFence::Consumer;
  }

  /// Creates the kernel. Its shared memory holds the stages, their barriers,
  /// `extraBytes` for the derived kernel and the tile scheduler.
  LLVM::LLVMFuncOp create(StringRef name, KernelShape shape,
                          int64_t extraBytes);
  Value extraMemory();
  Value schedulerMemory();

  /// A position in the pipeline: the stage, and the phase of its barriers.
  struct PipelineState {
    Value stage, phase;
  };
  PipelineState advance(PipelineState state);
  PipelineState advance(PipelineState state, int64_t count);
  /// The producer starts in phase 1, which counts as complete on a new barrier:
  /// all stages are empty.
  PipelineState producerStart() { return {b.i32(0), b.i32(1)}; }
  PipelineState consumerStart() { return {b.i32(0), b.i32(0)}; }

  Value fullBarrier(Value stage);
  Value emptyBarrier(Value stage);
  void waitBarrier(Value barrier, Value phase);
  void arrive(Value barrier);
  /// Initializes the barriers of all stages and prefetches the tensor maps;
  /// called by one thread.
  void initBarriers();
  /// Consumer: waits until wgmma may read the stage.
  void waitFull(PipelineState state);
  /// Consumer warpgroup: marks a stage as empty.
  void releaseStage(Value stage);

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

  struct MainloopResult {
    PipelineState state;
    Value lastStage; // not released yet
    SmallVector<Value> accumulators;
  };
  /// Issues the wgmmas of one stage; `first` clears the accumulators.
  using MultiplyStage = llvm::function_ref<SmallVector<Value>(
      ValueRange accumulators, Value stage, bool first)>;
  /// Accumulates all stages of a tile in `count` accumulators of `columns`
  /// columns. The wgmmas of the last stage are still in flight. The first stage
  /// is peeled: it clears the accumulators, since no register of theirs may be
  /// written between wgmma.fence and the first wgmma.
  MainloopResult mainloop(PipelineState start, int64_t count, int64_t columns,
                          MultiplyStage multiply);

  /// Returns the shared memory address of a stage (i32).
  Value stageAddress(Value stage);
  /// Returns the matrix descriptor (PTX ISA, "Matrix descriptor") of an operand
  /// at shared memory address `address` (i32): 128-byte swizzle, groups of
  /// eight rows 1024 bytes apart, blocks along the leading dimension `leading`
  /// bytes apart.
  Value descriptor(Value address, int64_t leading);
  Value weightsDescriptor(Value address);
  /// Returns the distance along k of the weights of two wgmmas, in the 16-byte
  /// units of a descriptor.
  int64_t weightsDescriptorStep() {
    return (op.getTransposed() ? wgmmaKBytes : 16 * swizzleBytes) >> 4;
  }
  /// Issues a wgmma of M = 64, N = `columns` and 32 bytes along k: accumulators
  /// + lhs · rhs, or lhs · rhs with `clear`.
  Value wgmma(Value accumulators, Value lhs, Value rhs, int64_t columns,
              bool lhsKMajor, bool rhsKMajor, bool clear);
  Value undefinedAccumulators(int64_t columns);
  /// Waits until at most `pending` wgmma groups are in flight.
  void waitWgmma(int64_t pending);

  int64_t depth; // elements along k of a stage
  bool fp8;
  int64_t stages, steps;
  int64_t lhsBytes, rhsBytes, stageBytes;
  Value memory, barriers, thread;

private:
  void declareTensorMaps();
  void issueTMA(Value target, Value map, ValueRange coordinates, Value barrier);
  /// Calls `body` for each box of the weights of a stage, with its place in the
  /// stage.
  void forEachWeightBox(
      const TileCoord &coord, Value kStart,
      llvm::function_ref<void(int64_t start, Value map, ValueRange coordinates)>
          body);
  void loadWeights(const TileCoord &coord, Value kStart, Value stageStart,
                   Value barrier);
  PipelineState loadContiguousTile(const TileCoord &coord, PipelineState state,
                                   Value firstStep);
  PipelineState loadGatheredTile(const TileCoord &coord, PipelineState state,
                                 Value firstStep);

  int64_t emptyArrivals, extraStart = 0, schedulerStart = 0;
  Value lhsMap;
  SmallVector<Value> weightMaps;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_TMAKERNEL_H
