//===- ExchangeUtils.cpp - Rows that travel between ranks -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/Transforms/Parallel/ExchangeUtils.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"

using namespace mlir;
using namespace mlir::moe;

Value mlir::moe::listByTokens(ImplicitLocOpBuilder &b, Value matrix,
                              Value tokens) {
  auto type = cast<RankedTensorType>(matrix.getType());
  int64_t choices = type.getDimSize(1);
  SmallVector<OpFoldResult> sizes =
      tensor::getMixedSizes(b, b.getLoc(), tokens);
  sizes.push_back(b.getIndexAttr(choices));
  Value init = tensor::EmptyOp::create(b, sizes, type.getElementType());
  MLIRContext *context = b.getContext();
  SmallVector<AffineMap> maps{
      AffineMap::getMultiDimMapWithTargets(3, {0, 1}, context),
      b.getMultiDimIdentityMap(3)};
  SmallVector<utils::IteratorType> iterators(3, utils::IteratorType::parallel);
  return linalg::GenericOp::create(
             b, init.getType(), tokens, init, maps, iterators,
             [&](OpBuilder &nested, Location loc, ValueRange elements) {
               Value zero = arith::ConstantOp::create(
                   nested, loc, nested.getI32IntegerAttr(0));
               Value token =
                   arith::MaxSIOp::create(nested, loc, elements[0], zero);
               token = arith::IndexCastOp::create(nested, loc,
                                                  nested.getIndexType(), token);
               Value k = linalg::IndexOp::create(nested, loc, 2);
               Value element = tensor::ExtractOp::create(nested, loc, matrix,
                                                         ValueRange{token, k});
               linalg::YieldOp::create(nested, loc, element);
             })
      .getResult(0);
}

Value mlir::moe::returnRows(ImplicitLocOpBuilder &b, Value rows, Value order,
                            Value returns, Value expect) {
  auto type = cast<RankedTensorType>(rows.getType());
  int64_t choices = cast<RankedTensorType>(order.getType()).getDimSize(1),
          columns = type.getDimSize(1);
  // The callers of parts allocate by tokens: there are K rows for each.
  SmallVector<ReassociationIndices> groups{{0, 1}, {2}};
  auto byToken = RankedTensorType::get({ShapedType::kDynamic, choices, columns},
                                       type.getElementType());
  SmallVector<OpFoldResult> sizes{tensor::getMixedSize(b, b.getLoc(), order, 0),
                                  b.getIndexAttr(choices),
                                  b.getIndexAttr(columns)};
  rows = tensor::ExpandShapeOp::create(b, byToken, rows, groups, sizes);
  auto exchange = ExchangeOp::create(b, TypeRange(byToken), Type(), rows, order,
                                     returns, expect);
  return tensor::CollapseShapeOp::create(b, exchange.getRows()[0], groups);
}
