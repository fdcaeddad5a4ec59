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

  /// Steps that a kernel takes at a time.
  static constexpr int64_t unroll = 4;

  int64_t getColumns() const { return lanes * vectors; }
  /// Elements of a panel that a step reads.
  int64_t getStep() const { return getColumns() * depth; }
  int64_t bytesOf(int64_t elements) const {
    return elements * element.getIntOrFloatBitWidth() / 8;
  }
  int64_t elementsIn(int64_t bytes) const {
    return bytes * 8 / element.getIntOrFloatBitWidth();
  }
};

/// The kernel for packed weights of `element` in panels.
Kernel chooseKernel(const CPUDescription &cpu, Type element, PanelsAttr panels);

/// The function that computes a tile of `rows` rows, made at the first request:
///
/// (lhs: memref<?xT>, firsts: memref<?xindex>, weights: memref<?xT>,
///  start: index, sums: memref<?xf32>, sumsStart: index, steps: index,
///  tail: index, ahead: index, aheadStep: index, resume: i1)
///
/// `firsts` has the element of `lhs` where each row's part starts, `start` that
/// of `weights`. `sums` `[rows, columns]` is added to with `resume`, else
/// written. There are `steps` whole steps of `depth`, and then `tail` (0 or 1)
/// of the rows' last element alone. Meanwhile elements of `weights` are brought
/// into the cache: those from `ahead` on, `aheadStep` every `unroll` steps, at
/// most half of what the steps read; or, where `aheadStep` is 0, those that come
/// soon after what is read.
func::FuncOp getOrCreateKernel(ModuleOp module, const Kernel &kernel,
                               int64_t rows);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_KERNEL_H
