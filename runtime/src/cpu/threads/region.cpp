//===- region.cpp - Parallel regions --------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/threads/region.h"
#include "cpu/threads/pool.h"

#include <mutex>
#include <new>

using namespace moe::rt;

static thread_local bool isInsideTask = false;

Cores *Cores::ofProcess() {
  static auto &mutex = *new std::mutex;
  static Cores *current = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  // In the parent there may have been regions, which never end here.
  if (!current || current->owner != getpid())
    current = new (std::nothrow) Cores(usableCores());
  return current;
}

int64_t Cores::claim(int64_t limit) {
  int64_t before = total.fetch_add(limit, std::memory_order_relaxed);
  if (before == 0 || before + limit <= count || limit == 1)
    return limit;
  release(limit - 1);
  return 1;
}

bool Region::insideTask() { return isInsideTask; }

void Region::runAlone(int64_t count, moe_rt_task_fn task, void *context) {
  bool before = isInsideTask;
  isInsideTask = true;
  for (int64_t i = 0; i < count; ++i)
    task(context, i);
  isInsideTask = before;
}

void Region::run(int64_t number, const Cores &cores) {
  isInsideTask = true;
  // Each thread draws no more than one number beyond `count`.
  while (number == 0 || cores.hasOneFor(number, claimed)) {
    int64_t index = next.fetch_add(1, std::memory_order_relaxed);
    if (index >= count)
      break;
    task(context, index);
  }
  isInsideTask = false;
}
