//===- MoEToGPU.h - Kernels for NVIDIA GPUs ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOGPU_MOETOGPU_H
#define MOE_CONVERSION_MOETOGPU_MOETOGPU_H

#include "mlir/Pass/Pass.h"
#include "moe/Dialect/MoE/IR/MoE.h"
#include "moe/Dialect/MoERuntime/IR/MoERuntime.h"

namespace mlir::moe {

/// The properties of a GPU that kernels depend on.
struct GPUDescription {
  std::string arch = "sm_80"; // name of the target for ptxas

  /// Returns the bytes of shared memory available to a block.
  int64_t getSharedBytes() const;
  bool hasWgmma() const { return arch == "sm_90a"; }
  /// True if the GPU has thread block clusters.
  bool hasClusters() const;
  /// Emits an error at `op` if the architecture is not supported.
  LogicalResult verify(Operation *op) const;
};

/// Registers the kernels of the operations of the dialect
/// (GPUKernelOpInterface); `convert-moe-to-gpu` does it, too.
void registerGPUKernelOpInterfaceExternalModels(DialectRegistry &registry);

#define GEN_PASS_DECL_CONVERTMOETOGPU
#define GEN_PASS_DECL_MOEFUSECOMBINE
#define GEN_PASS_DECL_MOEFUSEROUTER
#define GEN_PASS_DECL_MOETILEFORGPU
#include "moe/Conversion/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_CONVERSION_MOETOGPU_MOETOGPU_H
