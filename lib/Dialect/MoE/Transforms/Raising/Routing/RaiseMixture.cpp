//===- RaiseMixture.cpp - Sums of rows of experts without a sort ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The end of a layer without sorted choices: the columns of each token and
// expert times weights that are 0 but for the choices, those of each expert and
// slot times the tensor that combines them (GShard, Mesh-TensorFlow), or those
// of each choice times its weight; added up for each token. A weight of 0 does
// not let a NaN or infinity of an expert through that the token did not choose.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Extents.h"
#include "Routing/Groups/GroupRows.h"
#include "Routing/Groups/ScaledRows.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

namespace {
/// Σ of rows with `axes`, of the tokens and columns in this order.
struct Mixture {
  RowLayout layout;
  Selector selector; // the weights
  Value rows;
  Axes axes;
  // Of a product that is summed over the experts, too: its weights.
  Value product = {};
  bool transposed = false;
  bool isScaled = false; // rows were weighed before the experts
};
} // namespace

/// The layout whose rows a selector weighs; none if it does not.
static std::optional<RowLayout> layoutOf(const Selector &selector) {
  if (selector.kind != Selector::Product || !selector.hot || selector.unless ||
      countAxis(selector.axes, 'k') > 0 || countAxis(selector.axes, 'e') != 1 ||
      !hasTokens(selector.axes) || selector.otherSlots ||
      (selector.zeroFrom && selector.zeroFrom != selector.kept))
    return std::nullopt;
  if (!selector.slot)
    return selector.kept ? std::nullopt : std::optional(RowLayout::Dense);
  if (countAxis(selector.axes, 'c') != 1 ||
      (selector.kept && selector.kept < selector.slots))
    return std::nullopt;
  return RowLayout::Slots;
}

/// The gates of a block, whose choices may be weighed without a mask.
static SmallVector<Selector> choicesOf(Routing &routing) {
  SmallVector<Selector> found;
  for (Value ids : routing.gates) {
    std::optional<Selector> selector = routing.selectors.get(ids);
    if (selector)
      found.push_back(*selector);
  }
  return found;
}

/// A product that contracts what the weights are along.
static SmallVector<Mixture, 1> matchDot(Operation *op, Routing &routing) {
  SmallVector<Mixture, 1> found;
  auto result = tensorOf(op->getResult(0));
  if (!result || result.getRank() < 2 || result.getRank() > 3 ||
      (result.getRank() == 3 && !result.hasStaticShape()))
    return found;
  std::optional<Contraction> dot = readContraction(op);
  if (!dot)
    return found;
  ArrayRef<unsigned> tokens = ArrayRef(dot->outLoops).drop_back();
  auto add = [&](unsigned weights, RowLayout layout, Selector selector,
                 const Axes &of) {
    llvm::SmallDenseMap<unsigned, std::string> along;
    for (auto [loop, names] : llvm::zip_equal(dot->loops(weights), of)) {
      bool isSummed = !llvm::is_contained(dot->outLoops, loop);
      // The tokens stay, all else is summed.
      if (!names.empty() &&
          isSummed == (names == "t" || names == "g" || names == "s"))
        return;
      along[loop] = names;
    }
    Axes kept;
    for (unsigned loop : tokens)
      kept.push_back(along.lookup(loop));
    // A batch may have one sequence, or each one token.
    llvm::erase(kept, "");
    if ((kept != Axes{"t"} && kept != Axes{"g", "s"}) ||
        along.contains(dot->outLoops.back()))
      return;
    Axes axes;
    for (unsigned loop : dot->loops(1 - weights)) {
      auto known = along.find(loop);
      axes.push_back(known == along.end() ? "n" : known->second);
    }
    if (countAxis(axes, 'n') == 1)
      found.push_back(
          {layout, std::move(selector), dot->operand(1 - weights), axes});
  };
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> selector = routing.selectors.get(dot->operand(i));
    if (selector) {
      if (std::optional<RowLayout> layout = layoutOf(*selector))
        add(i, *layout, *selector, selector->axes);
      continue;
    }
    RankedTensorType type = tensorOf(dot->operand(i));
    if (!type || type.getRank() != 2)
      continue;
    for (Selector choices : choicesOf(routing)) {
      choices.weights =
          Selectors::weightsOf(dot->operand(i), choices.axes, choices.ids);
      if (choices.weights)
        add(i, RowLayout::Choices, choices, choices.axes);
    }
  }
  return found;
}

