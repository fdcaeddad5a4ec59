//===- LaunchCounts.h - What a launch does for T tokens ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_LAUNCHCOUNTS_H
#define MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_LAUNCHCOUNTS_H

#include "moe/Analysis/KernelModel.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

#include "mlir/Dialect/GPU/IR/GPUDialect.h"

namespace mlir::moe {

/// Evaluates integers and extents in a function on buffers for one T: every
/// dynamic extent of an argument is T. None where they depend on anything else.
class BufferExtents {
public:
  BufferExtents(int64_t tokens, int64_t multiprocessors)
      : tokens(tokens), multiprocessors(multiprocessors) {}

  std::optional<int64_t> evaluate(Value integer);
  std::optional<int64_t> extent(Value buffer, int64_t dim);
  /// Sets a value that is known otherwise, as an argument of a kernel.
  void set(Value integer, int64_t value);

private:
  std::optional<int64_t> compute(Value integer);

  int64_t tokens, multiprocessors;
  llvm::DenseMap<Value, std::optional<int64_t>> known;
};

/// Counts what a kernel of a loop does (OutlineKernels.cpp) when launched for T
/// tokens. None for loops whose trips depend on data; a trip count that is one
/// of two numbers counts as the larger, and so does a branch.
std::optional<LoopWork> countLoop(moe_rt::LaunchOp launch,
                                  gpu::GPUFuncOp kernel,
                                  BufferExtents &extents);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_TRANSFORMS_CAPACITY_LAUNCHCOUNTS_H
