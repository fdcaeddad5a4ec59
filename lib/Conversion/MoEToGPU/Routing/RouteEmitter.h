//===- RouteEmitter.h - Route choices by a counting sort --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Grouping the choices t·K + k by expert is a stable counting sort. Each block
// handles a chunk of consecutive choices. First each block computes a histogram
// of its choices over the buckets; then each block scans the histograms of all
// blocks and scatters its choices. A single block does both in one kernel. The
// result is deterministic: nothing is written in an order that depends on time.
//
// An expert with capacity C keeps the first C choices in the order of t·K + k.
// With `priority(choice)`, first choices precede second ones: a bucket then
// holds the choices of one expert with one k, called a round, and keeps as many
// as earlier rounds left. Otherwise there is one bucket for each expert.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H

#include "Builder/GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// Takes a slot for each lane: lanes with equal `key` share `counter`, an i32
/// in shared memory, and get consecutive slots in the order of lanes. Must be
/// called by all lanes of a warp.
Value takeSlotsInOrder(GPUBuilder &b, Value counter, Value key);

class RouteEmitter {
public:
  RouteEmitter(RouteOp op, GPUBuilder &b, int64_t threads);

  /// Succeeds if there is device code for a routing; otherwise `why` has the
  /// reason.
  static LogicalResult verify(RouteOp op, std::string &why);

  /// True if a kernel ahead of the routing drops choices (CapacityDrop.h).
  static bool dropsInAdvance(RouteOp op);
  /// Returns the number of buckets of a histogram.
  static int64_t countBuckets(RouteOp op);
  /// Returns the bytes of shared memory of a histogram, and of `scatter`.
  static int64_t histogramBytes(RouteOp op);
  static int64_t scatterBytes(RouteOp op);

  /// Returns the bucket of choice `choice`; `countBuckets` if it has none.
  Value bucketAt(Value ids, Value choice);
  /// Clears a histogram; ends with a barrier.
  void clear(Value histogram);
  /// Counts the choices [first, end); ends with a barrier.
  void count(Value histogram, Value ids, Value first, Value end);
  /// Counts choice `k` of a token, which is expert `id`.
  void countChoice(Value histogram, Value k, Value id);
  /// Writes counts[block, bucket].
  void storeCounts(Value histogram, Value counts, Value block);

  /// Pointers to global memory.
  struct Arrays {
    Value ids, counts, tokens, offsets, positions;
  };
  /// The part of a block: its index, the number of blocks, the choices of a
  /// block; and the choices, the rows and the capacity (or null) in all.
  struct Partition {
    Value block, blocks, chunk, total, rows, capacity;
  };
  /// Scatters the choices of a block; `shared` has `scatterBytes`. Block 0
  /// writes the offsets; all blocks fill the rows without a choice.
  void scatter(Value shared, const Arrays &arrays, const Partition &partition);

private:
  /// Shared memory of `scatter`.
  struct Scratch {
    Value totals;  // of each bucket
    Value cursors; // next row of each bucket
    Value buckets; // of each choice of a batch
    Value scan;    // of the experts
  };

  Value isCounted(Value id, llvm::function_ref<Value()> k);
  Value bucketOf(Value id, llvm::function_ref<Value()> k);
  /// Runs `body` for indices below `count`, distributed over the threads.
  void forEach(Value count, llvm::function_ref<void(Value)> body);
  Value counterAt(Value base, Value index) {
    return b.at(base, b.getI32Type(), index);
  }
  Value load(Value counter) { return b.load(b.getI32Type(), counter); }
  void reduceCounts(Value totals, Value cursors, const Arrays &arrays,
                    const Partition &partition);
  void addCounts(Value totals, Value cursors, const Arrays &arrays,
                 const Partition &partition);
  Value countRows(Value totals, Value expert, Value valid, Value capacity);
  void startExpert(Value totals, Value cursors, Value expert, Value offset,
                   Value rows, Value capacity);
  void scanExperts(const Scratch &scratch, Value offsets, Value isFirst,
                   Value capacity);
  Value keepInRound(Value totals, Value bucket);
  void scatterBatch(const Scratch &scratch, Value first, Value end,
                    const Arrays &arrays);

  RouteOp op;
  GPUBuilder &b;
  int64_t threads, experts, topK, rounds, buckets;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H
