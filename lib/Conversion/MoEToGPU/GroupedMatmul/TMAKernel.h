//===- TMAKernel.h - A warpgroup that feeds wgmma ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What kernels with wgmma share. The first warpgroup of a block brings operands
// to shared memory, `stages` steps along k ahead: the bulk copy engine brings
// weights and rows that lie together; rows that are gathered come by cp.async,
// 16 bytes a thread. Two barriers in shared memory for each stage say that it
// is full, and that it is empty again.
//
// What cp.async wrote is behind a proxy fence before wgmma reads it. Either the
// threads that copy wait for what they copied two stages ago, fence and arrive;
// or copies arrive when they are done, and the threads that multiply fence.
//
// Operands lie swizzled over 128 bytes, as the copy engine and wgmma have it: a
// line of 64 numbers, or 128 of 8 bits, its chunks of 16 bytes swapped by the
// number of the line mod 8. Weights `[E, N, K]` are lines along k; `[E, K, N]`
// blocks of 64 columns, each lines along n.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TMAKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TMAKERNEL_H

#include "GroupedKernel.h"

namespace mlir::moe {

class BulkCopyKernel : public GroupedKernel {
public:
  /// The tensor maps that a kernel takes.
  static SmallVector<TensorMapAttr> maps(GroupedMatmulOp op, TileAttr tile);

protected:
  static constexpr int64_t warpgroup = 128;
  static constexpr int64_t lineBytes = 128;
  static constexpr int64_t instructionBytes =
      32;                                   // of a line, that a wgmma takes
  static constexpr int64_t groupLines = 64; // of the first operand of a wgmma
  static constexpr int64_t groupBytes = groupLines * lineBytes;

  /// `releases`: how many say of a stage that it is empty.
  BulkCopyKernel(const GroupedKernelRequest &request, DeviceLowering &lowering,
                 int64_t releases)
      : GroupedKernel(request, lowering), depth(stageDepth(op)),
        narrow(hasNarrowWeights(op)), stages(tile.getStages()),
        steps(llvm::divideCeil(k, depth) / tile.getSplit()),
        lhsBytes(tile.getRows() * lineBytes),
        rhsBytes(tile.getColumns() * lineBytes),
        stageBytes(lhsBytes + rhsBytes), releases(releases) {}

  bool gathered() { return bool(op.getGather()); }
  bool consumersFence() {
    return tile.getGatherFence() == GatherFence::Consumer;
  }

  /// Create the kernel, with `extraBytes` of shared memory for what it needs
  /// besides stages, their barriers and the schedule.
  LLVM::LLVMFuncOp create(StringRef name, KernelShape shape,
                          int64_t extraBytes);
  /// Shared memory: the stages, their barriers, what `create` was asked for,
  /// and the schedule.
  Value extraMemory();
  Value scheduleMemory();

  /// The stage at work and the parity that its barriers are waited for with.
  struct Turn {
    Value stage, parity;
  };
  Turn next(Turn turn);
  /// A turn `count` stages later.
  Turn skip(Turn turn, int64_t count);

  Value barrierAt(Value stage, bool empty);
  void waitFor(Value barrier, Value parity);
  /// By what multiplies: until the stage is there, for wgmma to read.
  void waitUntilFull(Turn turn);
  void arrive(Value barrier);
  /// By one thread: barriers as they are before the first tile.
  void initializeStages();

  /// What the first warpgroup does for one tile, from step `firstStep` along k
  /// on (null: 0), by the threads that `byProducers` has.
  Turn produce(const TilePlace &place, Turn turn, Value firstStep = Value());
  /// In the first warpgroup: all threads gather rows, one starts copies.
  void byProducers(llvm::function_ref<void()> bring);
  /// A barrier that nobody waited for yet counts as complete with parity 1.
  Turn firstToFill() { return {b.i32(0), b.i32(1)}; }
  Turn firstToRead() { return {b.i32(0), b.i32(0)}; }
  /// `one` for every tile of this block; stages go round from tile to tile.
  void
  forTiles(TileSchedule &tiles, Turn first,
           llvm::function_ref<Turn(const TilePlace &place, Turn turn)> one);

  /// By a warpgroup that multiplies: it has read a stage.
  void release(Value stage);
  struct Steps {
    Turn after;
    Value last; // stage, which is not released yet
    SmallVector<Value> sums;
  };
  /// The sums of all steps, `count` of `columns` columns each; those of the
  /// last step are under way. `multiply` adds what a stage has to sums, or,
  /// `first`, has nothing to add to: the first step clears, since no move may
  /// come between the fence of wgmma and the first of them.
  Steps
  multiplySteps(Turn start, int64_t count, int64_t columns,
                llvm::function_ref<SmallVector<Value>(ValueRange sums,
                                                      Value stage, bool first)>
                    multiply);

  /// Where stage `stage` is, an i32 as descriptors have it.
  Value stageAddress(Value stage);
  /// What wgmma knows an operand in shared memory by (PTX ISA, "matrix
  /// descriptor"): its address and, in units of 16 bytes, the distance of
  /// blocks along the leading dimension and of groups of eight lines; swizzled
  /// over 128 bytes. `address` is an i32.
  Value descriptor(Value address, int64_t leading);
  /// Of the weights of a stage, as either operand; and how far apart, in such
  /// units, parts for one wgmma each are along k.
  Value weightsDescriptor(Value address);
  int64_t weightsStep() {
    return (op.getTransposed() ? instructionBytes : 16 * lineBytes) >> 4;
  }
  /// sums + x · y, a tile of 64 by `columns`, 32 bytes along k; just x · y with
  /// `clear`.
  Value multiplyGroup(Value sums, Value x, Value y, int64_t columns,
                      bool xAlongK, bool yAlongK, bool clear);
  /// Sums of `columns` columns that nothing was added to yet.
  Value undefinedSums(int64_t columns);
  void waitForGroups(int64_t left);

  int64_t depth; // numbers of a line
  bool narrow;   // 8 bits
  int64_t stages, steps;
  int64_t lhsBytes, rhsBytes, stageBytes;
  Value memory, barriers, thread;

private:
  void copyTile(Value target, Value map, ValueRange coordinates, Value barrier);
  void bringWeights(const TilePlace &place, Value from, Value stageStart,
                    Value barrier);
  Turn bringTile(const TilePlace &place, Turn turn, Value firstStep);
  Turn gatherTile(const TilePlace &place, Turn turn, Value firstStep);

  int64_t releases, extraStart = 0, scheduleStart = 0;
  Value lhsMap;
  SmallVector<Value> weightMaps;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TMAKERNEL_H
