//===- exchange_rows.cpp - Rows between ranks -----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/parallel_call.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>
#include <numeric>

using namespace moe;
using namespace moe::rt;

//===----------------------------------------------------------------------===//
// What the code wants to send
//===----------------------------------------------------------------------===//

/// Whether what the code wants to send is there.
moe_rt_status_t ParallelCall::checkSend(size_t step) {
  const Exchange &exchange = function.steps[step].exchange;
  const char *name = function.signature.name.c_str();
  const int32_t *counts = idsOf(exchange.counts);
  bool leaves = !exchange.expected;
  int64_t total = 0;
  for (size_t r = 0; r < static_cast<size_t>(function.experts); ++r) {
    bool isRank = r < group.size();
    // A token goes to a rank once.
    if (counts[r] < 0 || (!isRank && counts[r] > 0) ||
        (leaves && counts[r] > tokens))
      return makeError(MOE_RT_INTERNAL,
                       "layer '%s', step %zu: the code sends %d rows to rank "
                       "%zu of %zu, and there are %" PRId64 " tokens",
                       name, step, counts[r], r, group.size(), tokens);
    if (isRank)
      sends[r] = counts[r];
    total += counts[r];
  }
  auto refuse = [&](const char *what, int64_t number, uint64_t limit) {
    return makeError(MOE_RT_INTERNAL,
                     "layer '%s', step %zu: the code sends %s %" PRId64
                     ", and there are %" PRIu64,
                     name, step, what, number, limit);
  };
  for (const Sent &sent : exchange.values) {
    const Value &source = function.values[sent.source];
    uint64_t rows = countRows(source.type, extentOf(source));
    uint64_t listed = rows;
    if (sent.index) {
      const Value &index = function.values[*sent.index];
      listed =
          countElements(index.type, extentOf(index), index.type.shape.size());
    }
    if (static_cast<uint64_t>(total) > listed)
      return refuse("a total of rows of", total, listed);
    if (!sent.index)
      continue;
    const int32_t *index = idsOf(*sent.index);
    for (int64_t i = 0; i < total; ++i)
      if (index[i] < 0 || static_cast<uint64_t>(index[i]) >= rows)
        return refuse("row", index[i], rows);
  }
  return nullptr;
}

/// Count the rows that tokens of a list bring home, by their slots; -1 for a
/// slot that there is not.
int64_t ParallelCall::countReturns(const RoundTrip &trip, const int32_t *slots,
                                   int64_t begin, int64_t rows) const {
  const Sent &sent = function.steps[trip.first].exchange.values[trip.slots];
  int64_t width = function.values[sent.source].type.shape.back();
  int64_t count = 0;
  for (int64_t row = begin; row < begin + rows; ++row) {
    int64_t used = 0;
    for (int64_t i = row * width; i < (row + 1) * width; ++i) {
      if (slots[i] < -1 || slots[i] >= function.slots)
        return -1;
      used += slots[i] >= 0;
    }
    count += trip.sumsTokens ? used > 0 : used;
  }
  return count;
}

/// Whether the code expects as many rows home as its tokens will have.
moe_rt_status_t ParallelCall::checkSlots(const RoundTrip &trip) {
  const Exchange &leaves = function.steps[trip.first].exchange;
  const Exchange &home = function.steps[trip.last].exchange;
  size_t source = leaves.values[trip.slots].source;
  const int32_t *slots = idsOf(source), *expected = idsOf(*home.expected);
  int64_t begin = 0, total = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    int64_t count = countReturns(trip, slots, begin, sends[r]);
    if (count != expected[r])
      return makeError(MOE_RT_INTERNAL,
                       "layer '%s', step %zu: the code expects %d rows of rank "
                       "%zu, its slots are for %" PRId64,
                       function.signature.name.c_str(), trip.last, expected[r],
                       r, count);
    begin += sends[r];
    total += count;
  }
  return checkHome(trip.last, total);
}

/// Whether there is memory for the rows that come home.
moe_rt_status_t ParallelCall::checkHome(size_t step, int64_t expected) const {
  for (const Sent &sent : function.steps[step].exchange.values) {
    const Value &result = function.values[sent.result];
    uint64_t rows = countRows(result.type, extentOf(result));
    if (static_cast<uint64_t>(expected) > rows)
      return makeError(MOE_RT_INTERNAL,
                       "layer '%s', step %zu: the code expects %" PRId64
                       " rows, and there is memory for %" PRIu64,
                       function.signature.name.c_str(), step, expected, rows);
  }
  return nullptr;
}

//===----------------------------------------------------------------------===//
// Rows
//===----------------------------------------------------------------------===//

