//===- Verification.h - Helpers of verifiers --------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H
#define MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H

#include "moe/Dialect/MoE/IR/MoE.h"

namespace mlir::moe {

/// True if two extents can be equal: dynamic ones are checked at run time.
inline bool compatible(int64_t a, int64_t b) {
  return ShapedType::isDynamic(a) || ShapedType::isDynamic(b) || a == b;
}

/// Prints a shape as types do, e.g. `?x64`.
inline void printShape(InFlightDiagnostic &diag, ArrayRef<int64_t> shape) {
  llvm::interleave(
      shape,
      [&](int64_t extent) {
        if (ShapedType::isDynamic(extent))
          diag << "?";
        else
          diag << extent;
      },
      [&] { diag << "x"; });
}

/// Verifies that `value` has the shape `expected`, extent by extent.
inline LogicalResult verifyShape(Operation *op, const Twine &name, Value value,
                                 ArrayRef<int64_t> expected) {
  auto type = cast<ShapedType>(value.getType());
  bool same = type.getRank() == int64_t(expected.size());
  for (auto [a, b] : llvm::zip(type.getShape(), expected))
    same = same && compatible(a, b);
  if (same)
    return success();
  InFlightDiagnostic diag = op->emitOpError()
                            << "expected " << name << " of shape ";
  printShape(diag, expected);
  diag << ", got ";
  printShape(diag, type.getShape());
  return diag;
}

/// Verifies that `table`, ids or positions `[T, K]`, has a static number of
/// choices.
inline LogicalResult verifyChoices(Operation *op, StringRef name, Value table) {
  auto type = cast<ShapedType>(table.getType());
  if (type.isDynamicDim(1) || type.getDimSize(1) < 1)
    return op->emitOpError() << "expected " << name
                             << " with a static, positive number of choices, "
                                "got "
                             << type;
  return success();
}

inline LogicalResult verifyRange(Operation *op, StringRef name, int64_t value,
                                 int64_t low, int64_t high) {
  if (value >= low && value <= high)
    return success();
  return op->emitOpError() << "expected " << name << " between " << low
                           << " and " << high << ", got " << value;
}

/// Check the types of the values that end a region.
inline LogicalResult verifyYield(YieldOp yield, TypeRange expected) {
  TypeRange actual = yield.getValues().getTypes();
  if (actual == expected)
    return success();
  auto print = [](InFlightDiagnostic &diag, TypeRange types) {
    if (types.empty())
      diag << "nothing";
    diag << types;
  };
  InFlightDiagnostic diag = yield.emitOpError("expected to yield ");
  print(diag, expected);
  diag << ", got ";
  print(diag, actual);
  return diag;
}

/// Verifies that operand `type`, called field `number`, has the numbers of
/// `field` for matrices `[leading…, n, k]`. In MoEQuantizationOps.cpp.
LogicalResult verifyField(Operation *op, int64_t number, FormatAttr format,
                          FieldAttr field, ShapedType type,
                          ArrayRef<int64_t> leading, int64_t n, int64_t k);

} // namespace mlir::moe

#endif // MOE_LIB_DIALECT_MOE_IR_VERIFICATION_H
