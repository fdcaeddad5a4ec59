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

#include "GroupedKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t numWarps = 8;
static constexpr int64_t threads = numWarps * GPUBuilder::warpSize;
static constexpr int64_t depth = 64; // a line of 128 bytes
static constexpr int64_t chunkElements = 8;

namespace {
class MmaSyncKernel : public GroupedKernel {
public:
  MmaSyncKernel(GroupedMatmulOp op, TileAttr tile, DeviceLowering &lowering)
      : GroupedKernel(op, tile, lowering), tileRows(tile.getRows()),
        tileColumns(tile.getColumns()), stages(tile.getStages()),
        warpsDown(tileRows >= 64 ? 2 : 1), warpsAcross(numWarps / warpsDown),
        warpRows(tileRows / warpsDown), warpColumns(tileColumns / warpsAcross),
        rowTiles(warpRows / 16), columnTiles(warpColumns / 8),
        lhsBytes(tileRows * depth * 2),
        stageBytes(lhsBytes + tileColumns * depth * 2) {}

  LLVM::LLVMFuncOp build();

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
  /// The product and the column, within the tile's share, of line or chunk `slot`
  /// of the weights' tile: warps have columns of each product side by side.
  std::pair<Value, Value> weightColumn(Value slot);
  void issue(ArrayRef<Copy> copies, Value step, Value stage);
  SmallVector<Value> loadMatrices(Value address, bool transposed);
  SmallVector<Value> multiply(Value stage, SmallVector<Value> sums);
  Value multiplyTile(ArrayRef<Value> x, ArrayRef<Value> y,
                     ArrayRef<Value> sums);
  void computeTile(const TilePlace &place);
  void store(const TilePlace &place, ArrayRef<Value> sums);

  int64_t tileRows, tileColumns, stages;
  int64_t warpsDown, warpsAcross, warpRows, warpColumns, rowTiles, columnTiles;
  int64_t lhsBytes, stageBytes;
  Value memory, thread, lane, warpRow, warpColumn;
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
  for (int64_t i = 0; i < llvm::divideCeil(tileRows * 8, threads); ++i) {
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

std::pair<Value, Value> MmaSyncKernel::weightColumn(Value slot) {
  int64_t warpShare = warpColumns / products;
  Value warp = b.div(slot, warpColumns), within = b.rem(slot, warpColumns);
  return {b.div(within, warpShare),
          b.add(b.mul(warp, warpShare), b.rem(within, warpShare))};
}

SmallVector<MmaSyncKernel::Copy>
MmaSyncKernel::weightCopies(const TilePlace &place) {
  SmallVector<Copy> copies;
  bool alongK = op.getTransposed();
  int64_t chunks = alongK ? 8 : tileColumns / 8; // of a line
  for (int64_t i = 0; i < llvm::divideCeil(tileColumns * 8, threads); ++i) {
    Value number = b.add(thread, i * threads);
    Value line = b.div(number, chunks), chunk = b.rem(number, chunks);
    auto [product, column] =
        weightColumn(alongK ? line : b.shiftLeft(chunk, 3));
    column = b.add(column, b.mul(place.column, share));
    Value kStart = alongK ? b.shiftLeft(chunk, 3) : line;
    Value held = b.min(column, alongK ? n - 1 : n - chunkElements);
    Value base;
    for (int64_t p = 0; p < products; ++p) {
      Value start = b.at(weights[p], element,
                         b.i64(views[p].firstColumn * (alongK ? k : 1)));
      base = base ? b.select(b.equal(product, p), start, base) : start;
    }
    Value offset = b.mul(b.toI64(place.expert), weightColumns * k);
    Value inner =
        alongK ? b.add(b.mul(b.toI64(held), k), b.toI64(kStart))
               : b.add(b.mul(b.toI64(kStart), weightColumns), b.toI64(held));
    Value valid = n % share != 0 ? b.less(column, n) : Value();
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

/// Four 8x8 matrices; each lane says where one line of one of them is.
SmallVector<Value> MmaSyncKernel::loadMatrices(Value address, bool transposed) {
  Type i32 = b.getI32Type();
  auto type = LLVM::LLVMStructType::getLiteral(b.getContext(),
                                               {i32, i32, i32, i32});
  auto shape = NVVM::LdStMatrixShapeAttr::get(b.getContext(), 8, 8);
  Value loaded = NVVM::LdMatrixOp::create(
      b, type, b.sharedAt(memory, address), 4,
      transposed ? NVVM::MMALayout::col : NVVM::MMALayout::row, shape,
      NVVM::LdStMatrixEltType::B16);
  SmallVector<Value> registers;
  for (int64_t i = 0; i < 4; ++i)
    registers.push_back(LLVM::ExtractValueOp::create(b, loaded, i));
  return registers;
}

/// sums + x · y, a tile of 16 rows, 8 columns, 16 along k.
Value MmaSyncKernel::multiplyTile(ArrayRef<Value> x, ArrayRef<Value> y,
                                  ArrayRef<Value> sums) {
  bool isF16 = element.isF16();
  SmallVector<Value> xs(x), ys(y);
  Type f32 = b.getF32Type();
  if (isF16) {
    // f16 operands are pairs by type, bf16 ones by bits.
    auto pair = VectorType::get(2, element);
    auto cast = [&](Value &value) {
      value = LLVM::BitcastOp::create(b, pair, value);
    };
    llvm::for_each(xs, cast);
    llvm::for_each(ys, cast);
  }
  NVVM::MMATypes type = isF16 ? NVVM::MMATypes::f16 : NVVM::MMATypes::bf16;
  return NVVM::MmaOp::create(
      b, LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32}),
      xs, ys, ValueRange(sums), ArrayRef<int64_t>{16, 8, 16}, std::nullopt,
      std::nullopt, std::array<NVVM::MMATypes, 2>{type, type},
      std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                     NVVM::MMALayout::col});
}

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
      x.push_back(loadMatrices(b.add(start, offset), false));
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
      for (int64_t j = 0; j < columnTiles; ++j) {
        MutableArrayRef<Value> four =
            MutableArrayRef(sums).slice((i * columnTiles + j) * 4, 4);
        Value result = multiplyTile(x[i], y[j], four);
        for (int64_t e = 0; e < 4; ++e)
          four[e] = LLVM::ExtractValueOp::create(b, result, e);
      }
  }
  return sums;
}

