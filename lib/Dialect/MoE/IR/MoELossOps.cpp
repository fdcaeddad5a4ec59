//===- MoELossOps.cpp - Losses and balance of routers ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// moe.auxiliary_loss and its gradient
//===----------------------------------------------------------------------===//

LogicalResult AuxiliaryLossOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  inferred.push_back(RankedTensorType::get({}, Float32Type::get(context)));
  return success();
}

LogicalResult
AuxiliaryLossOp::reifyResultShapes(OpBuilder &b,
                                   ReifiedRankedShapedTypeDims &shapes) {
  shapes = {{}};
  return success();
}

LogicalResult AuxiliaryLossGradientOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  inferred.push_back(adaptor.getValues().getType());
  return success();
}

LogicalResult AuxiliaryLossGradientOp::reifyResultShapes(
    OpBuilder &b, ReifiedRankedShapedTypeDims &shapes) {
  shapes = {tensor::getMixedSizes(b, getLoc(), getValues())};
  return success();
}

static LogicalResult verifyMask(Operation *op, Value mask, int64_t tokens) {
  return mask ? verifyShape(op, "mask", mask, {tokens}) : success();
}

/// Verifies what a formula reads, and that nothing else is given.
template <typename OpT> static LogicalResult verifyFormula(OpT op) {
  Loss formula = op.getFormula();
  StringRef name = stringifyLoss(formula);
  bool balance = formula == Loss::LoadBalance;
  bool importance = formula == Loss::Importance;
  if (bool(op.getIds()) != (balance || importance))
    return op.emitOpError()
           << name << (op.getIds() ? " takes no" : " needs") << " ids";
  if (op.getNumExperts().has_value() != importance)
    return op.emitOpError()
           << name
           << (importance ? " needs num_experts"
                          : " has as many experts as logits, and takes no "
                            "num_experts");
  if (!balance && op.getSequences())
    return op.emitOpError() << name << " takes no sequences";
  if (!balance && op.getChoices())
    return op.emitOpError() << name << " takes no choices";
  Score score = op.getScore();
  if (score != Score::Softmax && !(balance && score == Score::Sigmoid))
    return op.emitOpError()
           << name << " takes no score(" << stringifyScore(score) << ")";
  return success();
}

template <typename OpT> static LogicalResult verifyLoss(OpT op) {
  if (failed(verifyFormula(op)))
    return failure();
  RankedTensorType values = op.getValues().getType();
  int64_t tokens = values.getDimSize(0);
  if (op.getFormula() == Loss::Importance) {
    if (failed(verifyChoices(op, "ids", op.getIds())) ||
        failed(verifyRange(op, "num_experts", *op.getNumExperts(), 1,
                           INT32_MAX - 1)) ||
        failed(verifyShape(op, "weights", op.getValues(),
                           op.getIds().getType().getShape())))
      return failure();
  } else if (failed(verifyExperts(op, values))) {
    return failure();
  }
  if (op.getIds()) {
    int64_t topK = op.getIds().getType().getDimSize(1);
    if (failed(verifyChoices(op, "ids", op.getIds())) ||
        failed(verifyShape(op, "ids", op.getIds(), {tokens, topK})) ||
        failed(verifyRange(op, "choices", op.getCountedChoices(), 1, topK)))
      return failure();
  }
  if (failed(verifyMask(op, op.getMask(), tokens)))
    return failure();
  if (op.getSequences()) {
    int64_t offsets = op.getSequences().getType().getDimSize(0);
    if (ShapedType::isDynamic(offsets) || offsets < 2)
      return op.emitOpError("expected static offsets of at least 2, one more "
                            "than sequences, got ")
             << op.getSequences().getType();
  }
  return verifyFiniteF32(op, "coefficient", op.getCoefficient());
}

LogicalResult AuxiliaryLossOp::verify() { return verifyLoss(*this); }
LogicalResult AuxiliaryLossGradientOp::verify() { return verifyLoss(*this); }

//===----------------------------------------------------------------------===//
// moe.expert_load
//===----------------------------------------------------------------------===//

LogicalResult ExpertLoadOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  // A negative extent would assert, so this cannot be left to the verifier.
  int64_t experts = adaptor.getNumExperts();
  if (experts < 1 || experts >= INT32_MAX)
    return emitOptionalError(
        location, "expected a number of experts between 1 and 2^31 - 2, got ",
        experts);
  inferred.push_back(
      RankedTensorType::get({experts}, IntegerType::get(context, 32)));
  return success();
}

LogicalResult
ExpertLoadOp::reifyResultShapes(OpBuilder &b,
                                ReifiedRankedShapedTypeDims &shapes) {
  shapes = {{b.getIndexAttr(getNumExperts())}};
  return success();
}

LogicalResult ExpertLoadOp::verify() {
  return verifyMask(*this, getMask(), getIds().getType().getDimSize(0));
}

//===----------------------------------------------------------------------===//
// moe.update_bias
//===----------------------------------------------------------------------===//

LogicalResult
UpdateBiasOp::reifyResultShapes(OpBuilder &b,
                                ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

LogicalResult UpdateBiasOp::verify() {
  RankedTensorType load = getLoad().getType();
  if (load.isDynamicDim(0) || load.getDimSize(0) < 1)
    return emitOpError("expected a load of a static, positive number of "
                       "experts, got ")
           << load;
  if (failed(verifyShape(*this, "bias", getBias(), load.getShape())))
    return failure();
  return verifyFiniteF32(*this, "rate", getRate());
}
