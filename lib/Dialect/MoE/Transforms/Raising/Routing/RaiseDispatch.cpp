//===- RaiseDispatch.cpp - Rows gathered in the order of experts ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Extents.h"
#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

//===----------------------------------------------------------------------===//
// Groupings
//===----------------------------------------------------------------------===//

Value Routing::offsetsOf(Operation *grouping) {
  if (auto dispatch = dyn_cast<DispatchOp>(grouping))
    return dispatch.getOffsets();
  return cast<RouteOp>(grouping).getOffsets();
}

Value Routing::positionsOf(Operation *grouping) {
  if (auto dispatch = dyn_cast<DispatchOp>(grouping))
    return dispatch.getPositions();
  return cast<RouteOp>(grouping).getPositions();
}

Value Routing::tokensOf(Operation *grouping, Value ids) {
  if (auto route = dyn_cast<RouteOp>(grouping))
    return route.getTokens();
  // A dispatch does not have the tokens.
  Operation *before = grouping->getPrevNode();
  if (auto route = dyn_cast_if_present<RouteOp>(before);
      route && route.getIds() == ids && !route.getCapacity())
    return route.getTokens();
  OpBuilder::InsertionGuard guard(rewriter);
  rewriter.setInsertionPoint(grouping);
  return RouteOp::create(rewriter, grouping->getLoc(), ids, /*weights=*/nullptr,
                         rewriter.getI64IntegerAttr(Choices::expertsOf(ids)),
                         /*capacity=*/nullptr, /*priority=*/nullptr,
                         /*overflow=*/nullptr, /*choices=*/nullptr)
      .getTokens();
}

Value Routing::recast(Value value, Type type) {
  return value.getType() == type
             ? value
             : tensor::CastOp::create(rewriter, value.getLoc(), type, value);
}

Operation *Routing::groupingBefore(Operation *op, Value ids) {
  for (Operation *grouping : groupings[ids])
    if (grouping->isBeforeInBlock(op))
      return grouping;
  OpBuilder::InsertionGuard guard(rewriter);
  rewriter.setInsertionPointAfterValue(ids);
  auto route = RouteOp::create(
      rewriter, ids.getLoc(), ids, /*weights=*/nullptr,
      rewriter.getI64IntegerAttr(Choices::expertsOf(ids)),
      /*capacity=*/nullptr, /*priority=*/nullptr, /*overflow=*/nullptr,
      /*choices=*/nullptr);
  groupings[ids].push_back(route);
  return route;
}

//===----------------------------------------------------------------------===//
// Patterns
//===----------------------------------------------------------------------===//

bool mlir::moe::raising::raiseDispatch(Operation *op, Routing &routing) {
  if (!gathersRows(op))
    return false;
  Value rows = op->getOperand(0);
  const Role *order = routing.choices.get(op->getOperand(1), Role::Order);
  // Rows of the choices, in their order.
  Value repeated =
      order && order->ids ? rowsOfTokens(rows, order->ids, routing) : Value();
  if (repeated)
    rows = repeated;
  const Role *tokens =
      repeated ? order : routing.choices.getTokens(op->getOperand(1));
  auto type = dyn_cast<RankedTensorType>(rows.getType());
  Type element = type.getElementType();
  if (!tokens || type.getRank() != 2 || !isRowFloat(element) ||
      type.isDynamicDim(1) || !haveSameRows(rows, tokens->ids))
    return false;
  Value ids = tokens->ids;
  // As early as possible: counts and places may be used before the rows are.
  RewriterBase &rewriter = routing.rewriter;
  OpBuilder::InsertionGuard guard(rewriter);
  Operation *first = ids.getDefiningOp(), *other = rows.getDefiningOp();
  if (other && other->getBlock() == first->getBlock() &&
      first->isBeforeInBlock(other))
    first = other;
  if (first->getBlock() != op->getBlock())
    return false;
  rewriter.setInsertionPointAfter(first);
  auto dispatch = DispatchOp::create(
      rewriter, op->getLoc(), rows, ids, /*weights=*/nullptr,
      rewriter.getI64IntegerAttr(Choices::expertsOf(ids)),
      /*capacity=*/nullptr, /*priority=*/nullptr, /*overflow=*/nullptr,
      /*choices=*/nullptr, /*uncovered=*/nullptr, /*scale_rows=*/nullptr);
  routing.groupings[ids].push_back(dispatch);
  rewriter.setInsertionPoint(op);
  rewriter.replaceOp(
      op, routing.recast(dispatch.getGrouped(), op->getResult(0).getType()));
  return true;
}

Value mlir::moe::raising::buildWide(OpBuilder &b, Location loc, Value value,
                                    Type type) {
  Type element = getElementTypeOrSelf(type);
  auto from = cast<RankedTensorType>(value.getType());
  return element == from.getElementType()
             ? value
             : arith::ExtSIOp::create(b, loc, from.clone(element), value);
}

/// Returns the vector of sizes of the experts, or of their ends.
static Value buildCounts(Routing &routing, Value offsets, bool isEnds) {
  RewriterBase &rewriter = routing.rewriter;
  Location loc = offsets.getLoc();
  int64_t experts = cast<RankedTensorType>(offsets.getType()).getDimSize(0) - 1;
  auto slice = [&](int64_t from) -> Value {
    return tensor::ExtractSliceOp::create(
        rewriter, loc, offsets,
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(from)},
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(experts)},
        ArrayRef<OpFoldResult>{rewriter.getIndexAttr(1)});
  };
  Value upper = slice(1);
  if (isEnds)
    return upper;
  Value lower = slice(0);
  return arith::SubIOp::create(rewriter, loc, upper, lower);
}

bool mlir::moe::raising::raiseCounts(Routing &routing, Block &block) {
  RewriterBase &rewriter = routing.rewriter;
  bool changed = false;
  for (const auto &[value, role] : routing.choices.all()) {
    Operation *op = value.getDefiningOp();
    bool isEnds = role.kind == Role::Ends,
         isCounts = role.kind == Role::Counts || isEnds,
         isInverse = role.kind == Role::Inverse,
         isTokens = role.kind == Role::Tokens;
    auto type = dyn_cast<RankedTensorType>(value.getType());
    if (!(isCounts || isInverse || isTokens) || !op || value.use_empty() ||
        type.getRank() != 1 ||
        !(type.getElementType().isSignlessInteger(32) ||
          type.getElementType().isSignlessInteger(64)))
      continue;
    Operation *grouping = routing.groupingBefore(op, role.ids);
    rewriter.setInsertionPointAfter(op);
    Value made;
    if (isCounts) {
      made = buildCounts(routing, Routing::offsetsOf(grouping), isEnds);
    } else if (isInverse) {
      made = tensor::CollapseShapeOp::create(
          rewriter, op->getLoc(), Routing::positionsOf(grouping),
          ArrayRef<ReassociationIndices>{{0, 1}});
    } else {
      made = routing.tokensOf(grouping, role.ids);
    }
    made = buildWide(rewriter, op->getLoc(), made, type);
    rewriter.replaceAllUsesWith(value, routing.recast(made, type));
    changed = true;
  }
  return changed;
}
