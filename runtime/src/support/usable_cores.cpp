//===- usable_cores.cpp - How many cores there are to use -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

// sched_getaffinity.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "support/usable_cores.h"

#include <algorithm>
#include <sched.h>
#include <unistd.h>

using namespace moe::rt;

/// Cores that the threads of this process may run on.
static int64_t affineCores() {
#if defined(__linux__)
  // The kernel refuses a mask with fewer bits than it has processors.
  for (int processors = 1024; processors <= 1 << 20; processors *= 2) {
    cpu_set_t *mask = CPU_ALLOC(static_cast<size_t>(processors));
    if (!mask)
      break;
    size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(processors));
    int count =
        sched_getaffinity(0, bytes, mask) == 0 ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (count > 0)
      return count;
  }
#endif
  return std::max(1l, sysconf(_SC_NPROCESSORS_ONLN));
}

int64_t moe::rt::usableCores(const CgroupFiles &files) {
  int64_t cores = affineCores();
  // A thread more than there is time for is stopped for most of each period,
  // and those that wait for it with it.
  return std::min(cores, cgroupProcessors(files).value_or(cores));
}
