//===- launch_timer.cpp - Times of kernels --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/launch_timer.h"

using namespace moe::rt;
using namespace moe::rt::cuda;

moe_rt_status_t LaunchTimer::check(const Driver &driver) {
  if (driver.cuEventCreate && driver.cuEventDestroy && driver.cuEventRecord &&
      driver.cuEventSynchronize && driver.cuEventElapsedTime)
    return nullptr;
  return makeError(MOE_RT_FAILED_PRECONDITION,
                   "cannot profile: the CUDA driver has no events");
}

LaunchTimer::LaunchTimer(const CUDADevice &device, Profile &profile,
                         CUstream stream)
    : device(device), profile(profile), stream(stream) {
  if (!profile.isEnabled())
    return;
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  running =
      device.driver().cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS &&
      status == CU_STREAM_CAPTURE_STATUS_NONE;
}

LaunchTimer::~LaunchTimer() {
  for (CUevent event : events)
    device.driver().cuEventDestroy(event);
}

moe_rt_status_t LaunchTimer::mark() {
  const Driver &driver = device.driver();
  CUevent event = nullptr;
  MOE_RT_TRY(driver.check(driver.cuEventCreate(&event, CU_EVENT_DEFAULT),
                          "create an event"));
  events.push_back(event);
  return driver.check(driver.cuEventRecord(event, stream), "record an event");
}

moe_rt_status_t LaunchTimer::begin() { return running ? mark() : nullptr; }

moe_rt_status_t LaunchTimer::launched(size_t kernel) {
  if (!running)
    return nullptr;
  kernels.push_back(kernel);
  return mark();
}

moe_rt_status_t LaunchTimer::end() {
  if (!running)
    return nullptr;
  const Driver &driver = device.driver();
  MOE_RT_TRY(driver.check(driver.cuEventSynchronize(events.back()),
                          "wait for the kernels of a profiled call"));
  auto between = [&](CUevent from, CUevent to,
                     int64_t &out) -> moe_rt_status_t {
    float milliseconds = 0;
    MOE_RT_TRY(driver.check(driver.cuEventElapsedTime(&milliseconds, from, to),
                            "read the time between two events"));
    out = static_cast<int64_t>(double(milliseconds) * 1e6);
    return nullptr;
  };
  std::vector<StageTime> times(profile.stageCount());
  for (size_t i = 0; i < kernels.size(); ++i) {
    int64_t nanoseconds = 0;
    MOE_RT_TRY(between(events[i], events[i + 1], nanoseconds));
    times[kernels[i]].nanoseconds += nanoseconds;
    ++times[kernels[i]].runs;
  }
  int64_t call = 0;
  MOE_RT_TRY(between(events.front(), events.back(), call));
  profile.add(times.data(), call);
  return nullptr;
}
