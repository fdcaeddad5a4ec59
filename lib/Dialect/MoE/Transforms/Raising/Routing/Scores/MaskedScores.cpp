//===- MaskedScores.cpp - Scores of all experts under a mask -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Weights may be the scores of all experts, [T, E], times a mask of the chosen
// ones, and divided by their sum. They are computed of the choices alone: the
// scores at their ids, the sum of these, and their quotient.
//
//===----------------------------------------------------------------------===//

#include "Contraction.h"
#include "Extents.h"
#include "Gate/Match.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

using Dims = SmallVector<int64_t>;

bool mlir::moe::raising::areExperts(Value ids) {
  auto gate = ids.getDefiningOp<GateOp>();
  return gate && gate.getGivenIds() && gate.getTopK() == gate.getNumExperts();
}

/// True for a mask [T, E] of the experts that a token chose, or [G, S, E] of
/// groups of tokens, perhaps times their weights.
static bool isMask(const std::optional<Selector> &selector, bool isWeighted) {
  return selector && selector->kind == Selector::Product && selector->hot &&
         !selector->isPlaceful() && !selector->unless && !selector->expert &&
         selector->functions.empty() && bool(selector->weights) == isWeighted &&
         (selector->axes == Axes{"t", "e"} ||
          selector->axes == Axes{"g", "s", "e"});
}

namespace {
/// Builds operations on the choices before `op`.
class ChoiceBuilder {
public:
  ChoiceBuilder(Routing &routing, Operation *op)
      : routing(routing), b(routing.rewriter), loc(op->getLoc()) {
    b.setInsertionPoint(op);
  }

  /// Returns the elements of `scores` [T, E] at ids [T, K].
  Value choose(Value scores, Value ids) {
    auto gate = ids.getDefiningOp<GateOp>();
    if (hasPlainWeights(gate) && gate.getLogits() == scores &&
        !gate.getBias() &&
        getElementTypeOrSelf(gate.getWeights()) == getElementTypeOrSelf(scores))
      return gate.getWeights();
    RankedTensorType type = tensorOf(ids);
    return generic(ids, {AffineMap::getMultiDimIdentityMap(2, b.getContext())},
                   type.clone(getElementTypeOrSelf(scores)),
                   [&](OpBuilder &b, Location loc, ValueRange x) {
                     Value row = linalg::IndexOp::create(b, loc, 0);
                     Value column = arith::IndexCastOp::create(
                         b, loc, b.getIndexType(), x[0]);
                     Value element = tensor::ExtractOp::create(
                         b, loc, scores, ValueRange{row, column});
                     linalg::YieldOp::create(b, loc, element);
                   });
  }

  /// Returns the sums over the choices of weights [T, K].
  Value sum(Value weights) {
    RankedTensorType type = tensorOf(weights);
    Type element = type.getElementType();
    if (type.getDimSize(1) == 1)
      return keep(tensor::CollapseShapeOp::create(
                      b, loc, weights, ArrayRef<ReassociationIndices>{{0, 1}}))
          ->getResult(0);
    // In f32, and rounded once.
    Type f32 = b.getF32Type();
    Value zero = keep(arith::ConstantOp::create(b, loc, b.getF32FloatAttr(0)))
                     ->getResult(0);
    Value init = empty(weights, f32, 1);
    init = keep(linalg::FillOp::create(b, loc, zero, init))->getResult(0);
    AffineMap all = b.getMultiDimIdentityMap(2);
    auto total = linalg::GenericOp::create(
        b, loc, init.getType(), weights, init,
        SmallVector{all, all.getMajorSubMap(1)},
        SmallVector{utils::IteratorType::parallel,
                    utils::IteratorType::reduction},
        [&](OpBuilder &b, Location loc, ValueRange x) {
          Value value = element == f32
                            ? x[0]
                            : Value(arith::ExtFOp::create(b, loc, f32, x[0]));
          linalg::YieldOp::create(
              b, loc, arith::AddFOp::create(b, loc, x[1], value).getResult());
        });
    Value result = keep(total)->getResult(0);
    return element == f32
               ? result
               : keep(arith::TruncFOp::create(
                          b, loc, tensorOf(result).clone(element), result))
                     ->getResult(0);
  }

