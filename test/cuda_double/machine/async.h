//===- async.h - Work that takes effect later -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Asynchronous copies and matrix products (PTX ISA 9.7.9.25 "Data Movement and
// Conversion Instructions: Asynchronous copy", 9.7.15 "Asynchronous Warpgroup
// Level Matrix Instructions"). Between its issue and the wait that covers it an
// operation may take effect at any time; Settings says when it does here.
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

/// cp.async of one thread (9.7.9.25.3). Until the thread waits, nobody may look
/// at the destination; the bytes arrive there at some moment before.
class CopyQueue {
public:
  struct Copy {
    Block *block;
    uint32_t offset; // in its shared memory
    uint64_t from;
    uint32_t bytes, sourceBytes; // the rest is zero
    bool landed;
  };

  void issue(Thread &thread, const Copy &copy, bool now);
  void commit();
  /// Wait until at most `groupsLeft` groups are under way.
  void wait(Thread &thread, uint64_t groupsLeft);
  void waitAll(Thread &thread);
  uint64_t issued() const { return first + copies.size(); }
  /// Wait for the first `count` that were ever issued.
  void finish(Thread &thread, uint64_t count);

private:
  void land(Thread &thread, Copy &copy);

  std::deque<Copy> copies;
  uint64_t first = 0;          // how many were finished before
  std::deque<uint64_t> groups; // how many were issued at each commit
};

/// cp.async.bulk of one thread with bulk groups, out of shared memory. It is
/// read at once or at a wait for the reads, and written at once, at a wait for
/// the whole, or at the end of the kernel.
class BulkQueue {
public:
  struct Bulk {
    std::function<void()> read; // empty once it was done
    std::function<void()> write;
    Clock after; // what who waits for its reads knows
  };

  void issue(Bulk bulk, bool readNow, bool writeNow);
  void commit();
  void wait(Warp &warp, uint64_t groupsLeft, bool readsOnly);
  bool readsPending() const;
  void finishWrites();

private:
  static void finish(Bulk &bulk, bool readsOnly);

  std::deque<Bulk> bulks;
  uint64_t first = 0;
  std::deque<uint64_t> groups;
};

/// A copy to one destination whose completion an mbarrier shows.
struct AsyncCopy {
  const Thread *issuer;
  const Instruction *at;
  Block *from;    // whose shared memory it reads, or nullptr
  Block *to;      // whose shared memory it writes, or nullptr
  Block *barrier; // whose mbarrier it completes on
  uint32_t barrierOffset;
  std::function<void()> land;
};

/// A wgmma.mma_async between its issue and its wait.
struct WgmmaOperation {
  const Instruction *at;
  uint64_t a, b; // descriptors
  bool accumulate;
  uint32_t issuedBy = 0; // warps of the warpgroup
  bool done = false;
  Clock after; // what who waits for it knows
};

/// The wgmma of the four warps of a warpgroup, in order.
struct WarpgroupQueue {
  std::deque<WgmmaOperation> operations;
  uint64_t first = 0;           // the number of operations before
  uint32_t agent = 0, time = 0; // what they read, for races
};

/// What one warp knows of them.
struct WgmmaQueue {
  uint64_t issued = 0, waited = 0;
  std::vector<uint64_t> groups;   // how many were issued at each commit
  bool fenced = false;            // wgmma.fence since registers were free
  std::vector<uint16_t> inFlight; // per slot: operations that use it
  uint64_t inFlightCount = 0;     // operations
};

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_ASYNC_H
