//===- DeviceWork.h - Classify host and device operations -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A layer's function runs on the host, its buffers are in device memory:
// operations that read or write elements must be in a kernel.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H
#define MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H

#include "mlir/IR/Operation.h"

namespace mlir::moe {

/// True if the host can run `op`: it accesses no element of a buffer.
bool isHostWork(Operation *op);

/// True if `op` can move ahead of kernels whose results it does not use: it
/// computes sizes, offsets or views, or allocates.
bool isPreparation(Operation *op);

/// True if `op` is a loop or branch of the host around launches.
bool isHostControl(Operation *op);

/// True if `op` is a loop that becomes a kernel with a thread for each
/// iteration. The host must know its bounds: none of them satisfies
/// `isOnDevice`.
bool isParallelKernel(Operation *op,
                      llvm::function_ref<bool(Value)> isOnDevice);

/// True if `op` or an operation nested in it uses a value that satisfies
/// `matches`.
bool usesAny(Operation *op, llvm::function_ref<bool(Value)> matches);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H
