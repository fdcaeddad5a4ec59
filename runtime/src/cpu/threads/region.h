//===- region.h - Parallel regions ------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What all executors have in common: how the threads of a region draw its
// tasks, and how the regions that callers begin at the same time share the
// cores.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_THREADS_REGION_H
#define MOE_RT_SRC_CPU_THREADS_REGION_H

#include "moe_rt/executor.h"

#include <algorithm>
#include <atomic>
#include <sys/types.h>
#include <unistd.h>

namespace moe::rt {

/// Shares cores out among the regions that run at the same time, so that no
/// more threads run than there are cores, unless there are more callers or a
/// single region wants more: one for which there are not enough left runs on
/// its calling thread alone, and a thread of another rests for it.
class Cores {
public:
  explicit Cores(int64_t count) : count(count) {}

  /// Those of this process, never destroyed; nullptr if there is no memory for
  /// that. A child of fork() has its own.
  static Cores *ofProcess();

  /// Returns how many a region of up to `limit` threads has: all or 1.
  int64_t claim(int64_t limit);
  void release(int64_t claimed) {
    total.fetch_sub(claimed, std::memory_order_relaxed);
  }

  /// Whether there is a core for thread `number` of a region that claimed
  /// `mine`.
  bool hasOneFor(int64_t number, int64_t mine) const {
    int64_t others = total.load(std::memory_order_relaxed) - mine;
    return number + others < std::max(count, mine);
  }

private:
  const int64_t count;
  const pid_t owner = getpid();
  // Changes little, and all threads read it.
  alignas(128) std::atomic<int64_t> total{0};
};

/// The tasks of a region.
struct Region {
  int64_t count = 0;
  moe_rt_task_fn task = nullptr;
  void *context = nullptr;
  int64_t claimed = 1; // cores
  // On cache lines of their own: all threads write to it.
  alignas(128) std::atomic<int64_t> next{0};

  /// Draw tasks and run them, until there are none or there is no core for the
  /// thread. `number` counts the region's threads; 0 is the caller.
  void run(int64_t number, const Cores &cores);

  /// Run tasks on this thread. A region that begins inside of a task is part of
  /// it, and claims nothing.
  static void runAlone(int64_t count, moe_rt_task_fn task, void *context);
  static bool insideTask();
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_THREADS_REGION_H
