//===- cpu_device.h - The CPU as a device -----------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CPU_CPU_DEVICE_H
#define MOE_RT_SRC_CPU_CPU_DEVICE_H

#include "core/device.h"
#include "cpu/threads/pool.h"
#include "cpu/workspace.h"

namespace moe::rt {

/// The host's processor: threads that run tasks, and memory for calls.
class CPUDevice final : public Device {
public:
  /// Take the executor of the options, or threads of its own.
  moe_rt_status_t initialise(const moe_rt_context_options_t &options);

  moe_rt_status_t checkPlace(const Argument &argument,
                             DLDevice place) const override;
  moe_rt_status_t checkVariant(const Variant &variant) const override;
  moe_rt_status_t load(const Variant &variant,
                       std::unique_ptr<Program> &out) override;
  void trim() override { idle.trim(); }
  const moe_rt_executor_t *hostExecutor() const override { return &tasks; }

  const moe_rt_executor_t &executor() const { return tasks; }
  Workspaces &workspaces() { return idle; }

private:
  std::shared_ptr<ThreadPool> pool; // empty: the executor is the host's
  moe_rt_executor_t tasks = {};
  Workspaces idle;
};

moe_rt_status_t openCPU(const moe_rt_context_options_t &options,
                        std::unique_ptr<Device> &out);

} // namespace moe::rt

#endif // MOE_RT_SRC_CPU_CPU_DEVICE_H
