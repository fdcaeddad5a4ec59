//===- replicated.cpp - Ranks that have the same tokens -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Each rank is home of a slice of the tokens, and runs as if it had no others.
// At the end all ranks gather the results of all slices.
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"
#include "support/checked.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

using namespace moe;
using namespace moe::rt;

int64_t moe::rt::beginOfSlice(int64_t tokens, size_t rank, size_t ranks) {
  const auto r = static_cast<int64_t>(rank),
             count = static_cast<int64_t>(ranks);
  return tokens / count * r + std::min(r, tokens % count);
}

/// Bytes of a token of an argument.
static uint64_t tokenBytes(const Argument &type) {
  return type.elementSize() * countElements(type, 1, type.shape.size());
}

moe_rt_status_t ParallelCall::takeSlice() {
  const Function &signature = function.signature;
  const size_t rank = group.rank(), ranks = group.size();
  sliceBegin = beginOfSlice(wholeTokens, rank, ranks);
  tokens = beginOfSlice(wholeTokens, rank + 1, ranks) - sliceBegin;
  const int64_t least = wholeTokens / static_cast<int64_t>(ranks);
  if (least < signature.minTokens)
    return makeError(MOE_RT_OUT_OF_RANGE,
                     "layer '%s' takes at least %" PRId64
                     " tokens on a rank, and %zu ranks with the same %" PRId64
                     " tokens have %" PRId64 " each",
                     signature.name.c_str(), signature.minTokens, ranks,
                     wholeTokens, least);
  for (const Value &value : function.values) {
    if (value.kind != Value::Kind::input && value.kind != Value::Kind::output)
      continue;
    const Argument &type = value.type;
    const bool hasTokens = value.rows == Rows::home;
    // Gradients of weights are sums over the tokens of a rank in any case.
    if (!hasTokens && value.kind == Value::Kind::output && !function.forward)
      return makeError(MOE_RT_UNIMPLEMENTED,
                       "layer '%s': output '%s' has no row for each token, "
                       "and each of the ranks with the same tokens would have "
                       "that of some of them",
                       signature.name.c_str(), type.name.c_str());
    if (!hasTokens)
      continue;
    if (type.shape[0] != dynamicExtent ||
        std::count(type.shape.begin(), type.shape.end(), dynamicExtent) != 1)
      return makeError(MOE_RT_UNIMPLEMENTED,
                       "layer '%s': '%s' has tokens in another dimension than "
                       "the first, and ranks with the same tokens take slices",
                       signature.name.c_str(), type.name.c_str());
  }
  return nullptr;
}

void ParallelCall::shiftToSlice() {
  for (const Value &value : function.values)
    if (value.rows == Rows::home &&
        (value.kind == Value::Kind::input || value.kind == Value::Kind::output))
      bound[value.argument].data +=
          static_cast<uint64_t>(sliceBegin) * tokenBytes(value.type);
}

/// Bytes of a copy of this rank's results of one output, and of those of all
/// ranks, of the largest one.
uint64_t ParallelCall::replicatedBytes(const ParallelFunction &function,
                                       const moe_rt_group_t &group,
                                       int64_t whole, int64_t own) {
  uint64_t most = 0;
  if (!group.isReplicated || group.size() == 1)
    return 0;
  for (const Value &value : function.values) {
    if (value.kind != Value::Kind::output || value.rows != Rows::home)
      continue;
    const uint64_t each = tokenBytes(value.type);
    uint64_t copy, all = 0;
    if (!checkedMul(static_cast<uint64_t>(own), each, copy) ||
        !checkedAlign(copy, bufferAlignment, copy) ||
        // Rows that are read where they lie are read to their place.
        (!group.readsPeers() &&
         !checkedMul(static_cast<uint64_t>(whole), each, all)) ||
        !checkedAdd(copy, all, copy))
      return UINT64_MAX;
    most = std::max(most, copy);
  }
  return most;
}

moe_rt_status_t ParallelCall::gatherOutputs() {
  if (!group.isReplicated || group.size() == 1 || wholeTokens == 0)
    return nullptr;
  for (const Value &value : function.values) {
    if (value.kind != Value::Kind::output || value.rows != Rows::home)
      continue;
    const uint64_t each = tokenBytes(value.type);
    if (each == 0)
      continue;
    const uint64_t own = static_cast<uint64_t>(tokens) * each;
    const uint64_t whole = static_cast<uint64_t>(wholeTokens) * each;
    char *slice = bound[value.argument].data;
    char *to =
        tokens > 0 ? slice - static_cast<uint64_t>(sliceBegin) * each : slice;
    // The caller's memory is not the engine's.
    char *copy = group.packed.data();
    if (own > 0)
      std::memcpy(copy, slice, own);
    for (size_t r = 0; r < group.size(); ++r)
      if (r != group.rank()) {
        layer.exchanged.bytes_sent += own;
        layer.exchanged.bytes_received +=
            static_cast<uint64_t>(tokensOf[r]) * each;
      }
    if (group.readsPeers()) {
      MOE_RT_TRY(readGathered(copy, to, each));
      continue;
    }
    char *all =
        copy + (own + bufferAlignment - 1) / bufferAlignment * bufferAlignment;
    MOE_RT_TRY(group.start([&](void **request) {
      return group.communicator.gather(group.communicator.user, copy, all,
                                       tokensOf.data(), each, nullptr, request);
    }));
    MOE_RT_TRY(group.wait());
    std::memcpy(to, all, whole);
  }
  return nullptr;
}
