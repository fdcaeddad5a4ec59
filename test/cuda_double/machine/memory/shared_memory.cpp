//===- shared_memory.cpp - The shared memory of a block -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "shared_memory.h"
#include "machine/machine.h"

using namespace moe::gpu;

static constexpr int fenceBits = 21;
static constexpr uint32_t fenceMask = (1u << fenceBits) - 1;
static constexpr uint64_t eachByte = 0x0101010101010101;

void SharedMemory::reset(uint32_t size, Thread *owners, bool mayReadAnything,
                         bool racesMatter) {
  // Discard the data of the previous block; fill with 0xFF instead of zeros.
  bytes.assign(size, 0xFF);
  states.assign(size, Unwritten);
  writers.assign((size + 3) / 4, {});
  readers.assign((size + 3) / 4, {});
  threads = owners;
  allowUninitialised = mayReadAnything;
  detectRaces = racesMatter;
  if (detectRaces)
    races.resize((size + 3) / 4);
}

/// Loads eight states at once.
static uint64_t wordOf(const uint8_t *states) {
  uint64_t word;
  std::memcpy(&word, states, 8);
  return word;
}

void SharedMemory::checkReadable(uint32_t offset, uint32_t count) const {
  uint32_t i = offset, end = offset + count;
  while (i + 8 <= end && wordOf(&states[i]) == Written * eachByte)
    i += 8;
  for (; i < end; ++i) {
    if (states[i] == Written)
      continue;
    if (states[i] == InFlight)
      undefined("reads shared memory at offset ", i,
                ", where an asynchronous copy is under way");
    if (states[i] == Barrier)
      undefined("reads the mbarrier object in shared memory at offset ", i,
                " as data");
    if (!allowUninitialised)
      undefined("reads shared memory at offset ", i,
                ", which nobody wrote in this block");
  }
}

void SharedMemory::checkWritable(uint32_t offset, uint32_t count) const {
  // Bit 1 is set in Barrier and in InFlight only.
  uint32_t i = offset, end = offset + count;
  while (i + 8 <= end && !(wordOf(&states[i]) & Barrier * eachByte))
    i += 8;
  for (; i < end; ++i)
    if (states[i] == Barrier)
      undefined("overwrites the mbarrier object in shared memory at offset ",
                i);
    else if (states[i] == InFlight)
      undefined("writes shared memory at offset ", i,
                ", where an asynchronous copy is under way");
}

SharedMemory::Writer SharedMemory::writerOf(const Thread &thread,
                                            uint32_t fences) {
  return {(thread.index + 1u) << fenceBits | (fences & fenceMask),
          thread.warp->clock[thread.warp->agent]};
}

void SharedMemory::mark(uint32_t offset, uint32_t count, Writer writer) {
  for (uint32_t word = offset / 4; word * 4 < offset + count; ++word)
    writers[word] = writer;
}

void SharedMemory::checkRaces(Warp &warp, uint32_t offset, uint32_t count,
                              bool write) {
  uint32_t time = warp.clock[warp.agent];
  if (time <= Epoch::maxTime)
    checkRaces(Epoch::of(warp.agent, time), warp.clock, offset, count, write);
}

void SharedMemory::checkRaces(Epoch now, const Clock &clock, uint32_t offset,
                              uint32_t count, bool write) {
  // Different warps may access different parts of a word.
  if (!detectRaces || count < 4)
    return;
  size_t first = offset / 4, end = (size_t(offset) + count + 3) / 4;
  Machine &machine = *threads->block->machine;
  RaceShadow::Race race =
      write ? races.write(first, end, now, clock, machine.settings.allowEqual)
            : races.read(first, end, now, clock);
  if (race.other.bits == 0)
    return;
  std::string message = text(
      "data race: ", threads->block->agentName(now.agent()),
      write ? " writes" : " reads", " shared memory at offset ", race.word * 4,
      ", which ", threads->block->agentName(race.other.agent()),
      " accesses too, and nothing orders the two");
  if (!race.wrote || !write || !machine.settings.allowEqual)
    undefined(message);
  machine.expectEqual(data(offset), count, std::move(message));
}

void SharedMemory::read(Thread &thread, uint32_t offset, uint32_t count,
                        bool strong) {
  uint32_t four;
  if (count == 4 &&
      (std::memcpy(&four, &states[offset], 4), four == 0x01010101)) {
    // The common case: one aligned word that was written.
  } else {
    checkReadable(offset, count);
  }
  if (strong)
    return;
  checkRaces(*thread.warp, offset, count, false);
  if (detectRaces && count >= 4 && isOwn(thread))
    readLanes(thread, offset, count);
}

/// Whether it is a thread of the block.
bool SharedMemory::isOwn(const Thread &thread) const {
  return &thread == threads + thread.index;
}

