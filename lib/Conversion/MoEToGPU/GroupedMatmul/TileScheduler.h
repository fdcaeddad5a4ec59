//===- TileScheduler.h - Persistent tile scheduler --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The offsets of the experts' rows are known on the device only. Each block
// computes the prefix sum of the experts' tile counts once; then it maps a
// linear tile index to an expert by binary search. Row tiles run fastest, so
// that blocks in flight at the same time share a tile of the weights in L2. An
// expert with many rows is computed in groups of row tiles, one after the
// other, so that the rows of a group stay in L2 until all columns have been
// computed.
//
// A token's rows are in the tiles of several experts, so sums of these rows are
// ready only towards the end of the last experts. With two passes each expert
// with many row tiles has the first half of them, those of the first tokens, in
// the first pass: the sums of these overlap the second, and reading the weights
// twice is the price.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H

#include "Builder/GPUBuilder.h"
#include "Builder/HostBuilder.h"

namespace mlir::moe {

/// The coordinates of an output tile, i32.
struct TileCoord {
  Value expert;     // index into the weights
  Value firstRow;   // first grouped row
  Value rows;       // valid rows, at most the rows of a tile
  Value columnTile; // index of the tile along n
};

class TileScheduler {
public:
  /// Schedules tiles of `tileRows` rows, `columnTiles` of them along n, for the
  /// `experts` experts from `firstExpert` on. Without `offsets` all `rows`
  /// belong to one expert. Experts with `twoPassTiles` row tiles or more are
  /// computed in two passes; 0 for none. Groups have `groupTiles` row tiles.
  TileScheduler(GPUBuilder &b, Value offsets, Value rows, int64_t firstExpert,
                int64_t experts, int64_t tileRows, int64_t columnTiles,
                int64_t twoPassTiles, int64_t groupTiles)
      : b(b), offsets(offsets), rows(rows), firstExpert(firstExpert),
        experts(experts), tileRows(tileRows), columnTiles(columnTiles),
        twoPassTiles(twoPassTiles), groupTiles(groupTiles),
        twoPasses(twoPassTiles && offsets) {}

  /// Returns the bytes of shared memory for the prefix sums of `experts`
  /// experts.
  static int64_t sharedBytes(int64_t experts) {
    return (experts + 1) * 12 + 2 * GPUBuilder::scanBytes;
  }

  /// Computes the prefix sums in `shared` memory. Must be called by all
  /// `threads` of the block; ends with a barrier if there are offsets.
  void prepare(Value shared, int64_t threads);
  /// Returns the number of tiles.
  Value tileCount();
  /// Returns the number of row tiles of all experts.
  Value rowTileCount();
  /// Returns the coordinates of the tile with linear index `index`.
  TileCoord tileAt(Value index);

  /// Returns, on the host, an upper bound of the tile count for `rows` rows
  /// (`index`) of `experts` experts.
  static Value maxTiles(HostBuilder &host, Value rows, int64_t experts,
                        int64_t tileRows, int64_t columnTiles);

private:
  Value firstRowOf(Value expert);
  Value load(Value array, Value index);
  /// Returns the row tiles of a pass before those of an expert.
  Value tileStartOf(Value expert, Value isSecond);

  GPUBuilder &b;
  Value offsets, rows;
  int64_t firstExpert, experts, tileRows, columnTiles, twoPassTiles, groupTiles;
  bool twoPasses;
  // In shared memory: the first row of each expert, and the row tiles before
  // it, in all and in the first of two passes.
  Value rowStarts, tileStarts, firstPassStarts;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H
