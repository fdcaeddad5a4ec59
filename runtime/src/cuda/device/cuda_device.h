//===- cuda_device.h - One NVIDIA GPU ---------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_DEVICE_CUDA_DEVICE_H
#define MOE_RT_SRC_CUDA_DEVICE_CUDA_DEVICE_H

#include "core/device.h"
#include "cuda/device/driver.h"

#include <memory>
#include <mutex>

namespace moe::rt::cuda {

class ReportKernel;

/// A compute capability, "9.0".
struct Capability {
  int major = 0, minor = 0;
};

/// One NVIDIA GPU as a context uses it: its primary context, which is shared
/// with the rest of the process, and a pool of memory for workspaces.
class CUDADevice final : public Device {
public:
  CUDADevice();
  ~CUDADevice() override;
  CUDADevice(const CUDADevice &) = delete;
  CUDADevice &operator=(const CUDADevice &) = delete;

  /// Open the driver and retain the device's primary context.
  static moe_rt_status_t open(int32_t ordinal,
                              std::unique_ptr<CUDADevice> &out);

  moe_rt_status_t checkPlace(const Argument &argument,
                             DLDevice place) const override;
  moe_rt_status_t checkVariant(const Variant &variant) const override;
  moe_rt_status_t load(const Variant &variant,
                       std::unique_ptr<Program> &out) override;
  /// Return to the driver what the pool does not use.
  void trim() override;

  const Driver &driver() const { return cuda; }
  int32_t ordinal() const { return index; }
  const char *name() const { return title; }
  Capability capability() const { return compute; }
  int64_t multiprocessors() const { return processors; }
  /// The most dynamic shared memory that a block can have, in bytes.
  int64_t maxSharedMemory() const { return sharedMemory; }
  CUcontext context() const { return primary; }
  /// Whether memory can be had in the order of a stream; and from which pool,
  /// nullptr for the device's default one.
  bool hasPools() const { return pools; }
  CUmemoryPool pool() const { return workspaces; }

  /// The kernel that adds up what dispatches report, loaded when it is first
  /// asked for.
  moe_rt_status_t reportKernel(const ReportKernel *&out);

  /// Wait for all work of the context. Fails while a stream is captured, with
  /// `what` that prevents.
  moe_rt_status_t waitForAll(const char *what) const;
  /// The error that has made the device unusable, if any. Waits for nothing and
  /// leaves captures alone.
  moe_rt_status_t checkHealth() const;

private:
  moe_rt_status_t initialise(int32_t ordinal);
  moe_rt_status_t attribute(CUdevice_attribute attribute, int &out) const;
  void createPool();

  Driver cuda;
  int32_t index = 0;
  char title[256] = "";
  Capability compute;
  int processors = 0, sharedMemory = 0, pools = 0;
  CUdevice device = 0;
  CUcontext primary = nullptr;
  CUmemoryPool workspaces = nullptr;
  CUstream probe = nullptr; // has no work; its state is that of the device

  std::mutex mutex;
  std::unique_ptr<ReportKernel> reporter;
};

moe_rt_status_t openCUDA(const moe_rt_context_options_t &options,
                         std::unique_ptr<Device> &out);

/// Makes the device's context the thread's current one until the end of the
/// scope. All functions of the driver that need a context are called in one.
class ContextScope {
public:
  explicit ContextScope(const CUDADevice &device) : driver(device.driver()) {
    result = driver.cuCtxPushCurrent(device.context());
  }
  ~ContextScope() {
    CUcontext popped;
    if (result == CUDA_SUCCESS)
      (void)driver.cuCtxPopCurrent(&popped);
  }
  ContextScope(const ContextScope &) = delete;
  ContextScope &operator=(const ContextScope &) = delete;

  /// Whether that was possible.
  moe_rt_status_t check() const {
    return driver.check(result, "make the device's context current");
  }

private:
  const Driver &driver;
  CUresult result;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_DEVICE_CUDA_DEVICE_H