  /// Returns weights [T, K] times or divided by a number of each token, [T] or
  /// [T, 1], or one of all.
  Value scale(Value weights, Value by, bool divides) {
    RankedTensorType type = tensorOf(weights);
    Type element = type.getElementType(), f32 = b.getF32Type();
    AffineExpr token = b.getAffineDimExpr(0);
    SmallVector<AffineExpr> place;
    if (tensorOf(by).getRank() > 0)
      place.push_back(token);
    if (tensorOf(by).getRank() == 2)
      place.push_back(b.getAffineConstantExpr(0));
    Value init = empty(weights, element, 2);
    AffineMap all = b.getMultiDimIdentityMap(2);
    auto made = linalg::GenericOp::create(
        b, loc, type, ValueRange{weights, by}, init,
        SmallVector{all, AffineMap::get(2, 0, place, b.getContext()), all},
        SmallVector(2, utils::IteratorType::parallel),
        [&](OpBuilder &b, Location loc, ValueRange x) {
          Value values[2] = {x[0], x[1]};
          if (element != f32)
            for (Value &value : values)
              value = arith::ExtFOp::create(b, loc, f32, value);
          Value result =
              divides ? arith::DivFOp::create(b, loc, values[0], values[1])
                            .getResult()
                      : arith::MulFOp::create(b, loc, values[0], values[1])
                            .getResult();
          if (element != f32)
            result = arith::TruncFOp::create(b, loc, element, result);
          linalg::YieldOp::create(b, loc, result);
        });
    return keep(made)->getResult(0);
  }

private:
  /// What nothing uses is erased at the end.
  template <typename Op> Operation *keep(Op op) {
    routing.made.push_back(op.getOperation());
    return op.getOperation();
  }

  Value empty(Value like, Type element, unsigned rank) {
    SmallVector<OpFoldResult> sizes;
    for (unsigned dim = 0; dim < rank; ++dim) {
      sizes.push_back(tensor::getMixedSize(b, loc, like, dim));
      if (auto size = dyn_cast<Value>(sizes.back()))
        routing.made.push_back(size.getDefiningOp());
    }
    return keep(tensor::EmptyOp::create(b, loc, sizes, element))->getResult(0);
  }

  Value generic(Value input, ArrayRef<AffineMap> maps, RankedTensorType type,
                function_ref<void(OpBuilder &, Location, ValueRange)> body) {
    Value init = empty(input, type.getElementType(), 2);
    SmallVector<AffineMap> all(maps);
    all.push_back(b.getMultiDimIdentityMap(2));
    return keep(linalg::GenericOp::create(
                    b, loc, type, input, init, all,
                    SmallVector(2, utils::IteratorType::parallel), body))
        ->getResult(0);
  }

  Routing &routing;
  RewriterBase &b;
  Location loc;
};
} // namespace

/// Returns the number of each token that a value with these axes repeats along
/// the experts, [T] or [T, 1]; null if it does not.
static Value perToken(Value value, Axes axes, Value ids, Operation *sink,
                      Routing &routing) {
  while (Operation *op = value.getDefiningOp()) {
    RankedTensorType type = tensorOf(value);
    Axes left = axes;
    llvm::erase(left, "");
    if (countAxis(axes, 'e') == 0 &&
        (type.getRank() == int64_t(left.size()) ||
         (type.getRank() == int64_t(left.size()) + 1 &&
          type.getShape().back() == 1)))
      break;
    if (!isBroadcast(op))
      return {};
    std::optional<Axes> of = sourceAxes(op, axes);
    if (!of)
      return {};
    axes = *of;
    value = op->getOperand(0);
  }
  RankedTensorType type = tensorOf(value);
  if (!axes.empty() && axes.back().empty())
    axes.pop_back();
  if (axes == Axes{"g", "s"} && type.hasStaticShape() && !isRead(sink)) {
    routing.rewriter.setInsertionPoint(sink);
    value = buildReshape(
        routing.rewriter, value,
        RankedTensorType::get({type.getNumElements()}, type.getElementType()));
    routing.made.push_back(value.getDefiningOp());
    axes = {"t"};
  }
  return axes == Axes{"t"} && isRowFloat(type.getElementType()) &&
                 haveSameRows(value, ids)
             ? value
             : Value();
}

