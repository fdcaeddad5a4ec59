//===- program.h - Kernels that the driver has loaded -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_PROGRAM_H
#define MOE_RT_SRC_CUDA_PROGRAM_H

#include "artifact/images.h"
#include "core/device.h"
#include "cuda/device/cuda_device.h"

#include <mutex>

namespace moe::rt::cuda {

/// One image, unloaded at the end of the scope.
class LoadedImage {
public:
  explicit LoadedImage(const CUDADevice &device) : device(device) {}
  ~LoadedImage() { unload(); }
  LoadedImage(const LoadedImage &) = delete;
  LoadedImage &operator=(const LoadedImage &) = delete;

  /// Load a cubin, or PTX that ends with a NUL, in place of what there was.
  /// Messages begin with "cannot load `what`" and have the compiler's first
  /// complaints.
  moe_rt_status_t load(const void *image, const char *what);
  moe_rt_status_t find(const char *kernel, CUfunction &out) const;

private:
  void unload();

  const CUDADevice &device;
  CUmodule module = nullptr;
};

/// The kernels of a module, loaded for the first layer that is created.
class CUDAProgram final : public Program {
public:
  CUDAProgram(CUDADevice &device, const DeviceCode &code)
      : device(device), code(code), image(device) {}

  moe_rt_status_t newLayer(const moe_rt_layer_t &layer,
                           std::unique_ptr<DeviceLayer> &out) override;

  /// Load them unless they are. `function` is what messages name.
  moe_rt_status_t load(const char *function);

  const std::vector<Kernel> &kernels() const { return code.kernels; }
  /// The handle of kernel `index`, once they are loaded.
  CUfunction kernel(size_t index) const { return functions[index]; }

private:
  moe_rt_status_t loadImages(const char *function);
  moe_rt_status_t prepare(const Kernel &kernel, CUfunction &out) const;

  CUDADevice &device;
  const DeviceCode &code;
  std::mutex mutex;
  bool loaded = false;
  LoadedImage image;
  std::vector<CUfunction> functions;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_PROGRAM_H
