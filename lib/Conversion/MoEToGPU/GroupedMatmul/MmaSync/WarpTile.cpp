//===- WarpTile.cpp - Tile of the mma.sync kernels ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "WarpTile.h"

using namespace mlir;
using namespace mlir::moe;

void WarpTile::startTile() {
  memory = b.sharedMemory();
  thread = b.thread();
  lane = b.lane();
  Value warp = b.warp();
  warpRow = b.mul(b.rem(warp, warpsM), warpRows);
  warpColumn = b.mul(b.div(warp, warpsM), warpColumns);
}

Value WarpTile::swizzledOffset(Value row, Value chunk, int64_t chunks) {
  Value swizzled = b.swizzle128(chunk, row);
  return b.shiftLeft(b.add(b.mul(row, chunks), swizzled), 4);
}

SmallVector<SmallVector<Value>>
WarpTile::loadLhsMNMajor(Value start, int64_t chunks, int64_t step) {
  SmallVector<SmallVector<Value>> fragments;
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value row =
      b.add(b.add(low, b.shiftLeft(b.shiftRight(lane, 4), 3)), step * 16);
  for (int64_t i = 0; i < fragmentsM; ++i) {
    Value chunk = b.add(b.add(b.shiftRight(warpRow, 3), i * 2), half);
    fragments.push_back(
        loadMatrices(b.add(start, swizzledOffset(row, chunk, chunks)),
                     /*transposed=*/true));
  }
  return fragments;
}

SmallVector<SmallVector<Value>>
WarpTile::loadRhsMNMajor(Value start, int64_t chunks, int64_t step) {
  SmallVector<SmallVector<Value>> fragments;
  Value low = b.bitAnd(lane, 7), half = b.bitAnd(b.shiftRight(lane, 3), 1);
  Value row = b.add(b.add(low, b.shiftLeft(half, 3)), step * 16);
  for (int64_t i = 0; i < fragmentsN; i += 2) {
    Value chunk =
        b.add(b.add(b.shiftRight(warpColumn, 3), i), b.shiftRight(lane, 4));
    SmallVector<Value> loaded =
        loadMatrices(b.add(start, swizzledOffset(row, chunk, chunks)),
                     /*transposed=*/true);
    fragments.push_back({loaded[0], loaded[1]});
    fragments.push_back({loaded[2], loaded[3]});
  }
  return fragments;
}

SmallVector<Value> WarpTile::loadMatrices(Value address, bool transposed) {
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

SmallVector<Value> WarpTile::mainloop(Value steps, std::optional<int64_t> known,
                                      LoadStage loadStage,
                                      MultiplyStage multiplyStage) {
  for (int64_t stage = 0; stage < stages - 1; ++stage) {
    auto load = [&] { loadStage(b.i32(stage), b.i32(stage)); };
    if (!known)
      b.ifThen(b.less(b.i32(stage), steps), load);
    else if (stage < *known)
      load();
    NVVM::CpAsyncCommitGroupOp::create(b);
  }
  SmallVector<Value> inits{b.i32(0)};
  inits.append(fragmentsM * fragmentsN * 4, b.f32(0.0));
  SmallVector<Value> results = b.loop(
      b.i32(0), steps, b.i32(1), inits, [&](Value step, ValueRange carried) {
        Value stage = carried.front();
        auto waitStage = [&] {
          // After the barrier the stage is visible to all threads, and all have
          // read the stage that the next copies overwrite.
          NVVM::CpAsyncWaitGroupOp::create(b, stages - 2);
          b.barrier();
          Value ahead = b.add(step, stages - 1);
          b.ifThen(b.less(ahead, steps), [&] {
            Value target = b.add(stage, stages - 1);
            target =
                b.select(b.less(target, stages), target, b.sub(target, stages));
            loadStage(ahead, target);
          });
          NVVM::CpAsyncCommitGroupOp::create(b);
        };
        SmallVector<Value> next{Value()};
        llvm::append_range(
            next, multiplyStage(step, stage, carried.drop_front(), waitStage));
        Value following = b.add(stage, 1);
        next.front() =
            b.select(b.equal(following, stages), b.i32(0), following);
        return next;
      });
  results.erase(results.begin());
  return results;
}
