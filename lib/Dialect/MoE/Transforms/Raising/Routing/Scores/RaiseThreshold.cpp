//===- RaiseThreshold.cpp - Experts above a score of each token ----------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A mask of the experts whose score is at least the k-th largest of the token.
// If scores tie there, these are more than k, which a top-k does not choose. So
// a token has one choice for each expert, in their order, and those that are
// not in the mask are none: a gate of given ids [T, E]. Its weights are the
// scores of all experts as the program computes them.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// True for a number of each token, repeated along the experts, that is among
/// the largest scores: an element, or the least, of a top-k or of a sort.
static bool isAmongLargest(Value value, Value scores) {
  for (unsigned budget = 0; budget < 20; ++budget) {
    Operation *op = value.getDefiningOp();
    if (auto gate = dyn_cast_if_present<GateOp>(op))
      return value == gate.getWeights() && gate.getScore() == Score::None &&
             !gate.getBias() && gate.getLogits() == scores;
    if (isNamed(op, "stablehlo.sort")) {
      Value of = op->getOperand(0);
      if (Operation *negated = definedBy(of, "stablehlo.negate"))
        of = negated->getOperand(0);
      return op->getNumOperands() == 1 && of == scores &&
             integersOf(op, "dimension") == SmallVector<int64_t>{1};
    }
    bool isElement =
        op && op->getNumOperands() > 0 &&
        (isBroadcast(op) || isReshape(op) || isa<tensor::ExtractSliceOp>(op) ||
         isNamed(op, "stablehlo.slice") || isNamed(op, "stablehlo.negate") ||
         isNamed(op, "stablehlo.real_dynamic_slice") ||
         isNamed(op, "stablehlo.dynamic_slice") ||
         isNamed(op, "stablehlo.reverse") ||
         (isNamed(op, "stablehlo.reduce") && op->getNumOperands() == 2 &&
          (updateOf(op) == Update::Min || updateOf(op) == Update::Max)));
    if (!isElement)
      return false;
    value = op->getOperand(0);
  }
  return false;
}

/// True for a value [T, E] that is the same for all experts.
static bool isOfToken(Value value) {
  Axes axes{"t", "e"};
  while (Operation *op = value.getDefiningOp()) {
    if (countAxis(axes, 'e') == 0)
      break;
    std::optional<Axes> of =
        isBroadcast(op) ? sourceAxes(op, axes) : std::nullopt;
    if (!of)
      return false;
    axes = *of;
    value = op->getOperand(0);
  }
  return countAxis(axes, 't') == 1 && countAxis(axes, 'e') == 0;
}

/// Builds the gate of the experts where `mask` [T, E] is `isKept`.
static GateOp buildGate(Operation *op, Value scores, Value mask, bool isKept,
                        Routing &routing) {
  RewriterBase &rewriter = routing.rewriter;
  Location loc = op->getLoc();
  rewriter.setInsertionPointAfter(op);
  RankedTensorType type = tensorOf(scores);
  Type element = type.getElementType(), i32 = rewriter.getI32Type();
  auto keep = [&](Operation *made) {
    routing.made.push_back(made);
    return made;
  };
  SmallVector<OpFoldResult> sizes = tensor::getMixedSizes(rewriter, loc, mask);
  for (OpFoldResult size : sizes)
    if (auto value = dyn_cast<Value>(size))
      keep(value.getDefiningOp());
  Value init =
      keep(tensor::EmptyOp::create(rewriter, loc, sizes, i32))->getResult(0);
  AffineMap map = rewriter.getMultiDimIdentityMap(2);
  auto ids = linalg::GenericOp::create(
      rewriter, loc, init.getType(), mask, init,
      SmallVector<AffineMap>{map, map},
      SmallVector(2, utils::IteratorType::parallel),
      [&](OpBuilder &b, Location loc, ValueRange x) {
        Value expert = arith::IndexCastOp::create(
            b, loc, i32, linalg::IndexOp::create(b, loc, 1));
        Value none = arith::ConstantIntOp::create(b, loc, -1, 32);
        linalg::YieldOp::create(b, loc,
                                arith::SelectOp::create(b, loc, x[0],
                                                        isKept ? expert : none,
                                                        isKept ? none : expert)
                                    .getResult());
      });
  keep(ids);
  MLIRContext *context = rewriter.getContext();
  auto gate = GateOp::create(
      rewriter, loc, type, type.clone(i32), scores, /*bias=*/nullptr,
      /*noise=*/nullptr, /*given_ids=*/ids.getResult(0),
      rewriter.getI64IntegerAttr(type.getDimSize(1)),
      ScoreAttr::get(context, Score::None), /*score_axis=*/nullptr,
      /*order=*/nullptr, /*selection=*/nullptr, /*margin=*/nullptr,
      /*groups=*/nullptr, /*capacity=*/nullptr, /*threshold=*/nullptr,
      /*normalize=*/nullptr, /*scale=*/nullptr,
      element.isF32() ? nullptr : TypeAttr::get(element));
  keep(gate);
  return gate;
}

void mlir::moe::raising::visitThreshold(Operation *op, Routing &routing) {
  if (!isNamed(op, "stablehlo.compare"))
    return;
  for (bool swapped : {false, true}) {
    Value scores = op->getOperand(swapped), bound = op->getOperand(!swapped);
    RankedTensorType type = tensorOf(scores);
    if (!type || type.getRank() != 2 || type.isDynamicDim(1) ||
        !isRowFloat(type.getElementType()) || !isOfToken(bound) ||
        !isAmongLargest(bound, scores))
      continue;
    std::string direction = directionOf(op);
    bool isGreater = direction == "GE" || direction == "GT";
    if (!isGreater && direction != "LE" && direction != "LT")
      return;
    bool isKept = isGreater != swapped;
    GateOp gate = buildGate(op, scores, op->getResult(0), isKept, routing);
    routing.gates.push_back(gate.getIds());
    Selector mask{Selector::Product, {"t", "e"}, gate.getIds()};
    mask.hot = true;
    if (isKept)
      routing.selectors.assign(op->getResult(0), mask);
    else
      routing.others.insert({op->getResult(0), mask});
    return;
  }
}