/// Returns the scores [T, E] that a value with these axes has, perhaps repeated
/// along others, for `sink`; null if it has none.
static Value scoresOf(Value value, Axes axes, const Selector &mask,
                      Operation *sink, Routing &routing) {
  AxisExtents extents = Selectors::extentsOf(mask);
  while (Operation *op = value.getDefiningOp()) {
    if (op->getNumOperands() == 0 ||
        (axes == Axes{"t", "e"} && !isNamed(op, "stablehlo.convert")))
      break;
    Value from = op->getOperand(0);
    std::optional<Axes> of;
    if (isBroadcast(op))
      of = sourceAxes(op, axes);
    else if (isReshape(op))
      of = reshapeAxes(axes, tensorOf(value).getShape(),
                       tensorOf(from).getShape(), extents);
    else if (from.getType() == value.getType() &&
             isNamed(op, "stablehlo.convert"))
      of = axes;
    else
      break;
    if (!of)
      break;
    axes = *of;
    value = from;
  }
  RankedTensorType type = tensorOf(value);
  if (GateOp gate = routing.gatesOfScores.lookup(value);
      gate && axes == Axes{"g", "s", "e"}) {
    value = gate.getLogits();
    type = tensorOf(value);
    axes = {"t", "e"};
  } else if (axes == Axes{"g", "s", "e"} && type.hasStaticShape() &&
             !isRead(sink)) {
    // Of groups of tokens.
    routing.rewriter.setInsertionPoint(sink);
    value = buildReshape(
        routing.rewriter, value,
        RankedTensorType::get(
            {type.getDimSize(0) * type.getDimSize(1), type.getDimSize(2)},
            type.getElementType()));
    routing.made.push_back(value.getDefiningOp());
    type = tensorOf(value);
    axes = {"t", "e"};
  }
  return axes == Axes{"t", "e"} && type && type.getRank() == 2 &&
                 isRowFloat(type.getElementType()) &&
                 type.getDimSize(1) == Choices::expertsOf(mask.ids) &&
                 haveSameRows(value, mask.ids) && !splatOf(value)
             ? value
             : Value();
}

/// The axes of scores that a mask with these axes is multiplied by.
static Axes repeatedAlong(const Axes &axes, StringRef names) {
  Axes made = axes;
  for (std::string &each : made)
    if (each == names)
      each = "*";
  return made;
}

/// The same of the scores of each choice: a mask [T, K, E].
static bool isMaskOfChoices(const std::optional<Selector> &selector,
                            bool isWeighted) {
  return selector && selector->kind == Selector::Product && selector->hot &&
         !selector->isPlaceful() && !selector->unless && !selector->expert &&
         selector->functions.empty() && bool(selector->weights) == isWeighted &&
         hasTokens(selector->axes) && selector->axes.back() == "e" &&
         hasChoiceAxis(*selector) &&
         selector->axes.size() == (countAxis(selector->axes, 'g') ? 4u : 3u);
}

/// The scores of a product or selection with a mask; a selector then.
static bool visitScores(Operation *op, Routing &routing) {
  bool isSelect = isNamed(op, "stablehlo.select");
  if (!isSelect && !isNamed(op, "stablehlo.multiply"))
    return false;
  unsigned at = 0;
  std::optional<Selector> mask = routing.selectors.get(op->getOperand(0));
  auto isKnown = [&] {
    return isMask(mask, false) || isMaskOfChoices(mask, false);
  };
  if (!isSelect && !isKnown())
    mask = routing.selectors.get(op->getOperand(at = 1));
  // Or a selection by a mask of the other experts.
  auto others = routing.others.find(op->getOperand(0));
  bool isInverted = isSelect && !isKnown() && others != routing.others.end();
  if (isInverted)
    mask = others->second;
  if (!isKnown())
    return false;
  Value scores = op->getOperand(isSelect ? (isInverted ? 2 : 1) : 1 - at);
  Axes repeated = repeatedAlong(mask->axes, "e");
  if (scores.getType() != op->getResult(0).getType() ||
      routing.selectors.get(scores) ||
      (hasChoiceAxis(*mask) &&
       Selectors::weightsOf(scores, repeated, mask->ids)))
    return false;
  scores = scoresOf(scores, repeatedAlong(mask->axes, "k"), *mask, op, routing);
  if (!scores)
    return false;
  if (isSelect) {
    std::optional<double> rest = splatOf(op->getOperand(isInverted ? 1 : 2));
    // A softmax or sigmoid makes 0 of the lowest number, too.
    bool isLowest = rest && *rest <= -std::numeric_limits<float>::max();
    if (!rest || (*rest != 0 && (!isLowest || mask->axes.size() != 2)))
      return false;
    if (isLowest) {
      mask->kind = Selector::Scores;
      mask->hot = false;
    }
  }
  // Of all experts, what the program computes has the weights.
  mask->weights = areExperts(mask->ids)
                      ? op->getResult(0)
                      : ChoiceBuilder(routing, op).choose(scores, mask->ids);
  if (!mask->weights)
    return false;
  routing.selectors.assign(op->getResult(0), *mask);
  return true;
}

