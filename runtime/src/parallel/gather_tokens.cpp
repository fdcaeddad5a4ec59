//===- gather_tokens.cpp - Send all tokens to all ranks -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A rank then has rows without slots of its own: parts take them as tokens
// whose choices are all -1. The other rows are in the same order as if they
// alone had come, and so are those that go home.
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"
#include "support/checked.h"

#include <algorithm>
#include <cstring>

using namespace moe;
using namespace moe::rt;

/// Whether the tokens of an exchange go to all ranks, as all ranks know.
bool ParallelCall::gathersTokens(size_t step) const {
  if (!layer.gathersTokens || function.forward)
    return false;
  // The backward layer expects the rows of its own partition.
  for (const Value &value : function.values)
    if (value.isKept)
      return false;
  if (!isLeaving(step) || !roundTripAt(step))
    return false;
  // The rows are one each of the tokens that an index, the same of all, lists.
  std::optional<size_t> index;
  for (const Sent &sent : function.steps[step].exchange.values) {
    if (!sent.index)
      continue;
    const Value &source = function.values[sent.source];
    if ((index && *index != *sent.index) || source.rows != Rows::home ||
        source.type.shape.size() != 2)
      return false;
    index = sent.index;
  }
  return index.has_value();
}

/// Bytes of what is sent: a copy of the tokens, and what each rank is told of
/// them.
uint64_t ParallelCall::gatheredBytes(const ParallelFunction &function,
                                     const moe_rt_group_t &group,
                                     const CallMemory &memory,
                                     const Exchange &exchange, int64_t tokens) {
  uint64_t end = 0;
  for (const Sent &sent : exchange.values) {
    uint64_t rows = static_cast<uint64_t>(tokens), bytes;
    if (!sent.index && !checkedMul(rows, uint64_t(group.size()), rows))
      return UINT64_MAX;
    if (!checkedMul(rows, function.values[sent.source].rowBytes(), bytes) ||
        !checkedAlign(end, bufferAlignment, end) ||
        !checkedAdd(end, bytes, end))
      return UINT64_MAX;
  }
  return memory.finish(end);
}

moe_rt_status_t ParallelCall::gatherTokens(const RoundTrip &trip,
                                           const Traffic &traffic) {
  beginStage(trip.first);
  const Exchange &exchange = function.steps[trip.first].exchange;
  const auto ranks = static_cast<int64_t>(group.size());
  char *packed = memory.base(group.packed.data());
  // The token of each row that would be sent.
  const int32_t *tokenOf = nullptr;
  for (const Sent &sent : exchange.values)
    if (sent.index)
      tokenOf = idsOf(*sent.index);
  std::vector<int64_t> each(group.size(), tokens), begins(group.size());
  for (int64_t r = 0; r < ranks; ++r)
    begins[static_cast<size_t>(r)] = r * tokens;
  uint64_t offset = 0;
  for (size_t i = 0; i < exchange.values.size(); ++i) {
    const Sent &sent = exchange.values[i];
    const uint64_t rowBytes = function.values[sent.source].rowBytes();
    const char *from = addressOf(sent.source);
    char *to = packed + offset, *result = addressOf(sent.result);
    const auto rows =
        static_cast<uint64_t>(sent.index ? tokens : tokens * ranks);
    offset = (offset + rows * rowBytes + bufferAlignment - 1) /
             bufferAlignment * bufferAlignment;
    if (sent.index) {
      // The caller's memory is not the engine's.
      if (!memory.isReachable(sent.source) && tokens > 0)
        copyRows(from, nullptr, tokens, to, rowBytes);
      else
        to = const_cast<char *>(from);
    } else {
      // No slot, or a factor of none.
      if (rows > 0)
        std::memset(to, i == trip.slots ? 0xff : 0, rows * rowBytes);
      for (size_t r = 0; r < group.size(); ++r)
        for (int64_t k = 0; k < traffic.sendRows[r]; ++k) {
          const int64_t row = traffic.sendBegins[r] + k;
          std::memcpy(to + static_cast<uint64_t>(begins[r] + tokenOf[row]) *
                               rowBytes,
                      from + static_cast<uint64_t>(row) * rowBytes, rowBytes);
        }
    }
    for (size_t r = 0; r < group.size(); ++r)
      if (r != group.rank()) {
        layer.exchanged.bytes_sent += static_cast<uint64_t>(tokens) * rowBytes;
        layer.exchanged.bytes_received +=
            static_cast<uint64_t>(tokensOf[r]) * rowBytes;
      }
    if (allTokens == 0)
      continue;
    const moe_rt_communicator_t &engine = group.communicator;
    MOE_RT_TRY(group.start([&](void **request) {
      return sent.index
                 ? engine.gather(engine.user, to, result, tokensOf.data(),
                                 rowBytes, nullptr, request)
                 : engine.exchange(engine.user, to, each.data(), begins.data(),
                                   result, traffic.receiveRows.data(),
                                   traffic.receiveBegins.data(), rowBytes,
                                   nullptr, request);
    }));
  }
  return nullptr;
}
