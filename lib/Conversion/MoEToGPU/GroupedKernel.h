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
        storage(isa<Float8E4M3FNType>(element) ? b.getI8Type() : element),
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
  /// The row of `lhs` that grouped row `row` (i32) is, and where it starts.
  Value lhsRowNumber(Value row);
  Value lhsRow(Value row);
  /// The scale of row `lhsRow` of `lhs` for step `step` along k.
  Value rowScale(Value lhsRow, Value step);
  /// Those of the weights: for each product, of `count` tiles of eight columns that
  /// begin where `first` says. They are one where all are in one block.
  SmallVector<Value> weightScalesOf(const TilePlace &place, int64_t count,
                                    Value step,
                                    llvm::function_ref<Value(int64_t)> first);
  /// sum + block · rowScale · columnScale, of which either may be null.
  Value addScaled(Value sum, Value block, Value rowScale, Value columnScale);
  /// Store the results of columns `column` and the next; `sums` has the sums of
  /// the products for the one, then for the other. `row` is a grouped row.
  void storePair(const TilePlace &place, Value row, Value column,
                 ArrayRef<Value> sums);

  GroupedMatmulOp op;
  TileAttr tile;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element; // of `lhs`
  Type storage; // the same in memory
  int64_t k, n, experts, products;
  int64_t share;         // columns of each product in a tile
  int64_t weightColumns; // of the tensors that weights lie in
  SmallVector<WeightView> views;

  // Arguments of the kernel.
  Value lhs, gather, offsets, lhsScales, out, rows, lhsRows;
  SmallVector<Value> weights, weightScales, extras;
};

/// A kernel with `mma.sync` (sm_80 and later).
LLVM::LLVMFuncOp buildMmaSyncKernel(GroupedMatmulOp op, TileAttr tile,
                                    DeviceLowering &lowering);
/// One with `mma.sync` for weights of 8 bits.
LLVM::LLVMFuncOp buildScaledMmaSyncKernel(GroupedMatmulOp op, TileAttr tile,
                                          DeviceLowering &lowering);
/// Ones with `wgmma` (sm_90a), for many rows and for few.
LLVM::LLVMFuncOp buildWgmmaKernel(GroupedMatmulOp op, TileAttr tile,
                                  DeviceLowering &lowering);
LLVM::LLVMFuncOp buildSwappedKernel(GroupedMatmulOp op, TileAttr tile,
                                    DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDKERNEL_H
