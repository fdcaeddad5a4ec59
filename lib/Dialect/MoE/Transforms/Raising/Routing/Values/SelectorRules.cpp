//===- SelectorRules.cpp - Operations on masks and weights ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Extents.h"
#include "Routing/Values/Choices.h"
#include "Routing/Values/Selectors.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

/// True for a type that counts exactly.
static bool isExact(Value value) {
  Type element = getElementTypeOrSelf(value);
  return element.isF32() || element.isF64() ||
         (isa<IntegerType>(element) && element.getIntOrFloatBitWidth() >= 32);
}

/// True for a product of one factor alone.
static bool isPlainHot(const Selector &selector) {
  return selector.kind == Selector::Product && selector.hot && !selector.slot &&
         !selector.weights && !selector.kept && !selector.unless &&
         !selector.expert;
}

void Selectors::visit(Operation *op) {
  using Rule = void (Selectors::*)(Operation *);
  static const llvm::StringMap<Rule> rules{
      {"reshape", &Selectors::visitView},
      {"dynamic_reshape", &Selectors::visitView},
      {"convert", &Selectors::visitView},
      {"broadcast_in_dim", &Selectors::visitView},
      {"dynamic_broadcast_in_dim", &Selectors::visitView},
      {"transpose", &Selectors::visitView},
      {"iota", &Selectors::visitIota},
      {"dynamic_iota", &Selectors::visitIota},
      {"compare", &Selectors::visitCompare},
      {"multiply", &Selectors::visitMultiply},
      {"and", &Selectors::visitMultiply},
      {"add", &Selectors::visitAdd},
      {"subtract", &Selectors::visitAdd},
      {"select", &Selectors::visitSelect},
      {"minimum", &Selectors::visitBound},
      {"maximum", &Selectors::visitBound},
      {"reduce", &Selectors::visitReduce},
      {"reduce_window", &Selectors::visitCumulativeSum},
      {"custom_call", &Selectors::visitCumulativeSum},
      {"cumulative_sum", &Selectors::visitCumulativeSum},
      {"dot_general", &Selectors::visitDot},
      {"scatter", &Selectors::visitScatter},
      {"slice", &Selectors::visitSlice},
      {"concatenate", &Selectors::visitConcatenate},
      {"logistic", &Selectors::visitScore},
      {"softmax", &Selectors::visitScore},
  };
  StringRef name = isReshape(op) ? "reshape" : stablehloName(op);
  if (isa<linalg::SoftmaxOp>(op))
    name = "softmax";
  if (isa<tensor::ExtractSliceOp>(op))
    name = "slice";
  if (name.empty() || op->getNumResults() != 1 || !tensorOf(op->getResult(0)))
    return;
  if (!vectors.empty() && visitVector(op, name))
    return;
  auto rule = rules.find(name);
  if (rule != rules.end())
    (this->*rule->second)(op);
}

void Selectors::visitView(Operation *op) {
  std::optional<Selector> selector = get(op->getOperand(0));
  if (!selector)
    return;
  RankedTensorType from = tensorOf(op->getOperand(0)),
                   to = tensorOf(op->getResult(0));
  if (isNamed(op, "stablehlo.convert")) {
    bool isKept = selector->kind == Selector::Truth ||
                  from.getElementType() == to.getElementType();
    if (selector->kind == Selector::Scores || !selector->functions.empty()) {
      // Rounded as the program does.
      selector->functions.push_back(op);
      isKept = isa<FloatType>(from.getElementType()) &&
               isa<FloatType>(to.getElementType());
    } else if (selector->kind == Selector::Product) {
      // Ones and zeros are those of any type. Weights are not rounded: their
      // products and sums are in f32, or in the type that they have.
      Type element = to.getElementType();
      isKept |= !selector->weights ||
                (isa<FloatType>(from.getElementType()) &&
                 (element.isF32() ||
                  element == getElementTypeOrSelf(selector->weights)));
    } else {
      isKept |= isExact(op->getOperand(0)) && isExact(op->getResult(0));
    }
    if (isKept)
      set(op, *selector);
    return;
  }
  std::optional<Axes> axes;
  AxisExtents extents = {};
  if (isBroadcast(op)) {
    axes = broadcastAxes(op, selector->axes);
  } else if (isReshape(op)) {
    if (selector->kind == Selector::Index) {
      // Dimensions of extent 1 come or go.
      axes =
          reshapeAxes(selector->axes, from.getShape(), to.getShape(), extents);
    } else if (selector->ids) {
      extents = extentsOf(*selector);
      axes =
          reshapeAxes(selector->axes, from.getShape(), to.getShape(), extents);
      selector->groups = extents.groups;
    }
  } else if (auto permutation = integersOf(op, "permutation")) {
    axes.emplace();
    for (int64_t dim : *permutation) {
      if (dim < 0 || dim >= int64_t(selector->axes.size()))
        return;
      axes->push_back(selector->axes[dim]);
    }
  }
  if (!axes)
    return;
  selector->axes = *axes;
  set(op, *selector);
}

