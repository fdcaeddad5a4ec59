//===- RadixTopK.h - Block-wide radix top-k ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A block selects the k largest of many values, exactly; ties go to the lowest
// index. A radix select finds the k-th largest value, eight bits at a time from
// the highest, with a histogram in shared memory. A second pass over the
// values, in order, marks those that are larger, and as many ties as are left
// to take.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

class RadixTopK {
public:
  /// Bytes of shared memory.
  static constexpr int64_t sharedBytes = (256 + 2 + 32) * 4;

  RadixTopK(GPUBuilder &b, int64_t threads, Value shared);

  /// An f32 that is not NaN; `valid` (i1) if it is a candidate.
  struct Candidate {
    Value value, valid;
  };
  using Load = llvm::function_ref<Candidate(Value i)>;
  using Store = llvm::function_ref<void(Value i, Value taken)>;
  /// Takes the `k` largest candidates with indices below `count`, or all if
  /// there are fewer, and calls `store` once for each index. Must be called by
  /// all threads of the block (convergent).
  void emit(Value count, Value k, Load load, Store store);

private:
  /// The key of the k-th largest value, and how many values equal to it are
  /// taken.
  struct Threshold {
    Value key, ties;
  };
  /// Maps a value to an unsigned integer with the same order.
  Value keyOf(Value value);
  Threshold findThreshold(Value count, Value k, Load load);
  void findDigit(Value remaining);
  Value word(int64_t index) { return b.sharedAt(shared, index * 4); }
  Value wordAt(int64_t first, Value index) {
    return b.at(word(first), b.getI32Type(), index);
  }
  Value load(Value pointer) { return b.load(b.getI32Type(), pointer); }

  GPUBuilder &b;
  int64_t threads;
  Value shared;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H
