//===- memory.h - Memory of a device ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Each of these releases what it has at the end of its scope. They are used
// within a ContextScope; their destructors need none.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_DEVICE_MEMORY_H
#define MOE_RT_SRC_CUDA_DEVICE_MEMORY_H

#include "cuda/device/cuda_device.h"

#include "moe_rt/abi.h"

#include <utility>

namespace moe::rt::cuda {

/// Alignment of workspaces, and what the driver's allocations have at least.
inline constexpr size_t deviceAlignment = MOE_RT_DEVICE_WORKSPACE_ALIGNMENT;

inline CUdeviceptr deviceAddress(const void *memory) {
  return static_cast<CUdeviceptr>(reinterpret_cast<uintptr_t>(memory));
}

/// Memory of a device.
class DeviceBuffer {
public:
  explicit DeviceBuffer(const CUDADevice &device) : device(&device) {}
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer &&other) noexcept
      : device(other.device), memory(std::exchange(other.memory, 0)),
        aligned(std::exchange(other.aligned, 0)),
        size(std::exchange(other.size, 0)) {}
  DeviceBuffer &operator=(DeviceBuffer &&) = delete;

  /// To be called once. `what` names the purpose in the message. Zero bytes
  /// allocate nothing.
  moe_rt_status_t allocate(uint64_t bytes, const char *what,
                           size_t alignment = deviceAlignment);

  CUdeviceptr address() const { return aligned; }
  char *data() const {
    return reinterpret_cast<char *>(static_cast<uintptr_t>(aligned));
  }
  uint64_t bytes() const { return size; }

private:
  const CUDADevice *device;
  CUdeviceptr memory = 0, aligned = 0;
  uint64_t size = 0;
};

/// Memory of the host that the device reaches, too, under another address.
class PinnedBuffer {
public:
  explicit PinnedBuffer(const CUDADevice &device) : device(&device) {}
  ~PinnedBuffer() { release(); }
  PinnedBuffer(const PinnedBuffer &) = delete;
  PinnedBuffer &operator=(const PinnedBuffer &) = delete;

  /// Replaces what there was.
  moe_rt_status_t allocate(size_t bytes, const char *what);

  char *data() const { return static_cast<char *>(memory); }
  CUdeviceptr address() const { return mapped; }
  size_t bytes() const { return size; }

private:
  void release();

  const CUDADevice *device;
  void *memory = nullptr;
  CUdeviceptr mapped = 0;
  size_t size = 0;
};

/// Memory of the device's pool for what is enqueued on a stream while this
/// lives: both ends of its life are in the order of the stream.
class StreamBuffer {
public:
  StreamBuffer(const CUDADevice &device, CUstream stream)
      : device(device), stream(stream) {}
  ~StreamBuffer();
  StreamBuffer(const StreamBuffer &) = delete;
  StreamBuffer &operator=(const StreamBuffer &) = delete;

  /// To be called once.
  moe_rt_status_t allocate(uint64_t bytes, const char *what);

  char *data() const {
    return reinterpret_cast<char *>(static_cast<uintptr_t>(memory));
  }

private:
  const CUDADevice &device;
  CUstream stream;
  CUdeviceptr memory = 0;
};

/// Refuse memory that is not the device's own. `what` names it.
moe_rt_status_t checkResidence(const CUDADevice &device, const void *memory,
                               const char *what);

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_DEVICE_MEMORY_H
