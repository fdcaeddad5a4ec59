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
///  index, rest: index, end: index)
///
/// `firsts` has the index in `lhs` where each row starts, `start` is the first
/// byte of the panel, `end` where prefetchStream stops. Codes are decoded in
/// registers; a scale multiplies the partial sum of its group, and groups are
/// added in ascending order. After `groups` whole groups follow `rest` steps of
/// a last one.
func::FuncOp getOrCreateQuantizedKernel(ModuleOp module, const Kernel &kernel,
                                        FormatAttr format, int64_t rows);

/// Returns the function of one row of floats that multiplies each weight, with
/// its scale and what is subtracted from it; creates it at the first request.
/// Its arguments are those of getOrCreateQuantizedKernel.
///
/// Other kernels add up what they subtract, times the sum of the row. For an
/// infinity in the row they subtract one infinity from another.
func::FuncOp getOrCreateExactKernel(ModuleOp module, const Kernel &kernel,
                                    FormatAttr format);

/// What a decoder writes of a panel: the values of its codes, as a kernel
/// multiplies them; or what multiplies the sums of a group, `[2, columns]`: the
/// scales, and what the sum of a row is multiplied by, where kernels need it.
enum class Decoded { Values, Factors };

/// Returns the function that decodes some steps of a group, or its factors, of
/// weights packed with a format; creates it at the first request:
///
/// (start: index, steps: index, weights: memref<?xi8>, values: memref<?xT>,
///  valuesStart: index)
/// (blockStart: index, groupEnd: index, weights: memref<?xi8>, factors:
///  memref<?xf32>, factorsStart: index)
///
/// `kernel` is that of the packed weights. Values are bf16 in pairs along k for
/// a kernel of dot products, else f32.
func::FuncOp getOrCreateDecoder(ModuleOp module, const Kernel &kernel,
                                FormatAttr format, Decoded what);

/// Returns what the values of codes are multiplied by in kernels of floats, a
/// power of two: kernels divide their sums by it at the end.
double getValueFactor(const Kernel &kernel, const PackedFormat &format);
/// Returns what those values have too much: kernels take it away by the sum of
/// a row.
double getValueExcess(const Kernel &kernel, const PackedFormat &format);

/// Returns the function that adds `groups` groups of decoded weights, and a
/// last one of `rest` steps, to the accumulators of a tile; creates it at the
/// first request:
///
/// (lhs: memref<?xT>, firsts: memref<?xindex>, values: memref<?xT>, factors:
///  memref<?xf32>, rowSums: memref<?xf32>, rowSumsStart: index, accumulators:
///  memref<?xf32>, accumulatorsStart: index, groups: index, rest: index)
///
/// The bits are those of getOrCreateQuantizedKernel. `kernel` is that of
/// decoded weights; a group has `groupSteps` steps, and a row `rowSumsStride`
/// sums if kernels multiply them, else 0.
func::FuncOp getOrCreateGroupKernel(ModuleOp module, const Kernel &kernel,
                                    int64_t groupSteps, int64_t rowSumsStride,
                                    int64_t rows);

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
