//===- SlotRows.cpp - Rows that are set in slots -------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A capacity without masks of slots: rows of the choices are scattered to
// [E, C, H], at their experts and places, and gathered from there again. Those
// of choices beyond the capacity are dropped, and are 0 in the result. Groups
// of tokens have slots of their own, [G, E, C, H].
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

namespace {
/// The expert and place of each choice in tensors [E, C, n], or [G, E, C, n] of
/// groups of tokens, each with places of its own.
struct Places {
  Selector place;
  int64_t hasGroups;
  Axes rows; // of the choices
};
} // namespace

/// Returns the places of indices of a gather or scatter, [.., 2], of which the
/// first dimension is that of the groups if it is one of a batch; or [.., 3],
/// with the group.
static std::optional<Places> matchPlaces(Value indices, bool isBatch,
                                         Routing &routing) {
  SmallVector<Selector, 2> parts(routing.selectors.getVector(indices));
  bool hasGroups = isBatch || parts.size() == 3;
  if (parts.size() != (hasGroups && !isBatch ? 3 : 2))
    return std::nullopt;
  const Selector &ids = parts[parts.size() - 2], &place = parts.back();
  if (ids.kind != Selector::Ids || place.kind != Selector::Place ||
      ids.ids != place.ids || place.on != 0 || ids.axes != place.axes ||
      countAxis(place.axes, 'e') > 0 || !hasTokens(place.axes) ||
      !hasChoiceAxis(place) || place.inGroups != hasGroups)
    return std::nullopt;
  if (hasGroups && place.axes.front() != "g")
    return std::nullopt;
  if (!isBatch && hasGroups) {
    // The group is the index along the first dimension.
    Axes expected(place.axes.size(), "*");
    expected.front() = "i";
    for (auto [names, of] : llvm::zip_equal(expected, place.axes))
      if (of.empty())
        names = "";
    if (parts.front().kind != Selector::Index || parts.front().axes != expected)
      return std::nullopt;
  }
  Places found{place, hasGroups, place.axes};
  found.rows.push_back("n");
  return found;
}

/// Returns the places by which a gather from, or scatter to, a tensor takes or
/// sets rows, by the names that its dimension numbers have.
static std::optional<Places> matchNumbers(StringRef text, RankedTensorType type,
                                          Value indices, StringRef window,
                                          StringRef collapsed,
                                          StringRef batching, StringRef batches,
                                          StringRef starts, Routing &routing) {
  RankedTensorType of = tensorOf(indices);
  if (!type || !of || type.getRank() < 3 || type.getRank() > 4)
    return std::nullopt;
  auto given = integersIn(text, batching);
  bool isBatch = given == Dims{0};
  std::optional<Places> places = matchPlaces(indices, isBatch, routing);
  if (!places || type.getRank() != 3 + places->hasGroups ||
      (!isBatch && given != Dims{}))
    return std::nullopt;
  int64_t last = of.getRank() - 1, rank = type.getRank();
  Dims at = llvm::to_vector(llvm::seq<int64_t>(isBatch, rank - 1));
  int64_t expert = places->hasGroups;
  if ((isBatch && integersIn(text, batches) != Dims{0}) ||
      integersIn(text, window) != Dims{last} ||
      integersIn(text, collapsed) != at || integersIn(text, starts) != at ||
      integersIn(text, "index_vector_dim") != Dims{last} ||
      type.getDimSize(expert) != Choices::expertsOf(places->place.ids) ||
      type.isDynamicDim(expert + 1) ||
      (places->hasGroups && type.getDimSize(0) != places->place.groups))
    return std::nullopt;
  return places;
}

/// Returns how many places of an expert `mask` keeps, where it has an element
/// for each choice; 0 if it is no such mask.
static int64_t keptBy(Value mask, const Axes &axes, Value ids, bool &inGroups,
                      Routing &routing) {
  Axes expected = axes;
  for (std::string &names : expected)
    if (names == "n")
      names = "*";
  std::optional<Selector> found = routing.selectors.get(mask);
  if (!found || found->kind != Selector::Product || found->ids != ids ||
      found->hot || found->slot || found->weights || found->unless ||
      found->zeroFrom || found->axes != expected)
    return 0;
  inGroups = found->inGroups;
  return found->kept;
}

/// Returns the factor of a product with, or a selection by, a mask of kept
/// choices; null if `value` is none.
static Value withoutMask(Value value, const Axes &axes, Value ids,
                         int64_t &kept, bool &inGroups, Routing &routing) {
  Operation *op = value.getDefiningOp();
  if (isNamed(op, "stablehlo.select") && splatOf(op->getOperand(2)) == 0.0) {
    kept = keptBy(op->getOperand(0), axes, ids, inGroups, routing);
    return kept ? op->getOperand(1) : Value();
  }
  if (!isNamed(op, "stablehlo.multiply"))
    return {};
  for (unsigned i : {0u, 1u})
    if ((kept = keptBy(op->getOperand(i), axes, ids, inGroups, routing)))
      return op->getOperand(1 - i);
  return {};
}

