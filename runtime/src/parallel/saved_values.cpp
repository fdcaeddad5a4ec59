//===- saved_values.cpp - What a call keeps for another one ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/saved_values.h"
#include "layer/layer.h"
#include "parallel/parallel_call.h"
#include "support/checked.h"

#include "moe_rt/group.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <memory>

using namespace moe;
using namespace moe::rt;

//===----------------------------------------------------------------------===//
// Calls
//===----------------------------------------------------------------------===//

/// Whether what an earlier call has saved is what this one needs.
moe_rt_status_t ParallelCall::checkSaved() const {
  const char *name = function.signature.name.c_str();
  if (!function.forward)
    return nullptr;
  const char *forward = function.forward->signature.name.c_str();
  if (!saved || !saved->function)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer '%s' needs what a call of layer '%s' has saved",
                     name, forward);
  if (saved->function != function.forward || saved->group != &group)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer '%s': a call of layer '%s' has saved the values, "
                     "expected one of layer '%s' of this module and group",
                     name, saved->function->signature.name.c_str(), forward);
  if (saved->table != layer.tableHash())
    return makeError(MOE_RT_FAILED_PRECONDITION,
                     "layer '%s' has its experts on other ranks than layer "
                     "'%s' when its call saved the values",
                     name, forward);
  if (saved->tokens != tokens)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer '%s': a call with %" PRId64
                     " tokens has saved the values, this one has %" PRId64,
                     name, saved->tokens, tokens);
  return nullptr;
}

/// Keep what a call of the backward layer needs.
moe_rt_status_t ParallelCall::keep() {
  if (!saved || function.forward)
    return nullptr;
  SavedValues kept;
  kept.values.resize(function.values.size());
  for (size_t i = 0; i < function.values.size(); ++i) {
    const Value &value = function.values[i];
    if (!value.isKept)
      continue;
    SavedValues::Kept &to = kept.values[i];
    to.extent = extentOf(value);
    uint64_t bytes;
    if (!checkedMul<uint64_t>(
            value.type.elementSize(),
            countElements(value.type, to.extent, value.type.shape.size()),
            bytes))
      bytes = UINT64_MAX;
    to.memory = Buffer(group.context->allocator);
    MOE_RT_TRY(to.memory.allocate(
        bytes, "saved values",
        std::max<size_t>(value.type.alignment, bufferAlignment)));
    if (bytes > 0)
      std::memcpy(to.memory.data(), addressOf(i), bytes);
  }
  for (const auto &each : layer.layer.module->variant.parallel)
    if (each.get() == &function)
      kept.function = each;
  kept.group = &group;
  kept.table = layer.tableHash();
  kept.number = group.agreementCount();
  kept.tokens = tokens;
  *saved = std::move(kept);
  return nullptr;
}

/// Whether as many rows have come as when a value was saved.
moe_rt_status_t ParallelCall::checkExtent(const Value &value) const {
  if (value.kind != Value::Kind::saved || value.rows != Rows::received ||
      extentOf(value) == received[value.exchange])
    return nullptr;
  return makeError(MOE_RT_INTERNAL,
                   "layer '%s', step %zu: received %" PRId64
                   " rows, '%s' was saved for %" PRId64,
                   function.signature.name.c_str(), current,
                   received[value.exchange], value.type.name.c_str(),
                   extentOf(value));
}

//===----------------------------------------------------------------------===//
// C interface
//===----------------------------------------------------------------------===//

/// Check a call of a layer over several ranks, and make it.
static moe_rt_status_t call(const char *name, moe_rt_layer_t *layer,
                            const CallArguments &arguments, size_t inputCount,
                            size_t outputCount, moe_rt_status_t failure) {
  if (!failure)
    failure = checkCall(name, layer, arguments.inputs, inputCount,
                        arguments.outputs, outputCount);
  return failure ? layer->onDevice->refuse(failure)
                 : layer->onDevice->call(arguments);
}

static moe_rt_status_t isNull(const char *name, const char *what) {
  return makeError(MOE_RT_INVALID_ARGUMENT, "%s: '%s' is NULL", name, what);
}

static bool saves(const ParallelFunction &function) {
  for (const Value &value : function.values)
    if (value.isKept)
      return true;
  return false;
}

extern "C" {

moe_rt_status_t moe_rt_layer_call_saving(moe_rt_layer_t *layer,
                                         const DLTensor *inputs,
                                         size_t input_count, DLTensor *outputs,
                                         size_t output_count,
                                         moe_rt_saved_t **out) {
  static constexpr const char *name = "moe_rt_layer_call_saving";
  if (!layer)
    return isNull(name, "layer");
  const ParallelLayer *parallel = layer->onDevice->parallel();
  moe_rt_status_t failure = nullptr;
  if (!out)
    failure = isNull(name, "out");
  else if (!parallel || !saves(parallel->function))
    failure = makeError(MOE_RT_FAILED_PRECONDITION,
                        "function '%s' is no layer over several ranks that "
                        "saves values",
                        layer->function.name.c_str());
  auto saved = std::make_unique<moe_rt_saved_t>();
  MOE_RT_TRY(call(name, layer, {inputs, outputs, nullptr, 0, &saved->values},
                  input_count, output_count, failure));
  *out = saved.release();
  return nullptr;
}

moe_rt_status_t moe_rt_layer_call_saved(moe_rt_layer_t *layer,
                                        moe_rt_saved_t *saved,
                                        const DLTensor *inputs,
                                        size_t input_count, DLTensor *outputs,
                                        size_t output_count) {
  static constexpr const char *name = "moe_rt_layer_call_saved";
  if (!layer)
    return isNull(name, "layer");
  const ParallelLayer *parallel = layer->onDevice->parallel();
  moe_rt_status_t failure = nullptr;
  if (!saved)
    failure = isNull(name, "saved");
  else if (!parallel || !parallel->function.forward)
    failure = makeError(MOE_RT_FAILED_PRECONDITION,
                        "function '%s' is no backward layer over several ranks",
                        layer->function.name.c_str());
  return call(name, layer,
              {inputs, outputs, nullptr, 0, saved ? &saved->values : nullptr},
              input_count, output_count, failure);
}

uint64_t moe_rt_saved_bytes(const moe_rt_saved_t *saved) {
  uint64_t bytes = 0;
  if (saved)
    for (const SavedValues::Kept &kept : saved->values.values)
      bytes += kept.memory.bytes();
  return bytes;
}

void moe_rt_saved_destroy(moe_rt_saved_t *saved) { delete saved; }

} // extern "C"
