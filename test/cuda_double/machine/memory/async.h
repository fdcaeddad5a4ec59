//===- async.h - Asynchronous copies and wgmma ------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Asynchronous copies and matrix products (PTX ISA 9.7.9.25 "Data Movement and
// Conversion Instructions: Asynchronous copy", 9.7.15 "Asynchronous Warpgroup
// Level Matrix Instructions"). An operation may take effect at any time between
// its issue and the wait that covers it; Settings selects when it does here.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_ASYNC_H
#define MOE_CUDA_DOUBLE_ASYNC_H

#include "ptx/program.h"
#include "race.h"

#include <deque>
#include <functional>

namespace moe::gpu {

struct Block;
struct Thread;
struct Warp;
class Machine;

/// The cp.async operations of one thread (9.7.9.25.3). No thread may access the
/// destination before the issuing thread waits; the bytes are written at some
/// time before that wait returns.
class CopyQueue {
public:
  struct Copy {
    Block *block;
    uint32_t offset; // in shared memory of the block
    uint64_t from;
    uint32_t bytes, sourceBytes; // the rest is filled with zeros
    bool landed;
  };

  void issue(Thread &thread, const Copy &copy, bool now);
  void commit();
  /// Waits until at most `groupsLeft` groups are in flight.
  void wait(Thread &thread, uint64_t groupsLeft);
  void waitAll(Thread &thread);
  uint64_t issued() const { return first + copies.size(); }
  /// Waits for the first `count` copies that the thread ever issued.
  void finish(Thread &thread, uint64_t count);

private:
  void land(Thread &thread, Copy &copy);

  std::deque<Copy> copies;
  uint64_t first = 0;          // number of copies already finished and popped
  std::deque<uint64_t> groups; // number of copies issued at each commit
};

/// The cp.async.bulk operations of one thread from shared memory that complete
/// by bulk groups. The source is read at the issue or at a wait_group.read; the
/// destination is written at the issue, at a wait_group, or at the end of the
/// kernel.
class BulkQueue {
public:
  struct Bulk {
    std::function<void()> read; // empty once the source was read
    std::function<void()> write;
    Clock after;   // happens before the return of a wait for its reads
    Clock written; // happens before the return of a wait for its writes
    bool readsAwaited = false;
  };

  void issue(Bulk bulk, bool readNow, bool writeNow);
  void commit();
  void wait(Warp &warp, uint64_t groupsLeft, bool readsOnly);
  /// Whether reads were not waited for, though they may have taken effect.
  bool readsPending() const;
  void finishWrites();

private:
  static void finish(Bulk &bulk, bool readsOnly);

  std::deque<Bulk> bulks;
  uint64_t first = 0;
  std::deque<uint64_t> groups;
};

/// A copy to one destination block that completes on an mbarrier.
struct AsyncCopy {
  const Thread *issuer;
  const Instruction *at;
  Block *from;    // the block whose shared memory it reads, or nullptr
  Block *to;      // the block whose shared memory it writes, or nullptr
  Block *barrier; // the block whose mbarrier it completes on
  uint32_t barrierOffset;
  std::function<void()> land;
};

/// A wgmma.mma_async between its issue and its wait.
struct WgmmaOperation {
  const Instruction *at;
  uint64_t a, b; // descriptors
  bool accumulate;
  uint32_t issuedBy = 0; // mask of the warps that issued it
  bool done = false;
  Clock after; // happens before the return of its wait
};

/// The wgmma operations of a warpgroup, in the order of their issue.
struct WarpgroupQueue {
  std::deque<WgmmaOperation> operations;
  uint64_t first = 0; // number of operations already popped
  // The agent of their shared memory reads for race detection, and its time.
  uint32_t agent = 0, time = 0;
};

/// The state of one warp's wgmma operations.
struct WgmmaQueue {
  uint64_t issued = 0, waited = 0;
  std::vector<uint64_t> groups; // operations issued at each commit
  bool fenced = false;          // whether there was a wgmma.fence
  // Per slot: accessed by another instruction since the last wgmma.fence.
  std::vector<bool> touched;
  std::vector<uint16_t> inFlight; // per slot: pending operations that use it
  uint64_t inFlightCount = 0;     // operations
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_ASYNC_H
