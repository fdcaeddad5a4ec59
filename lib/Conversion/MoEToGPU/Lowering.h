//===- Lowering.h - Lowerings of operations to kernels ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H
#define MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H

#include "Builder/GPUBuilder.h"
#include "Builder/HostBuilder.h"
#include "moe/Conversion/MoEToGPU/MoEToGPU.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

namespace mlir::moe {

/// State that the lowerings of a module share.
struct DeviceLowering {
  gpu::GPUModuleOp kernels;
  GPUDescription gpu;
  OpBuilder &rewriter;
  /// Of the positions of a route that was lowered: the tokens of its rows.
  llvm::DenseMap<Value, Value> tokensOfPositions;

  DeviceLowering(gpu::GPUModuleOp kernels, GPUDescription gpu,
                 OpBuilder &rewriter)
      : kernels(kernels), gpu(gpu), rewriter(rewriter) {}
};

/// Lowers `op`, on tensors, to launches and returns its results. Fails, with
/// the reason in `why`, if there is no kernel for it. Each is the
/// GPUKernelOpInterface of its operation (KernelModels.cpp).
using Lowered = FailureOr<SmallVector<Value>>;
Lowered lowerToGPU(GateOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(GateGradientOp op, DeviceLowering &lowering,
                   std::string &why);
Lowered lowerToGPU(RouteOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(QuantizeOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(GroupedMatmulOp op, DeviceLowering &lowering,
                   std::string &why);
Lowered lowerToGPU(GroupedContractOp op, DeviceLowering &lowering,
                   std::string &why);
Lowered lowerToGPU(GatherSumOp op, DeviceLowering &lowering, std::string &why);
Lowered lowerToGPU(FusedOp op, DeviceLowering &lowering, std::string &why);

/// Lowers an operation that sums the rows of a matrix, and erases it; returns
/// false if it is none.
bool lowerRowSum(linalg::GenericOp op, DeviceLowering &lowering);

/// Emits a remark that `op` is lowered to a kernel without tensor cores.
void remarkSlow(Operation *op, StringRef why);

/// True if `value` is a 1-D tensor of i32 zeros, such as a router yields for
/// counters that its kernel clears.
bool areClearedCounters(Value value);

/// The host values of a launch of the scatter kernel.
struct ScatterOperands {
  Value ids, counts;                  // tensors
  Value tokens, offsets, positions;   // tensors, replaced by the results
  Value total, rows, chunk, capacity; // i32; capacity may be null
  bool isOfRouter = false; // chunks are those of the blocks of a router
};
/// Builds and launches the kernel that scatters the choices of a route by the
/// histograms of the blocks, which have `chunk` choices each.
void launchScatter(RouteOp op, ScatterOperands &operands, Value blocks,
                   DeviceLowering &lowering);
/// Returns the capacity of an expert, an i32 on the host; null if there is
/// none.
Value capacityOf(HostBuilder &b, RouteOp op);

/// Succeeds if there are tensor core kernels for a grouped matmul.
LogicalResult verifyTensorCores(GroupedMatmulOp op, std::string &why);

/// True if weights, or rows, are f8E4M3FN.
bool hasFP8Weights(GroupedMatmulOp op);
bool hasFP8Lhs(GroupedMatmulOp op);
/// Returns the number of views of the weights: one for each GEMM, or one for
/// two GEMMs with interleaved columns.
int64_t weightViewCount(GroupedMatmulOp op);
/// Returns the elements along k of a pipeline stage, and the bytes of a stage
/// of a tile of `rows` rows and `columns` columns of weights.
int64_t stageDepth(GroupedMatmulOp op);
int64_t stageBytes(GroupedMatmulOp op, int64_t rows, int64_t columns);
/// Returns the bytes of shared memory in which the warps of a wgmma kernel, one
/// without swapped operands, arrange their results for wide stores; 0 if they
/// store pairs of elements from registers.
int64_t stagingBytes(GroupedMatmulOp op);

/// Launches the gather-sum kernel for `tokens` tokens (`index`), of which there
/// are some from `minTokens` tokens of the layer on.
Value launchGatherSum(GatherSumOp op, Value tokens, int64_t minTokens,
                      DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_LOWERING_H
