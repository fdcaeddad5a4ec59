//===- MoEToCPU.h - Kernels for the CPU -------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOCPU_MOETOCPU_H
#define MOE_CONVERSION_MOETOCPU_MOETOCPU_H

#include "mlir/Pass/Pass.h"
#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// The properties of a CPU that kernels depend on.
struct CPUDescription {
  int64_t vectorBits = 128;
  int64_t vectorRegisters = 16;
  bool bf16Dot = false;     // has vdpbf16ps
  bool int8Dot = false;     // has vpdpbusd
  bool bytePermute = false; // has vpermi2b
  /// Pages of 4 KiB from which a stream of weights is prefetched side by side;
  /// 0 leaves streams to the hardware.
  int64_t prefetchedPages = 0;

  int64_t getLanes() const { return vectorBits / 32; }
  /// Emits an error at `op` if no kernel can be generated for such a CPU.
  LogicalResult verify(Operation *op) const;
};

/// Chooses the panels of the weights of `matmuls` GEMMs with `columns` columns
/// each.
PanelsAttr choosePanels(const CPUDescription &cpu, Type element,
                        int64_t matmuls, int64_t columns);

/// Returns the kernel heights that a plan can choose, in ascending order. A
/// grouped matmul has kernels of each height up to the largest in its plan.
ArrayRef<int64_t> getKernelHeights();

#define GEN_PASS_DECL_CONVERTMOETOCPU
#define GEN_PASS_DECL_MOEPACKWEIGHTS
#define GEN_PASS_DECL_MOEQUANTIZEACTIVATIONS
#include "moe/Conversion/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_CONVERSION_MOETOCPU_MOETOCPU_H
