//===- GPUKernelOpInterface.h - Operations with kernels ---------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_H
#define MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_H

#include "mlir/IR/OpDefinition.h"

#include <string>

namespace mlir::moe {
struct DeviceLowering;
} // namespace mlir::moe

#include "moe/Conversion/MoEToGPU/GPUKernelOpInterface.h.inc"

#endif // MOE_CONVERSION_MOETOGPU_GPUKERNELOPINTERFACE_H
