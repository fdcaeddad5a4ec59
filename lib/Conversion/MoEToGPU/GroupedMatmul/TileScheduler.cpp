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

void TileScheduler::prepare(Value shared, int64_t threads) {
  if (!offsets)
    return;
  Type i32 = b.getI32Type();
  rowStarts = shared;
  tileStarts = b.sharedAt(shared, (experts + 1) * 4);
  firstPassStarts = b.sharedAt(shared, (experts + 1) * 8);
  Value scratch = b.sharedAt(shared, (experts + 1) * 12);
  // A thread has a few adjacent experts and loads all of their offsets at once.
  int64_t count = llvm::divideCeil(experts, threads);
  Value first = b.mul(b.thread(), count);
  SmallVector<Value> starts, tiles, firstPass;
  for (int64_t i = 0; i <= count; ++i)
    starts.push_back(firstRowOf(b.min(b.add(first, i), experts)));
  Value total = b.i32(0), firstTotal = b.i32(0);
  for (int64_t i = 0; i < count; ++i) {
    // Descending offsets count as no rows. A thread without an expert has none.
    Value rows = b.max(b.sub(starts[i + 1], starts[i]), b.i32(0));
    tiles.push_back(b.ceilDiv(rows, tileRows));
    total = b.add(total, tiles.back());
    if (!twoPasses)
      continue;
    firstPass.push_back(b.select(b.less(tiles.back(), twoPassTiles), b.i32(0),
                                 b.shiftRight(tiles.back(), 1)));
    firstTotal = b.add(firstTotal, firstPass.back());
  }
  int64_t warps = llvm::divideCeil(experts, count * GPUBuilder::warpSize);
  Value tileStart = b.sub(b.scanBlock(total, scratch, warps), total);
  Value firstStart;
  if (twoPasses)
    firstStart =
        b.sub(b.scanBlock(firstTotal,
                          b.sharedAt(scratch, GPUBuilder::scanBytes), warps),
              firstTotal);
  for (int64_t i = 0; i < count; ++i) {
    Value expert = b.add(first, i);
    b.ifThen(b.less(expert, experts), [&] {
      b.store(starts[i], b.at(rowStarts, i32, expert));
      b.store(tileStart, b.at(tileStarts, i32, expert));
      if (twoPasses)
        b.store(firstStart, b.at(firstPassStarts, i32, expert));
    });
    tileStart = b.add(tileStart, tiles[i]);
    if (twoPasses)
      firstStart = b.add(firstStart, firstPass[i]);
    b.ifThen(b.equal(expert, experts - 1), [&] {
      b.store(starts[i + 1], b.at(rowStarts, i32, b.i32(experts)));
      b.store(tileStart, b.at(tileStarts, i32, b.i32(experts)));
      if (twoPasses)
        b.store(firstStart, b.at(firstPassStarts, i32, b.i32(experts)));
    });
  }
  b.barrier();
}

Value TileScheduler::rowTileCount() {
  return offsets ? load(tileStarts, b.i32(experts)) : b.ceilDiv(rows, tileRows);
}

Value TileScheduler::tileCount() { return b.mul(rowTileCount(), columnTiles); }

Value TileScheduler::tileStartOf(Value expert, Value isSecond) {
  Value start = load(tileStarts, expert);
  if (!isSecond)
    return start;
  Value first = load(firstPassStarts, expert);
  return b.select(isSecond, b.sub(start, first), first);
}

TileCoord TileScheduler::tileAt(Value index) {
  Value firstTile = b.i32(0), start = b.i32(0), end = rows;
  Value expert = b.i32(0), rowTiles;
  if (!offsets) {
    rowTiles = b.ceilDiv(rows, tileRows);
  } else {
    Value isSecond;
    if (twoPasses) {
      Value firstTiles =
          b.mul(load(firstPassStarts, b.i32(experts)), columnTiles);
      isSecond = b.logicalNot(b.less(index, firstTiles));
      index = b.sub(index, b.select(isSecond, firstTiles, b.i32(0)));
    }
    // Binary search for the last expert whose first row tile is not after this
    // one; that skips experts without tiles.
    Value rowTile = b.div(index, columnTiles);
    for (int64_t step = llvm::PowerOf2Ceil(experts + 1) / 2; step > 0;
         step /= 2) {
      Value next = b.add(expert, step);
      Value clamped = b.min(next, experts);
      Value advances =
          b.both(b.less(next, experts),
                 b.logicalNot(b.less(rowTile, tileStartOf(clamped, isSecond))));
      expert = b.select(advances, next, expert);
    }
    firstTile = tileStartOf(expert, isSecond);
    rowTiles = b.sub(tileStartOf(b.add(expert, 1), isSecond), firstTile);
    start = load(rowStarts, expert);
    if (twoPasses) {
      Value before = b.sub(load(firstPassStarts, b.add(expert, 1)),
                           load(firstPassStarts, expert));
      start =
          b.add(start, b.select(isSecond, b.mul(before, tileRows), b.i32(0)));
    }
    end = load(rowStarts, b.add(expert, 1));
  }
  // Row tiles of a group run fastest: they share a tile of the weights.
  Value local = b.sub(index, b.mul(firstTile, columnTiles));
  Value before = b.i32(0);
  if (columnTiles > 1) {
    before = b.mul(b.div(local, groupTiles * columnTiles), groupTiles);
    local = b.sub(local, b.mul(before, columnTiles));
    rowTiles = b.min(b.sub(rowTiles, before), groupTiles);
  }
  Value column = b.div(local, rowTiles);
  Value row = b.add(before, b.sub(local, b.mul(column, rowTiles)));
  Value firstRow = b.add(start, b.mul(row, tileRows));
  return {expert, firstRow, b.min(b.sub(end, firstRow), tileRows), column};
}

Value TileScheduler::maxTiles(HostBuilder &host, Value rows, int64_t experts,
                              int64_t tileRows, int64_t columnTiles) {
  Value rowTiles = host.ceilDiv(rows, host.index(tileRows));
  if (experts > 1) {
    // Each expert with rows may have one partial tile.
    Value partial = host.min(rows, host.index(experts));
    rowTiles = host.add(host.div(rows, host.index(tileRows)), partial);
  }
  return host.mul(rowTiles, columnTiles);
}
