//===- NestedRoutes.cpp - Routes of rows that a dispatch made -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "NestedRoutes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

static RankedTensorType typeOf(Value value) {
  return cast<RankedTensorType>(value.getType());
}

/// Returns ids as f32 or the reverse; exact below 2²⁴ experts.
static Value convert(ImplicitLocOpBuilder &b, Value values, Type element) {
  Value empty = tensor::EmptyOp::create(
      b, tensor::getMixedSizes(b, b.getLoc(), values), element);
  SmallVector<AffineMap> maps(2, b.getMultiDimIdentityMap(2));
  SmallVector<utils::IteratorType> loops(2, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, empty.getType(), values, empty, maps, loops,
             [&](OpBuilder &builder, Location loc, ValueRange v) {
               Value result =
                   isa<FloatType>(element)
                       ? Value(arith::SIToFPOp::create(builder, loc, element,
                                                       v[0]))
                       : arith::FPToSIOp::create(builder, loc, element, v[0]);
               linalg::YieldOp::create(builder, loc, result);
             })
      .getResult(0);
}

/// Returns [N, K, M] as [N·K, M].
static Value mergeRows(ImplicitLocOpBuilder &b, Value cube) {
  return tensor::CollapseShapeOp::create(
      b, cube, ArrayRef<ReassociationIndices>{{0, 1}, {2}});
}

/// Returns [N, K·M] as [N, K, M].
static Value splitColumns(ImplicitLocOpBuilder &b, Value matrix, int64_t k) {
  RankedTensorType type = typeOf(matrix);
  int64_t columns = type.getDimSize(1) / k;
  auto cube = RankedTensorType::get({type.getDimSize(0), k, columns},
                                    type.getElementType());
  return tensor::ExpandShapeOp::create(
      b, cube, matrix, ArrayRef<ReassociationIndices>{{0}, {1, 2}},
      ArrayRef<OpFoldResult>{tensor::getMixedSize(b, b.getLoc(), matrix, 0),
                             b.getIndexAttr(k), b.getIndexAttr(columns)});
}

/// Returns choices [N, K] as those [N·K, 1] of rows with one choice each, which
/// a dispatch groups in the same order.
static Value singleChoices(ImplicitLocOpBuilder &b, Value choices) {
  return mergeRows(b, splitColumns(b, choices, typeOf(choices).getDimSize(1)));
}

DispatchOp mlir::moe::getOuterDispatch(DispatchOp dispatch) {
  auto outer = dispatch.getRows().getDefiningOp<DispatchOp>();
  return outer && outer.getGrouped() == dispatch.getRows() ? outer
                                                           : DispatchOp();
}

RankedTensorType mlir::moe::getTypeByToken(RankedTensorType type,
                                           DispatchOp outer) {
  int64_t columns = type.getDimSize(1);
  for (; outer; outer = getOuterDispatch(outer)) {
    columns *= outer.getTopK();
    type =
        RankedTensorType::get({outer.getIds().getType().getDimSize(0), columns},
                              type.getElementType());
  }
  return type;
}

Value mlir::moe::orderByToken(OpBuilder &builder, Value values,
                              DispatchOp outer) {
  ImplicitLocOpBuilder b(outer.getLoc(), builder);
  Type element = getElementTypeOrSelf(values);
  if (!isa<FloatType>(element))
    values = convert(b, values, b.getF32Type());
  Value ofChoices = CombineOp::create(
      b, values, singleChoices(b, outer.getPositions()), /*weights=*/nullptr,
      /*dropped=*/nullptr, /*normalize=*/nullptr);
  if (!isa<FloatType>(element))
    ofChoices = convert(b, ofChoices, element);
  RankedTensorType type = typeOf(ofChoices);
  int64_t k = outer.getTopK(), columns = type.getDimSize(1);
  auto cube = RankedTensorType::get(
      {outer.getIds().getType().getDimSize(0), k, columns}, element);
  Value split = tensor::ExpandShapeOp::create(
      b, cube, ofChoices, ArrayRef<ReassociationIndices>{{0, 1}, {2}},
      ArrayRef<OpFoldResult>{
          tensor::getMixedSize(b, b.getLoc(), outer.getPositions(), 0),
          b.getIndexAttr(k), b.getIndexAttr(columns)});
  Value byToken = tensor::CollapseShapeOp::create(
      b, split, ArrayRef<ReassociationIndices>{{0}, {1, 2}});
  DispatchOp next = getOuterDispatch(outer);
  return next ? orderByToken(builder, byToken, next) : byToken;
}

Value mlir::moe::orderByRow(OpBuilder &builder, Value values,
                            DispatchOp outer) {
  if (DispatchOp next = getOuterDispatch(outer))
    values = orderByRow(builder, values, next);
  ImplicitLocOpBuilder b(outer.getLoc(), builder);
  Type element = getElementTypeOrSelf(values);
  Value rows = mergeRows(b, splitColumns(b, values, outer.getTopK()));
  if (!isa<FloatType>(element))
    rows = convert(b, rows, b.getF32Type());
  Value grouped =
      DispatchOp::create(b, rows, singleChoices(b, outer.getIds()),
                         /*weights=*/nullptr, outer.getNumExpertsAttr(),
                         /*capacity=*/nullptr, /*priority=*/nullptr,
                         /*overflow=*/nullptr, /*choices=*/nullptr,
                         /*uncovered=*/nullptr, /*scale_rows=*/nullptr)
          .getGrouped();
  return isa<FloatType>(element) ? grouped : convert(b, grouped, element);
}
