//===- pool.cpp - A pool of threads ---------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// pthread_setname_np.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "cpu/threads/pool.h"
#include "core/context.h"
#include "cpu/threads/futex.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <csignal>
#include <mutex>
#include <new>
#include <unistd.h>

using namespace moe::rt;

// Between the regions of one call less time passes than this; a thread that
// slept would be late for the next.
static constexpr std::chrono::microseconds spinTime(40);
// Tasks are promised 256 KiB, but libraries may have taken much of a stack for
// their thread-local data. What is not touched takes no memory.
static constexpr size_t stackBytes = 8 << 20;

static void runSerially(void *, int64_t count, moe_rt_task_fn task,
                        void *context) {
  for (int64_t i = 0; i < count; ++i)
    task(context, i);
}

const moe_rt_executor_t moe::rt::serialExecutor = {nullptr, 1, runSerially};

/// Tell the processor that this thread does nothing but look at memory.
static void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/// Look for `spinTime` whether `done` holds.
template <typename Predicate> static bool spinUntil(Predicate done) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point end = Clock::now() + spinTime;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done())
        return true;
      relax();
    }
  } while (Clock::now() < end);
  return false;
}

/// Wait until a region after that of `seenEpoch` is open, and count this thread
/// in. Returns its epoch, or `stopped`.
uint32_t ThreadPool::waitForRegion(uint32_t seenEpoch) {
  uint32_t state = gate.load(std::memory_order_acquire);
  auto news = [&] {
    state = gate.load(std::memory_order_acquire);
    return (state & stopped) ||
           ((state & opened) && (state & epochMask) != seenEpoch);
  };
  for (;;) {
    if (!spinUntil(news)) {
      // Sequentially consistent, as is opening the gate: either this thread
      // sees the gate change or the one that opens it sees this one sleep.
      sleepers.fetch_add(1);
      while (!news())
        futexWait(gate, state);
      sleepers.fetch_sub(1);
    }
    if (state & stopped)
      return stopped;
    if (gate.compare_exchange_weak(state, state + 1))
      return state & epochMask;
  }
}

void ThreadPool::work(int64_t number) {
  uint32_t epoch = 0;
  while ((epoch = waitForRegion(epoch)) != stopped) {
    placement.enter(number);
    region.run(number, cores);
    uint32_t left = gate.fetch_sub(1, std::memory_order_acq_rel) - 1;
    if ((left & awaited) && (left & inside) == 0)
      futexWake(gate, INT_MAX);
  }
}

void ThreadPool::waitForWorkers() {
  uint32_t state;
  auto empty = [&] {
    state = gate.load(std::memory_order_acquire);
    return (state & inside) == 0;
  };
  if (empty() || spinUntil(empty))
    return;
  gate.fetch_or(awaited);
  while (!empty())
    futexWait(gate, state);
}

namespace {
/// What a thread is told.
struct Start {
  ThreadPool *pool;
  int64_t number;
};
} // namespace

void ThreadPool::start() {
  owner = getpid();
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0)
    return;
  pthread_attr_setstacksize(&attributes, stackBytes);
  // The host's signals are for the host's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  auto run = [](void *argument) -> void * {
    Start start = *static_cast<Start *>(argument);
    delete static_cast<Start *>(argument);
    start.pool->work(start.number);
    return nullptr;
  };
  threads.reserve(static_cast<size_t>(concurrency - 1));
  for (int64_t i = 1; i < concurrency; ++i) {
    auto *start = new (std::nothrow) Start{this, i};
    pthread_t thread;
    if (!start || pthread_create(&thread, &attributes, run, start) != 0) {
      delete start;
      break;
    }
#if defined(__linux__)
    pthread_setname_np(thread, "moe_rt");
#endif
    threads.push_back(thread);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
}

void ThreadPool::parallelFor(int64_t count, moe_rt_task_fn task,
                             void *context) {
  if (count <= 1 || concurrency == 1 || Region::insideTask())
    return Region::runAlone(count, task, context);
  bool isFree = !busy.exchange(true, std::memory_order_acquire);
  int64_t claimed = cores.claim(isFree ? concurrency : 1);
  if (claimed > 1)
    runOnThreads(count, task, context);
  else
    Region::runAlone(count, task, context);
  cores.release(claimed);
  if (isFree)
    busy.store(false, std::memory_order_release);
}

void ThreadPool::runOnThreads(int64_t count, moe_rt_task_fn task,
                              void *context) {
  if (owner == 0)
    start();
  region.count = count;
  region.task = task;
  region.context = context;
  region.claimed = concurrency;
  region.next.store(0, std::memory_order_relaxed);
  placement.enter(0);
  // Nobody else changes a closed gate without workers inside.
  uint32_t epoch =
      (gate.load(std::memory_order_relaxed) + oneEpoch) & epochMask;
  gate.store(opened | epoch);
  if (sleepers.load() > 0)
    futexWake(gate, static_cast<int>(std::min<int64_t>(count - 1, INT_MAX)));
  region.run(0, cores);
  gate.fetch_and(~opened, std::memory_order_acq_rel);
  waitForWorkers();
}

std::shared_ptr<ThreadPool> ThreadPool::get(int64_t concurrency) {
  Cores *cores = Cores::ofProcess();
  if (!cores)
    return nullptr;
  if (concurrency > 0)
    return std::shared_ptr<ThreadPool>(new (std::nothrow)
                                           ThreadPool(concurrency, *cores));
  // Never destroyed: contexts may be, while the process ends.
  static auto &mutex = *new std::mutex;
  static auto &current = *new std::weak_ptr<ThreadPool>;
  std::lock_guard<std::mutex> lock(mutex);
  std::shared_ptr<ThreadPool> pool = current.lock();
  // One of before a fork() has no threads.
  if (!pool || &pool->cores != cores) {
    pool.reset(new (std::nothrow)
                   ThreadPool(std::min(usableCores(), maxThreads), *cores));
    current = pool;
  }
  return pool;
}

moe_rt_executor_t ThreadPool::executor() {
  return {this, concurrency,
          [](void *user, int64_t count, moe_rt_task_fn task, void *context) {
            static_cast<ThreadPool *>(user)->parallelFor(count, task, context);
          }};
}

ThreadPool::~ThreadPool() {
  // In a child of fork() there is nobody to wait for.
  if (owner != getpid())
    return;
  gate.fetch_or(stopped);
  futexWake(gate, INT_MAX);
  for (pthread_t thread : threads)
    pthread_join(thread, nullptr);
}