void ParallelCall::copyRows(const char *from, const int32_t *index,
                            int64_t count, char *to, uint64_t rowBytes) const {
  struct Rows {
    const char *from;
    const int32_t *index;
    char *to;
    uint64_t rowBytes;
    int64_t count, perTask;
  };
  static constexpr uint64_t taskBytes = 256 << 10;
  if (rowBytes == 0)
    return;
  Rows rows = {
      from,  index,
      to,    rowBytes,
      count, static_cast<int64_t>(std::max<uint64_t>(1, taskBytes / rowBytes))};
  auto task = [](void *context, int64_t number) {
    const Rows &rows = *static_cast<const Rows *>(context);
    int64_t first = number * rows.perTask;
    int64_t last = std::min(rows.count, first + rows.perTask);
    if (!rows.index) {
      std::memcpy(rows.to + static_cast<uint64_t>(first) * rows.rowBytes,
                  rows.from + static_cast<uint64_t>(first) * rows.rowBytes,
                  static_cast<uint64_t>(last - first) * rows.rowBytes);
      return;
    }
    for (int64_t i = first; i < last; ++i)
      std::memcpy(rows.to + static_cast<uint64_t>(i) * rows.rowBytes,
                  rows.from +
                      static_cast<uint64_t>(rows.index[i]) * rows.rowBytes,
                  rows.rowBytes);
  };
  const moe_rt_executor_t &executor = *group.context->device->hostExecutor();
  int64_t tasks = count / rows.perTask + (count % rows.perTask != 0);
  if (tasks > 1)
    executor.parallel_for(executor.user, tasks, task, &rows);
  else if (tasks == 1)
    task(&rows, 0);
}

/// Copy rows that are sent behind one another.
void ParallelCall::pack(const Sent &sent, const Traffic &traffic, char *to) {
  const uint64_t rowBytes = function.values[sent.source].rowBytes();
  const char *from = addressOf(sent.source);
  const int32_t *index = sent.index ? idsOf(*sent.index) : nullptr;
  for (size_t r = 0; r < group.size(); ++r) {
    int64_t begin = traffic.sendBegins[r], count = traffic.sendRows[r];
    if (count > 0)
      copyRows(index ? from : from + static_cast<uint64_t>(begin) * rowBytes,
               index ? index + begin : nullptr, count, to, rowBytes);
    to += static_cast<uint64_t>(count) * rowBytes;
  }
}

/// Start to exchange rows.
moe_rt_status_t ParallelCall::startRows(size_t step, const Traffic &traffic,
                                        int64_t label) {
  beginStage(step);
  const Exchange &exchange = function.steps[step].exchange;
  std::vector<int64_t> packedBegins(group.size());
  std::partial_sum(traffic.sendRows.begin(), traffic.sendRows.end() - 1,
                   packedBegins.begin() + 1);
  int64_t total = packedBegins.back() + traffic.sendRows.back();
  char *packed = memory.base(group.packed.data() + packedBegin);
  uint64_t offset = 0;
  for (size_t i = 0; i < exchange.values.size(); ++i) {
    const Sent &sent = exchange.values[i];
    uint64_t rowBytes = function.values[sent.source].rowBytes();
    char *result = addressOf(sent.result);
    if (group.size() == 1) {
      if (total > 0)
        pack(sent, traffic,
             result +
                 static_cast<uint64_t>(traffic.receiveBegins[0]) * rowBytes);
      continue;
    }
    const char *from = addressOf(sent.source);
    const int64_t *begins = traffic.sendBegins.data();
    if (memory.isPacked(sent)) {
      char *to = exchange.expected
                     ? memory.base(group.received.data() + receivedBegin) +
                           memory.packedOffsetOf(step, i)
                     : packed + offset;
      if (!exchange.expected)
        offset = (offset + static_cast<uint64_t>(total) * rowBytes +
                  bufferAlignment - 1) /
                 bufferAlignment * bufferAlignment;
      if (total > 0)
        pack(sent, traffic, to);
      from = to;
      begins = packedBegins.data();
    }
    for (size_t r = 0; r < group.size(); ++r)
      if (r != group.rank()) {
        layer.exchanged.bytes_sent +=
            static_cast<uint64_t>(traffic.sendRows[r]) * rowBytes;
        layer.exchanged.bytes_received +=
            static_cast<uint64_t>(traffic.receiveRows[r]) * rowBytes;
      }
    // All know that nobody has a token.
    if (allTokens == 0)
      continue;
    MOE_RT_TRY(group.start(
        [&](void **request) {
          return group.communicator.exchange(
              group.communicator.user, from, traffic.sendRows.data(), begins,
              result, traffic.receiveRows.data(), traffic.receiveBegins.data(),
              rowBytes, nullptr, request);
        },
        label));
  }
  return nullptr;
}

