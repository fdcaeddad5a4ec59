//===- TileChoice.h - The tile of a grouped matmul --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// On a GPU a grouped matmul has tiles of several heights. The host knows the
// average rows of an expert, only the device those of each, so the average
// chooses. An expert with more rows has several tiles, which find its weights
// in the L2 cache; all experts together have at most twice as many tiles as if
// each had the average.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_TILECHOICE_H
#define MOE_ANALYSIS_TILECHOICE_H

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"
#include "llvm/Support/MathExtras.h"

namespace mlir::moe {

/// Returns the number of the tile that the host launches
/// (GroupedMatmulToGPU.cpp has the code that it runs) for `rows` rows of
/// `experts` experts: of tiles of these heights, in ascending order, the first
/// that holds the average rows, or the last one. Tiles for which `fits` does
/// not hold are left out.
inline size_t chooseTile(llvm::ArrayRef<int64_t> heights, int64_t rows,
                         int64_t experts,
                         llvm::function_ref<bool(size_t)> fits) {
  int64_t mean = llvm::divideCeilSigned(rows, experts);
  size_t last = heights.size() - 1;
  for (size_t i = 0; i < last; ++i)
    if (mean <= heights[i] && fits(i))
      return i;
  return last;
}

} // namespace mlir::moe

#endif // MOE_ANALYSIS_TILECHOICE_H
