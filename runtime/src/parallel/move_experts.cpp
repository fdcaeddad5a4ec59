//===- move_experts.cpp - Move experts between ranks ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/move_experts.h"
#include "support/checked.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

using namespace moe;
using namespace moe::rt;

//===----------------------------------------------------------------------===//
// What moves
//===----------------------------------------------------------------------===//

/// Find the slots that get another expert, and where each comes from: a slot of
/// the same rank, else of its node, else of any; several serve in turn. All
/// ranks find the same.
void ExpertMove::plan(const ExpertTable &from, const ExpertTable &to) {
  const size_t slots = to.slotCount();
  const auto nodeSize = static_cast<size_t>(group.communicator.node_size);
  struct Place {
    size_t rank, slot;
  };
  std::vector<std::vector<Place>> holders(to.expertCount());
  for (size_t r = 0; r < group.size(); ++r)
    for (size_t s = 0; s < slots; ++s)
      if (int32_t expert = from.slotsOf(r)[s]; expert >= 0)
        holders[static_cast<size_t>(expert)].push_back({r, s});
  for (size_t r = 0; r < group.size(); ++r)
    for (size_t s = 0; s < slots; ++s) {
      int32_t expert = to.slotsOf(r)[s];
      // An empty slot gets no rows, whatever it holds.
      if (expert < 0 || expert == from.slotsOf(r)[s])
        continue;
      std::vector<Place> places = holders[static_cast<size_t>(expert)];
      auto keep = [&](auto isKept) {
        auto kept = std::stable_partition(places.begin(), places.end(), isKept);
        if (kept != places.begin())
          places.erase(kept, places.end());
      };
      if (nodeSize > 1)
        keep([&](const Place &place) {
          return place.rank / nodeSize == r / nodeSize;
        });
      keep([&](const Place &place) { return place.rank == r; });
      const Place &source = places[(r * slots + s) % places.size()];
      moves = true;
      changes |= r == group.rank();
      if (source.rank == group.rank())
        outgoing[r].push_back(source.slot);
      if (r == group.rank())
        incoming[source.rank].push_back(s);
    }
}

/// Find the arrays of a part that have something for each slot.
moe_rt_status_t ExpertMove::findArrays(const ParallelFunction &layer,
                                       moe_rt_layer_t &part) {
  const Function &function = part.function, &signature = layer.signature;
  LayerWeights &weights = part.onDevice->weights();
  std::vector<bool> isOfSlots;
  for (size_t i = 0; i < function.weights.size(); ++i) {
    const Argument &own = function.arguments[function.weights[i]];
    bool found = false;
    for (size_t index : signature.weights) {
      const Argument &whole = signature.arguments[index];
      found |= whole.name == own.name && whole.shape != own.shape;
    }
    isOfSlots.push_back(found);
    if (!found || !own.retained)
      continue;
    arrays.push_back(
        {&weights, i, false,
         weights.weights()[i].bytes / static_cast<uint64_t>(layer.slots)});
  }
  for (size_t i = 0; i < function.preparations.size(); ++i) {
    const Preparation &preparation = function.preparations[i];
    if (std::none_of(preparation.sources.begin(), preparation.sources.end(),
                     [&](size_t source) { return isOfSlots[source]; }))
      continue;
    const Argument &argument = function.arguments[preparation.argument];
    if (argument.shape.empty() || argument.shape[0] != layer.slots)
      return makeError(MOE_RT_INTERNAL,
                       "function '%s': prepared argument '%s' is not by slots, "
                       "of which there are %" PRId64,
                       function.name.c_str(), argument.name.c_str(),
                       layer.slots);
    const BoundTensor &bound = weights.prepared()[i];
    arrays.push_back(
        {&weights, i, true, bound.bytes / static_cast<uint64_t>(layer.slots)});
  }
  return nullptr;
}

static uint64_t countAll(const std::vector<std::vector<size_t>> &lists) {
  uint64_t count = 0;
  for (const std::vector<size_t> &list : lists)
    count += list.size();
  return count;
}

