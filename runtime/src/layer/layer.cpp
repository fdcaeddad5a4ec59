//===- layer.cpp - Layers -------------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/layer.h"

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

/// Create a layer; `fill` gives it its weights.
template <typename Fill>
static moe_rt_status_t createAndFill(moe_rt_module_t *module,
                                     const Function &function, Fill fill,
                                     moe_rt_layer_t **out) {
  std::unique_ptr<moe_rt_layer_t> layer;
  MOE_RT_TRY(newLayer(module, function, layer));
  MOE_RT_TRY(module->program->newLayer(*layer, layer->onDevice));
  MOE_RT_TRY(fill(layer->onDevice->weights()));
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

moe_rt_status_t moe::rt::checkCall(const char *name,
                                   const moe_rt_layer_t *layer,
                                   const DLTensor *inputs, size_t inputCount,
                                   const DLTensor *outputs,
                                   size_t outputCount) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT, "%s: 'layer' is NULL", name);
  const Function &function = layer->function;
  if (!layer->onDevice->weights().isComplete())
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "function '%s': the layer has no weights, as "
                     "moe_rt_layer_update failed",
                     function.name.c_str());
  MOE_RT_TRY(checkTensors(function, "inputs", function.inputs.size(), inputs,
                          inputCount));
  return checkTensors(function, "outputs", function.outputs.size(), outputs,
                      outputCount);
}

static moe_rt_status_t callOnStream(const char *name, moe_rt_layer_t *layer,
                                    const DLTensor *inputs, size_t inputCount,
                                    const DLTensor *outputs, size_t outputCount,
                                    void *workspace, uint64_t workspaceBytes,
                                    void *stream, const int32_t *liveTokens) {
  if (moe_rt_status_t status =
          checkCall(name, layer, inputs, inputCount, outputs, outputCount))
    return layer ? layer->onDevice->refuse(status) : status;
  return layer->onDevice->callOnStream(
      {inputs, outputs, workspace, workspaceBytes}, stream, liveTokens);
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

moe_rt_status_t moe_rt_layer_update(moe_rt_layer_t *layer,
                                    const DLTensor *weights, size_t count) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_update: 'layer' is NULL");
  const Function &function = layer->function;
  if (layer->onDevice->parallel())
    return makeError(MOE_RT_UNIMPLEMENTED,
                     "layer '%s' is over several ranks: its weights cannot be "
                     "replaced",
                     function.name.c_str());
  LayerWeights &own = layer->onDevice->weights();
  if (!own.areFromTensors())
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "function '%s': the layer keeps weights of a source, "
                     "expected one that was created from tensors",
                     function.name.c_str());
  MOE_RT_TRY(checkTensors(function, "weights", function.weights.size(), weights,
                          count));
  return own.rebind(weights);
}

uint64_t moe_rt_layer_weight_bytes(const moe_rt_layer_t *layer) {
  return layer ? layer->onDevice->weights().ownedBytes() : 0;
}

moe_rt_status_t moe_rt_layer_quantization_errors(const moe_rt_layer_t *layer,
                                                 size_t weight,
                                                 const float **errors,
                                                 size_t *count) {
  if (!layer || !errors || !count)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_quantization_errors: an argument is NULL");
  size_t weights = layer->function.weights.size();
  if (weight >= weights)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer has %zu weights, there is no weight %zu", weights,
                     weight);
  const std::vector<float> &found = layer->onDevice->weights().errors(weight);
  *errors = found.empty() ? nullptr : found.data();
  *count = found.size();
  return nullptr;
}

void moe_rt_layer_destroy(moe_rt_layer_t *layer) { delete layer; }

moe_rt_status_t moe_rt_layer_workspace_bytes(const moe_rt_layer_t *layer,
                                             int64_t tokens, uint64_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_workspace_bytes: an argument is NULL");
  MOE_RT_TRY(checkTokens(layer->function, tokens));
  uint64_t bytes = 0;
  MOE_RT_TRY(layer->onDevice->workspace(tokens, bytes));
  *out = bytes;
  return nullptr;
}

moe_rt_status_t moe_rt_layer_call(moe_rt_layer_t *layer, const DLTensor *inputs,
                                  size_t input_count, DLTensor *outputs,
                                  size_t output_count, void *workspace,
                                  uint64_t workspace_bytes) {
  if (moe_rt_status_t status = checkCall("moe_rt_layer_call", layer, inputs,
                                         input_count, outputs, output_count))
    return layer ? layer->onDevice->refuse(status) : status;
  return layer->onDevice->call({inputs, outputs, workspace, workspace_bytes});
}

moe_rt_status_t
moe_rt_layer_call_on_stream(moe_rt_layer_t *layer, const DLTensor *inputs,
                            size_t input_count, DLTensor *outputs,
                            size_t output_count, void *workspace,
                            uint64_t workspace_bytes, void *stream) {
  return callOnStream("moe_rt_layer_call_on_stream", layer, inputs, input_count,
                      outputs, output_count, workspace, workspace_bytes, stream,
                      nullptr);
}

moe_rt_status_t moe_rt_layer_call_live_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream, const int32_t *live_tokens) {
  return callOnStream("moe_rt_layer_call_live_on_stream", layer, inputs,
                      input_count, outputs, output_count, workspace,
                      workspace_bytes, stream, live_tokens);
}

moe_rt_status_t moe_rt_layer_poll(moe_rt_layer_t *layer) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_poll: 'layer' is NULL");
  return layer->onDevice->poll();
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
  return layer->onDevice->statistics().read(dispatch, *out);
}

void moe_rt_layer_reset_statistics(moe_rt_layer_t *layer) {
  if (layer)
    layer->onDevice->statistics().reset();
}

void moe_rt_layer_enable_statistics(moe_rt_layer_t *layer, int enabled) {
  if (layer)
    layer->onDevice->statistics().enable(enabled != 0);
}

} // extern "C"
