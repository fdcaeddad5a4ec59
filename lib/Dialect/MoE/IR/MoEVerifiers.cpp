//===- MoEVerifiers.cpp - Verifiers of the operations ---------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Verification.h"

#include <cmath>

using namespace mlir;
using namespace mlir::moe;

//===----------------------------------------------------------------------===//
// moe.gate
//===----------------------------------------------------------------------===//

/// Verifies the attributes and operands of the selection.
static LogicalResult verifySelection(GateOp op, int64_t experts) {
  bool expertChoice = op.getSelection() == Selection::ExpertChoice;
  if (expertChoice != op.getCapacity().has_value())
    return op.emitOpError(expertChoice
                              ? "select(expert_choice) needs a capacity"
                              : "capacity needs select(expert_choice); that of "
                                "a dispatch is an attribute of moe.dispatch");
  if (expertChoice) {
    if (int64_t(op.getTopK()) != experts)
      return op.emitOpError()
             << "select(expert_choice) needs top_k(" << experts
             << "), one column for each expert, got " << op.getTopK();
    if (op.getGivenIds() || op.getGroups() ||
        op.getOrder() != Order::ScoreThenSelect)
      return op.emitOpError("select(expert_choice) takes no given ids, no "
                            "groups and no other order than score_then_select");
  }
  if (op.getGivenIds() && (op.getBias() || op.getGroups()))
    return op.emitOpError("expected no bias and no groups with given ids");
  if (std::optional<GroupsAttr> groups = op.getGroups()) {
    int64_t count = groups->getCount();
    if (experts % count != 0)
      return op.emitOpError() << "expected a number of groups that divides "
                              << experts << " experts, got " << count;
    int64_t size = experts / count;
    if (groups->getScore() == GroupScore::Top2Sum && size < 2)
      return op.emitOpError("group score top2_sum needs at least 2 experts in "
                            "each group, got 1");
    if (int64_t(op.getTopK()) > groups->getKeep() * size)
      return op.emitOpError()
             << "expected top_k of at most " << groups->getKeep() * size
             << ", the experts in the groups kept, got " << op.getTopK();
  }
  return success();
}

LogicalResult GateOp::verify() {
  RankedTensorType logits = getLogits().getType();
  int64_t tokens = logits.getDimSize(0), experts = logits.getDimSize(1);
  if (failed(verifyExperts(*this, logits)) ||
      failed(verifyRange(*this, "top_k", getTopK(), 1, experts)))
    return failure();
  if (getBias() && failed(verifyShape(*this, "bias", getBias(), {experts})))
    return failure();
  if (getNoise() &&
      failed(verifyShape(*this, "noise", getNoise(), {tokens, experts})))
    return failure();
  if (getGivenIds() && failed(verifyShape(*this, "given ids", getGivenIds(),
                                          {tokens, int64_t(getTopK())})))
    return failure();
  if (failed(verifyScore(*this)))
    return failure();
  if (getOrder() == Order::ScoreEachChoice && (getBias() || getGroups()))
    return emitOpError("order(score_each_choice) takes no bias and no groups");
  if (getThreshold() && getThreshold()->isNaN())
    return emitOpError("expected a threshold that is not NaN");
  return verifySelection(*this, experts);
}

//===----------------------------------------------------------------------===//
// moe.dispatch
//===----------------------------------------------------------------------===//

/// Verifies the attributes that moe.dispatch and moe.route share.
template <typename OpT>
static LogicalResult verifyRouting(OpT op, bool needsWeights,
                                   StringRef whoNeedsThem) {
  RankedTensorType ids = op.getIds().getType();
  if (failed(verifyChoices(op, "ids", op.getIds())))
    return failure();
  if (op.getWeights() &&
      failed(verifyShape(op, "weights", op.getWeights(), ids.getShape())))
    return failure();
  bool probability = op.getPriority() == Priority::Probability;
  if (!op.getWeights() && (probability || needsWeights))
    return op.emitOpError(probability ? "priority(probability)" : whoNeedsThem)
           << " needs weights";
  if (std::optional<int64_t> choices = op.getChoices())
    if (failed(verifyRange(op, "choices", *choices, 1, op.getTopK())))
      return failure();
  if (op.getOverflow() == Overflow::NextChoice) {
    if (probability)
      return op.emitOpError("overflow(next_choice) needs an order to retry in: "
                            "priority position or choice, got probability");
    if (!op.getCapacity())
      return op.emitOpError("overflow(next_choice) needs a capacity");
  }
  return success();
}

