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

namespace mlir::moe {

/// Emits the epilogue region of a grouped matmul for single elements.
class DeviceEpilogue {
public:
  /// Returns the tensors that the kernel reads: an operand that is a slice with
  /// static offsets and strides is read in place from the sliced tensor.
  static SmallVector<Value> inputs(GroupedMatmulOp op);

  /// `extras` are the pointers to `inputs`.
  DeviceEpilogue(GPUBuilder &b, GroupedMatmulOp op, ValueRange extras)
      : b(b), op(op), extras(extras) {}

  /// Succeeds if the epilogue consists of arith and math and reads nothing but
  /// its arguments and constants; otherwise `why` has the reason.
  static LogicalResult verify(GroupedMatmulOp op, std::string &why);

  /// Applies the epilogue to the f32 `accumulators`, one of each GEMM, at
  /// (expert, row, column), all i32. Returns an element of the result.
  Value build(ValueRange accumulators, Value expert, Value row, Value column);

private:
  Value loadExtra(unsigned index, ArrayRef<Value> coordinates);

  GPUBuilder &b;
  GroupedMatmulOp op;
  SmallVector<Value> extras;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_DEVICEEPILOGUE_H
