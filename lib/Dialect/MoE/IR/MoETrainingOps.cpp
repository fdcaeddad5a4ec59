//===- MoETrainingOps.cpp - Operations of backward passes -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"
#include "moe/Dialect/Utils/DestinationEffects.h"

using namespace mlir;
using namespace mlir::moe;

static Type elementOf(Value value) {
  return cast<ShapedType>(value.getType()).getElementType();
}

//===----------------------------------------------------------------------===//
// moe.gate_gradient
//===----------------------------------------------------------------------===//

LogicalResult GateGradientOp::inferReturnTypes(
    MLIRContext *context, std::optional<Location> location, ValueRange operands,
    DictionaryAttr attributes, OpaqueProperties properties, RegionRange regions,
    SmallVectorImpl<Type> &inferred) {
  Adaptor adaptor(operands, attributes, properties, regions);
  inferred.push_back(adaptor.getLogits().getType());
  return success();
}

LogicalResult
GateGradientOp::reifyResultShapes(OpBuilder &b,
                                  ReifiedRankedShapedTypeDims &shapes) {
  shapes = {tensor::getMixedSizes(b, getLoc(), getLogits())};
  return success();
}

LogicalResult GateGradientOp::verify() {
  RankedTensorType logits = getLogits().getType(), ids = getIds().getType();
  int64_t tokens = logits.getDimSize(0), topK = getTopK();
  if (failed(verifyExperts(*this, logits)) ||
      failed(verifyChoices(*this, "ids", getIds())) ||
      failed(verifyRange(*this, "choices", topK, 1, getNumExperts())) ||
      failed(verifyShape(*this, "ids", getIds(), {tokens, topK})))
    return failure();
  if (ShapedType::isDynamic(tokens))
    tokens = ids.getDimSize(0);
  if (failed(verifyShape(*this, "a gradient", getGradient(), {tokens, topK})))
    return failure();
  if (getNoise() &&
      failed(verifyShape(*this, "noise", getNoise(), logits.getShape())))
    return failure();
  return verifyScore(*this);
}

//===----------------------------------------------------------------------===//
// moe.grouped_contract
//===----------------------------------------------------------------------===//

void GroupedContractOp::getEffects(
    SmallVectorImpl<SideEffects::EffectInstance<MemoryEffects::Effect>>
        &effects) {
  addDestinationEffects(*this, effects);
}

LogicalResult
GroupedContractOp::reifyResultShapes(OpBuilder &b,
                                     ReifiedRankedShapedTypeDims &shapes) {
  return reifyInits(*this, b, shapes);
}

LogicalResult GroupedContractOp::verify() {
  if (failed(verifyDestinations(*this)))
    return failure();
  auto lhs = cast<ShapedType>(getLhs().getType()),
       rhs = cast<ShapedType>(getRhs().getType()),
       init = cast<ShapedType>(getInit().getType());
  if (lhs.isDynamicDim(1) || rhs.isDynamicDim(1))
    return emitOpError("expected rows with static columns, got ")
           << lhs << " and " << rhs;
  if (elementOf(getLhs()) != elementOf(getRhs()))
    return emitOpError("expected rows of one type, got ")
           << elementOf(getLhs()) << " and " << elementOf(getRhs());
  int64_t experts = init.getDimSize(0);
  if (ShapedType::isDynamic(experts) || experts < 1)
    return emitOpError("expected a destination of a static, positive number "
                       "of experts, got ")
           << init;
  if (failed(verifyShape(*this, "a destination", getInit(),
                         {experts, getK(), getN()})))
    return failure();
  if (init.isDynamicDim(1) || init.isDynamicDim(2))
    return emitOpError("expected a destination of static shape, got ") << init;
  if (failed(verifyGroups(*this, experts)))
    return failure();
  auto rowsOf = [](Value rows, Value gather) {
    return cast<ShapedType>((gather ? gather : rows).getType()).getDimSize(0);
  };
  int64_t left = rowsOf(getLhs(), getLhsGather()),
          right = rowsOf(getRhs(), getRhsGather());
  if (!compatible(left, right))
    return emitOpError("expected as many rows on both sides, got ")
           << left << " and " << right;
  return success();
}