/// Exchange rows, run the steps up to `besideEnd` meanwhile, and wait for the
/// rows.
moe_rt_status_t ParallelCall::move(size_t step, const Traffic &traffic,
                                   size_t besideEnd) {
  if (group.readsPeers())
    return readRows(step, traffic, besideEnd);
  MOE_RT_TRY(gathersTokens(step) ? gatherTokens(*roundTripAt(step), traffic)
                                 : startRows(step, traffic));
  moe_rt_status_t status = nullptr;
  for (size_t i = step + 1; i < besideEnd && !status; ++i)
    status = callBeside(i);
  // Buffers are the engine's until it has ended.
  moe_rt_status_t waited = group.wait();
  if (!waited)
    return status;
  moe_rt_status_free(status);
  return waited;
}

/// The first of `count` rows of part `part` of `parts`.
static int64_t beginOf(int64_t count, int64_t part, int64_t parts) {
  return count / parts * part + count % parts * part / parts;
}

/// The tokens of one of several rounds.
void ParallelCall::takeRound(Traffic &traffic, int64_t round, int64_t rounds) {
  int64_t listed = 0, arrived = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    int64_t first = beginOf(sends[r], round, rounds);
    traffic.sendBegins[r] = listed + first;
    traffic.sendRows[r] = beginOf(sends[r], round + 1, rounds) - first;
    listed += sends[r];
    traffic.receiveBegins[r] = arrived;
    traffic.receiveRows[r] =
        beginOf(comes[r], round + 1, rounds) - beginOf(comes[r], round, rounds);
    arrived += traffic.receiveRows[r];
  }
  layer.exchanged.rows_received += arrived;
  layer.exchanged.rows_sent += std::accumulate(
      traffic.sendRows.begin(), traffic.sendRows.end(), int64_t(0));
}

/// Let the parts know what has come.
void ParallelCall::writeReceived(size_t step, const Traffic &traffic) {
  const Exchange &exchange = function.steps[step].exchange;
  int64_t arrived = std::accumulate(traffic.receiveRows.begin(),
                                    traffic.receiveRows.end(), int64_t(0));
  received[function.values[exchange.values[0].result].exchange] = arrived;
  if (exchange.received) {
    auto *counts = reinterpret_cast<int32_t *>(addressOf(*exchange.received));
    std::memset(counts, 0,
                static_cast<size_t>(function.experts) * sizeof(int32_t));
    for (size_t r = 0; r < group.size(); ++r)
      counts[r] = static_cast<int32_t>(traffic.receiveRows[r]);
  }
}

/// Send tokens in one of several rounds; `traffic` has what it is then.
moe_rt_status_t ParallelCall::receive(size_t step, Traffic &traffic,
                                      int64_t round, int64_t rounds,
                                      size_t besideEnd) {
  takeRound(traffic, round, rounds);
  writeReceived(step, traffic);
  return move(step, traffic, besideEnd);
}

/// Whether the code returns as many rows to each rank as the slots of the
/// tokens that came from it say.
moe_rt_status_t
ParallelCall::checkReturns(const RoundTrip &trip,
                           const std::vector<int64_t> &arrived) const {
  const Sent &slots = function.steps[trip.first].exchange.values[trip.slots];
  int64_t begin = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    int64_t count = countReturns(trip, idsOf(slots.result), begin, arrived[r]);
    if (count != sends[r])
      return makeError(MOE_RT_INTERNAL,
                       "layer '%s', step %zu: the code returns %" PRId64
                       " rows to rank %zu, whose slots are for %" PRId64,
                       function.signature.name.c_str(), trip.last, sends[r], r,
                       count);
    begin += arrived[r];
  }
  return nullptr;
}

/// Where the first rows of each rank come home.
std::vector<int64_t> ParallelCall::homeBeginsOf(const RoundTrip &trip) const {
  const Exchange &home = function.steps[trip.last].exchange;
  std::vector<int64_t> begins(group.size());
  for (size_t r = 1; r < group.size(); ++r)
    begins[r] = begins[r - 1] + idsOf(*home.expected)[r - 1];
  return begins;
}

