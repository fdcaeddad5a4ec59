//===- layer.cpp - Bind weights and call ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "checked.h"
#include "prepare.h"
#include "statistics.h"

#include <cinttypes>
#include <cstring>
#include <memory>
#include <new>

using namespace moe;
using namespace moe::rt;

namespace {

/// Where the parts of a call's scratch memory lie, in bytes. Only the shapes of
/// a signature decide that, so it is computed once.
struct ScratchLayout {
  uint64_t bound = 0;       // BoundTensor of each argument
  uint64_t pointers = 0;    // void * of each argument, then of the workspace
  uint64_t descriptors = 0; // one after the other
  uint64_t reports = 0;     // DispatchReport of each dispatch
  uint64_t buffers = 0;     // offsets and counters, 64-byte aligned each
  uint64_t total = 0;

  [[nodiscard]] bool compute(const Function &function);
};

} // namespace

struct moe_rt_layer_s {
  moe_rt_layer_s(moe_rt_module_t *module, const Function &function)
      : module(module), function(function), weights(*module, function) {}

  moe_rt_module_t *module;
  const Function &function;
  LayerWeights weights;
  ScratchLayout scratch;
  Statistics statistics;
};

static bool isReport(const Argument &argument) {
  return argument.role == Role::offsets || argument.role == Role::counters;
}

bool ScratchLayout::compute(const Function &function) {
  uint64_t count = function.arguments.size(); // bounded by the signature
  pointers = bound + count * sizeof(BoundTensor);
  descriptors = pointers + (count + 1) * sizeof(void *);
  reports = descriptors + descriptorWords(1) * sizeof(int64_t);
  for (const Argument &argument : function.arguments)
    reports += descriptorWords(argument.shape.size()) * sizeof(int64_t);
  uint64_t end = reports + function.dispatches.size() * sizeof(DispatchReport);
  if (!checkedAlign(end, bufferAlignment, buffers))
    return false;
  total = buffers;
  for (const Argument &argument : function.arguments)
    if (isReport(argument) &&
        (!checkedAdd(total, argument.staticBytes(), total) ||
         !checkedAlign(total, bufferAlignment, total)))
      return false;
  return true;
}

//===----------------------------------------------------------------------===//
// One call
//===----------------------------------------------------------------------===//

namespace {

class Call {
public:
  explicit Call(moe_rt_layer_t &layer)
      : layer(layer), function(layer.function),
        context(*layer.module->context), scratch(context.allocator),
        ownWorkspace(context.allocator) {}
  ~Call() { context.workspaces.giveBack(std::move(ownWorkspace)); }

  moe_rt_status_t run(const DLTensor *inputs, const DLTensor *outputs,
                      void *workspace, uint64_t workspaceBytes);

private:
  template <typename T> T *at(uint64_t offset) {
    return reinterpret_cast<T *>(static_cast<char *>(scratch.data()) + offset);
  }
  BoundTensor &bound(size_t argument) {
    return at<BoundTensor>(layer.scratch.bound)[argument];
  }

  moe_rt_status_t bind(const DLTensor *inputs, const DLTensor *outputs);
  moe_rt_status_t checkOverlap(const BoundTensor &written, const char *role,
                               const char *name, size_t outputs);
  moe_rt_status_t checkOverlaps();
  moe_rt_status_t prepareWorkspace(void *given, uint64_t bytes);
  void prepareArguments();
  bool hasWork();

  moe_rt_layer_t &layer;
  const Function &function;
  moe_rt_context_t &context;
  Buffer scratch, ownWorkspace;
  int64_t tokens = 0;
  BoundTensor workspace = {nullptr, 0};
};

} // namespace

static moe_rt_status_t checkTokens(const Function &function, int64_t tokens) {
  if (tokens < function.minTokens || tokens > function.maxTokens)
    return makeError(
        MOE_RT_OUT_OF_RANGE,
        "function '%s': T is %" PRId64 ", expected %" PRId64 " to %" PRId64,
        function.name.c_str(), tokens, function.minTokens, function.maxTokens);
  return nullptr;
}

