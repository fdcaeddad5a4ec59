//===- placement.h - Keep threads on cores of their own ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_THREADS_PLACEMENT_H
#define MOE_RT_SRC_CPU_THREADS_PLACEMENT_H

#include <atomic>
#include <cstdint>
#include <memory>

namespace moe::rt {

/// Keeps the threads of a pool on cores of their own.
///
/// A thread that wakes up while the other cores are busy for a moment is put on
/// the core of the thread that woke it. The scheduler balances its queues by
/// number, and seldom: two threads of a region stay on one core for many calls,
/// and a single other process on the other core suffices for that to be its
/// equilibrium. So a thread that finds another one of its region on its core
/// moves. It is not bound: the scheduler may move it again.
class Placement {
public:
  explicit Placement(int64_t threads);

  /// Thread `number` of a region begins to work; 0 is the caller. Moves it if a
  /// thread with a smaller number was last seen on the same core and the
  /// affinity of this thread has a core where none was seen.
  void enter(int64_t number);

private:
  bool isShared(int64_t number, int core) const;
  void move(int64_t number);

  const int64_t threads;
  // By thread, -1 if it was not seen. Changes little, and all threads read it.
  std::unique_ptr<std::atomic<int>[]> coreOf;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_THREADS_PLACEMENT_H
