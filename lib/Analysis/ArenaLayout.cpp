//===- ArenaLayout.cpp - Buffers that share memory over time --------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/ArenaLayout.h"

#include "llvm/ADT/BitVector.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/Sequence.h"
#include "llvm/Support/MathExtras.h"

#include <limits>

using namespace mlir::moe;
using llvm::ArrayRef;
using llvm::SmallVector;

/// Returns the offset of the smallest gap between the placed buffers that the
/// buffer fits in, or the end of the last. `placed` are (offset, end) of the
/// buffers that it must not overlap.
static int64_t bestFit(SmallVector<std::pair<int64_t, int64_t>> placed,
                       int64_t size) {
  llvm::sort(placed);
  int64_t top = 0, best = -1;
  int64_t bestGap = std::numeric_limits<int64_t>::max();
  for (auto [offset, end] : placed) {
    int64_t gap = offset - top;
    if (gap >= size && gap < bestGap) {
      best = top;
      bestGap = gap;
    }
    top = std::max(top, end);
  }
  return best >= 0 ? best : top;
}

/// Places the buffers greedily in this order. Returns the bytes they take.
static int64_t placeGreedily(ArrayRef<unsigned> order,
                             ArrayRef<Lifetime> lifetimes,
                             ArrayRef<int64_t> sizes,
                             SmallVector<int64_t> &offsets) {
  offsets.assign(sizes.size(), 0);
  int64_t peak = 0;
  for (auto [position, buffer] : llvm::enumerate(order)) {
    SmallVector<std::pair<int64_t, int64_t>> placed;
    for (unsigned other : order.take_front(position))
      if (lifetimes[buffer].overlaps(lifetimes[other]))
        placed.push_back({offsets[other], offsets[other] + sizes[other]});
    offsets[buffer] = bestFit(placed, sizes[buffer]);
    peak = std::max(peak, offsets[buffer] + sizes[buffer]);
  }
  return peak;
}

std::optional<ArenaLayout>
mlir::moe::computeArenaLayout(ArrayRef<Lifetime> lifetimes,
                              ArrayRef<int64_t> sizes) {
  unsigned count = sizes.size();
  int64_t total = 0;
  for (int64_t size : sizes)
    if (llvm::AddOverflow(total, size, total))
      return std::nullopt;

  // Neither order is always the better one.
  auto byIndex = llvm::to_vector(llvm::seq(count));
  SmallVector<unsigned> bySize(byIndex), byLength(byIndex);
  auto length = [&](unsigned i) {
    return lifetimes[i].end - lifetimes[i].begin;
  };
  llvm::stable_sort(bySize, [&](unsigned a, unsigned b) {
    return std::pair(sizes[a], length(a)) > std::pair(sizes[b], length(b));
  });
  llvm::stable_sort(byLength, [&](unsigned a, unsigned b) {
    return std::pair(length(a), sizes[a]) > std::pair(length(b), sizes[b]);
  });
  SmallVector<int64_t> offsets, others;
  if (placeGreedily(byLength, lifetimes, sizes, others) <
      placeGreedily(bySize, lifetimes, sizes, offsets))
    std::swap(offsets, others);

  // Only the order of the placement is kept. Empty buffers may share an offset
  // with others: the index breaks ties.
  ArenaLayout layout;
  layout.order = byIndex;
  llvm::sort(layout.order, [&](unsigned a, unsigned b) {
    return std::pair(offsets[a], a) < std::pair(offsets[b], b);
  });
  layout.below.resize(count);
  SmallVector<llvm::BitVector> cleared(count, llvm::BitVector(count));
  for (auto [position, buffer] : llvm::enumerate(layout.order))
    for (unsigned other :
         llvm::reverse(ArrayRef(layout.order).take_front(position))) {
      if (!lifetimes[buffer].overlaps(lifetimes[other]) ||
          cleared[buffer].test(other))
        continue;
      layout.below[buffer].push_back(other);
      cleared[buffer].set(other);
      cleared[buffer] |= cleared[other];
    }
  return layout;
}
