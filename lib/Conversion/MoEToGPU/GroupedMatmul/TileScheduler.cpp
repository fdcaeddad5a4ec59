//===- TileScheduler.cpp - Which tile a block computes --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TileScheduler.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

Value TileSchedule::load(Value array, Value index) {
  return b.load(b.getI32Type(), b.at(array, b.getI32Type(), index));
}

/// The first row of an expert, held to the rows that there are.
Value TileSchedule::startOf(Value expert) {
  Value start = b.loadAt(b.getI32Type(), offsets, b.add(expert, firstExpert));
  return b.min(b.max(start, b.i32(0)), rows);
}

void TileSchedule::prepare(Value shared) {
  if (!offsets)
    return;
  starts = shared;
  tiles = b.sharedAt(shared, (experts + 1) * 4);
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value last = b.i32(experts);
    Value total =
        b.loop(b.i32(0), last, b.i32(GPUBuilder::warpSize), {b.i32(0)},
               [&](Value from, ValueRange carried) {
                 Value expert = b.add(from, lane);
                 Value there = b.less(expert, last);
                 Value held = b.min(expert, experts - 1);
                 Value start = startOf(held), end = startOf(b.add(held, 1));
                 // Offsets that go down are no rows.
                 Value count = b.max(b.sub(end, start), b.i32(0));
                 Value others = b.either(b.less(count, range.least),
                                         b.less(range.most, count));
                 Value takes = b.both(there, b.logicalNot(others));
                 Value own =
                     b.select(takes, b.ceilDiv(count, tileRows), b.i32(0));
                 Value sum = b.scanWarp(own);
                 b.ifThen(there, [&] {
                   Type i32 = b.getI32Type();
                   b.store(start, b.at(starts, i32, expert));
                   b.store(b.add(carried[0], b.sub(sum, own)),
                           b.at(tiles, i32, expert));
                 });
                 Value warpSum = b.shuffle(sum, b.i32(31));
                 return SmallVector<Value>{b.add(carried[0], warpSum)};
               })
            .front();
    b.ifThen(b.equal(lane, 0), [&] {
      Type i32 = b.getI32Type();
      b.store(startOf(last), b.at(starts, i32, last));
      b.store(total, b.at(tiles, i32, last));
    });
  });
  b.barrier();
}

Value TileSchedule::rowTiles() {
  return offsets ? load(tiles, b.i32(experts)) : b.ceilDiv(rows, tileRows);
}

Value TileSchedule::total() { return b.mul(rowTiles(), columnTiles); }

TilePlace TileSchedule::find(Value number) {
  Value first = b.i32(0), start = b.i32(0), end = rows;
  Value expert = b.i32(0), count;
  if (!offsets) {
    count = b.ceilDiv(rows, tileRows);
  } else {
    // The last expert that has no more row tiles before it: those without any are
    // passed over.
    Value wanted = b.div(number, columnTiles);
    for (int64_t step = llvm::PowerOf2Ceil(experts + 1) / 2; step > 0;
         step /= 2) {
      Value next = b.add(expert, step);
      Value held = b.min(next, experts);
      Value goes = b.both(b.less(next, experts),
                          b.logicalNot(b.less(wanted, load(tiles, held))));
      expert = b.select(goes, next, expert);
    }
    first = load(tiles, expert);
    count = b.sub(load(tiles, b.add(expert, 1)), first);
    start = load(starts, expert);
    end = load(starts, b.add(expert, 1));
  }
  // Row tiles run fastest: they read the same weights.
  Value local = b.sub(number, b.mul(first, columnTiles));
  Value column = b.div(local, count);
  Value row = b.sub(local, b.mul(column, count));
  Value firstRow = b.add(start, b.mul(row, tileRows));
  return {expert, firstRow, b.min(b.sub(end, firstRow), tileRows), column};
}

Value TileSchedule::bound(ImplicitLocOpBuilder &host, Value rows,
                          Value leastRows, int64_t experts, int64_t tileRows,
                          int64_t columnTiles) {
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(host, value);
  };
  Value whole = arith::CeilDivUIOp::create(host, rows, index(tileRows));
  if (leastRows) {
    // Each expert with enough rows may have one tile that is not full.
    Value partial = arith::MinUIOp::create(
        host, arith::DivUIOp::create(host, rows, leastRows), index(experts));
    whole = arith::AddIOp::create(
        host, arith::DivUIOp::create(host, rows, index(tileRows)), partial);
  }
  return arith::MulIOp::create(host, whole, index(columnTiles));
}
