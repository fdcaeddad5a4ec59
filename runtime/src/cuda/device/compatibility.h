//===- compatibility.h - Which code a GPU runs ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_DEVICE_COMPATIBILITY_H
#define MOE_RT_SRC_CUDA_DEVICE_COMPATIBILITY_H

#include "artifact/images.h"
#include "cuda/device/cuda_device.h"

namespace moe::rt::cuda {

/// Whether a device of that capability runs code: PTX where it has at least
/// that of the code, a cubin only within the same major version.
bool runsOn(const Arch &arch, ImageFormat format, const Capability &capability);

/// Whether the device runs the variant.
moe_rt_status_t checkDevice(const DeviceCode &code, const CUDADevice &device);

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_DEVICE_COMPATIBILITY_H
