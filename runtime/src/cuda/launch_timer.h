//===- launch_timer.h - Times of kernels ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_LAUNCH_TIMER_H
#define MOE_RT_SRC_CUDA_LAUNCH_TIMER_H

#include "cuda/device/cuda_device.h"
#include "layer/profile.h"

namespace moe::rt::cuda {

/// Times the kernels of one call by events on its stream, if the profile of the
/// layer is enabled when it is made and the stream is not captured. Used within
/// a ContextScope.
class LaunchTimer {
public:
  LaunchTimer(const CUDADevice &device, Profile &profile, CUstream stream);
  ~LaunchTimer();
  LaunchTimer(const LaunchTimer &) = delete;
  LaunchTimer &operator=(const LaunchTimer &) = delete;

  /// Whether the driver has what it takes.
  static moe_rt_status_t check(const Driver &driver);

  /// To be called before the first kernel, and after each.
  moe_rt_status_t begin();
  moe_rt_status_t launched(size_t kernel);
  /// Whether it times the kernels of this call.
  bool isRunning() const { return running; }
  /// Wait for the kernels and add their times to the profile.
  moe_rt_status_t end();

private:
  moe_rt_status_t mark();

  const CUDADevice &device;
  Profile &profile;
  CUstream stream;
  bool running = false;
  std::vector<CUevent> events; // one more than kernels
  std::vector<size_t> kernels;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_LAUNCH_TIMER_H
