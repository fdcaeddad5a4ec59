//===- statistics.h - Statistics of dispatches ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_LAYER_STATISTICS_H
#define MOE_RT_SRC_LAYER_STATISTICS_H

#include "artifact/signature.h"

#include <atomic>

namespace moe::rt {

/// What the code reports of one dispatch in one call.
struct DispatchReport {
  const int32_t *offsets; // [num_experts + 1]
  /// Chosen, out of range, and padding if it is there; or null: all choices
  /// were in range and are rows.
  const int64_t *counters;
  bool hasPadding;

  int64_t choices(size_t experts) const {
    return counters ? counters[0] : offsets[experts];
  }
  int64_t invalid() const { return counters ? counters[1] : 0; }
  int64_t padding() const { return hasPadding ? counters[2] : 0; }
};

/// Of a report that cannot be counted, what says why.
struct BadReport {
  int64_t choices;
  int64_t invalid; // ids out of range; without any the report is no report
  int32_t first;   // of the offsets
  int32_t kept;    // the last of them
};

/// What the dispatches of a layer have done. Safe to use from several threads.
class Statistics {
public:
  virtual ~Statistics() = default;

  /// Refuse a report of expert ids out of range, or one that cannot be right.
  static moe_rt_status_t check(const Function &function, size_t dispatch,
                               const DispatchReport &report);
  /// The error of a report that `check` refuses.
  static moe_rt_status_t refuse(const Function &function, size_t dispatch,
                                const BadReport &report);

  virtual moe_rt_status_t read(size_t dispatch, moe_rt_statistics_t &out) = 0;
  virtual void reset() = 0;

  /// Whether calls that begin from now on have to be counted.
  void enable(bool value) { enabled.store(value, std::memory_order_relaxed); }
  bool areEnabled() const { return enabled.load(std::memory_order_relaxed); }

private:
  std::atomic<bool> enabled{true};
};

} // namespace moe::rt

#endif // MOE_RT_SRC_LAYER_STATISTICS_H
