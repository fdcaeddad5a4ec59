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

/// Returns the type `[rows, columns]` with the given element type.
static RankedTensorType matrix(int64_t rows, int64_t columns, Type element) {
  return RankedTensorType::get({rows, columns}, element);
}

/// Returns dimension `dim` of `value`, a constant if it is static.
static OpFoldResult dimOf(OpBuilder &b, Location loc, Value value,
                          int64_t dim) {
  return tensor::getMixedSize(b, loc, value, dim);
}

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

LogicalResult
GateOp::inferReturnTypes(MLIRContext *context, std::optional<Location> location,
                         ValueRange operands, DictionaryAttr attributes,
                         OpaqueProperties properties, RegionRange regions,
                         SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto logits = dyn_cast<RankedTensorType>(adaptor.getLogits().getType());
  if (!logits || logits.getRank() != 2)
    return emitOptionalError(location, "expected logits of rank 2, got ",
                             adaptor.getLogits().getType());
  // The operation is not verified yet, so this may be any type.
  Type score = Float32Type::get(context);
  if (TypeAttr scoreType = adaptor.getScoreTypeAttr())
    score = scoreType.getValue();
  int64_t tokens = logits.getDimSize(0), topK = adaptor.getTopK();
  // A negative extent would assert, so this cannot be left to the verifier.
  if (topK < 1)
    return emitOptionalError(location, "expected top_k of at least 1, got ",
                             topK);
  inferred.push_back(matrix(tokens, topK, score));
  inferred.push_back(matrix(tokens, topK, IntegerType::get(context, 32)));
  return success();
}

