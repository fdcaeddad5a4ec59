//===- Lowering.h - Lowerings to linalg -------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOLINALG_LOWERING_H
#define MOE_LIB_CONVERSION_MOETOLINALG_LOWERING_H

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/PatternMatch.h"

namespace mlir::moe {

/// Builds the computation of an operation with linalg, scf and tensor at the
/// insertion point. Returns a value for each result; does not replace the
/// operation.
SmallVector<Value> lowerToLinalg(GateOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(GateGradientOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(AuxiliaryLossOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(AuxiliaryLossGradientOp op,
                                 OpBuilder &builder);
SmallVector<Value> lowerToLinalg(ExpertLoadOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(UpdateBiasOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(DispatchOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(ExpertOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(CombineOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(RouteOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(QuantizeOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(DequantizeOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(RoundMatricesOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(GroupedMatmulOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(GroupedContractOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(GatherSumOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(PackOp op, OpBuilder &builder);
/// Copies the operations of the region.
SmallVector<Value> lowerToLinalg(KeepOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(PlaceOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(PartitionOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(CollectOp op, OpBuilder &builder);
SmallVector<Value> lowerToLinalg(FusedOp op, OpBuilder &builder);

/// Applies `patterns` within `root`. Fails after a diagnostic if an operation
/// of the dialect is left, other than launches and what `mayStay` allows.
LogicalResult
applyLinalgLowering(Operation *root, RewritePatternSet &&patterns,
                    llvm::function_ref<bool(Operation *)> mayStay);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOLINALG_LOWERING_H
