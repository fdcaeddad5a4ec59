//===- openmp.h - Run tasks on OpenMP threads ---------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A host whose other work runs on OpenMP, such as PyTorch, should run layers on
// the same threads: OpenMP's threads spin while idle, and would take cores from
// a second pool.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_OPENMP_H
#define MOE_RT_OPENMP_H

#include "moe_rt/moe_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Returns an executor for the options of a context that runs tasks on the
/// threads of an OpenMP runtime (GCC's, LLVM's or Intel's) already loaded in
/// this process. `library` is the path or name of a loaded library that is the
/// runtime or depends on it, e.g. ".../libtorch_cpu.so"; NULL is the program
/// itself. Fails with MOE_RT_NOT_FOUND if there is none. The executor stays
/// valid until the process ends.
///
/// A parallel region uses omp_get_max_threads() threads of the caller, limited
/// by the cores available to this process. It runs on the calling thread alone
/// inside another parallel region, in a child of fork(), and while other calls
/// leave too few cores.
MOE_RT_API moe_rt_status_t moe_rt_openmp_executor(const char *library,
                                                  moe_rt_executor_t *out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOE_RT_OPENMP_H
