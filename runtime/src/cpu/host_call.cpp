//===- host_call.cpp - Call a layer on the CPU ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/host_call.h"
#include "layer.h"

#include <cstring>

using namespace moe::rt;

namespace {

class HostCall : Call {
public:
  explicit HostCall(moe_rt_layer_t &layer)
      : Call(layer), context(*layer.module->context),
        statistics(layer.statistics), ownWorkspace(context.allocator) {}
  ~HostCall() { context.workspaces.giveBack(std::move(ownWorkspace)); }

  moe_rt_status_t run(const DLTensor *inputs, const DLTensor *outputs,
                      void *givenWorkspace, uint64_t workspaceBytes);

private:
  moe_rt_status_t findWorkspace(void *given, uint64_t bytes);
  const DispatchReport *findReports();

  moe_rt_context_t &context;
  Statistics &statistics;
  Buffer ownWorkspace;
};

} // namespace

moe_rt_status_t HostCall::findWorkspace(void *given, uint64_t bytes) {
  uint64_t required = 0;
  MOE_RT_TRY(codeWorkspace(function, tokens, required));
  if (given)
    return bindWorkspace(given, bytes, required, bufferAlignment);
  MOE_RT_TRY(context.workspaces.take(required, ownWorkspace));
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

moe_rt_status_t HostCall::run(const DLTensor *inputs, const DLTensor *outputs,
                              void *givenWorkspace, uint64_t workspaceBytes) {
  MOE_RT_TRY(scratch.allocate(layout.total + layout.reportBytes,
                              "arguments of a call"));
  MOE_RT_TRY(bind(inputs, outputs));
  for (size_t index : function.inputs)
    MOE_RT_TRY(checkElements(function.arguments[index], bound(index)));
  MOE_RT_TRY(findWorkspace(givenWorkspace, workspaceBytes));
  MOE_RT_TRY(checkOverlaps());
  char *buffers = at<char>(layout.total);
  std::memset(buffers, 0, layout.reportBytes);
  writeArguments(buffers, workspace.bytes);
  if (hasWork()) {
    int32_t code =
        function.entryFn(at<void *>(layout.pointers), &context.executor);
    if (code != 0)
      return makeError(MOE_RT_INTERNAL, "function '%s' failed with code %d",
                       function.name.c_str(), code);
  }
  const DispatchReport *reports = findReports();
  for (size_t i = 0; i < function.dispatches.size(); ++i)
    MOE_RT_TRY(Statistics::check(function, i, reports[i]));
  if (layer.counts.load(std::memory_order_relaxed))
    statistics.add(reports);
  return nullptr;
}

moe_rt_status_t moe::rt::callOnHost(moe_rt_layer_t &layer,
                                    const DLTensor *inputs,
                                    const DLTensor *outputs, void *workspace,
                                    uint64_t workspaceBytes) {
  return HostCall(layer).run(inputs, outputs, workspace, workspaceBytes);
}
