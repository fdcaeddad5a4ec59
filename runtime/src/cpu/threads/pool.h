//===- pool.h - A pool of threads -------------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_THREADS_POOL_H
#define MOE_RT_SRC_CPU_THREADS_POOL_H

#include "cpu/threads/placement.h"
#include "cpu/threads/region.h"
#include "support/usable_cores.h"

#include <memory>
#include <pthread.h>
#include <sys/types.h>
#include <vector>

namespace moe::rt {

/// Runs tasks on the calling thread.
extern const moe_rt_executor_t serialExecutor;

/// Runs the tasks of one parallel region at a time on the calling thread and on
/// its own. Its threads start when the first region needs them, wait for the
/// next region for some microseconds and then sleep. Where a thread cannot be
/// had the others do its work. A region that begins while another has the
/// threads, or finds too few cores left, runs on its calling thread alone.
///
/// After fork() the child has no threads of the pool. If no region ran at that
/// time, regions in the child run on their calling thread alone.
class ThreadPool {
public:
  /// `concurrency` counts the calling thread.
  ThreadPool(int64_t concurrency, Cores &cores)
      : concurrency(concurrency), cores(cores), placement(concurrency) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  /// A pool of that many threads for one context, or with 0 the pool of all
  /// that want as many as there are cores, which ends with the last of them;
  /// nullptr if there is no memory for it.
  static std::shared_ptr<ThreadPool> get(int64_t concurrency);

  void parallelFor(int64_t count, moe_rt_task_fn task, void *context);

  /// Valid as long as the pool.
  moe_rt_executor_t executor();

  /// Threads that have been started.
  size_t threadCount() const { return threads.size(); }

private:
  // The parts of `gate`. A worker enters an open region by counting itself in,
  // so that the region's end waits for those inside alone: a worker that wakes
  // up late finds it closed.
  static constexpr uint32_t inside = 0xffff;    // number of workers
  static constexpr uint32_t oneEpoch = 0x10000; // counts regions
  static constexpr uint32_t epochMask = 0x1fff0000;
  static constexpr uint32_t stopped = 0x20000000; // workers are to end
  static constexpr uint32_t awaited = 0x40000000; // the region's end sleeps
  static constexpr uint32_t opened = 0x80000000;

  void runOnThreads(int64_t count, moe_rt_task_fn task, void *context);
  void start();
  void work(int64_t number);
  uint32_t waitForRegion(uint32_t seenEpoch);
  void waitForWorkers();

  const int64_t concurrency;
  Cores &cores;
  std::vector<pthread_t> threads;
  pid_t owner = 0; // the process that started them
  std::atomic<bool> busy{false};
  Placement placement;

  // Written while the gate is closed and nobody is inside, but for the number
  // of tasks drawn.
  Region region;

  // On cache lines of their own: all threads write to each.
  alignas(128) std::atomic<uint32_t> gate{0};
  std::atomic<uint32_t> sleepers{0};
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_THREADS_POOL_H