/// Faults if another lane of the warp has written what a thread reads, and the
/// lanes were not ordered in between; writeLanes(): has read what it writes.
void SharedMemory::readLanes(const Thread &thread, uint32_t offset,
                             uint32_t count) {
  const Warp &warp = *thread.warp;
  uint32_t time = warp.clock[warp.agent], me = thread.index + 1u;
  for (uint32_t word = offset / 4; word * 4 < offset + count; ++word) {
    Writer writer = writers[word];
    if (writer.time == time && writer.thread != 0) {
      uint32_t other = writer.thread >> fenceBits;
      if (other != me && (other - 1) / 32 == warp.index)
        undefined("data race: lane ", uint32_t(thread.lane),
                  " reads shared memory at offset ", word * 4, ", which lane ",
                  (other - 1) % 32,
                  " of its warp writes, and nothing orders the two");
    }
    Reader &reader = readers[word];
    uint32_t other = reader.thread & ~manyLanes;
    bool many = reader.time == time && other != 0 && other != me &&
                (other - 1) / 32 == warp.index;
    if (many)
      reader.thread |= manyLanes;
    else if (reader.time != time || other != me)
      reader = {me, time};
  }
}

void SharedMemory::writeLanes(const Thread &thread, uint32_t offset,
                              uint32_t count) {
  const Warp &warp = *thread.warp;
  uint32_t time = warp.clock[warp.agent], me = thread.index + 1u;
  for (uint32_t word = offset / 4; word * 4 < offset + count; ++word) {
    Reader &reader = readers[word];
    if (reader.time == time && reader.thread != 0 && reader.thread != me &&
        ((reader.thread & ~manyLanes) - 1) / 32 == warp.index)
      undefined("data race: lane ", uint32_t(thread.lane),
                " writes shared memory at offset ", word * 4,
                ", which another lane of its warp reads, and nothing orders "
                "the two");
    reader = {};
  }
}

void SharedMemory::write(Thread &thread, uint32_t offset, uint32_t count,
                         bool strong) {
  checkWritable(offset, count);
  std::memset(&states[offset], Written, count);
  // Writes from other blocks of the cluster are not tracked.
  bool own = isOwn(thread);
  if (own && !strong && detectRaces && count >= 4)
    writeLanes(thread, offset, count);
  mark(offset, count, own ? writerOf(thread, thread.proxyFences) : Writer());
  if (!strong)
    checkRaces(*thread.warp, offset, count, true);
}

void SharedMemory::copyIssued(Warp &warp, uint32_t offset, uint32_t count) {
  checkWritable(offset, count);
  checkRaces(warp, offset, count, true);
  std::memset(&states[offset], InFlight, count);
}

void SharedMemory::copyArrived(Thread &thread, uint32_t offset,
                               uint32_t count) {
  std::memset(&states[offset], Written, count);
  mark(offset, count,
       thread.machine().settings.allowCopies
           ? Writer()
           : writerOf(thread, thread.proxyFences));
  checkRaces(*thread.warp, offset, count, true);
}

void SharedMemory::asyncArrived(uint32_t offset, uint32_t count) {
  std::memset(&states[offset], Written, count);
  mark(offset, count, {});
}

/// Returns whether a proxy fence of the writing thread made the write visible
/// to the asynchronous proxy.
bool SharedMemory::sees(Writer writer, bool barrier) const {
  if (writer.thread == 0)
    return true;
  const Thread &thread = threads[(writer.thread >> fenceBits) - 1];
  uint32_t fences = thread.proxyFences + (barrier ? thread.initFences : 0);
  return (fences & fenceMask) != (writer.thread & fenceMask);
}

void SharedMemory::asyncReadIssued(const Warp &warp, Epoch now, uint32_t offset,
                                   uint32_t count) {
  checkReadable(offset, count);
  checkRaces(now, warp.clock, offset, count, false);
  for (uint32_t word = offset / 4; word * 4 < offset + count; ++word) {
    Writer &writer = writers[word];
    if (writer.thread == 0)
      continue;
    if (sees(writer, false)) {
      writer = {};
      continue;
    }
    uint32_t thread = (writer.thread >> fenceBits) - 1;
    if (writer.time > warp.fenced[threads[thread].warp->agent])
      undefined("reads shared memory at offset ", word * 4,
                " through the asynchronous proxy, but thread ", thread,
                " wrote it through the generic proxy and executed no "
                "fence.proxy.async since, nor did the warp that reads");
  }
}

void SharedMemory::initBarrier(Thread &thread, uint32_t offset) {
  for (uint32_t i = offset; i < offset + 8; ++i)
    if (states[i] == InFlight)
      undefined("initialises an mbarrier object in shared memory at offset ", i,
                ", where an asynchronous copy is under way");
  std::memset(&states[offset], Barrier, 8);
  mark(offset, 8, writerOf(thread, thread.proxyFences + thread.initFences));
}

void SharedMemory::invalidateBarrier(uint32_t offset) {
  std::memset(&states[offset], Unwritten, 8);
}

bool SharedMemory::isBarrier(uint32_t offset) const {
  for (uint32_t i = offset; i < offset + 8; ++i)
    if (i >= states.size() || states[i] != Barrier)
      return false;
  return true;
}

bool SharedMemory::isHidden(uint32_t offset) const {
  return !sees(writers[offset / 4], true);
}
