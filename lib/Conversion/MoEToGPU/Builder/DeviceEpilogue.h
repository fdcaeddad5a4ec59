//===- DeviceEpilogue.h - Epilogues of grouped matmuls ----------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_BUILDER_DEVICEEPILOGUE_H
#define MOE_LIB_CONVERSION_MOETOGPU_BUILDER_DEVICEEPILOGUE_H

#include "GPUBuilder.h"
#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/IR/IRMapping.h"

namespace mlir::moe {

/// Whether functions and quotients of an epilogue may be approximated
/// (`fastmath<afn>`, see moe-expand-device-math).
enum class EpilogueMath { Precise, Approximate };

/// Emits the epilogue region of a grouped matmul for single elements.
class DeviceEpilogue {
public:
  /// Returns the tensors that the kernel reads: an operand that is a slice with
  /// static offsets and strides is read in place from the sliced tensor.
  static SmallVector<Value> inputs(GroupedMatmulOp op);

  /// `extras` are the pointers to `inputs`.
  DeviceEpilogue(GPUBuilder &b, GroupedMatmulOp op, ValueRange extras,
                 EpilogueMath math)
      : b(b), op(op), extras(extras), math(math) {}

  /// Returns how the epilogue of a matmul of experts is computed: results of 16
  /// bits and less are rounded by more than approximations are off, and so are
  /// the operands of what is computed beside them.
  static EpilogueMath mathOf(GroupedMatmulOp op);

  /// Succeeds if the epilogue consists of arith and math and reads nothing but
  /// its arguments and constants; otherwise `why` has the reason.
  static LogicalResult verify(GroupedMatmulOp op, std::string &why);

  /// Where an element of the result is; all values are i32.
  struct Place {
    Value expert, row, column;
    int64_t columnOffset = 0; // added to `column`
    Value hasColumn; // i1: the column is one of the result; null: it is
  };
  /// Applies the epilogue to the f32 `accumulators`, one of each GEMM. Returns
  /// an element of each result.
  SmallVector<Value> build(ValueRange accumulators, const Place &place);

private:
  /// Clones an operation of the epilogue.
  Operation *clone(Operation &nested, IRMapping &mapping);
  Value loadExtra(unsigned index, const Place &place);

  GPUBuilder &b;
  GroupedMatmulOp op;
  SmallVector<Value> extras;
  EpilogueMath math;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_DEVICEEPILOGUE_H
