//===- read_rows.cpp - Read rows where they lie ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A rank tells each other rank where the rows for it lie, and reads its own
// when all have told. Memory that may be read is the group's, never a caller's:
// a rank that gives up returns while others may still read.
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"
#include "support/checked.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

using namespace moe;
using namespace moe::rt;

/// The most values of an exchange; a gather has one.
size_t ParallelCall::mostShared() const {
  size_t most = 1;
  for (const Step &step : function.steps)
    most = std::max(most, step.exchange.values.size());
  return most;
}

moe_rt_status_t ParallelCall::cannotRead(size_t rank) const {
  // The memory of a rank that has given up is gone: that is what went wrong.
  if (group.hasEngineFailed())
    return group.failEngine();
  return group.kill(MOE_RT_UNAVAILABLE, "rank " + std::to_string(group.rank()) +
                                            " cannot read the memory of rank " +
                                            std::to_string(rank));
}

/// Note where the values of an exchange lie, for each rank.
moe_rt_status_t ParallelCall::tellPlaces(size_t step, const Traffic &traffic,
                                         bool inMeeting) {
  const Exchange &exchange = function.steps[step].exchange;
  const size_t count = exchange.values.size();
  const bool leaves = !exchange.expected;
  const SharedBuffer &buffer = leaves ? group.packed : group.received;
  char *base =
      memory.base(buffer.data() + (leaves ? packedBegin : receivedBegin));
  const auto room =
      static_cast<uint64_t>(buffer.data() + buffer.bytes() - base);
  uint64_t offset = 0;
  bool fits = true;
  auto placeOf = [&](size_t value) -> Window {
    if (memory.isReachable(value))
      return group.share(addressOf(value));
    // As CallMemory has laid them out.
    offset = (offset + bufferAlignment - 1) / bufferAlignment * bufferAlignment;
    char *copy = base + offset;
    const int64_t extent = extentOf(function.values[value]);
    const uint64_t bytes = memory.copyBytes(value, extent);
    if (bytes == 0)
      return {0, 0};
    fits &= offset <= room && bytes <= room - offset;
    if (!fits)
      return {0, 0};
    offset += bytes;
    // Rounds read parts of the same copy.
    const int64_t rows = std::max<int64_t>(1, extent);
    if (copiedStep != step)
      copyRows(addressOf(value), nullptr, rows, copy,
               bytes / static_cast<uint64_t>(rows));
    return group.share(copy);
  };
  for (size_t i = 0; i < count; ++i) {
    const Sent &sent = exchange.values[i];
    if (!leaves)
      offset = memory.packedOffsetOf(step, i);
    Window source = placeOf(sent.source);
    Window index = sent.index ? placeOf(*sent.index) : Window{0, 0};
    for (size_t r = 0; r < group.size(); ++r)
      (inMeeting ? group.carriedTo(r) : group.toldTo(r, count))[i] = {
          source, index, traffic.sendBegins[r]};
  }
  // What goes home is another copy in each round.
  if (leaves)
    copiedStep = step;
  if (fits)
    return nullptr;
  return makeError(MOE_RT_INTERNAL,
                   "layer '%s', step %zu: no memory for a copy of what other "
                   "ranks read",
                   function.signature.name.c_str(), step);
}

/// Note where all rows that leave lie, so that they can be read once the ranks
/// have met.
moe_rt_status_t ParallelCall::tellInMeeting(size_t step) {
  if (!group.readsPeers() ||
      function.steps[step].exchange.values.size() > group.mostCarried)
    return nullptr;
  // Where values of other rows lie is not known before memory is reserved.
  auto isOfHome = [&](size_t value) {
    const Rows rows = function.values[value].rows;
    return rows == Rows::home || rows == Rows::none;
  };
  for (const Sent &sent : function.steps[step].exchange.values)
    if (!isOfHome(sent.source) || (sent.index && !isOfHome(*sent.index)))
      return nullptr;
  Traffic traffic(group.size());
  std::partial_sum(sends.begin(), sends.end() - 1,
                   traffic.sendBegins.begin() + 1);
  MOE_RT_TRY(tellPlaces(step, traffic, true));
  hasTold = true;
  return nullptr;
}

