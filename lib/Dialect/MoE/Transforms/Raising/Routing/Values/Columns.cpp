//===- Columns.cpp - Columns of the ids, and vectors of indices ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Programs take the ids of one choice of all tokens, and put the expert and the
// place of each choice into one vector, of which gathers and scatters, and
// tests that it is within a tensor, take the parts again.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Values/Choices.h"
#include "Routing/Values/Selectors.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

//===----------------------------------------------------------------------===//
// Columns
//===----------------------------------------------------------------------===//

std::optional<std::pair<Value, int64_t>>
mlir::moe::raising::matchColumn(Operation *op) {
  if (op->getNumOperands() == 0 || op->getNumResults() != 1)
    return std::nullopt;
  Value matrix = op->getOperand(0);
  RankedTensorType from = tensorOf(matrix), to = tensorOf(op->getResult(0));
  if (!from || from.getRank() != 2 || from.isDynamicDim(1) || !to ||
      to.getDimSize(0) != from.getDimSize(0) ||
      (to.getRank() == 2 ? to.getDimSize(1) != 1 : to.getRank() != 1))
    return std::nullopt;
  if (auto slice = dyn_cast<tensor::ExtractSliceOp>(op)) {
    if (!llvm::all_of(slice.getMixedStrides(), isOneInteger) ||
        getConstantIntValue(slice.getMixedOffsets()[0]) != 0 ||
        getConstantIntValue(slice.getMixedSizes()[1]) != 1 ||
        !haveSameRows(op->getResult(0), matrix))
      return std::nullopt;
    std::optional<int64_t> at = getConstantIntValue(slice.getMixedOffsets()[1]);
    return at ? std::optional(std::pair(matrix, *at)) : std::nullopt;
  }
  auto starts = integersOf(op, "start_indices"),
       limits = integersOf(op, "limit_indices"),
       strides = integersOf(op, "strides");
  if (!isNamed(op, "stablehlo.slice") || !starts || !limits || !strides ||
      starts->size() != 2 || limits->size() != 2 || strides->size() != 2 ||
      to.getRank() != 2 || starts->front() != 0 || strides->front() != 1 ||
      limits->front() != from.getDimSize(0))
    return std::nullopt;
  return std::pair(matrix, starts->back());
}

bool Selectors::visitColumn(Operation *op) {
  auto column = matchColumn(op);
  if (!column)
    return false;
  std::optional<Selector> ids = get(column->first);
  if (!ids || ids->kind != Selector::Ids || topKOf(ids->ids) == 1 ||
      ids->axes != Axes{"t", "k"} || column->second < 0 ||
      column->second >= topKOf(ids->ids))
    return false;
  Selector made{Selector::Column, {"t"}, ids->ids};
  if (tensorOf(op->getResult(0)).getRank() == 2)
    made.axes.push_back("");
  made.choice = column->second;
  set(op, made);
  return true;
}

//===----------------------------------------------------------------------===//
// Vectors of indices
//===----------------------------------------------------------------------===//

void Selectors::visitConcatenate(Operation *op) {
  // The expert and the place of each choice, and perhaps its group.
  RankedTensorType type = tensorOf(op->getResult(0));
  unsigned count = op->getNumOperands();
  if (count < 2 || count > 3 || type.getRank() < 2 ||
      integersOf(op, "dimension") != Dims{type.getRank() - 1})
    return;
  SmallVector<Selector, 2> parts;
  for (Value operand : op->getOperands()) {
    std::optional<Selector> part = get(operand);
    if (!part || tensorOf(operand).getShape().back() != 1 ||
        part->axes.size() != size_t(type.getRank()))
      return;
    part->axes.pop_back();
    parts.push_back(*part);
  }
  vectors[op->getResult(0)] = parts;
}

/// What a test of all indices leaves of the tests of each.
static std::optional<Selector> bothOf(const Selector &a, const Selector &b) {
  if (a.axes != b.axes || a.ids != b.ids)
    return std::nullopt;
  if (a.kind == Selector::Truth)
    return b;
  if (b.kind == Selector::Truth)
    return a;
  // [place < kept] alone.
  if (a.kind != Selector::Product || b.kind != Selector::Product || a.hot ||
      b.hot || a.slot || b.slot || !a.countsAs(b) || !a.kept || !b.kept)
    return std::nullopt;
  Selector made = a;
  made.kept = std::min(a.kept, b.kept);
  return made;
}

