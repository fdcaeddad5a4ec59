//===- call_memory.cpp - The memory of a call over ranks ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/call_memory.h"
#include "support/buffer.h"
#include "support/checked.h"

#include <algorithm>
#include <cinttypes>

using namespace moe;
using namespace moe::rt;

static uint64_t add(uint64_t a, uint64_t b) {
  uint64_t sum;
  return checkedAdd(a, b, sum) ? sum : UINT64_MAX;
}

static uint64_t multiply(uint64_t a, uint64_t b) {
  uint64_t product;
  return checkedMul(a, b, product) ? product : UINT64_MAX;
}

static uint64_t align(uint64_t value, uint64_t alignment) {
  uint64_t aligned;
  return checkedAlign(value, alignment, aligned) ? aligned : UINT64_MAX;
}

uint64_t moe::rt::countElements(const Argument &type, int64_t extent,
                                size_t dimensions) {
  uint64_t count = 1;
  for (size_t i = 0; i < dimensions; ++i)
    count = multiply(count, static_cast<uint64_t>(type.shape[i] == dynamicExtent
                                                      ? extent
                                                      : type.shape[i]));
  return count;
}

CallMemory::CallMemory(const ParallelFunction &function, const Variant &variant,
                       bool isRead)
    : function(function), variant(variant), isRead(isRead),
      offsets(function.values.size()), maxAlignment(bufferAlignment) {
  for (const Value &value : function.values)
    maxAlignment = std::max<uint64_t>(maxAlignment, value.type.alignment);
  for (const Step &step : function.steps) {
    Rows rows = Rows::none;
    for (const std::vector<size_t> *values :
         {&step.call.inputs, &step.call.outputs})
      for (size_t value : *values)
        if (function.values[value].rows != Rows::none)
          rows = function.values[value].rows;
    partRows.push_back(rows);
    packed.emplace_back(step.exchange.values.size());
    if (step.kind == Step::Kind::call && rows == Rows::received)
      receivedLimit = std::min(receivedLimit,
                               variant.functions[step.call.function].maxTokens);
  }
}

/// The bytes of a block, which may begin less aligned than its contents; chunks
/// have a second one behind it.
uint64_t CallMemory::finish(uint64_t end) const {
  return end == 0
             ? 0
             : add(align(end, bufferAlignment), maxAlignment - bufferAlignment);
}

/// Lay out the values of one kind from `begin` on; return the end.
uint64_t CallMemory::layout(Rows kind, int64_t extent, uint64_t begin) {
  for (size_t i = 0; i < function.values.size(); ++i) {
    const Value &value = function.values[i];
    if (value.kind != Value::Kind::made || value.rows != kind)
      continue;
    const Argument &type = value.type;
    offsets[i] =
        align(begin, std::max<uint64_t>(type.alignment, bufferAlignment));
    begin = add(offsets[i],
                multiply(type.elementSize(),
                         countElements(type, extent, type.shape.size())));
  }
  return begin;
}

uint64_t CallMemory::layoutHome(int64_t tokens) {
  uint64_t end = layout(Rows::home, tokens, layout(Rows::none, 0, 0));
  for (size_t i = 0; i < function.steps.size(); ++i) {
    const Step &step = function.steps[i];
    // The caller's memory is not the engine's: a copy is sent.
    if (step.kind != Step::Kind::gather ||
        function.values[step.gather.source].kind == Value::Kind::made)
      continue;
    const Argument &type = function.values[step.gather.source].type;
    packed[i].assign(1, align(end, bufferAlignment));
    end = add(packed[i][0],
              multiply(type.elementSize(),
                       countElements(type, tokens, type.shape.size())));
  }
  return finish(end);
}

uint64_t CallMemory::layoutGathered(int64_t tokens) {
  return finish(layout(Rows::all, tokens, 0));
}

uint64_t CallMemory::layoutReceived(int64_t rows) {
  uint64_t end = layout(Rows::received, rows, 0);
  // What is packed to go home.
  for (size_t i = 0; i < function.steps.size(); ++i) {
    const Exchange &exchange = function.steps[i].exchange;
    if (!exchange.expected)
      continue;
    for (size_t k = 0; k < exchange.values.size(); ++k) {
      const Sent &sent = exchange.values[k];
      if (isRead) {
        packed[i][k] = align(end, bufferAlignment);
        end = add(packed[i][k], copyBytes(sent.source, rows));
        if (sent.index)
          end = add(align(end, bufferAlignment), copyBytes(*sent.index, rows));
        continue;
      }
      if (!isPacked(sent))
        continue;
      const Value &listed =
          function.values[sent.index ? *sent.index : sent.source];
      uint64_t count = countElements(listed.type, rows,
                                     listed.type.shape.size() - !sent.index);
      packed[i][k] = align(end, bufferAlignment);
      end = add(packed[i][k],
                multiply(count, function.values[sent.source].rowBytes()));
    }
  }
  return finish(end);
}

uint64_t CallMemory::copyBytes(size_t index, int64_t extent) const {
  const Argument &type = function.values[index].type;
  return isReachable(index)
             ? 0
             : multiply(type.elementSize(),
                        countElements(type, extent, type.shape.size()));
}

uint64_t CallMemory::packedBytes(const Exchange &exchange, uint64_t rows,
                                 int64_t tokens) const {
  uint64_t end = 0;
  for (const Sent &sent : exchange.values)
    if (isRead) {
      end = add(align(end, bufferAlignment), copyBytes(sent.source, tokens));
      if (sent.index)
        end = add(align(end, bufferAlignment), copyBytes(*sent.index, tokens));
    } else if (isPacked(sent))
      end = add(align(end, bufferAlignment),
                multiply(rows, function.values[sent.source].rowBytes()));
  return finish(end);
}

uint64_t CallMemory::workspace(Rows kind, int64_t extent) const {
  uint64_t most = 0;
  for (size_t i = 0; i < function.steps.size(); ++i) {
    if (function.steps[i].kind != Step::Kind::call || partRows[i] != kind)
      continue;
    const Function &part = variant.functions[function.steps[i].call.function];
    int64_t tokens = kind == Rows::none ? part.maxTokens : extent;
    // What is no size is an error of the call.
    int64_t bytes = part.workspaceFn(tokens);
    most = std::max(most, static_cast<uint64_t>(std::max<int64_t>(bytes, 0)));
  }
  return most;
}

moe_rt_status_t CallMemory::checkAll(int64_t tokens) const {
  for (size_t i = 0; i < function.steps.size(); ++i) {
    if (function.steps[i].kind != Step::Kind::call || partRows[i] != Rows::all)
      continue;
    const Function &part = variant.functions[function.steps[i].call.function];
    if (tokens < part.minTokens || tokens > part.maxTokens)
      return makeError(MOE_RT_OUT_OF_RANGE,
                       "layer '%s': all ranks have %" PRId64
                       " tokens, function '%s' takes %" PRId64 " to %" PRId64,
                       function.signature.name.c_str(), tokens,
                       part.name.c_str(), part.minTokens, part.maxTokens);
  }
  return nullptr;
}