static moe_rt_status_t requiredWorkspace(const Function &function,
                                         int64_t tokens, uint64_t &out) {
  int64_t bytes = function.workspaceFn(tokens);
  if (bytes < 0)
    return makeError(MOE_RT_INTERNAL,
                     "function '%s': the code asks for a workspace of %" PRId64
                     " bytes",
                     function.name.c_str(), bytes);
  out = static_cast<uint64_t>(bytes);
  return nullptr;
}

/// Check the caller's tensors and find T.
moe_rt_status_t Call::bind(const DLTensor *inputs, const DLTensor *outputs) {
  TokenCount count;
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    size_t index = function.inputs[i];
    MOE_RT_TRY(
        checkTensor(function.arguments[index], inputs[i], count, bound(index)));
  }
  if (count.known())
    MOE_RT_TRY(checkTokens(function, count.value));
  for (size_t i = 0; i < function.outputs.size(); ++i) {
    size_t index = function.outputs[i];
    MOE_RT_TRY(checkTensor(function.arguments[index], outputs[i], count,
                           bound(index)));
  }
  // A function without a dynamic extent always does the same work.
  tokens = count.known() ? count.value : function.maxTokens;
  MOE_RT_TRY(checkTokens(function, tokens));
  for (size_t index : function.inputs)
    MOE_RT_TRY(checkElements(function.arguments[index], bound(index)));
  for (size_t i = 0; i < function.weights.size(); ++i)
    bound(function.weights[i]) = layer.weights.weights()[i];
  for (size_t i = 0; i < function.preparations.size(); ++i)
    bound(function.preparations[i].argument) = layer.weights.prepared()[i];
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

moe_rt_status_t Call::prepareWorkspace(void *given, uint64_t bytes) {
  uint64_t required = 0;
  MOE_RT_TRY(requiredWorkspace(function, tokens, required));
  if (!given) {
    MOE_RT_TRY(context.workspaces.take(required, ownWorkspace));
    workspace = {static_cast<char *>(ownWorkspace.data()), required};
    return nullptr;
  }
  if (bytes < required)
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "workspace has %" PRIu64
                     " bytes, expected at least %" PRIu64 " for T = %" PRId64,
                     bytes, required, tokens);
  auto address = reinterpret_cast<uintptr_t>(given);
  if (address % bufferAlignment != 0)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "workspace is at address %p, expected alignment to %zu "
                     "bytes",
                     given, bufferAlignment);
  uint64_t end;
  if (!checkedAdd(static_cast<uint64_t>(address), required, end))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "workspace of %" PRIu64 " bytes leaves the address space",
                     required);
  workspace = {static_cast<char *>(given), required};
  return nullptr;
}

/// Write the descriptors and clear what the code reports in.
void Call::prepareArguments() {
  const ScratchLayout &layout = layer.scratch;
  auto *pointers = at<void *>(layout.pointers);
  auto *descriptor = at<int64_t>(layout.descriptors);
  uint64_t buffer = layout.buffers;
  std::memset(at<char>(layout.buffers), 0, layout.total - layout.buffers);
  for (size_t i = 0; i < function.arguments.size(); ++i) {
    const Argument &argument = function.arguments[i];
    if (isReport(argument)) {
      uint64_t bytes = argument.staticBytes();
      bound(i) = {at<char>(buffer), bytes};
      buffer += (bytes + bufferAlignment - 1) & ~(bufferAlignment - 1);
    }
    pointers[i] = descriptor;
    descriptor = writeDescriptor(argument, tokens, bound(i).data, descriptor);
  }
  pointers[function.arguments.size()] = descriptor;
  writeWorkspaceDescriptor(workspace.data, workspace.bytes, descriptor);
  auto *reports = at<DispatchReport>(layout.reports);
  for (size_t i = 0; i < function.dispatches.size(); ++i) {
    const Dispatch &dispatch = function.dispatches[i];
    reports[i] = {
        reinterpret_cast<const int32_t *>(bound(dispatch.offsets).data),
        reinterpret_cast<const int64_t *>(bound(dispatch.counters).data),
        function.arguments[dispatch.counters].shape[0] > 2};
  }
}

