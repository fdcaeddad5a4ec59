//===- StreamPrefetch.h - Prefetch a stream of weights ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_STREAMPREFETCH_H
#define MOE_LIB_CONVERSION_MOETOCPU_STREAMPREFETCH_H

#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// Emits the prefetches of one iteration of a loop that reads the elements of
/// `buffer` from `start` on, `bytes` in each iteration, and is `position`
/// elements after `start`. The stream ends at `end`.
///
/// While one chunk of `pages` pages of 4 KiB is read, the next one is
/// prefetched: a line of each of its pages, then the next line of each. Intel's
/// prefetchers follow a stream to the end of its page, and reach their highest
/// rate when they follow several pages at a time; one ascending stream gives
/// them one. Nothing is emitted for 0 pages.
void prefetchStream(ImplicitLocOpBuilder &b, int64_t pages, Value buffer,
                    Value start, Value end, Value position, int64_t bytes);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_STREAMPREFETCH_H
