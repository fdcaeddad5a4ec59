//===- MoEToCPU.h - Kernels for the CPU -------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CONVERSION_MOETOCPU_MOETOCPU_H
#define MOE_CONVERSION_MOETOCPU_MOETOCPU_H

#include "moe/Dialect/MoE/IR/MoE.h"
#include "mlir/Pass/Pass.h"

namespace mlir::moe {

/// What the kernels need to know of a processor.
struct CPUDescription {
  int64_t vectorBits = 128;
  int64_t vectorRegisters = 16;
  bool bf16Dot = false; // vdpbf16ps on whole vectors

  int64_t getLanes() const { return vectorBits / 32; }
  /// Refuse what no kernel can be made for, as an error at `op`.
  LogicalResult verify(Operation *op) const;
};

/// The layout in which `products` products with `columns` columns each read
/// weights of `element`.
PanelsAttr choosePanels(const CPUDescription &cpu, Type element,
                        int64_t products, int64_t columns);

/// Rows of the tiles that a plan tells apart, in ascending order. A grouped
/// matmul has kernels of each height up to the largest that its plan asks for.
ArrayRef<int64_t> getKernelHeights();

#define GEN_PASS_DECL_CONVERTMOETOCPU
#define GEN_PASS_DECL_MOEPACKWEIGHTS
#include "moe/Conversion/Passes.h.inc"

} // namespace mlir::moe

#endif // MOE_CONVERSION_MOETOCPU_MOETOCPU_H
