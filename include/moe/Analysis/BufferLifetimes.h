//===- BufferLifetimes.h - When a buffer is in use --------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_BUFFERLIFETIMES_H
#define MOE_ANALYSIS_BUFFERLIFETIMES_H

#include "mlir/Dialect/Bufferization/Transforms/BufferViewFlowAnalysis.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/DenseMap.h"

namespace mlir::moe {

/// From the first to the last program point at which a buffer is used, both
/// included.
struct Lifetime {
  unsigned begin = 0, end = 0;

  bool overlaps(const Lifetime &other) const {
    return begin <= other.end && other.begin <= end;
  }
};

/// The lifetimes of the buffers of one function under structured control flow.
///
/// Operations are numbered in the order of the text, an operation with regions
/// before and after them. A buffer lives from the first to the last operation
/// that reaches its memory through any alias. If a use is in a loop, or in
/// anything else that may run more than once, in parallel or in an unknown
/// order, and the buffer was made outside, it lives as long as that operation.
class BufferLifetimes {
public:
  explicit BufferLifetimes(FunctionOpInterface function);

  /// Fail, with an error at the buffer, if its memory cannot be placed for the
  /// whole call: it outlives an iteration of the loop that made it, iterations
  /// that run at the same time each make one, or the control flow around it has
  /// no structure.
  LogicalResult verify(memref::AllocOp alloc) const;

  Lifetime of(memref::AllocOp alloc) const;

private:
  Lifetime spanOf(Operation *use, memref::AllocOp alloc) const;

  FunctionOpInterface function;
  BufferViewFlowAnalysis aliases;
  /// The program points of each operation: where it begins, where its regions
  /// end.
  llvm::DenseMap<Operation *, Lifetime> points;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_BUFFERLIFETIMES_H
