//===- global_races.cpp - Races in global memory --------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "global_races.h"

using namespace moe::gpu;

uint32_t GlobalRaces::launchOf(uint32_t cluster) const {
  uint32_t launch = 0;
  while (launch + 1 < firstClusters.size() &&
         firstClusters[launch + 1] <= cluster)
    ++launch;
  return launch;
}

/// Whether the earlier access happens before. Two lanes of a warp are ordered
/// once its time has changed between them.
bool GlobalRaces::ordered(GlobalRecord earlier,
                          const GlobalAccess &access) const {
  uint32_t agent = earlier.epoch.agent(), time = earlier.epoch.time();
  if (earlier.cluster == access.cluster) {
    if (agent == access.agent)
      return time != access.time || earlier.lane == access.lane ||
             access.async || earlier.strong || access.strong;
    return time <= access.clock[agent];
  }
  if (firstClusters.size() > 1) {
    uint32_t launch = launchOf(earlier.cluster);
    if (launch != launchOf(access.cluster) &&
        access.clock.launches >> launch & 1)
      return true;
  }
  const Times *known = access.clock.of(earlier.cluster);
  return known && time <= known->happened(agent);
}

/// Whether the asynchronous proxy sees an earlier write, which is ordered.
bool GlobalRaces::visible(GlobalRecord earlier,
                          const GlobalAccess &access) const {
  if (earlier.async)
    return true;
  uint32_t agent = earlier.epoch.agent(), time = earlier.epoch.time();
  if (earlier.cluster == access.cluster)
    return time <= access.clock.times().proxied(agent) ||
           wasFenced(access.blocks, earlier);
  if (launchOf(earlier.cluster) != launchOf(access.cluster))
    return true;
  const Times *known = access.clock.of(earlier.cluster);
  return known && time <= known->proxied(agent);
}

namespace {

/// Calls `body` with each word of a range, and the mask of its bytes, until it
/// returns a conflict.
template <typename Body>
std::optional<GlobalRaces::Conflict> forWords(GlobalShadow &shadow,
                                              uint64_t machine, uint64_t offset,
                                              uint64_t count, Body body) {
  GlobalShadow::Page *page = nullptr;
  uint64_t end = offset + count;
  for (uint64_t word = offset / 4; word * 4 < end; ++word) {
    if (!page || word % GlobalShadow::pageWords == 0)
      page = &shadow.page(word, machine);
    uint64_t low = std::max(offset, word * 4) - word * 4;
    uint64_t high = std::min(end, word * 4 + 4) - word * 4;
    auto bytes = static_cast<uint32_t>((1u << high) - (1u << low));
    if (auto conflict =
            body(*page, word % GlobalShadow::pageWords, bytes, word))
      return conflict;
  }
  return std::nullopt;
}

GlobalRecord recordOf(const GlobalAccess &access, uint32_t bytes) {
  return {access.cluster,
          access.lane,
          bytes,
          access.strong,
          access.async,
          true,
          Epoch::of(access.agent, access.time)};
}

bool sameAgent(const GlobalRecord &a, const GlobalRecord &b) {
  return a.cluster == b.cluster && a.epoch.agent() == b.epoch.agent();
}

} // namespace

std::optional<GlobalRaces::Conflict>
GlobalRaces::read(GlobalShadow &shadow, uint64_t offset, uint64_t count,
                  const GlobalAccess &access) {
  using Found = std::optional<Conflict>;
  return forWords(
      shadow, machine, offset, count,
      [&](GlobalShadow::Page &page, size_t at, uint32_t bytes,
          uint64_t word) -> Found {
        GlobalRecord now = recordOf(access, bytes);
        GlobalRecord &first = page.reads[0][at], &second = page.reads[1][at];
        if (first == now || second == now)
          return std::nullopt;
        GlobalRecord write = page.write[at];
        if (write.exists && write.bytes & bytes) {
          if (!(write.strong && access.strong) && !ordered(write, access))
            return Conflict{word, write, true, false};
          if (access.async && !visible(write, access))
            return Conflict{word, write, true, true};
        }
        if (!first.exists || sameAgent(first, now) || ordered(first, access))
          first = now;
        else
          second = now;
        return std::nullopt;
      });
}

std::optional<GlobalRaces::Conflict>
GlobalRaces::write(GlobalShadow &shadow, uint64_t offset, uint64_t count,
                   const GlobalAccess &access) {
  using Found = std::optional<Conflict>;
  Found first;
  Found last = forWords(
      shadow, machine, offset, count,
      [&](GlobalShadow::Page &page, size_t at, uint32_t bytes,
          uint64_t word) -> Found {
        GlobalRecord now = recordOf(access, bytes);
        GlobalRecord &write = page.write[at];
        GlobalRecord &one = page.reads[0][at], &two = page.reads[1][at];
        // One instruction may write a word by several lanes of a warp.
        if (write.exists && write.bytes & bytes &&
            !(write.strong && access.strong) && !sameAgent(write, now) &&
            !ordered(write, access)) {
          if (!access.equal)
            return Conflict{word, write, true, false};
          if (!first)
            first = Conflict{word, write, true, false};
        }
        for (GlobalRecord *read : {&one, &two})
          if (read->exists && read->bytes & bytes &&
              !(read->strong && access.strong) && !ordered(*read, access))
            return Conflict{word, *read, false, false};
        write = now;
        one = two = {};
        return std::nullopt;
      });
  return last ? last : first;
}

void GlobalRaces::publish(uint64_t address, const Clock &clock, uint32_t self,
                          bool release, bool atomic) {
  Known &known = locations[address];
  if (!atomic)
    known = {};
  clock.publish(known.clusters, known.launches, self, release);
}

void GlobalRaces::learn(uint64_t address, Clock &clock, uint32_t self) const {
  auto found = locations.find(address);
  if (found != locations.end())
    clock.learn(found->second.clusters, found->second.launches, self);
}
