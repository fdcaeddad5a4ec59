//===- call.cpp - Call a layer --------------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "call.h"
#include "checked.h"
#include "layer.h"
#include "module.h"

#include <cinttypes>
#include <cstring>
#include <string>

using namespace moe;
using namespace moe::rt;

bool CallLayout::compute(const Function &function) {
  uint64_t count = function.arguments.size(); // bounded by the signature
  pointers = bound + count * sizeof(BoundTensor);
  descriptors = pointers + (count + 1) * sizeof(void *);
  reports = descriptors + descriptorWords(1) * sizeof(int64_t);
  for (const Argument &argument : function.arguments)
    reports += descriptorWords(argument.shape.size()) * sizeof(int64_t);
  uint64_t end = reports + function.dispatches.size() * sizeof(DispatchReport);
  if (!checkedAlign(end, bufferAlignment, total))
    return false;
  for (const Argument &argument : function.arguments)
    if (isReport(argument) &&
        (!checkedAdd(reportBytes, argument.staticBytes(), reportBytes) ||
         !checkedAlign(reportBytes, bufferAlignment, reportBytes)))
      return false;
  uint64_t both;
  return checkedAdd(total, reportBytes, both);
}

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
  DLDevice place = layer.module->context->place();
  TokenCount count;
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    size_t index = function.inputs[i];
    MOE_RT_TRY(checkTensor(function.arguments[index], inputs[i], place, count,
                           bound(index)));
  }
  if (count.known())
    MOE_RT_TRY(checkTokens(function, count.value));
  for (size_t i = 0; i < function.outputs.size(); ++i) {
    size_t index = function.outputs[i];
    MOE_RT_TRY(checkTensor(function.arguments[index], outputs[i], place, count,
                           bound(index)));
  }
  // A function without a dynamic extent always does the same work.
  tokens = count.known() ? count.value : function.maxTokens;
  MOE_RT_TRY(checkTokens(function, tokens));
  for (size_t i = 0; i < function.weights.size(); ++i)
    bound(function.weights[i]) = layer.weights->weights()[i];
  for (size_t i = 0; i < function.preparations.size(); ++i)
    bound(function.preparations[i].argument) = layer.weights->prepared()[i];
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

//===----------------------------------------------------------------------===//
// On the CPU
//===----------------------------------------------------------------------===//

namespace {

class HostCall : Call {
public:
  explicit HostCall(moe_rt_layer_t &layer)
      : Call(layer), context(*layer.module->context),
        statistics(layer.statistics), ownWorkspace(context.allocator) {}
  ~HostCall() { context.workspaces.giveBack(std::move(ownWorkspace)); }

  moe_rt_status_t run(const DLTensor *inputs, const DLTensor *outputs,
                      void *givenWorkspace, uint64_t workspaceBytes);

private:
  moe_rt_status_t findWorkspace(void *given, uint64_t bytes);
  const DispatchReport *findReports();

  moe_rt_context_t &context;
  Statistics &statistics;
  Buffer ownWorkspace;
};

} // namespace

moe_rt_status_t HostCall::findWorkspace(void *given, uint64_t bytes) {
  uint64_t required = 0;
  MOE_RT_TRY(codeWorkspace(function, tokens, required));
  if (given)
    return bindWorkspace(given, bytes, required, bufferAlignment);
  MOE_RT_TRY(context.workspaces.take(required, ownWorkspace));
  workspace = {ownWorkspace.data(), required};
  return nullptr;
}

/// What each dispatch reports.
const DispatchReport *HostCall::findReports() {
  auto *reports = at<DispatchReport>(layout.reports);
  for (size_t i = 0; i < function.dispatches.size(); ++i) {
    const Dispatch &dispatch = function.dispatches[i];
    reports[i] = {
        reinterpret_cast<const int32_t *>(bound(dispatch.offsets).data),
        nullptr, false};
    if (dispatch.counters) {
      reports[i].counters =
          reinterpret_cast<const int64_t *>(bound(*dispatch.counters).data);
      reports[i].hasPadding =
          function.arguments[*dispatch.counters].shape[0] > 2;
    }
  }
  return reports;
}

moe_rt_status_t HostCall::run(const DLTensor *inputs, const DLTensor *outputs,
                              void *givenWorkspace, uint64_t workspaceBytes) {
  MOE_RT_TRY(scratch.allocate(layout.total + layout.reportBytes,
                              "arguments of a call"));
  MOE_RT_TRY(bind(inputs, outputs));
  for (size_t index : function.inputs)
    MOE_RT_TRY(checkElements(function.arguments[index], bound(index)));
  MOE_RT_TRY(findWorkspace(givenWorkspace, workspaceBytes));
  MOE_RT_TRY(checkOverlaps());
  char *buffers = at<char>(layout.total);
  std::memset(buffers, 0, layout.reportBytes);
  writeArguments(buffers, workspace.bytes);
  if (hasWork()) {
    int32_t code =
        function.entryFn(at<void *>(layout.pointers), &context.executor);
    if (code != 0)
      return makeError(MOE_RT_INTERNAL, "function '%s' failed with code %d",
                       function.name.c_str(), code);
  }
  const DispatchReport *reports = findReports();
  for (size_t i = 0; i < function.dispatches.size(); ++i)
    MOE_RT_TRY(Statistics::check(function, i, reports[i]));
  if (layer.counts.load(std::memory_order_relaxed))
    statistics.add(reports);
  return nullptr;
}

moe_rt_status_t moe::rt::callOnHost(moe_rt_layer_t &layer,
                                    const DLTensor *inputs,
                                    const DLTensor *outputs, void *workspace,
                                    uint64_t workspaceBytes) {
  return HostCall(layer).run(inputs, outputs, workspace, workspaceBytes);
}
