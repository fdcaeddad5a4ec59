//===- Lowering.h - One lowering for each operation -------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H
#define MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H

#include "Builder/GPUBuilder.h"
#include "moe/Conversion/MoEToGPU/MoEToGPU.h"

namespace mlir::moe {

/// What a lowering adds kernels and launches with.
struct DeviceLowering {
  gpu::GPUModuleOp kernels;
  GPUDescription gpu;
  OpBuilder &rewriter;
  /// By offsets that a router computes: a tensor of `numArrivals` i32 that it
  /// leaves at 0, for blocks to arrive at.
  llvm::DenseMap<Value, Value> arrivals;
};

inline constexpr int64_t numArrivals = 1024;

/// Results of kernels that compute what `op`, on tensors, does; none where there
/// are no such kernels, with the reason in `why`.
using Lowered = FailureOr<SmallVector<Value>>;
Lowered lowerToGPU(GateOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(RouteOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(QuantizeOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(GroupedMatmulOp op, DeviceLowering &lowering,
                   std::string &why);
Lowered lowerToGPU(GatherSumOp op, DeviceLowering &lowering, std::string &why);

/// The kernel that places the choices which blocks have counted: ids and counts;
/// tokens, offsets and positions; choices, rows, choices of a block and, if there
/// is one, the capacity.
LLVM::LLVMFuncOp buildPlaceKernel(RouteOp op, DeviceLowering &lowering);
/// Rows of one expert at most, an i32 on the host; none without a capacity.
Value capacityOf(ImplicitLocOpBuilder &b, RouteOp op);

/// Attribute of a `moe.grouped_matmul`: the tiles to make kernels for, an array of
/// `#moe.tile`, those with fewer rows first.
inline constexpr llvm::StringLiteral tilesAttr = "moe.tiles";

/// Whether the tensor cores can compute a product.
LogicalResult verifyTensorCores(GroupedMatmulOp op, std::string &why);

/// Whether weights have 8 bits, and rows.
bool hasNarrowWeights(GroupedMatmulOp op);
bool hasNarrowRows(GroupedMatmulOp op);
/// How many ranges of columns the weights of a tile are: one for each product,
/// or one for two of which each has every other column.
int64_t weightViewCount(GroupedMatmulOp op);
/// Steps along k of a stage, and the bytes that it has of a tile of `rows` rows and
/// `columns` columns.
int64_t stageDepth(GroupedMatmulOp op);
int64_t stageBytes(GroupedMatmulOp op, int64_t rows, int64_t columns);

/// Launch the kernel of a sum for so many tokens (an `index`).
Value launchGatherSum(GatherSumOp op, Value tokens, DeviceLowering &lowering);

/// Launch a kernel with these blocks; the results are those of `inits`.
SmallVector<Value> launch(DeviceLowering &lowering, Location loc,
                          LLVM::LLVMFuncOp kernel, Value blocks,
                          ValueRange inputs, ValueRange inits,
                          ValueRange scalars,
                          ArrayRef<TensorMapAttr> maps = {});

/// The number of a tensor's elements along `dim`, an `index` on the host.
inline Value extentOf(ImplicitLocOpBuilder &b, Value tensor, int64_t dim) {
  return getValueOrCreateConstantIndexOp(
      b, b.getLoc(), tensor::getMixedSize(b, b.getLoc(), tensor, dim));
}

/// ⌈x / y⌉ on the host.
inline Value ceilDivOf(ImplicitLocOpBuilder &b, Value x, int64_t y) {
  if (y == 1)
    return x;
  return arith::CeilDivSIOp::create(b, x,
                                    arith::ConstantIndexOp::create(b, y));
}

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H
