//===- TileChoice.h - One tile for all experts, or two ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// On a GPU a grouped matmul has tiles of several heights. The host knows the
// average rows of an expert and takes the first tile that holds them, or the
// last one. Only the device knows the rows of each expert: where some may have
// many more or far fewer, the host launches two tiles, and the device assigns
// each expert to one of them by its rows.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TILECHOICE_H
#define MOE_ANALYSIS_TILECHOICE_H

#include "llvm/ADT/ArrayRef.h"

#include <optional>

namespace mlir::moe {

/// When a grouped matmul takes two tiles: the last, for experts with more than
/// `limit` rows, and one before it for the others, chosen by the average rows.
struct TwoTiles {
  /// An expert with up to this many rows takes the first tile. An expert with
  /// more rows than the last tile but one holds is better off with the last
  /// tile, which reads the weights once instead of once per low tile.
  int64_t limit;
  /// The rows of two of the last tiles. If all experts together have no more, a
  /// second launch does not pay; if the average expert has more, only few tiles
  /// are partly empty.
  int64_t extent;

  /// For tiles of these heights, in ascending order; none if the last two are
  /// equal.
  static std::optional<TwoTiles> of(llvm::ArrayRef<int64_t> tiles) {
    if (tiles.size() < 2 || tiles[tiles.size() - 2] >= tiles.back())
      return std::nullopt;
    return TwoTiles{tiles[tiles.size() - 2], 2 * tiles.back()};
  }

  /// True if `rows` rows, `mean` for each expert, take both.
  bool areTaken(int64_t rows, int64_t mean) const {
    return rows > extent && mean <= extent;
  }
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TILECHOICE_H
