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

/// True for a mask [T, E] of the experts that a token chose, perhaps times
/// their weights.
static bool isMask(const std::optional<Selector> &selector, bool isWeighted) {
  return selector && selector->kind == Selector::Product && selector->hot &&
         !selector->isPlaceful() && !selector->unless && !selector->expert &&
         selector->functions.empty() && selector->axes == Axes{"t", "e"} &&
         bool(selector->weights) == isWeighted;
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
    // The body of an operation has no value of a program that is read.
    if (isRead(scores.getDefiningOp()))
      return {};
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

/// Returns the number of each token that a value [T, E] repeats along the
/// experts, [T] or [T, 1]; null if it does not.
static Value perToken(Value value, Value ids) {
  Axes axes{"t", "e"};
  while (Operation *op = value.getDefiningOp()) {
    RankedTensorType type = tensorOf(value);
    if (countAxis(axes, 'e') == 0 &&
        (type.getRank() == 1 ||
         (type.getRank() == 2 && type.getDimSize(1) == 1)))
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
  bool fits = type && (axes == Axes{"t"} || axes == Axes{"t", ""});
  return fits && isRowFloat(type.getElementType()) && haveSameRows(value, ids)
             ? value
             : Value();
}

/// The scores of a product or selection with a mask; a selector then.
static bool visitScores(Operation *op, Routing &routing) {
  bool isSelect = isNamed(op, "stablehlo.select");
  if (!isSelect && !isNamed(op, "stablehlo.multiply"))
    return false;
  unsigned at = 0;
  std::optional<Selector> mask = routing.selectors.get(op->getOperand(0));
  if (!isSelect && !isMask(mask, false))
    mask = routing.selectors.get(op->getOperand(at = 1));
  if (!isMask(mask, false))
    return false;
  Value scores = op->getOperand(isSelect ? 1 : 1 - at);
  RankedTensorType type = tensorOf(scores);
  if (!type || type.getRank() != 2 || !isRowFloat(type.getElementType()) ||
      type != op->getResult(0).getType() ||
      type.getDimSize(1) != Choices::expertsOf(mask->ids) ||
      !haveSameRows(scores, mask->ids) || splatOf(scores) ||
      routing.selectors.get(scores) ||
      (hasChoiceAxis(*mask) &&
       Selectors::weightsOf(scores, {"t", "*"}, mask->ids)))
    return false;
  if (isSelect) {
    std::optional<double> rest = splatOf(op->getOperand(2));
    // A softmax or sigmoid makes 0 of the lowest number, too.
    bool isLowest = rest && *rest <= -std::numeric_limits<float>::max();
    if (!rest || (*rest != 0 && !isLowest))
      return false;
    if (isLowest) {
      mask->kind = Selector::Scores;
      mask->hot = false;
    }
  }
  mask->weights = ChoiceBuilder(routing, op).choose(scores, mask->ids);
  if (!mask->weights)
    return false;
  routing.selectors.assign(op->getResult(0), *mask);
  return true;
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
  if (axes == Axes{"g", "s", "e"} && type.hasStaticShape() && !isRead(sink)) {
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

/// The sum of the weights of a token.
static bool raiseSum(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.reduce") || op->getNumOperands() != 2 ||
      integersOf(op, "dimensions") != Dims{1} || updateOf(op) != Update::Add ||
      splatOf(op->getOperand(1)) != 0.0)
    return false;
  std::optional<Selector> mask = routing.selectors.get(op->getOperand(0));
  if (!isMask(mask, true) || getElementTypeOrSelf(mask->weights) !=
                                 getElementTypeOrSelf(op->getResult(0)))
    return false;
  Value sum = ChoiceBuilder(routing, op).sum(mask->weights);
  Operation *view = sum.getDefiningOp();
  routing.visit(view);
  routing.rewriter.replaceAllUsesWith(
      op->getResult(0), routing.recast(sum, op->getResult(0).getType()));
  return true;
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
      by = perToken(by, mask->ids);
    else if (tensorOf(by).getRank() > 0 || isRead(by.getDefiningOp()))
      by = {};
    if (!by ||
        getElementTypeOrSelf(by) != getElementTypeOrSelf(mask->weights) ||
        getElementTypeOrSelf(by) != getElementTypeOrSelf(op->getResult(0)))
      continue;
    mask->weights =
        ChoiceBuilder(routing, op).scale(mask->weights, by, divides);
    routing.selectors.assign(op->getResult(0), *mask);
    return true;
  }
  return false;
}

bool mlir::moe::raising::raiseMaskedScores(Operation *op, Routing &routing) {
  if (routing.gates.empty() || op->getNumResults() != 1)
    return false;
  if (visitScores(op, routing) || visitScaled(op, routing) ||
      visitSlotScores(op, routing))
    return false;
  return raiseSum(op, routing);
}
