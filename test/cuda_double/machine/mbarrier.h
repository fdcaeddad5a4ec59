//===- mbarrier.h - mbarrier objects ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.13.15 "mbarrier": an object of 8 bytes in shared memory with a
// phase, the arrivals that the phase still expects, and the bytes that
// asynchronous copies have yet to bring. A phase is complete when both counts
// are zero.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_MBARRIER_H
#define MOE_CUDA_DOUBLE_MBARRIER_H

#include <cstdint>
#include <string>

namespace moe::gpu {

struct Block;
struct Thread;
class Clock;

/// The fields, as they are kept in the 8 bytes.
struct BarrierState {
  uint32_t expected = 0; // arrivals of each phase: 1 to 2^20 - 1
  uint32_t pending = 0;  // arrivals until this phase is complete
  int32_t bytes = 0;     // tx-count: -(2^20 - 1) to 2^20 - 1
  bool parity = false;   // of this phase

  static BarrierState unpack(uint64_t bits);
  uint64_t pack() const;
};

constexpr uint32_t maxBarrierCount = (1u << 20) - 1;

/// The object at an offset of a block's shared memory. Fault unless there is
/// one.
BarrierState readBarrier(Block &block, uint32_t offset);

void writeBarrier(Block &block, uint32_t offset, const BarrierState &state);

/// The parity of the phase under way.
bool barrierParity(Block &block, uint32_t offset);
std::string describeBarrier(Block &block, uint32_t offset);

void initBarrier(Thread &thread, Block &block, uint32_t offset, uint32_t count);

/// Fault unless there is an object whose making is before what a thread does.
void checkMade(const Thread &thread, Block &block, uint32_t offset);

/// Add `expectBytes` to the bytes expected, then let `arrivals` arrive, or as
/// many fewer bytes be missing. Returns the object before.
uint64_t arriveAtMbarrier(Block &block, uint32_t offset, uint32_t arrivals,
                          int64_t expectBytes, bool mayComplete = true);

/// What the arrivals so far make visible to those who wait.
Clock &barrierClock(Block &block, uint32_t offset);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MBARRIER_H
