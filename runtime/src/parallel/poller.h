//===- poller.h - Let an engine go on while a rank computes -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_POLLER_H
#define MOE_RT_SRC_PARALLEL_POLLER_H

#include <condition_variable>
#include <functional>
#include <mutex>
#include <pthread.h>

namespace moe::rt {

/// A thread that makes calls of an engine which works in its calls only, while
/// the thread that waits for it later computes. It sleeps otherwise, and in
/// between; it is created when it is first needed.
class Poller {
public:
  /// `poll` returns whether there is more to poll for.
  explicit Poller(std::function<bool()> poll) : poll(std::move(poll)) {}
  ~Poller();

  /// Poll until `end`. Without a thread nothing happens: the engine then works
  /// when it is waited for.
  void begin();
  /// Return when no call is made any more.
  void end();

private:
  void run();

  const std::function<bool()> poll;
  std::mutex mutex;
  std::condition_variable changed;
  bool exists = false, isWanted = false, isPolling = false, ends = false;
  pthread_t thread;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_POLLER_H
