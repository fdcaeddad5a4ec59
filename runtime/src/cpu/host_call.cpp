//===- host_call.cpp - Call a layer on the CPU ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/host_call.h"
#include "layer/layer.h"

#include <cstring>

using namespace moe::rt;

HostCall::HostCall(const moe_rt_layer_t &layer, CPUDevice &device,
                   HostStatistics &statistics, Profile &profile)
    : Call(layer), device(device), statistics(statistics), timer(profile),
      ownWorkspace(layer.module->context->allocator) {}

moe_rt_status_t HostCall::findWorkspace(void *given, uint64_t bytes) {
  uint64_t required = 0;
  MOE_RT_TRY(codeWorkspace(function, tokens, required));
  if (given)
    return bindWorkspace(given, bytes, required, bufferAlignment);
  MOE_RT_TRY(device.workspaces().take(required, ownWorkspace));
  workspace = {ownWorkspace.data(), required};
  return nullptr;
}

/// What each dispatch reports.
const DispatchReport *HostCall::findReports() {
  auto *reports = at<DispatchReport>(layout.reports);
  for (size_t i = 0; i < function.dispatches.size(); ++i) {
    const Dispatch &dispatch = function.dispatches[i];
    reports[i] = {
        reinterpret_cast<const int32_t *>(bound(dispatch.offsets).data),
        nullptr, false};
    if (dispatch.counters) {
      reports[i].counters =
          reinterpret_cast<const int64_t *>(bound(*dispatch.counters).data);
      reports[i].hasPadding =
          function.arguments[*dispatch.counters].shape[0] > 2;
    }
  }
  return reports;
}

moe_rt_status_t HostCall::run(const CallArguments &arguments) {
  MOE_RT_TRY(scratch.allocate(layout.total + layout.reportBytes,
                              "arguments of a call"));
  MOE_RT_TRY(bind(arguments.inputs, arguments.outputs));
  for (size_t index : function.inputs)
    MOE_RT_TRY(checkElements(function.arguments[index], bound(index)));
  MOE_RT_TRY(findWorkspace(arguments.workspace, arguments.workspaceBytes));
  MOE_RT_TRY(checkOverlaps());
  char *buffers = at<char>(layout.total);
  std::memset(buffers, 0, layout.reportBytes);
  writeArguments(buffers, workspace.bytes);
  if (hasWork()) {
    moe_rt_tasks_t tasks = {device.executor(), nullptr, nullptr};
    if (timer.isRunning()) {
      tasks.begin_stage = [](void *self, int64_t stage) {
        static_cast<StageTimer *>(self)->begin(stage);
      };
      tasks.profile = &timer;
    }
    int32_t code = runEntry(function, at<void *>(layout.pointers), tasks);
    if (code != 0)
      return makeError(MOE_RT_INTERNAL, "function '%s' failed with code %d",
                       function.name.c_str(), code);
  }
  const DispatchReport *reports = findReports();
  for (size_t i = 0; i < function.dispatches.size(); ++i)
    MOE_RT_TRY(Statistics::check(function, i, reports[i]));
  if (statistics.areEnabled())
    statistics.add(reports);
  timer.end();
  return nullptr;
}
