//===- MmaSyncKernel.cpp - Grouped matmul on mma.sync ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// For f16 and bf16, sm_80 and later. cp.async copies rows (gathered on the way)
// and weights to shared memory, ldmatrix loads fragments, and the accumulators
// stay in registers until the epilogue.
//
// Tiles in shared memory have the 128-byte swizzle, so that ldmatrix reads
// eight rows without bank conflicts. Weights `[E, N, K]` are K-major, `[E, K,
// N]` MN-major.
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t depth = 64; // a row of 128 bytes
static constexpr int64_t chunkElements = 8;

namespace {
class MmaSyncKernel : public WarpTileKernel {
public:
  MmaSyncKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : WarpTileKernel(request, lowering), lhsBytes(tileRows * depth * 2),
        stageBytes(lhsBytes + tileColumns * depth * 2) {}

  LLVM::LLVMFuncOp build() {
    return buildKernel("grouped_matmul", stageBytes,
                       [&](const TileCoord &coord) { computeTile(coord); });
  }

private:
  /// A 16-byte chunk that a thread copies in each stage.
  struct ChunkCopy {
    Value source;   // at k = 0
    Value offset;   // in the stage
    Value valid;    // null if always
    Value k;        // of the first element, within the stage
    int64_t stride; // elements of the source between two k
  };
  SmallVector<ChunkCopy> lhsCopies(const TileCoord &coord);
  SmallVector<ChunkCopy> weightCopies(const TileCoord &coord);
  void issueCopy(const ChunkCopy &copy, Value step, Value stage);
  SmallVector<Value> multiplyStage(Value stage,
                                   SmallVector<Value> accumulators);
  void computeTile(const TileCoord &coord);

  int64_t lhsBytes, stageBytes;
};
} // namespace

//===----------------------------------------------------------------------===//
// Global to shared memory
//===----------------------------------------------------------------------===//

SmallVector<MmaSyncKernel::ChunkCopy>
MmaSyncKernel::lhsCopies(const TileCoord &coord) {
  SmallVector<ChunkCopy> copies;
  Value chunk = b.bitAnd(thread, 7);
  int64_t count = llvm::divideCeil(tileRows * 8, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value row = b.add(b.shiftRight(thread, 3), i * (threads / 8));
    // Out-of-range rows are clamped to the last row; their results are
    // discarded.
    Value clamped = b.min(row, b.sub(coord.rows, 1));
    Value source = lhsRowPointer(b.add(coord.firstRow, clamped));
    Value column = b.shiftLeft(chunk, 3);
    copies.push_back(
        {b.at(source, element, column), swizzledOffset(row, chunk, 8),
         tileRows * 8 < threads ? b.less(row, tileRows) : Value(), column, 1});
  }
  return copies;
}

SmallVector<MmaSyncKernel::ChunkCopy>
MmaSyncKernel::weightCopies(const TileCoord &coord) {
  SmallVector<ChunkCopy> copies;
  bool kMajor = op.getTransposed();
  int64_t chunks = kMajor ? 8 : tileColumns / 8; // of a row
  int64_t count = llvm::divideCeil(tileColumns * 8, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value index = b.add(thread, i * threads);
    Value row = b.div(index, chunks), chunk = b.rem(index, chunks);
    auto [view, column] = weightColumn(kMajor ? row : b.shiftLeft(chunk, 3));
    column = b.add(column, b.mul(coord.columnTile, viewTileColumns));
    Value kStart = kMajor ? b.shiftLeft(chunk, 3) : row;
    Value clamped = b.min(column, viewColumns - (kMajor ? 1 : chunkElements));
    Value pointer = weightPointer(view, element);
    Value expertOffset = b.mul(b.toI64(coord.expert), weightColumns * weightK);
    Value inner =
        kMajor ? b.add(b.mul(b.toI64(clamped), weightK), b.toI64(kStart))
               : b.add(b.mul(b.toI64(kStart), weightColumns), b.toI64(clamped));
    Value valid =
        n % outTileColumns != 0 ? b.less(column, viewColumns) : Value();
    copies.push_back({b.at(pointer, element, b.add(expertOffset, inner)),
                      b.add(swizzledOffset(row, chunk, chunks), lhsBytes),
                      valid, kStart, kMajor ? 1 : weightColumns});
  }
  return copies;
}

