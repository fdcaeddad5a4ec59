//===- cpu_device.cpp - The CPU as a device -------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cpu/cpu_device.h"
#include "cpu/host_call.h"
#include "cpu/host_statistics.h"
#include "cpu/host_weights.h"
#include "cpu/target.h"
#include "layer/layer.h"

#include <new>

using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Layers
//===----------------------------------------------------------------------===//

namespace {

class CPULayer final : public DeviceLayer {
public:
  CPULayer(const moe_rt_layer_t &layer, CPUDevice &device)
      : layer(layer), device(device),
        itsWeights(*layer.module, layer.function, device.executor()) {
    for (const Stage &stage : layer.function.stages) {
      std::string kernels;
      for (const std::string &kernel : stage.kernels)
        kernels += (kernels.empty() ? "" : ", ") + kernel;
      itsProfile.addStage(stage.name, kernels);
    }
  }

  moe_rt_status_t create() { return itsStatistics.allocate(layer.function); }

  LayerWeights &weights() override { return itsWeights; }
  Statistics &statistics() override { return itsStatistics; }
  Profile &profile() override { return itsProfile; }
  moe_rt_status_t enableProfile(bool value) override {
    return itsProfile.enable(value);
  }
  moe_rt_status_t workspace(int64_t tokens, uint64_t &out) const override {
    return codeWorkspace(layer.function, tokens, out);
  }
  moe_rt_status_t call(const CallArguments &arguments) override {
    return HostCall(layer, device, itsStatistics, itsProfile).run(arguments);
  }
  moe_rt_status_t callOnStream(const CallArguments &arguments, void *stream,
                               const int32_t *liveTokens) override;
  moe_rt_status_t poll() override { return nullptr; }

private:
  const moe_rt_layer_t &layer;
  CPUDevice &device;
  HostWeights itsWeights;
  HostStatistics itsStatistics;
  Profile itsProfile;
};

/// There is nothing to load: the code of a module is all that the CPU runs.
class CPUProgram final : public Program {
public:
  explicit CPUProgram(CPUDevice &device) : device(device) {}

  moe_rt_status_t newLayer(const moe_rt_layer_t &layer,
                           std::unique_ptr<DeviceLayer> &out) override;

private:
  CPUDevice &device;
};

} // namespace

moe_rt_status_t CPULayer::callOnStream(const CallArguments &arguments,
                                       void *stream,
                                       const int32_t *liveTokens) {
  if (liveTokens)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "live_tokens is %p, expected NULL on the CPU",
                     static_cast<const void *>(liveTokens));
  if (stream)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "stream is %p, expected NULL on the CPU", stream);
  return call(arguments);
}

moe_rt_status_t CPUProgram::newLayer(const moe_rt_layer_t &layer,
                                     std::unique_ptr<DeviceLayer> &out) {
  std::unique_ptr<CPULayer> created(new (std::nothrow) CPULayer(layer, device));
  if (!created)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the weights");
  MOE_RT_TRY(created->create());
  out = std::move(created);
  return nullptr;
}

//===----------------------------------------------------------------------===//
// CPUDevice
//===----------------------------------------------------------------------===//

moe_rt_status_t CPUDevice::initialise(const moe_rt_context_options_t &options) {
  if (options.executor) {
    tasks = *options.executor;
    return nullptr;
  }
  pool = ThreadPool::get(options.num_threads);
  if (!pool)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "cannot allocate the pool of threads");
  tasks = pool->executor();
  return nullptr;
}

moe_rt_status_t moe::rt::openCPU(const moe_rt_context_options_t &options,
                                 std::unique_ptr<Device> &out) {
  std::unique_ptr<CPUDevice> device(new (std::nothrow) CPUDevice());
  if (!device)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the device");
  MOE_RT_TRY(device->initialise(options));
  out = std::move(device);
  return nullptr;
}

moe_rt_status_t CPUDevice::checkPlace(const Argument &argument,
                                      DLDevice place) const {
  if (place.device_type == kDLCPU || place.device_type == kDLCUDAHost)
    return nullptr;
  return makeError(MOE_RT_INVALID_ARGUMENT,
                   "%s '%s' is on device type %d, expected the CPU (%d)",
                   argument.roleName(), argument.name.c_str(),
                   static_cast<int>(place.device_type),
                   static_cast<int>(kDLCPU));
}

moe_rt_status_t CPUDevice::checkVariant(const Variant &variant) const {
  if (variant.device)
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "needs an NVIDIA GPU (%s), this context is for the CPU",
                     variant.device->arch.name().c_str());
  MOE_RT_TRY(checkTriple(variant.triple));
  return checkFeatures(variant.features);
}

moe_rt_status_t CPUDevice::load(const Variant &,
                                std::unique_ptr<Program> &out) {
  out.reset(new (std::nothrow) CPUProgram(*this));
  if (!out)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the program");
  return nullptr;
}
