//===- host_statistics.h - Statistics of calls on the CPU -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_HOST_STATISTICS_H
#define MOE_RT_SRC_CPU_HOST_STATISTICS_H

#include "layer/statistics.h"

#include <memory>
#include <mutex>

namespace moe::rt {

/// What the dispatches of a layer have done on the CPU.
class HostStatistics final : public Statistics {
public:
  /// To be called once, before anything else.
  moe_rt_status_t allocate(const Function &function);

  /// Add one call. `reports` has an element for each dispatch.
  void add(const DispatchReport *reports);
  moe_rt_status_t read(size_t dispatch, moe_rt_statistics_t &out) override;
  void reset() override;

private:
  struct Entry {
    size_t experts = 0;
    int64_t topK = 0;
    std::unique_ptr<int64_t[]> tokens;
    std::unique_ptr<int64_t[]> snapshot; // what `read` handed out
    int64_t calls = 0, choices = 0, dropped = 0, padding = 0;
  };

  std::mutex mutex;
  std::vector<Entry> dispatches;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_HOST_STATISTICS_H