/// The same, of a value with these axes; of groups of tokens perhaps
/// [G, S, n].
static Value rowsOfTokens(Value value, Axes axes, Value ids, int64_t groups,
                          Routing &routing) {
  AxisExtents extents = Selectors::extentsOf(Selector{Selector::Ids, {}, ids});
  extents.groups = groups;
  const Axes tokens{"t", "n"}, ofGroups{"g", "s", "n"};
  while (axes != tokens && axes != ofGroups) {
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
      axes = *of;
    }
    value = op->getOperand(0);
  }
  if (axes == ofGroups)
    return tensorOf(value).hasStaticShape() ? value : Value();
  return haveSameRows(value, ids) ? value : Value();
}

Value mlir::moe::raising::rowsOfTokens(Value value, Value ids,
                                       Routing &routing) {
  return ::rowsOfTokens(value, {choiceAxis(ids), "n"}, ids, 0, routing);
}

Value mlir::moe::raising::matchSlotScatter(Operation *op,
                                           const Selector &selector,
                                           Routing &routing) {
  if (!isNamed(op, "stablehlo.scatter") || op->getNumOperands() != 3 ||
      splatOf(op->getOperand(0)) != 0.0)
    return {};
  RankedTensorType type = tensorOf(op->getResult(0));
  std::optional<Places> places = matchNumbers(
      textOf(op, "scatter_dimension_numbers"), type, op->getOperand(1),
      "update_window_dims", "inserted_window_dims", "input_batching_dims",
      "scatter_indices_batching_dims", "scatter_dims_to_operand_dims", routing);
  if (!places)
    return {};
  const Selector &place = places->place;
  if (place.ids != selector.ids || !place.countsAs(selector) ||
      type.getDimSize(places->hasGroups + 1) != selector.slots)
    return {};
  Update update = updateOf(op);
  Value rows = op->getOperand(2);
  int64_t kept = 0;
  bool inGroups = place.inGroups;
  if (Value masked = withoutMask(rows, places->rows, selector.ids, kept,
                                 inGroups, routing))
    rows = masked;
  if (inGroups != place.inGroups)
    return {};
  // Of choices beyond the capacity nothing is set, or zeros are added
  // somewhere.
  bool isDropped = place.zeroFrom == 0;
  bool isZero = update == Update::Add && kept == selector.slots &&
                (!place.zeroFrom || place.zeroFrom >= kept);
  if (kept && kept < selector.slots)
    return {};
  if (!isZero &&
      !(isDropped && (update == Update::Set || update == Update::Add)))
    return {};
  return ::rowsOfTokens(rows, places->rows, selector.ids, place.groups,
                        routing);
}

std::optional<SlotGather>
mlir::moe::raising::matchSlotGather(Value value, Axes axes, Value ids,
                                    int64_t kept, bool inGroups,
                                    Routing &routing) {
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
    bool isOfGroups = false;
    Value of = withoutMask(value, axes, ids, more, isOfGroups, routing);
    if (!of)
      break;
    if (kept && isOfGroups != inGroups)
      return std::nullopt;
    inGroups = isOfGroups;
    kept = kept ? std::min(kept, more) : more;
    value = of;
  }
  if (!isNamed(op, "stablehlo.gather") || op->getNumOperands() != 2)
    return std::nullopt;
  RankedTensorType type = tensorOf(op->getOperand(0));
  std::optional<Places> places = matchNumbers(
      textOf(op, "dimension_numbers"), type, op->getOperand(1), "offset_dims",
      "collapsed_slice_dims", "operand_batching_dims",
      "start_indices_batching_dims", "start_index_map", routing);
  if (!places)
    return std::nullopt;
  const Selector &place = places->place;
  Dims sizes(type.getRank(), 1);
  sizes.back() = type.getShape().back();
  if (place.ids != ids || axes != places->rows ||
      integersOf(op, "slice_sizes") != sizes || inGroups != place.inGroups)
    return std::nullopt;
  // A choice without a slot has the row of another one: it has to be dropped.
  int64_t slots = type.getDimSize(places->hasGroups + 1);
  if (kept != slots || (place.zeroFrom && place.zeroFrom < kept))
    return std::nullopt;
  return SlotGather{op->getOperand(0), slots, place.byChoice,
                    places->hasGroups ? place.groups : 0};
}