/// Whether there is an element to compute: with T = 0 there often is none.
bool Call::hasWork() {
  for (size_t index : function.outputs)
    if (bound(index).bytes > 0)
      return true;
  return function.outputs.empty();
}

moe_rt_status_t Call::run(const DLTensor *inputs, const DLTensor *outputs,
                          void *givenWorkspace, uint64_t workspaceBytes) {
  MOE_RT_TRY(scratch.allocate(layer.scratch.total, "arguments of a call"));
  MOE_RT_TRY(bind(inputs, outputs));
  MOE_RT_TRY(prepareWorkspace(givenWorkspace, workspaceBytes));
  MOE_RT_TRY(checkOverlaps());
  prepareArguments();
  if (hasWork()) {
    int32_t code = function.entryFn(at<void *>(layer.scratch.pointers),
                                    &context.executor);
    if (code != 0)
      return makeError(MOE_RT_INTERNAL, "function '%s' failed with code %d",
                       function.name.c_str(), code);
  }
  const auto *reports = at<DispatchReport>(layer.scratch.reports);
  for (size_t i = 0; i < function.dispatches.size(); ++i)
    MOE_RT_TRY(Statistics::check(function, i, reports[i]));
  layer.statistics.add(reports);
  return nullptr;
}

//===----------------------------------------------------------------------===//
// The interface
//===----------------------------------------------------------------------===//

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
  MOE_RT_TRY(out->statistics.allocate(function));
  if (!out->scratch.compute(function))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "function '%s' needs more than 2^64-1 bytes for a call",
                     function.name.c_str());
  return nullptr;
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
  std::unique_ptr<moe_rt_layer_t> layer;
  MOE_RT_TRY(newLayer(module, *found, layer));
  MOE_RT_TRY(layer->weights.bind(weights));
  *out = layer.release();
  return nullptr;
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
  std::unique_ptr<moe_rt_layer_t> layer;
  MOE_RT_TRY(newLayer(module, *found, layer));
  MOE_RT_TRY(layer->weights.read(read, user));
  *out = layer.release();
  return nullptr;
}

uint64_t moe_rt_layer_weight_bytes(const moe_rt_layer_t *layer) {
  return layer ? layer->weights.ownedBytes() : 0;
}

void moe_rt_layer_destroy(moe_rt_layer_t *layer) { delete layer; }

moe_rt_status_t moe_rt_layer_workspace_bytes(const moe_rt_layer_t *layer,
                                             int64_t tokens, uint64_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_workspace_bytes: an argument is NULL");
  MOE_RT_TRY(checkTokens(layer->function, tokens));
  uint64_t bytes = 0;
  MOE_RT_TRY(requiredWorkspace(layer->function, tokens, bytes));
  *out = bytes;
  return nullptr;
}

moe_rt_status_t moe_rt_layer_call(moe_rt_layer_t *layer, const DLTensor *inputs,
                                  size_t input_count, DLTensor *outputs,
                                  size_t output_count, void *workspace,
                                  uint64_t workspace_bytes) {
  if (!layer)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_call: 'layer' is NULL");
  const Function &function = layer->function;
  MOE_RT_TRY(checkTensors(function, "inputs", function.inputs.size(), inputs,
                          input_count));
  MOE_RT_TRY(checkTensors(function, "outputs", function.outputs.size(), outputs,
                          output_count));
  return Call(*layer).run(inputs, outputs, workspace, workspace_bytes);
}

size_t moe_rt_layer_dispatch_count(const moe_rt_layer_t *layer) {
  return layer ? layer->statistics.size() : 0;
}

moe_rt_status_t moe_rt_layer_statistics(moe_rt_layer_t *layer, size_t dispatch,
                                        moe_rt_statistics_t *out) {
  if (!layer || !out)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "moe_rt_layer_statistics: an argument is NULL");
  if (dispatch >= layer->statistics.size())
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer has %zu dispatches, there is no dispatch %zu",
                     layer->statistics.size(), dispatch);
  layer->statistics.read(dispatch, *out);
  return nullptr;
}

void moe_rt_layer_reset_statistics(moe_rt_layer_t *layer) {
  if (layer)
    layer->statistics.reset();
}

} // extern "C"
