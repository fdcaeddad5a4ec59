//===- context.h - The context and its allocator ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CONTEXT_H
#define MOE_RT_SRC_CONTEXT_H

#include "cuda/cuda_device.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

#include <memory>

struct moe_rt_context_s {
  moe_rt_allocator_t allocator;                  // of memory of the host
  std::unique_ptr<moe::rt::cuda::CUDADevice> device; // empty: the CPU
  std::shared_ptr<moe::rt::ThreadPool>
      pool; // empty: the executor is the host's
  moe_rt_executor_t executor;
  moe::rt::Workspaces workspaces; // of calls on the CPU

  /// Where tensors have to be.
  DLDevice place() const {
    return device ? DLDevice{kDLCUDA, device->ordinal()} : DLDevice{kDLCPU, 0};
  }
};

#endif // MOE_RT_SRC_CONTEXT_H
