//===- ScatterRules.cpp - Scatters and slices of masks -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Choices.h"
#include "Extents.h"
#include "Selectors.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// Returns the columns that a scatter sets in each row, [T, K, 1]: by pairs of
/// the row and the column, or as one for each row.
static Value scatteredColumns(Operation *op, const Selectors &selectors) {
  std::string text = textOf(op, "scatter_dimension_numbers");
  Value indices = op->getOperand(1);
  RankedTensorType type = tensorOf(indices);
  if (!type || type.getRank() != 3 ||
      integersIn(text, "update_window_dims") != Dims{} ||
      integersIn(text, "index_vector_dim") != Dims{2})
    return {};
  if (integersIn(text, "input_batching_dims") == Dims{0})
    return integersIn(text, "scatter_indices_batching_dims") == Dims{0} &&
                   integersIn(text, "inserted_window_dims") == Dims{1} &&
                   integersIn(text, "scatter_dims_to_operand_dims") == Dims{1}
               ? indices
               : Value();
  Operation *pairs = definedBy(indices, "stablehlo.concatenate");
  if (!pairs || pairs->getNumOperands() != 2 ||
      integersOf(pairs, "dimension") != Dims{2} ||
      integersIn(text, "inserted_window_dims") != Dims{0, 1} ||
      integersIn(text, "scatter_dims_to_operand_dims") != Dims{0, 1} ||
      integersIn(text, "input_batching_dims") != Dims{})
    return {};
  std::optional<Selector> rows = selectors.get(pairs->getOperand(0));
  return rows && rows->kind == Selector::Index &&
                 rows->axes == Axes{"i", type.getDimSize(1) == 1 ? "" : "*", ""}
             ? pairs->getOperand(1)
             : Value();
}

void Selectors::visitScatter(Operation *op) {
  // weights[t, k] at [t, ids[t, k]] of zeros [T, E].
  if (op->getNumOperands() != 3 || splatOf(op->getOperand(0)) != 0.0 ||
      op->getResult(0).getType() != op->getOperand(0).getType())
    return;
  Update update = updateOf(op);
  Value columns = scatteredColumns(op, *this);
  if ((update != Update::Set && update != Update::Add) || !columns)
    return;
  std::optional<Selector> experts = get(columns);
  Value weights = op->getOperand(2);
  RankedTensorType type = tensorOf(op->getOperand(0)),
                   places = tensorOf(columns);
  if (!experts || experts->kind != Selector::Ids ||
      experts->axes != Axes{"t", topKOf(experts->ids) == 1 ? "" : "k", ""} ||
      places.getDimSize(1) != topKOf(experts->ids) || type.getRank() != 2 ||
      type.getDimSize(1) != Choices::expertsOf(experts->ids) ||
      !haveSameRows(op->getOperand(0), experts->ids))
    return;
  Selector made{Selector::Product, {"t", "e"}, experts->ids};
  made.hot = true;
  if (splatOf(weights) == 1.0)
    return set(op, made);
  made.weights = weightsOf(weights, {"t", topKOf(experts->ids) == 1 ? "" : "k"},
                           experts->ids);
  if (made.weights)
    set(op, made);
}

void Selectors::visitSlice(Operation *op) {
  // The mask of one expert.
  std::optional<Selector> mask = get(op->getOperand(0));
  auto starts = integersOf(op, "start_indices"),
       strides = integersOf(op, "strides");
  RankedTensorType from = tensorOf(op->getOperand(0)),
                   to = tensorOf(op->getResult(0));
  if (!mask || mask->kind != Selector::Product || !mask->hot || mask->expert ||
      !starts || !strides || starts->size() != mask->axes.size() ||
      strides->size() != mask->axes.size())
    return;
  for (auto [dim, names] : llvm::enumerate(mask->axes)) {
    if (names == "e" && to.getDimSize(dim) == 1) {
      mask->expert = (*starts)[dim];
      names = "";
    } else if ((*starts)[dim] != 0 || (*strides)[dim] != 1 ||
               from.getDimSize(dim) != to.getDimSize(dim)) {
      return;
    }
  }
  if (mask->expert)
    set(op, *mask);
}