/// Tests of each index: it is at least 0, and at most the last one.
bool Selectors::compareVector(Operation *op) {
  ArrayRef<Selector> vector = getVector(op->getOperand(0));
  if (vector.empty())
    return false;
  std::string direction = directionOf(op);
  // The bound of each, [n], repeated.
  Value bounds = op->getOperand(1);
  std::optional<double> all = splatOf(bounds);
  while (!all && tensorOf(bounds).getRank() != 1) {
    Operation *view = bounds.getDefiningOp();
    RankedTensorType type = tensorOf(bounds);
    if (!view || !(isBroadcast(view) || isReshape(view)) ||
        tensorOf(view->getOperand(0)).getRank() == 0 ||
        tensorOf(view->getOperand(0)).getShape().back() !=
            type.getShape().back())
      return true;
    auto dims = integersOf(view, "broadcast_dimensions");
    if (isBroadcast(view) &&
        (!dims || dims->empty() || dims->back() != type.getRank() - 1))
      return true;
    bounds = view->getOperand(0);
  }
  SmallVector<Selector, 2> made;
  for (auto [index, part] : llvm::enumerate(vector)) {
    std::optional<Extent> number =
        all ? Extent{{}, 0, int64_t(*all)} : elementOf(bounds, index);
    if (!number || number->root)
      return true;
    int64_t bound = number->constant;
    Selector test = part;
    switch (part.kind) {
    case Selector::Ids:
      if (!(direction == "GE" && bound <= 0) &&
          !(direction == "LE" && bound >= Choices::expertsOf(part.ids) - 1))
        return true;
      test = {Selector::Truth, part.axes, part.ids};
      break;
    case Selector::Place:
      if (part.on != 0 || countAxis(part.axes, 'e') > 0 || part.zeroFrom)
        return true;
      if (direction == "GE" && bound <= 0) {
        test = {Selector::Truth, part.axes, part.ids};
        break;
      }
      if (direction != "LE" || bound < 0)
        return true;
      test.kind = Selector::Product;
      test.off.reset();
      test.kept = bound + 1;
      break;
    case Selector::Index: {
      // The group, along its own dimension.
      const auto *at = llvm::find(part.axes, "i");
      if (at == part.axes.end() ||
          (!(direction == "GE" && bound <= 0) &&
           !(direction == "LE" &&
             bound >= tensorOf(op->getOperand(0))
                              .getDimSize(at - part.axes.begin()) -
                          1)))
        return true;
      test = {Selector::Truth, vector.back().axes, vector.back().ids};
      break;
    }
    default:
      return true;
    }
    made.push_back(test);
  }
  vectors[op->getResult(0)] = made;
  return true;
}

bool Selectors::visitVector(Operation *op, StringRef name) {
  if (op->getNumOperands() == 0)
    return false;
  Value result = op->getResult(0);
  RankedTensorType to = tensorOf(result);
  if (name == "compare")
    return compareVector(op);
  SmallVector<Selector, 2> vector(getVector(op->getOperand(0)));
  if (vector.empty())
    return false;
  RankedTensorType from = tensorOf(op->getOperand(0));
  int64_t last = from.getRank() - 1;
  if (name == "convert") {
    if (isa<IntegerType>(to.getElementType()) &&
        to.getElementTypeBitWidth() >= 32)
      vectors[result] = vector;
  } else if (name == "reshape") {
    // The vectors stay whole.
    if (to.getRank() == 0 || to.getShape().back() != int64_t(vector.size()))
      return true;
    for (Selector &part : vector) {
      // An index has no ids.
      AxisExtents extents = part.ids ? extentsOf(part) : AxisExtents{};
      std::optional<Axes> axes =
          reshapeAxes(part.axes, from.getShape().drop_back(),
                      to.getShape().drop_back(), extents);
      if (!axes)
        return true;
      part.axes = *axes;
      part.groups = extents.groups;
    }
    vectors[result] = vector;
  } else if (name == "slice") {
    auto starts = integersOf(op, "start_indices"),
         strides = integersOf(op, "strides");
    if (!starts || !strides || int64_t(starts->size()) != last + 1 ||
        to.getRank() != last + 1 || to.getDimSize(last) != 1 ||
        to.getShape().drop_back() != from.getShape().drop_back() ||
        !llvm::all_of(ArrayRef(*starts).drop_back(),
                      [](int64_t start) { return start == 0; }) ||
        starts->back() < 0 || starts->back() >= int64_t(vector.size()))
      return true;
    Selector part = vector[starts->back()];
    part.axes.push_back("");
    set(op, part);
  } else if (name == "and") {
    ArrayRef<Selector> other = getVector(op->getOperand(1));
    if (other.size() != vector.size())
      return true;
    for (auto [part, with] : llvm::zip_equal(vector, other)) {
      std::optional<Selector> both = bothOf(part, with);
      if (!both)
        return true;
      part = *both;
    }
    vectors[result] = vector;
  } else if (name == "reduce") {
    if (op->getNumOperands() != 2 || updateOf(op) != Update::And ||
        splatOf(op->getOperand(1)) != 1.0 ||
        integersOf(op, "dimensions") != Dims{last})
      return true;
    std::optional<Selector> both = vector.front();
    for (const Selector &part : ArrayRef(vector).drop_front())
      both = both ? bothOf(*both, part) : both;
    if (both)
      set(op, *both);
  }
  return true;
}
