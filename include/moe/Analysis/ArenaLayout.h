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

/// Which buffers lie right above which in one arena.
///
/// Sizes are functions of T, so the layout is an order and no list of offsets:
/// a buffer begins where the highest of those in `below` ends. Of two buffers
/// that live at the same time, one is below the other, directly or not, so for
/// whatever sizes no two of them overlap.
struct ArenaLayout {
  /// Buffers by number, each after all that are below it.
  llvm::SmallVector<unsigned> order;
  /// For each buffer, those that it has to clear; others that it clears are
  /// below these.
  llvm::SmallVector<llvm::SmallVector<unsigned>> below;
};

/// A layout that is good for these sizes in bytes, none negative, and right for
/// all. None if the sum of the sizes exceeds 64 bits.
std::optional<ArenaLayout>
computeArenaLayout(llvm::ArrayRef<Lifetime> lifetimes,
                   llvm::ArrayRef<int64_t> sizes);

} // namespace mlir::moe

#endif // MOE_ANALYSIS_ARENALAYOUT_H
