//===- DispatchRows.cpp - Dispatches of the rows of tokens ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Where the grouped rows begin: at the rows of the tokens. Where these are in
// groups with slots of their own (GShard's [G, S, E, C]), each expert has one
// part for each group, in this order, and so a dispatch to E · G of them has
// the rows of an expert together.
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Groups/GroupRows.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

OpFoldResult RowGrouper::rowCount() {
  if (dispatches.empty())
    return nullptr;
  return tensor::getMixedSize(rewriter, sink->getLoc(),
                              dispatches.front().second.getGrouped(), 0);
}

Value RowGrouper::dispatch(Value rows, bool scaled) {
  RankedTensorType type = tensorOf(rows);
  if (type.getRank() != 2 || !isRowFloat(type.getElementType()) ||
      type.isDynamicDim(1) || !haveSameRows(rows, selector.ids) ||
      varying.contains(rows))
    return {};
  for (auto &[of, dispatch] : dispatches)
    if (of == rows && dispatch.getScaleRows() == scaled)
      return dispatch.getGrouped();
  CapacityAttr capacity;
  if (selector.slots)
    capacity = CapacityAttr::get(rewriter.getContext(), selector.slots, 0.0,
                                 Rounding::Ceil, 0, false);
  bool inGroups = selector.inGroups;
  auto made = DispatchOp::create(
      rewriter, sink->getLoc(), rows, inGroups ? idsOfGroups() : selector.ids,
      scaled ? getWeights() : Value(),
      rewriter.getI64IntegerAttr(extents.experts *
                                 (inGroups ? selector.groups : 1)),
      capacity,
      selector.byChoice
          ? PriorityAttr::get(rewriter.getContext(), Priority::Choice)
          : nullptr,
      /*overflow=*/nullptr, /*choices=*/nullptr, /*uncovered=*/nullptr,
      scaled ? rewriter.getUnitAttr() : nullptr);
  dispatches.push_back({rows, made});
  return made.getGrouped();
}

Value RowGrouper::withoutGroups(Value rows) {
  RankedTensorType type = tensorOf(rows);
  if (type.getRank() != 3 || !type.hasStaticShape())
    return rows;
  SmallVector<int64_t> shape{type.getDimSize(0) * type.getDimSize(1),
                             type.getDimSize(2)};
  if (Operation *op = rows.getDefiningOp();
      op && isReshape(op) &&
      tensorOf(op->getOperand(0)).getShape() == ArrayRef(shape))
    return op->getOperand(0);
  return tensor::CollapseShapeOp::create(
      rewriter, sink->getLoc(), type.clone(shape), rows,
      SmallVector<ReassociationIndices>{{0, 1}, {2}});
}

Value RowGrouper::idsOfGroups() {
  if (groupIds)
    return groupIds;
  Location loc = sink->getLoc();
  RankedTensorType type = tensorOf(selector.ids);
  Value init = tensor::EmptyOp::create(rewriter, loc, type.getShape(),
                                       type.getElementType());
  AffineMap map = rewriter.getMultiDimIdentityMap(2);
  int64_t groups = selector.groups, size = extents.tokens / groups;
  return groupIds =
             linalg::GenericOp::create(
                 rewriter, loc, type, selector.ids, init,
                 SmallVector<AffineMap>{map, map},
                 SmallVector(2, utils::IteratorType::parallel),
                 [&](OpBuilder &b, Location loc, ValueRange arguments) {
                   Value token = linalg::IndexOp::create(b, loc, 0);
                   Value by = arith::ConstantIndexOp::create(b, loc, size);
                   Value group = arith::DivUIOp::create(b, loc, token, by);
                   group = arith::IndexCastOp::create(b, loc, b.getI32Type(),
                                                      group);
                   Value count =
                       arith::ConstantIntOp::create(b, loc, groups, 32);
                   Value id =
                       arith::MulIOp::create(b, loc, arguments[0], count);
                   linalg::YieldOp::create(
                       b, loc,
                       arith::AddIOp::create(b, loc, id, group).getResult());
                 })
                 .getResult(0);
}

Value RowGrouper::getOffsets() {
  DispatchOp dispatch = dispatches.front().second;
  if (!selector.inGroups)
    return dispatch.getOffsets();
  // Groups of one expert follow each other.
  if (!offsets)
    offsets = tensor::ExtractSliceOp::create(
        rewriter, sink->getLoc(), dispatch.getOffsets(),
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(0)},
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(extents.experts + 1)},
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(selector.groups)});
  return offsets;
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

bool mlir::moe::raising::haveSameWeights(const Selector &a, const Selector &b) {
  return a.ids == b.ids && a.weights == b.weights && a.functions == b.functions;
}

Value RowGrouper::getWeights() {
  if (weights || !selector.weights)
    return weights;
  weights = selector.weights;
  for (Operation *function : selector.functions) {
    if (auto softmax = dyn_cast<linalg::SoftmaxOp>(function)) {
      Location loc = softmax.getLoc();
      Value init = tensor::EmptyOp::create(
          rewriter, loc, tensor::getMixedSizes(rewriter, loc, weights),
          getElementTypeOrSelf(weights));
      weights = linalg::SoftmaxOp::create(
                    rewriter, loc, TypeRange{init.getType()}, weights, init,
                    /*dimension=*/1)
                    ->getResult(0);
      continue;
    }
    IRMapping mapping;
    mapping.map(function->getOperand(0), weights);
    Operation *clone = rewriter.clone(*function, mapping);
    clone->removeDiscardableAttr("id"); // no value of a program that is read
    clone->getResult(0).setType(
        tensorOf(weights).clone(getElementTypeOrSelf(function->getResult(0))));
    weights = clone->getResult(0);
  }
  return weights;
}

Value RowGrouper::buildScaled(Operation *op, const Axes &axes) {
  if (!isNamed(op, "stablehlo.multiply"))
    return {};
  Axes mask = axes;
  for (std::string &names : mask)
    if (names == "n")
      names = "*";
  for (unsigned i : {0u, 1u}) {
    std::optional<Selector> scale = routing.selectors.get(op->getOperand(i));
    if (!scale || scale->kind != Selector::Product || scale->axes != mask ||
        !haveSameWeights(*scale, selector))
      continue;
    // The rows of the tokens, which are repeated for each expert.
    Value rows = op->getOperand(1 - i);
    Axes of = axes;
    while (of != Axes{"t", "n"}) {
      Operation *view = rows.getDefiningOp();
      bool isView = view && (isBroadcast(view) || isReshape(view) ||
                             isNamed(view, "stablehlo.transpose"));
      std::optional<Axes> source =
          isView ? operandAxes(view, of) : std::nullopt;
      if (!source)
        return {};
      of = *source;
      rows = view->getOperand(0);
    }
    return dispatch(rows, /*scaled=*/true);
  }
  return {};
}
