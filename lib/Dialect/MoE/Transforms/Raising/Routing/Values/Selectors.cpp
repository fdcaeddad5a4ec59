//===- Selectors.cpp - Masks and weights of choices ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Routing/Values/Selectors.h"
#include "Extents.h"
#include "Routing/Values/Choices.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

bool mlir::moe::raising::hasChoiceAxis(const Selector &selector) {
  return topKOf(selector.ids) == 1 || countAxis(selector.axes, 'k') > 0;
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

AxisExtents Selectors::extentsOf(const Selector &selector) {
  return {tensorOf(selector.ids).getDimSize(0), topKOf(selector.ids),
          Choices::expertsOf(selector.ids),
          selector.slots ? selector.slots + selector.otherSlots
                         : ShapedType::kDynamic,
          selector.groups};
}

std::optional<Selector> Selectors::get(Value value) const {
  if (auto found = selectors.find(value); found != selectors.end())
    return found->second;
  Value ids = Choices::idsOf(value);
  if (!ids || ids != value)
    return std::nullopt;
  Selector selector{Selector::Ids, {"t", topKOf(ids) == 1 ? "" : "k"}, ids};
  // Extents of 1 say nothing of what a dimension is.
  AxisExtents extents = extentsOf(selector);
  if (extents.tokens == 1 || extents.experts == 1)
    return std::nullopt;
  return selector;
}

void Selectors::set(Operation *op, Selector selector) {
  auto type = tensorOf(op->getResult(0));
  if (!type || type.getRank() != int64_t(selector.axes.size()) ||
      selector.slots == 1 ||
      (selector.expert && (selector.isPlaceful() || selector.unless)))
    return;
  for (char axis : {'t', 'g', 's', 'k', 'e', 'c', 'i'})
    if (countAxis(selector.axes, axis) > 1)
      return;
  selectors.insert({op->getResult(0), std::move(selector)});
}

/// Goes from a value to the one that it repeats or arranges otherwise, whose
/// axes follow; false if it is computed otherwise.
static bool skipView(Value &value, Axes &axes, AxisExtents &extents) {
  RankedTensorType type = tensorOf(value);
  Operation *op = value.getDefiningOp();
  if (!op || op->getNumOperands() == 0)
    return false;
  Value from = op->getOperand(0);
  RankedTensorType source = tensorOf(from);
  if (!source)
    return false;
  std::optional<Axes> of;
  if (isBroadcast(op)) {
    // Where the value is repeated, it has no axis of the choices.
    of = sourceAxes(op, axes);
  } else if (isReshape(op)) {
    of = reshapeAxes(axes, type.getShape(), source.getShape(), extents);
  } else if (isNamed(op, "stablehlo.transpose")) {
    auto permutation = integersOf(op, "permutation");
    if (!permutation || permutation->size() != axes.size())
      return false;
    of.emplace(axes.size());
    for (auto [index, dim] : llvm::enumerate(*permutation)) {
      if (dim < 0 || dim >= int64_t(axes.size()))
        return false;
      (*of)[dim] = axes[index];
    }
  } else if (isNamed(op, "stablehlo.convert") &&
             type.getElementType().isF32() &&
             isa<FloatType>(source.getElementType()) &&
             source.getElementTypeBitWidth() == 16) {
    of = axes; // Nothing is lost.
  }
  if (!of)
    return false;
  axes = *of;
  value = from;
  return true;
}

/// True for a tensor of floats with these axes.
static bool hasAxes(Value value, const Axes &axes) {
  RankedTensorType type = tensorOf(value);
  return type && type.getRank() == int64_t(axes.size()) &&
         isa<FloatType>(type.getElementType());
}

static bool areWeights(Value value, Value ids) {
  return areWeightsOf(value, ids) && isRowFloat(getElementTypeOrSelf(value));
}

Value Selectors::weightsOf(Value value, const Axes &given, Value ids) {
  Axes axes = given;
  AxisExtents extents = extentsOf(Selector{Selector::Ids, {}, ids});
  const Axes expected{"t", topKOf(ids) == 1 ? "" : "k"};
  while (hasAxes(value, axes)) {
    if (axes == expected && areWeights(value, ids))
      return value;
    if (!skipView(value, axes, extents))
      break;
  }
  return {};
}

std::optional<std::pair<Value, int64_t>>
Selectors::columnOf(Value value, const Axes &given, Value ids) {
  Axes axes = given;
  AxisExtents extents = extentsOf(Selector{Selector::Ids, {}, ids});
  while (hasAxes(value, axes)) {
    Operation *op = value.getDefiningOp();
    auto column = op ? matchColumn(op) : std::nullopt;
    if (column && (axes == Axes{"t"} || axes == Axes{"t", ""}))
      return areWeights(column->first, ids) ? column : std::nullopt;
    if (!skipView(value, axes, extents))
      break;
  }
  return std::nullopt;
}

/// The same, of a value that is computed from at most `budget` others.
static bool isNotNegative(Value value, unsigned &budget) {
  if (std::optional<double> splat = splatOf(value))
    return *splat >= 0;
  Operation *op = value.getDefiningOp();
  if (!op || budget == 0)
    return false;
  --budget;
  if (isa<linalg::SoftmaxOp>(op))
    return true;
  if (auto gate = dyn_cast<GateOp>(op))
    return value == gate.getWeights() && gate.getScore() == Score::None &&
           isNotNegative(gate.getLogits(), budget);
  if (isReshape(op))
    return isNotNegative(op->getOperand(0), budget);
  StringRef name = stablehloName(op);
  if (name.empty() || op->getNumOperands() == 0)
    return false;
  if (name == "softmax" || name == "logistic" || name == "exponential" ||
      name == "abs")
    return true;
  bool isKept = name == "broadcast_in_dim" || name == "reshape" ||
                name == "dynamic_broadcast_in_dim" || name == "convert" ||
                name == "dynamic_reshape" || name == "transpose" ||
                name == "slice";
  if (isKept)
    return isNotNegative(op->getOperand(0), budget);
  if (name == "maximum")
    return isNotNegative(op->getOperand(0), budget) ||
           isNotNegative(op->getOperand(1), budget);
  bool isSum = name == "reduce" && updateOf(op) == Update::Add;
  if (name == "add" || name == "multiply" || name == "divide" || isSum)
    return isNotNegative(op->getOperand(0), budget) &&
           isNotNegative(op->getOperand(1), budget);
  return false;
}

bool mlir::moe::raising::isNotNegative(Value value) {
  unsigned budget = 64;
  return ::isNotNegative(value, budget);
}

//===----------------------------------------------------------------------===//
// Products and sums
//===----------------------------------------------------------------------===//

/// Takes over what only one of two selectors has; false if they differ.
template <typename T> static bool takeOver(T &into, const T &other) {
  if (!into)
    into = other;
  return !other || into == other;
}

std::optional<Selector> Selectors::product(const Selector &a,
                                           const Selector &b) const {
  if (a.kind != Selector::Product || b.kind != Selector::Product ||
      a.ids != b.ids)
    return std::nullopt;
  // Of one token no two choices have one expert: sums over the choices are
  // multiplied expert by expert.
  bool isSummed = !hasChoiceAxis(a) || !hasChoiceAxis(b);
  auto isByExpert = [](const Selector &selector) {
    return selector.hot &&
           (countAxis(selector.axes, 'e') > 0 || selector.expert);
  };
  if (isSummed && !(isByExpert(a) && isByExpert(b)))
    return std::nullopt;
  std::optional<Axes> axes = mergeAxes(a.axes, b.axes);
  if (!axes || (a.weights && b.weights) ||
      (a.isPlaceful() && b.isPlaceful() && !a.countsAs(b)))
    return std::nullopt;
  Selector made = a;
  made.axes = *axes;
  made.hot |= b.hot;
  made.slot |= b.slot;
  made.byChoice |= b.byChoice;
  made.inGroups |= b.inGroups;
  // Both have slots, or only one of them.
  if (a.slot && b.slot && a.otherSlots != b.otherSlots)
    return std::nullopt;
  made.otherSlots = std::max(a.otherSlots, b.otherSlots);
  if (!takeOver(made.groups, b.groups) || !takeOver(made.slots, b.slots) ||
      !takeOver(made.weights, b.weights) || !takeOver(made.unless, b.unless) ||
      !takeOver(made.zeroFrom, b.zeroFrom) || a.expert != b.expert)
    return std::nullopt;
  if (b.weights)
    made.functions = b.functions;
  if (b.kept)
    made.kept = made.kept ? std::min(made.kept, b.kept) : b.kept;
  return made;
}

std::optional<Selector> Selectors::placeWhere(const Selector &place,
                                              const Selector &mask) const {
  if (mask.kind != Selector::Product || mask.weights || mask.slot ||
      mask.unless || mask.expert || place.ids != mask.ids || place.zeroFrom ||
      (mask.isPlaceful() && !place.countsAs(mask)) ||
      hasChoiceAxis(place) != hasChoiceAxis(mask))
    return std::nullopt;
  std::optional<Axes> axes = mergeAxes(place.axes, mask.axes);
  if (!axes)
    return std::nullopt;
  Selector made = place;
  made.axes = *axes;
  if (mask.hot)
    made.off = 0;
  else if (made.off != 0)
    made.off.reset();
  made.zeroFrom = mask.kept;
  return made;
}

std::optional<Selector> Selectors::sum(Selector selector, char axis) const {
  bool isByExpert = countAxis(selector.axes, 'e') > 0 || selector.expert;
  switch (axis) {
  case 'k':
    // At most one choice of a token has the expert.
    if (!isByExpert ||
        (selector.kind == Selector::Place ? selector.off != 0 : !selector.hot))
      return std::nullopt;
    return selector;
  case 'e':
    // One expert is that of the choice.
    if (!hasChoiceAxis(selector) ||
        (selector.kind == Selector::Place ? selector.off != 0 : !selector.hot))
      return std::nullopt;
    selector.hot = false;
    selector.off.reset();
    return selector;
  case 'c':
    // One slot is that of the place, if it is below their number.
    // That of a dropped choice may be any one.
    if (selector.kind != Selector::Product || !selector.slot ||
        selector.otherSlots ||
        (selector.zeroFrom && selector.kept != selector.zeroFrom))
      return std::nullopt;
    selector.kept = selector.kept ? std::min(selector.kept, selector.slots)
                                  : selector.slots;
    selector.slot = false;
    selector.slots = 0;
    return selector;
  default:
    return std::nullopt;
  }
}