/// The scores of a product with a mask of slots: an einsum of [T, E] and
/// [T, E, C], or the same with groups of tokens.
static bool visitSlotScores(Operation *op, Routing &routing) {
  std::optional<Contraction> dot;
  if (isNamed(op, "stablehlo.dot_general"))
    dot = readContraction(op);
  if (!dot && !isNamed(op, "stablehlo.multiply"))
    return false;
  for (unsigned i : {0u, 1u}) {
    Value value = op->getOperand(i), other = op->getOperand(1 - i);
    if (dot) {
      value = dot->operand(i);
      other = dot->operand(1 - i);
    }
    std::optional<Selector> mask = routing.selectors.get(value);
    if (!mask || mask->kind != Selector::Product || !mask->hot || !mask->slot ||
        mask->weights || mask->unless || mask->expert ||
        !mask->functions.empty() || countAxis(mask->axes, 'k') > 0 ||
        routing.selectors.get(other))
      continue;
    Axes of = mask->axes;
    if (dot) {
      llvm::SmallDenseMap<unsigned, std::string> along;
      for (auto [loop, names] : llvm::zip_equal(dot->loops(i), mask->axes))
        along[loop] = names;
      auto axesOf = [&](ArrayRef<unsigned> loops) {
        Axes axes;
        for (unsigned loop : loops)
          axes.push_back(along.contains(loop) ? along[loop] : "?");
        return axes;
      };
      // Each element is multiplied, and none added up.
      if (dot->outLoops.size() != mask->axes.size())
        continue;
      of = axesOf(dot->loops(1 - i));
      mask->axes = axesOf(dot->outLoops);
      if (countAxis(of, '?') > 0 || countAxis(mask->axes, '?') > 0)
        continue;
    } else {
      for (std::string &names : of)
        if (names == "c")
          names = "*";
    }
    Value scores = scoresOf(other, of, *mask, op, routing);
    if (!scores)
      continue;
    mask->weights = ChoiceBuilder(routing, op).choose(scores, mask->ids);
    if (!mask->weights)
      return false;
    routing.selectors.assign(op->getResult(0), *mask);
    return true;
  }
  return false;
}

/// Replaces the sum of the weights [T, K] of each token.
static bool replaceSum(Operation *op, Value weights, Routing &routing) {
  RankedTensorType type = tensorOf(op->getResult(0));
  if (getElementTypeOrSelf(weights) != type.getElementType())
    return false;
  Value sum = ChoiceBuilder(routing, op).sum(weights);
  routing.visit(sum.getDefiningOp());
  if (type.getRank() > 1 && type.hasStaticShape()) {
    sum = buildReshape(routing.rewriter, sum, type);
    routing.visit(sum.getDefiningOp());
  }
  routing.rewriter.replaceAllUsesWith(op->getResult(0),
                                      routing.recast(sum, type));
  return true;
}

/// Replaces the weights of each choice, whose type is another one only in how
/// static it is.
static bool replaceChosen(Operation *op, Value weights, Routing &routing) {
  RankedTensorType type = tensorOf(op->getResult(0));
  if (getElementTypeOrSelf(weights) != type.getElementType())
    return false;
  if (type.getRank() == 1) {
    // Of one choice, as a vector.
    weights =
        tensor::CollapseShapeOp::create(routing.rewriter, op->getLoc(), weights,
                                        ArrayRef<ReassociationIndices>{{0, 1}});
    routing.visit(weights.getDefiningOp());
  } else if (type.getRank() != 2) {
    if (!type.hasStaticShape())
      return false;
    weights = buildReshape(routing.rewriter, weights, type);
    routing.visit(weights.getDefiningOp());
  }
  routing.rewriter.replaceAllUsesWith(op->getResult(0),
                                      routing.recast(weights, type));
  return true;
}

/// The sum of the weights of a token, or over the experts of each choice.
static bool raiseSum(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.reduce") || op->getNumOperands() != 2 ||
      updateOf(op) != Update::Add || splatOf(op->getOperand(1)) != 0.0)
    return false;
  std::optional<Selector> mask = routing.selectors.get(op->getOperand(0));
  if (!mask ||
      integersOf(op, "dimensions") != Dims{int64_t(mask->axes.size()) - 1})
    return false;
  if (isMaskOfChoices(mask, true)) {
    ChoiceBuilder builder(routing, op);
    return replaceChosen(op, mask->weights, routing);
  }
  return isMask(mask, true) && !areExperts(mask->ids) &&
         replaceSum(op, mask->weights, routing);
}

