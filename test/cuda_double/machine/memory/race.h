//===- race.h - Race detection in shared memory -----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A happens-before race detector. It keeps vector clocks over the agents of a
// cluster (clock.h), and for each word of shared memory the last write and the
// reads since. Two conflicting accesses that no barrier, mbarrier, wait or
// strong operation orders (PTX ISA 8 "Memory Consistency Model") are a data
// race. There are no false positives, but false negatives: every strong
// operation is ordered with every other, and accesses of less than a word are
// not checked. The lanes of a warp are one agent; SharedMemory compares them.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_RACE_H
#define MOE_CUDA_DOUBLE_RACE_H

#include "clock.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace moe::gpu {

/// An agent and a time of it, in 31 bits.
struct Epoch {
  uint32_t bits = 0; // 0: no access
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

  /// A word, and the earlier access to it that races with the current one;
  /// `other.bits` is 0 if there is no race. read() and write() record an access
  /// to words, whose happens-before relation is `clock`, and return the first
  /// race.
  struct Race {
    size_t word = 0;
    Epoch other;
    bool wrote = false; // the earlier access
  };

  Race read(size_t first, size_t end, Epoch now, const Clock &clock) {
    // Skip words that this epoch has read and that were not written since. The
    // last time is excluded: once a clock saturates, it repeats.
    uint32_t again = now.time() != Epoch::maxTime ? now.bits : noWord;
    Past done;
    Epoch after;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (past.read.bits == again)
        continue;
      if (!(past == done)) {
        if (unordered(past.write, now, clock))
          return {word, past.write, true};
        done = past;
        after = joined(past.read, now, clock);
      }
      keep(after);
      drop(past.read);
      reads[word] = after;
    }
    return {};
  }

  /// With `all`, a race with a write ends nothing.
  Race write(size_t first, size_t end, Epoch now, const Clock &clock,
             bool all = false) {
    Past done;
    Race found;
    for (size_t word = first; word < end; ++word) {
      Past past{reads[word], writes[word]};
      if (!(past == done)) {
        if (Epoch race = conflict(past, now, clock); race.bits != 0)
          return {word, race, false};
        if (unordered(past.write, now, clock)) {
          if (!all)
            return {word, past.write, true};
          if (found.other.bits == 0)
            found = {word, past.write, true};
        }
        done = past;
      }
      drop(past.read);
      writes[word] = now;
      reads[word] = {};
    }
    return found;
  }

private:
  // A bit that no epoch has: the other bits are the index of a set of readers.
  static constexpr uint32_t manyReaders = 1u << 31;
  static constexpr uint32_t noWord = ~0u; // differs from the reads of any word

  /// The previous accesses to a word. Adjacent words mostly have the same ones;
  /// then the result for one word is reused for the next.
  struct Past {
    Epoch read = {noWord}, write;
    bool operator==(const Past &other) const {
      return read.bits == other.read.bits && write.bits == other.write.bits;
    }
  };

  /// An immutable set of readers, which several words share. Adding a reader
  /// makes another set, which `next` caches for the next word.
  struct Readers {
    std::vector<Epoch> epochs;
    uint32_t words = 0;  // number of words that refer to this set
    uint32_t serial = 0; // incremented when the entry is freed
    Epoch reader;        // added to give `next`, valid while its serial is
                         // `nextSerial`
    uint32_t next = 0, nextSerial = 0;
  };
  /// Caches the last set of two readers.
  struct Pair {
    Epoch first, second;
    uint32_t set = 0, serial = 0;
  };

  static bool unordered(Epoch other, Epoch now, const Clock &clock) {
    return other.agent() != now.agent() && !other.before(clock);
  }

  /// A read that races with a write.
  Epoch conflict(const Past &past, Epoch now, const Clock &clock) const {
    Epoch race;
    auto check = [&](Epoch other) {
      if (unordered(other, now, clock))
        race = other;
    };
    if (past.read.bits & manyReaders)
      for (Epoch reader : sets[past.read.bits & ~manyReaders].epochs)
        check(reader);
    else
      check(past.read);
    return race;
  }

  /// Adds a reader to the readers of a word.
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
  std::vector<uint32_t> unused; // free entries of `sets`
  Pair lastPair;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_RACE_H
