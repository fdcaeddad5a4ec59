//===- TileChoice.h - One tile for all experts, or two ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// On a GPU a grouped product has tiles of several heights. The host knows how
// many rows experts have on average, and takes the first tile that holds as
// many, or the last. How many each has only the device knows: where some may
// have many more or far fewer, the host launches two tiles, and the device
// gives each expert to the one that suits its rows.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TILECHOICE_H
#define MOE_ANALYSIS_TILECHOICE_H

#include "llvm/ADT/ArrayRef.h"

#include <optional>

namespace mlir::moe {

/// When a product takes two tiles: the last, for experts with more than `limit`
/// rows, and one before it for the others, chosen by the rows on average.
struct TwoTiles {
  /// Up to these rows an expert is of the first tile. The rule is that of the
  /// average: with more than the last tile but one holds, the last one is
  /// better, which reads weights once where low tiles read them again and
  /// again.
  int64_t limit;
  /// Two of the last tiles. Where there are no more rows in all, no expert has
  /// so many that it is worth another launch; where there are more for each
  /// expert on average, few tiles are in part empty.
  int64_t extent;

  /// For tiles with so many rows, fewer first; none if they are all the same.
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
