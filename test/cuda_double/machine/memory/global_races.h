//===- global_races.h - Races in global memory ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Happens-before between the blocks of launches that run together, PTX ISA 8
// "Memory Consistency Model". A strong write to a location makes known to those
// who read it what its thread released: all that happened before, with .release
// or what happened before a fence. A strong read learns it, with .acquire at
// once, else at the next fence. What an earlier launch did is ordered, unless
// it may still run.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_GLOBAL_RACES_H
#define MOE_CUDA_DOUBLE_GLOBAL_RACES_H

#include "global_shadow.h"

#include <optional>
#include <unordered_map>

namespace moe::gpu {

struct Cluster;

/// Who accesses global memory, and what happened before.
struct GlobalAccess {
  const Cluster &blocks;
  const Clock &clock;
  uint32_t cluster, agent, time, lane;
  bool strong, async;
  bool equal = false; // races with writes end nothing
};

/// Whether the thread that wrote has executed a proxy fence since. It is of the
/// cluster.
bool wasFenced(const Cluster &cluster, GlobalRecord write);

class GlobalRaces {
public:
  explicit GlobalRaces(uint64_t machine) : machine(machine) {}

  /// Adds a launch whose clusters have the numbers from `first` on.
  void addLaunch(uint32_t first) { firstClusters.push_back(first); }
  uint32_t launchOf(uint32_t cluster) const;

  struct Conflict {
    uint64_t word;      // of the allocation
    GlobalRecord other; // the earlier access
    bool otherWrites;
    bool unseen; // ordered, but the asynchronous proxy may not see it
  };
  /// Record an access to bytes of an allocation. Return the first conflict.
  std::optional<Conflict> read(GlobalShadow &shadow, uint64_t offset,
                               uint64_t count, const GlobalAccess &access);
  std::optional<Conflict> write(GlobalShadow &shadow, uint64_t offset,
                                uint64_t count, const GlobalAccess &access);

  /// A strong write of cluster `self` to an address; of an atomic operation,
  /// which continues what earlier writes made known.
  void publish(uint64_t address, const Clock &clock, uint32_t self,
               bool release, bool atomic);
  /// A strong read: adds what is known to `clock`.
  void learn(uint64_t address, Clock &clock, uint32_t self) const;

private:
  bool ordered(GlobalRecord earlier, const GlobalAccess &access) const;
  bool visible(GlobalRecord earlier, const GlobalAccess &access) const;

  struct Known {
    Clusters clusters;
    uint64_t launches = 0;
  };
  uint64_t machine;
  std::vector<uint32_t> firstClusters;
  std::unordered_map<uint64_t, Known> locations;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_GLOBAL_RACES_H
