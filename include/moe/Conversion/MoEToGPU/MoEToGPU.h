//===- MoEToGPU.h - Kernels for NVIDIA GPUs ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOGPU_MOETOGPU_H
#define MOE_CONVERSION_MOETOGPU_MOETOGPU_H

#include "moe/Dialect/MoE/IR/MoE.h"
#include "mlir/Pass/Pass.h"

namespace mlir::moe {

/// What the kernels need to know of a GPU.
struct GPUDescription {
  std::string arch = "sm_80"; // as the driver and ptxas call it

  /// Bytes of shared memory that a block can have.
  int64_t getSharedBytes() const;
  bool hasWgmma() const { return arch == "sm_90a"; }
  /// Whether blocks of a cluster can write to each other's shared memory.
  bool hasClusters() const;
  /// Refuse what no kernel can be made for, as an error at `op`.
  LogicalResult verify(Operation *op) const;
};

#define GEN_PASS_DECL_CONVERTMOETOGPU
#define GEN_PASS_DECL_MOETILEFORGPU
#include "moe/Conversion/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_CONVERSION_MOETOGPU_MOETOGPU_H
