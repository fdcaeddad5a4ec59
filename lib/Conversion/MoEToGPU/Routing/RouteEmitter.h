//===- RouteEmitter.h - A stable counting sort of choices -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Grouping the choices t·K + k by expert is a stable counting sort. A block has
// `chunk` of them, one after the other. First those of each expert in each
// block are counted; then each block adds up what came before its choices and
// places them. A block that is alone counts for itself. Nothing is written in
// an order that depends on time.
//
// An expert at its capacity C keeps the first C choices in order of t·K + k.
// Where first choices go before second ones, they are counted in rounds: a
// bucket has the choices of an expert with one k, and keeps as many as earlier
// rounds have left. Otherwise there is a bucket for each expert.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H

#include "Builder/GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// By all lanes of a warp: those with the same `key` name the same `counter`,
/// an i32 in shared memory, and take a number each from there on, in order.
Value takeInOrder(GPUBuilder &b, Value counter, Value key);

class RouteEmitter {
public:
  RouteEmitter(RouteOp op, GPUBuilder &b, int64_t threads);

  /// Whether there is code for a routing.
  static LogicalResult verify(RouteOp op, std::string &why);

  /// Whether the ids that it takes are those that another kernel has kept.
  static bool keepsBefore(RouteOp op);
  /// How many counts a block has.
  static int64_t countBuckets(RouteOp op);
  /// Bytes of shared memory: of counters, and of all that placing takes.
  static int64_t counterBytes(RouteOp op);
  static int64_t placeBytes(RouteOp op);

  /// The bucket of choice `number`; `countBuckets` if it has none.
  Value bucketAt(Value ids, Value number);
  /// Set counters to zero; a barrier follows.
  void clear(Value counters);
  /// Count choices from number `first` up to `end`; a barrier follows.
  void count(Value counters, Value ids, Value first, Value end);
  /// Count choice `k` of a token, expert `id`.
  void countOne(Value counters, Value k, Value id);
  /// Write counts[block, bucket].
  void storeCounts(Value counters, Value counts, Value block);

  /// What placing reads and writes.
  struct Arrays {
    Value ids, counts, tokens, offsets, positions;
  };
  /// What a block has of some, how many choices and rows there are, and rows of
  /// one expert at most; none without a capacity.
  struct Share {
    Value block, blocks, chunk, total, rows, capacity;
  };
  /// Place the choices of a block; `shared` has `placeBytes`. Block 0 writes
  /// the offsets, all of them the rows of no choice.
  void place(Value shared, const Arrays &arrays, const Share &share);

private:
  struct Counters {
    Value totals, places; // of each bucket
    Value chosen;         // the bucket of each choice of a batch
  };

  Value isCounted(Value id, llvm::function_ref<Value()> k);
  Value bucketOf(Value id, llvm::function_ref<Value()> k);
  /// Run `body` for numbers below `count`, shared among the threads.
  void forEach(Value count, llvm::function_ref<void(Value)> body);
  Value counter(Value base, Value number) {
    return b.at(base, b.getI32Type(), number);
  }
  Value load(Value counter) { return b.load(b.getI32Type(), counter); }
  void addCounts(Value totals, Value places, const Arrays &arrays,
                 const Share &share);
  Value countRows(Value totals, Value expert, Value there, Value capacity);
  void startExpert(Value totals, Value places, Value expert, Value offset,
                   Value rows, Value capacity);
  void findStarts(Value totals, Value places, Value offsets, Value isFirst,
                  Value capacity);
  Value keepInRound(Value totals, Value bucket);
  void placeSome(const Counters &counters, Value first, Value end,
                 const Arrays &arrays);

  RouteOp op;
  GPUBuilder &b;
  int64_t threads, experts, topK, rounds, buckets;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_ROUTEEMITTER_H