LogicalResult DispatchOp::verify() {
  RankedTensorType rows = getRows().getType(), ids = getIds().getType();
  if (!compatible(rows.getDimSize(0), ids.getDimSize(0)))
    return emitOpError("expected as many rows as tokens in ids, ")
           << ids.getDimSize(0) << ", got " << rows.getDimSize(0);
  return verifyRouting(*this, getScaleRows(), "scale_rows");
}

LogicalResult RouteOp::verify() { return verifyRouting(*this, false, ""); }

LogicalResult KeepOp::verify() {
  if (failed(verifyRange(*this, "a number of experts", getNumExperts(), 1,
                         INT32_MAX - 1)))
    return failure();
  return verifyRouting(*this, false, "");
}

//===----------------------------------------------------------------------===//
// moe.expert
//===----------------------------------------------------------------------===//

LogicalResult ExpertOp::verify() {
  RankedTensorType grouped = getGrouped().getType();
  RankedTensorType result = getResult().getType();
  RankedTensorType offsets = getOffsets().getType();
  if (offsets.isDynamicDim(0) || offsets.getDimSize(0) < 2)
    return emitOpError("expected static offsets of at least 2, one more than "
                       "experts, got ")
           << offsets;
  int64_t experts = getNumExperts(), first = getFirstExpert();
  if (failed(verifyRange(*this, "first", first, 0, experts - 1)) ||
      failed(verifyRange(*this, "count", getExpertCount(), 1, experts - first)))
    return failure();
  for (auto [index, param] : llvm::enumerate(getParams())) {
    auto type = cast<RankedTensorType>(param.getType());
    if (type.getRank() < 1 || type.getDimSize(0) != getExpertCount())
      return emitOpError("expected parameter ")
             << index << " with a leading dimension of " << getExpertCount()
             << ", one slice for each expert, got " << type;
  }
  if (!compatible(grouped.getDimSize(0), result.getDimSize(0)))
    return emitOpError("expected as many rows out as in, ")
           << grouped.getDimSize(0) << ", got " << result.getDimSize(0);
  if (result.isDynamicDim(1))
    return emitOpError("expected a result with static columns, got ") << result;
  if (getInit()) {
    if (getInit().getType() != result)
      return emitOpError("expected init of the type of the result, ")
             << result << ", got " << getInit().getType();
    if (getUncovered() == Uncovered::Zero)
      return emitOpError("init already says what the uncovered rows are; "
                         "uncovered(zero) contradicts it");
  }
  return success();
}

LogicalResult ExpertOp::verifyRegions() {
  Block &body = getBody().front();
  unsigned expected = 1 + getParams().size();
  if (body.getNumArguments() != expected)
    return emitOpError("expected a region with ")
           << expected << " arguments, the rows and a slice of each parameter, "
           << "got " << body.getNumArguments();
  RankedTensorType grouped = getGrouped().getType();
  Type rows = RankedTensorType::get(
      {ShapedType::kDynamic, grouped.getDimSize(1)}, grouped.getElementType());
  if (body.getArgument(0).getType() != rows)
    return emitOpError("expected the rows in the region to be ")
           << rows << ", got " << body.getArgument(0).getType();
  for (auto [index, param] : llvm::enumerate(getParams())) {
    auto type = cast<RankedTensorType>(param.getType());
    Type slice = RankedTensorType::get(type.getShape().drop_front(),
                                       type.getElementType());
    Type actual = body.getArgument(index + 1).getType();
    if (actual != slice)
      return emitOpError("expected the slice of parameter ")
             << index << " in the region to be " << slice << ", got " << actual;
  }
  Type yielded = RankedTensorType::get(
      {ShapedType::kDynamic, getResult().getType().getDimSize(1)},
      getResult().getType().getElementType());
  auto yield = dyn_cast<YieldOp>(body.getTerminator());
  if (!yield)
    return emitOpError("expected a region that ends with moe.yield, got ")
           << body.getTerminator()->getName();
  return verifyYield(yield, yielded);
}

//===----------------------------------------------------------------------===//
// moe.combine
//===----------------------------------------------------------------------===//

LogicalResult CombineOp::verify() {
  RankedTensorType positions = getPositions().getType();
  if (failed(verifyChoices(*this, "positions", getPositions())))
    return failure();
  if (getWeights() &&
      failed(verifyShape(*this, "weights", getWeights(), positions.getShape())))
    return failure();
  if (getNormalize() && !getWeights())
    return emitOpError("normalize needs weights");
  if (!getDropped())
    return success();
  RankedTensorType result = getResult().getType();
  if (failed(verifyShape(*this, "dropped", getDropped(), result.getShape())))
    return failure();
  Type element = getDropped().getType().getElementType();
  if (element != result.getElementType())
    return emitOpError("expected dropped rows of ")
           << result.getElementType() << ", got " << element;
  return success();
}
