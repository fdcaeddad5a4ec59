//===- QuantizedKernel.h - Micro-kernels of quantised weights ---*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNEL_H
#define MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNEL_H

#include "../Kernel.h"
#include "moe/Dialect/MoE/IR/PackedFormat.h"

namespace mlir::moe {

/// Returns the function that computes a tile of `rows` rows, of floats or of
/// moe.quantize_rows, times one panel of weights packed with a format; creates
/// it at the first request:
///
/// (lhs: memref<?xT>, firsts: memref<?xindex>, weights: memref<?xi8>, start:
///  index, accumulators: memref<?xf32>, accumulatorsStart: index, groups:
///  index, rest: index)
///
/// `firsts` has the index in `lhs` where each row starts, `start` is the first
/// byte of the panel. Codes are decoded in registers; a scale multiplies the
/// partial sum of its group, and groups are added in ascending order. After
/// `groups` whole groups follow `rest` steps of a last one. Weights are not
/// prefetched: a panel is one ascending stream, which hardware follows.
func::FuncOp getOrCreateQuantizedKernel(ModuleOp module, const Kernel &kernel,
                                        FormatAttr format, int64_t rows);

/// Returns true if the CPU has the lookups that the kernels use.
bool hasQuantizedKernels(const CPUDescription &cpu);
/// Returns true if a kernel multiplies rows of `element` with this format, and
/// decoded weights would not be much faster at many rows.
bool hasFloatKernel(const CPUDescription &cpu, const PackedFormat &format,
                    Type element);
/// Returns true if a kernel multiplies rows of moe.quantize_rows with it.
bool hasInt8Kernel(const CPUDescription &cpu, const PackedFormat &format);

/// Returns true if moe-quantize-activations will round the rows of a matmul
/// whose weights are packed with this format.
bool canQuantizeRows(GroupedMatmulOp op, const CPUDescription &cpu,
                     const PackedFormat &format);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOCPU_QUANTIZED_QUANTIZEDKERNEL_H
