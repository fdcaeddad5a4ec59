//===- abi.h - Interface of compiled code and runtime -------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Layouts that compiled code and the runtime share; the compiler includes this
// header, too. executor.h and launcher.h have the structures that the runtime
// passes to an entry point.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_ABI_H
#define MOE_RT_ABI_H

#include "moe_rt/executor.h"
#include "moe_rt/launcher.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Passed to an entry point for the CPU.
typedef struct {
  moe_rt_executor_t executor;
  /// Called by the entry point, on its thread, when a stage begins: an index in
  /// the `stages` of the function's metadata. NULL: the call is not profiled.
  void (*begin_stage)(void *profile, int64_t stage);
  void *profile;
} moe_rt_tasks_t;

/// The entry point of a function, for the CPU or for a device. `args` holds the
/// addresses of memref descriptors: one for each argument, then one for the
/// workspace. Returns 0 on success.
typedef int32_t (*moe_rt_entry_fn)(void **args, const moe_rt_tasks_t *tasks);
typedef int32_t (*moe_rt_device_entry_fn)(void **args,
                                          const moe_rt_launcher_t *launcher);
/// Returns the bytes of workspace that the entry point needs for `tokens`
/// tokens.
typedef int64_t (*moe_rt_workspace_fn)(int64_t tokens);

/// Alignment of a workspace, in bytes.
#define MOE_RT_WORKSPACE_ALIGNMENT 64
#define MOE_RT_DEVICE_WORKSPACE_ALIGNMENT 256
/// Alignment of an argument of role offsets or counters.
#define MOE_RT_REPORT_ALIGNMENT 64

/// Returns the bytes that an argument of `bytes` bytes takes in the reports of
/// a call.
static inline uint64_t moe_rt_report_size(uint64_t bytes) {
  return (bytes + MOE_RT_REPORT_ALIGNMENT - 1) &
         ~(uint64_t)(MOE_RT_REPORT_ALIGNMENT - 1);
}

/// Computes the workspace of a call on a device: `code_bytes` for the code,
/// then, aligned like a workspace, `report_bytes` for its reports (0 if none)
/// and a line for the runtime. Returns 0 if that exceeds 2^64-1 bytes, else 1.
static inline int moe_rt_device_workspace(uint64_t code_bytes,
                                          uint64_t report_bytes,
                                          uint64_t *reports_begin,
                                          uint64_t *total) {
  const uint64_t mask = MOE_RT_DEVICE_WORKSPACE_ALIGNMENT - 1;
  *reports_begin = *total = code_bytes;
  if (report_bytes == 0)
    return 1;
  if (report_bytes > UINT64_MAX - MOE_RT_REPORT_ALIGNMENT ||
      code_bytes > UINT64_MAX - mask)
    return 0;
  report_bytes += MOE_RT_REPORT_ALIGNMENT;
  *reports_begin = (code_bytes + mask) & ~mask;
  *total = *reports_begin + report_bytes;
  return *total >= report_bytes;
}

#ifdef __cplusplus
} // extern "C"
static_assert(offsetof(moe_rt_tasks_t, executor) == 0 &&
                  offsetof(moe_rt_tasks_t, begin_stage) == 24 &&
                  offsetof(moe_rt_tasks_t, profile) == 32,
              "compiled code knows these offsets");
#endif

#endif // MOE_RT_ABI_H
