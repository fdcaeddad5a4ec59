//===- ArenaLayout.h - Buffers that share memory over time ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_ARENALAYOUT_H
#define MOE_ANALYSIS_ARENALAYOUT_H

#include "moe/Analysis/BufferLifetimes.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/SmallVector.h"

#include <optional>

namespace mlir::moe {

/// The order of buffers in one arena.
///
/// Sizes are functions of T, so the layout has no offsets: a buffer begins
/// where the highest of those in `below` ends. Of two buffers that live at the
/// same time, one is below the other, directly or not, so for whatever sizes no
/// two of them overlap.
struct ArenaLayout {
  /// Indices of the buffers, each after all that are below it.
  llvm::SmallVector<unsigned> order;
  /// For each buffer, those that it has to clear; others that it clears are
  /// below these.
  llvm::SmallVector<llvm::SmallVector<unsigned>> below;
};

/// Computes a layout that is correct for all sizes and compact for these, in
/// bytes, none negative. None if the total size exceeds 64 bits.
std::optional<ArenaLayout>
computeArenaLayout(llvm::ArrayRef<Lifetime> lifetimes,
                   llvm::ArrayRef<int64_t> sizes);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_ARENALAYOUT_H
