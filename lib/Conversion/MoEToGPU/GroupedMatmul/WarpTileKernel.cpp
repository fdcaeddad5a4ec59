//===- WarpTileKernel.cpp - What kernels with mma.sync share --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WarpTileKernel.h"

using namespace mlir;
using namespace mlir::moe;

LLVM::LLVMFuncOp WarpTileKernel::buildKernel(
    StringRef name, int64_t stageBytes,
    llvm::function_ref<void(const TilePlace &)> computeTile) {
  KernelShape shape;
  shape.threads = threads;
  int64_t scheduleBytes =
      op.getOffsets() ? llvm::alignTo(TileSchedule::sharedBytes(experts), 16)
                      : 0;
  shape.sharedBytes = stages * stageBytes + scheduleBytes;
  auto kernel = create(name, shape);
  memory = b.sharedMemory();
  thread = b.thread();
  lane = b.lane();
  Value warp = b.warp();
  warpRow = b.mul(b.rem(warp, warpsDown), warpRows);
  warpColumn = b.mul(b.div(warp, warpsDown), warpColumns);

  TileSchedule tiles = schedule();
  tiles.prepare(b.sharedAt(memory, stages * stageBytes));
  sumWithoutTiles(tiles, threads);
  b.loop(b.block(), tiles.total(), b.numBlocks(), [&](Value number) {
    // The tile before has been read.
    b.barrier();
    TilePlace place = tiles.find(number);
    computeTile(place);
    arriveAtSum(
        tiles, place, warp, numWarps,
        {firstColumn(place, 0), warpColumns, /*count=*/1, /*stride=*/0});
  });
  return kernel;
}

std::pair<Value, Value> WarpTileKernel::weightColumn(Value slot) {
  int64_t warpShare = warpColumns / viewCount();
  Value warp = b.div(slot, warpColumns), within = b.rem(slot, warpColumns);
  return {b.div(within, warpShare),
          b.add(b.mul(warp, warpShare), b.rem(within, warpShare))};
}

SmallVector<Value> WarpTileKernel::loadMatrices(Value address,
                                                bool transposed) {
  Type i32 = b.getI32Type();
  auto type =
      LLVM::LLVMStructType::getLiteral(b.getContext(), {i32, i32, i32, i32});
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

void WarpTileKernel::multiplyTile(Type factor, ArrayRef<Value> x,
                                  ArrayRef<Value> y,
                                  MutableArrayRef<Value> sums) {
  bool isF16 = factor.isF16();
  SmallVector<Value> xs(x), ys(y);
  Type f32 = b.getF32Type();
  if (isF16) {
    // f16 operands are pairs by type, bf16 ones by bits.
    auto pair = VectorType::get(2, factor);
    auto cast = [&](Value &value) {
      value = LLVM::BitcastOp::create(b, pair, value);
    };
    llvm::for_each(xs, cast);
    llvm::for_each(ys, cast);
  }
  NVVM::MMATypes type = isF16 ? NVVM::MMATypes::f16 : NVVM::MMATypes::bf16;
  Value result = NVVM::MmaOp::create(
      b, LLVM::LLVMStructType::getLiteral(b.getContext(), {f32, f32, f32, f32}),
      xs, ys, ValueRange(ArrayRef<Value>(sums)), ArrayRef<int64_t>{16, 8, 16},
      std::nullopt, std::nullopt, std::array<NVVM::MMATypes, 2>{type, type},
      std::array<NVVM::MMALayout, 2>{NVVM::MMALayout::row,
                                     NVVM::MMALayout::col});
  for (auto [i, sum] : llvm::enumerate(sums))
    sum = LLVM::ExtractValueOp::create(b, result, i);
}

SmallVector<Value> WarpTileKernel::sumOverStages(int64_t steps, Bring bring,
                                                 Multiply multiply) {
  for (int64_t stage = 0; stage < stages - 1; ++stage) {
    if (stage < steps)
      bring(b.i32(stage), b.i32(stage));
    NVVM::CpAsyncCommitGroupOp::create(b);
  }
  SmallVector<Value> inits{b.i32(0)};
  inits.append(rowTiles * columnTiles * 4, b.f32(0.0));
  SmallVector<Value> results = b.loop(
      b.i32(0), b.i32(steps), b.i32(1), inits,
      [&](Value step, ValueRange carried) {
        Value stage = carried.front();
        auto arrive = [&] {
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
        };
        SmallVector<Value> next{Value()};
        llvm::append_range(next,
                           multiply(step, stage, carried.drop_front(), arrive));
        Value following = b.add(stage, 1);
        next.front() =
            b.select(b.equal(following, stages), b.i32(0), following);
        return next;
      });
  results.erase(results.begin());
  return results;
}

Value WarpTileKernel::firstColumn(const TilePlace &place, int64_t piece) {
  return b.add(b.add(b.mul(place.column, share), b.div(warpColumn, products)),
               piece * 8);
}

void WarpTileKernel::store(const TilePlace &place, ArrayRef<Value> sums) {
  int64_t ofRowTile = columnTiles * 4;
  for (int64_t i = 0; i < rowTiles; ++i)
    storePieces(place, b.add(warpRow, i * 16), firstColumn(place, 0),
                columnTiles,
                [&](int64_t sum) { return sums[i * ofRowTile + sum]; });
}
