//===- cuda_layer.cpp - One layer on a GPU --------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/cuda_layer.h"
#include "cuda/kernel_launcher.h"
#include "cuda/launch_timer.h"

using namespace moe::rt;
using namespace moe::rt::cuda;

moe_rt_status_t CUDALayer::layOut(uint64_t codeBytes, uint64_t &reportsBegin,
                                  uint64_t &total) const {
  if (!moe_rt_device_workspace(codeBytes, layer.layout.reportBytes,
                               &reportsBegin, &total))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "function '%s' needs more than 2^64-1 bytes of workspace",
                     layer.function.name.c_str());
  return nullptr;
}

moe_rt_status_t CUDALayer::workspace(int64_t tokens, uint64_t &out) const {
  uint64_t codeBytes = 0, reportsBegin;
  MOE_RT_TRY(codeWorkspace(layer.function, tokens, codeBytes));
  return layOut(codeBytes, reportsBegin, out);
}

/// One call on a stream.
class CUDALayer::DeviceCall : Call {
public:
  DeviceCall(CUDALayer &on, CUstream stream,
             const int32_t *liveTokens = nullptr)
      : Call(on.layer), on(on), device(on.device), reports(on.reports),
        stream(stream), liveTokens(liveTokens) {}

  /// Enqueue the call. With `record` errors of its reports go there, once the
  /// stream has been waited for; without, they go to the layer.
  moe_rt_status_t enqueue(const CallArguments &arguments, ErrorRecord *record);
  /// Whether there is something on the stream to wait for.
  bool hasEnqueued() const { return enqueued; }

private:
  CUDALayer &on;
  const CUDADevice &device;
  Reports &reports;
  CUstream stream;
  const int32_t *liveTokens;
  bool enqueued = false;
};

moe_rt_status_t CUDALayer::DeviceCall::enqueue(const CallArguments &arguments,
                                               ErrorRecord *record) {
  MOE_RT_TRY(scratch.allocate(layout.total, "arguments of a call"));
  MOE_RT_TRY(bind(arguments.inputs, arguments.outputs));
  uint64_t codeBytes = 0, reportsBegin = 0, required = 0;
  MOE_RT_TRY(codeWorkspace(function, tokens, codeBytes));
  MOE_RT_TRY(on.layOut(codeBytes, reportsBegin, required));
  void *givenWorkspace = arguments.workspace;
  if (givenWorkspace) {
    MOE_RT_TRY(bindWorkspace(givenWorkspace, arguments.workspaceBytes, required,
                             deviceAlignment));
    if (required > 0)
      MOE_RT_TRY(checkResidence(device, givenWorkspace, "workspace"));
  }
  MOE_RT_TRY(checkOverlaps());
  if (liveTokens) {
    if (!function.takesLiveTokens)
      return makeError(
          MOE_RT_INVALID_ARGUMENT,
          "function '%s' cannot leave out tokens: what it computes "
          "for one depends on how many there are, or it runs in "
          "chunks",
          function.name.c_str());
    if (reinterpret_cast<uintptr_t>(liveTokens) % alignof(int32_t) != 0)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "live_tokens is %p, expected a multiple of 4",
                       static_cast<const void *>(liveTokens));
    MOE_RT_TRY(checkResidence(device, liveTokens, "live_tokens"));
  }
  bool reported = reports.areEnabled() || !reports.areAlwaysRight();
  if (!hasWork()) {
    if (reported)
      reports.countEmptyCall();
    return nullptr;
  }

  enqueued = true;
  StreamBuffer ownWorkspace(device, stream);
  if (!givenWorkspace) {
    MOE_RT_TRY(ownWorkspace.allocate(required, "workspace"));
    workspace = {ownWorkspace.data(), required};
  }
  char *reportMemory = workspace.data + reportsBegin;
  writeArguments(reportMemory, codeBytes);
  if (reported)
    MOE_RT_TRY(reports.clear(reportMemory, stream));
  LaunchTimer timer(device, on.itsProfile, stream);
  MOE_RT_TRY(timer.begin());
  MOE_RT_TRY(Launcher(device, on.program, stream, liveTokens, &timer)
                 .run(function, at<void *>(layout.pointers)));
  MOE_RT_TRY(timer.end());
  if (!reported)
    return nullptr;
  return record ? reports.collect(reportMemory, stream, *record)
                : reports.collect(reportMemory, stream);
}

moe_rt_status_t CUDALayer::callOnStream(const CallArguments &arguments,
                                        void *stream,
                                        const int32_t *liveTokens) {
  if (moe_rt_status_t status = reports.takeError())
    return wrapError(moe_rt_status_code(status), "an earlier call failed",
                     status);
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  return DeviceCall(*this, static_cast<CUstream>(stream), liveTokens)
      .enqueue(arguments, nullptr);
}

moe_rt_status_t CUDALayer::call(const CallArguments &arguments) {
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  ErrorRecord record = {};
  DeviceCall call(*this, nullptr);
  moe_rt_status_t status = call.enqueue(arguments, &record);
  if (!call.hasEnqueued())
    return status;
  // Also where a part of it failed: the caller may free its memory.
  const Driver &driver = device.driver();
  moe_rt_status_t ran =
      driver.check(driver.cuStreamSynchronize(nullptr), "run function '%s'",
                   layer.function.name.c_str());
  if (status) {
    moe_rt_status_free(ran);
    return status;
  }
  MOE_RT_TRY(ran);
  return reports.check(record);
}

moe_rt_status_t CUDALayer::enableProfile(bool value) {
  if (value)
    MOE_RT_TRY(LaunchTimer::check(device.driver()));
  return itsProfile.enable(value);
}

moe_rt_status_t CUDALayer::poll() {
  MOE_RT_TRY(reports.takeError());
  return device.checkHealth();
}