//===----------------------------------------------------------------------===//
// Tiles
//===----------------------------------------------------------------------===//

void MmaSyncKernel::store(const TilePlace &place, ArrayRef<Value> sums) {
  int64_t across = columnTiles / products;
  Value lowRow = b.shiftRight(lane, 2);
  Value lowColumn = b.shiftLeft(b.bitAnd(lane, 3), 1);
  // A warp's columns of one product.
  Value firstColumn =
      b.add(b.mul(place.column, share),
            b.add(b.div(warpColumn, products), lowColumn));
  for (int64_t i = 0; i < rowTiles; ++i)
    for (int64_t half = 0; half < 2; ++half) {
      Value row = b.add(b.add(warpRow, lowRow), i * 16 + half * 8);
      b.ifThen(b.less(row, place.rows), [&] {
        Value grouped = b.add(place.firstRow, row);
        for (int64_t j = 0; j < across; ++j) {
          SmallVector<Value> pair;
          for (int64_t e = 0; e < 2; ++e)
            for (int64_t p = 0; p < products; ++p)
              pair.push_back(
                  sums[(i * columnTiles + p * across + j) * 4 + half * 2 + e]);
          storePair(place, grouped, b.add(firstColumn, j * 8), pair);
        }
      });
    }
}

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
  Value steps = b.i32(llvm::divideCeil(k, depth));
  for (int64_t stage = 0; stage < stages - 1; ++stage) {
    if (stage < int64_t(llvm::divideCeil(k, depth)))
      bring(b.i32(stage), b.i32(stage));
    NVVM::CpAsyncCommitGroupOp::create(b);
  }
  SmallVector<Value> inits{b.i32(0)};
  inits.append(rowTiles * columnTiles * 4, b.f32(0.0));
  SmallVector<Value> results = b.loop(
      b.i32(0), steps, b.i32(1), inits, [&](Value step, ValueRange carried) {
        Value stage = carried.front();
        // This step's copies have come, and all have read what the next ones
        // overwrite.
        NVVM::CpAsyncWaitGroupOp::create(b, stages - 2);
        b.barrier();
        Value ahead = b.add(step, stages - 1);
        b.ifThen(b.less(ahead, steps), [&] {
          Value next = b.add(stage, stages - 1);
          next = b.select(b.less(next, stages), next, b.sub(next, stages));
          bring(ahead, next);
        });
        NVVM::CpAsyncCommitGroupOp::create(b);
        SmallVector<Value> next{Value()};
        llvm::append_range(
            next, multiply(stage, llvm::to_vector(carried.drop_front())));
        Value following = b.add(stage, 1);
        next.front() =
            b.select(b.equal(following, stages), b.i32(0), following);
        return next;
      });
  store(place, ArrayRef(results).drop_front());
}

LLVM::LLVMFuncOp MmaSyncKernel::build() {
  KernelShape shape;
  shape.threads = threads;
  int64_t scheduleBytes =
      op.getOffsets() ? llvm::alignTo(TileSchedule::sharedBytes(experts), 16)
                      : 0;
  shape.sharedBytes = stages * stageBytes + scheduleBytes;
  auto kernel = create("grouped_matmul", shape);
  memory = b.sharedMemory();
  thread = b.thread();
  lane = b.lane();
  Value warp = b.warp();
  warpRow = b.mul(b.rem(warp, warpsDown), warpRows);
  warpColumn = b.mul(b.div(warp, warpsDown), warpColumns);

  TileSchedule tiles = schedule();
  tiles.prepare(b.sharedAt(memory, stages * stageBytes));
  b.loop(b.block(), tiles.total(), b.numBlocks(), [&](Value number) {
    // The tile before has been read.
    b.barrier();
    computeTile(tiles.find(number));
  });
  return kernel;
}

LLVM::LLVMFuncOp mlir::moe::buildMmaSyncKernel(GroupedMatmulOp op,
                                               TileAttr tile,
                                               DeviceLowering &lowering) {
  return MmaSyncKernel(op, tile, lowering).build();
}
