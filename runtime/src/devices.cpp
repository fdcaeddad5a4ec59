//===- devices.cpp - The devices that there are ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The registry: the only file of the core that knows the devices' folders.
//
//===----------------------------------------------------------------------===//

#include "core/devices.h"
#include "cpu/cpu_device.h"
#include "cuda/device/cuda_device.h"

using namespace moe::rt;

namespace {

struct Entry {
  DLDeviceType type;
  moe_rt_status_t (*open)(const moe_rt_context_options_t &options,
                          std::unique_ptr<Device> &out);
};

} // namespace

static constexpr Entry devices[] = {
    {kDLCPU, openCPU},
    {kDLCUDA, cuda::openCUDA},
};

/// Options that are all zero mean the CPU.
static DLDeviceType typeOf(DLDevice device) {
  return device.device_type == 0 ? kDLCPU : device.device_type;
}

moe_rt_status_t moe::rt::checkPlace(DLDevice device) {
  DLDeviceType type = typeOf(device);
  if (type == kDLCUDA || (type == kDLCPU && device.device_id == 0))
    return nullptr;
  return makeError(MOE_RT_INVALID_ARGUMENT,
                   "context options: device has type %d and id %d, expected "
                   "the CPU (%d, 0) or CUDA (%d) with the number of a device",
                   static_cast<int>(device.device_type), device.device_id,
                   static_cast<int>(kDLCPU), static_cast<int>(kDLCUDA));
}

moe_rt_status_t moe::rt::openDevice(const moe_rt_context_options_t &options,
                                    std::unique_ptr<Device> &out) {
  for (const Entry &entry : devices)
    if (entry.type == typeOf(options.device))
      return entry.open(options, out);
  return checkPlace(options.device);
}
