//===- RowMap.cpp - Elementwise operations on grouped rows ----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "RowMap.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"

using namespace mlir;
using namespace mlir::moe;

Value RowMap::init(Type element, bool zero) {
  Value empty = tensor::EmptyOp::create(
      b, SmallVector<OpFoldResult>{rows, b.getIndexAttr(columns)}, element);
  if (!zero)
    return empty;
  Value scalar = arith::ConstantOp::create(b, b.getZeroAttr(element));
  return linalg::FillOp::create(b, scalar, empty).getResult(0);
}

/// Builds the body at the insertion point, with results of the element types.
static LogicalResult buildBody(ImplicitLocOpBuilder &b, Value product,
                               ValueRange elements, TypeRange types,
                               RowMap::Body body,
                               SmallVectorImpl<Value> &yielded) {
  if (failed(body(b, product, elements, yielded)))
    return failure();
  for (auto [value, type] : llvm::zip_equal(yielded, types))
    if (value.getType() != type)
      value = arith::TruncFOp::create(b, type, value);
  return success();
}

FailureOr<SmallVector<Value>> RowMap::buildMatmul(Body body) {
  SmallVector<Value> inits;
  SmallVector<Type> types;
  for (const Result &result : results) {
    inits.push_back(init(result.element, result.zeroRest));
    types.push_back(result.element);
  }
  SmallVector<Attribute> mapAttrs = llvm::map_to_vector(
      maps, [](AffineMap map) -> Attribute { return AffineMapAttr::get(map); });
  auto matmul = GroupedMatmulOp::create(
      b, ValueRange(inits).getTypes(), product->lhs, product->gather,
      groups.offsets, product->weights, /*lhs_scales=*/Value(),
      /*weight_scales=*/ValueRange(), operands, inits, product->transposed,
      /*panels=*/nullptr, maps.empty() ? nullptr : b.getArrayAttr(mapAttrs),
      groups.first ? b.getI64IntegerAttr(*groups.first) : IntegerAttr(),
      /*blocks=*/nullptr);
  OpBuilder::InsertionGuard guard(b);
  Block *block = b.createBlock(&matmul.getEpilogue());
  block->addArgument(b.getF32Type(), b.getLoc());
  for (Value operand : operands)
    block->addArgument(getElementTypeOrSelf(operand), b.getLoc());
  SmallVector<Value> yielded;
  if (failed(buildBody(b, block->getArgument(0),
                       block->getArguments().drop_front(), types, body,
                       yielded)))
    return failure();
  YieldOp::create(b, yielded);
  return llvm::to_vector_of<Value>(matmul.getResults());
}

/// In a linalg.generic over all rows, replaces the elements of rows of no
/// expert by zeros where a result asks for that.
void RowMap::clearRest(ImplicitLocOpBuilder &inner,
                       SmallVectorImpl<Value> &yielded) {
  if (llvm::none_of(results, [](const Result &r) { return r.zeroRest; }))
    return;
  auto boundary = [&](int64_t expert) -> Value {
    Value index = arith::ConstantIndexOp::create(inner, expert);
    Value row = tensor::ExtractOp::create(inner, groups.offsets, index);
    return arith::IndexCastOp::create(inner, inner.getIndexType(), row);
  };
  int64_t first = groups.first.value_or(0);
  Value row = linalg::IndexOp::create(inner, 0);
  Value begun = arith::CmpIOp::create(inner, arith::CmpIPredicate::sge, row,
                                      boundary(first));
  Value open = arith::CmpIOp::create(inner, arith::CmpIPredicate::slt, row,
                                     boundary(first + groups.experts));
  Value covered = arith::AndIOp::create(inner, begun, open);
  for (auto [value, result] : llvm::zip_equal(yielded, results)) {
    if (!result.zeroRest)
      continue;
    Value zero =
        arith::ConstantOp::create(inner, inner.getZeroAttr(result.element));
    value = arith::SelectOp::create(inner, covered, value, zero);
  }
}

FailureOr<SmallVector<Value>> RowMap::buildGeneric(Body body) {
  MLIRContext *context = b.getContext();
  SmallVector<Value> inits;
  SmallVector<Type> types;
  for (const Result &result : results) {
    inits.push_back(init(result.element, /*zero=*/false));
    types.push_back(result.element);
  }
  // From (e, r, n) to (r, n).
  SmallVector<AffineMap> indexing;
  for (AffineMap map : maps) {
    if (map.isFunctionOfDim(0) && groups.experts > 1)
      return emitError(b.getLoc(),
                       "expected operands of rows and columns where "
                       "the gradient of the rows is not that of a "
                       "matmul, got one of experts");
    SmallVector<AffineExpr> exprs;
    for (AffineExpr expr : map.getResults()) {
      unsigned position = cast<AffineDimExpr>(expr).getPosition();
      exprs.push_back(position == 0 ? getAffineConstantExpr(0, context)
                                    : getAffineDimExpr(position - 1, context));
    }
    indexing.push_back(AffineMap::get(2, 0, exprs, context));
  }
  indexing.append(inits.size(), b.getMultiDimIdentityMap(2));
  LogicalResult built = success();
  auto generic = linalg::GenericOp::create(
      b, ValueRange(inits).getTypes(), operands, inits, indexing,
      SmallVector<utils::IteratorType>(2, utils::IteratorType::parallel),
      [&](OpBuilder &builder, Location loc, ValueRange arguments) {
        ImplicitLocOpBuilder inner(loc, builder);
        SmallVector<Value> yielded;
        built = buildBody(inner, Value(), arguments.take_front(operands.size()),
                          types, body, yielded);
        if (succeeded(built) && groups.offsets)
          clearRest(inner, yielded);
        if (failed(built))
          yielded.assign(arguments.begin() + operands.size(), arguments.end());
        linalg::YieldOp::create(builder, loc, yielded);
      });
  if (failed(built))
    return failure();
  return llvm::to_vector_of<Value>(generic.getResults());
}

FailureOr<SmallVector<Value>> RowMap::build(Body body) {
  if (results.empty())
    return SmallVector<Value>();
  return product ? buildMatmul(body) : buildGeneric(body);
}
