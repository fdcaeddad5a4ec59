//===- MoETypeInference.cpp - Result types and shapes ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoE.h"

#include "mlir/Dialect/Arith/Utils/Utils.h"

using namespace mlir;
using namespace mlir::moe;

/// The type `[rows, columns]` with the given element type.
static RankedTensorType matrix(int64_t rows, int64_t columns, Type element) {
  return RankedTensorType::get({rows, columns}, element);
}

/// Dimension `dim` of `value`, a constant where the type knows it.
static OpFoldResult dimOf(OpBuilder &b, Location loc, Value value,
                          int64_t dim) {
  return tensor::getMixedSize(b, loc, value, dim);
}

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

LogicalResult GateOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto logits = dyn_cast<RankedTensorType>(adaptor.getLogits().getType());
  if (!logits || logits.getRank() != 2)
    return emitOptionalError(location, "expected logits of rank 2, got ",
                             adaptor.getLogits().getType());
  // Any type at all, before the operation is verified.
  Type score = Float32Type::get(context);
  if (TypeAttr scoreType = adaptor.getScoreTypeAttr())
    score = scoreType.getValue();
  int64_t tokens = logits.getDimSize(0), topK = adaptor.getTopK();
  // A negative extent is not a type; the verifier says what is wrong with it.
  if (topK < 1)
    return emitOptionalError(location, "expected top_k of at least 1, got ",
                             topK);
  inferred.push_back(matrix(tokens, topK, score));
  inferred.push_back(matrix(tokens, topK, IntegerType::get(context, 32)));
  return success();
}

LogicalResult
GateOp::reifyResultShapes(OpBuilder &b, ReifiedRankedShapedTypeDims &shapes) {
  OpFoldResult tokens = dimOf(b, getLoc(), getLogits(), 0);
  OpFoldResult topK = b.getIndexAttr(getTopK());
  shapes = {{tokens, topK}, {tokens, topK}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

LogicalResult DispatchOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto rows = dyn_cast<RankedTensorType>(adaptor.getRows().getType());
  auto ids = dyn_cast<RankedTensorType>(adaptor.getIds().getType());
  if (!rows || !ids || rows.getRank() != 2 || ids.getRank() != 2)
    return emitOptionalError(location, "expected rows and ids of rank 2");
  int64_t experts = adaptor.getNumExperts();
  if (experts < 1 || experts >= INT32_MAX)
    return emitOptionalError(
        location, "expected a number of experts between 1 and 2^31 - 2, got ",
        experts);
  int64_t grouped = ShapedType::kDynamic;
  if (!ids.isDynamicDim(0) && !ids.isDynamicDim(1)) {
    if (llvm::MulOverflow(ids.getDimSize(0), ids.getDimSize(1), grouped) ||
        grouped > INT32_MAX)
      return emitOptionalError(location,
                               "expected fewer than 2^31 choices, got ",
                               ids.getDimSize(0), " x ", ids.getDimSize(1));
    if (CapacityAttr capacity = adaptor.getCapacityAttr()) {
      int64_t slots;
      if (!llvm::MulOverflow(capacity.evaluate(ids.getDimSize(0), experts),
                             experts, slots))
        grouped = std::min(grouped, slots);
    }
  }
  Type i32 = IntegerType::get(context, 32);
  inferred.push_back(
      matrix(grouped, rows.getDimSize(1), rows.getElementType()));
  inferred.push_back(RankedTensorType::get({experts + 1}, i32));
  inferred.push_back(matrix(ids.getDimSize(0), ids.getDimSize(1), i32));
  return success();
}

LogicalResult DispatchOp::reifyResultShapes(
    OpBuilder &b, ReifiedRankedShapedTypeDims &shapes) {
  Location loc = getLoc();
  OpFoldResult tokens = dimOf(b, loc, getIds(), 0);
  OpFoldResult topK = dimOf(b, loc, getIds(), 1);
  OpFoldResult hidden = dimOf(b, loc, getRows(), 1);
  OpFoldResult bound;
  if (!getGrouped().getType().isDynamicDim(0)) {
    bound = b.getIndexAttr(getGrouped().getType().getDimSize(0));
  } else {
    Value t = getValueOrCreateConstantIndexOp(b, loc, tokens);
    Value k = getValueOrCreateConstantIndexOp(b, loc, topK);
    Value rows = arith::MulIOp::create(b, loc, t, k);
    if (CapacityAttr capacity = getCapacityAttr()) {
      Value slots = arith::MulIOp::create(
          b, loc, buildCapacity(b, loc, capacity, t, getNumExperts()),
          arith::ConstantIndexOp::create(b, loc, getNumExperts()));
      rows = arith::MinSIOp::create(b, loc, rows, slots);
    }
    bound = rows;
  }
  shapes = {{bound, hidden},
            {b.getIndexAttr(getNumExperts() + 1)},
            {tokens, topK}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

LogicalResult
ExpertOp::reifyResultShapes(OpBuilder &b, ReifiedRankedShapedTypeDims &shapes) {
  RankedTensorType result = getResult().getType();
  if (result.isDynamicDim(1))
    return failure();
  shapes = {{dimOf(b, getLoc(), getGrouped(), 0),
             b.getIndexAttr(result.getDimSize(1))}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.combine
//===----------------------------------------------------------------------===//

LogicalResult CombineOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto grouped = dyn_cast<RankedTensorType>(adaptor.getGrouped().getType());
  auto positions = dyn_cast<RankedTensorType>(adaptor.getPositions().getType());
  if (!grouped || !positions || grouped.getRank() != 2 ||
      positions.getRank() != 2)
    return emitOptionalError(location,
                             "expected grouped rows and positions of rank 2");
  inferred.push_back(matrix(positions.getDimSize(0), grouped.getDimSize(1),
                            grouped.getElementType()));
  return success();
}

LogicalResult
CombineOp::reifyResultShapes(OpBuilder &b, ReifiedRankedShapedTypeDims &shapes) {
  shapes = {{dimOf(b, getLoc(), getPositions(), 0),
             dimOf(b, getLoc(), getGrouped(), 1)}};
  return success();
}
