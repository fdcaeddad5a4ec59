//===- TileScheduler.cpp - Persistent tile scheduler ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TileScheduler.h"

#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

Value TileScheduler::load(Value array, Value index) {
  return b.load(b.getI32Type(), b.at(array, b.getI32Type(), index));
}

/// Returns the first row of an expert, clamped to the rows that exist.
Value TileScheduler::firstRowOf(Value expert) {
  Value start = b.loadAt(b.getI32Type(), offsets, b.add(expert, firstExpert));
  return b.min(b.max(start, b.i32(0)), rows);
}

void TileScheduler::prepare(Value shared) {
  if (!offsets)
    return;
  rowStarts = shared;
  tileStarts = b.sharedAt(shared, (experts + 1) * 4);
  b.ifThen(b.less(b.thread(), GPUBuilder::warpSize), [&] {
    Value lane = b.thread();
    Value last = b.i32(experts);
    Value total =
        b.loop(b.i32(0), last, b.i32(GPUBuilder::warpSize), {b.i32(0)},
               [&](Value from, ValueRange carried) {
                 Value expert = b.add(from, lane);
                 Value valid = b.less(expert, last);
                 Value clamped = b.min(expert, experts - 1);
                 Value start = firstRowOf(clamped),
                       end = firstRowOf(b.add(clamped, 1));
                 // Descending offsets count as no rows.
                 Value count = b.max(b.sub(end, start), b.i32(0));
                 Value outside = b.either(b.less(count, range.min),
                                          b.less(range.max, count));
                 Value takes = b.both(valid, b.logicalNot(outside));
                 Value tiles =
                     b.select(takes, b.ceilDiv(count, tileRows), b.i32(0));
                 Value scan = b.scanWarp(tiles);
                 b.ifThen(valid, [&] {
                   Type i32 = b.getI32Type();
                   b.store(start, b.at(rowStarts, i32, expert));
                   b.store(b.add(carried[0], b.sub(scan, tiles)),
                           b.at(tileStarts, i32, expert));
                 });
                 Value warpTotal = b.shuffle(scan, b.i32(31));
                 return SmallVector<Value>{b.add(carried[0], warpTotal)};
               })
            .front();
    b.ifThen(b.equal(lane, 0), [&] {
      Type i32 = b.getI32Type();
      b.store(firstRowOf(last), b.at(rowStarts, i32, last));
      b.store(total, b.at(tileStarts, i32, last));
    });
  });
  b.barrier();
}

Value TileScheduler::rowTileCount() {
  return offsets ? load(tileStarts, b.i32(experts)) : b.ceilDiv(rows, tileRows);
}

Value TileScheduler::tileCount() { return b.mul(rowTileCount(), columnTiles); }

TileCoord TileScheduler::tileAt(Value index) {
  Value firstTile = b.i32(0), start = b.i32(0), end = rows;
  Value expert = b.i32(0), rowTiles;
  if (!offsets) {
    rowTiles = b.ceilDiv(rows, tileRows);
  } else {
    // Binary search for the last expert whose first row tile is not after this
    // one; that skips experts without tiles.
    Value rowTile = b.div(index, columnTiles);
    for (int64_t step = llvm::PowerOf2Ceil(experts + 1) / 2; step > 0;
         step /= 2) {
      Value next = b.add(expert, step);
      Value clamped = b.min(next, experts);
      Value advances =
          b.both(b.less(next, experts),
                 b.logicalNot(b.less(rowTile, load(tileStarts, clamped))));
      expert = b.select(advances, next, expert);
    }
    firstTile = load(tileStarts, expert);
    rowTiles = b.sub(load(tileStarts, b.add(expert, 1)), firstTile);
    start = load(rowStarts, expert);
    end = load(rowStarts, b.add(expert, 1));
  }
  // Row tiles run fastest: they share a tile of the weights.
  Value local = b.sub(index, b.mul(firstTile, columnTiles));
  Value column = b.div(local, rowTiles);
  Value row = b.sub(local, b.mul(column, rowTiles));
  Value firstRow = b.add(start, b.mul(row, tileRows));
  return {expert, firstRow, b.min(b.sub(end, firstRow), tileRows), column};
}

Value TileScheduler::maxTiles(HostBuilder &host, Value rows, Value minRows,
                              int64_t experts, int64_t tileRows,
                              int64_t columnTiles) {
  Value rowTiles = host.ceilDiv(rows, host.index(tileRows));
  if (minRows) {
    // Each expert with enough rows may have one partial tile.
    Value partial = host.min(host.div(rows, minRows), host.index(experts));
    rowTiles = host.add(host.div(rows, host.index(tileRows)), partial);
  }
  return host.mul(rowTiles, columnTiles);
}
