//===- memory.cpp - Memory of a device ------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/device/memory.h"
#include "support/checked.h"

#include <cinttypes>

using namespace moe;
using namespace moe::rt;
using namespace moe::rt::cuda;

//===----------------------------------------------------------------------===//
// DeviceBuffer
//===----------------------------------------------------------------------===//

moe_rt_status_t DeviceBuffer::allocate(uint64_t bytes, const char *what,
                                       size_t alignment) {
  if (bytes == 0)
    return nullptr;
  const Driver &driver = device->driver();
  // The driver promises this alignment and no other.
  uint64_t slack = alignment > deviceAlignment ? alignment - 1 : 0, total;
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  if (checkedAdd(bytes, slack, total) && total <= SIZE_MAX)
    result = driver.cuMemAlloc(&memory, static_cast<size_t>(total));
  MOE_RT_TRY(driver.check(result, "allocate %" PRIu64 " bytes on %s for the %s",
                          bytes, device->name(), what));
  aligned = (memory + slack) & ~static_cast<CUdeviceptr>(slack);
  size = bytes;
  return nullptr;
}

DeviceBuffer::~DeviceBuffer() {
  if (!memory)
    return;
  ContextScope scope(*device);
  (void)device->driver().cuMemFree(memory);
}

//===----------------------------------------------------------------------===//
// PinnedBuffer
//===----------------------------------------------------------------------===//

moe_rt_status_t PinnedBuffer::allocate(size_t bytes, const char *what) {
  release();
  const Driver &driver = device->driver();
  MOE_RT_TRY(driver.check(
      driver.cuMemHostAlloc(&memory, bytes, CU_MEMHOSTALLOC_DEVICEMAP),
      "allocate %zu bytes of pinned memory for the %s", bytes, what));
  size = bytes;
  return driver.check(driver.cuMemHostGetDevicePointer(&mapped, memory, 0),
                      "map the %s for the device", what);
}

void PinnedBuffer::release() {
  if (memory) {
    ContextScope scope(*device);
    (void)device->driver().cuMemFreeHost(memory);
  }
  memory = nullptr;
  mapped = 0;
  size = 0;
}

//===----------------------------------------------------------------------===//
// StreamBuffer
//===----------------------------------------------------------------------===//

moe_rt_status_t StreamBuffer::allocate(uint64_t bytes, const char *what) {
  if (bytes == 0)
    return nullptr;
  if (!device.hasPools())
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "the device (%s) has no pools of memory, so a call needs "
                     "a %s of the caller's, of %" PRIu64 " bytes",
                     device.name(), what, bytes);
  const Driver &driver = device.driver();
  CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
  if (bytes <= SIZE_MAX) {
    auto size = static_cast<size_t>(bytes);
    result = device.pool() ? driver.cuMemAllocFromPoolAsync(
                                 &memory, size, device.pool(), stream)
                           : driver.cuMemAllocAsync(&memory, size, stream);
  }
  return driver.check(result, "allocate %" PRIu64 " bytes on %s for the %s",
                      bytes, device.name(), what);
}

StreamBuffer::~StreamBuffer() {
  if (!memory)
    return;
  ContextScope scope(device);
  (void)device.driver().cuMemFreeAsync(memory, stream);
}

//===----------------------------------------------------------------------===//
// Residence
//===----------------------------------------------------------------------===//

moe_rt_status_t moe::rt::cuda::checkResidence(const CUDADevice &device,
                                              const void *memory,
                                              const char *what) {
  const Driver &driver = device.driver();
  CUdeviceptr address = deviceAddress(memory);
  CUmemorytype type = CU_MEMORYTYPE_HOST;
  int ordinal = -1;
  // An address that the driver does not know is one of the host.
  if (driver.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                   address) != CUDA_SUCCESS ||
      type == CU_MEMORYTYPE_HOST)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s at %p is memory of the host, expected CUDA device %d",
                     what, memory, device.ordinal());
  MOE_RT_TRY(
      driver.check(driver.cuPointerGetAttribute(
                       &ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address),
                   "find the device of the %s at %p", what, memory));
  if (ordinal != device.ordinal())
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s at %p is on CUDA device %d, expected CUDA device %d",
                     what, memory, ordinal, device.ordinal());
  return nullptr;
}
