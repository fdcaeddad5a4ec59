//===- RadixTopK.h - The largest of many numbers ----------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A block finds which of many numbers are the largest, exactly: of equal
// numbers those that come first. It finds the least number to be taken eight
// bits at a time, the highest first, by counting how many numbers have which
// bits (a radix selection), and then goes through the numbers in order.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H
#define MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H

#include "Builder/GPUBuilder.h"

namespace mlir::moe {

class SelectLargest {
public:
  /// Bytes of shared memory.
  static constexpr int64_t sharedBytes = (256 + 2 + 32) * 4;

  /// All threads of a block come by.
  SelectLargest(GPUBuilder &b, int64_t threads, Value shared);

  /// A number (f32, which is no NaN), and whether it is one to choose from
  /// (i1).
  struct Candidate {
    Value number, there;
  };
  using Load = llvm::function_ref<Candidate(Value i)>;
  using Store = llvm::function_ref<void(Value i, Value taken)>;
  /// Take `most` of the candidates below `count`, or all if there are fewer.
  /// `store` is for each of them, by one thread.
  void emit(Value count, Value most, Load load, Store store);

private:
  struct Least {
    Value key,
        equals; // the least key taken, and how many of those that equal it
  };
  /// An integer, unsigned, in the order of the numbers.
  Value keyOf(Value number);
  Least find(Value count, Value most, Load load);
  void findDigit(Value left);
  Value word(int64_t number) { return b.sharedAt(shared, number * 4); }
  Value wordAt(int64_t first, Value number) {
    return b.at(word(first), b.getI32Type(), number);
  }
  Value load(Value pointer) { return b.load(b.getI32Type(), pointer); }

  GPUBuilder &b;
  int64_t threads;
  Value shared;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_ROUTING_RADIXTOPK_H
