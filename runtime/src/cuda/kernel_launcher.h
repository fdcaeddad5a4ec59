//===- kernel_launcher.h - Start the kernels of compiled code ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_KERNEL_LAUNCHER_H
#define MOE_RT_SRC_CUDA_KERNEL_LAUNCHER_H

#include "artifact/signature.h"
#include "cuda/launch_timer.h"
#include "cuda/program.h"

#include "moe_rt/abi.h"

namespace moe::rt::cuda {

/// Runs entry points of a variant for a device, which enqueue kernels on a
/// stream. Used within a ContextScope.
class Launcher {
public:
  Launcher(const CUDADevice &device, const CUDAProgram &program,
           CUstream stream, const int32_t *liveTokens = nullptr,
           LaunchTimer *timer = nullptr)
      : device(device), program(program), stream(stream),
        liveTokens(liveTokens), timer(timer) {}
  ~Launcher() { moe_rt_status_free(failure); }
  Launcher(const Launcher &) = delete;
  Launcher &operator=(const Launcher &) = delete;

  /// Run the entry of a function, once.
  moe_rt_status_t run(const Function &function, void **args);

private:
  moe_rt_status_t launch(int64_t index, const int64_t *grid,
                         const moe_rt_kernel_argument_t *arguments,
                         int64_t count);
  moe_rt_status_t encode(const Kernel &kernel, int64_t argument,
                         const moe_rt_tensor_map_t &map,
                         CUtensorMap &out) const;
  bool mayOverlap(const Kernel &kernel) const;

  const CUDADevice &device;
  const CUDAProgram &program;
  CUstream stream;
  const int32_t *liveTokens;         // on the device; null: all are
  LaunchTimer *timer;                // may be null
  int64_t before = -1;               // the kernel that was launched last
  moe_rt_status_t failure = nullptr; // of a launch
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_KERNEL_LAUNCHER_H
