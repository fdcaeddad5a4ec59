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
    sets.clear();
    unused.clear();
    lastPair = Pair();
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
    Epoch after;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (past.read.bits == again)
        continue;
      if (!(past == done)) {
        if (unordered(past.write, now, clock))
          return {word, past.write};
        done = past;
        after = joined(past.read, now, clock);
      }
      keep(after);
      drop(past.read);
      reads[word] = after;
    }
    return {};
  }

  Race write(size_t first, size_t end, Epoch now, const Clock &clock) {
    Past done;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (!(past == done)) {
        if (Epoch race = conflict(past, now, clock); race.bits != 0)
          return {word, race};
        done = past;
      }
      drop(past.read);
      writes[word] = now;
      reads[word] = {};
    }
    return {};
  }

private:
  // Set in no epoch: the rest is the number of a set of several readers.
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

  /// Several readers of words, which never change: one more makes another set,
  /// found again for the next word.
  struct Readers {
    std::vector<Epoch> epochs;
    uint32_t words = 0;  // with this set
    uint32_t serial = 0; // of its use
    Epoch reader;        // who made `next`, while that has `nextSerial`
    uint32_t next = 0, nextSerial = 0;
  };
  /// The set that two readers made last.
  struct Pair {
    Epoch first, second;
    uint32_t set = 0, serial = 0;
  };

  static bool unordered(Epoch other, Epoch now, const Clock &clock) {
    return other.agent() != now.agent() && !other.before(clock);
  }

  Epoch conflict(const Past &past, Epoch now, const Clock &clock) const {
    Epoch race;
    auto check = [&](Epoch other) {
      if (unordered(other, now, clock))
        race = other;
    };
    check(past.write);
    if (past.read.bits & manyReaders)
      for (Epoch reader : sets[past.read.bits & ~manyReaders].epochs)
        check(reader);
    else
      check(past.read);
    return race;
  }

  /// The readers of a word, with one more.
  Epoch joined(Epoch readers, Epoch now, const Clock &clock) {
    if (readers.bits & manyReaders)
      return {manyReaders | extended(readers.bits & ~manyReaders, now)};
    if (readers.before(clock) || readers.agent() == now.agent())
      return now;
    if (lastPair.first.bits != readers.bits ||
        lastPair.second.bits != now.bits ||
        sets[lastPair.set].serial != lastPair.serial) {
      uint32_t set = make({readers, now});
      lastPair = {readers, now, set, sets[set].serial};
    }
    return {manyReaders | lastPair.set};
  }

  uint32_t extended(uint32_t set, Epoch now) {
    const Readers &from = sets[set];
    if (from.reader.bits == now.bits &&
        sets[from.next].serial == from.nextSerial)
      return from.next;
    std::vector<Epoch> epochs = from.epochs;
    auto same = std::find_if(epochs.begin(), epochs.end(), [&](Epoch reader) {
      return reader.agent() == now.agent();
    });
    if (same == epochs.end())
      epochs.push_back(now);
    else if (same->bits == now.bits)
      return set;
    else
      *same = now;
    uint32_t next = make(std::move(epochs));
    sets[set].reader = now;
    sets[set].next = next;
    sets[set].nextSerial = sets[next].serial;
    return next;
  }

  uint32_t make(std::vector<Epoch> epochs) {
    if (unused.empty()) {
      unused.push_back(static_cast<uint32_t>(sets.size()));
      sets.emplace_back();
    }
    uint32_t set = unused.back();
    unused.pop_back();
    sets[set].epochs = std::move(epochs);
    return set;
  }

  void keep(Epoch readers) {
    if (readers.bits & manyReaders)
      ++sets[readers.bits & ~manyReaders].words;
  }
  void drop(Epoch readers) {
    if (!(readers.bits & manyReaders))
      return;
    uint32_t set = readers.bits & ~manyReaders;
    if (--sets[set].words != 0)
      return;
    ++sets[set].serial;
    sets[set].reader = {};
    unused.push_back(set);
  }

  std::vector<Epoch> writes, reads;
  std::vector<Readers> sets;
  std::vector<uint32_t> unused; // of `sets`
  Pair lastPair;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_RACE_H
