//===- executor.h - Run tasks in parallel -----------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Compiled code runs its tasks on several threads through an executor. The
// runtime has its own thread pool; a host can pass another executor in the
// options of a context (moe_rt/openmp.h provides one for OpenMP). Compiled code
// reads this structure: its layout is part of the ABI.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_EXECUTOR_H
#define MOE_RT_EXECUTOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// A task. It needs up to 256 KiB of stack and does not throw.
typedef void (*moe_rt_task_fn)(void *context, int64_t index);

typedef struct {
  void *user;
  int64_t concurrency; // tasks that may run at once, at least 1
  /// Runs task(context, i) once for each i in [0, count), in any order and on
  /// any threads, and returns after all have run; their writes are then visible
  /// to the caller. Must be thread-safe if layers are called from several
  /// threads.
  void (*parallel_for)(void *user, int64_t count, moe_rt_task_fn task,
                       void *context);
} moe_rt_executor_t;

#ifdef __cplusplus
} // extern "C"
static_assert(offsetof(moe_rt_executor_t, user) == 0 &&
                  offsetof(moe_rt_executor_t, concurrency) == 8 &&
                  offsetof(moe_rt_executor_t, parallel_for) == 16,
              "compiled code knows these offsets");
#endif

#endif // MOE_RT_EXECUTOR_H
