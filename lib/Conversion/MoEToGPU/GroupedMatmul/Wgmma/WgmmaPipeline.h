//===- WgmmaPipeline.h - Pipeline of a wgmma kernel -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The wgmma kernels are warp-specialized. The first warpgroup of a block, the
// producer, fills a circular pipeline of `stages` shared memory stages along k;
// the other warpgroups, the consumers, multiply what is in them. Each stage has
// a full and an empty mbarrier.
//
// cp.async writes through the generic proxy and wgmma reads through the async
// proxy, so a proxy fence must order them. With `gather_fence = producer` a
// producer thread waits for its own copies of two stages before, fences and
// arrives; with `consumer` the copies arrive on the full barrier themselves and
// the consumer warpgroups fence.
//
// Operands have the 128-byte swizzle of TMA and wgmma: a row of 64 elements
// (128 for FP8) is eight chunks of 16 bytes, chunk c of row r at c ^ (r mod 8).
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_WGMMAPIPELINE_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_WGMMAPIPELINE_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

class WgmmaPipeline {
protected:
  static constexpr int64_t warpgroupSize = 128;
  static constexpr int64_t swizzleBytes = 128; // of a row in shared memory
  static constexpr int64_t wgmmaKBytes = 32;   // of a row, per wgmma
  static constexpr int64_t wgmmaM = 64;
  /// Bytes of 64 swizzled rows: a K-major operand of a wgmma along M, or 64
  /// columns of an MN-major one.
  static constexpr int64_t wgmmaMBytes = wgmmaM * swizzleBytes;
  /// Stages whose cp.async copies a producer thread keeps in flight.
  static constexpr int64_t cpAsyncStages = 2;

  /// Operands are of type `element`. `emptyArrivals` consumers of each block
  /// release a stage. The `blocks` blocks of a cluster load some operands for
  /// each other.
  WgmmaPipeline(GPUBuilder &b, Type element, int64_t stages, int64_t stageBytes,
                int64_t emptyArrivals, int64_t blocks = 1)
      : stages(stages), stageBytes(stageBytes), blocks(blocks), b(b),
        operand(element), emptyArrivals(emptyArrivals * blocks) {}

  /// Called at the start of the kernel: the stages are at the start of the
  /// shared memory, the barriers follow.
  void startPipeline();
  /// Bytes of the barriers.
  int64_t barrierBytes() { return stages * 16; }

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
  /// Initializes the barriers of all stages, of which a full one takes
  /// `fullArrivals`, and prefetches tensor maps; called by one thread.
  void initBarriers(int64_t fullArrivals, ValueRange maps);
  /// Consumer: waits until wgmma may read the stage; with `fences` also what
  /// cp.async copied.
  void waitFull(PipelineState state, bool fences = false);
  /// Consumer warpgroup: marks a stage as empty, in all blocks that load it.
  void releaseStage(Value stage);
  /// Called by all threads of a block: orders the initialization of barriers
  /// before what any block of the cluster does, and what any of them did before
  /// the end of this block. `aligned` asserts that warps are converged.
  void syncBlocks(bool aligned);

  // Producer.
  /// Loads a box; with `multicast` to the same place in all blocks of the
  /// cluster, where it counts for the same barrier.
  void issueTMA(Value target, Value map, ValueRange coordinates, Value barrier,
                bool multicast = false);
  /// Arrives on a full barrier, which completes after `bytes` (i32) bytes of
  /// TMA loads.
  void expectBytes(Value barrier, Value bytes);
  /// Fills the `steps` stages (i32) of a tile in order, each when its consumers
  /// have released it; `fill` is given its full barrier.
  PipelineState fillStages(
      PipelineState start, Value steps,
      llvm::function_ref<void(Value step, Value stage, Value full)> fill);
  /// Copies 16 bytes, or fills them with zeros where `bytes` (i32, or null for
  /// 16) is 0.
  void copyChunk(Value target, Value source, Value bytes);
  /// Producer thread, after it issued its copies of stage `step` of a tile:
  /// marks as full the stage whose copies have landed.
  void commitCopies(Value stage, Value step);
  /// The same for the last stages of a tile of `steps` stages; `next` follows
  /// the last one.
  void finishCopies(Value next, Value steps);

  struct MainloopResult {
    PipelineState state;
    Value lastStage; // not released yet
    SmallVector<Value> accumulators;
  };
  /// Issues the wgmmas of one stage; `first` clears the accumulators.
  using MultiplyStage = llvm::function_ref<SmallVector<Value>(
      ValueRange accumulators, Value stage, bool first)>;
  /// Accumulates the `steps` stages (i32, at least 1) of a tile in `count`
  /// accumulators of `columns` columns. With `fences` stages have copies of
  /// cp.async that no producer fenced. The wgmmas of the last stage are still
  /// in flight. The first stage is peeled: it clears the accumulators, since no
  /// register of theirs may be written between wgmma.fence and the first wgmma.
  MainloopResult mainloop(PipelineState start, Value steps, int64_t count,
                          int64_t columns, MultiplyStage multiply,
                          bool fences = false);

  /// Returns the shared memory address of a stage (i32).
  Value stageAddress(Value stage);
  /// Returns the matrix descriptor (PTX ISA, "Matrix descriptor") of an operand
  /// at shared memory address `address` (i32): 128-byte swizzle, groups of
  /// eight rows 1024 bytes apart, blocks along the leading dimension `leading`
  /// bytes apart.
  Value descriptor(Value address, int64_t leading);
  /// Issues a wgmma of M = 64, N = `columns` and 32 bytes along k: accumulators
  /// + lhs · rhs, or lhs · rhs with `clear`.
  Value wgmma(Value accumulators, Value lhs, Value rhs, int64_t columns,
              bool lhsKMajor, bool rhsKMajor, bool clear);
  /// The same of 16 elements along k, with lhs in four registers (i32) of each
  /// thread (PTX ISA, "Register fragments for matrix A"). They must have been
  /// written before the wgmma.fence and live until the wgmma has finished.
  Value wgmmaOfRegisters(Value accumulators, ArrayRef<Value> lhs, Value rhs,
                         int64_t columns, bool clear);
  Value undefinedAccumulators(int64_t columns);
  /// Waits until at most `pending` wgmma groups are in flight.
  void waitWgmma(int64_t pending);

  int64_t stages, stageBytes;
  int64_t blocks; // of a cluster
  Value memory, barriers, thread;

private:
  void signalFull(Value stage);
  Value stageBefore(Value stage, int64_t count);

  GPUBuilder &b;
  Type operand;
  int64_t emptyArrivals;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_WGMMA_WGMMAPIPELINE_H
