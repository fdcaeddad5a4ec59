//===- TileScheduler.h - Which tile a block computes ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The experts' rows begin where the router said, which only the device knows.
// Each block adds up how many tiles the experts have, once; then it finds the
// expert of a tile by its number. The tiles of an expert that share weights
// follow one another, so that blocks at work at the same time find them in the
// cache.
//
// Of two kernels of one product each takes the experts whose rows suit its
// tile: those of others have no tiles for it.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

/// A tile of one expert.
struct TilePlace {
  Value expert;   // number of its weights
  Value firstRow; // of the grouped rows
  Value rows;     // how many there are from there on, up to all of a tile
  Value column;   // number of the tile along the columns
};

/// Experts with `least` to `most` rows (i32).
struct RowRange {
  Value least, most;
};

class TileSchedule {
public:
  /// Tiles of `tileRows` rows, `columnTiles` of them side by side, of experts
  /// `firstExpert` and on, with rows in `range`. Without `offsets` all `rows`
  /// are of one expert, and there is no range.
  TileSchedule(GPUBuilder &b, Value offsets, Value rows, RowRange range,
               int64_t firstExpert, int64_t experts, int64_t tileRows,
               int64_t columnTiles)
      : b(b), offsets(offsets), rows(rows), range(range),
        firstExpert(firstExpert), experts(experts), tileRows(tileRows),
        columnTiles(columnTiles) {}

  /// Bytes of shared memory that `experts` experts need.
  static int64_t sharedBytes(int64_t experts) { return (experts + 1) * 8; }

  /// Add up the tiles in `shared` memory. All threads of the block take part and
  /// are in step afterwards.
  void prepare(Value shared);
  /// The number of tiles, after `prepare`.
  Value total();
  /// Those below each other, of all experts.
  Value rowTiles();
  /// Tile `number`, below `total`.
  TilePlace find(Value number);

  /// At most so many tiles for `rows` rows (an `index` on the host), of experts
  /// with at least `leastRows` of them; without that all are of one expert.
  static Value bound(ImplicitLocOpBuilder &host, Value rows, Value leastRows,
                     int64_t experts, int64_t tileRows, int64_t columnTiles);

private:
  Value startOf(Value expert);
  Value load(Value array, Value index);

  GPUBuilder &b;
  Value offsets, rows;
  RowRange range;
  int64_t firstExpert, experts, tileRows, columnTiles;
  Value starts, tiles; // shared: first row of each expert, tiles before it
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDMATMUL_TILESCHEDULER_H
