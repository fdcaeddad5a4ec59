//===- MmaSyncKernel.cpp - Grouped products with mma.sync -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Eight warps share a tile. cp.async brings rows (gathered as they are) and
// weights to shared memory some stages ahead, ldmatrix brings them to registers,
// and the sums stay there until the epilogue. Runs on sm_80 and later.
//
// In shared memory a line of 128 bytes, 64 numbers, has its eight chunks of 16
// bytes swapped by the number of the line (chunk ^ line mod 8), so that the eight
// lines that ldmatrix reads at once lie in different banks. Weights `[E, N, K]` lie
// as lines along k, `[E, K, N]` as lines along n.
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t depth = 64; // a line of 128 bytes
static constexpr int64_t chunkElements = 8;

namespace {
class MmaSyncKernel : public WarpTileKernel {
public:
  MmaSyncKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : WarpTileKernel(request, lowering),
        lhsBytes(tileRows * depth * 2),
        stageBytes(lhsBytes + tileColumns * depth * 2) {}

  LLVM::LLVMFuncOp build() {
    return buildKernel("grouped_matmul", stageBytes,
                       [&](const TilePlace &place) { computeTile(place); });
  }

private:
  /// 16 bytes that a thread brings for each stage.
  struct Copy {
    Value source;    // at k = 0
    Value offset;    // in the stage
    Value valid;     // null: always
    Value k;         // of its first number, within the depth
    int64_t step;    // numbers of the source from one k to the next
  };
  SmallVector<Copy> lhsCopies(const TilePlace &place);
  SmallVector<Copy> weightCopies(const TilePlace &place);
  void issue(ArrayRef<Copy> copies, Value step, Value stage);
  SmallVector<Value> multiply(Value stage, SmallVector<Value> sums);
  void computeTile(const TilePlace &place);

  int64_t lhsBytes, stageBytes;
};
} // namespace

//===----------------------------------------------------------------------===//
// To shared memory
//===----------------------------------------------------------------------===//

/// Chunk `chunk` of line `line`, lines being `chunks` chunks long.
static Value swizzled(GPUBuilder &b, Value line, Value chunk, int64_t chunks) {
  Value swapped = b.bitXor(chunk, b.bitAnd(line, 7));
  return b.shiftLeft(b.add(b.mul(line, chunks), swapped), 4);
}

SmallVector<MmaSyncKernel::Copy>
MmaSyncKernel::lhsCopies(const TilePlace &place) {
  SmallVector<Copy> copies;
  Value chunk = b.bitAnd(thread, 7);
  int64_t count = llvm::divideCeil(tileRows * 8, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value line = b.add(b.shiftRight(thread, 3), i * (threads / 8));
    // A line beyond the rows has those of the last one, to be thrown away.
    Value row = b.min(line, b.sub(place.rows, 1));
    Value source = lhsRow(b.add(place.firstRow, row));
    Value column = b.shiftLeft(chunk, 3);
    copies.push_back({b.at(source, element, column),
                      swizzled(b, line, chunk, 8),
                      tileRows * 8 < threads ? b.less(line, tileRows) : Value(),
                      column, 1});
  }
  return copies;
}

SmallVector<MmaSyncKernel::Copy>
MmaSyncKernel::weightCopies(const TilePlace &place) {
  SmallVector<Copy> copies;
  bool alongK = op.getTransposed();
  int64_t chunks = alongK ? 8 : tileColumns / 8; // of a line
  int64_t count = llvm::divideCeil(tileColumns * 8, threads);
  for (int64_t i = 0; i < count; ++i) {
    Value number = b.add(thread, i * threads);
    Value line = b.div(number, chunks), chunk = b.rem(number, chunks);
    auto [view, column] = weightColumn(alongK ? line : b.shiftLeft(chunk, 3));
    column = b.add(column, b.mul(place.column, viewShare));
    Value kStart = alongK ? b.shiftLeft(chunk, 3) : line;
    Value held = b.min(column, viewColumns - (alongK ? 1 : chunkElements));
    Value base;
    for (int64_t v = 0; v < viewCount(); ++v) {
      Value start = b.at(weights[v], element,
                         b.i64(layout.views[v].firstColumn * (alongK ? k : 1)));
      base = base ? b.select(b.equal(view, v), start, base) : start;
    }
    Value offset = b.mul(b.toI64(place.expert), weightColumns * k);
    Value inner =
        alongK ? b.add(b.mul(b.toI64(held), k), b.toI64(kStart))
               : b.add(b.mul(b.toI64(kStart), weightColumns), b.toI64(held));
    Value valid = n % share != 0 ? b.less(column, viewColumns) : Value();
    copies.push_back({b.at(base, element, b.add(offset, inner)),
                      b.add(swizzled(b, line, chunk, chunks), lhsBytes), valid,
                      kStart, alongK ? 1 : weightColumns});
  }
  return copies;
}

