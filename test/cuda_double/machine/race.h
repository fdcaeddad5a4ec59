//===- race.h - Which accesses to shared memory are ordered -----*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Vector clocks over the agents of a cluster, and for each word of shared
// memory the last write and the reads since. Agents are its warps, what
// asynchronous copies read on behalf of each warp, and what wgmma reads on
// behalf of each warpgroup. Two conflicting accesses that no barrier, mbarrier,
// wait or strong operation orders (PTX ISA 8 "Memory Consistency Model") are a
// data race. Threads of one warp count as ordered, every strong operation as
// ordered with every other, and accesses below a word are not looked at, so
// some races pass; what is reported is one.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_RACE_H
#define MOE_CUDA_DOUBLE_RACE_H

#include <algorithm>
#include <cstdint>
#include <vector>

namespace moe::gpu {

/// What happened before: for each agent, up to which of its times.
class Clock {
public:
  explicit Clock(size_t agents = 0) : times(agents) {}
  void join(const Clock &other) {
    for (size_t i = 0; i < times.size(); ++i)
      times[i] = std::max(times[i], other.times[i]);
  }
  uint32_t operator[](uint32_t agent) const { return times[agent]; }
  /// Returns the time that ends.
  uint32_t tick(uint32_t agent) { return times[agent]++; }
  void set(uint32_t agent, uint32_t time) { times[agent] = time; }

private:
  std::vector<uint32_t> times;
};

/// A time of an agent, in 31 bits.
struct Epoch {
  uint32_t bits = 0; // 0: never
  static constexpr uint32_t timeBits = 21;
  static constexpr uint32_t maxTime = (1u << timeBits) - 1;
  static constexpr uint32_t maxAgents = 1u << (31 - timeBits);
  static Epoch of(uint32_t agent, uint32_t time) {
    return {agent << timeBits | time};
  }
  uint32_t agent() const { return bits >> timeBits; }
  uint32_t time() const { return bits & maxTime; }
  bool before(const Clock &clock) const {
    return bits == 0 || time() <= clock[agent()];
  }
};

class RaceShadow {
public:
  void resize(size_t words) {
    writes.assign(words, {});
    reads.assign(words, {});
    shared.clear();
    unused.clear();
  }

  /// Note a read, before which is what `clock` says. Returns the earlier write
  /// that it races with; bits of 0 if there is none.
  Epoch read(size_t word, Epoch now, const Clock &clock) {
    Epoch &last = reads[word];
    if (last.bits != now.bits) {
      if (last.bits & manyReaders)
        add(shared[last.bits & ~manyReaders], now);
      else if (last.before(clock) || last.agent() == now.agent())
        last = now;
      else
        last.bits = share(last, now);
    }
    Epoch write = writes[word];
    return write.agent() == now.agent() || write.before(clock) ? Epoch()
                                                               : write;
  }

  Epoch write(size_t word, Epoch now, const Clock &clock) {
    Epoch race, last = writes[word], readers = reads[word];
    auto check = [&](Epoch other) {
      if (other.agent() != now.agent() && !other.before(clock))
        race = other;
    };
    check(last);
    if (readers.bits & manyReaders) {
      uint32_t index = readers.bits & ~manyReaders;
      for (Epoch reader : shared[index])
        check(reader);
      unused.push_back(index);
    } else {
      check(readers);
    }
    writes[word] = now;
    reads[word] = {};
    return race;
  }

private:
  // Set in no epoch.
  static constexpr uint32_t manyReaders = 1u << 31;

  static void add(std::vector<Epoch> &readers, Epoch now) {
    for (Epoch &reader : readers)
      if (reader.agent() == now.agent()) {
        reader = now;
        return;
      }
    readers.push_back(now);
  }
  uint32_t share(Epoch first, Epoch second) {
    if (unused.empty()) {
      unused.push_back(static_cast<uint32_t>(shared.size()));
      shared.emplace_back();
    }
    uint32_t index = unused.back();
    unused.pop_back();
    shared[index] = {first, second};
    return manyReaders | index;
  }

  std::vector<Epoch> writes, reads;
  std::vector<std::vector<Epoch>> shared; // where there are several readers
  std::vector<uint32_t> unused;           // of `shared`
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_RACE_H