void Selectors::visitIota(Operation *op) {
  RankedTensorType type = tensorOf(op->getResult(0));
  auto dim = integersOf(op, "iota_dimension");
  if (!dim || dim->size() != 1 || !isExact(op->getResult(0)) ||
      dim->front() < 0 || dim->front() >= type.getRank())
    return;
  Axes axes;
  for (int64_t extent : type.getShape())
    axes.push_back(extent == 1 ? "" : "*");
  if (axes[dim->front()].empty())
    return;
  axes[dim->front()] = "i";
  set(op, {Selector::Index, axes});
}

/// The direction of a comparison, or of the one of the operands swapped.
static std::string comparisonOf(Operation *op, bool swapped) {
  std::string direction = directionOf(op);
  if (swapped && (direction[0] == 'L' || direction[0] == 'G'))
    direction[0] = direction[0] == 'L' ? 'G' : 'L';
  return direction;
}

void Selectors::visitCompare(Operation *op) {
  for (bool swapped : {false, true}) {
    Value left = op->getOperand(swapped), right = op->getOperand(!swapped);
    std::optional<Selector> selector = get(left);
    if (!selector || directionOf(op).size() != 2)
      continue;
    std::string direction = comparisonOf(op, swapped);
    if (std::optional<Selector> index = get(right);
        index && index->kind == Selector::Index && direction == "EQ" &&
        selector->kind != Selector::Index && selector->ids) {
      // One-hot along the axis that the selector is repeated along.
      RankedTensorType type = tensorOf(right);
      if (index->axes.size() != selector->axes.size())
        return;
      int64_t extent = 0;
      Selector made = *selector;
      made.kind = Selector::Product;
      made.on = 0;
      made.off.reset();
      char axis = selector->kind == Selector::Ids ? 'e' : 'c';
      for (auto [dim, names] : llvm::enumerate(made.axes)) {
        // Along others both may be repeated.
        bool isIndex = index->axes[dim] == "i";
        if (isIndex && names != "*")
          return;
        if (!isIndex)
          continue;
        names = std::string(1, axis);
        extent = type.getDimSize(dim);
      }
      if (selector->kind == Selector::Ids) {
        if (extent != Choices::expertsOf(selector->ids))
          return;
        made.hot = true;
        return set(op, made);
      }
      if (selector->kind != Selector::Place || ShapedType::isDynamic(extent) ||
          selector->on < 0 || selector->on >= extent)
        return;
      made.slot = true;
      made.slots = extent - selector->on;
      made.otherSlots = selector->on;
      if (countAxis(made.axes, 'e') > 0) {
        // Other experts have no slot, or anything, to be multiplied by 0.
        bool isOff = selector->off && (*selector->off < selector->on ||
                                       *selector->off >= extent);
        if (selector->off && !isOff)
          return;
        made.hot = isOff;
      }
      // Dropped choices are at 0, which is none of the slots.
      if (made.zeroFrom && selector->on > 0) {
        made.kept = made.zeroFrom;
        made.zeroFrom = 0;
      }
      return set(op, made);
    }
    std::optional<double> bound = splatOf(right);
    if (!bound)
      continue;
    switch (selector->kind) {
    case Selector::Ids:
      if (direction == "EQ" && *bound >= 0 &&
          *bound < double(Choices::expertsOf(selector->ids)) &&
          *bound == double(int64_t(*bound))) {
        selector->kind = Selector::Product;
        selector->hot = true;
        selector->expert = int64_t(*bound);
        return set(op, *selector);
      }
      if ((direction == "GE" && *bound <= 0) ||
          (direction == "LE" &&
           *bound >= Choices::expertsOf(selector->ids) - 1) ||
          (direction == "LT" && *bound >= Choices::expertsOf(selector->ids)))
        set(op, {Selector::Truth, selector->axes, selector->ids});
      return;
    case Selector::Place: {
      double limit = *bound - double(selector->on) + (direction == "LE");
      if ((direction != "LT" && direction != "LE") || limit < 1 ||
          limit != double(int64_t(limit)) || selector->zeroFrom)
        return;
      Selector made = *selector;
      made.kind = Selector::Product;
      made.on = 0;
      made.off.reset();
      made.kept = int64_t(limit);
      return set(op, made);
    }
    case Selector::Product:
      if (*bound != 0 || (direction != "NE" && direction != "GT") ||
          !selector->functions.empty())
        return;
      if (selector->weights) {
        if (direction == "GT" && !isNotNegative(selector->weights))
          return;
        if (selector->unless && selector->unless != selector->weights)
          return;
        selector->unless = selector->weights;
        selector->weights = {};
      }
      return set(op, *selector);
    default:
      return;
    }
  }
}

