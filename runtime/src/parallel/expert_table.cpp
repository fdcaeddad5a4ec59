//===- expert_table.cpp - Which rank has which expert ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "parallel/expert_table.h"
#include "support/dtype.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

#define XXH_INLINE_ALL
#include <xxhash.h>

using namespace moe;
using namespace moe::rt;

moe_rt_status_t ExpertTable::read(const DLTensor &tensor) {
  auto rows = static_cast<int64_t>(ranks),
       columns = static_cast<int64_t>(slots);
  if (!sameDType(tensor.dtype, {kDLInt, 32, 1}) || tensor.ndim != 2 ||
      !tensor.shape)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "the table of experts has rank %d and type code %d with "
                     "%d bits, expected i32[%zu, %zu]",
                     static_cast<int>(tensor.ndim),
                     static_cast<int>(tensor.dtype.code),
                     static_cast<int>(tensor.dtype.bits), ranks, slots);
  if (tensor.shape[0] != rows || tensor.shape[1] != columns)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "the table of experts is i32[%" PRId64 ", %" PRId64
                     "], expected i32[%zu, %zu], ranks and slots",
                     tensor.shape[0], tensor.shape[1], ranks, slots);
  bool isCompact = !tensor.strides ||
                   (tensor.strides[1] == 1 && tensor.strides[0] == columns);
  if (!tensor.data || !isCompact ||
      (tensor.device.device_type != kDLCPU &&
       tensor.device.device_type != kDLCUDAHost))
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "the table of experts is not row-major in memory of the "
                     "host");
  std::memcpy(table.data(),
              static_cast<const char *>(tensor.data) + tensor.byte_offset,
              table.size() * sizeof(int32_t));
  return nullptr;
}

moe_rt_status_t ExpertTable::check(const ParallelFunction &function) const {
  std::vector<size_t> copies(experts);
  std::vector<size_t> lastRank(experts, ranks);
  for (size_t r = 0; r < ranks; ++r)
    for (size_t s = 0; s < slots; ++s) {
      int32_t expert = slotsOf(r)[s];
      if (expert == -1)
        continue;
      if (expert < 0 || static_cast<size_t>(expert) >= experts)
        return makeError(MOE_RT_INVALID_ARGUMENT,
                         "the table of experts has %d in slot %zu of rank %zu, "
                         "expected 0 to %zu or -1",
                         expert, s, r, experts - 1);
      auto e = static_cast<size_t>(expert);
      if (lastRank[e] == r)
        return makeError(MOE_RT_INVALID_ARGUMENT,
                         "the table of experts has expert %d twice on rank %zu",
                         expert, r);
      lastRank[e] = r;
      ++copies[e];
    }
  for (size_t e = 0; e < experts; ++e) {
    if (copies[e] == 0)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "the table of experts has expert %zu on no rank", e);
    if (copies[e] > replicas)
      return makeError(MOE_RT_INVALID_ARGUMENT,
                       "the table of experts has expert %zu on %zu ranks, "
                       "layer '%s' was compiled for at most %zu",
                       e, copies[e], function.signature.name.c_str(), replicas);
  }
  return nullptr;
}

moe_rt_status_t ExpertTable::initialise(const ParallelFunction &function,
                                        size_t rankCount,
                                        const DLTensor *given) {
  ranks = rankCount;
  experts = static_cast<size_t>(function.experts);
  slots = static_cast<size_t>(function.slots);
  replicas = static_cast<size_t>(function.replicas);
  const char *name = function.signature.name.c_str();
  if (ranks > experts)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer '%s' has %zu experts, expected at least one for "
                     "each of %zu ranks",
                     name, experts, ranks);
  if (ranks * slots < experts)
    return makeError(MOE_RT_INVALID_ARGUMENT,
                     "layer '%s' has %zu experts and was compiled for %zu on a "
                     "rank, which are %zu on %zu ranks",
                     name, experts, slots, ranks * slots, ranks);
  table.assign(ranks * slots, -1);
  if (given) {
    MOE_RT_TRY(read(*given));
    MOE_RT_TRY(check(function));
  } else {
    for (size_t r = 0, e = 0; r < ranks; ++r) {
      size_t count = experts / ranks + (r < experts % ranks);
      for (size_t s = 0; s < count; ++s)
        table[r * slots + s] = static_cast<int32_t>(e++);
    }
  }
  // Where a rank can hold all experts, each has its own slot, so that a weight
  // of the slots and one of the experts, which look alike, are the same.
  if (slots == experts)
    for (size_t r = 0; r < ranks; ++r) {
      std::vector<int32_t> sorted(slots, -1);
      for (size_t s = 0; s < slots; ++s)
        if (int32_t expert = slotsOf(r)[s]; expert >= 0)
          sorted[static_cast<size_t>(expert)] = expert;
      std::copy(sorted.begin(), sorted.end(),
                table.begin() + static_cast<ptrdiff_t>(r * slots));
    }
  return nullptr;
}

std::vector<int32_t> ExpertTable::targetsOf(size_t rank,
                                            size_t nodeSize) const {
  std::vector<std::vector<int32_t>> holders(experts);
  for (size_t i = 0; i < table.size(); ++i)
    if (table[i] >= 0)
      holders[static_cast<size_t>(table[i])].push_back(static_cast<int32_t>(i));
  std::vector<int32_t> targets(experts * replicas, -1);
  auto keep = [](std::vector<int32_t> &slots, auto isKept) {
    auto kept = std::stable_partition(slots.begin(), slots.end(), isKept);
    if (kept != slots.begin())
      slots.erase(kept, slots.end());
  };
  for (size_t e = 0; e < experts; ++e) {
    std::vector<int32_t> &chosen = holders[e];
    // Ranks that share no memory know nothing of nodes.
    if (nodeSize > 1)
      keep(chosen, [&](int32_t slot) {
        return static_cast<size_t>(slot) / slots / nodeSize == rank / nodeSize;
      });
    keep(chosen, [&](int32_t slot) {
      return static_cast<size_t>(slot) / slots == rank;
    });
    std::rotate(chosen.begin(),
                chosen.begin() + static_cast<ptrdiff_t>(rank % chosen.size()),
                chosen.end());
    std::copy(chosen.begin(), chosen.end(),
              targets.begin() + static_cast<ptrdiff_t>(e * replicas));
  }
  return targets;
}

double ExpertTable::shareOfTokens(int64_t choices) const {
  std::vector<size_t> copies(experts);
  for (int32_t expert : table)
    if (expert >= 0)
      ++copies[static_cast<size_t>(expert)];
  double sum = 0;
  for (size_t r = 0; r < ranks; ++r) {
    size_t elsewhere = experts;
    for (size_t s = 0; s < slots; ++s)
      if (int32_t expert = slotsOf(r)[s];
          expert >= 0 && copies[static_cast<size_t>(expert)] == 1)
        --elsewhere;
    // No choice is of an expert that is here.
    double none = 1;
    for (int64_t i = 0; i < choices && none > 0; ++i)
      none *=
          std::max(0.0,
                   static_cast<double>(elsewhere) - static_cast<double>(i)) /
          std::max(1.0, static_cast<double>(experts) - static_cast<double>(i));
    sum += 1 - none;
  }
  return sum / static_cast<double>(ranks);
}

uint64_t ExpertTable::hash() const {
  return XXH3_64bits(table.data(), table.size() * sizeof(int32_t));
}
