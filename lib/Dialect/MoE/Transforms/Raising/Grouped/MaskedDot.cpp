//===- MaskedDot.cpp - Grouped products over all rows --------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What JAX lowers jax.lax.ragged_dot to for CPUs: a product of all rows with
// the weights of each group, [g, m, k] and [g, k, n], summed over the groups,
// where rows of other groups are 0. The mask is starts <= row < ends.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "GroupedProduct.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Returns what `value` repeats along new dimensions, its own being `dims`.
static Value repeated(Value value, const Dims &dims) {
  Operation *op = value.getDefiningOp();
  bool isBroadcast = isNamed(op, "stablehlo.broadcast_in_dim") ||
                     isNamed(op, "stablehlo.dynamic_broadcast_in_dim");
  if (!isBroadcast || integersOf(op, "broadcast_dimensions") != dims)
    return {};
  Value from = op->getOperand(0);
  auto before = dyn_cast<RankedTensorType>(from.getType()),
       after = dyn_cast<RankedTensorType>(value.getType());
  if (!before || !after || before.getRank() != int64_t(dims.size()))
    return {};
  // None of its dimensions is repeated itself.
  for (auto [extent, dim] : llvm::zip(before.getShape(), dims))
    if (dim >= after.getRank() || extent != after.getDimSize(dim))
      return {};
  return from;
}

/// True for the index of the row in a tensor [g, m, k].
static bool isRow(Value value) {
  Operation *op = value.getDefiningOp();
  return (isNamed(op, "stablehlo.iota") ||
          isNamed(op, "stablehlo.dynamic_iota")) &&
         integersOf(op, "iota_dimension") == Dims{1};
}

/// Returns the operands of a signed comparison a < b or a <= b.
static std::optional<std::pair<Value, Value>> matchLess(Value value,
                                                        StringRef direction) {
  Operation *op = definedBy(value, "stablehlo.compare");
  if (!op || !StringRef(textOf(op, "comparison_direction"))
                  .rtrim('>')
                  .ends_with(" " + direction.str()))
    return std::nullopt;
  return std::pair(op->getOperand(0), op->getOperand(1));
}

/// True for [0, e_0, e_1, ...] without the last of the ends.
static bool areStarts(Value starts, Value ends) {
  Operation *op = definedBy(starts, "stablehlo.concatenate");
  if (!op || op->getNumOperands() != 2)
    return false;
  auto first = dyn_cast<RankedTensorType>(op->getOperand(0).getType());
  Value zero = op->getOperand(0);
  if (Operation *slice = definedBy(zero, "stablehlo.slice"))
    zero = slice->getOperand(0);
  Operation *rest = definedBy(op->getOperand(1), "stablehlo.slice");
  int64_t groups = cast<RankedTensorType>(ends.getType()).getDimSize(0);
  return first && first.getShape() == ArrayRef<int64_t>(1) &&
         splatOf(zero) == 0.0 && rest && rest->getOperand(0) == ends &&
         integersOf(rest, "start_indices") == Dims{0} &&
         integersOf(rest, "strides") == Dims{1} &&
         integersOf(rest, "limit_indices") == Dims{groups - 1};
}

/// Returns the ends of the groups of whose rows a mask [g, m, k] is true.
static Value matchMask(Value mask) {
  Operation *both = definedBy(mask, "stablehlo.and");
  if (!both || both->getNumOperands() != 2)
    return {};
  for (unsigned i : {0u, 1u}) {
    auto from = matchLess(both->getOperand(i), "LE"),
         to = matchLess(both->getOperand(1 - i), "LT");
    if (!from || !to || !isRow(from->second) || !isRow(to->first))
      continue;
    Value starts = repeated(from->first, {0}), ends = repeated(to->second, {0});
    if (starts && ends && areStarts(starts, ends))
      return ends;
  }
  return {};
}

Outcome mlir::moe::raising::raiseMaskedDot(Operation *op,
                                           GroupedProductBuilder &builder) {
  if (!isNamed(op, "stablehlo.dot_general") || op->getNumOperands() != 2)
    return {};
  std::string dims = textOf(op, "dot_dimension_numbers");
  Operation *select = definedBy(op->getOperand(0), "stablehlo.select");
  if (!select || integersIn(dims, "lhs_contracting_dimensions") != Dims{2, 0} ||
      integersIn(dims, "rhs_contracting_dimensions") != Dims{1, 0} ||
      integersIn(dims, "lhs_batching_dimensions") != Dims{} ||
      splatOf(select->getOperand(2)) != 0.0)
    return {};
  Value rows = repeated(select->getOperand(1), {1, 2});
  Value ends = matchMask(select->getOperand(0));
  if (!rows || !ends)
    return {};
  return builder.replace(
      op, GroupedProduct{rows, ends, GroupArgument::Ends, op->getOperand(1),
                         /*transposed=*/false, /*zeroRest=*/true,
                         op->getResult(0).getType()});
}
