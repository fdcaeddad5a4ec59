//===- RaiseOrder.cpp - The order of the choices by expert ---------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What else uses a sort of the choices, such as a bias of the expert of each
// row: the expert and the choice of a row are computed from the offsets and the
// tokens of a route. Nothing here sorts, and linalg has no sort.
//
//===----------------------------------------------------------------------===//

#include "Routing/Routing.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

/// Returns the expert of each row: how many end at the row or before it.
static Value buildExperts(OpBuilder &b, Location loc, Value offsets,
                          OpFoldResult count) {
  int64_t experts = tensorOf(offsets).getDimSize(0) - 1;
  Type i32 = b.getI32Type();
  Value zero = arith::ConstantIntOp::create(b, loc, 0, 32);
  Value init =
      tensor::EmptyOp::create(b, loc, ArrayRef<OpFoldResult>{count}, i32);
  init = linalg::FillOp::create(b, loc, zero, init).getResult(0);
  if (experts == 1)
    return init;
  Value ends = tensor::ExtractSliceOp::create(
      b, loc, offsets, ArrayRef<OpFoldResult>{b.getIndexAttr(1)},
      ArrayRef<OpFoldResult>{b.getIndexAttr(experts - 1)},
      ArrayRef<OpFoldResult>{b.getIndexAttr(1)});
  SmallVector<AffineMap> maps{AffineMap::get(2, 0, b.getAffineDimExpr(1)),
                              AffineMap::get(2, 0, b.getAffineDimExpr(0))};
  return linalg::GenericOp::create(
             b, loc, init.getType(), ends, init, maps,
             SmallVector{utils::IteratorType::parallel,
                         utils::IteratorType::reduction},
             [&](OpBuilder &b, Location loc, ValueRange x) {
               Value row = arith::IndexCastOp::create(
                   b, loc, i32, linalg::IndexOp::create(b, loc, 0));
               Value isAfter = arith::CmpIOp::create(
                   b, loc, arith::CmpIPredicate::sge, row, x[0]);
               Value one = arith::ExtUIOp::create(b, loc, i32, isAfter);
               linalg::YieldOp::create(
                   b, loc,
                   arith::AddIOp::create(b, loc, x[1], one).getResult());
             })
      .getResult(0);
}

/// Returns the choice of each row: that of its token with its expert.
static Value buildChoices(OpBuilder &b, Location loc, Value ids, Value tokens,
                          Value experts) {
  RankedTensorType type = tensorOf(experts);
  Value init = tensor::EmptyOp::create(
      b, loc, tensor::getMixedSizes(b, loc, experts), type.getElementType());
  AffineMap map = b.getDimIdentityMap();
  return linalg::GenericOp::create(
             b, loc, type, ValueRange{tokens, experts}, init,
             SmallVector<AffineMap>{map, map, map},
             SmallVector{utils::IteratorType::parallel},
             [&](OpBuilder &b, Location loc, ValueRange x) {
               int64_t topK = topKOf(ids);
               Value token =
                   arith::IndexCastOp::create(b, loc, b.getIndexType(), x[0]);
               Value count = arith::ConstantIntOp::create(b, loc, topK, 32);
               Value first = arith::MulIOp::create(b, loc, x[0], count);
               Value choice = first;
               for (int64_t k = 1; k < topK; ++k) {
                 Value at = arith::ConstantIndexOp::create(b, loc, k);
                 Value id = tensor::ExtractOp::create(b, loc, ids,
                                                      ValueRange{token, at});
                 Value isIt = arith::CmpIOp::create(
                     b, loc, arith::CmpIPredicate::eq, id, x[1]);
                 Value other = arith::AddIOp::create(
                     b, loc, first,
                     arith::ConstantIntOp::create(b, loc, k, 32));
                 choice = arith::SelectOp::create(b, loc, isIt, other, choice);
               }
               linalg::YieldOp::create(b, loc, choice);
             })
      .getResult(0);
}

bool mlir::moe::raising::raiseOrder(Routing &routing) {
  RewriterBase &rewriter = routing.rewriter;
  bool changed = false;
  // Of the rows, by ids; the choices are found by the experts.
  llvm::DenseMap<Value, Value> experts, choices;
  for (const auto &[value, role] : routing.choices.all()) {
    Operation *op = value.getDefiningOp();
    RankedTensorType type = tensorOf(value);
    bool isOrder = role.kind == Role::Order;
    if (!(isOrder || role.kind == Role::SortedIds) || !op ||
        value.use_empty() || !type || type.getRank() != 1 ||
        !(type.getElementType().isSignlessInteger(32) ||
          type.getElementType().isSignlessInteger(64)))
      continue;
    Operation *grouping = routing.groupingBefore(op, role.ids);
    Value tokens = routing.tokensOf(grouping, role.ids);
    Location loc = op->getLoc();
    Value &expert = experts[role.ids], &choice = choices[role.ids];
    if (!expert) {
      rewriter.setInsertionPointAfter(grouping);
      expert = buildExperts(rewriter, loc, Routing::offsetsOf(grouping),
                            tensor::getMixedSize(rewriter, loc, tokens, 0));
    }
    if (isOrder && !choice) {
      rewriter.setInsertionPointAfterValue(expert);
      choice = buildChoices(rewriter, loc, role.ids, tokens, expert);
    }
    Value found = isOrder ? choice : expert;
    rewriter.setInsertionPointAfter(op);
    found = buildWide(rewriter, loc, found, type);
    rewriter.replaceAllUsesWith(value, routing.recast(found, type));
    changed = true;
  }
  return changed;
}
