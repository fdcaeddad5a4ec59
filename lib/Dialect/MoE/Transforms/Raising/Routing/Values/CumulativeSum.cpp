//===- CumulativeSum.cpp - Running sums of other dialects ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Values/Choices.h"
#include "Routing/Values/Selectors.h"

#include "mlir/IR/SymbolTable.h"

using namespace mlir;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Returns an element of padding [rank, 2], which is concatenated of rows.
static std::optional<Extent> paddingOf(Value padding, int64_t dim,
                                       int64_t side) {
  if (std::optional<double> splat = splatOf(padding))
    return Extent{{}, 0, int64_t(*splat)};
  Operation *op = definedBy(padding, "stablehlo.concatenate");
  if (!op || integersOf(op, "dimension") != Dims{0} ||
      dim >= int64_t(op->getNumOperands()))
    return std::nullopt;
  Operation *row = definedBy(op->getOperand(dim), "stablehlo.reshape");
  RankedTensorType type = tensorOf(op->getOperand(dim));
  return row && type && type.getShape() == ArrayRef<int64_t>({1, 2})
             ? elementOf(row->getOperand(0), side)
             : std::nullopt;
}

/// The same as summedDimension() of a window with any number of rows: operand,
/// start, extents, strides, two dilations and padding are tensors.
static std::optional<int64_t> summedDynamicDimension(Operation *op) {
  auto target = op->getAttrOfType<StringAttr>("call_target_name");
  auto called = op->getAttrOfType<ArrayAttr>("called_computations");
  if (!target || target.getValue() != "stablehlo.dynamic_reduce_window" ||
      op->getNumOperands() != 7 || splatOf(op->getOperand(1)) != 0.0 ||
      !called || called.size() != 1)
    return std::nullopt;
  auto symbol = dyn_cast<FlatSymbolRefAttr>(called[0]);
  Operation *function =
      symbol ? SymbolTable::lookupNearestSymbolFrom(op, symbol) : nullptr;
  if (!function || updateOf(function) != Update::Add)
    return std::nullopt;
  RankedTensorType type = tensorOf(op->getOperand(0));
  const Extent zero, one{{}, 0, 1};
  std::optional<int64_t> along;
  for (int64_t dim = 0; dim < type.getRank(); ++dim) {
    for (unsigned steps : {3u, 4u, 5u})
      if (elementOf(op->getOperand(steps), dim) != one)
        return std::nullopt;
    std::optional<Extent> window = elementOf(op->getOperand(2), dim),
                          low = paddingOf(op->getOperand(6), dim, 0),
                          high = paddingOf(op->getOperand(6), dim, 1);
    if (window == one && low == zero && high == zero)
      continue;
    std::optional<Extent> extent = Extent{{}, 0, type.getDimSize(dim)};
    if (type.isDynamicDim(dim))
      extent = dim == 0 ? rowsOf(op->getOperand(0)) : std::nullopt;
    if (along || !extent || window != extent || high != zero ||
        low != Extent{extent->root, extent->factor, extent->constant - 1})
      return std::nullopt;
    along = dim;
  }
  return along;
}

std::optional<int64_t> mlir::moe::raising::summedDimension(Operation *op) {
  RankedTensorType type = tensorOf(op->getOperand(0));
  if (isNamed(op, "stablehlo.custom_call"))
    return summedDynamicDimension(op);
  if (isNamed(op, "stablehlo.cumulative_sum")) {
    auto dim = integersOf(op, "dimension");
    return dim && dim->size() == 1 ? std::optional(dim->front()) : std::nullopt;
  }
  if (op->getNumOperands() != 2 || updateOf(op) != Update::Add ||
      splatOf(op->getOperand(1)) != 0.0)
    return std::nullopt;
  for (const char *name :
       {"window_strides", "base_dilations", "window_dilations"})
    if (auto steps = integersOf(op, name);
        steps && !llvm::all_of(*steps, [](int64_t step) { return step == 1; }))
      return std::nullopt;
  auto window = integersOf(op, "window_dimensions"),
       padding = integersOf(op, "padding");
  if (!window || int64_t(window->size()) != type.getRank() || !padding ||
      int64_t(padding->size()) != 2 * type.getRank())
    return std::nullopt;
  std::optional<int64_t> along;
  for (int64_t dim = 0; dim < type.getRank(); ++dim) {
    int64_t low = (*padding)[2 * dim], high = (*padding)[2 * dim + 1];
    if ((*window)[dim] == 1 && low == 0 && high == 0)
      continue;
    if (along || (*window)[dim] != type.getDimSize(dim) ||
        low != type.getDimSize(dim) - 1 || high != 0)
      return std::nullopt;
    along = dim;
  }
  return along;
}
