//===- MoEParallelOps.cpp - Expert parallelism ----------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"

using namespace mlir;
using namespace mlir::moe;

LogicalResult ParallelAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                   int64_t slots, int64_t replicas,
                                   RankReduction, TokenScope) {
  if (slots < 1 || slots > INT32_MAX)
    return emitError() << "expected slots between 1 and 2^31 - 1, got "
                       << slots;
  if (replicas < 1 || replicas > INT32_MAX)
    return emitError() << "expected replicas between 1 and 2^31 - 1, got "
                       << replicas;
  return success();
}

/// Returns the type of i32 with a shape.
static RankedTensorType ofI32(MLIRContext *context, ArrayRef<int64_t> shape) {
  return RankedTensorType::get(shape, IntegerType::get(context, 32));
}

/// Checks `ids` `[T, K]` before they are verified.
static FailureOr<RankedTensorType> choicesOf(std::optional<Location> location,
                                             Value ids) {
  auto type = dyn_cast<RankedTensorType>(ids.getType());
  if (!type || type.getRank() != 2)
    return emitOptionalError(location, "expected ids of rank 2, got ",
                             ids.getType());
  return type;
}

/// Infers a result `[T, K]` of i32 from `ids` `[T, K]`.
static LogicalResult inferLike(std::optional<Location> location, Value ids,
                               SmallVectorImpl<Type> &inferred) {
  FailureOr<RankedTensorType> type = choicesOf(location, ids);
  if (failed(type))
    return failure();
  inferred.push_back(ofI32(type->getContext(), type->getShape()));
  return success();
}

//===----------------------------------------------------------------------===//
// moe.keep
//===----------------------------------------------------------------------===//

LogicalResult
KeepOp::inferReturnTypes(MLIRContext *context, std::optional<Location> location,
                         ValueRange operands, DictionaryAttr attributes,
                         OpaqueProperties properties, RegionRange regions,
                         SmallVectorImpl<Type> &inferred) {
  return inferLike(location, operands[0], inferred);
}

LogicalResult KeepOp::reifyResultShapes(OpBuilder &b,
                                        ReifiedRankedShapedTypeDims &shapes) {
  shapes = {tensor::getMixedSizes(b, getLoc(), getIds())};
  return success();
}

void KeepOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getKept(), "kept");
}

//===----------------------------------------------------------------------===//
// moe.place
//===----------------------------------------------------------------------===//

LogicalResult PlaceOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  return inferLike(location, operands[0], inferred);
}

LogicalResult PlaceOp::reifyResultShapes(OpBuilder &b,
                                         ReifiedRankedShapedTypeDims &shapes) {
  shapes = {tensor::getMixedSizes(b, getLoc(), getIds())};
  return success();
}

void PlaceOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getSlots(), "slots");
}

LogicalResult PlaceOp::verify() {
  RankedTensorType placement = getPlacement().getType();
  if (!placement.hasStaticShape() || placement.getNumElements() == 0)
    return emitOpError("expected a placement [E, R] with static, positive "
                       "extents, got ")
           << placement;
  return verifyChoices(*this, "ids", getIds());
}

//===----------------------------------------------------------------------===//
// moe.partition
//===----------------------------------------------------------------------===//

LogicalResult PartitionOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  FailureOr<RankedTensorType> slots = choicesOf(location, adaptor.getSlots());
  if (failed(slots))
    return failure();
  // A negative extent would assert, so this cannot be left to the verifier.
  int64_t ranks = adaptor.getNumRanks();
  if (ranks < 1 || ranks > INT32_MAX)
    return emitOptionalError(
        location, "expected ranks between 1 and 2^31 - 1, got ", ranks);
  int64_t tokens = slots->getDimSize(0), choices = slots->getDimSize(1);
  RankedTensorType list = ofI32(context, {tokens, choices});
  RankedTensorType counts = ofI32(context, {ranks});
  inferred.assign(
      {list, ofI32(context, {tokens, choices, choices}), counts, list, counts});
  return success();
}

