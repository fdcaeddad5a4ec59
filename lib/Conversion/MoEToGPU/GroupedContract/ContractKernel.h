//===- ContractKernel.h - Base of the contraction kernels -------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The matrix of an expert is a product along its rows: of the gradient of
// weights. Every tile of every matrix is computed, with as many steps of 64
// rows as its expert has; none for an expert without rows, whose matrix is 0.
// Of the last step the rows that belong to other experts count as zeros on both
// sides, since they may not be finite. Sums of a tile run over ascending rows
// in one block, so that bits depend on nothing else.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_GROUPEDCONTRACT_CONTRACTKERNEL_H
#define MOE_LIB_CONVERSION_MOETOGPU_GROUPEDCONTRACT_CONTRACTKERNEL_H

#include "Builder/KernelArguments.h"
#include "Lowering.h"

namespace mlir::moe {

/// The host values that a launch takes besides the operands of the operation.
struct ContractOperands {
  Value out; // tensor, replaced by the result
  /// Where in `out`, of a compact shape, the result is.
  SmallVector<int64_t, 3> shape, offsets, strides;
  // i32: contracted rows, those of each side.
  Value rows = {}, lhsRows = {}, rhsRows = {};
};

class ContractKernel {
public:
  /// The kernel computes tiles of `tileK` rows and `tileN` columns of a matrix.
  ContractKernel(GroupedContractOp op, int64_t tileK, int64_t tileN,
                 ContractOperands &operands, DeviceLowering &lowering);

  /// Launches the kernel with a grid of `blocks`.
  void launch(LLVM::LLVMFuncOp kernel, Value blocks) {
    arguments.launch(lowering.rewriter, kernel, blocks);
  }
  /// Returns the blocks of a persistent grid: one a multiprocessor, or a tile.
  Value gridSize(HostBuilder &host);
  int64_t tileCount() { return op.getExpertCount() * tilesOfExpert(); }

protected:
  /// Rows of a step.
  static constexpr int64_t depth = 64;

  /// An operand: pointers to its rows and, if it is gathered, to the numbers of
  /// rows; how many rows there are.
  struct Side {
    Value rows, gather, count;
    int64_t columns, input;
  };
  /// A tile: the first of its rows k and columns n, the grouped rows of its
  /// expert, and its steps; all i32.
  struct Coord {
    Value expert, k, n, firstRow, endRow, steps;
  };

  int64_t tilesOfN() { return llvm::divideCeil(op.getN(), tileN); }
  int64_t tilesOfExpert() {
    return llvm::divideCeil(op.getK(), tileK) * tilesOfN();
  }
  /// Creates the kernel; without a unit it uses no tensor cores.
  LLVM::LLVMFuncOp create(StringRef name, const KernelShape &shape,
                          std::optional<MatrixUnit> unit);
  Coord tileAt(Value index);
  /// True (i1) if `row` is one of the expert of a tile.
  Value hasRow(const Coord &coord, Value row) {
    return b.less(row, coord.endRow);
  }
  /// Returns which row of an operand grouped row `row` is; one that exists if
  /// `exists` is false.
  Value sourceRow(const Side &side, Value row, Value exists);
  /// Returns a pointer to element `column` of a row of an operand.
  Value pointerTo(const Side &side, Value row, Value column);
  /// Returns a pointer to an element of the result.
  Value resultPointer(Value expert, Value k, Value n);
  /// Two adjacent elements of a tile, which start at an even column.
  struct Pair {
    Value k, n, first, second;
  };
  /// Stores elements. What they are added to is loaded before the first of them
  /// is stored: loads behind stores would wait for each other.
  void storePairs(const Coord &coord, ArrayRef<Pair> pairs);
  /// So many pairs are stored at once, for which there are registers.
  static constexpr int64_t pairsAtOnce = 8;

  GroupedContractOp op;
  DeviceLowering &lowering;
  GPUBuilder b;
  Type element, result;
  int64_t tileK, tileN;
  KernelArguments arguments;
  Side lhs, rhs;
  Value offsets, out, rows;

private:
  ContractOperands place;
};

/// Builds and launches the kernel on mma.sync (sm_80 and later), and that on
/// wgmma (sm_90a).
void launchMmaSyncContract(GroupedContractOp op, ContractOperands &operands,
                           DeviceLowering &lowering);
void launchWgmmaContract(GroupedContractOp op, ContractOperands &operands,
                         DeviceLowering &lowering);

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_GROUPEDCONTRACT_CONTRACTKERNEL_H
