//===- devices.h - The devices that there are -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CORE_DEVICES_H
#define MOE_RT_SRC_CORE_DEVICES_H

#include "core/device.h"

namespace moe::rt {

/// Whether the options of a context may name this device.
moe_rt_status_t checkPlace(DLDevice device);

/// Open the device that checked options name.
moe_rt_status_t openDevice(const moe_rt_context_options_t &options,
                           std::unique_ptr<Device> &out);

} // namespace moe::rt

#endif // MOE_RT_SRC_CORE_DEVICES_H
