//===- openmp.h - Run tasks on an OpenMP runtime's threads -------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A host whose other work runs on OpenMP, as PyTorch's does, should run layers
// on the same threads: those of OpenMP wait for their next work in loops, and
// so take the cores from a second pool.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_OPENMP_H
#define MOE_RT_OPENMP_H

#include "moe_rt/moe_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

/// An executor for the options of a context, whose tasks run on the threads
/// that an OpenMP runtime of this process has: GCC's, LLVM's or Intel's.
/// Nothing is loaded. `library` names a library that is, by the path or the
/// name it was opened with, and that uses the runtime or is it, e.g.
/// ".../libtorch_cpu.so"; NULL stands for the program itself. Where there is
/// none such the code is MOE_RT_NOT_FOUND. What the executor needs stays until
/// the process ends.
///
/// A region takes as many threads as omp_get_max_threads says to the thread
/// that calls, but no more than the cores that this process may use. It runs on
/// the calling thread alone inside of a parallel region of OpenMP, in a child
/// of fork(), and while other calls leave it too few cores.
MOE_RT_API moe_rt_status_t moe_rt_openmp_executor(const char *library,
                                                  moe_rt_executor_t *out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOE_RT_OPENMP_H
