//===- GroupedKernel.h - What kernels of grouped products share -*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDKERNEL_H

#include "DeviceEpilogue.h"
#include "Lowering.h"
#include "TileSchedule.h"

namespace mlir::moe {

/// Where weights `[E, N, K]` or `[E, K, N]` lie: columns from `firstColumn` on of a
/// compact tensor that has `columns` of them (gate and up are often halves of one).
struct WeightView {
  Value source;
  int64_t firstColumn = 0;
  int64_t columns;

  /// Nothing, and why, if weights are no such part of a tensor.
  static FailureOr<WeightView> of(GroupedMatmulOp op, Value weights,
                                  std::string &why);
};

/// A kernel that computes a `moe.grouped_matmul` tile by tile, and its arguments.
class GroupedKernel {
public:
  GroupedKernel(GroupedMatmulOp op, TileAttr tile, DeviceLowering &lowering)
      : op(op), tile(tile), lowering(lowering), b(op.getLoc(), op.getContext()),
        element(cast<RankedTensorType>(op.getLhs().getType()).getElementType()),
        k(op.getK()), n(op.getN()), experts(op.getExpertCount()),
        products(op.getNumProducts()), share(tile.getColumns() / products) {
    std::string why;
    for (Value each : op.getWeights())
      views.push_back(*WeightView::of(op, each, why)); // verified before
    weightColumns = views.front().columns;
  }

  /// Operands of a launch, in the order of the kernel's pointers.
  static SmallVector<Value> inputs(GroupedMatmulOp op);

protected:
  /// Create the kernel and name its arguments.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape);
  TileSchedule schedule() {
    return TileSchedule(b, offsets, rows, op.getFirstExpert(), experts,
                        tile.getRows(), llvm::divideCeil(n, share));
  }
  /// Where the row of `lhs` starts that grouped row `row` (i32) is.
  Value lhsRow(Value row);
  /// Store the results of columns `column` and the next; `sums` has the sums of
  /// the products for the one, then for the other. `row` is a grouped row.
  void storePair(const TilePlace &place, Value row, Value column,
                 ArrayRef<Value> sums);

  GroupedMatmulOp op;
  TileAttr tile;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element;
  int64_t k, n, experts, products;
  int64_t share;         // columns of each product in a tile
  int64_t weightColumns; // of the tensors that weights lie in
  SmallVector<WeightView> views;

  // Arguments of the kernel.
  Value lhs, gather, offsets, out, rows, lhsRows;
  SmallVector<Value> weights, extras;
};

/// A kernel with `mma.sync` (sm_80 and later).
LLVM::LLVMFuncOp buildMmaSyncKernel(GroupedMatmulOp op, TileAttr tile,
                                    DeviceLowering &lowering);
/// Ones with `wgmma` (sm_90a), for many rows and for few.
LLVM::LLVMFuncOp buildWgmmaKernel(GroupedMatmulOp op, TileAttr tile,
                                  DeviceLowering &lowering);
LLVM::LLVMFuncOp buildSwappedKernel(GroupedMatmulOp op, TileAttr tile,
                                    DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDKERNEL_H