/// The same of an einsum of scores and a mask.
static bool raiseSumOfProducts(Operation *op, Routing &routing) {
  std::optional<Contraction> dot =
      isNamed(op, "stablehlo.dot_general") ? readContraction(op) : std::nullopt;
  if (!dot)
    return false;
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> mask = routing.selectors.get(dot->operand(i));
    Value other = dot->operand(1 - i);
    bool isOfChoices = isMaskOfChoices(mask, false);
    if (!(isOfChoices || isMask(mask, false)) || areExperts(mask->ids) ||
        routing.selectors.get(other) ||
        dot->outLoops != ArrayRef(dot->loops(i)).drop_back())
      continue;
    Axes of;
    for (unsigned loop : dot->loops(1 - i)) {
      auto at = llvm::find(dot->loops(i), loop);
      of.push_back(at == dot->loops(i).end()
                       ? "?"
                       : mask->axes[at - dot->loops(i).begin()]);
    }
    Value scores = countAxis(of, '?') || countAxis(of, 'k')
                       ? Value()
                       : scoresOf(other, of, *mask, op, routing);
    ChoiceBuilder builder(routing, op);
    Value weights = scores ? builder.choose(scores, mask->ids) : Value();
    return weights && (isOfChoices ? replaceChosen(op, weights, routing)
                                   : replaceSum(op, weights, routing));
  }
  return false;
}

/// Scores gathered by the ids.
static bool raiseGather(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.gather") || op->getNumOperands() != 2)
    return false;
  Value columns =
      columnsOf(op->getOperand(1), textOf(op, "dimension_numbers"),
                {"offset_dims", "collapsed_slice_dims", "start_index_map",
                 "operand_batching_dims", "start_indices_batching_dims"},
                routing.selectors);
  std::optional<Selector> ids =
      columns ? routing.selectors.get(columns) : std::nullopt;
  RankedTensorType type = tensorOf(op->getOperand(0));
  if (!ids || ids->kind != Selector::Ids || !type ||
      type.getRank() + 1 != int64_t(ids->axes.size()) ||
      integersOf(op, "slice_sizes") != Dims(type.getRank(), 1))
    return false;
  Axes of = type.getRank() == 3 ? Axes{"g", "s"} : Axes{"t"};
  Axes expected = of;
  expected.push_back(topKOf(ids->ids) == 1 ? "" : "k");
  expected.push_back("");
  of.push_back("e");
  Value scores = ids->axes == expected
                     ? scoresOf(op->getOperand(0), of, *ids, op, routing)
                     : Value();
  ChoiceBuilder builder(routing, op);
  Value weights = scores ? builder.choose(scores, ids->ids) : Value();
  return weights && replaceChosen(op, weights, routing);
}

/// The weights of a token, divided by or times a number of it, or of all.
static bool visitScaled(Operation *op, Routing &routing) {
  bool divides = isNamed(op, "stablehlo.divide");
  if (!divides && !isNamed(op, "stablehlo.multiply"))
    return false;
  for (unsigned i : {0u, 1u}) {
    if (i == 1 && divides)
      break;
    std::optional<Selector> mask = routing.selectors.get(op->getOperand(i));
    if (!isMask(mask, true))
      continue;
    Value by = op->getOperand(1 - i);
    while (splatOf(by) && tensorOf(by).getRank() > 0 &&
           by.getDefiningOp()->getNumOperands() > 0)
      by = by.getDefiningOp()->getOperand(0);
    if (!splatOf(by))
      by = perToken(by, mask->axes, mask->ids, op, routing);
    else if (tensorOf(by).getRank() > 0 || isRead(by.getDefiningOp()))
      by = {};
    if (!by ||
        getElementTypeOrSelf(by) != getElementTypeOrSelf(mask->weights) ||
        getElementTypeOrSelf(by) != getElementTypeOrSelf(op->getResult(0)))
      continue;
    mask->weights =
        areExperts(mask->ids)
            ? op->getResult(0)
            : ChoiceBuilder(routing, op).scale(mask->weights, by, divides);
    routing.selectors.assign(op->getResult(0), *mask);
    return true;
  }
  return false;
}

bool mlir::moe::raising::raiseMaskedScores(Operation *op, Routing &routing) {
  if (op->getNumResults() != 1)
    return false;
  visitThreshold(op, routing);
  if (visitScores(op, routing) || visitScaled(op, routing) ||
      visitSlotScores(op, routing))
    return false;
  return raiseSum(op, routing) || raiseSumOfProducts(op, routing) ||
         raiseGather(op, routing);
}
