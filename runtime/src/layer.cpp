//===- layer.cpp - Layers -------------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer.h"
#include "cpu/host_call.h"
#include "cpu/host_weights.h"
#include "cuda/cuda_layer.h"
#include "cuda/device_weights.h"

#include <new>

using namespace moe::rt;

static moe_rt_status_t checkTensors(const Function &function, const char *role,
                                    size_t expected, const DLTensor *tensors,
                                    size_t count) {
  if (count != expected)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "function '%s': %zu %s are given, expected %zu",
                     function.name.c_str(), count, role, expected);
  if (count > 0 && !tensors)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "function '%s': the %s are NULL, expected %zu",
                     function.name.c_str(), role, expected);
  return nullptr;
}

static moe_rt_status_t newLayer(moe_rt_module_t *module,
                                const Function &function,
                                std::unique_ptr<moe_rt_layer_t> &out) {
  out.reset(new (std::nothrow) moe_rt_layer_t(module, function));
  if (!out)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the layer");
  if (!out->layout.compute(function))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "function '%s' needs more than 2^64-1 bytes for a call",
                     function.name.c_str());
  return nullptr;
}

/// What a layer on the CPU has.
static moe_rt_status_t setUpOnHost(moe_rt_layer_t &layer) {
  layer.weights.reset(new (std::nothrow)
                          HostWeights(*layer.module, layer.function));
  if (!layer.weights)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the weights");
  return layer.statistics.allocate(layer.function);
}

/// What a layer on a device has: its module's kernels, to begin with.
static moe_rt_status_t setUpOnDevice(moe_rt_layer_t &layer,
                                     cuda::CUDADevice &device) {
  MOE_RT_TRY(layer.module->program->load(layer.function.name.c_str()));
  layer.weights.reset(new (std::nothrow)
                          cuda::DeviceWeights(*layer.module, layer.function));
  layer.reports.reset(new (std::nothrow) cuda::Reports(
      device, layer.function, layer.layout.reportBytes));
  if (!layer.weights || !layer.reports)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED, "cannot allocate the weights");
  return layer.reports->create();
}

/// Create a layer; `fill` gives it its weights.
template <typename Fill>
static moe_rt_status_t createAndFill(moe_rt_module_t *module,
                                     const Function &function, Fill fill,
                                     moe_rt_layer_t **out) {
  std::unique_ptr<moe_rt_layer_t> layer;
  MOE_RT_TRY(newLayer(module, function, layer));
  if (cuda::CUDADevice *device = module->context->device.get()) {
    cuda::ContextScope scope(*device);
    MOE_RT_TRY(scope.check());
    MOE_RT_TRY(setUpOnDevice(*layer, *device));
    MOE_RT_TRY(fill(*layer->weights));
  } else {
    MOE_RT_TRY(setUpOnHost(*layer));
    MOE_RT_TRY(fill(*layer->weights));
  }
  *out = layer.release();
  return nullptr;
}

moe_rt_status_t moe::rt::createLayer(moe_rt_module_t *module,
                                     const Function &function,
                                     const WeightSource &source,
                                     moe_rt_layer_t **out) {
  return createAndFill(
      module, function,
      [&](LayerWeights &weights) { return weights.read(source); }, out);
}

/// Check what every kind of call is given.
static moe_rt_status_t checkCall(const char *name, const moe_rt_layer_t *layer,
                                 const DLTensor *inputs, size_t inputCount,
                                 const DLTensor *outputs, size_t outputCount) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT, "%s: 'layer' is NULL", name);
  const Function &function = layer->function;
  MOE_RT_TRY(checkTensors(function, "inputs", function.inputs.size(), inputs,
                          inputCount));
  return checkTensors(function, "outputs", function.outputs.size(), outputs,
                      outputCount);
}

static bool isOnDevice(const moe_rt_layer_t *layer) {
  return layer->module->context->device != nullptr;
}

