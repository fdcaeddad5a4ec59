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

/// The shared memory of a block with its shadow state: for each byte, whether
/// it was written, is part of an mbarrier object, or is the destination of an
/// asynchronous copy in flight; for each word, the last write through the
/// generic proxy, which the asynchronous proxy may not see yet (PTX ISA 8.4
/// "Proxies"). Offsets count from the first byte that a kernel may use. Checks
/// that fail throw Fault.
class SharedMemory {
public:
  void reset(uint32_t bytes, Thread *threads, bool allowUninitialised,
             bool detectRaces);
  uint32_t size() const { return static_cast<uint32_t>(bytes.size()); }
  uint8_t *data(uint32_t offset) { return &bytes[offset]; }

  /// Checks and records a read or write of a thread through the generic proxy.
  /// Strong accesses are not checked for races.
  void read(Thread &thread, uint32_t offset, uint32_t count, bool strong);
  void write(Thread &thread, uint32_t offset, uint32_t count, bool strong);

  /// Marks the destination of an asynchronous copy as in flight: until the copy
  /// has completed, no thread may access it.
  void copyIssued(Warp &warp, uint32_t offset, uint32_t count);
  /// Marks the destination as written: by cp.async, which is a write of the
  /// issuing thread through the generic proxy, or through the asynchronous
  /// proxy.
  void copyArrived(Thread &thread, uint32_t offset, uint32_t count);
  void asyncArrived(uint32_t offset, uint32_t count);

  /// Checks a read through the asynchronous proxy: at its issue by a warp, for
  /// visibility and races as the epoch `now`, and when it takes effect.
  void asyncReadIssued(const Warp &warp, Epoch now, uint32_t offset,
                       uint32_t count);
  void asyncRead(uint32_t offset, uint32_t count) const {
    checkReadable(offset, count);
  }

  void initBarrier(Thread &thread, uint32_t offset);
  void invalidateBarrier(uint32_t offset);
  bool isBarrier(uint32_t offset) const;
  /// Returns whether the asynchronous proxy may not see the mbarrier.init: its
  /// thread has not executed a fence since.
  bool isHidden(uint32_t offset) const;

private:
  // The state of each byte. InFlight: an asynchronous copy has yet to write it.
  enum : uint8_t { Unwritten = 0, Written = 1, Barrier = 2, InFlight = 3 };

  void checkReadable(uint32_t offset, uint32_t count) const;
  void checkWritable(uint32_t offset, uint32_t count) const;
  bool isOwn(const Thread &thread) const;
  void readLanes(const Thread &thread, uint32_t offset, uint32_t count);
  void writeLanes(const Thread &thread, uint32_t offset, uint32_t count);
  void checkRaces(Warp &warp, uint32_t offset, uint32_t count, bool write);
  void checkRaces(Epoch now, const Clock &clock, uint32_t offset,
                  uint32_t count, bool write);
  /// A write through the generic proxy: `thread` is the thread's index plus 1
  /// in the high bits and its number of fences in the low bits; `time` is the
  /// time of its warp. 0: no write that needs a fence.
  struct Writer {
    uint32_t thread = 0, time = 0;
  };
  static Writer writerOf(const Thread &thread, uint32_t fences);
  void mark(uint32_t offset, uint32_t count, Writer writer);
  bool sees(Writer writer, bool barrier) const;

  std::vector<uint8_t> bytes;
  std::vector<uint8_t> states;
  // The last write of each word. The asynchronous proxy sees it after a proxy
  // fence of the writing thread, or of the reading warp once the write happens
  // before that fence.
  std::vector<Writer> writers;
  // The last reader of each word among the threads of the block: its index plus
  // 1, or `manyLanes` of its warp, and the time of the warp.
  struct Reader {
    uint32_t thread = 0, time = 0;
  };
  static constexpr uint32_t manyLanes = 1u << 31;
  std::vector<Reader> readers;
  RaceShadow races;
  bool allowUninitialised = false, detectRaces = false;
  Thread *threads = nullptr;
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_SHARED_MEMORY_H
