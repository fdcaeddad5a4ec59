//===- saved_values.h - What a call keeps for another one -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_SAVED_VALUES_H
#define MOE_RT_SRC_PARALLEL_SAVED_VALUES_H

#include "artifact/parallel.h"
#include "support/buffer.h"

namespace moe::rt {

/// The values of a call of a layer over several ranks that one of its backward
/// layer needs.
class SavedValues {
public:
  /// Keeps it, as its module may go before.
  std::shared_ptr<const ParallelFunction> function;
  const void *group = nullptr;
  uint64_t table = 0; // hash of the experts of all ranks
  int64_t number = 0; // of the call: the agreements of the group until then
  int64_t tokens = 0; // of this rank

  /// One of the function's values.
  struct Kept {
    Buffer memory;
    int64_t extent = 0;
  };
  std::vector<Kept> values; // by the numbers of the function
};

} // namespace moe::rt

struct moe_rt_saved_s {
  moe::rt::SavedValues values;
};

#endif // MOE_RT_SRC_PARALLEL_SAVED_VALUES_H