/// Copy step `step` along k to stage `stage`, zeros where there is nothing.
void MmaSyncKernel::issue(ArrayRef<Copy> copies, Value step, Value stage) {
  Value from = b.mul(step, depth);
  Value stageStart = b.mul(stage, stageBytes);
  for (const Copy &copy : copies) {
    Value inside = copy.valid;
    if (k % depth != 0) {
      Value within = b.less(b.add(from, copy.k), k);
      inside = inside ? b.both(inside, within) : within;
    }
    Value target = b.sharedAt(memory, b.add(stageStart, copy.offset));
    Value source = b.at(copy.source, element,
                        b.mul(b.toI64(inside ? b.select(inside, from, b.i32(0))
                                             : from),
                              copy.step));
    Value bytes = inside ? b.select(inside, b.i32(16), b.i32(0)) : Value();
    NVVM::CpAsyncOp::create(b, target, source, 16,
                            NVVM::LoadCacheModifierKind::CG, bytes);
  }
}

//===----------------------------------------------------------------------===//
// To registers
//===----------------------------------------------------------------------===//

/// Multiply what stage `stage` has; four sums for each tile of a warp, row by row
/// of tiles.
SmallVector<Value> MmaSyncKernel::multiply(Value stage,
                                           SmallVector<Value> sums) {
  Value start = b.mul(stage, stageBytes);
  bool alongK = op.getTransposed();
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value upper = b.shiftRight(lane, 4);
  Value lhsLine = b.add(warpRow, b.bitAnd(lane, 15));
  for (int64_t step = 0; step < depth / 16; ++step) {
    SmallVector<SmallVector<Value>> x, y;
    for (int64_t i = 0; i < rowTiles; ++i) {
      Value offset = swizzled(b, b.add(lhsLine, i * 16),
                              b.add(upper, step * 2), 8);
      x.push_back(loadMatrices(b.add(start, offset)));
    }
    for (int64_t i = 0; i < columnTiles; i += 2) {
      Value offset;
      if (alongK) {
        Value line = b.add(b.add(warpColumn, i * 8),
                           b.add(low, b.shiftLeft(upper, 3)));
        offset = swizzled(b, line, b.add(half, step * 2), 8);
      } else {
        Value line = b.add(b.add(low, b.shiftLeft(half, 3)), step * 16);
        Value chunk =
            b.add(b.add(b.shiftRight(warpColumn, 3), i), upper);
        offset = swizzled(b, line, chunk, tileColumns / 8);
      }
      SmallVector<Value> loaded =
          loadMatrices(b.add(b.add(start, offset), lhsBytes), !alongK);
      y.push_back({loaded[0], loaded[1]});
      y.push_back({loaded[2], loaded[3]});
    }
    for (int64_t i = 0; i < rowTiles; ++i)
      for (int64_t j = 0; j < columnTiles; ++j)
        multiplyTile(element, x[i], y[j],
                     MutableArrayRef(sums).slice((i * columnTiles + j) * 4, 4));
  }
  return sums;
}

//===----------------------------------------------------------------------===//
// Tiles
//===----------------------------------------------------------------------===//

void MmaSyncKernel::computeTile(const TilePlace &place) {
  SmallVector<Copy> copies = lhsCopies(place);
  llvm::append_range(copies, weightCopies(place));
  // A thread without a line of lhs must not bring one.
  auto bring = [&](Value step, Value stage) {
    for (const Copy &copy : copies) {
      bool isLhs = &copy < copies.begin() + llvm::divideCeil(tileRows * 8, threads);
      if (isLhs && tileRows * 8 < threads) {
        Copy always = copy;
        always.valid = Value();
        b.ifThen(copy.valid, [&] { issue(always, step, stage); });
      } else {
        issue(copy, step, stage);
      }
    }
  };
  auto multiplyStage = [&](Value, Value stage, ValueRange sums,
                           llvm::function_ref<void()> arrive) {
    arrive();
    return multiply(stage, llvm::to_vector(sums));
  };
  store(place, sumOverStages(llvm::divideCeil(k, depth), bring, multiplyStage));
}

LLVM::LLVMFuncOp mlir::moe::buildMmaSyncKernel(const GroupedKernelRequest &request, DeviceLowering &lowering) {
  return MmaSyncKernel(request, lowering).build();
}
