//===- placement.cpp - Keep threads on cores of their own -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// sched_getcpu, sched_setaffinity.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "cpu/threads/placement.h"

#include <chrono>
#include <new>
#include <sched.h>

using namespace moe::rt;

Placement::Placement(int64_t threads)
    : threads(threads),
      coreOf(new (std::nothrow)
                 std::atomic<int>[static_cast<size_t>(threads)]) {
  for (int64_t i = 0; coreOf && i < threads; ++i)
    coreOf[i].store(-1, std::memory_order_relaxed);
}

#if defined(__linux__)

// A move costs some microseconds. Where other threads keep coming back to the
// core they went to, moving more often than this does not help.
static constexpr std::chrono::milliseconds restAfterMove(1);

bool Placement::isShared(int64_t number, int core) const {
  for (int64_t i = 0; i < number; ++i)
    if (coreOf[i].load(std::memory_order_relaxed) == core)
      return true;
  return false;
}

void Placement::enter(int64_t number) {
  int core = sched_getcpu();
  if (!coreOf || core < 0)
    return;
  if (coreOf[number].load(std::memory_order_relaxed) != core)
    coreOf[number].store(core, std::memory_order_relaxed);
  if (isShared(number, core))
    move(number);
}

void Placement::move(int64_t number) {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point rest;
  Clock::time_point now = Clock::now();
  if (now < rest)
    return;
  rest = now + restAfterMove;
  // The host may have changed the affinity since the last time. On a machine
  // with more processors than a set has bits this fails, and nothing moves.
  cpu_set_t allowed, vacant;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
    return;
  vacant = allowed;
  for (int64_t i = 0; i < threads; ++i)
    if (int core = coreOf[i].load(std::memory_order_relaxed); core >= 0)
      CPU_CLR(core, &vacant);
  if (CPU_COUNT(&vacant) == 0 ||
      sched_setaffinity(0, sizeof(vacant), &vacant) != 0)
    return;
  if (int core = sched_getcpu(); core >= 0)
    coreOf[number].store(core, std::memory_order_relaxed);
  sched_setaffinity(0, sizeof(allowed), &allowed);
}

#else

bool Placement::isShared(int64_t, int) const { return false; }
void Placement::move(int64_t) {}
void Placement::enter(int64_t) {}

#endif