bool Selectors::visitNeutral(Operation *op, double neutral) {
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> of = get(op->getOperand(i));
    if (!of || splatOf(op->getOperand(1 - i)) != neutral ||
        of->kind == Selector::Truth)
      continue;
    set(op, *of);
    return true;
  }
  return false;
}

void Selectors::visitMultiply(Operation *op) {
  if (isNamed(op, "stablehlo.multiply") && visitNeutral(op, 1.0))
    return;
  std::optional<Selector> left = get(op->getOperand(0)),
                          right = get(op->getOperand(1));
  if (!left && !right)
    return;
  if (left && right && left->kind == Selector::Truth &&
      right->kind == Selector::Truth && left->axes == right->axes)
    return set(op, *left);
  if (!left || !right) {
    // Weights of the choices.
    const Selector &known = left ? *left : *right;
    if (known.kind != Selector::Product || known.weights)
      return;
    Value weights =
        weightsOf(op->getOperand(left ? 1 : 0), known.axes, known.ids);
    if (!weights || !hasChoiceAxis(known))
      return;
    Selector made = known;
    made.weights = weights;
    return set(op, made);
  }
  if (left->kind == Selector::Product && right->kind == Selector::Product) {
    if (std::optional<Selector> made = product(*left, *right))
      set(op, *made);
    return;
  }
  if (right->kind == Selector::Place)
    std::swap(left, right);
  if (left->kind != Selector::Place)
    return;
  std::optional<Selector> made = placeWhere(*left, *right);
  if (made && made->axes == left->axes)
    set(op, *made);
}

void Selectors::visitAdd(Operation *op) {
  bool isSum = isNamed(op, "stablehlo.add");
  if (isSum && visitNeutral(op, 0.0))
    return;
  for (unsigned i : {0u, 1u}) {
    if (i == 1 && !isSum)
      return;
    std::optional<Selector> place = get(op->getOperand(i));
    Value other = op->getOperand(1 - i);
    if (!place || place->kind != Selector::Place)
      continue;
    if (std::optional<double> splat = splatOf(other)) {
      if (*splat != double(int64_t(*splat)))
        return;
      int64_t step = isSum ? int64_t(*splat) : -int64_t(*splat);
      place->on += step;
      if (place->off)
        *place->off += step;
      return set(op, *place);
    }
    std::optional<Selector> hot = get(other);
    if (place->zeroFrom || !hot || !isPlainHot(*hot) ||
        hot->ids != place->ids || hot->axes != place->axes)
      return;
    place->on += isSum ? 1 : -1;
    return set(op, *place);
  }
}

