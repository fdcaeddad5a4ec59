//===- TokenFunction.cpp - Arithmetic on T, evaluated ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenFunction.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/IR/BuiltinAttributes.h"
#include "mlir/IR/Matchers.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;
using namespace mlir::moe;

std::optional<int64_t> TokenFunction::evaluate(Value value) {
  auto integer = dyn_cast_or_null<IntegerAttr>(fold(value));
  if (!integer)
    return std::nullopt;
  return integer.getInt();
}

/// True if a sum, difference or product leaves 64 bits, where folding wraps.
static bool overflows(Operation *op, ArrayRef<Attribute> operands) {
  if (operands.size() != 2)
    return false;
  auto lhs = dyn_cast<IntegerAttr>(operands[0]);
  auto rhs = dyn_cast<IntegerAttr>(operands[1]);
  if (!lhs || !rhs)
    return false;
  int64_t result;
  if (isa<arith::AddIOp>(op))
    return llvm::AddOverflow(lhs.getInt(), rhs.getInt(), result);
  if (isa<arith::SubIOp>(op))
    return llvm::SubOverflow(lhs.getInt(), rhs.getInt(), result);
  if (isa<arith::MulIOp>(op))
    return llvm::MulOverflow(lhs.getInt(), rhs.getInt(), result);
  return false;
}

Attribute TokenFunction::fold(Value value) {
  if (value == argument)
    return IntegerAttr::get(value.getType(), tokens);
  Operation *op = value.getDefiningOp();
  if (!op || op->getNumRegions() != 0 || op->getNumResults() != 1)
    return {};
  if (auto it = known.find(value); it != known.end())
    return it->second;
  Attribute result;
  if (matchPattern(value, m_Constant(&result)))
    return known[value] = result;
  SmallVector<Attribute> operands;
  for (Value operand : op->getOperands()) {
    operands.push_back(fold(operand));
    if (!operands.back())
      return known[value] = {};
  }
  SmallVector<OpFoldResult> folded;
  if (!overflows(op, operands) && succeeded(op->fold(operands, folded)) &&
      folded.size() == 1)
    result = isa<Value>(folded[0]) ? fold(cast<Value>(folded[0]))
                                   : cast<Attribute>(folded[0]);
  return known[value] = result;
}