extern "C" {

moe_rt_status_t moe_rt_layer_create(moe_rt_module_t *module,
                                    const char *function,
                                    const DLTensor *weights, size_t count,
                                    moe_rt_layer_t **out) {
  if (!module || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_create: an argument is NULL");
  const Function *found;
  MOE_RT_TRY(findFunction(module, function, found));
  MOE_RT_TRY(
      checkTensors(*found, "weights", found->weights.size(), weights, count));
  return createAndFill(
      module, *found, [&](LayerWeights &layer) { return layer.bind(weights); },
      out);
}

moe_rt_status_t moe_rt_layer_create_from_source(moe_rt_module_t *module,
                                                const char *function,
                                                moe_rt_read_weight_fn read,
                                                void *user,
                                                moe_rt_layer_t **out) {
  if (!module || !read || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_create_from_source: an argument is NULL");
  const Function *found;
  MOE_RT_TRY(findFunction(module, function, found));
  WeightSource source;
  source.read = read;
  source.user = user;
  return createLayer(module, *found, source, out);
}

uint64_t moe_rt_layer_weight_bytes(const moe_rt_layer_t *layer) {
  return layer ? layer->weights->ownedBytes() : 0;
}

void moe_rt_layer_destroy(moe_rt_layer_t *layer) { delete layer; }

moe_rt_status_t moe_rt_layer_workspace_bytes(const moe_rt_layer_t *layer,
                                             int64_t tokens, uint64_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_workspace_bytes: an argument is NULL");
  MOE_RT_TRY(checkTokens(layer->function, tokens));
  uint64_t bytes = 0;
  MOE_RT_TRY(codeWorkspace(layer->function, tokens, bytes));
  if (isOnDevice(layer))
    MOE_RT_TRY(cuda::callWorkspace(*layer, bytes, bytes));
  *out = bytes;
  return nullptr;
}

moe_rt_status_t moe_rt_layer_call(moe_rt_layer_t *layer, const DLTensor *inputs,
                                  size_t input_count, DLTensor *outputs,
                                  size_t output_count, void *workspace,
                                  uint64_t workspace_bytes) {
  MOE_RT_TRY(checkCall("moe_rt_layer_call", layer, inputs, input_count, outputs,
                       output_count));
  if (isOnDevice(layer))
    return cuda::callAndWait(*layer, inputs, outputs, workspace,
                             workspace_bytes);
  return callOnHost(*layer, inputs, outputs, workspace, workspace_bytes);
}

moe_rt_status_t
moe_rt_layer_call_on_stream(moe_rt_layer_t *layer, const DLTensor *inputs,
                            size_t input_count, DLTensor *outputs,
                            size_t output_count, void *workspace,
                            uint64_t workspace_bytes, void *stream) {
  return moe_rt_layer_call_live_on_stream(layer, inputs, input_count, outputs,
                                          output_count, workspace,
                                          workspace_bytes, stream, nullptr);
}

moe_rt_status_t moe_rt_layer_call_live_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream, const int32_t *live_tokens) {
  MOE_RT_TRY(checkCall("moe_rt_layer_call_on_stream", layer, inputs,
                       input_count, outputs, output_count));
  if (isOnDevice(layer))
    return cuda::callOnStream(*layer, inputs, outputs, workspace,
                              workspace_bytes,
                              static_cast<cuda::CUstream>(stream), live_tokens);
  if (live_tokens)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "live_tokens is %p, expected NULL on the CPU",
                     static_cast<const void *>(live_tokens));
  if (stream)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "stream is %p, expected NULL on the CPU", stream);
  return callOnHost(*layer, inputs, outputs, workspace, workspace_bytes);
}

moe_rt_status_t moe_rt_layer_poll(moe_rt_layer_t *layer) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_poll: 'layer' is NULL");
  if (!isOnDevice(layer))
    return nullptr;
  MOE_RT_TRY(layer->reports->takeError());
  return layer->module->context->device->checkHealth();
}

size_t moe_rt_layer_dispatch_count(const moe_rt_layer_t *layer) {
  return layer ? layer->function.dispatches.size() : 0;
}

moe_rt_status_t moe_rt_layer_statistics(moe_rt_layer_t *layer, size_t dispatch,
                                        moe_rt_statistics_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_statistics: an argument is NULL");
  size_t count = layer->function.dispatches.size();
  if (dispatch >= count)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer has %zu dispatches, there is no dispatch %zu",
                     count, dispatch);
  if (isOnDevice(layer))
    return layer->reports->read(dispatch, *out);
  layer->statistics.read(dispatch, *out);
  return nullptr;
}

void moe_rt_layer_reset_statistics(moe_rt_layer_t *layer) {
  if (!layer)
    return;
  if (isOnDevice(layer))
    layer->reports->reset();
  else
    layer->statistics.reset();
}

void moe_rt_layer_enable_statistics(moe_rt_layer_t *layer, int enabled) {
  if (layer)
    layer->counts.store(enabled != 0, std::memory_order_relaxed);
}

} // extern "C"
