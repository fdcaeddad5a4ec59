//===- SlotRows.cpp - Rows that are set in slots -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A capacity without masks of slots: rows of the choices are scattered to
// [E, C, H], at their experts and places, and gathered from there again. Those
// of choices beyond the capacity are dropped, and are 0 in the result.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// The axes of a vector with an element for each choice.
static std::string choiceAxis(Value ids) {
  return topKOf(ids) == 1 ? "t" : "tk";
}

/// Returns the places of indices [M, 2]: the expert of each choice, and its
/// place there.
static std::optional<Selector> matchPlaces(Value indices, Routing &routing) {
  Operation *parts = definedBy(indices, "stablehlo.concatenate");
  if (!parts || parts->getNumOperands() != 2 ||
      integersOf(parts, "dimension") != Dims{1})
    return std::nullopt;
  std::optional<Selector> ids = routing.selectors.get(parts->getOperand(0)),
                          place = routing.selectors.get(parts->getOperand(1));
  if (!ids || !place || ids->kind != Selector::Ids ||
      place->kind != Selector::Place || ids->ids != place->ids ||
      place->on != 0 || place->inGroups)
    return std::nullopt;
  Axes expected{choiceAxis(ids->ids), ""};
  return ids->axes == expected && place->axes == expected ? place
                                                          : std::nullopt;
}

/// Returns how many places of an expert `mask` keeps, where it has an element
/// for each choice; 0 if it is no such mask.
static int64_t keptBy(Value mask, const Axes &axes, Value ids,
                      Routing &routing) {
  Axes expected = axes;
  for (std::string &names : expected)
    if (names == "n")
      names = "*";
  std::optional<Selector> found = routing.selectors.get(mask);
  return found && found->kind == Selector::Product && found->ids == ids &&
                 !found->hot && !found->slot && !found->weights &&
                 !found->unless && !found->zeroFrom && !found->inGroups &&
                 found->axes == expected
             ? found->kept
             : 0;
}

/// Returns the factor of a product with, or a selection by, a mask of kept
/// choices; null if `value` is none.
static Value withoutMask(Value value, const Axes &axes, Value ids,
                         int64_t &kept, Routing &routing) {
  Operation *op = value.getDefiningOp();
  if (isNamed(op, "stablehlo.select") && splatOf(op->getOperand(2)) == 0.0) {
    kept = keptBy(op->getOperand(0), axes, ids, routing);
    return kept ? op->getOperand(1) : Value();
  }
  if (!isNamed(op, "stablehlo.multiply"))
    return {};
  for (unsigned i : {0u, 1u})
    if ((kept = keptBy(op->getOperand(i), axes, ids, routing)))
      return op->getOperand(1 - i);
  return {};
}

Value mlir::moe::raising::rowsOfTokens(Value value, Value ids,
                                       Routing &routing) {
  Axes axes{choiceAxis(ids), "n"};
  AxisExtents extents = Selectors::extentsOf(Selector{Selector::Ids, {}, ids});
  while (axes != Axes{"t", "n"}) {
    Operation *op = value.getDefiningOp();
    if (!op)
      return {};
    if (gathersRows(op)) {
      const Role *tokens =
          routing.choices.get(op->getOperand(1), Role::FlatTokens);
      if (axes != Axes{"tk", "n"} || !tokens || tokens->topK != topKOf(ids))
        return {};
      axes = {"t", "n"};
    } else {
      std::optional<Axes> of;
      if (isBroadcast(op))
        of = sourceAxes(op, axes);
      else if (isReshape(op))
        of = reshapeAxes(axes, tensorOf(value).getShape(),
                         tensorOf(op->getOperand(0)).getShape(), extents);
      if (!of)
        return {};
      llvm::erase(*of, "");
      axes = *of;
    }
    value = op->getOperand(0);
  }
  RankedTensorType type = tensorOf(value);
  return type.getRank() == 2 && haveSameRows(value, ids) ? value : Value();
}