LogicalResult
PartitionOp::reifyResultShapes(OpBuilder &b,
                               ReifiedRankedShapedTypeDims &shapes) {
  OpFoldResult tokens = tensor::getMixedSize(b, getLoc(), getSlots(), 0);
  OpFoldResult choices = tensor::getMixedSize(b, getLoc(), getSlots(), 1);
  OpFoldResult ranks = b.getIndexAttr(getNumRanks());
  shapes = {{tokens, choices},
            {tokens, choices, choices},
            {ranks},
            {tokens, choices},
            {ranks}};
  return success();
}

void PartitionOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getTokens(), "tokens");
  setName(getLocal(), "local");
  setName(getSend(), "send");
  setName(getHome(), "home");
  setName(getReturns(), "returns");
}

LogicalResult PartitionOp::verify() {
  if (failed(verifyRange(*this, "ranks", getNumRanks(), 1, INT32_MAX)) ||
      failed(verifyRange(*this, "slots", getNumSlots(), 1,
                         INT32_MAX / int64_t(getNumRanks()))))
    return failure();
  return verifyChoices(*this, "slots", getSlots());
}

//===----------------------------------------------------------------------===//
// moe.collect
//===----------------------------------------------------------------------===//

LogicalResult CollectOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  if (failed(inferLike(location, adaptor.getPositions(), inferred)))
    return failure();
  inferred.push_back(adaptor.getReceived().getType());
  return success();
}

LogicalResult
CollectOp::reifyResultShapes(OpBuilder &b,
                             ReifiedRankedShapedTypeDims &shapes) {
  shapes = {tensor::getMixedSizes(b, getLoc(), getPositions()),
            tensor::getMixedSizes(b, getLoc(), getReceived())};
  return success();
}

void CollectOp::getAsmResultNames(OpAsmSetValueNameFn setName) {
  setName(getOrder(), "order");
  setName(getReturns(), "returns");
}

//===----------------------------------------------------------------------===//
// moe.exchange, moe.all_gather, moe.own_rows
//===----------------------------------------------------------------------===//

LogicalResult ExchangeOp::verify() {
  if (getSources().empty())
    return emitOpError("expected a source of rows");
  if (getSources().size() != getRows().size())
    return emitOpError("expected rows for each source, ")
           << getSources().size() << ", got " << getRows().size();
  for (auto [source, rows] : llvm::zip(getSources(), getRows())) {
    auto from = cast<RankedTensorType>(source.getType());
    auto to = cast<RankedTensorType>(rows.getType());
    if (from.getRank() < 2 || to.getRank() < 2 ||
        from.getShape().back() != to.getShape().back() ||
        ShapedType::isDynamic(to.getShape().back()) ||
        from.getElementType() != to.getElementType())
      return emitOpError("expected rows of one static length and element type "
                         "on both sides, got ")
             << from << " and " << to;
  }
  if (bool(getExpect()) == bool(getReceived()))
    return emitOpError(getExpect() ? "expected no received counts, which "
                                     "expect gives"
                                   : "expected received counts without expect");
  for (Value counts : {getExpect(), getReceived()})
    if (counts && counts.getType() != getSend().getType())
      return emitOpError("expected counts of one type, ")
             << getSend().getType() << ", got " << counts.getType();
  return success();
}

/// Verifies that a tensor has rows of a static shape.
static LogicalResult verifyRows(Operation *op, Value rows) {
  auto type = cast<RankedTensorType>(rows.getType());
  if (type.getRank() < 1 ||
      llvm::any_of(type.getShape().drop_front(), ShapedType::isDynamic))
    return op->emitOpError("expected rows of a static shape, got ") << type;
  return success();
}

LogicalResult AllGatherOp::verify() { return verifyRows(*this, getSource()); }
LogicalResult OwnRowsOp::verify() { return verifyRows(*this, getAll()); }
