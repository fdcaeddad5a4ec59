//===- poller.cpp - Let an engine go on while a rank computes -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/poller.h"

#include <chrono>

using namespace moe::rt;

/// Between two polls: a message of a megabyte takes about as long.
static constexpr std::chrono::microseconds nap(50);

/// std::condition_variable::wait is of GLIBCXX_3.4.30, which the systems of the
/// wheel (manylinux_2_34) may not have.
template <typename Condition>
static void waitFor(std::condition_variable &changed,
                    std::unique_lock<std::mutex> &lock, Condition condition) {
  while (!changed.wait_for(lock, std::chrono::hours(1), condition)) {
  }
}

Poller::~Poller() {
  if (!exists)
    return;
  {
    std::lock_guard<std::mutex> lock(mutex);
    ends = true;
  }
  changed.notify_all();
  pthread_join(thread, nullptr);
}

void Poller::run() {
  std::unique_lock<std::mutex> lock(mutex);
  for (;;) {
    waitFor(changed, lock, [&] { return isWanted || ends; });
    if (ends)
      return;
    isPolling = true;
    while (isWanted && !ends) {
      lock.unlock();
      bool goesOn = poll();
      lock.lock();
      if (!goesOn)
        break;
      changed.wait_for(lock, nap, [&] { return !isWanted || ends; });
    }
    isPolling = isWanted = false;
    changed.notify_all();
  }
}

void Poller::begin() {
  if (!exists) {
    auto body = [](void *self) -> void * {
      static_cast<Poller *>(self)->run();
      return nullptr;
    };
    exists = pthread_create(&thread, nullptr, body, this) == 0;
    if (!exists)
      return;
  }
  {
    std::lock_guard<std::mutex> lock(mutex);
    isWanted = true;
  }
  changed.notify_all();
}

void Poller::end() {
  if (!exists)
    return;
  std::unique_lock<std::mutex> lock(mutex);
  isWanted = false;
  changed.notify_all();
  waitFor(changed, lock, [&] { return !isPolling; });
}