LogicalResult GateOp::reifyResultShapes(OpBuilder &b,
                                        ReifiedRankedShapedTypeDims &shapes) {
  OpFoldResult tokens = dimOf(b, getLoc(), getLogits(), 0);
  OpFoldResult topK = b.getIndexAttr(getTopK());
  shapes = {{tokens, topK}, {tokens, topK}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

/// Infers the types of offsets and positions, and the upper bound of the rows
/// for choices `[T, K]`, dynamic if `T` is.
template <typename AdaptorT>
static LogicalResult
inferRouting(MLIRContext *context, std::optional<Location> location,
             AdaptorT adaptor, int64_t &rows, SmallVectorImpl<Type> &types) {
  auto ids = dyn_cast<RankedTensorType>(adaptor.getIds().getType());
  if (!ids || ids.getRank() != 2)
    return emitOptionalError(location, "expected rows and ids of rank 2");
  int64_t experts = adaptor.getNumExperts();
  if (experts < 1 || experts >= INT32_MAX)
    return emitOptionalError(
        location, "expected a number of experts between 1 and 2^31 - 2, got ",
        experts);
  rows = ShapedType::kDynamic;
  if (!ids.isDynamicDim(0) && !ids.isDynamicDim(1)) {
    if (llvm::MulOverflow(ids.getDimSize(0), ids.getDimSize(1), rows) ||
        rows > INT32_MAX)
      return emitOptionalError(location,
                               "expected fewer than 2^31 choices, got ",
                               ids.getDimSize(0), " x ", ids.getDimSize(1));
    if (CapacityAttr capacity = adaptor.getCapacityAttr()) {
      int64_t slots;
      if (!llvm::MulOverflow(capacity.evaluate(ids.getDimSize(0), experts),
                             experts, slots))
        rows = std::min(rows, slots);
    }
  }
  Type i32 = IntegerType::get(context, 32);
  types.push_back(RankedTensorType::get({experts + 1}, i32));
  types.push_back(matrix(ids.getDimSize(0), ids.getDimSize(1), i32));
  return success();
}

/// Builds the upper bound of the grouped rows, as `index` arithmetic if
/// dynamic.
template <typename OpT>
static OpFoldResult buildRowBound(OpBuilder &b, OpT op, int64_t known) {
  if (!ShapedType::isDynamic(known))
    return b.getIndexAttr(known);
  Location loc = op.getLoc();
  Value t =
      getValueOrCreateConstantIndexOp(b, loc, dimOf(b, loc, op.getIds(), 0));
  Value k =
      getValueOrCreateConstantIndexOp(b, loc, dimOf(b, loc, op.getIds(), 1));
  Value rows = arith::MulIOp::create(b, loc, t, k);
  if (CapacityAttr capacity = op.getCapacityAttr()) {
    Value slots = arith::MulIOp::create(
        b, loc, buildCapacity(b, loc, capacity, t, op.getNumExperts()),
        arith::ConstantIndexOp::create(b, loc, op.getNumExperts()));
    rows = arith::MinSIOp::create(b, loc, rows, slots);
  }
  return rows;
}

LogicalResult DispatchOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto rows = dyn_cast<RankedTensorType>(adaptor.getRows().getType());
  if (!rows || rows.getRank() != 2)
    return emitOptionalError(location, "expected rows and ids of rank 2");
  int64_t bound = 0;
  SmallVector<Type, 2> types;
  if (failed(inferRouting(context, location, adaptor, bound, types)))
    return failure();
  inferred.push_back(matrix(bound, rows.getDimSize(1), rows.getElementType()));
  llvm::append_range(inferred, types);
  return success();
}

LogicalResult
DispatchOp::reifyResultShapes(OpBuilder &b,
                              ReifiedRankedShapedTypeDims &shapes) {
  OpFoldResult tokens = dimOf(b, getLoc(), getIds(), 0);
  OpFoldResult topK = dimOf(b, getLoc(), getIds(), 1);
  OpFoldResult hidden = dimOf(b, getLoc(), getRows(), 1);
  OpFoldResult rows =
      buildRowBound(b, *this, getGrouped().getType().getDimSize(0));
  shapes = {
      {rows, hidden}, {b.getIndexAttr(getNumExperts() + 1)}, {tokens, topK}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.route
//===----------------------------------------------------------------------===//

LogicalResult RouteOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  int64_t bound = 0;
  SmallVector<Type, 2> types;
  if (failed(inferRouting(context, location, adaptor, bound, types)))
    return failure();
  inferred.push_back(
      RankedTensorType::get({bound}, IntegerType::get(context, 32)));
  llvm::append_range(inferred, types);
  return success();
}

LogicalResult RouteOp::reifyResultShapes(OpBuilder &b,
                                         ReifiedRankedShapedTypeDims &shapes) {
  OpFoldResult rows =
      buildRowBound(b, *this, getTokens().getType().getDimSize(0));
  shapes = {{rows},
            {b.getIndexAttr(getNumExperts() + 1)},
            {dimOf(b, getLoc(), getIds(), 0), dimOf(b, getLoc(), getIds(), 1)}};
  return success();
}

//===----------------------------------------------------------------------===//
// moe.quantize
//===----------------------------------------------------------------------===//

/// Returns ⌈extent / block⌉ of an extent that may be dynamic.
static int64_t numBlocks(int64_t extent, int64_t block) {
  return ShapedType::isDynamic(extent)
             ? extent
             : int64_t(llvm::divideCeil(extent, block));
}

SmallVector<RankedTensorType>
QuantizeOp::getFieldTypes(ArrayRef<int64_t> matrices, bool transposed,
                          FormatAttr format) {
  SmallVector<int64_t> shape(matrices);
  if (transposed)
    std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
  auto typeOf = [&](FieldAttr field) {
    SmallVector<int64_t> extents(shape);
    int64_t *matrix = extents.end() - 2;
    matrix[0] = numBlocks(matrix[0], field.getBlockRows());
    matrix[1] = numBlocks(matrix[1], field.getBlockColumns());
    Type element = field.getElement();
    if (field.getBits()) {
      if (!ShapedType::isDynamic(matrix[1]))
        matrix[1] = field.getNumBytes(matrix[1]);
      element = IntegerType::get(format.getContext(), 8);
    } else if (element.isInteger()) {
      element = IntegerType::get(format.getContext(), field.getWidth());
    }
    return RankedTensorType::get(extents, element);
  };
  return {typeOf(format.getCodes()),
          typeOf(cast<FieldAttr>(format.getScales()[0]))};
}

LogicalResult QuantizeOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  auto source = dyn_cast<RankedTensorType>(adaptor.getSource().getType());
  if (!source || source.getRank() < 2)
    return emitOptionalError(location, "expected matrices, got ",
                             adaptor.getSource().getType());
  FormatAttr format = adaptor.getFormat();
  // The verifier says why.
  if (reasonNotToQuantize(format))
    return success();
  llvm::append_range(inferred, getFieldTypes(source.getShape(),
                                             adaptor.getTransposed(), format));
  return success();
}

LogicalResult
QuantizeOp::reifyResultShapes(OpBuilder &b,
                              ReifiedRankedShapedTypeDims &shapes) {
  for (Value field : getFields()) {
    auto type = cast<RankedTensorType>(field.getType());
    SmallVector<OpFoldResult> sizes =
        getAsIndexOpFoldResult(getContext(), type.getShape());
    for (int64_t dim = 0; dim < type.getRank(); ++dim)
      if (type.isDynamicDim(dim)) // a leading one, or rows
        sizes[dim] =
            dimOf(b, getLoc(), getSource(),
                  dim + (getTransposed() && dim == getNumLeadingDims()));
    shapes.push_back(sizes);
  }
  return success();
}

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

LogicalResult ExpertOp::reifyResultShapes(OpBuilder &b,
                                          ReifiedRankedShapedTypeDims &shapes) {
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
CombineOp::reifyResultShapes(OpBuilder &b,
                             ReifiedRankedShapedTypeDims &shapes) {
  shapes = {{dimOf(b, getLoc(), getPositions(), 0),
             dimOf(b, getLoc(), getGrouped(), 1)}};
  return success();
}