Value mlir::moe::raising::matchSlotScatter(Operation *op,
                                           const Selector &selector,
                                           Routing &routing) {
  if (!isNamed(op, "stablehlo.scatter") || op->getNumOperands() != 3 ||
      splatOf(op->getOperand(0)) != 0.0)
    return {};
  std::string text = textOf(op, "scatter_dimension_numbers");
  RankedTensorType type = tensorOf(op->getResult(0));
  std::optional<Selector> place = matchPlaces(op->getOperand(1), routing);
  if (!place || place->ids != selector.ids || !type || type.getRank() != 3 ||
      type.getDimSize(0) != Choices::expertsOf(selector.ids) ||
      type.getDimSize(1) != selector.slots ||
      place->byChoice != selector.byChoice ||
      integersIn(text, "update_window_dims") != Dims{1} ||
      integersIn(text, "inserted_window_dims") != Dims{0, 1} ||
      integersIn(text, "scatter_dims_to_operand_dims") != Dims{0, 1} ||
      integersIn(text, "input_batching_dims") != Dims{} ||
      integersIn(text, "index_vector_dim") != Dims{1})
    return {};
  Update update = updateOf(op);
  Value rows = op->getOperand(2);
  int64_t kept = 0;
  if (Value masked = withoutMask(rows, {choiceAxis(selector.ids), "n"},
                                 selector.ids, kept, routing))
    rows = masked;
  // Of choices beyond the capacity nothing is set, or zeros are added
  // somewhere.
  bool isDropped = place->zeroFrom == 0;
  bool isZero = update == Update::Add && kept == selector.slots &&
                (!place->zeroFrom || place->zeroFrom >= kept);
  if (kept && kept < selector.slots)
    return {};
  if (!isZero &&
      !(isDropped && (update == Update::Set || update == Update::Add)))
    return {};
  return rowsOfTokens(rows, selector.ids, routing);
}

std::optional<SlotGather>
mlir::moe::raising::matchSlotGather(Value value, Axes axes, Value ids,
                                    int64_t kept, Routing &routing) {
  AxisExtents extents = Selectors::extentsOf(Selector{Selector::Ids, {}, ids});
  Operation *op = value.getDefiningOp();
  for (; op; op = value.getDefiningOp()) {
    if (isReshape(op)) {
      std::optional<Axes> of =
          reshapeAxes(axes, tensorOf(value).getShape(),
                      tensorOf(op->getOperand(0)).getShape(), extents);
      if (!of)
        return std::nullopt;
      axes = *of;
      value = op->getOperand(0);
      continue;
    }
    int64_t more = 0;
    Value of = withoutMask(value, axes, ids, more, routing);
    if (!of)
      break;
    kept = kept ? std::min(kept, more) : more;
    value = of;
  }
  if (!isNamed(op, "stablehlo.gather") || op->getNumOperands() != 2 ||
      axes != Axes{choiceAxis(ids), "n"})
    return std::nullopt;
  std::string text = textOf(op, "dimension_numbers");
  RankedTensorType type = tensorOf(op->getOperand(0));
  std::optional<Selector> place = matchPlaces(op->getOperand(1), routing);
  if (!place || place->ids != ids || !type || type.getRank() != 3 ||
      type.getDimSize(0) != Choices::expertsOf(ids) || type.isDynamicDim(1) ||
      integersOf(op, "slice_sizes") != Dims{1, 1, type.getDimSize(2)} ||
      integersIn(text, "offset_dims") != Dims{1} ||
      integersIn(text, "collapsed_slice_dims") != Dims{0, 1} ||
      integersIn(text, "start_index_map") != Dims{0, 1} ||
      integersIn(text, "operand_batching_dims") != Dims{} ||
      integersIn(text, "index_vector_dim") != Dims{1})
    return std::nullopt;
  // A choice without a slot has the row of another one: it has to be dropped.
  int64_t slots = type.getDimSize(1);
  if (kept != slots || (place->zeroFrom && place->zeroFrom < kept))
    return std::nullopt;
  return SlotGather{op->getOperand(0), slots, place->byChoice};
}
