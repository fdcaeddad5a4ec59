//===- chunks.cpp - Exchange some tokens while others are computed --------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"

#include <algorithm>
#include <cinttypes>

using namespace moe;
using namespace moe::rt;

/// With fewer tokens on all ranks, a chunk costs more than it hides.
static constexpr int64_t leastTokens = 16;

/// How many chunks a trip runs in, as all ranks find from what all know.
int64_t ParallelCall::chunksOf(const RoundTrip &trip) const {
  if (group.chunks <= 1 || group.size() == 1)
    return 1;
  // Chunks lay out what is received anew: none of it may be needed later.
  if (function.roundTrips.size() < function.received)
    return 1;
  // What goes home has to be a copy: rows that are made are overwritten.
  for (const Sent &sent : function.steps[trip.last].exchange.values)
    if (!memory.isPacked(sent))
      return 1;
  return std::max<int64_t>(1, std::min(group.chunks, allTokens / leastTokens));
}

/// Call a part while rows travel.
moe_rt_status_t ParallelCall::callBeside(size_t step) {
  group.beginPolling();
  moe_rt_status_t status = callPart(step);
  group.endPolling();
  return status;
}

/// Like runRoundTrip, with a chunk of the tokens in each exchange: chunk i is
/// computed while chunk i + 1 comes and what chunk i - 1 has made goes home.
/// There are two blocks of memory for what leaves and two for what comes, which
/// chunks use in turn.
moe_rt_status_t ParallelCall::runChunks(const RoundTrip &trip, int64_t chunks) {
  const Exchange &leaves = function.steps[trip.first].exchange;
  const std::vector<int64_t> tokenRows = sends;
  std::vector<int64_t> homeBegins = homeBeginsOf(trip);
  const uint64_t receivedBytes =
      memory.layoutReceived(sumOfParts(comes, chunks));
  const uint64_t packedBytes = memory.packedBytes(
      leaves, static_cast<uint64_t>(sumOfParts(tokenRows, chunks)), tokens);
  Traffic out[2] = {Traffic(group.size()), Traffic(group.size())};
  auto use = [&](int64_t chunk) {
    receivedBegin = static_cast<uint64_t>(chunk % 2) * receivedBytes;
    packedBegin = static_cast<uint64_t>(chunk % 2) * packedBytes;
  };
  // Labels of what is pending.
  auto outOf = [](int64_t chunk) { return 2 * chunk; };
  auto homeOf = [](int64_t chunk) { return 2 * chunk + 1; };
  auto startOut = [&](int64_t chunk) {
    use(chunk);
    sends = tokenRows;
    takeRound(out[chunk % 2], chunk, chunks);
    return startRows(trip.first, out[chunk % 2], outOf(chunk));
  };

  current = trip.first;
  layer.exchanged.rounds += chunks;
  MOE_RT_TRY(startOut(0));
  for (size_t i = trip.first + 1; i < trip.besideEnd; ++i)
    MOE_RT_TRY(callBeside(i));
  Traffic back(group.size());
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    beginStage(trip.first);
    MOE_RT_TRY(group.wait(outOf(chunk)));
    if (chunk + 1 < chunks)
      MOE_RT_TRY(startOut(chunk + 1));
    use(chunk);
    const Traffic &traffic = out[chunk % 2];
    writeReceived(trip.first, traffic);
    for (size_t i = trip.besideEnd; i < trip.last; ++i)
      MOE_RT_TRY(callBeside(i));
    current = trip.first; // others wait
    beginStage(trip.last);
    // Its block is packed again.
    if (chunk >= 2)
      MOE_RT_TRY(group.wait(homeOf(chunk - 2)));
    MOE_RT_TRY(takeHome(trip, traffic, homeBegins, back));
    MOE_RT_TRY(startRows(trip.last, back, homeOf(chunk)));
  }
  receivedBegin = packedBegin = 0;
  return group.wait();
}
