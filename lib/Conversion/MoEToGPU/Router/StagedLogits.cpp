//===- StagedLogits.cpp - Router GEMM of many tokens ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// cp.async copies tokens and weights to shared memory, in stages along k. Each
// warp has a part of the tile. To have the bits of the other router kernels,
// whose warps split k, it adds the products of one such part of k, a segment,
// to accumulators of their own, and these to the sums, in the order of k.
// Within a segment, too, a lane has the elements of k that it has there.
//
// A row of a stage has 64 elements, or 32 where segments are odd multiples of
// that. A lane reads 16 bytes, eight lanes two adjacent rows at a time: in rows
// of 128 bytes the halves of odd rows change places, so that these have
// different banks.
//
//===----------------------------------------------------------------------===//

#include "RouterKernel.h"

using namespace mlir;
using namespace mlir::moe;

static constexpr int64_t chunkElements = 8; // 16 bytes
static constexpr int64_t stepElements = 32; // of two mma.sync

RouterKernel::Staging RouterKernel::chooseStaging() const {
  Staging its;
  int64_t steps = llvm::divideCeil(llvm::divideCeil(k, stepElements), warps);
  its.depth = steps % 2 == 0 ? 64 : 32;
  its.segments = llvm::divideCeil(k, steps * stepElements);
  its.segmentStages = steps * stepElements / its.depth;

  // The fewest tiles of a warp, then the fewest fragments that it loads.
  int64_t rowTiles = shape.rowTiles;
  int64_t columnTiles = llvm::divideCeil(std::min(experts, stagedExperts), 8);
  int64_t least = INT64_MAX;
  for (int64_t rows = 1; rows <= warps; rows *= 2) {
    if (rowTiles % rows != 0)
      continue;
    int64_t columns = warps / rows;
    int64_t ofRows = rowTiles / rows;
    int64_t ofColumns = llvm::divideCeil(columnTiles, columns);
    int64_t cost = ofRows * ofColumns * 1024 + 2 * ofRows + ofColumns;
    if (cost >= least)
      continue;
    least = cost;
    its.warpRows = rows;
    its.warpColumns = columns;
    its.rowTiles = ofRows;
    its.columnTiles = ofColumns;
  }
  its.columns = its.warpColumns * its.columnTiles * 8;

  // As many stages as fit, for 256 elements along k.
  int64_t stageBytes = (shape.getTokens() + its.columns) * its.rowBytes();
  int64_t others =
      router.route ? RouteEmitter::histogramBytes(router.route) : 0;
  if (experts > its.columns)
    others += llvm::alignTo(getLogitBytes(), 4);
  int64_t fitting = (lowering.gpu.getSharedBytes() - others) / stageBytes;
  its.stages = std::clamp<int64_t>(fitting, 2, 256 / its.depth);
  return its;
}

/// Returns the offset in bytes of a chunk in a stage.
static Value chunkOffset(GPUBuilder &b, Value row, Value chunk,
                         int64_t rowBytes) {
  if (rowBytes == 128)
    chunk = b.bitXor(chunk, b.shiftLeft(b.bitAnd(row, 1), 2));
  return b.add(b.mul(row, rowBytes), b.shiftLeft(chunk, 4));
}

