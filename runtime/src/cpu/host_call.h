//===- host_call.h - Call a layer on the CPU --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_HOST_CALL_H
#define MOE_RT_SRC_CPU_HOST_CALL_H

#include "cpu/cpu_device.h"
#include "cpu/host_statistics.h"
#include "layer/call.h"
#include "layer/profile.h"

namespace moe::rt {

/// Run the entry point of code for the CPU.
inline int32_t runEntry(const Function &function, void **args,
                        const moe_rt_tasks_t &tasks) {
  auto entry = reinterpret_cast<moe_rt_entry_fn>(function.entryAddress);
  return entry(args, &tasks);
}

/// One call on the CPU.
class HostCall : Call {
public:
  HostCall(const moe_rt_layer_t &layer, CPUDevice &device,
           HostStatistics &statistics, Profile &profile);
  ~HostCall() { device.workspaces().giveBack(std::move(ownWorkspace)); }

  moe_rt_status_t run(const CallArguments &arguments);

private:
  moe_rt_status_t findWorkspace(void *given, uint64_t bytes);
  const DispatchReport *findReports();

  CPUDevice &device;
  HostStatistics &statistics;
  StageTimer timer;
  Buffer ownWorkspace;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_HOST_CALL_H