/// Returns the product whose factors are the rows [.., e, ..] and a mask of
/// weights, where the dimensions have these axes.
static std::optional<Mixture> matchWeighted(Value value, const Axes &axes,
                                            Routing &routing) {
  Operation *op = value.getDefiningOp();
  bool isProduct = isNamed(op, "stablehlo.multiply");
  std::optional<Contraction> dot =
      op && !isProduct ? readContraction(op) : std::nullopt;
  if (!isProduct && !dot)
    return std::nullopt;
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> selector = routing.selectors.get(op->getOperand(i));
    if (!selector || layoutOf(*selector) != RowLayout::Dense)
      continue;
    Axes of = axes, mask;
    if (dot) {
      // All dimensions stay: each element is multiplied.
      auto axesOf = [&](ArrayRef<unsigned> loops) {
        Axes found;
        for (unsigned loop : loops) {
          auto at = llvm::find(dot->outLoops, loop);
          found.push_back(at == dot->outLoops.end()
                              ? "?"
                              : axes[at - dot->outLoops.begin()]);
        }
        return found;
      };
      mask = axesOf(dot->loops(i));
      of = axesOf(dot->loops(1 - i));
      if (of.size() != axes.size())
        continue;
    } else {
      mask = axes;
      for (std::string &names : mask)
        if (names == "n")
          names = "*";
    }
    if (selector->axes == mask && countAxis(of, '?') == 0)
      return Mixture{RowLayout::Dense, *selector,
                     dot ? dot->operand(1 - i) : op->getOperand(1 - i), of};
  }
  return std::nullopt;
}

/// A product of weighted rows [t, e, x] with weights [e, x, n] that is summed
/// over the experts, as einsums of three operands are.
static SmallVector<Mixture, 1> matchSummedDot(Operation *op, Routing &routing) {
  auto result = tensorOf(op->getResult(0));
  std::optional<Contraction> dot = readContraction(op);
  if (!dot || !result || result.getRank() != 2)
    return {};
  for (unsigned i : {0u, 1u}) {
    RankedTensorType type = tensorOf(dot->operand(i));
    ArrayRef<unsigned> loops = dot->loops(i);
    if (!type || type.getRank() != 3 || !type.hasStaticShape() ||
        dot->loops(1 - i).size() != 3)
      continue;
    bool transposed = loops[1] == dot->outLoops[1];
    unsigned expert = loops[0], contracted = loops[transposed ? 2 : 1];
    if (loops[transposed ? 1 : 2] != dot->outLoops[1])
      continue;
    Axes axes;
    for (unsigned loop : dot->loops(1 - i))
      axes.push_back(loop == dot->outLoops[0] ? "t"
                     : loop == expert         ? "e"
                     : loop == contracted     ? "n"
                                              : "?");
    if (countAxis(axes, 't') != 1 || countAxis(axes, 'e') != 1 ||
        countAxis(axes, 'n') != 1)
      continue;
    std::optional<Mixture> found =
        matchWeighted(dot->operand(1 - i), axes, routing);
    if (!found || type.getDimSize(0) != Choices::expertsOf(found->selector.ids))
      continue;
    found->product = dot->operand(i);
    found->transposed = transposed;
    return {*found};
  }
  return {};
}

/// Returns the product whose elements `value` has, perhaps in another shape,
/// with its axes for those of `value`.
static Operation *skipReshapes(Value value, Axes &axes, AxisExtents extents) {
  while (Operation *op = value.getDefiningOp()) {
    if (isNamed(op, "stablehlo.multiply"))
      return op;
    if (!isReshape(op))
      break;
    std::optional<Axes> of =
        reshapeAxes(axes, tensorOf(value).getShape(),
                    tensorOf(op->getOperand(0)).getShape(), extents);
    if (!of)
      break;
    axes = *of;
    value = op->getOperand(0);
  }
  return nullptr;
}

/// A sum over the experts or choices of rows times weights.
static SmallVector<Mixture, 1> matchSum(Operation *op, Routing &routing) {
  SmallVector<Mixture, 1> found;
  auto dims = integersOf(op, "dimensions");
  if (op->getNumOperands() != 2 || updateOf(op) != Update::Add || !dims ||
      dims->size() != 1 || splatOf(op->getOperand(1)) != 0.0)
    return found;
  auto type = tensorOf(op->getOperand(0));
  int64_t summed = dims->front();
  if (!type || summed < 0 || summed >= type.getRank())
    return found;
  bool isBatch = type.getRank() == 4 && type.hasStaticShape();
  if (type.getRank() != 3 && !isBatch)
    return found;
  auto axesFor = [&](StringRef summedAxis) {
    Axes axes(3, "n");
    axes[summed] = summedAxis;
    axes[1 - summed] = "t";
    return axes;
  };
  auto repeated = [](Axes axes) {
    for (std::string &names : axes)
      if (names == "n")
        names = "*";
    return axes;
  };
  // Of the experts.
  if (Operation *product = definedBy(op->getOperand(0), "stablehlo.multiply"))
    for (unsigned i : {0u, 1u}) {
      std::optional<Selector> selector =
          routing.selectors.get(product->getOperand(i));
      // The columns are last in the result.
      size_t last = type.getRank() - (summed == type.getRank() - 1 ? 2 : 1);
      if (!selector || layoutOf(*selector) != RowLayout::Dense ||
          selector->axes[summed] != "e" || selector->axes[last] != "*")
        continue;
      Axes axes = selector->axes, tokens;
      axes[last] = "n";
      for (auto [dim, names] : llvm::enumerate(selector->axes))
        if (dim != last && int64_t(dim) != summed)
          tokens.push_back(names);
      llvm::erase(tokens, "");
      if (tokens == Axes{"t"} || tokens == Axes{"g", "s"})
        found.push_back(
            {RowLayout::Dense, *selector, product->getOperand(1 - i), axes});
    }
  if (isBatch || summed == 2)
    return found;
  // Of the choices.
  for (const Selector &known : choicesOf(routing)) {
    Axes axes = axesFor(known.axes[1]);
    Operation *product = summed == 1 ? skipReshapes(op->getOperand(0), axes,
                                                    Selectors::extentsOf(known))
                                     : nullptr;
    for (unsigned i : {0u, 1u}) {
      if (!product)
        continue;
      Selector choices = known;
      std::optional<Selector> mask =
          routing.selectors.get(product->getOperand(i));
      if (mask) {
        // Weights that are 0 for dropped choices.
        if (mask->kind != Selector::Product || mask->hot || mask->slot ||
            mask->unless || mask->zeroFrom || !mask->kept ||
            mask->ids != known.ids || mask->axes != repeated(axes))
          continue;
        choices.kept = mask->kept;
        choices.inGroups = mask->inGroups;
        choices.weights = mask->weights;
      } else {
        choices.weights = Selectors::weightsOf(product->getOperand(i),
                                               repeated(axes), choices.ids);
      }
      if (choices.weights)
        found.push_back(
            {RowLayout::Choices, choices, product->getOperand(1 - i), axes});
    }
  }
  return found;
}

