//===- cuda_layer.h - One layer on a GPU ------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_CUDA_CUDA_LAYER_H
#define MOE_RT_SRC_CUDA_CUDA_LAYER_H

#include "cuda/device_weights.h"
#include "cuda/report/reports.h"
#include "layer/layer.h"
#include "layer/profile.h"

namespace moe::rt::cuda {

/// One layer on a GPU.
class CUDALayer final : public DeviceLayer {
public:
  /// The kernels of `program` must have been loaded.
  CUDALayer(const moe_rt_layer_t &layer, CUDADevice &device,
            const CUDAProgram &program)
      : layer(layer), device(device), program(program),
        itsWeights(*layer.module, layer.function, device, program),
        reports(device, layer.function, layer.layout.reportBytes) {
    for (const Kernel &kernel : program.kernels())
      itsProfile.addStage(kernel.name, "");
  }

  /// Allocate what calls report in. To be called once, within a ContextScope.
  moe_rt_status_t create() { return reports.create(); }

  LayerWeights &weights() override { return itsWeights; }
  Statistics &statistics() override { return reports; }
  Profile &profile() override { return itsProfile; }
  moe_rt_status_t enableProfile(bool value) override;

  moe_rt_status_t workspace(int64_t tokens, uint64_t &out) const override;
  /// Run a call on the legacy default stream.
  moe_rt_status_t call(const CallArguments &arguments) override;
  /// Enqueue a call. It fails if a call before it did, as far as that is known.
  moe_rt_status_t callOnStream(const CallArguments &arguments, void *stream,
                               const int32_t *liveTokens) override;
  moe_rt_status_t poll() override;

private:
  class DeviceCall;

  /// Where the reports begin in a workspace, behind what the code wants, and
  /// the bytes of both.
  moe_rt_status_t layOut(uint64_t codeBytes, uint64_t &reportsBegin,
                         uint64_t &total) const;

  const moe_rt_layer_t &layer;
  CUDADevice &device;
  const CUDAProgram &program;
  DeviceWeights itsWeights;
  Reports reports;
  Profile itsProfile; // its stages are the kernels of the program
};

} // namespace moe::rt::cuda

#endif // MOE_RT_SRC_CUDA_CUDA_LAYER_H