/// Copy rows of another rank from its memory, if that is where they are.
moe_rt_status_t ParallelCall::readFrom(size_t rank, const Sent &sent,
                                       const SharedRows &place, int64_t rows,
                                       char *to) {
  const uint64_t rowBytes = function.values[sent.source].rowBytes();
  const auto begin = static_cast<uint64_t>(place.begin);
  uint64_t end, bytes;
  if (place.begin < 0 || !checkedAdd(begin, static_cast<uint64_t>(rows), end))
    return cannotRead(rank);
  const int32_t *index = nullptr;
  if (sent.index) {
    const char *its = checkedMul(end, sizeof(int32_t), bytes)
                          ? group.open(rank, place.index, bytes)
                          : nullptr;
    if (!its)
      return cannotRead(rank);
    // What is checked here does not change any more.
    listed.resize(static_cast<size_t>(rows));
    std::memcpy(listed.data(), its + begin * sizeof(int32_t),
                listed.size() * sizeof(int32_t));
    index = listed.data();
    auto [least, most] = std::minmax_element(listed.begin(), listed.end());
    if (*least < 0)
      return cannotRead(rank);
    end = static_cast<uint64_t>(*most) + 1;
  }
  const char *from = checkedMul(end, rowBytes, bytes)
                         ? group.open(rank, place.source, bytes)
                         : nullptr;
  if (!from)
    return cannotRead(rank);
  copyRows(index ? from : from + begin * rowBytes, index, rows, to, rowBytes);
  return nullptr;
}

moe_rt_status_t ParallelCall::readRows(size_t step, const Traffic &traffic,
                                       size_t besideEnd) {
  beginStage(step);
  const Exchange &exchange = function.steps[step].exchange;
  const size_t count = exchange.values.size(), own = group.rank();
  // All know that nobody has a token.
  const bool isEmpty = allTokens == 0;
  // Only those that left after a meeting, and not in rounds.
  const bool wasTold = std::exchange(hasTold, false);
  if (!isEmpty && !wasTold) {
    MOE_RT_TRY(tellPlaces(step, traffic, false));
    MOE_RT_TRY(group.startTelling(count));
  }
  moe_rt_status_t status = nullptr;
  for (size_t i = step + 1; i < besideEnd && !status; ++i)
    status = callBeside(i);
  if (isEmpty)
    return status;
  // The others read in any case.
  if (moe_rt_status_t waited = group.wait()) {
    moe_rt_status_free(status);
    return waited;
  }
  MOE_RT_TRY(status);
  beginStage(step);
  // Ranks begin with different ones.
  for (size_t k = 0; k < group.size(); ++k) {
    const size_t r = (own + k) % group.size();
    const int64_t rows = traffic.receiveRows[r];
    for (size_t i = 0; i < count && rows > 0; ++i) {
      const Sent &sent = exchange.values[i];
      const uint64_t rowBytes = function.values[sent.source].rowBytes();
      char *to = addressOf(sent.result) +
                 static_cast<uint64_t>(traffic.receiveBegins[r]) * rowBytes;
      if (r != own) {
        const SharedRows *places =
            wasTold ? group.carriedOf(r) : group.heardOf(r, count);
        MOE_RT_TRY(readFrom(r, sent, places[i], rows, to));
        layer.exchanged.bytes_received +=
            static_cast<uint64_t>(rows) * rowBytes;
        continue;
      }
      const auto begin = static_cast<uint64_t>(traffic.sendBegins[r]);
      const char *from = addressOf(sent.source);
      copyRows(sent.index ? from : from + begin * rowBytes,
               sent.index ? idsOf(*sent.index) + begin : nullptr, rows, to,
               rowBytes);
    }
    if (r != own)
      for (const Sent &sent : exchange.values)
        layer.exchanged.bytes_sent +=
            static_cast<uint64_t>(traffic.sendRows[r]) *
            function.values[sent.source].rowBytes();
  }
  // A rank that tells where results lie has read its tokens.
  for (const RoundTrip &trip : function.roundTrips)
    if (trip.first == step)
      return nullptr;
  return group.endReading();
}

/// Read the rows of all ranks behind one another.
moe_rt_status_t ParallelCall::readGathered(const char *from, char *to,
                                           uint64_t rowBytes) {
  for (size_t r = 0; r < group.size(); ++r)
    group.toldTo(r, 1)[0] = {
        tokens > 0 ? group.share(from) : Window{0, 0}, {0, 0}, 0};
  MOE_RT_TRY(group.startTelling(1));
  MOE_RT_TRY(group.wait());
  for (size_t r = 0; r < group.size(); ++r) {
    const uint64_t bytes = static_cast<uint64_t>(tokensOf[r]) * rowBytes;
    if (bytes == 0)
      continue;
    const char *its = r == group.rank()
                          ? from
                          : group.open(r, group.heardOf(r, 1)[0].source, bytes);
    if (!its)
      return cannotRead(r);
    copyRows(its, nullptr, tokensOf[r], to, rowBytes);
    to += bytes;
  }
  return group.endReading();
}