void Selectors::visitSelect(Operation *op) {
  Value condition = op->getOperand(0), chosen = op->getOperand(1),
        other = op->getOperand(2);
  if (other.getType() != op->getResult(0).getType())
    return;
  // An index below 0 counts from the end: of these none is.
  if (std::optional<Selector> of = get(other);
      of && (of->kind == Selector::Ids || of->kind == Selector::Column ||
             of->kind == Selector::Index ||
             (of->kind == Selector::Place && of->on == 0 &&
              countAxis(of->axes, 'e') == 0))) {
    Operation *test = definedBy(condition, "stablehlo.compare");
    if (test && test->getOperand(0) == other &&
        splatOf(test->getOperand(1)) == 0.0 && directionOf(test) == "LT")
      set(op, *of);
    return;
  }
  std::optional<Selector> mask = get(condition), of = get(chosen);
  std::optional<double> rest = splatOf(other);
  if (!mask || mask->kind != Selector::Product || mask->weights || !rest)
    return;
  if (of && of->kind == Selector::Place) {
    // The place where the choice has the expert.
    if (isPlainHot(*mask) && of->ids == mask->ids && of->axes == mask->axes &&
        !of->zeroFrom && *rest == double(int64_t(*rest))) {
      of->off = int64_t(*rest);
      set(op, *of);
    }
    return;
  }
  if (*rest != 0)
    return;
  if (of && of->kind == Selector::Product) {
    if (std::optional<Selector> made = product(*mask, *of))
      set(op, *made);
  } else if (splatOf(chosen) == 1.0) {
    set(op, *mask);
  } else if (hasChoiceAxis(*mask)) {
    mask->weights = weightsOf(chosen, mask->axes, mask->ids);
    if (mask->weights)
      set(op, *mask);
  }
}

void Selectors::visitBound(Operation *op) {
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> place = get(op->getOperand(i));
    std::optional<double> bound = splatOf(op->getOperand(1 - i));
    if (!place || !bound || place->kind != Selector::Place || place->on != 0 ||
        countAxis(place->axes, 'e') > 0)
      continue;
    if (isNamed(op, "stablehlo.maximum")) {
      // Only those of dropped choices may be below 0.
      if (*bound <= 0)
        set(op, *place);
    } else if (!place->zeroFrom && *bound >= 0 && *bound < (1 << 30) &&
               *bound == double(int64_t(*bound))) {
      // Places from the bound on are wrong, as those of dropped choices are.
      place->zeroFrom = int64_t(*bound) + 1;
      set(op, *place);
    }
    return;
  }
}

void Selectors::visitReduce(Operation *op) {
  auto dims = integersOf(op, "dimensions");
  if (op->getNumOperands() != 2 || !dims)
    return;
  std::optional<Selector> selector = get(op->getOperand(0));
  std::optional<double> start = splatOf(op->getOperand(1));
  if (!selector || !start)
    return;
  Update update = updateOf(op);
  Axes axes;
  for (auto [dim, names] : llvm::enumerate(selector->axes))
    if (!llvm::is_contained(*dims, int64_t(dim)))
      axes.push_back(names);
  if (selector->kind == Selector::Truth) {
    if (update != Update::And || *start != 1)
      return;
    selector->axes = axes;
    return set(op, *selector);
  }
  // Of ones and zeros, of which one at most is a one.
  bool isAny = (update == Update::Or || update == Update::Max) && *start <= 0 &&
               selector->kind == Selector::Product && !selector->weights &&
               (update == Update::Max ||
                getElementTypeOrSelf(op->getOperand(0)).isInteger(1));
  bool isSum = (update == Update::Add && *start == 0) || isAny;
  // Places are at least 0, and the others are less than one of them.
  bool isMax = update == Update::Max && selector->kind == Selector::Place &&
               selector->off && *selector->off <= selector->on &&
               *start <= double(*selector->off);
  if (!selector->ids || !(isSum || isMax))
    return;
  for (int64_t dim : *dims) {
    if (dim < 0 || dim >= int64_t(selector->axes.size()))
      return;
    std::string names = selector->axes[dim];
    if (names.empty())
      continue;
    if (names.size() > 1)
      return;
    if (isMax) {
      if (names == "e" && hasChoiceAxis(*selector))
        selector->off.reset();
      else if (names != "k" || countAxis(selector->axes, 'e') == 0)
        return;
    } else if (std::optional<Selector> made = sum(*selector, names[0])) {
      selector = made;
    } else {
      return;
    }
    selector->axes[dim] = "";
  }
  selector->axes = axes;
  set(op, *selector);
}

