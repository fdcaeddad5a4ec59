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
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTEEMITTER_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTEEMITTER_H

#include "GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

class RouteEmitter {
public:
  RouteEmitter(RouteOp op, GPUBuilder &b, int64_t threads)
      : op(op), b(b), threads(threads), experts(op.getNumExperts()),
        topK(op.getTopK()) {}

  /// Whether there is code for a routing.
  static LogicalResult verify(RouteOp op, std::string &why);

  /// Bytes of shared memory: of counters, and of all that placing takes.
  static int64_t counterBytes(RouteOp op);
  static int64_t placeBytes(RouteOp op);

  /// Set counters to zero; a barrier follows.
  void clear(Value counters);
  /// Count choices from number `first` up to `end`; a barrier follows.
  void count(Value counters, Value ids, Value first, Value end);
  /// Count choice `k` of a token, expert `id`.
  void countOne(Value counters, Value k, Value id);
  /// Write counts[block, e].
  void storeCounts(Value counters, Value counts, Value block);

  /// What placing reads and writes.
  struct Arrays {
    Value ids, counts, tokens, offsets, positions;
  };
  /// What a block of some, and how many choices and rows there are.
  struct Share {
    Value block, blocks, chunk, total, rows;
  };
  /// Place the choices of a block; `shared` has `placeBytes`. Block 0 writes
  /// the offsets, all of them the rows of no choice.
  void place(Value shared, const Arrays &arrays, const Share &share);

private:
  /// The expert of choice `number`; `experts` if it has none or does not count.
  Value expertOf(Value ids, Value number);
  Value isCounted(Value id, llvm::function_ref<Value()> k);
  /// Run `body` for numbers below `count`, shared among the threads.
  void forEach(Value count, llvm::function_ref<void(Value)> body);
  Value counter(Value base, Value expert) {
    return b.at(base, b.getI32Type(), expert);
  }
  void addCounts(Value totals, Value places, const Arrays &arrays,
                 const Share &share);
  void findStarts(Value totals, Value places, Value offsets, Value isFirst);
  void placeSome(Value places, Value chosen, Value first, Value end,
                 const Arrays &arrays);

  RouteOp op;
  GPUBuilder &b;
  int64_t threads, experts, topK;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTEEMITTER_H
