//===- DeviceWork.h - What the host cannot do itself ------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A layer's function runs on the host, its buffers are on the device: whatever
// reads or writes their elements must be in a kernel.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H
#define MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H

#include "mlir/IR/Operation.h"

namespace mlir::moe {

/// Whether the host can do `op`: it reads and writes no element of a buffer.
bool isHostWork(Operation *op);

/// Whether `op` can be done before kernels that stand ahead of it, as far as it
/// does not use what they compute: sizes, places and views.
bool isPreparation(Operation *op);

/// Loops and branches of the host around launches.
bool isHostControl(Operation *op);

/// A loop that becomes a kernel with a thread for each iteration. How many there
/// are the host must know: no bound is one of the values that `isOnDevice` names.
bool isParallelKernel(Operation *op,
                      llvm::function_ref<bool(Value)> isOnDevice);

/// Whether `op` or what is inside uses one of the values that `matches`.
bool usesAny(Operation *op, llvm::function_ref<bool(Value)> matches);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOERUNTIME_TRANSFORMS_DEVICE_DEVICEWORK_H
