//===- buffer.cpp - Memory of the context's allocator ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "support/buffer.h"

#include <cinttypes>
#include <cstdlib>
#if defined(__linux__)
#include <sys/mman.h>
#endif

using namespace moe::rt;

static void *defaultAllocate(void *, size_t bytes, size_t alignment) {
  void *memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0)
    return nullptr;
#if defined(__linux__)
  // Without huge pages everything works, more slowly.
  if (alignment >= hugePage)
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

static void defaultRelease(void *, void *memory, size_t) { std::free(memory); }

const moe_rt_allocator_t moe::rt::defaultAllocator = {nullptr, defaultAllocate,
                                                      defaultRelease};

moe_rt_status_t Buffer::allocate(uint64_t bytes, const char *what,
                                 size_t alignment) {
  release();
  if (bytes == 0)
    return nullptr;
  void *result = nullptr;
  if (bytes <= SIZE_MAX)
    result = allocator->allocate(allocator->user, static_cast<size_t>(bytes),
                                 alignment);
  if (!result)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot allocate %" PRIu64 " bytes for the %s", bytes,
                     what);
  memory = result;
  size = static_cast<size_t>(bytes);
  if (reinterpret_cast<uintptr_t>(memory) % alignment == 0)
    return nullptr;
  release();
  return makeError(MOE_RT_INVALID_ARGUMENT,
                   "the allocator returned %p for the %s, expected memory "
                   "aligned to %zu bytes",
                   result, what, alignment);
}

void Buffer::release() {
  if (memory)
    allocator->release(allocator->user, memory, size);
  memory = nullptr;
  size = 0;
}