/// Find what goes home in a round or chunk whose tokens went as `out` says; the
/// rows of a rank come behind those of the one before, at `begins`.
moe_rt_status_t ParallelCall::takeHome(const RoundTrip &trip,
                                       const Traffic &out,
                                       std::vector<int64_t> &begins,
                                       Traffic &back) {
  const Sent &slots = function.steps[trip.first].exchange.values[trip.slots];
  MOE_RT_TRY(checkSend(trip.last));
  MOE_RT_TRY(checkReturns(trip, out.receiveRows));
  int64_t listed = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    back.sendRows[r] = sends[r];
    back.sendBegins[r] = listed;
    listed += sends[r];
    back.receiveRows[r] = countReturns(trip, idsOf(slots.source),
                                       out.sendBegins[r], out.sendRows[r]);
    back.receiveBegins[r] = begins[r];
    begins[r] += back.receiveRows[r];
  }
  return nullptr;
}

/// Send tokens, run the parts that need them, and bring home what they make.
moe_rt_status_t ParallelCall::runRoundTrip(const RoundTrip &trip,
                                           int64_t rounds) {
  std::vector<int64_t> homeBegins = homeBeginsOf(trip);
  const std::vector<int64_t> tokenRows = sends;
  Traffic traffic(group.size()), back(group.size());
  layer.exchanged.rounds += rounds;
  for (int64_t round = 0; round < rounds; ++round) {
    current = trip.first;
    sends = tokenRows;
    MOE_RT_TRY(receive(trip.first, traffic, round, rounds,
                       round == 0 ? trip.besideEnd : 0));
    for (size_t i = trip.besideEnd; i < trip.last; ++i)
      MOE_RT_TRY(callPart(i));
    current = trip.last;
    MOE_RT_TRY(takeHome(trip, traffic, homeBegins, back));
    MOE_RT_TRY(move(trip.last, back));
  }
  return nullptr;
}

/// An exchange that is in no trip and brings rows that are expected.
moe_rt_status_t ParallelCall::comeHome(size_t step) {
  const Exchange &exchange = function.steps[step].exchange;
  MOE_RT_TRY(checkSend(step));
  const int32_t *expected = idsOf(*exchange.expected);
  Traffic traffic(group.size());
  int64_t listed = 0, arrived = 0;
  for (size_t r = 0; r < group.size(); ++r) {
    if (expected[r] < 0)
      return makeError(MOE_RT_INTERNAL,
                       "layer '%s', step %zu: the code expects %d rows",
                       function.signature.name.c_str(), step, expected[r]);
    traffic.sendRows[r] = sends[r];
    traffic.sendBegins[r] = listed;
    listed += sends[r];
    traffic.receiveRows[r] = expected[r];
    traffic.receiveBegins[r] = arrived;
    arrived += expected[r];
  }
  MOE_RT_TRY(checkHome(step, arrived));
  return move(step, traffic);
}

moe_rt_status_t ParallelCall::gather(size_t step) {
  beginStage(step);
  const Gather &gather = function.steps[step].gather;
  const Value &source = function.values[gather.source];
  uint64_t rowBytes =
      source.type.elementSize() *
      countElements(source.type, 1, source.type.shape.size()); // of a token
  const char *from = addressOf(gather.source);
  uint64_t bytes = static_cast<uint64_t>(tokens) * rowBytes;
  if (group.size() == 1) {
    if (bytes > 0)
      std::memcpy(addressOf(gather.result), from, bytes);
    return nullptr;
  }
  if (allTokens == 0 || rowBytes == 0)
    return nullptr;
  if (source.kind != Value::Kind::made) {
    char *copy =
        memory.base(group.home.data()) + memory.packedOffsetOf(step, 0);
    if (bytes > 0)
      std::memcpy(copy, from, bytes);
    from = copy;
  }
  for (size_t r = 0; r < group.size(); ++r)
    if (r != group.rank()) {
      layer.exchanged.bytes_sent += bytes;
      layer.exchanged.bytes_received +=
          static_cast<uint64_t>(tokensOf[r]) * rowBytes;
    }
  if (group.readsPeers())
    return readGathered(from, addressOf(gather.result), rowBytes);
  MOE_RT_TRY(group.start([&](void **request) {
    return group.communicator.gather(group.communicator.user, from,
                                     addressOf(gather.result), tokensOf.data(),
                                     rowBytes, nullptr, request);
  }));
  return group.wait();
}

void ParallelCall::takeOwn(size_t step) {
  beginStage(step);
  const Gather &own = function.steps[step].gather;
  const Argument &type = function.values[own.source].type;
  uint64_t rowBytes =
      type.elementSize() * countElements(type, 1, type.shape.size());
  uint64_t before = 0;
  for (size_t r = 0; r < group.rank(); ++r)
    before += static_cast<uint64_t>(tokensOf[r]);
  if (uint64_t bytes = static_cast<uint64_t>(tokens) * rowBytes)
    std::memcpy(addressOf(own.result),
                addressOf(own.source) + before * rowBytes, bytes);
}
