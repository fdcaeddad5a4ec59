//===- compatibility.cpp - Which code a GPU runs --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/device/compatibility.h"

#include <cinttypes>
#include <string>

using namespace moe::rt;
using namespace moe::rt::cuda;

bool moe::rt::cuda::runsOn(const Arch &arch, ImageFormat format,
                           const Capability &capability) {
  if (arch.exact)
    return capability.major == arch.major && capability.minor == arch.minor;
  if (capability.major == arch.major)
    return capability.minor >= arch.minor;
  return format == ImageFormat::ptx && capability.major > arch.major;
}

moe_rt_status_t moe::rt::cuda::checkDevice(const DeviceCode &code,
                                           const CUDADevice &device) {
  Capability capability = device.capability();
  if (!runsOn(code.arch, ImageFormat::ptx, capability))
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "needs an NVIDIA GPU of compute capability %d.%d%s, this "
                     "one (%s) has %d.%d",
                     code.arch.major, code.arch.minor,
                     code.arch.exact ? "" : " or higher", device.name(),
                     capability.major, capability.minor);
  bool runs = false;
  std::string images;
  for (const Image &image : code.images) {
    runs |= runsOn(image.arch, image.format, capability);
    images += (images.empty() ? "" : ", ") + image.describe();
  }
  if (!runs)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "has kernels as %s, none of which an NVIDIA GPU of "
                     "compute capability %d.%d runs, as this one (%s)",
                     images.c_str(), capability.major, capability.minor,
                     device.name());
  for (const Kernel &kernel : code.kernels)
    if (kernel.shared > device.maxSharedMemory())
      return makeError(MOE_RT_FAILED_PRECONDITION,
                       "has a kernel '%s' that needs %" PRId64
                       " bytes of shared memory, this NVIDIA GPU (%s) has "
                       "%" PRId64,
                       kernel.name.c_str(), kernel.shared, device.name(),
                       device.maxSharedMemory());
  return nullptr;
}