void Selectors::visitCumulativeSum(Operation *op) {
  if (op->getNumOperands() == 0 || !isExact(op->getResult(0)))
    return;
  std::optional<Selector> selector = get(op->getOperand(0));
  if (!selector || !isPlainHot(*selector) || !hasChoiceAxis(*selector) ||
      tensorOf(op->getResult(0)) != tensorOf(op->getOperand(0)))
    return;
  std::optional<int64_t> dim = summedDimension(op);
  if (!dim || *dim < 0 || *dim >= int64_t(selector->axes.size()))
    return;
  // Along the choices of all tokens.
  std::string along = selector->axes[*dim];
  bool inGroups = along.find('s') != std::string::npos;
  std::string tokens = inGroups ? "s" : "t";
  bool hasOneChoice = topKOf(selector->ids) == 1;
  if (along != (hasOneChoice ? tokens : tokens + "k") && along != "k" + tokens)
    return;
  Selector made{Selector::Place, selector->axes, selector->ids};
  made.byChoice = along == "k" + tokens;
  made.inGroups = inGroups;
  made.groups = selector->groups;
  made.on = 1;
  set(op, made);
}

void Selectors::visitDot(Operation *op) {
  std::optional<Selector> known[2] = {get(op->getOperand(0)),
                                      get(op->getOperand(1))};
  if (!known[0] && !known[1])
    return;
  std::optional<Contraction> dot = readContraction(op);
  if (!dot)
    return;
  // What each loop is along.
  llvm::SmallDenseMap<unsigned, std::string> along;
  for (unsigned i : {0u, 1u}) {
    if (!known[i])
      continue;
    if (known[i]->kind != Selector::Product &&
        !(known[i]->kind == Selector::Place && isExact(op->getResult(0))))
      return;
    for (auto [loop, names] : llvm::zip_equal(dot->loops(i), known[i]->axes)) {
      std::string &have = along[loop];
      if (have.empty() || have == "*")
        have = names;
      else if (names != "*" && names != have)
        return;
    }
  }
  auto axesOf = [&](ArrayRef<unsigned> loops) -> std::optional<Axes> {
    Axes axes;
    for (unsigned loop : loops) {
      auto found = along.find(loop);
      if (found == along.end())
        return std::nullopt;
      axes.push_back(found->second);
    }
    return axes;
  };
  // All loops, as the axes of the product.
  Axes all;
  unsigned count = 0;
  for (unsigned i : {0u, 1u})
    for (unsigned loop : dot->loops(i))
      count = std::max(count, loop + 1);
  auto spread = [&](const Axes &axes, ArrayRef<unsigned> loops) {
    Axes wide(count, "*");
    for (auto [names, loop] : llvm::zip_equal(axes, loops))
      wide[loop] = names;
    return wide;
  };
  std::optional<Selector> made;
  if (known[0] && known[1]) {
    for (unsigned i : {0u, 1u})
      known[i]->axes = spread(known[i]->axes, dot->loops(i));
    unsigned place = known[0]->kind == Selector::Place ? 0 : 1;
    made = known[place]->kind == Selector::Place
               ? placeWhere(*known[place], *known[1 - place])
               : product(*known[0], *known[1]);
  } else {
    unsigned i = known[0] ? 0 : 1;
    if (known[i]->kind != Selector::Product)
      return;
    std::optional<Axes> axes = axesOf(dot->loops(1 - i));
    if (!axes || known[i]->weights || !hasChoiceAxis(*known[i]))
      return;
    Value weights = weightsOf(dot->operand(1 - i), *axes, known[i]->ids);
    if (!weights)
      return;
    made = known[i];
    made->axes = spread(known[i]->axes, dot->loops(i));
    made->weights = weights;
  }
  if (!made)
    return;
  for (unsigned loop = 0; loop < count; ++loop) {
    if (llvm::is_contained(dot->outLoops, loop))
      continue;
    std::string names = made->axes[loop];
    if (names.empty())
      continue;
    std::optional<Selector> total =
        names.size() == 1 ? sum(*made, names[0]) : std::nullopt;
    if (!total)
      return;
    made = total;
    made->axes[loop] = "";
  }
  Axes axes;
  for (unsigned loop : dot->outLoops)
    axes.push_back(made->axes[loop]);
  made->axes = axes;
  set(op, *made);
}
