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

  /// Note an access to words, before which is what `clock` says. Returns the
  /// first word with an earlier access that it races with, and that; bits of 0
  /// if there is none.
  struct Race {
    size_t word = 0;
    Epoch other;
  };

  Race read(size_t first, size_t end, Epoch now, const Clock &clock) {
    // A word that it read before and nobody wrote since was looked at then,
    // unless the agent has run out of times.
    uint32_t again = now.time() != Epoch::maxTime ? now.bits : noWord;
    Past done;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (past.read.bits == again)
        continue;
      if (past == done) {
        reads[word] = now;
        continue;
      }
      if (Epoch race = readOne(word, now, clock); race.bits != 0)
        return {word, race};
      if (reads[word].bits == now.bits)
        done = past;
    }
    return {};
  }

  Race write(size_t first, size_t end, Epoch now, const Clock &clock) {
    Past done;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (past == done) {
        writes[word] = now;
        reads[word] = {};
        continue;
      }
      if (Epoch race = writeOne(word, now, clock); race.bits != 0)
        return {word, race};
      if (!(past.read.bits & manyReaders))
        done = past;
    }
    return {};
  }

private:
  // Set in no epoch.
  static constexpr uint32_t manyReaders = 1u << 31;

  static constexpr uint32_t noWord = ~0u; // the reads of none

  /// What is known of a word. Neighbours mostly share theirs: what was found
  /// about one holds for the next.
  struct Past {
    Epoch read = {noWord}, write;
    bool operator==(const Past &other) const {
      return read.bits == other.read.bits && write.bits == other.write.bits;
    }
  };

  /// The earlier access that a read or write races with.
  Epoch readOne(size_t word, Epoch now, const Clock &clock) {
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

  Epoch writeOne(size_t word, Epoch now, const Clock &clock) {
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
