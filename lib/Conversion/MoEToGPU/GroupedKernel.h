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
#include "RowSum.h"
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

/// What to make a kernel for.
struct GroupedKernelRequest {
  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<RowSum> sum; // that it ends in
};

/// A kernel that computes a `moe.grouped_matmul` tile by tile, and its arguments.
class GroupedKernel {
public:
  GroupedKernel(const GroupedKernelRequest &request, DeviceLowering &lowering)
      : op(request.op), tile(request.tile), sum(request.sum),
        lowering(lowering), b(op.getLoc(), op.getContext()),
        element(cast<RankedTensorType>(op.getLhs().getType()).getElementType()),
        storage(isa<Float8E4M3FNType>(element) ? b.getI8Type() : element),
        k(op.getK()), n(op.getN()), experts(op.getExpertCount()),
        products(op.getNumProducts()), share(tile.getColumns() / products) {
    std::string why;
    for (Value each : op.getWeights())
      views.push_back(*WeightView::of(op, each, why)); // verified before
    weightColumns = views.front().columns;
  }

  /// Operands of a launch, in the order of the kernel's pointers. Results are
  /// the rows and, with a sum, what is added up and the arrivals; scalars the rows
  /// of the result and of `lhs` and, with a sum, the tokens to add up.
  static SmallVector<Value> inputs(const GroupedKernelRequest &request);

protected:
  /// Create the kernel and name its arguments.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape);
  TileSchedule schedule() {
    return TileSchedule(b, offsets, rows, expertRows, op.getFirstExpert(),
                        experts, tile.getRows(), llvm::divideCeil(n, share));
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

  /// Where the kernel ends in a sum, `warps` of a block storing rows: by a warp
  /// that has stored its columns of a tile, and by all threads before the tiles.
  void arriveAtSum(TileSchedule &tiles, const TilePlace &place, Value warp,
                   int64_t warps, const RowSumEmitter::Columns &columns);
  void sumWithoutTiles(TileSchedule &tiles, int64_t threads);

  GroupedMatmulOp op;
  TileAttr tile;
  std::optional<RowSum> sum;
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
  RowRange expertRows; // of the experts that the kernel takes, with offsets
  RowSumEmitter::Arguments sumArguments;
};

/// A kernel with `mma.sync` (sm_80 and later).
LLVM::LLVMFuncOp buildMmaSyncKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering);
/// One with `mma.sync` for weights of 8 bits.
LLVM::LLVMFuncOp buildScaledMmaSyncKernel(const GroupedKernelRequest &request,
                                          DeviceLowering &lowering);
/// Ones with `wgmma` (sm_90a), for many rows and for few.
LLVM::LLVMFuncOp buildWgmmaKernel(const GroupedKernelRequest &request,
                                  DeviceLowering &lowering);
LLVM::LLVMFuncOp buildSwappedKernel(const GroupedKernelRequest &request,
                                    DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDKERNEL_H
