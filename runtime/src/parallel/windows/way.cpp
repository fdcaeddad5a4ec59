//===- way.cpp - Whether ranks read the memory of one another -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/group.h"

#include <algorithm>

using namespace moe::rt;

moe_rt_status_t moe_rt_group_s::chooseWay(int32_t wanted) {
  way = MOE_RT_WAY_ALL_TO_ALL;
  if (wanted == MOE_RT_WAY_ALL_TO_ALL || size() == 1)
    return nullptr;
  if (wanted == MOE_RT_WAY_ALL_GATHER) {
    way = wanted;
    return nullptr;
  }
  if ((communicator.features & MOE_RT_COMMUNICATOR_PEER_MEMORY) != 0) {
    way = MOE_RT_WAY_PEER;
    return nullptr;
  }
  segments = std::make_unique<Segments>(size());
  Segments::Words mine = {};
  Words own = {static_cast<int64_t>(Action::shareMemory), 0, 0, {}};
  bool isPossible = segments->describe(mine);
  std::copy(mine.begin(), mine.end(), own.values);
  own.values[Segments::wordCount] = isPossible;
  MOE_RT_TRY(agree(own, nullptr, {}));
  std::string reason = "this system has no memory to share";
  for (size_t r = 0; r < size() && isPossible; ++r) {
    const Words &words = heard(r);
    Segments::Words its;
    std::copy(words.values, words.values + its.size(), its.begin());
    std::string why = "has no memory to share";
    isPossible = words.values[Segments::wordCount] != 0 &&
                 (r == rank() || segments->meet(r, its, why));
    if (!isPossible)
      reason = "rank " + std::to_string(r) + " " + why;
  }
  own = {static_cast<int64_t>(Action::shareMemory), 0, 0, {isPossible}};
  moe_rt_status_t failure =
      isPossible || wanted != MOE_RT_WAY_PEER
          ? nullptr
          : makeError(MOE_RT_FAILED_PRECONDITION,
                      "ranks cannot read the memory of one another: %s",
                      reason.c_str());
  MOE_RT_TRY(agree(own, failure, {}));
  for (size_t r = 0; r < size(); ++r)
    isPossible &= heard(r).values[0] != 0;
  if (!isPossible) {
    segments.reset();
    return nullptr;
  }
  way = MOE_RT_WAY_PEER;
  for (SharedBuffer *buffer : {&home, &gathered, &packed, &received})
    buffer->use(segments.get());
  return nullptr;
}

moe_rt_status_t moe_rt_group_s::reservePlaces(size_t values) {
  return places.grow(2 * size() * values * sizeof(SharedRows),
                     "places of rows");
}

moe_rt_status_t moe_rt_group_s::startTelling(size_t values) {
  return start([&](void **request) {
    return communicator.counts(
        communicator.user, reinterpret_cast<const int64_t *>(toldTo(0, values)),
        reinterpret_cast<int64_t *>(toldTo(size(), values)),
        static_cast<int32_t>(values) * SharedRows::words, nullptr, request);
  });
}

moe_rt_status_t moe_rt_group_s::endReading() {
  MOE_RT_TRY(start([&](void **request) {
    auto *told = reinterpret_cast<int64_t *>(places.data());
    return communicator.counts(communicator.user, told, told + size(), 1,
                               nullptr, request);
  }));
  return wait();
}

Window moe_rt_group_s::share(const void *address) const {
  return segments ? segments->share(address)
                  : Window{0, static_cast<int64_t>(
                                  reinterpret_cast<uintptr_t>(address))};
}

const char *moe_rt_group_s::open(size_t rank, const Window &window,
                                 uint64_t bytes) {
  if (segments)
    return segments->open(rank, window, bytes);
  void *memory =
      reinterpret_cast<void *>(static_cast<uintptr_t>(window.offset));
  return static_cast<const char *>(
      communicator.peer(communicator.user, static_cast<int32_t>(rank), memory));
}