/// Copies a chunk for step `step` along k to stage `stage`; fills it with zeros
/// where it is out of range.
void MmaSyncKernel::issueCopy(const ChunkCopy &copy, Value step, Value stage) {
  Value kStart = b.mul(step, depth);
  Value stageStart = b.mul(stage, stageBytes);
  Value inside = copy.valid;
  if (k % depth != 0) {
    Value within = b.less(b.add(kStart, copy.k), k);
    inside = inside ? b.both(inside, within) : within;
  }
  Value target = b.sharedAt(memory, b.add(stageStart, copy.offset));
  Value source =
      b.at(copy.source, element,
           b.mul(b.toI64(inside ? b.select(inside, kStart, b.i32(0)) : kStart),
                 copy.stride));
  Value bytes = inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
  NVVM::CpAsyncOp::create(b, target, source, 16,
                          NVVM::LoadCacheModifierKind::CG, bytes);
}

//===----------------------------------------------------------------------===//
// Shared memory to tensor cores
//===----------------------------------------------------------------------===//

SmallVector<Value>
MmaSyncKernel::multiplyStage(Value stage, SmallVector<Value> accumulators) {
  Value start = b.mul(stage, stageBytes);
  bool kMajor = op.getTransposed();
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value upper = b.shiftRight(lane, 4);
  Value lhsRow = b.add(warpRow, b.bitAnd(lane, 15));
  for (int64_t step = 0; step < depth / 16; ++step) {
    SmallVector<SmallVector<Value>> lhsFragments, rhsFragments;
    for (int64_t i = 0; i < fragmentsM; ++i) {
      Value offset =
          swizzledOffset(b.add(lhsRow, i * 16), b.add(upper, step * 2), 8);
      lhsFragments.push_back(loadMatrices(b.add(start, offset)));
    }
    if (!kMajor)
      rhsFragments =
          loadRhsMNMajor(b.add(start, lhsBytes), tileColumns / 8, step);
    for (int64_t i = 0; kMajor && i < fragmentsN; i += 2) {
      Value row =
          b.add(b.add(warpColumn, i * 8), b.add(low, b.shiftLeft(upper, 3)));
      Value offset = swizzledOffset(row, b.add(half, step * 2), 8);
      SmallVector<Value> loaded =
          loadMatrices(b.add(b.add(start, offset), lhsBytes));
      rhsFragments.push_back({loaded[0], loaded[1]});
      rhsFragments.push_back({loaded[2], loaded[3]});
    }
    for (int64_t i = 0; i < fragmentsM; ++i)
      for (int64_t j = 0; j < fragmentsN; ++j)
        b.mma(element, lhsFragments[i], rhsFragments[j],
              MutableArrayRef(accumulators).slice((i * fragmentsN + j) * 4, 4));
  }
  return accumulators;
}

void MmaSyncKernel::computeTile(const TileCoord &coord) {
  SmallVector<ChunkCopy> lhs = lhsCopies(coord);
  SmallVector<ChunkCopy> weights = weightCopies(coord);
  auto loadStage = [&](Value step, Value stage) {
    for (ChunkCopy copy : lhs) {
      // With fewer chunks of rows than threads, a thread without one copies
      // nothing.
      Value valid = std::exchange(copy.valid, Value());
      if (valid)
        b.ifThen(valid, [&] { issueCopy(copy, step, stage); });
      else
        issueCopy(copy, step, stage);
    }
    for (const ChunkCopy &copy : weights)
      issueCopy(copy, step, stage);
  };
  auto multiply = [&](Value, Value stage, ValueRange accumulators,
                      llvm::function_ref<void()> waitStage) {
    waitStage();
    return multiplyStage(stage, llvm::to_vector(accumulators));
  };
  store(coord, mainloop(llvm::divideCeil(k, depth), loadStage, multiply));
}

void mlir::moe::launchMmaSyncKernel(const GroupedKernelRequest &request,
                                    Value blocks, DeviceLowering &lowering) {
  MmaSyncKernel kernel(request, lowering);
  kernel.launch(kernel.build(), blocks);
}