/// A sum over the experts of all rows, which were weighed before.
static SmallVector<Mixture, 1> matchScaledSum(Operation *op, Routing &routing) {
  SmallVector<Mixture, 1> found;
  auto dims = integersOf(op, "dimensions");
  auto type = op->getNumOperands() == 2 ? tensorOf(op->getOperand(0))
                                        : RankedTensorType();
  if (!type || type.getRank() != 3 || updateOf(op) != Update::Add || !dims ||
      dims->size() != 1 || dims->front() < 0 || dims->front() > 1 ||
      splatOf(op->getOperand(1)) != 0.0)
    return found;
  int64_t summed = dims->front();
  Axes axes{"n", "n", "n"};
  axes[summed] = "e";
  axes[1 - summed] = "t";
  for (const auto &[value, selector] : routing.selectors.all()) {
    if (layoutOf(selector) != RowLayout::Dense || !selector.weights ||
        Choices::expertsOf(selector.ids) != type.getDimSize(summed) ||
        llvm::any_of(found, [&, &mask = selector](const Mixture &other) {
          return haveSameWeights(other.selector, mask);
        }))
      continue;
    if (!isZeroOutside(selector, op->getOperand(0), routing))
      continue;
    Mixture mixture{RowLayout::Dense, selector, op->getOperand(0), axes};
    mixture.isScaled = true;
    found.push_back(mixture);
  }
  return found;
}

/// Rows of the choices that are gathered from slots are those of the slots;
/// false for others that are dropped.
static bool lookThroughSlots(Mixture &mixture, Routing &routing) {
  if (mixture.layout != RowLayout::Choices)
    return true;
  Selector &selector = mixture.selector;
  int64_t kept = std::exchange(selector.kept, 0);
  std::optional<SlotGather> gather =
      matchSlotGather(mixture.rows, mixture.axes, selector.ids, kept,
                      selector.inGroups, routing);
  if (!gather)
    return kept == 0;
  mixture.layout = RowLayout::Slots;
  mixture.rows = gather->rows;
  mixture.axes = {"e", "c", "n"};
  selector.slots = gather->slots;
  selector.byChoice = gather->byChoice;
  selector.inGroups = gather->groups > 0;
  if (selector.inGroups) {
    selector.groups = gather->groups;
    mixture.axes.insert(mixture.axes.begin(), "g");
  }
  return true;
}

bool mlir::moe::raising::raiseMixture(Operation *op, Routing &routing) {
  if (routing.gates.empty())
    return false;
  SmallVector<Mixture, 1> found;
  if (isNamed(op, "stablehlo.dot_general")) {
    found = matchDot(op, routing);
    found.append(matchSummedDot(op, routing));
  } else if (isNamed(op, "stablehlo.reduce")) {
    found = matchSum(op, routing);
    if (found.empty())
      found = matchScaledSum(op, routing);
  }
  for (Mixture &mixture : found) {
    if (!lookThroughSlots(mixture, routing))
      continue;
    RowGrouper grouper(routing, op, mixture.layout, mixture.selector);
    grouper.isScaled = mixture.isScaled;
    Value rows = grouper.group(mixture.rows, mixture.axes, mixture.product,
                               mixture.transposed,
                               getElementTypeOrSelf(op->getResult(0)));
    if (rows && replaceByCombination(
                    op, routing, rows, grouper.getPositions(),
                    mixture.isScaled ? Value() : grouper.getWeights(), {}))
      return true;
  }
  return false;
}
