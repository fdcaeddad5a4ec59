//===- clock.h - Happens-before in a launch ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Vector clocks over the agents of a cluster: the warps, what their bulk copies
// read and write, and the wgmma of each warpgroup. A clock also holds what is
// known of the agents of other clusters, which only operations on global memory
// with the scope of the device make known, and which launches have completed.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_CLOCK_H
#define MOE_CUDA_DOUBLE_CLOCK_H

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace moe::gpu {

/// For each agent of a cluster the last time that happened before, the last one
/// that happened before a fence of the device, and the last one that happened
/// before a proxy fence: three arrays, one behind the other.
class Times {
public:
  explicit Times(size_t agents = 0) : all(3 * agents) {}
  size_t agents() const { return all.size() / 3; }

  uint32_t happened(size_t agent) const { return all[agent]; }
  uint32_t released(size_t agent) const { return all[agents() + agent]; }
  uint32_t proxied(size_t agent) const { return all[2 * agents() + agent]; }
  uint32_t &at(size_t agent) { return all[agent]; }
  uint32_t &proxiedAt(size_t agent) { return all[2 * agents() + agent]; }

  void join(const Times &other) {
    if (all.size() < other.all.size())
      all.resize(other.all.size());
    for (size_t i = 0; i < other.all.size(); ++i)
      all[i] = std::max(all[i], other.all[i]);
  }
  /// What happened before is released, or visible to the other proxy, too.
  void release() { raise(agents()); }
  void proxy() { raise(2 * agents()); }
  /// Keeps only what has been released.
  void keepReleased() {
    std::copy_n(all.begin() + static_cast<ptrdiff_t>(agents()), agents(),
                all.begin());
  }

private:
  void raise(size_t from) {
    for (size_t i = 0; i < agents(); ++i)
      all[from + i] = std::max(all[from + i], all[i]);
  }
  std::vector<uint32_t> all;
};

/// The times of clusters, by their numbers in the machine. Immutable and shared
/// between the clocks that know the same.
using Clusters = std::map<uint32_t, std::shared_ptr<const Times>>;

inline void joinCluster(Clusters &clusters, uint32_t cluster,
                        const std::shared_ptr<const Times> &times) {
  std::shared_ptr<const Times> &known = clusters[cluster];
  if (known == times)
    return;
  if (!known) {
    known = times;
    return;
  }
  auto both = std::make_shared<Times>(*known);
  both->join(*times);
  known = std::move(both);
}

class Clock {
public:
  explicit Clock(size_t agents = 0) : own(agents) {}

  void join(const Clock &other) {
    own.join(other.own);
    fences |= other.fences;
    launches |= other.launches;
    if (!other.others || other.others == others)
      return;
    if (!others) {
      others = other.others;
      return;
    }
    auto both = std::make_shared<Clusters>(*others);
    for (const auto &[cluster, times] : *other.others)
      joinCluster(*both, cluster, times);
    others = std::move(both);
  }

  uint32_t operator[](uint32_t agent) const { return own.happened(agent); }
  /// Starts the next time of an agent; returns the one that ended.
  uint32_t tick(uint32_t agent) { return own.at(agent)++; }
  void set(uint32_t agent, uint32_t time) { own.at(agent) = time; }
  const Times &times() const { return own; }

  /// A fence with the scope of the device, and one between the proxies.
  void fence() {
    fences = true;
    own.release();
    mapOthers([](Times &times) { times.release(); });
  }
  /// Of agent `self`, the fence covers what it did up to `time`.
  void fenceProxies(uint32_t self, uint32_t time) {
    time = std::max(time, own.proxied(self));
    own.proxy();
    own.proxiedAt(self) = time;
    mapOthers([](Times &times) { times.proxy(); });
  }

  void raiseProxied(uint32_t agent, uint32_t time) {
    own.proxiedAt(agent) = std::max(time, own.proxied(agent));
  }

  /// The times of another cluster, or nullptr if nothing of it is known.
  const Times *of(uint32_t cluster) const {
    if (!others)
      return nullptr;
    auto found = others->find(cluster);
    return found == others->end() ? nullptr : found->second.get();
  }

  /// What a strong write of cluster `self` to global memory makes known: all
  /// that happened before, or only what fences released.
  void publish(Clusters &to, uint64_t &completed, uint32_t self,
               bool release) const {
    completed |= launches;
    if (!release && !fences)
      return;
    auto add = [&](uint32_t cluster, const Times &times) {
      auto copy = std::make_shared<Times>(times);
      if (!release)
        copy->keepReleased();
      joinCluster(to, cluster, std::move(copy));
    };
    add(self, own);
    if (!others)
      return;
    for (const auto &[cluster, times] : *others)
      if (release)
        joinCluster(to, cluster, times);
      else
        add(cluster, *times);
  }
  /// Learns what a strong write has made known.
  void learn(const Clusters &from, uint64_t completed, uint32_t self) {
    launches |= completed;
    std::shared_ptr<Clusters> both;
    for (const auto &[cluster, times] : from) {
      if (cluster == self) {
        own.join(*times);
        continue;
      }
      if (!both)
        both = others ? std::make_shared<Clusters>(*others)
                      : std::make_shared<Clusters>();
      joinCluster(*both, cluster, times);
    }
    if (both)
      others = std::move(both);
  }

  /// The launches of the machine, one bit each, that completed before.
  uint64_t launches = 0;

private:
  template <typename Body> void mapOthers(Body body) {
    if (!others)
      return;
    auto changed = std::make_shared<Clusters>();
    for (const auto &[cluster, times] : *others) {
      auto copy = std::make_shared<Times>(*times);
      body(*copy);
      (*changed)[cluster] = std::move(copy);
    }
    others = std::move(changed);
  }

  Times own;
  std::shared_ptr<const Clusters> others;
  bool fences = false; // whether anything was released by a fence
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_CLOCK_H
