//===- device_weights.h - Weights in memory of a device ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_DEVICE_WEIGHTS_H
#define MOE_RT_SRC_CUDA_DEVICE_WEIGHTS_H

#include "cuda/device/memory.h"
#include "cuda/program.h"
#include "layer/weights.h"

namespace moe::rt::cuda {

/// The weights of a layer on a device. Its kernels must have been loaded.
class DeviceWeights final : public LayerWeights {
public:
  DeviceWeights(const moe_rt_module_t &module, const Function &function,
                const CUDADevice &device, const CUDAProgram &program)
      : LayerWeights(module, function), device(device), program(program),
        staging(device) {}

  moe_rt_status_t bind(const DLTensor *tensors) override;
  moe_rt_status_t rebind(const DLTensor *tensors) override;
  moe_rt_status_t read(const WeightSource &source) override;
  uint64_t ownedBytes() const override;

private:
  moe_rt_status_t waitForCalls() const override;
  moe_rt_status_t own(const Argument &argument, const char *what,
                      BoundTensor &out) override;
  moe_rt_status_t load(const WeightSource &source, size_t position,
                       const BoundTensor &out) override;
  moe_rt_status_t prepare(const WeightSource &source,
                          const Preparation &preparation,
                          const BoundTensor &out) override;

  moe_rt_status_t fetch(const Argument &argument, const BoundTensor &from,
                        void *to) const override;

  const CUDADevice &device;
  const CUDAProgram &program;
  PinnedBuffer staging; // what is read passes through it
  std::vector<DeviceBuffer> owned;
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_DEVICE_WEIGHTS_H
