//===- mbarrier.h - mbarrier objects ----------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// PTX ISA 9.7.13.15 "mbarrier": an object of 8 bytes in shared memory with the
// parity of its phase, the pending arrivals, and the tx-count, which is the
// bytes that asynchronous copies have yet to write. A phase completes when both
// counts are zero.
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

/// The fields that are packed in the 8 bytes.
struct BarrierState {
  uint32_t expected = 0; // arrivals in each phase: 1 to 2^20 - 1
  uint32_t pending = 0;  // arrivals until the current phase completes
  int32_t bytes = 0;     // tx-count: -(2^20 - 1) to 2^20 - 1
  bool parity = false;   // of the current phase

  static BarrierState unpack(uint64_t bits);
  uint64_t pack() const;
};

constexpr uint32_t maxBarrierCount = (1u << 20) - 1;

/// Reads the object at an offset of a block's shared memory. Faults if there is
/// none.
BarrierState readBarrier(Block &block, uint32_t offset);

void writeBarrier(Block &block, uint32_t offset, const BarrierState &state);

/// The parity of the current phase.
bool barrierParity(Block &block, uint32_t offset);
std::string describeBarrier(Block &block, uint32_t offset);

void initBarrier(Thread &thread, Block &block, uint32_t offset, uint32_t count);

/// Faults unless there is an object whose mbarrier.init happens before the
/// current instruction of the thread.
void checkInitialised(const Thread &thread, Block &block, uint32_t offset);

/// Adds `expectBytes`, which is negative for complete_tx, to the tx-count, then
/// subtracts `arrivals` from the pending arrivals. Returns the state before.
uint64_t arriveAtMbarrier(Block &block, uint32_t offset, uint32_t arrivals,
                          int64_t expectBytes, bool mayComplete = true);

/// The clock that arrivals release and waits acquire.
Clock &barrierClock(Block &block, uint32_t offset);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_MBARRIER_H