/// Copies the elements of k of stage `index`: the threads copy rows of the
/// tile, then of the weights, adjacent ones adjacent chunks of a row. A copy of
/// no bytes writes zeros, and reads nothing: beyond k, and beyond the last row.
void RouterKernel::copyStage(Value firstColumn, Value index, Value slot) {
  int64_t chunks = staging.depth / chunkElements, tokens = shape.getTokens();
  int64_t rowsAtOnce = warps * GPUBuilder::warpSize / chunks;
  int64_t covered = staging.segments * staging.segmentStages * staging.depth;
  // Nothing of this may be computed ahead of the loop over stages, for which
  // there are no registers.
  Value self = b.opaque(thread);
  Value chunk = b.rem(self, chunks), row = b.div(self, chunks);
  Value column =
      b.add(b.mul(index, staging.depth), b.mul(chunk, chunkElements));
  Value within = covered != k ? b.less(column, k) : Value();
  // A multiple of two rows further on, chunks are in the same order.
  Value byte = b.add(b.mul(slot, getStageBytes()),
                     chunkOffset(b, row, chunk, staging.rowBytes()));
  auto copyRows = [&](Value pointer, Type type, Value firstRow, Value rows,
                      int64_t stageRow, int64_t count) {
    Value start =
        b.add(b.mul(b.toI64(b.add(firstRow, row)), k), b.toI64(column));
    Value source = b.at(pointer, type, start);
    for (int64_t i = 0; i < count; i += rowsAtOnce) {
      Value valid = b.less(b.add(row, i), rows);
      if (within)
        valid = b.both(valid, within);
      auto copy = [&] {
        Value target = b.sharedAt(
            memory, b.add(byte, (stageRow + i) * staging.rowBytes()));
        NVVM::CpAsyncOp::create(b, target, b.at(source, type, b.i64(i * k)), 16,
                                NVVM::LoadCacheModifierKind::CG,
                                b.select(valid, b.i32(16), b.i32(0)));
      };
      if (count - i < rowsAtOnce)
        b.ifThen(b.less(b.add(row, i), count), copy);
      else
        copy();
    }
  };
  copyRows(x, xType, first, valid, 0, tokens);
  copyRows(weights, weightType, firstColumn, b.sub(b.i32(experts), firstColumn),
           tokens, staging.columns);
}

/// Adds the products of a stage to the sums of this warp.
SmallVector<Value> RouterKernel::multiplyStage(Value slot, ValueRange sums) {
  Value self = b.opaque(thread), ownWarp = b.shiftRight(self, 5);
  Value group = b.bitAnd(b.shiftRight(self, 2), 7), within = b.bitAnd(self, 3);
  Value stage = b.mul(slot, getStageBytes());
  Value own = chunkOffset(b, group, within, staging.rowBytes());
  Value row = b.mul(b.div(ownWarp, staging.warpColumns), staging.rowTiles * 16);
  Value column =
      b.add(b.mul(b.rem(ownWarp, staging.warpColumns), staging.columnTiles * 8),
            shape.getTokens());
  auto type = VectorType::get(chunkElements, xType);
  auto loadRow = [&](Value start, int64_t offset, int64_t half) {
    Value rowStart = b.mul(b.add(start, offset), staging.rowBytes());
    Value byte = b.add(rowStart, b.bitXor(own, half * 64));
    return b.load(type, b.sharedAt(memory, b.add(stage, byte)), 16);
  };
  SmallVector<Value> next(sums);
  for (int64_t half = 0; half < staging.depth / stepElements; ++half) {
    SmallVector<Value> xs;
    for (int64_t i = 0; i < 2 * staging.rowTiles; ++i)
      xs.push_back(loadRow(row, i * 8, half));
    for (int64_t j = 0; j < staging.columnTiles; ++j) {
      Value y = loadRow(column, j * 8, half);
      for (int64_t i = 0; i < staging.rowTiles; ++i)
        multiplyFragment(
            xs[2 * i], xs[2 * i + 1], y,
            MutableArrayRef(next).slice((i * staging.columnTiles + j) * 4, 4));
    }
  }
  return next;
}

