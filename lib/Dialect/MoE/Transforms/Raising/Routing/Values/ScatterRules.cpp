//===- ScatterRules.cpp - Scatters and slices of masks -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Values/Choices.h"
#include "Routing/Values/Selectors.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

Value mlir::moe::raising::columnsOf(Value indices, StringRef text,
                                    const ColumnFields &fields,
                                    const Selectors &selectors) {
  RankedTensorType type = tensorOf(indices);
  int64_t rank = type ? type.getRank() - 1 : 0; // of the result
  if (rank < 2 || rank > 3 || integersIn(text, fields.window) != Dims{} ||
      integersIn(text, "index_vector_dim") != Dims{rank})
    return {};
  Dims all = llvm::to_vector(llvm::seq<int64_t>(rank)),
       tokens = llvm::to_vector(llvm::seq<int64_t>(rank - 1));
  if (integersIn(text, fields.batching) == tokens)
    return integersIn(text, fields.indicesBatching) == tokens &&
                   integersIn(text, fields.single) == Dims{rank - 1} &&
                   integersIn(text, fields.places) == Dims{rank - 1}
               ? indices
               : Value();
  Operation *parts = definedBy(indices, "stablehlo.concatenate");
  if (!parts || parts->getNumOperands() != rank ||
      integersOf(parts, "dimension") != Dims{rank} ||
      integersIn(text, fields.single) != all ||
      integersIn(text, fields.places) != all ||
      integersIn(text, fields.batching) != Dims{})
    return {};
  for (int64_t dim = 0; dim < rank - 1; ++dim) {
    std::optional<Selector> row = selectors.get(parts->getOperand(dim));
    Axes expected;
    for (int64_t extent : type.getShape().drop_back())
      expected.push_back(extent == 1 ? "" : "*");
    expected[dim] = "i";
    expected.push_back("");
    if (!row || row->kind != Selector::Index || row->axes != expected)
      return {};
  }
  return parts->getOperand(rank - 1);
}

static Value scatteredColumns(Operation *op, const Selectors &selectors) {
  return columnsOf(op->getOperand(1), textOf(op, "scatter_dimension_numbers"),
                   {"update_window_dims", "inserted_window_dims",
                    "scatter_dims_to_operand_dims", "input_batching_dims",
                    "scatter_indices_batching_dims"},
                   selectors);
}

void Selectors::visitScatter(Operation *op) {
  // weights[t, k] at [t, ids[t, k]] of zeros [T, E].
  if (op->getNumOperands() != 3 ||
      op->getResult(0).getType() != op->getOperand(0).getType())
    return;
  // Or of −inf, which a softmax or sigmoid makes 0.
  bool isScore =
      splatOf(op->getOperand(0)) == -std::numeric_limits<double>::infinity();
  if (!isScore && splatOf(op->getOperand(0)) != 0.0)
    return;
  Update update = updateOf(op);
  Value columns = scatteredColumns(op, *this);
  if ((update != Update::Set && (update != Update::Add || isScore)) || !columns)
    return;
  std::optional<Selector> experts = get(columns);
  Value weights = op->getOperand(2);
  RankedTensorType type = tensorOf(op->getOperand(0)),
                   places = tensorOf(columns);
  int64_t rank = type ? type.getRank() : 0;
  if (!experts || experts->kind != Selector::Ids ||
      places.getRank() != rank + 1)
    return;
  Axes choice{topKOf(experts->ids) == 1 ? "" : "k"}, axes{"t"};
  if (rank == 3)
    axes = {"g", "s"};
  Axes choices = axes;
  choices.append(choice);
  Axes expected = choices;
  expected.push_back("");
  if (experts->axes != expected ||
      places.getDimSize(rank - 1) != topKOf(experts->ids) ||
      type.getShape().back() != Choices::expertsOf(experts->ids) ||
      (rank == 2
           ? !haveSameRows(op->getOperand(0), experts->ids)
           : !type.hasStaticShape() ||
                 type.getShape().drop_back() != places.getShape().drop_back(2)))
    return;
  axes.push_back("e");
  Selector made{Selector::Product, axes, experts->ids};
  made.groups = experts->groups;
  made.hot = !isScore;
  if (isScore)
    made.kind = Selector::Scores;
  else if (splatOf(weights) == 1.0)
    return set(op, made);
  made.weights = weightsOf(weights, choices, experts->ids);
  if (made.weights)
    set(op, made);
}

void Selectors::visitScore(Operation *op) {
  // Of −inf it is 0.
  std::optional<Selector> scores = get(op->getOperand(0));
  if (!scores || scores->kind != Selector::Scores ||
      op->getResult(0).getType() != op->getOperand(0).getType() ||
      (!isNamed(op, "stablehlo.logistic") && scores->axes != Axes{"t", "e"}))
    return;
  scores->kind = Selector::Product;
  scores->hot = true;
  scores->functions.push_back(op);
  set(op, *scores);
}

void Selectors::visitSlice(Operation *op) {
  if (visitColumn(op))
    return;
  // The mask of one expert, of any number of tokens.
  if (auto column = matchColumn(op)) {
    std::optional<Selector> mask = get(column->first);
    if (!mask || mask->kind != Selector::Product || !mask->hot ||
        mask->expert || mask->axes != Axes{"t", "e"})
      return;
    mask->expert = column->second;
    mask->axes.pop_back();
    if (tensorOf(op->getResult(0)).getRank() == 2)
      mask->axes.push_back("");
    return set(op, *mask);
  }
  // The same, or without the slots that have anything.
  std::optional<Selector> mask = get(op->getOperand(0));
  auto starts = integersOf(op, "start_indices"),
       strides = integersOf(op, "strides");
  RankedTensorType from = tensorOf(op->getOperand(0)),
                   to = tensorOf(op->getResult(0));
  if (!mask || mask->kind != Selector::Product || !mask->hot || mask->expert ||
      !starts || !strides || starts->size() != mask->axes.size() ||
      strides->size() != mask->axes.size())
    return;
  bool isChanged = false;
  for (auto [dim, names] : llvm::enumerate(mask->axes)) {
    if (names == "e" && to.getDimSize(dim) == 1) {
      mask->expert = (*starts)[dim];
      names = "";
      isChanged = true;
    } else if (names == "c" && mask->otherSlots > 0 &&
               (*starts)[dim] == mask->otherSlots && (*strides)[dim] == 1 &&
               to.getDimSize(dim) == mask->slots) {
      mask->otherSlots = 0;
      isChanged = true;
    } else if ((*starts)[dim] != 0 || (*strides)[dim] != 1 ||
               from.getDimSize(dim) != to.getDimSize(dim)) {
      return;
    }
  }
  if (isChanged)
    set(op, *mask);
}
