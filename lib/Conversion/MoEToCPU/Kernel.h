//===- Kernel.h - CPU micro-kernels -----------------------------*- C++ -*-===//
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

/// The micro-kernel of a tile: some rows of the left operand times one panel of
/// packed weights, with all accumulators in registers.
///
/// Accumulation runs over ascending k for any number of rows, so the result of
/// a row is bitwise the same in every tile.
struct Kernel {
  Type element;    // of rows and weights
  int64_t lanes;   // f32 elements of a vector
  int64_t vectors; // vectors of a panel
  int64_t maxRows; // largest tile whose accumulators stay in registers
  int64_t depth;   // elements along k of an instruction: 2 for dot products of
                   // bf16; 2 or 4 for those of i8
  int64_t prefetchedPages = 0; // of CPUDescription

  /// Steps along k per iteration of the main loop.
  static constexpr int64_t unroll = 4;

  int64_t getColumns() const { return lanes * vectors; }
  /// Returns the number of elements of a panel that one step reads.
  int64_t getStep() const { return getColumns() * depth; }
  int64_t bytesOf(int64_t elements) const {
    return elements * element.getIntOrFloatBitWidth() / 8;
  }
  int64_t elementsIn(int64_t bytes) const {
    return bytes * 8 / element.getIntOrFloatBitWidth();
  }
};

/// Returns the private function `name` if its attribute `moe.kernel` is `key`;
/// otherwise a new one without a body, under a name that is free.
func::FuncOp findOrCreateKernel(ModuleOp module, std::string name,
                                Attribute key, ArrayRef<Type> arguments);

/// Chooses the micro-kernel for packed weights of `element` in panels.
Kernel chooseKernel(const CPUDescription &cpu, Type element, PanelsAttr panels);

/// An argument of kernels, see there.
static constexpr int64_t aheadIsEnd = -1;

/// Returns the function that computes a tile of `rows` rows; creates it at the
/// first request:
///
/// (lhs: memref<?xT>, firsts: memref<?xindex>, weights: memref<?xT>,
///  start: index, accumulators: memref<?xf32>, accumulatorsStart: index, steps:
///  index, tail: index, ahead: index, aheadStep: index, resume: i1)
///
/// `firsts` has the index in `lhs` where each row starts, `start` is that of
/// the panel in `weights`. With `resume` the kernel adds to the accumulators
/// `[rows, columns]`, otherwise it overwrites them. It runs `steps` whole steps
/// of `depth`, then, with `tail` = 1, one step with the last element of a row
/// alone. In the main loop it prefetches weights from `ahead` on, `aheadStep`
/// elements further every `unroll` steps, at most half of what the steps read;
/// nothing if `aheadStep` is 0; and if it is `aheadIsEnd`, what it will read
/// itself up to `ahead`, as prefetchStream does.
func::FuncOp getOrCreateKernel(ModuleOp module, const Kernel &kernel,
                               int64_t rows);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_KERNEL_H
