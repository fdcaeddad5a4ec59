//===- Kernel.h - The shape of the kernels for a processor ------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_KERNEL_H
#define MOE_LIB_CONVERSION_MOETOCPU_KERNEL_H

#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

/// How one tile of a product is computed: `rows` rows of the left operand with
/// one panel of packed weights, all sums in registers.
///
/// Every sum runs over ascending k, whatever `rows` is, so that a row has the
/// same bits in every tile.
struct Kernel {
  Type element;      // of rows and weights
  int64_t lanes;     // f32 in a vector
  int64_t vectors;   // vectors of a panel
  int64_t maxRows;   // rows of a tile at most, so that all sums stay in registers
  int64_t depth;     // steps along k in one instruction: 2 for bf16 dot products

  int64_t getColumns() const { return lanes * vectors; }
  /// Steps along k after which sums go through memory, so that the panel's part
  /// stays in the second-level cache while the rows pass by.
  int64_t getBlock() const {
    int64_t bytes = getColumns() * element.getIntOrFloatBitWidth() / 8;
    return llvm::alignDown((int64_t(512) << 10) / bytes, int64_t(64));
  }
};

/// The kernel for packed weights of `element` in panels.
Kernel chooseKernel(const CPUDescription &cpu, Type element, PanelsAttr panels);

/// The function that computes a tile of `rows` rows, made at the first request:
///
/// (lhs: memref<?xT>, firsts: memref<?xindex>, weights: memref<?xT>,
///  start: index, sums: memref<?xf32>, sumsStart: index, steps: index,
///  tail: index, resume: i1)
///
/// `firsts` has the element of `lhs` where each row's part starts, `start` that
/// of `weights`. `sums` `[rows, columns]` is added to with `resume`, else
/// written. There are `steps` whole steps of `depth`, and then `tail` (0 or 1)
/// of the rows' last element alone.
func::FuncOp getOrCreateKernel(ModuleOp module, const Kernel &kernel,
                               int64_t rows);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_KERNEL_H
