//===- cuda_layer.cpp - Call a layer on a device --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/cuda_layer.h"
#include "checked.h"
#include "cuda/kernel_launcher.h"
#include "layer.h"

using namespace moe;
using namespace moe::rt;
using namespace moe::rt::cuda;

/// Where the reports begin in a workspace, behind what the code wants, and the
/// bytes of both.
static moe_rt_status_t layOut(const moe_rt_layer_t &layer, uint64_t codeBytes,
                              uint64_t &reportsBegin, uint64_t &total) {
  uint64_t reportBytes = layer.reports->callBytes();
  reportsBegin = total = codeBytes;
  if (reportBytes == 0)
    return nullptr;
  if (!checkedAlign(codeBytes, deviceAlignment, reportsBegin) ||
      !checkedAdd(reportsBegin, reportBytes, total))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "function '%s' needs more than 2^64-1 bytes of workspace",
                     layer.function.name.c_str());
  return nullptr;
}

moe_rt_status_t moe::rt::cuda::callWorkspace(const moe_rt_layer_t &layer,
                                             uint64_t codeBytes,
                                             uint64_t &out) {
  uint64_t reportsBegin;
  return layOut(layer, codeBytes, reportsBegin, out);
}

namespace {

class DeviceCall : Call {
public:
  DeviceCall(moe_rt_layer_t &layer, CUstream stream,
             const int32_t *liveTokens = nullptr)
      : Call(layer), device(*layer.module->context->device),
        reports(*layer.reports), stream(stream), liveTokens(liveTokens) {}

  /// Enqueue the call. With `record` errors of its reports go there, once the
  /// stream has been waited for; without, they go to the layer.
  moe_rt_status_t enqueue(const DLTensor *inputs, const DLTensor *outputs,
                          void *givenWorkspace, uint64_t workspaceBytes,
                          ErrorRecord *record);
  /// Whether there is something on the stream to wait for.
  bool hasEnqueued() const { return enqueued; }

private:
  const CUDADevice &device;
  Reports &reports;
  CUstream stream;
  const int32_t *liveTokens;
  bool enqueued = false;
};

} // namespace

moe_rt_status_t DeviceCall::enqueue(const DLTensor *inputs,
                                    const DLTensor *outputs,
                                    void *givenWorkspace,
                                    uint64_t workspaceBytes,
                                    ErrorRecord *record) {
  MOE_RT_TRY(scratch.allocate(layout.total, "arguments of a call"));
  MOE_RT_TRY(bind(inputs, outputs));
  uint64_t codeBytes = 0, reportsBegin = 0, required = 0;
  MOE_RT_TRY(codeWorkspace(function, tokens, codeBytes));
  MOE_RT_TRY(layOut(layer, codeBytes, reportsBegin, required));
  if (givenWorkspace) {
    MOE_RT_TRY(bindWorkspace(givenWorkspace, workspaceBytes, required,
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
  bool reported =
      layer.counts.load(std::memory_order_relaxed) || !reports.areAlwaysRight();
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
  MOE_RT_TRY(Launcher(device, *layer.module->program, stream, liveTokens)
                 .run(function, at<void *>(layout.pointers)));
  if (!reported)
    return nullptr;
  return record ? reports.collect(reportMemory, stream, *record)
                : reports.collect(reportMemory, stream);
}

moe_rt_status_t
moe::rt::cuda::callOnStream(moe_rt_layer_t &layer, const DLTensor *inputs,
                            const DLTensor *outputs, void *workspace,
                            uint64_t workspaceBytes, CUstream stream,
                            const int32_t *liveTokens) {
  if (moe_rt_status_t status = layer.reports->takeError())
    return wrapError(moe_rt_status_code(status), "a call before failed",
                     status);
  ContextScope scope(*layer.module->context->device);
  MOE_RT_TRY(scope.check());
  return DeviceCall(layer, stream, liveTokens)
      .enqueue(inputs, outputs, workspace, workspaceBytes, nullptr);
}

moe_rt_status_t moe::rt::cuda::callAndWait(moe_rt_layer_t &layer,
                                           const DLTensor *inputs,
                                           const DLTensor *outputs,
                                           void *workspace,
                                           uint64_t workspaceBytes) {
  const CUDADevice &device = *layer.module->context->device;
  ContextScope scope(device);
  MOE_RT_TRY(scope.check());
  ErrorRecord record = {};
  DeviceCall call(layer, nullptr);
  moe_rt_status_t status =
      call.enqueue(inputs, outputs, workspace, workspaceBytes, &record);
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
  return layer.reports->check(record);
}
