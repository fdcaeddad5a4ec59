//===- shared_memory.h - The shared memory of a block -----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_SHARED_MEMORY_H
#define MOE_CUDA_DOUBLE_SHARED_MEMORY_H

#include "race.h"

#include <cstdint>
#include <string>
#include <vector>

namespace moe::gpu {

struct Thread;
struct Warp;

/// The bytes, and of each byte or word what the rules of PTX ask about it:
/// whether anybody wrote it, whether it is part of an mbarrier object, and
/// whether a write through the generic proxy is one that the asynchronous proxy
/// does not see yet (PTX ISA 8.4 "Proxies"). Offsets count from the first byte
/// that a block may use. All throw Fault.
class SharedMemory {
public:
  void reset(uint32_t bytes, Thread *threads, bool allowUninitialised,
             bool detectRaces);
  uint32_t size() const { return static_cast<uint32_t>(bytes.size()); }
  uint8_t *data(uint32_t offset) { return &bytes[offset]; }

  /// Check a read or write by a thread through the generic proxy, and note it.
  /// Strong ones do not race.
  void read(Thread &thread, uint32_t offset, uint32_t count, bool strong);
  void write(Thread &thread, uint32_t offset, uint32_t count, bool strong);

  /// An asynchronous copy will write here: until it has arrived, nobody may
  /// read or write what is there.
  void copyIssued(Warp &warp, uint32_t offset, uint32_t count);
  /// It arrived by cp.async, which is a write of the thread that issued it
  /// through the generic proxy; or through the asynchronous proxy.
  void copyArrived(Thread &thread, uint32_t offset, uint32_t count);
  void asyncArrived(uint32_t offset, uint32_t count);

  /// Check a read through the asynchronous proxy when a warp issues it, which
  /// is one of an agent of its own, and when it happens.
  void asyncReadIssued(const Warp &warp, Epoch now, uint32_t offset,
                       uint32_t count);
  void asyncRead(uint32_t offset, uint32_t count) const {
    checkReadable(offset, count);
  }

  void makeBarrier(Thread &thread, uint32_t offset);
  void endBarrier(uint32_t offset);
  bool isBarrier(uint32_t offset) const;
  /// Whether the object was made by a thread that has not told the
  /// asynchronous proxy.
  bool isHidden(uint32_t offset) const;

private:
  // Of each byte. InFlight: an asynchronous copy has yet to write it.
  enum : uint8_t { Unwritten = 0, Written = 1, Barrier = 2, InFlight = 3 };

  void checkReadable(uint32_t offset, uint32_t count) const;
  void checkWritable(uint32_t offset, uint32_t count) const;
  void checkRaces(Warp &warp, uint32_t offset, uint32_t count, bool write);
  void checkRaces(Epoch now, const Clock &clock, uint32_t offset,
                  uint32_t count, bool write);
  std::string agentName(uint32_t agent) const;
  /// A write through the generic proxy: the thread, counted from 1, above its
  /// number of fences, and the time of its warp. 0: of nobody.
  struct Writer {
    uint32_t thread = 0, time = 0;
  };
  static Writer writerOf(const Thread &thread, uint32_t fences);
  void mark(uint32_t offset, uint32_t count, Writer writer);
  bool sees(Writer writer, bool barrier) const;

  std::vector<uint8_t> bytes;
  std::vector<uint8_t> states;
  // Of each word, who wrote it last: a proxy fence of that thread since makes
  // it visible, or one between them of whoever reads.
  std::vector<Writer> writers;
  RaceShadow races;
  bool allowUninitialised = false, detectRaces = false;
  Thread *threads = nullptr;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_SHARED_MEMORY_H