moe_rt_status_t ExpertMove::prepare(const ParallelFunction &function,
                                    const ParallelWeights &weights,
                                    const ExpertTable &from,
                                    const ExpertTable &to) {
  plan(from, to);
  if (!moves)
    return nullptr;
  for (const auto &part : weights.parts)
    MOE_RT_TRY(findArrays(function, *part));
  uint64_t largest = 0, leaves, comes, sum;
  for (const SlotArray &array : arrays)
    largest = std::max(largest, array.slotBytes);
  bool isKnown = checkedMul(countAll(outgoing), largest, leaves) &&
                 checkedMul(countAll(incoming), largest, comes) &&
                 checkedAdd(leaves, comes, sum);
  if (!isKnown || (group.memoryLimit > 0 && sum > group.memoryLimit))
    return makeError(MOE_RT_RESOURCE_EXHAUSTED,
                     "layer '%s': to move %" PRIu64 " and take %" PRIu64
                     " experts of up to %" PRIu64
                     " bytes an array needs more memory than the group's limit "
                     "of %" PRIu64 " bytes",
                     function.signature.name.c_str(), countAll(outgoing),
                     countAll(incoming), largest, group.memoryLimit);
  moe_rt_status_t status = sent.grow(leaves, "experts to send");
  if (!status)
    status = received.grow(comes, "experts to receive");
  return status;
}

bool ExpertMove::copies() const {
  // What is mapped is not this layer's to write.
  return changes &&
         std::any_of(arrays.begin(), arrays.end(),
                     [](const SlotArray &array) { return !array.isKept(); });
}

moe_rt_status_t ExpertMove::copy() {
  for (const SlotArray &array : arrays)
    if (changes && !array.isKept())
      MOE_RT_TRY(array.weights->keep(array.position));
  return nullptr;
}

void ExpertMove::cancel() {
  // A dead group's engine may still reach them.
  if (group.isDead())
    return;
  sent.release();
  received.release();
}

//===----------------------------------------------------------------------===//
// The exchange
//===----------------------------------------------------------------------===//

moe_rt_status_t
ExpertMove::moveArray(const SlotArray &array,
                      moe_rt_exchange_statistics_t &statistics) {
  const size_t ranks = group.size();
  std::vector<int64_t> sendRows(ranks), sendBegins(ranks), receiveRows(ranks),
      receiveBegins(ranks);
  int64_t leaves = 0, comes = 0;
  char *const data = array.data();
  for (size_t r = 0; r < ranks; ++r) {
    sendBegins[r] = leaves;
    receiveBegins[r] = comes;
    sendRows[r] = static_cast<int64_t>(outgoing[r].size());
    receiveRows[r] = static_cast<int64_t>(incoming[r].size());
    for (size_t slot : outgoing[r])
      std::memcpy(sent.data() +
                      static_cast<uint64_t>(leaves++) * array.slotBytes,
                  data + slot * array.slotBytes, array.slotBytes);
    comes += receiveRows[r];
    if (r == group.rank())
      continue;
    statistics.bytes_sent += outgoing[r].size() * array.slotBytes;
    statistics.bytes_received += incoming[r].size() * array.slotBytes;
  }
  const char *from = sent.data();
  if (ranks > 1) {
    MOE_RT_TRY(group.start([&](void **request) {
      return group.communicator.exchange(
          group.communicator.user, sent.data(), sendRows.data(),
          sendBegins.data(), received.data(), receiveRows.data(),
          receiveBegins.data(), array.slotBytes, nullptr, request);
    }));
    MOE_RT_TRY(group.wait());
    from = received.data();
  }
  for (const std::vector<size_t> &list : incoming)
    for (size_t slot : list) {
      std::memcpy(data + slot * array.slotBytes, from, array.slotBytes);
      from += array.slotBytes;
    }
  return nullptr;
}

moe_rt_status_t ExpertMove::run(moe_rt_exchange_statistics_t &statistics) {
  statistics = {};
  statistics.way = MOE_RT_WAY_ALL_TO_ALL;
  if (moves)
    statistics.rounds = 1;
  for (size_t r = 0; r < group.size(); ++r)
    if (r != group.rank()) {
      statistics.rows_sent += static_cast<int64_t>(outgoing[r].size());
      statistics.rows_received += static_cast<int64_t>(incoming[r].size());
    }
  for (const SlotArray &array : arrays)
    if (array.slotBytes > 0)
      MOE_RT_TRY(moveArray(array, statistics));
  cancel();
  return nullptr;
}
