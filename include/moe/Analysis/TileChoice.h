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
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/MathExtras.h"

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

  /// True if `rows` rows, `mean` for each expert and at most `most` for one,
  /// take both.
  bool areTaken(int64_t rows, int64_t mean, int64_t most) const {
    return rows > extent && mean <= extent && most > limit;
  }
};

/// The numbers of the tiles that the host launches (GroupedMatmulToGPU.cpp has
/// the code that it runs); with two, experts with more than `limit` rows have
/// the second.
struct ChosenTiles {
  size_t first;
  std::optional<size_t> second;
  int64_t limit = INT64_MAX;

  /// Of tiles of these heights, in ascending order, for `rows` rows of as many
  /// experts, each of which has at most `most`: there are no more tokens. Rows
  /// that belong to one expert take one tile: `isGrouped` is false then. Tiles
  /// for which `fits` does not hold are left out.
  static ChosenTiles of(llvm::ArrayRef<int64_t> heights, int64_t rows,
                        int64_t experts, int64_t most, bool isGrouped,
                        llvm::function_ref<bool(size_t)> fits) {
    int64_t mean = llvm::divideCeilSigned(rows, experts);
    std::optional<TwoTiles> two =
        isGrouped ? TwoTiles::of(heights) : std::nullopt;
    bool both = two && two->areTaken(rows, mean, most);
    size_t last = heights.size() - 1;
    for (size_t i = 0; i < last; ++i)
      if ((mean <= heights[i] || (both && i + 1 == last)) && fits(i))
        return both ? ChosenTiles{i, last, two->limit} : ChosenTiles{i, {}};
    return {last, {}};
  }
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TILECHOICE_H
