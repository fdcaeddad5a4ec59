//===- host_statistics.cpp - Statistics of calls on the CPU ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/host_statistics.h"
#include "support/checked.h"

#include <algorithm>
#include <new>

using namespace moe;
using namespace moe::rt;

moe_rt_status_t HostStatistics::allocate(const Function &function) {
  dispatches.resize(function.dispatches.size());
  for (size_t i = 0; i < dispatches.size(); ++i) {
    Entry &entry = dispatches[i];
    entry.experts = static_cast<size_t>(function.dispatches[i].numExperts);
    entry.topK = function.dispatches[i].topK;
    entry.tokens.reset(new (std::nothrow) int64_t[entry.experts]());
    entry.snapshot.reset(new (std::nothrow) int64_t[entry.experts]());
    if (!entry.tokens || !entry.snapshot)
      return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                       "cannot allocate the statistics of %zu experts",
                       entry.experts);
  }
  return nullptr;
}

void HostStatistics::add(const DispatchReport *reports) {
  std::lock_guard<std::mutex> lock(mutex);
  for (size_t i = 0; i < dispatches.size(); ++i) {
    Entry &entry = dispatches[i];
    const DispatchReport &report = reports[i];
    for (size_t e = 0; e < entry.experts; ++e)
      entry.tokens[e] = saturatingAdd(
          entry.tokens[e], int64_t(report.offsets[e + 1]) - report.offsets[e]);
    entry.calls = saturatingAdd(entry.calls, 1);
    int64_t choices = report.choices(entry.experts);
    entry.choices = saturatingAdd(entry.choices, choices);
    entry.dropped =
        saturatingAdd(entry.dropped, choices - report.offsets[entry.experts]);
    entry.padding = saturatingAdd(entry.padding, report.padding());
  }
}

moe_rt_status_t HostStatistics::read(size_t dispatch,
                                     moe_rt_statistics_t &out) {
  std::lock_guard<std::mutex> lock(mutex);
  Entry &entry = dispatches[dispatch];
  std::copy_n(entry.tokens.get(), entry.experts, entry.snapshot.get());
  out = {static_cast<int64_t>(entry.experts),
         entry.topK,
         entry.snapshot.get(),
         entry.calls,
         entry.choices,
         entry.dropped,
         entry.padding};
  return nullptr;
}

void HostStatistics::reset() {
  std::lock_guard<std::mutex> lock(mutex);
  for (Entry &entry : dispatches) {
    std::fill_n(entry.tokens.get(), entry.experts, 0);
    entry.calls = entry.choices = entry.dropped = entry.padding = 0;
  }
}
