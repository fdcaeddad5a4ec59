//===- DeviceEpilogue.h - From sums to elements of the result ---*- C++ -*-===//
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

/// The epilogue of a grouped product, element by element, within a kernel.
class DeviceEpilogue {
public:
  /// What the operands are slices of, or they themselves: kernels read them
  /// where they lie.
  static SmallVector<Value> inputs(GroupedMatmulOp op);

  /// `extras` are pointers to the inputs.
  DeviceEpilogue(GPUBuilder &b, GroupedMatmulOp op, ValueRange extras)
      : b(b), op(op), extras(extras) {}

  /// Whether each operation can be done on a device and everything that it uses
  /// is there.
  static LogicalResult verify(GroupedMatmulOp op, std::string &why);

  /// The element at (expert, row, column), i32 each, of f32 `sums`, in the type of
  /// the result.
  Value build(ValueRange sums, Value expert, Value row, Value column);

private:
  Value loadExtra(unsigned number, ArrayRef<Value> place);

  GPUBuilder &b;
  GroupedMatmulOp op;
  SmallVector<Value> extras;
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_DEVICEEPILOGUE_H
