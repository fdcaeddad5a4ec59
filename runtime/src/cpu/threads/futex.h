//===- futex.h - Sleep until a number changes -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_THREADS_FUTEX_H
#define MOE_RT_SRC_CPU_THREADS_FUTEX_H

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <time.h>
#endif

namespace moe::rt {

/// Sleep while `word` has this value, or for less: the caller looks again.
/// Without a futex that is a nap of half a millisecond.
inline void futexWait(std::atomic<uint32_t> &word, uint32_t value) {
  static_assert(sizeof(word) == sizeof(uint32_t), "the kernel reads 32 bits");
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  timespec nap = {0, 500000};
  if (word.load() == value)
    nanosleep(&nap, nullptr);
#endif
}

/// Wake up to `count` of those that sleep on `word`.
inline void futexWake(std::atomic<uint32_t> &word, int count) {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
#else
  (void)word;
  (void)count;
#endif
}

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_THREADS_FUTEX_H
