//===- call.cpp - Call a layer --------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "layer/call.h"
#include "core/module.h"
#include "layer/layer.h"
#include "support/checked.h"

#include <cinttypes>
#include <string>

using namespace moe;
using namespace moe::rt;

moe_rt_status_t moe::rt::checkTokens(const Function &function, int64_t tokens) {
  if (tokens < function.minTokens || tokens > function.maxTokens)
    return makeError(
        MOE_RT_OUT_OF_RANGE,
        "function '%s': T is %" PRId64 ", expected %" PRId64 " to %" PRId64,
        function.name.c_str(), tokens, function.minTokens, function.maxTokens);
  return nullptr;
}

moe_rt_status_t moe::rt::codeWorkspace(const Function &function, int64_t tokens,
                                       uint64_t &out) {
  int64_t bytes = function.workspaceFn(tokens);
  if (bytes < 0)
    return makeError(MOE_RT_INTERNAL,
                     "function '%s': the code asks for a workspace of %" PRId64
                     " bytes",
                     function.name.c_str(), bytes);
  out = static_cast<uint64_t>(bytes);
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Call
//===----------------------------------------------------------------------===//

Call::Call(const moe_rt_layer_t &layer)
    : layer(layer), function(layer.function), layout(layer.layout),
      scratch(layer.module->context->allocator) {}

BoundTensor &Call::bound(size_t argument) {
  return at<BoundTensor>(layout.bound)[argument];
}

moe_rt_status_t Call::bind(const DLTensor *inputs, const DLTensor *outputs) {
  const Device &device = *layer.module->context->device;
  TokenCount count;
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    size_t index = function.inputs[i];
    MOE_RT_TRY(checkTensor(function.arguments[index], inputs[i], device, count,
                           bound(index)));
  }
  if (count.known())
    MOE_RT_TRY(checkTokens(function, count.value));
  for (size_t i = 0; i < function.outputs.size(); ++i) {
    size_t index = function.outputs[i];
    MOE_RT_TRY(checkTensor(function.arguments[index], outputs[i], device, count,
                           bound(index)));
  }
  // A function without a dynamic extent always does the same work.
  tokens = count.known() ? count.value : function.maxTokens;
  MOE_RT_TRY(checkTokens(function, tokens));
  const LayerWeights &weights = layer.onDevice->weights();
  for (size_t i = 0; i < function.weights.size(); ++i)
    bound(function.weights[i]) = weights.weights()[i];
  for (size_t i = 0; i < function.preparations.size(); ++i)
    bound(function.preparations[i].argument) = weights.prepared()[i];
  return nullptr;
}

/// Check something that the code writes against all that it reads and the first
/// `outputs` outputs.
moe_rt_status_t Call::checkOverlap(const BoundTensor &written, const char *role,
                                   const char *name, size_t outputs) {
  auto check = [&](size_t index) -> moe_rt_status_t {
    if (!overlaps(written, bound(index)))
      return nullptr;
    const Argument &argument = function.arguments[index];
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "%s%s overlaps %s '%s', expected separate memory", role,
                     name, argument.roleName(), argument.name.c_str());
  };
  for (size_t index : function.inputs)
    MOE_RT_TRY(check(index));
  for (size_t index : function.weights)
    MOE_RT_TRY(check(index));
  for (const Preparation &preparation : function.preparations)
    MOE_RT_TRY(check(preparation.argument));
  for (size_t i = 0; i < outputs; ++i)
    MOE_RT_TRY(check(function.outputs[i]));
  return nullptr;
}

moe_rt_status_t Call::checkOverlaps() {
  for (size_t i = 0; i < function.outputs.size(); ++i) {
    size_t index = function.outputs[i];
    std::string name = "'" + function.arguments[index].name + "'";
    MOE_RT_TRY(checkOverlap(bound(index), "output ", name.c_str(), i));
  }
  return checkOverlap(workspace, "workspace", "", function.outputs.size());
}

moe_rt_status_t Call::bindWorkspace(void *given, uint64_t bytes,
                                    uint64_t required, size_t alignment) {
  if (bytes < required)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "workspace has %" PRIu64
                     " bytes, expected at least %" PRIu64 " for T = %" PRId64,
                     bytes, required, tokens);
  auto address = reinterpret_cast<uintptr_t>(given);
  if (address % alignment != 0)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "workspace is at address %p, expected alignment to %zu "
                     "bytes",
                     given, alignment);
  uint64_t end;
  if (!checkedAdd(static_cast<uint64_t>(address), required, end))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "workspace of %" PRIu64 " bytes leaves the address space",
                     required);
  workspace = {static_cast<char *>(given), required};
  return nullptr;
}

void Call::writeArguments(char *reports, uint64_t workspaceBytes) {
  auto *pointers = at<void *>(layout.pointers);
  auto *descriptor = at<int64_t>(layout.descriptors);
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Argument &argument = function.arguments[i];
    if (isReport(argument)) {
      bound(i) = {reports, argument.staticBytes()};
      reports += reportSize(argument);
    }
    pointers[i] = descriptor;
    descriptor = writeDescriptor(argument, tokens, bound(i).data, descriptor);
  }
  pointers[function.arguments.size()] = descriptor;
  writeWorkspaceDescriptor(workspace.data, workspaceBytes, descriptor);
}

bool Call::hasWork() {
  for (size_t index : function.outputs)
    if (bound(index).bytes > 0)
      return true;
  return function.outputs.empty();
}