SmallVector<Value> RouterKernel::multiplyStaged(Value firstColumn) {
  int64_t total = staging.segments * staging.segmentStages;
  int64_t count = staging.rowTiles * staging.columnTiles * 4;
  for (int64_t index = 0; index + 1 < staging.stages; ++index) {
    if (index < total)
      copyStage(firstColumn, b.i32(index), b.i32(index));
    NVVM::CpAsyncCommitGroupOp::create(b);
  }
  Value hasRows = b.less(
      b.mul(b.div(warp, staging.warpColumns), staging.rowTiles * 16), valid);
  auto runStage = [&](Value, ValueRange carried) {
    Value index = carried[0], slot = carried[1];
    NVVM::CpAsyncWaitGroupOp::create(b, staging.stages - 2);
    b.barrier();
    Value ahead = b.add(index, staging.stages - 1);
    b.ifThen(b.less(ahead, total), [&] {
      Value previous =
          b.select(b.equal(slot, 0), b.i32(staging.stages - 1), b.sub(slot, 1));
      copyStage(firstColumn, ahead, previous);
    });
    NVVM::CpAsyncCommitGroupOp::create(b);
    SmallVector<Value> sums(carried.drop_front(2));
    auto products = scf::IfOp::create(b, ValueRange(sums).getTypes(), hasRows,
                                      /*withElseRegion=*/true);
    {
      OpBuilder::InsertionGuard guard(b);
      b.setInsertionPointToStart(products.thenBlock());
      scf::YieldOp::create(b, multiplyStage(slot, sums));
      b.setInsertionPointToStart(products.elseBlock());
      scf::YieldOp::create(b, sums);
    }
    Value following = b.add(slot, 1);
    SmallVector<Value> next{
        b.add(index, 1),
        b.select(b.equal(following, staging.stages), b.i32(0), following)};
    llvm::append_range(next, products.getResults());
    return next;
  };
  SmallVector<Value> zeros(count, b.f32(0.0));
  SmallVector<Value> inits{b.i32(0), b.i32(0)};
  llvm::append_range(inits, zeros);
  SmallVector<Value> end =
      b.loop(b.i32(0), b.i32(staging.segments), b.i32(1), inits,
             [&](Value, ValueRange carried) {
               SmallVector<Value> partial(carried.take_front(2));
               llvm::append_range(partial, zeros);
               partial = b.loop(b.i32(0), b.i32(staging.segmentStages),
                                b.i32(1), partial, runStage);
               for (int64_t i = 0; i < count; ++i)
                 partial[i + 2] =
                     arith::AddFOp::create(b, carried[i + 2], partial[i + 2]);
               return partial;
             });
  return SmallVector<Value>(llvm::drop_begin(end, 2));
}

void RouterKernel::storeStaged(Value firstColumn, ValueRange sums) {
  Value self = b.opaque(thread), ownWarp = b.shiftRight(self, 5);
  Value group = b.bitAnd(b.shiftRight(self, 2), 7), within = b.bitAnd(self, 3);
  Value firstRow = b.add(
      b.mul(b.div(ownWarp, staging.warpColumns), staging.rowTiles * 16), group);
  Value ownColumn =
      b.add(b.add(firstColumn, b.mul(b.rem(ownWarp, staging.warpColumns),
                                     staging.columnTiles * 8)),
            b.mul(within, 2));
  for (auto [i, sum] : llvm::enumerate(sums)) {
    int64_t tile = int64_t(i) / 4;
    Value row = b.add(firstRow,
                      tile / staging.columnTiles * 16 + int64_t(i) % 4 / 2 * 8);
    Value column =
        b.add(ownColumn, tile % staging.columnTiles * 8 + int64_t(i) % 2);
    b.ifThen(b.both(b.less(row, valid), b.less(column, experts)), [&] {
      // Logits decide which experts are chosen.
      Value logit =
          DeviceEpilogue(b, router.matmul, extras, EpilogueMath::Precise)
              .build(sum, {b.i32(0), b.add(first, row), column})
              .front();
      b.storeAt(logit, logits, b.add(b.mul(row, experts), column));
    });
  }
}

/// Computes the logits of a tile; ends with a barrier.
void RouterKernel::computeStagedLogits() {
  // Skip a tile without live tokens.
  Value end = b.select(b.equal(valid, 0), b.i32(0), b.i32(experts));
  b.loop(b.i32(0), end, b.i32(staging.columns), [&](Value firstColumn) {
    SmallVector<Value> sums = multiplyStaged(firstColumn);
    // The stages have been read: logits take their place, or other experts.
    b.barrier();
    storeStaged(firstColumn, sums);
  });
  b.barrier();
}
